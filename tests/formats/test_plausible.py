import cv2
import numpy as np
import pytest

from pipeline.anatomy import labels, pose
from pipeline.core.errors import UserError
from pipeline.formats import annotations, label_files, plausible
from tests.small_project import PERSON

HEIGHT, WIDTH = 128, 64
SIZE = np.array([WIDTH, HEIGHT])
MANY = 60


def crowd(count: int = MANY, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Joints (N, 18, 2) of people who stand in the middle, scores (N, 18): a fifth of the joints is missing."""
    rng = np.random.default_rng(seed)
    points = rng.normal(PERSON, 1.5, (count, 18, 2)) + rng.normal((0, 0), (4, 2), (count, 1, 2))
    scores = (rng.random((count, 18)) < 0.8) * rng.uniform(0.3, 1, (count, 18))
    return np.where((scores > 0)[..., None], points.clip(0, SIZE - 1), 0).astype(np.float32), scores.astype(np.float32)


def found(points: np.ndarray, scores: np.ndarray, centred=True, splits=None) -> list[plausible.Finding]:
    sizes = np.tile((HEIGHT, WIDTH), (len(points), 1))
    return plausible.joints(np.where((scores > 0)[..., None], points, 0), scores, sizes, splits, centred)


def said(findings: list[plausible.Finding]) -> str:
    return "; ".join(one.text for one in findings)


def test_people_in_the_middle_are_believed():
    for count in (1, 2, 5, MANY):
        assert found(*crowd(count)) == []
    assert found(*crowd(), splits=np.array(["train", "test"])[np.arange(MANY) % 2]) == []
    nobody = np.zeros((3, 18, 2), np.float32), np.zeros((3, 18), np.float32)
    assert found(*nobody) == []


PLAIN = {  # what makes of right joints wrong ones, and what is said
    "parts of the sides": (lambda j, s: (j / SIZE, s), r"x 0.* parts of width and height.*keypoint_scale 0"),
    "from -1 to 1": (lambda j, s: (2 * j / SIZE - 1, s), r"parts of width and height"),
    "all in one place": (lambda j, s: (j / 100 + 50, s), r"all joints lie at x 50"),
    "photograph's pixels": (lambda j, s: (5 * j, s), r"lie outside the image: x .* of 128x64 .*another size"),
    "twice as large": (lambda j, s: (2 * j, s), r"outside"),
    "half as large": (lambda j, s: (j / 2, s), r"the necks' median x is 16 of 64, whose middle is 32.*about 3\d wide"),
    "zeros for missing": (lambda j, s: (j, np.ones_like(s)), r"lie at \(0, 0\) or the like.*their x and y are -1"),
    "-1 for missing": (lambda j, s: (np.where(s[..., None] > 0, j, -1), np.ones_like(s)), r"lie at \(-1, -1\)"),
    "zeros, then shifted": (lambda j, s: (j - (9, 0), np.ones_like(s)), r"lie at \(-9, 0\)"),
    "not finite": (lambda j, s: (np.where(j > 100, np.nan, j), s), r"not finite"),
    "pixels as confidence": (lambda j, s: (j, s * 90), r"confidences are above 1, up to 89.*are x, y, confidence"),
    "x and y exchanged": (lambda j, s: (j[..., ::-1], s), r"100% of the torsos lie: x and y exchanged"),
    "y upwards": (lambda j, s: ((0, HEIGHT) + j * (1, -1), s), r"torsos have their hips above the neck"),
    "left and right": (lambda j, s: (j[:, list(pose.FLIP)], s[:, list(pose.FLIP)]), r"left and right exchanged"),
    "mirrored": (lambda j, s: ((WIDTH - 1, 0) + j * (-1, 1), s), r"left and right exchanged"),
}


@pytest.mark.parametrize("case", PLAIN)
def test_joints_that_are_plainly_something_else(case):
    change, message = PLAIN[case]
    findings = found(*change(*crowd(200)))
    assert any(one.plain for one in findings)
    with pytest.raises(UserError, match=f"^here: .*{message}.*; do this$") as error:
        plausible.settle(findings, "here", "do this")
    assert "\n" not in str(error.value)


DOUBTFUL = {
    "a few outside": (lambda j, s: (j - (19, 0) * (np.arange(18) == 4)[:, None], s), "outside the image"),
    "flags": (lambda j, s: (j, 2 * (s > 0)), "flags of an annotation"),
    "aside": (lambda j, s: (j.clip(16, 48) - (-12, 0), s), "the necks' median x is 43 of 64"),
    "small": (lambda j, s: ((j - SIZE / 2) / 9 + SIZE / 2, s), "half of the bodies are smaller than"),
    "the same": (lambda j, s: (np.tile(PERSON, (MANY, 1, 1)), np.ones_like(s)), "have the same joints"),
    "nobody": (lambda j, s: (j, s * (np.arange(MANY) < 9)[:, None]), "have no joint at all"),
}


@pytest.mark.parametrize("case", DOUBTFUL)
def test_joints_that_somebody_may_have_are_doubted(case, capfd):
    change, message = DOUBTFUL[case]
    points, scores = change(*crowd())
    (finding,) = found(points, scores.astype(np.float32), centred=False)
    assert not finding.plain
    assert plausible.settle([finding], "here", "") == [finding.text]
    assert message in finding.text
    assert f"here: WARNING: {finding.text}" in capfd.readouterr().err


def test_lists_of_two_sizes_in_one_data_set():
    points, scores = crowd()
    splits = np.array(["test", "train"])[(np.arange(MANY) < 30).astype(int)]
    aside = points - np.where(splits == "train", 10, 0)[:, None, None] * (1, 0)
    assert "(train) of the width: lists of two sizes?" in said(found(aside, scores, False, splits))


def test_one_photograph_that_lies_on_its_side_is_only_doubted():
    """Turned, not exchanged: eyes are where they belong."""
    points, scores = crowd()
    turned = np.stack([127 - points[..., 1], points[..., 0]], axis=-1)
    findings = found(turned / 2, scores, centred=False)
    assert any("torsos lie" in one.text and not one.plain for one in findings)


@pytest.mark.real
def test_published_lists_are_believed(mirror):
    """As they are, against the images that they were made for; and not against those of the other canvas."""
    for name, height, width in (
        ("market1501/market-annotation-train.csv", 128, 64),
        ("market1501/market-annotation-test.csv", 128, 64),
        ("deepfashion/fasion-annotation-test.csv", 256, 256),
        ("deepfashion/fashion-resize-annotation-test.csv", 256, 176),
    ):
        _, points, valid = annotations.read_keypoints(mirror / name)
        sizes, scores = np.tile((height, width), (len(points), 1)), valid.astype(np.float32)
        assert plausible.joints(points, scores, sizes, centred=True) == []
    assert any(one.plain for one in plausible.joints(points, scores, np.tile((256, 256), (len(points), 1)), None, True))


# Label maps


def dressed(points: np.ndarray, label_set: str = "lip-20") -> np.ndarray:
    """(H, W) uint8: hair, face, clothes, arms, legs and shoes where the joints say, in a set that has them all."""
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    at, name = points.round().astype(int), labels.NAMES[label_set].index
    cv2.rectangle(drawn, at[2], at[11], name("upper-clothes"), -1)
    for side, arm, leg in (("right", (2, 3, 4), (8, 9, 10)), ("left", (5, 6, 7), (11, 12, 13))):
        cv2.polylines(drawn, [at[list(arm)]], False, name(f"{side}-arm"), 5)
        cv2.polylines(drawn, [at[list(leg)]], False, name("pants"), 9)
        cv2.circle(drawn, at[leg[2]], 4, name(f"{side}-shoe"), -1)
    cv2.circle(drawn, at[0] - (0, 3), 8, name("hair"), -1)
    cv2.ellipse(drawn, at[0], (5, 8), 0, 0, 360, name("face"), -1)
    return drawn


def judged(maps: list[np.ndarray], points: np.ndarray, label_set="lip-20", made_in="lip-20") -> list[plausible.Finding]:
    valid = np.ones((len(points), 18), bool)
    seen = [[look(*one) for one in zip(maps, points, valid, strict=True)] for look in LOOKS]
    return plausible.label_maps(*map(np.array, seen), label_set, made_in, "parsing.D.labels")


LOOKS = (plausible.under, plausible.stray, lambda label_map, *_: plausible.smooth(label_map))


@pytest.fixture
def people() -> np.ndarray:
    rng = np.random.default_rng(1)
    return (rng.normal(PERSON, 1, (8, 18, 2)) + rng.integers(-2, 3, (8, 1, 2))).astype(np.float32)


def test_maps_of_the_people_are_believed(people):
    assert judged([dressed(one) for one in people], people) == []
    as_atr = [labels.to_lip20(dressed(one, "atr-18"), "atr-18") for one in people]
    assert judged(as_atr, people, made_in="atr-18") == []


@pytest.mark.parametrize(("made", "taken"), [("atr-18", "lip-20"), ("lip-20", "atr-18"), ("atr-18", "cihp-20")])
def test_maps_of_another_set_name_it(people, made, taken):
    maps = [dressed(one, made).clip(0, len(labels.NAMES[taken]) - 1) for one in people]
    stored = taken if taken in labels.STORED else "lip-20"
    read = [one if taken == stored else labels.to_lip20(one, taken) for one in maps]
    (finding, *_) = judged(read, people, stored, taken)
    assert finding.plain
    assert "0% of 8 noses lie on face or hair" in finding.text
    assert f"in {made} it would be 100% (parsing.D.labels)" in finding.text


DOUBTED = {
    "necks are jumpsuits": (lambda m, p: [throat(*one) for one in zip(m, p, strict=True)], "torso skin in cihp-20"),
    "sides": (lambda m, p: [labels.relabel(one, labels.LIP20_FLIP) for one in m], "left and right exchanged"),
    "of others": (lambda m, p: [np.roll(one, 30, axis=1) for one in m], "noses lie on face or hair"),
    "on background": (lambda m, p: [np.roll(one, 30, axis=1) for one in m], "of the joints lie on background"),
    "scaled smoothly": (
        lambda m, p: [cv2.resize(cv2.resize(one, (43, 85)), (64, 128), interpolation=cv2.INTER_LINEAR) for one in m],
        "scaled by nearest neighbour",
    ),
}


def throat(label_map: np.ndarray, points: np.ndarray) -> np.ndarray:
    label_map = label_map.copy()
    cv2.circle(label_map, (0.4 * points[0] + 0.6 * points[1]).round().astype(int), 3, 10, -1)
    return label_map


@pytest.mark.parametrize("case", DOUBTED)
def test_maps_that_do_not_fit_the_people_are_doubted(people, case):
    change, message = DOUBTED[case]
    assert message in said(judged(change([dressed(one) for one in people], people), people))


def test_margins_that_became_clothes_are_doubted(people):
    slim = (people * (0.4, 1) + (19, 0)).astype(np.float32)
    margin = 5 * (np.abs(np.arange(WIDTH) - 31.5) > 24).astype(np.uint8)  # whole bands of upper-clothes
    assert judged([dressed(one) for one in slim], slim) == []
    assert "lie far from the person: labels in a margin?" in said(judged([dressed(one) | margin for one in slim], slim))


@pytest.mark.parametrize(
    ("found", "wanted", "advice"),
    [
        ((128, 64), (256, 128), "scale it by nearest neighbour"),
        ((1101, 750), (256, 174), "scale it by nearest neighbour"),
        ((256, 176), (256, 256), "add 80 columns of background, half of them on each side"),
        ((256, 256), (256, 176), "cut 80 columns, half of them on each side"),
        ((640, 360), (256, 256), "scale it by nearest neighbour to 256x144 and put background around it (fit: pad)"),
        ((64, 128), (128, 64), "it lies on its side; turn it"),
    ],
)
def test_a_label_map_is_made_as_its_image_was(found, wanted, advice):
    assert label_files.how_to_fit(found, wanted).startswith(advice)


# Pairs

SPLITS = {f"{person}{view}": "train" if person in "ab" else "test" for person in "abcd" for view in range(4)}
OWNERS = {name: name[0] for name in SPLITS}
PAIRS = {
    "of another split": ([("a0", "a1"), ("c0", "c1")], True, "1 of 2 test pairs, the first a0 -> a1, have images of"),
    "across splits": ([("c0", "c1"), ("c0", "b1")], True, "the first c0 -> b1, have images of the train split"),
    "an image with itself": ([("c0", "c0")], True, "are an image with itself"),
    "two people": ([("c0", "d0"), ("c1", "d1")], True, "2 of 2 test pairs, the first c0 -> d0, show two people"),
    "a stranger": ([("c0", "d0"), ("c0", "c1"), ("c1", "c0")], False, "show two people"),
    "twice": ([("c0", "c1"), ("c1", "c0"), ("c0", "c1")], False, "1 test pairs are listed more than once"),
}


@pytest.mark.parametrize("case", PAIRS)
def test_pairs_that_are_something_else(case):
    listed, plain, message = PAIRS[case]
    findings = plausible.pairs(listed, "test", SPLITS, OWNERS)
    assert message in said(findings)
    assert any(one.plain for one in findings) == plain
    assert plausible.pairs([("c0", "c1"), ("c1", "c0"), ("d0", "d3")], "test", SPLITS, OWNERS) == []
