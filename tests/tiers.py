"""What of a test over all entries of models/ the quick tier runs: whole systems, and not their ablations.

Those are the same networks with a part left out or changed, and their runs are marked `slow`. That each differs in
nothing else from the system that it is an ablation of is tested in the quick tier: tests/models/test_ablations.py.
"""

from collections.abc import Iterable

import pytest

from tests.models.test_ablations import ABLATIONS


def entries(names: Iterable[str]) -> list:
    """The names as parameters of a test, ablations marked as slow."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in ABLATIONS)) for name in names]
