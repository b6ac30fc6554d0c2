"""What `score` wrote about a method's network: its cost, its training, whether it sees the target's parsing."""

import json
from typing import Any

from pipeline.core import layout
from pipeline.core.errors import UserError


def read(dataset: str, variant: str) -> dict[str, Any]:
    """Raises UserError if the file is missing or damaged."""
    path = layout.network(dataset, variant)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        assert {"parameters", "macs", "checkpoint_bytes", "trained"} <= found.keys()
    except FileNotFoundError:
        raise UserError(f"{path}: not there; run the stage that writes it (snakemake --cores all)") from None
    except (ValueError, AttributeError, AssertionError):
        raise UserError(f"{path}: damaged; run score again") from None
    return found
