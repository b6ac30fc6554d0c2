"""How well a metric orders methods as people do: Kendall's tau over the methods of a user study, with its interval."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.core import layout
from pipeline.metrics.bootstrap import percentiles, resampled_sums
from pipeline.tables.inputs import Run, Runs
from pipeline.tables.paired import pair_values, together
from pipeline.tables.papers import in_column_order
from pipeline.tables.studies import Study

MEASURES = ("g2r", "prefer")  # of pictures that methods drew
FEWEST = 3  # methods: two are ordered alike or not


class Tau(NamedTuple):
    """value: from -1 (the opposite order) to 1 (the same). All NaN where one side ties all methods."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Agreement:
    """One metric against one measure of a study; high values of both are good ones."""

    dataset: str
    study: str
    measure: str
    metric: str
    tau: float
    low: float
    high: float
    methods: int
    pairs: int
    raters: int


def kendall(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(..., M) twice -> (...): Kendall's tau-b, which counts ties on neither side; NaN where a side is all ties."""
    first, second = np.triu_indices(one.shape[-1], 1)
    signs = [np.sign(side[..., first] - side[..., second]) for side in (one, other)]
    with np.errstate(invalid="ignore"):
        scale = np.sqrt(np.square(signs[0]).sum(-1) * np.square(signs[1]).sum(-1))
        return (signs[0] * signs[1]).sum(-1) / scale


def tau(values: np.ndarray, hits: np.ndarray, asked: np.ndarray, resamples: int, seed: int) -> Tau:
    """A metric against raters, over M methods.

    values: (P, M), each method's on the same pairs, higher being better; a pair that lacks one does not count. hits,
    asked: (R, M), how often each rater was for a method, and out of how many times. The interval, 95 %, is that of
    pairs and raters, each resampled; the methods are those of the study, and no sample of others.
    """
    values = values[np.isfinite(values).all(axis=1)]
    if not len(values):
        return Tau(np.nan, np.nan, np.nan)
    means = resampled_sums(values, resamples, seed) / len(values)
    with np.errstate(invalid="ignore"):
        rates = resampled_sums(hits, resamples, seed + 1) / resampled_sums(asked, resamples, seed + 1)
        taus = kendall(means, rates)
        value = float(kendall(values.mean(axis=0), hits.sum(axis=0) / asked.sum(axis=0)))
    known = taus[np.isfinite(taus)]
    if not np.isfinite(value) or not len(known):
        return Tau(np.nan, np.nan, np.nan)
    low, high = percentiles(known[:, None])
    return Tau(value, float(low[0]), float(high[0]))


def counted(path: Path, methods: Sequence[str], measure: str) -> tuple[np.ndarray, np.ndarray]:
    """votes.csv of a study -> (R, M) twice: how often each rater was for a method, and out of how many times."""
    with path.open(newline="", encoding="utf-8") as handle:
        votes = list(csv.DictReader(handle))
    raters = sorted({vote["rater"] for vote in votes})
    hits, asked = np.zeros((2, len(raters), len(methods)))
    for vote in votes:
        rater = raters.index(vote["rater"])
        own = [method == vote["method"] for method in methods]
        if measure == "prefer" and vote["kind"] == "choose":  # among the pictures of all methods
            hits[rater] += own
            asked[rater] += 1
        elif measure == "g2r" and vote["kind"] == "judge" and (vote["counted"], vote["real"]) == ("True", "False"):
            hits[rater] += np.array(own) * (vote["answer"] == "real")
            asked[rater] += own
    return hits[asked.any(axis=1)], asked[asked.any(axis=1)]


def of_study(study: Study, runs: Runs, resamples: int, seed: int) -> list[Agreement]:
    """Every metric that its methods have by one protocol, on the pairs that all of them have; of those that no run
    here is called by, none. A variant's name is its own alone: a folder of images may be called so in capitals.
    """
    found = {(run.kind == "outside", run.name.casefold()): run for run in runs.values() if run.dataset == study.dataset}
    named = {name: (kind == "folder", name.casefold()) for name, kind in study.about["methods"].items()}
    methods = {name: found[key] for name, key in named.items() if key in found}
    path = layout.study(study.name) / "votes.csv"
    if len(methods) < FEWEST or not path.exists() or not all(run.pairs.exists() for run in methods.values()):
        return []
    rows = []
    values = _values(list(methods.values()))
    for measure in MEASURES:
        hits, asked = counted(path, list(methods), measure)
        for metric in in_column_order(values) if len(hits) and asked.any(axis=0).all() else ():
            one = tau(values[metric], hits, asked, resamples, seed)
            if np.isfinite(one.value):
                counts = (len(methods), int(np.isfinite(values[metric]).all(axis=1).sum()), len(hits))
                rows.append(Agreement(study.dataset, study.name, measure, metric, *one, *counts))
    return rows


def _values(runs: Sequence[Run]) -> dict[str, np.ndarray]:
    """Metric -> (P, M): of each pair that all have, higher being better."""
    higher = {metric: score["higher_is_better"] for metric, score in runs[0].test.items()}
    every = together(runs, [pair_values(run) for run in runs])
    return {metric: values if higher[metric] else -values for metric, values in every}


def of_studies(studies: Iterable[Study], runs: Runs, resamples: int, seed: int) -> list[Agreement]:
    return [row for study in studies for row in of_study(study, runs, resamples, seed)]
