"""The commands beside the stages: python -m pipeline COMMAND."""
