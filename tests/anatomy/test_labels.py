"""Label sets: the tables against what they mean, the side rules against brute force."""

import cv2
import numpy as np
import pytest

from pipeline.anatomy import labels, pose
from pipeline.core.errors import UserError
from tests.conftest import ROOT

COARSE = ("adgan-8", "pascal-7", "spt-10")


def random_map(seed: int, top: int, height=31, width=22) -> np.ndarray:
    """Patches of labels, as parsings have them."""
    small = np.random.default_rng(seed).integers(0, top, (height // 4 + 1, width // 4 + 1), np.uint8)
    return small.repeat(4, axis=0).repeat(4, axis=1)[:height, :width].copy()


def random_joints(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    valid = rng.random(18) < 0.7
    return np.where(valid[:, None], rng.uniform((0, 0), (22, 31), (18, 2)), 0).astype(np.float32), valid


@pytest.mark.parametrize(("label_set", "count"), [(name, int(name.split("-")[-1])) for name in labels.NAMES])
def test_sets_have_as_many_labels_as_their_name_says(label_set, count):
    names = labels.NAMES[label_set]
    assert len(names) == len(set(names)) == count
    assert names[0] == "background"
    assert labels.FLIPS[label_set].dtype == np.uint8
    assert len(labels.FLIPS[label_set]) == len(labels.TO_LIP20[label_set]) == count


@pytest.mark.parametrize("label_set", labels.NAMES)
def test_flips_are_involutions_that_exchange_left_and_right_alone(label_set):
    names, flip = labels.NAMES[label_set], labels.FLIPS[label_set]
    assert (flip[flip] == np.arange(len(names))).all()
    for label, other in enumerate(flip):
        assert names[other] == names[label].replace("left", "x").replace("right", "left").replace("x", "right")
    assert (flip != np.arange(len(names))).sum() == {"lip": 6, "cihp": 6, "atr": 6, "spt": 4}.get(
        label_set.split("-")[0], 0
    )
    parsing = random_map(1, len(names))
    assert (labels.flip(labels.flip(parsing, label_set), label_set) == parsing).all()
    assert labels.flip(parsing, label_set)[3, 0] == flip[parsing[3, -1]]


@pytest.mark.parametrize("label_set", COARSE)
def test_tables_commute_with_the_flip(label_set):
    table = labels.FROM_LIP20[label_set]
    assert (labels.FLIPS[label_set][table] == table[labels.LIP20_FLIP]).all()


@pytest.mark.parametrize("label_set", [*labels.STORED, "atr-18", "spt-10"])
def test_tables_to_lip20_commute_with_the_flip(label_set):
    table = labels.TO_LIP20[label_set]
    assert (labels.LIP20_FLIP[table] == table[labels.FLIPS[label_set]]).all()


@pytest.mark.parametrize("label_set", labels.NAMES)
def test_maps_commute_with_the_flip(label_set):
    flipped_joints = np.array(pose.FLIP)
    for seed in range(20):
        parsing = random_map(seed, len(labels.NAMES[label_set]))
        joints, valid = random_joints(seed)
        mirrored = (np.array([21, 0]) + joints * (-1, 1)).astype(np.float32)[flipped_joints]
        straight = labels.to_lip20(parsing, label_set, joints, valid)
        turned = labels.to_lip20(labels.flip(parsing, label_set), label_set, mirrored, valid[flipped_joints])
        # float32 rounding of the mirrored joints may move a pixel that lies on the border between the two sides
        assert (labels.flip(straight) != turned).sum() <= 1
        no_joints = labels.to_lip20(parsing, label_set)
        if parsing[:, [0, -1]].any(axis=0).all():  # a box with a middle column of its own has no half
            assert (labels.flip(no_joints) == labels.to_lip20(labels.flip(parsing, label_set), label_set)).all()


def test_to_spt10_commutes_with_the_flip():
    for seed in range(20):
        parsing = random_map(seed, 20)
        assert (labels.flip(labels.to_spt10(parsing), "spt-10") == labels.to_spt10(labels.flip(parsing))).all()


def test_same_name_same_label():
    for label_set, table in labels.TO_LIP20.items():
        for label, name in enumerate(labels.NAMES[label_set]):
            if name in labels.LIP20:
                assert labels.LIP20[table[label]] == name
    for label_set, table in labels.FROM_LIP20.items():
        for label, name in enumerate(labels.NAMES[label_set]):
            if name in labels.LIP20:
                assert table[labels.LIP20.index(name)] == label


@pytest.mark.parametrize("label_set", COARSE)
def test_there_and_back_is_the_identity(label_set):
    names = labels.NAMES[label_set]
    back = labels.FROM_LIP20[label_set][labels.TO_LIP20[label_set]]
    lost = {names[label] for label in np.flatnonzero(back != np.arange(len(names)))}
    # No LIP-20 label means an upper arm alone, so it comes back as a lower one.
    assert lost == ({"upper-arms"} if label_set == "pascal-7" else set())
    parsing = random_map(3, len(names))
    joints, valid = random_joints(3)
    kept = labels.relabel(labels.to_lip20(parsing, label_set, joints, valid), labels.FROM_LIP20[label_set])
    assert (kept == back[parsing]).all()


def test_adgan_of_cihp_labels_is_the_published_merge():
    """ADGAN's issue 10, which merges label 10 (torso skin in CIHP-20) into the face."""
    published = {
        "background": [0], "pants": [9], "hair": [1, 2], "skirt": [12], "face": [13, 4, 10],
        "upper-clothes": [5, 6, 7, 11], "arm": [3, 14, 15], "leg": [8, 16, 17, 18, 19],
    }  # fmt: skip
    wanted = np.empty(20, int)
    for label, name in enumerate(labels.NAMES["adgan-8"]):
        wanted[published[name]] = label
    assert (labels.FROM_LIP20["adgan-8"] == wanted).all()
    assert (labels.FROM_LIP20["adgan-8"][labels.TO_LIP20["cihp-20"]] == wanted).all()


NAMED = [(stored, wanted) for stored in labels.STORED for wanted in labels.STORED]


@pytest.mark.parametrize(("stored", "wanted"), NAMED)
def test_whole_sets_exchange_every_label_but_the_one_that_the_other_lacks(stored, wanted):
    names, others = labels.NAMES[stored], labels.NAMES[wanted]
    there = [others[label] for label in labels.exchange(stored, wanted)]
    changed = {name: other for name, other in zip(names, there, strict=True) if name != other}
    lost = set(names) - set(others)
    stands_for = {"torso-skin": "face", "jumpsuits": "dress"}  # skin of the neck; a garment of one piece
    assert changed == {name: stands_for[name] for name in lost}
    assert lost == {"lip-20": {"torso-skin"}, "cihp-20": {"jumpsuits"}, "lip-cihp-21": set()}[wanted] & set(names)
    assert labels.tells(stored, wanted) == (stored in (wanted, "lip-cihp-21"))
    parsing = random_map(4, len(names))
    through = labels.relabel(parsing, labels.exchange(stored, labels.EVERY))
    both = labels.relabel(through, labels.exchange(labels.EVERY, wanted))
    assert (both == labels.relabel(parsing, labels.exchange(stored, wanted))).all()  # figures take this way


def test_coarser_sets_do_not_tell_what_the_whole_ones_do():
    for made_in in ("atr-18", *COARSE):
        for wanted in labels.STORED:
            assert not labels.tells(made_in, wanted)


def test_spt_s_ten_labels_are_the_same_from_either_whole_set():
    """Of what the renderer draws: torso skin is a face there, and a jumpsuit a dress's label."""
    parsing = random_map(5, 21)
    ten = [
        labels.to_spt10(labels.relabel(labels.relabel(parsing, labels.exchange(labels.EVERY, stored)), to_lip))
        for stored, to_lip in ((stored, labels.TO_LIP20[stored]) for stored in labels.STORED)
    ]
    assert (ten[0] == ten[1]).all()
    assert (ten[0] == ten[2]).all()


def test_labels_that_lip20_lacks_stand_for_the_nearest_it_has():
    to = {name: dict(zip(labels.NAMES[name], table.tolist(), strict=True)) for name, table in labels.TO_LIP20.items()}
    assert labels.LIP20[to["cihp-20"]["torso-skin"]] == "face"  # skin of the neck and chest
    assert labels.LIP20[to["atr-18"]["belt"]] == "upper-clothes"
    assert labels.LIP20[to["atr-18"]["bag"]] == "background"


def brute_force_spt10(parsing: np.ndarray) -> np.ndarray:
    """Pixel by pixel, in Python integers. Ties are marked 255."""
    out = labels.FROM_LIP20["spt-10"][parsing]
    copy = out.copy()
    for label, sides in ((3, (6, 7)), (8, (8, 9))):
        for y, x in np.argwhere(parsing == label):
            away = []
            for side in sides:
                places = np.argwhere(copy == side)
                away.append(((places - (y, x)) ** 2).sum(axis=1).min() if len(places) else 10**9)
            out[y, x] = 255 if away[0] == away[1] else sides[int(away[1] < away[0])]
    return out


def test_gloves_and_socks_go_to_the_nearest_limb():
    maps = np.stack([random_map(seed, 20) for seed in range(8)])
    found = labels.to_spt10(maps)
    for parsing, one in zip(maps, found, strict=True):
        wanted = brute_force_spt10(parsing)
        sure = wanted != 255
        assert (wanted[sure] == one[sure]).all()
        assert (labels.to_spt10(parsing) == one).all()  # a batch changes nothing
        assert sure[np.isin(parsing, (3, 8))].mean() > 0.5
    assert np.isin(found[maps == 3], (6, 7)).all()
    assert np.isin(found[maps == 8], (8, 9)).all()


def test_gloves_without_an_arm_go_by_the_half_of_the_person():
    parsing = np.zeros((8, 20), np.uint8)
    parsing[2:6, 10:18] = 5
    parsing[3, 10] = parsing[3, 17] = 3
    found = labels.to_spt10(parsing)
    assert found[3, 10] == 7  # the person's right arm is on the image's left
    assert found[3, 17] == 6


@pytest.mark.parametrize("label_set", ["adgan-8", "pascal-7"])
def test_arms_and_legs_get_the_side_of_the_nearer_limb(label_set):
    arms = [i for i, name in enumerate(labels.NAMES[label_set]) if "arm" in name]
    legs = [i for i, name in enumerate(labels.NAMES[label_set]) if name in ("leg", "lower-legs")]
    for seed in range(10):
        parsing = random_map(seed, len(labels.NAMES[label_set]))
        joints, valid = random_joints(seed)
        valid[[2, 5, 8, 11]] = True
        found = labels.to_lip20(parsing, label_set, joints, valid)
        for members, left, right, at in ((arms, 14, 15, (5, 2)), (legs, 16, 17, (11, 8))):
            away = []
            for first in at:  # a densely sampled limb
                known = [joints[j] for j in range(first, first + 3) if valid[j]]
                line = np.concatenate([np.linspace(a, b, 200) for a, b in zip(known, known[1:] or known, strict=False)])
                y, x = np.nonzero(np.isin(parsing, members))
                away.append(np.linalg.norm(np.stack([x, y], 1)[:, None] - line, axis=2).min(axis=1))
            sure = np.abs(away[0] - away[1]) > 0.2
            wanted = np.where(away[0] < away[1], left, right)
            assert (found[y, x][sure] == wanted[sure]).all()
            assert sure.mean() > 0.8


def test_a_side_without_joints_is_not_chosen():
    parsing = np.full((8, 8), 6, np.uint8)
    joints, valid = np.zeros((18, 2), np.float32), np.zeros(18, bool)
    joints[2], valid[2] = (7, 7), True  # the right shoulder alone
    assert (labels.to_lip20(parsing, "adgan-8", joints, valid) == 15).all()


def test_unknown_ids_are_one_line():
    for label_set, names in labels.NAMES.items():
        with pytest.raises(UserError, match=f"label {len(names)} ") as error:
            labels.to_lip20(np.full((2, 2), len(names), np.uint8), label_set)
        assert "\n" not in str(error.value)


def test_relabel_takes_views_and_nothing_at_all():
    parsing = random_map(0, 20)[::2, ::3]
    assert (labels.relabel(parsing, labels.FROM_LIP20["adgan-8"]) == labels.FROM_LIP20["adgan-8"][parsing]).all()
    assert labels.relabel(np.zeros((0, 4, 4), np.uint8), labels.LIP20_FLIP).shape == (0, 4, 4)


@pytest.mark.parametrize("coded", labels.COLOUR_CODED)
def test_colours_there_and_back(coded):
    label_set, colours = labels.COLOUR_CODED[coded]
    assert colours.shape == (len(labels.NAMES[label_set]), 3)
    parsing = random_map(0, 20)
    image = labels.colour(parsing, colours)
    assert image.dtype == np.uint8
    assert (image[4, 5] == colours[parsing[4, 5]]).all()
    assert (labels.from_colours(image, colours) == parsing).all()
    every = np.arange(20, dtype=np.uint8)[None]
    assert (labels.from_colours(labels.colour(every, colours), colours) == every).all()


def test_voc_colours_are_pascal_voc_s():
    """The first 20 of the 21 colours in the VOC development kit."""
    assert labels.VOC_COLOURS.tolist() == [
        [0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128], [0, 128, 128], [128, 128, 128],
        [64, 0, 0], [192, 0, 0], [64, 128, 0], [192, 128, 0], [64, 0, 128], [192, 0, 128], [64, 128, 128],
        [192, 128, 128], [0, 64, 0], [128, 64, 0], [0, 192, 0], [128, 192, 0],
    ]  # fmt: skip


def test_a_colour_of_no_label_is_named():
    image = labels.colour(random_map(0, 20))
    image[5, 6] = (1, 2, 3)
    with pytest.raises(UserError, match=r"\(1, 2, 3\).* 1 of ") as error:
        labels.from_colours(image)
    assert "\n" not in str(error.value)
    smooth = cv2.resize(labels.colour(random_map(0, 20)), (40, 60), interpolation=cv2.INTER_LINEAR)
    with pytest.raises(UserError, match="smoothly"):
        labels.from_colours(smooth)


def test_the_tables_in_the_documentation_are_the_tables():
    lines = (ROOT / "docs/labels.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    lip20 = [row for row in rows if len(row) == 8 and row[0].isdigit()]
    assert len(lip20) == 20
    for label, (number, name, mirrored, *coarse, colours, voc) in enumerate(lip20):
        assert (int(number), name) == (label, labels.LIP20[label])
        assert int(mirrored or label) == labels.LIP20_FLIP[label]
        for label_set, text in zip(COARSE, coarse, strict=True):
            target = labels.FROM_LIP20[label_set][label]
            if not (label_set == "spt-10" and text.startswith("nearest")):
                assert text == f"{target} {labels.NAMES[label_set][target]}"
        assert colours == ", ".join(map(str, labels.COLOURS[label]))
        assert voc == ", ".join(map(str, labels.VOC_COLOURS[label]))
    for label_set in ("atr-18", *COARSE):
        first = rows.index(["id", label_set, "LIP-20"]) + 2
        for label, name in enumerate(labels.NAMES[label_set]):
            number, written, target = rows[first + label]
            assert (int(number), written) == (label, name)
            assert target.split(",")[0] in labels.LIP20[labels.TO_LIP20[label_set][label]]


GLOVE, LEFT_ARM, RIGHT_ARM = (labels.LIP20.index(name) for name in ("glove", "left-arm", "right-arm"))


def test_ties_between_limbs_do_not_hang_on_the_last_bit_of_a_distance(monkeypatch):
    rng = np.random.default_rng(0)
    parsing = np.zeros((128, 64), np.uint8)
    arms = rng.integers(0, (128, 64), (40, 2))
    parsing[arms[:, 0], arms[:, 1]] = rng.choice([LEFT_ARM, RIGHT_ARM], 40)
    parsing[(parsing == 0) & (rng.random(parsing.shape) < 0.5)] = GLOVE
    gloves = np.argwhere(parsing == GLOVE)
    to = [((gloves[:, None] - np.argwhere(parsing == arm)) ** 2).sum(-1).min(1) for arm in (LEFT_ARM, RIGHT_ARM)]
    assert (to[0] == to[1]).sum() > 20
    mapped = labels.to_spt10(parsing)
    apart = to[0] != to[1]
    np.testing.assert_array_equal(mapped[parsing == GLOVE][apart], np.where(to[0] < to[1], 6, 7)[apart])
    exact = cv2.distanceTransform

    def shaken(*arguments):
        distance = exact(*arguments)
        return np.where(rng.random(distance.shape) < 0.5, np.nextafter(distance, np.float32(np.inf)), distance)

    monkeypatch.setattr(labels.cv2, "distanceTransform", shaken)
    np.testing.assert_array_equal(labels.to_spt10(parsing), mapped)
