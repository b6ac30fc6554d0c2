"""Kendall's tau between a metric and raters, held to SciPy's, and what its interval is of."""

import csv

import numpy as np
import pytest
from scipy.stats import kendalltau

from pipeline.core import layout
from pipeline.stages import tables
from pipeline.studies.votes import Vote
from pipeline.tables.agreement import counted, kendall, tau
from tests.stages.test_tables import read, scored, text, write_method  # noqa: F401  (scored is a fixture)
from tests.tables.test_studies import write as write_study

RANDOM = np.random.default_rng(6)


def test_tau_is_scipys_with_ties_and_row_by_row():
    one, other = RANDOM.integers(0, 4, (2, 30, 6)).astype(float)
    expected = [kendalltau(a, b).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(kendall(one, other), expected)
    assert np.isnan(kendall(np.ones(4), np.arange(4.0)))


def study(order: list[int], spread: float, raters: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Votes of raters who are for method m with a share that follows `order`, each out of ten."""
    share = 0.2 + 0.15 * np.array(order) + RANDOM.normal(0, spread, (raters, len(order)))
    return 10 * share.clip(0, 1), np.full((raters, len(order)), 10.0)


def test_a_metric_that_orders_as_raters_do_agrees_and_its_mirror_does_not():
    values = np.array([0.1, 0.4, 0.2, 0.8]) + RANDOM.normal(0, 0.01, (50, 4))
    values[3] = np.nan  # of a pair without a value
    votes = study([0, 2, 1, 3], 0.01)
    assert tau(values, *votes, 500, 0) == (1, 1, 1)
    assert tau(-values, *votes, 500, 0) == (-1, -1, -1)


def test_the_interval_widens_with_the_raters_and_with_the_pairs():
    values, sure = np.array([0.1, 0.2, 0.4, 0.8]) + RANDOM.normal(0, 0.01, (50, 4)), study([0, 1, 2, 3], 0.01)
    unsure = study([0, 1, 2, 3], 0.8, raters=4)
    assert tau(values, *unsure, 500, 0).low < tau(values, *sure, 500, 0).low == 1
    noisy = values + RANDOM.normal(0, 2, values.shape)
    assert tau(noisy, *sure, 500, 0).low < 1


@pytest.mark.parametrize("values", [np.zeros((9, 3)), np.full((9, 3), np.nan)])
def test_nothing_is_said_where_nothing_is_ordered(values):
    found = tau(values, *study([0, 1, 2], 0.01), 200, 0)
    assert np.isnan(found).all()


def vote(rater: str, method: str, answer: str, **more) -> Vote:
    known = {"kind": "judge", "pair": 0, "real": False, "counted": True, "ms": 900, "item": 1}
    return Vote(rater=rater, method=method, answer=answer, **known | more)


def write_votes(name: str, votes: list[Vote]) -> None:
    with (layout.study(name) / "votes.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([Vote._fields, *votes])


def test_votes_are_counted_by_rater_and_method(tmp_path, monkeypatch):
    """Of judgements those of generated pictures that count; of choices each asks about all methods."""
    monkeypatch.chdir(tmp_path)
    layout.study("s").mkdir(parents=True)
    best = {"kind": "choose", "real": None}
    write_votes(
        "s",
        [
            vote("r1", "a", "real"), vote("r1", "a", "fake"), vote("r1", "b", "fake"), vote("r2", "b", "real"),
            vote("r1", "a", "real", real=True), vote("r1", "a", "real", counted=False),
            vote("r2", "b", "best", **best), vote("r2", "a", "best", **best), vote("r2", "b", "best", **best),
        ],
    )  # fmt: skip
    path = layout.study("s") / "votes.csv"
    hits, asked = counted(path, ["a", "b"], "g2r")
    assert (hits.tolist(), asked.tolist()) == ([[1, 0], [0, 1]], [[2, 1], [0, 1]])
    hits, asked = counted(path, ["a", "b"], "prefer")
    assert (hits.tolist(), asked.tolist()) == ([[1, 2]], [[3, 3]])  # only raters who were asked


def test_a_study_says_which_metric_orders_as_its_raters_do(scored):  # noqa: F811
    """SSIM does, LPIPS does the opposite; both as goodness, though lower is better of one."""
    for place, name in enumerate(("copy_source", "mean_image", "spig")):
        hard = RANDOM.normal(0, 0.01, 40)
        write_method(name, {"ssim": 0.2 + 0.2 * place + hard, "lpips-alex-v0.1": 0.2 + 0.2 * place + hard}, {})
    folder = layout.outside("synthetic", "spig")  # nobody was asked about this one
    folder.mkdir(parents=True)
    write_method("SPIG", {"ssim": np.zeros(40), "lpips-alex-v0.1": np.zeros(40)}, {}, folder)
    methods = {"copy_source": "variant", "mean_image": "variant", "spig": "variant", "Theirs": "folder"}
    write_study("asked", "synthetic", "spig", methods, {})
    votes = [
        vote(f"r{rater}", name, "real" if item < 2 + 4 * place else "fake")
        for rater in range(6)
        for place, name in enumerate(methods)
        for item in range(12)
    ]
    write_votes("asked", votes)
    tables.run()
    rows = {row["metric"]: row for row in read("agreement.csv")}
    assert [float(rows["ssim"][key]) for key in ("tau", "low", "high")] == [1, 1, 1]
    assert float(rows["lpips-alex-v0.1"]["tau"]) == -1
    assert (rows["ssim"]["methods"], rows["ssim"]["pairs"], rows["ssim"]["raters"]) == ("3", "40", "6")
    assert "Agreement with the raters of study asked, g2r: ssim, Kendall's tau 1.00" in text("controls.md")
