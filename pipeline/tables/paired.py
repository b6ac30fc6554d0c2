"""Every two methods on the same test pairs: which differences are larger than chance, over pairs and over seeds."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations

import numpy as np
import pandas as pd

from pipeline.core import schema, store
from pipeline.core.console import say
from pipeline.metrics.bootstrap import percentiles, resampled_sums
from pipeline.tables.inputs import Run, Runs, altered
from pipeline.tables.over_seeds import difference
from pipeline.tables.papers import in_column_order


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


def pair_values(run: Run) -> pd.DataFrame:
    """A row for each test pair, a column for each metric of which the run's score is a mean over the pairs: of its
    values or, if the score is no plain mean, of the score plus each pair's influence on it (listed in `attrs`).
    """
    filters = [("step", "=", run.chosen["step"]), ("split", "=", "test")]
    table = store.read_table(run.pairs, filters=filters).to_pandas()
    values = {}
    for metric, row in run.test.items():
        if metric + schema.INFLUENCE in table:
            values[metric] = row["value"] + table[metric + schema.INFLUENCE]
        elif metric in table:
            values[metric] = table[metric]
    keys = pd.MultiIndex.from_frame(table[["pair_index", "source_id", "target_id"]])
    found = pd.DataFrame(values).set_index(keys)
    found.attrs["pooled"] = {metric for metric in values if metric + schema.INFLUENCE in table}
    return found


def together(runs: Sequence[Run], tables: Sequence[pd.DataFrame]) -> Iterator[tuple[str, np.ndarray]]:
    """Each metric by which runs can be compared, and (P, M): their values on the pairs that all of them have, NaN where
    one lacks it. tables: `pair_values` of each.
    """
    shared = reduce(pd.Index.intersection, (table.index for table in tables))
    same, pooled = all(len(table) == len(shared) for table in tables), tables[0].attrs["pooled"]
    tables = [table.reindex(shared) for table in tables]
    for metric in [name for name in tables[0] if all(name in table for table in tables)]:
        alike = {(run.test[metric]["protocol"], altered(run.test[metric]["marks"])) for run in runs}
        if len(alike) == 1 and (same or metric not in pooled):
            yield metric, np.stack([table[metric] for table in tables], axis=1)


def differences(two: Iterable[tuple[Run, Run]], resamples: int, seed: int) -> list[Difference]:
    """Two methods each of one data set, metric by metric, from their test pairs.

    Paired bootstrap: the pairs are resampled, and both methods with them. Only scores of one protocol are compared, and
    only if the same kind of network measured both. Methods with different pairs are compared on those that both have,
    and by metrics that are plain means over pairs. A tie is a 95 % interval that contains zero.
    """
    two, known = list(two), {}
    for run in dict.fromkeys(run for both in two for run in both):
        if run.pairs.exists():
            known[run] = pair_values(run)
        else:
            say(f"{run.dataset}/{run.name}: no values for each pair; not compared with other methods")
    groups: dict[tuple, list[tuple[Run, Run, str, np.ndarray]]] = defaultdict(list)  # by the pairs that enter
    for one, other in two:
        if one.dataset != other.dataset or not {one, other} <= known.keys():
            continue
        for metric, values in together((one, other), (known[one], known[other])):
            apart = values[:, 0] - values[:, 1]
            kept = np.isfinite(apart)
            if kept.sum() > 1:
                groups[len(kept), kept.tobytes()].append((one, other, metric, apart[kept]))
    found = []
    for group in groups.values():
        columns = np.stack([apart for *_, apart in group], axis=1)
        lows, highs = percentiles(resampled_sums(columns, resamples, seed) / len(columns))
        for (one, other, metric, apart), low, high in zip(group, lows.tolist(), highs.tolist(), strict=True):
            better = one if (low > 0) == one.test[metric]["higher_is_better"] else other
            about = (one.dataset, metric, one.test[metric]["protocol"], one.name, other.name)
            verdict = "tie" if low <= 0 <= high else better.name
            found.append(Difference(*about, float(apart.mean()), low, high, len(columns), verdict))
    return found


def over_seeds(found: Difference, runs: Runs) -> Difference:
    """Add what several seeds say. It is then a tie unless both intervals, over pairs and over seeds, say the same.

    Methods that were scored on different pairs are not compared over seeds.
    """
    sides = [runs[found.dataset, name] for name in (found.one, found.other)]
    several = [run.over_seeds.get(("test", found.metric)) for run in sides]
    rows = [run.test[found.metric] for run in sides]
    if several == [None, None] or len({row["n"] + row["excluded"] for row in rows}) > 1:
        return found
    values = [known or row["value"] for known, row in zip(several, rows, strict=True)]
    chance = tuple(run.kind != "floor" for run in sides)
    apart, low, high = difference(*values, chance=chance)
    better = found.one if (apart > 0) == rows[0]["higher_is_better"] else found.other
    return replace(
        found,
        verdict="tie" if low <= 0 <= high or better != found.verdict else better,
        seeds=" ".join(str(known.seeds if known else 1) for known in several),
        seeds_difference=apart,
        seeds_low=low,
        seeds_high=high,
    )


def compared(runs: Runs, resamples: int, seed: int) -> list[Difference]:
    """Every two methods: the first seed of each on the test pairs and, where one has several, their means over seeds.

    In the order of `runs` and of the papers' columns.
    """
    found = differences(combinations(runs.values(), 2), resamples, seed)
    order, metrics = list(runs), in_column_order(one.metric for one in found)

    def place(one: Difference) -> tuple[int, ...]:
        return *(order.index((one.dataset, name)) for name in (one.one, one.other)), metrics.index(one.metric)

    return sorted((over_seeds(one, runs) for one in found), key=place)
