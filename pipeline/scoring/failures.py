"""Which pairs a method fails on most: their pictures are kept for the report's failure gallery."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

KEPT = 4  # pairs by each criterion
SAMPLE = "sample"  # in the column `why` of samples.parquet, beside the criteria's metrics: one of the first pairs


@dataclass(frozen=True)
class Criterion:
    """`metric`: how the name of the metric that ranks pairs begins. `then`: the metric that ranks those that are equal,
    the highest the worst; a pair without a value of `then` is worse than any with one.
    """

    metric: str
    worst_is_highest: bool
    title: str
    then: str = ""


CRITERIA = (
    Criterion("lpips", True, "Highest LPIPS"),
    Criterion("identity-target", False, "Lowest identity"),
    Criterion("pckh", False, "Most joints missed", then="pose-error-px"),
)


def of_metric(name: str, criteria: Sequence[Criterion] = CRITERIA) -> Criterion | None:
    """The criterion that a metric belongs to, such as that of "lpips-alex-v0.1"; None if it has none."""
    return next((criterion for criterion in criteria if name.startswith(criterion.metric)), None)


def worst(
    values: Mapping[str, np.ndarray],
    count: int = KEPT,
    hopeless: Sequence[bool] | np.ndarray = (),
    criteria: Sequence[Criterion] = CRITERIA,
) -> dict[str, list[int]]:
    """Metric -> the positions of the `count` worst pairs by it, the worst first; equal pairs in the order of the list.

    values: by metric, (N,) with NaN where a pair has none; metrics without a criterion are ignored. hopeless: (N,)
    bool, pairs in which no joint can be right (a head box without width or height): that is no method's failure, so
    they are not ranked by joints.
    """
    found = {}
    for name, column in values.items():
        criterion = of_metric(name, criteria)
        if criterion is None or ":" in name:
            continue
        badness = column if criterion.worst_is_highest else -column
        if criterion.metric == "pckh" and len(hopeless):
            badness = np.where(hopeless, np.nan, badness)
        second = values.get(criterion.then)
        tied = np.zeros(len(column)) if second is None else np.where(np.isnan(second), np.inf, second)
        order = np.lexsort((np.arange(len(column)), -tied, -badness))  # NaN goes last
        found[name] = [int(place) for place in order[:count] if np.isfinite(badness[place])]
    return found
