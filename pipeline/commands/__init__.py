"""The commands beside the stages: python -m pipeline COMMAND.

Layer 10; may import: every room below.
"""
