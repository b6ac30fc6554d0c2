"""How generated images are judged: what all scores of a data set share, the judge, costs, failures.

`from pipeline.scoring import compare` scores a folder of images against another, without a data set.

Layer 6; may import: core, anatomy, fetching, formats, loading, extraction, metrics, figures, models.
"""

from importlib import import_module


def __getattr__(name: str):
    """`compare` is looked up when it is asked for: no stage needs it."""
    if name == "compare":
        return import_module("pipeline.scoring.comparison").compare
    raise AttributeError(f"module {__name__} has no attribute {name}")
