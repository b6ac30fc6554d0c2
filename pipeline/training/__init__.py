"""The training loop, what it is fed, and the state from which a stopped run goes on.

Layer 5; may import: core, anatomy, drawing, formats, loading, models.

    from pipeline.training import load_run

gives a trained run to draw with (`pipeline.loading.runs`).
"""


def __getattr__(name: str):
    """`load_run`, which needs torch, once it is asked for."""
    if name != "load_run":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline.loading.runs import load_run

    return load_run
