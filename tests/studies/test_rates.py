"""What votes say: the papers' per cents from whole votes, and raters of known skill as the oracle of the intervals."""

import math

import numpy as np
import pytest

from pipeline.studies.draw import FORMS, Group, sheets
from pipeline.studies.rates import Rate, differences, rates, wilson
from pipeline.studies.votes import Vote, gather, pool
from tests.studies.raters import filled, key_of

# SPIG, Table 2: 30 people picked the best of five 30 times; votes of 900, and what the paper prints.
METHODS = ("VU-Net", "Def-GAN", "PATN", "DIST", "SPIG")
SPIG = {
    "market1501": {(103, "11.44"), (90, "10.00"), (126, "14.00"), (208, "23.11"), (373, "41.45")},
    "deepfashion": {(9, "1.00"), (13, "1.44"), (20, "2.22"), (260, "28.89"), (598, "66.45")},
}


def by_method(found: list[Rate], measure: str) -> dict[str, Rate]:
    return {one.method: one for one in found if one.measure == measure}


@pytest.mark.parametrize("dataset", SPIG)
def test_the_preferences_of_spigs_table_are_whole_votes(dataset):
    """The last is rounded up there, so that the column adds up to 100."""
    cells = sorted(SPIG[dataset])
    picks = iter(np.random.default_rng(0).permutation(np.repeat(METHODS, [count for count, _ in cells])).tolist())
    key = key_of(sheets(FORMS["spig"].resized(0, None), METHODS, {pair: str(pair) for pair in range(300)}, 30, 0))
    counted, _ = gather({rater: filled(key, rater, lambda item: next(picks)) for rater in key["raters"]}, key)
    found = by_method(rates(pool(counted, key), METHODS, 100), "prefer")
    assert {(one.raters, one.votes) for one in found.values()} == {(30, 900)}
    printed = [text for _, text in cells]
    *others, most = [f"{found[method].value:.2f}" for method in METHODS]
    assert others == printed[:-1]
    assert float(most) + 0.01 == pytest.approx(float(printed[-1]))
    assert 100 - sum(map(float, others)) == pytest.approx(float(printed[-1]))
    for one in found.values():
        assert one.low < one.value < one.high


def test_each_measure_is_over_its_own_pictures():
    """Of 8 of a method, the first not counted; what is hit is another picture than what could be."""

    def vote(item: int, real: bool, answer: str, counted: bool = True, method: str = "a") -> Vote:
        return Vote("1", item, "judge", method, item, real, answer, counted, 1)

    votes = [
        vote(1, True, "fake", counted=False), vote(2, True, "fake"), vote(3, True, "real"), vote(4, True, "real"),
        vote(5, False, "real"), vote(6, False, "fake"), vote(7, False, "real", method="b"),
        Vote("1", 8, "choose", "b", 8, None, "best", True, 1), Vote("1", 9, "choose", "a", 9, None, "best", True, 1),
        Vote("1", 10, "choose", "b", 10, None, "best", True, 1),
    ]  # fmt: skip
    found = {(one.measure, one.method): one for one in rates(votes[:6] + votes[7:], ["a"])}
    assert (found["r2g", "a"].hits, found["r2g", "a"].votes) == (1, 3)
    assert (found["g2r", "a"].hits, found["g2r", "a"].votes) == (1, 2)
    assert found["prefer", "a"].value == pytest.approx(100 / 3)
    assert math.isnan(found["prefer", "a"].low)  # one rater tells nothing of others
    both = rates(votes, ["a", "b"])
    assert by_method(both, "g2r")["b"].value == 100
    assert "b" not in by_method(both, "r2g")  # no real picture was shown in b's list
    assert sum(one.value for one in by_method(both, "prefer").values()) == pytest.approx(100)
    assert {one.verdict for one in differences(votes, ["a", "b"])} == {"tie"}


def test_wilsons_interval_is_the_textbooks():
    assert wilson(0.0, 10, 1.959964) == pytest.approx((0.0, 0.27753), abs=1e-5)
    assert wilson(0.5, 20, 1.959964) == pytest.approx((0.299298, 0.700702), abs=1e-5)


PEOPLE, PICTURES = 0.8, 0.8  # standard deviations of a rater's and a picture's part in the answer, in logits
FOOLED = {"good": 0.2, "bad": -1.5}  # logit of being taken for real, by an average rater of an average picture
DOUBT = -1.0  # of a real one being called fake
LIKED = {"good": 0.8, "bad": 0.0}  # utility


def _logistic(x):
    return 1 / (1 + np.exp(-x))


def expected(measure: str, method: str, draws: int = 200_000) -> float:
    """In per cent, over all raters and pictures."""
    random = np.random.default_rng(9)
    spread = PEOPLE * random.normal(size=draws) + PICTURES * random.normal(size=draws)
    if measure == "prefer":
        other = next(name for name in LIKED if name != method)
        return 100 * _logistic(LIKED[method] - LIKED[other] + (spread if method == "good" else -spread)).mean()
    return 100 * _logistic((DOUBT if measure == "r2g" else FOOLED[method]) + spread).mean()


def simulated(seed: int, raters: int, pairs: int, images: int, groups: int) -> list[Vote]:
    """A study of raters of known skill, each of whom leans to real or fake, and to one of the methods."""
    random = np.random.default_rng([seed, 77])
    key = key_of(
        sheets(FORMS["spig"].resized(images, groups), list(FOOLED), {n: str(n) for n in range(pairs)}, raters, seed)
    )
    leaning = {rater: PEOPLE * random.normal(size=3) for rater in key["raters"]}
    looks = PICTURES * random.normal(size=(pairs, 4))  # of the target, of each method's picture, of a set

    def answer(rater: str):
        def given(item) -> str:
            mine, its = leaning[rater], looks[item.pair]
            if isinstance(item, Group):
                good = _logistic(LIKED["good"] - LIKED["bad"] + mine[2] + its[3])
                return "good" if random.random() < good else "bad"
            if item.real:
                return "fake" if random.random() < _logistic(DOUBT + mine[0] + its[0]) else "real"
            other = 1 + list(FOOLED).index(item.method)
            return "real" if random.random() < _logistic(FOOLED[item.method] + mine[1] + its[other]) else "fake"

        return given

    counted, left_out = gather({rater: filled(key, rater, answer(rater)) for rater in key["raters"]}, key)
    assert not left_out
    return pool(counted, key)


CELLS = [(measure, method) for measure in ("r2g", "g2r", "prefer") for method in FOOLED]


def test_raters_of_known_skill_are_found_out():
    """A large study: each expected rate is within the interval, and the interval is no wider than it must be."""
    votes = simulated(3, raters=40, pairs=400, images=33, groups=20)
    for one in rates(votes, list(FOOLED), 500):
        assert one.low < expected(one.measure, one.method) < one.high, one
        # a rater's leaning alone gives a deviation of about 15 points, and so half an interval of 5
        assert 3 < one.high - one.low < 16, one
    verdicts = {(one.measure, one.verdict) for one in differences(votes, list(FOOLED), 500)}
    assert verdicts == {("r2g", "tie"), ("g2r", "good"), ("prefer", "good")}


def test_methods_that_are_alike_are_a_tie(monkeypatch):
    monkeypatch.setitem(LIKED, "good", LIKED["bad"])
    monkeypatch.setitem(FOOLED, "good", FOOLED["bad"])
    votes = simulated(0, raters=12, pairs=100, images=10, groups=10)
    assert [one.verdict for one in differences(votes, list(FOOLED), 300)] == ["tie"] * 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("raters", "pairs", "images", "groups"),
    [(12, 400, 11, 10), (30, 30, 11, 20), (6, 400, 22, 20)],
    ids=("pairs-seen-once", "pairs-seen-by-all", "few-raters"),
)
def test_intervals_hold_what_they_promise(raters, pairs, images, groups):
    """Of 150 studies, 95 % within what chance allows; neither by far too few nor, of all cells together, all."""
    held = np.zeros(len(CELLS))
    truth = {cell: expected(*cell) for cell in CELLS}
    for seed in range(150):
        found = {
            (one.measure, one.method): one
            for one in rates(simulated(seed, raters, pairs, images, groups), list(FOOLED), 200)
        }
        held += [found[cell].low < truth[cell] < found[cell].high for cell in CELLS]
    assert (held / 150 > 0.90).all(), held / 150
    assert held.mean() / 150 < 0.985, held / 150
