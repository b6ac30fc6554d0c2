"""Which pair a number stands for: the right way to count is found, or the command stops and names it."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.core.errors import UserError
from pipeline.scoring import compare, numbering

COUNT = 24


def picture(*seed: int) -> np.ndarray:
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 4, 3), np.uint8)
    return cv2.resize(blocks, (32, 64), interpolation=cv2.INTER_CUBIC)


PAIRS = [(f"person{place // 3}-a.jpg", f"person{place // 3}-{'bcd'[place % 3]}.jpg") for place in range(COUNT)]
SOURCES = [picture(1, place // 3) for place in range(COUNT)]
TARGETS = [picture(2, place) for place in range(COUNT)]


def listing(scored: range = range(COUNT)) -> numbering.Listing:
    positions = {place: row for row, place in enumerate(scored)}
    return numbering.Listing(
        PAIRS, range(COUNT), positions, lambda place: (SOURCES[place], TARGETS[place]), TARGETS[0].shape[:2]
    )


def written(folder: Path, numbers: dict[int, int], images: list[np.ndarray] = TARGETS) -> dict[int, Path]:
    """numbers: number in the name -> the pair that the file is of. Not quite the true images."""
    folder.mkdir(exist_ok=True)
    files = {}
    for number, place in numbers.items():
        files[number] = folder / f"{number}.png"
        noise = np.random.default_rng(number).normal(0, 4, images[place].shape)
        cv2.imwrite(str(files[number]), np.clip(images[place] + noise, 0, 255).astype(np.uint8)[..., ::-1])
    return files


def decided(files: dict[int, Path], **options) -> tuple[str, numbering.Way]:
    return numbering.decide(files, listing(**options), "--numbering")


@pytest.mark.parametrize("images", [TARGETS, SOURCES], ids=["targets", "sources"])
@pytest.mark.parametrize(("first", "name"), [(0, "published"), (1, "from-1"), (2, "from-2")])
def test_a_count_from_0_1_or_a_header_is_told(tmp_path, images, first, name):
    truth = {place + first: place for place in range(COUNT)}
    assert decided(written(tmp_path, truth, images)) == (name, truth)


def test_a_number_that_is_no_pairs_changes_nothing(tmp_path):
    truth = {place + 1: place for place in range(COUNT)}
    assert decided(written(tmp_path, truth) | {99: tmp_path / "1.png"}) == ("from-1", truth)


def test_a_picture_that_claims_millions_of_pixels_is_not_opened(tmp_path, monkeypatch):
    truth = {place + 1: place for place in range(COUNT)}
    files = written(tmp_path, truth)
    monkeypatch.setattr(numbering.pictures, "MAX_PIXELS", 64 * 32)
    cv2.imwrite(str(files[5]), np.zeros((640, 320, 3), np.uint8))
    opened, decode = [], numbering.pictures.decode
    monkeypatch.setattr(numbering.pictures, "decode", lambda data: opened.append(len(data)) or decode(data))
    assert decided(files) == ("from-1", truth)
    assert len(opened) == COUNT - 1


def test_of_a_part_the_pictures_tell_where_it_begins(tmp_path):
    """Numbers 3 to 9 fit from 0, from 1 and from their own first."""
    for shift, name in ((0, "published"), (1, "from-1"), (3, "from-3")):
        truth = {number: number - shift for number in range(3, 10)}
        assert decided(written(tmp_path / name, truth)) == (name, truth)


def test_a_part_of_which_the_pictures_tell_nothing_stops_and_names_both(tmp_path):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (64, 32, 3), np.uint8) for _ in range(COUNT)]
    with pytest.raises(UserError, match="--numbering published or --numbering from-1"):
        decided(written(tmp_path, {number: number for number in range(3, 10)}, noise))


ORDERS = {
    "reversed": range(COUNT)[::-1],
    "as-text": sorted(range(COUNT), key=str),
    "as-text-back": np.argsort(sorted(range(COUNT), key=str)).tolist(),
}


@pytest.mark.parametrize("name", [*ORDERS])
def test_another_order_stops_and_is_named(tmp_path, name):
    truth = dict(enumerate(ORDERS[name]))
    files = written(tmp_path, truth)
    with pytest.raises(UserError, match=f"--numbering {name} or --numbering published") as caught:
        decided(files)
    assert "\n" not in str(caught.value)
    assert numbering.chosen(files, listing(), name, "--numbering") == truth


@pytest.mark.parametrize("images", [TARGETS, SOURCES], ids=["targets", "sources"])
def test_an_order_without_a_name_stops_and_asks_for_its_list(tmp_path, images):
    truth = dict(enumerate(np.random.default_rng(3).permutation(COUNT).tolist()))
    with pytest.raises(UserError, match=r"no better than any others.*a CSV of from,to, as --numbering"):
        decided(written(tmp_path, truth, images))


@pytest.mark.parametrize("missing", [{0}, {11}, {9, 15}], ids=str)
def test_numbers_that_run_on_over_missing_images_stop(tmp_path, missing):
    made = [place for place in range(COUNT) if place not in missing]
    with pytest.raises(UserError, match=f"the last of them fit the pairs {len(missing)} further down"):
        decided(written(tmp_path, dict(enumerate(made))))


def test_missing_images_that_keep_their_numbers_are_no_reason_to_stop(tmp_path):
    truth = {place: place for place in range(COUNT) if place not in (4, 11, 22, 23)}
    assert decided(written(tmp_path, truth)) == ("published", truth)


def test_of_a_limited_list_files_may_count_the_whole_or_the_part(tmp_path):
    scored = range(0, COUNT, 3)
    whole = {place: place for place in range(COUNT)}
    assert decided(written(tmp_path / "whole", whole), scored=scored) == ("published", whole)
    part = dict(enumerate(scored))
    assert decided(written(tmp_path / "part", part), scored=scored) == ("scored", part)


def test_one_picture_for_every_pair_tells_nothing_and_is_believed(tmp_path):
    """The mean image, say."""
    truth = {place: place for place in range(COUNT)}
    files = written(tmp_path, truth, [np.full((64, 32, 3), 127, np.uint8)] * COUNT)
    assert decided(files) == ("published", truth)


def test_strips_are_counted_by_what_they_show(tmp_path):
    both = zip(SOURCES, TARGETS, strict=True)
    strips = [np.concatenate([s, t, picture(9, n)], axis=1) for n, (s, t) in enumerate(both)]
    truth = {place + 1: place for place in range(COUNT)}
    assert decided(written(tmp_path, truth, strips)) == ("from-1", truth)


def test_a_copy_of_the_source_that_may_be_a_target_stops(tmp_path):
    """Where every pair is asked for both ways, the sources are the targets in another order."""
    views = [picture(4, view) for view in range(COUNT)]
    turned = [place ^ 1 for place in range(COUNT)]
    both = numbering.Listing(
        [(f"{place:02d}", f"{place ^ 1:02d}") for place in range(COUNT)],
        range(COUNT),
        {place: place for place in range(COUNT)},
        lambda place: (views[place], views[turned[place]]),
        (64, 32),
    )
    with pytest.raises(
        UserError, match="the pictures do not tell; give --numbering published or --numbering by-target"
    ):
        numbering.decide(written(tmp_path, dict(enumerate(range(COUNT))), views), both, "--numbering")


@pytest.mark.parametrize(
    ("name", "pattern", "number"),
    [("7", "{index}", 7), ("007", "{index}", 7), ("a7", "{index}", None), ("a7", "{to}", None),
     ("fake_00", "fake_{index}", 0), ("x3", "fake_{index}", None),
     ("12-012", "{index}-{index}", None), ("12-12", "{index}-{index}", 12)],
)  # fmt: skip
def test_numbers_are_read_however_they_are_padded(name, pattern, number):
    assert numbering.number_of(name, pattern) == number


def test_two_folders_of_numbers_that_begin_apart_are_compared_pair_by_pair(tmp_path):
    """Equal names are believed; where the numbers are not the same ones, the pictures decide."""
    written(tmp_path / "targets", {place: place for place in range(COUNT)})
    made = written(tmp_path / "made", {place + 1: place for place in range(COUNT)})
    found = compare(tmp_path / "made", tmp_path / "targets", metrics=["ssim"], bootstrap=100)
    assert len(found.pairs) == COUNT
    assert found["ssim"]["value"] > 0.5
    made[1].unlink()  # 2 to 24 against 0 to 23
    assert compare(tmp_path / "made", tmp_path / "targets", metrics=["ssim"], bootstrap=100)["ssim"]["value"] > 0.5
    lines = "".join(f"{place}.png,{place}.png\n" for place in range(COUNT))
    (tmp_path / "pairs.csv").write_text("from,to\n" + lines)
    found = compare(
        tmp_path / "made", tmp_path / "targets", pairs=tmp_path / "pairs.csv", metrics=["ssim"], bootstrap=100
    )
    assert (len(found.pairs), found["ssim"]["value"] > 0.5) == (COUNT - 1, True)
