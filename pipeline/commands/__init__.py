"""The commands beside the stages: repose COMMAND.

Layer 10; may import: every room below.
"""
