"""The commands beside the stages: repose COMMAND.

Layer 10; may import: every room below.
"""


def positive(text: str) -> int:
    """An option's whole number of 1 or more. Raises ValueError, which argparse reports, for any other text."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value
