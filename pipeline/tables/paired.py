"""Every two methods on the same test pairs: which differences the pairs can tell from zero."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pipeline.metrics.bootstrap import percentiles, resampled_sums


@dataclass(frozen=True)
class Scored:
    """A method's test pairs and, by metric, its score (a row of scores.parquet) and the values (N,) whose mean it is:
    those of the pairs, or for the metrics in `pooled` the score plus each pair's influence.
    """

    pairs: list[tuple]
    rows: dict[str, dict]
    values: dict[str, np.ndarray]
    pooled: set[str]


@dataclass(frozen=True)
class Difference:
    """One metric of two methods on the same test pairs: `one` minus `other`."""

    dataset: str
    metric: str
    protocol: str
    one: str
    other: str
    difference: float
    low: float
    high: float
    n: int
    verdict: str  # the name of the better one, or "tie"
    seeds: str = ""  # how many of `one` and of `other`, "3 1", where either has several; then, over seeds:
    seeds_difference: float | str = ""
    seeds_low: float | str = ""
    seeds_high: float | str = ""


def differences(
    methods: Mapping[tuple[str, str], Scored], resamples: int, seed: int, alters_measure: set[str]
) -> list[Difference]:
    """Every two methods of a data set ((data set, name) -> scores), metric by metric, in the order of `methods`.

    Paired bootstrap: the pairs are resampled, and both methods with them. Only scores of one protocol are compared, and
    of networks that differ by no mark of `alters_measure`. Methods with other pairs are compared on those that both
    have, and by metrics that are plain means over pairs. A tie is a 95 % interval that holds zero.
    """
    groups: dict[tuple, list[tuple[dict, bool, np.ndarray]]] = defaultdict(list)  # by the pairs that enter
    for (dataset, one), (where, other) in combinations(methods, 2):
        if dataset != where:
            continue
        a, b = methods[dataset, one], methods[dataset, other]
        place = {pair: number for number, pair in enumerate(b.pairs)}
        mine = [number for number, pair in enumerate(a.pairs) if pair in place]
        theirs = [place[a.pairs[number]] for number in mine]
        same = len(mine) == len(a.pairs) == len(b.pairs)
        for name in [name for name in a.values if name in b.values]:
            row, other_row = a.rows[name], b.rows[name]
            altered = alters_measure & (set(row["marks"]) ^ set(other_row["marks"]))
            if row["protocol"] != other_row["protocol"] or altered or not (same or name not in a.pooled):
                continue
            apart = a.values[name][mine] - b.values[name][theirs]
            kept = np.isfinite(apart)
            if kept.sum() > 1:
                about = {"dataset": dataset, "metric": name, "protocol": row["protocol"], "one": one, "other": other}
                groups[len(kept), kept.tobytes()].append((about, row["higher_is_better"], apart[kept]))
    result = []
    for group in groups.values():
        columns = np.stack([apart for _, _, apart in group], axis=1)
        n = len(columns)
        lows, highs = percentiles(resampled_sums(columns, resamples, seed) / n)
        for (about, higher, apart), low, high in zip(group, lows.tolist(), highs.tolist(), strict=True):
            better = about["one"] if (low > 0) == higher else about["other"]
            numbers = {"difference": float(apart.mean()), "low": low, "high": high, "n": n}
            result.append(Difference(**about, **numbers, verdict="tie" if low <= 0 <= high else better))
    return result
