import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.anatomy import labels
from pipeline.anatomy.distance import limb_distance_maps
from pipeline.commands import inspect
from pipeline.core import layout, params, schema, store
from pipeline.core.errors import UserError
from pipeline.report import prepared
from tests import tiny_dataset

REJECTED = tiny_dataset.name(0, 2)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Every data stage's output of the tiny data set, in a project folder of its own."""
    tiny_dataset.write(tmp_path, parsing_source="oracle")
    tiny_dataset.write_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    params.load.cache_clear()
    rejects = [{"image_id": REJECTED, "split": "train", "reason": "does not decode [bold]"}]
    store.write_table(layout.rejects("synthetic"), rejects, schema.REJECTS)
    images = store.read_table(layout.images("synthetic"), columns=["image_id"])["image_id"].to_pylist()
    maps = []
    for name in images:
        points, valid = tiny_dataset.joints(int(name[:4]), int(name[5]))
        content = limb_distance_maps(points[None], valid[None], 64, 32, -0.1)
        maps.append({"image_id": name, "height": 64, "width": 32, "distance_maps": content.tobytes()})
    store.write_shards(layout.distance_maps("synthetic"), maps, schema.DISTANCE_MAPS, 2, kappa="-0.1")
    pseudo = [
        {"image_id": name, "pseudo_id": images[-1] if number else None, "cost": 100.0 * number, "pose_distance": 0.5}
        for number, name in enumerate(images)
    ]
    store.write_shards(layout.pseudo_labels("synthetic", "equation"), pseudo, schema.PSEUDO_LABELS)
    yield tmp_path
    params.load.cache_clear()


def lines(text: str) -> dict[str, str]:
    """The printed table: what -> text, stage names left out."""
    rows = [line.split("  ") for line in text.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    return {row[-2]: row[-1] for row in cells if len(row) > 1}


def test_counts_are_those_of_the_shards(folder, capsys):
    assert main(["inspect", "synthetic"]) == 0
    printed = capsys.readouterr().out
    found = lines(printed)
    assert found["train images"] == "11 of 4 people"
    assert found["size, height x width"] == "64x32"
    assert found["images left out"] == "1"
    assert found["left out because"] == "does not decode [bold]: 1"  # as it is, not as markup
    valid = np.array([tiny_dataset.joints(p, v)[1] for p in range(4) for v in range(3)])
    assert found["joints known, mean"] == f"{valid.sum() / 12:.1f} of 18"
    assert found["left wrist"] == f"{100 * valid[:, 7].mean():.1f} %"
    assert found["label maps"].startswith("11 by ")
    assert found["share of the pixels"] == "of all maps"
    maps = [tiny_dataset.label_map(p, v) for p in range(4) for v in range(3) if (p, v) != (0, 2)]
    for label in (0, 13, 19):
        assert found[labels.LIP20[label]] == f"{100 * (np.stack(maps) == label).mean():.2f} %"
    assert found["train pairs"] == "18: 9 sources, 9 targets, 3 people"
    assert found["val pairs"].startswith("6: 3 sources")
    equation, balanced = map(lines, printed.partition("by the rule equation")[2].split("by the rule balanced"))
    assert (equation["without a stand-in"], balanced["without a stand-in"]) == ("1", "0")
    assert equation["cost, pixels"] == "500 (5 to 95 %: 50 to 950)"
    assert balanced["cost, pixels"] == "1 (5 to 95 %: 1 to 1)"
    assert printed.count("11, by the rule") == 2
    assert found["kappa"] == "-0.1"
    assert "missing" not in printed
    assert f"{tiny_dataset.name(0, 0)}: .work/inspect/synthetic/{tiny_dataset.name(0, 0)}.png" in printed


def test_label_shares_may_come_from_a_sample(folder, monkeypatch):
    whole, count = prepared.label_shares("synthetic")
    assert count == 11
    assert whole.sum() == pytest.approx(1)
    monkeypatch.setattr(prepared, "LABEL_SAMPLE", 3)
    some, count = prepared.label_shares("synthetic")
    assert count == 3
    maps = [tiny_dataset.label_map(*which) for which in ((0, 0), (2, 0), (3, 2))]  # rows 0, 5 and 10
    np.testing.assert_allclose(some, np.bincount(np.stack(maps).reshape(-1), minlength=21) / np.stack(maps).size)
    assert prepared.Line("share of the pixels", "of 3 maps, evenly chosen") in prepared.lines("synthetic")["parsing"]


def test_how_far_apart_the_poses_of_a_pair_are(folder):
    apart = []
    for person in range(3):
        for source in range(3):
            for target in range(3):
                (a, seen), (b, seen_too) = tiny_dataset.joints(person, source), tiny_dataset.joints(person, target)
                both = seen & seen_too
                apart += [np.linalg.norm(a[both] - b[both], axis=1).mean()] if source != target else []
    low, middle, high = np.quantile(apart, [0.05, 0.5, 0.95])
    found = prepared.lines("synthetic")["pairs"][1]
    assert found == prepared.Line("pose distance, pixels", f"{middle:.1f} (5 to 95 %: {low:.1f} to {high:.1f})")


def drawn(folder: Path, *arguments: str) -> np.ndarray:
    assert main(["inspect", "synthetic", "--output", "x.png", *arguments]) == 0
    return cv2.imread(str(folder / "x.png"))[:, :, ::-1]


def contains(sheet: np.ndarray, part: np.ndarray) -> bool:
    """Is `part` (h, w, 3) somewhere in the sheet, pixel for pixel?"""
    first = part[0].tobytes()
    for y in range(sheet.shape[0] - part.shape[0] + 1):
        line, at = sheet[y].tobytes(), -1
        while (at := line.find(first, at + 1)) >= 0:
            if at % 3 == 0 and np.array_equal(sheet[y : y + len(part), at // 3 : at // 3 + part.shape[1]], part):
                return True
    return False


def test_picture_shows_image_parsing_partner_pseudo_label_and_maps(folder):
    name = tiny_dataset.name
    listed = [{"split": "train", "source_id": name(1, a), "target_id": name(1, b)} for a, b in ((2, 1), (1, 0))]
    rows = [pair | {"pair_index": number} for number, pair in enumerate(listed)]
    store.write_table(layout.pairs("synthetic"), rows, schema.PAIRS)
    sheet = drawn(folder, "--image", name(1, 1))

    def posed(person, view):
        return inspect.drawing.skeleton(tiny_dataset.picture(person, view), *tiny_dataset.joints(person, view), scale=6)

    def parsed(person, view):
        mixed = inspect.drawing.parsing(tiny_dataset.picture(person, view), tiny_dataset.label_map(person, view))
        return inspect.drawing.enlarged(mixed, 6)

    assert contains(sheet, posed(1, 1))
    assert contains(sheet, posed(1, 0))  # the target of the first pair from it
    assert not contains(sheet, posed(1, 2))  # the source of an earlier pair to it
    assert contains(sheet, parsed(1, 1))
    assert contains(sheet, parsed(3, 2))  # its pseudo label's by the rule equation
    assert contains(sheet, parsed(2, 1))  # and by the rule balanced
    assert not contains(sheet, posed(2, 1))
    assert not contains(sheet, parsed(2, 0))
    points, valid = tiny_dataset.joints(1, 1)
    for one in limb_distance_maps(points[None], valid[None], 64, 32, -0.1)[0]:
        assert contains(sheet, inspect.drawing.enlarged(inspect.drawing.level(one), 3))


def test_default_image_is_the_source_of_a_pair(folder):
    pairs = store.read_table(layout.pairs("synthetic"))
    store.write_table(layout.pairs("synthetic"), pairs.slice(12, 3), schema.PAIRS)
    ids = store.read_table(layout.images("synthetic"), columns=["image_id"])["image_id"].to_pylist()
    first = pairs["source_id"][12].as_py()
    assert inspect._first_image("synthetic", ids) == first != ids[0]
    layout.pairs("synthetic").unlink()
    keypoints = store.read_table(layout.keypoints("synthetic"))
    store.write_table(layout.keypoints("synthetic"), keypoints.slice(1), schema.KEYPOINTS)
    assert inspect._first_image("synthetic", ids) == ids[1]
    layout.keypoints("synthetic").unlink()
    assert inspect._first_image("synthetic", ids) == ids[0]


@pytest.mark.parametrize(
    "gone", [["pseudo_labels"], ["distance_maps", "parsing"], ["keypoints"], ["pairs"], ["keypoints", "pairs"]]
)
def test_partly_prepared_data_says_what_is_missing(folder, capsys, gone):
    for stage in gone:
        path = prepared.STAGES[stage].path("synthetic")
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    sheet = drawn(folder)
    assert sheet.shape[0] > 100
    lines = capsys.readouterr().out.splitlines()
    commands = [line.strip() for line in lines if line.strip().startswith("repose ")]
    order = list(prepared.STAGES)
    further = {"pseudo_labels": " --rule equation"}
    assert commands == [
        f"repose {stage} --dataset synthetic{further.get(stage, '')}" for stage in sorted(gone, key=order.index)
    ]


def test_without_images_there_are_counts_and_no_picture(folder, capsys):
    shutil.rmtree(layout.images("synthetic"))
    assert main(["inspect", "synthetic"]) == 0
    printed = capsys.readouterr().out
    assert "repose fetch --dataset synthetic\n  repose index" in printed
    assert lines(printed)["train pairs"].startswith("18:")
    assert not (folder / ".work").exists()


def test_a_data_set_outside_params_is_shown_and_said(folder, capsys):
    (folder / "data/synthetic").rename(folder / "data/market1501")
    shutil.rmtree(layout.pseudo_labels("market1501", "equation"))
    assert main(["inspect", "market1501"]) == 0
    assert "(add market1501 to datasets in params.yaml, then)" in capsys.readouterr().out


def test_empty_parsing_is_named(folder, capsys):
    store.write_shards(layout.parsing("synthetic"), [], schema.PARSING, parsing_source="none")
    drawn(folder)
    assert lines(capsys.readouterr().out)["label maps"] == "none: parsing.synthetic.source in params.yaml is none"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["synthetic", "--image", REJECTED], r"0000_2.png was rejected: does not decode \[bold\]; choose another"),
        (["synthetic", "--image", "0001_9.png"], r"no image 0001_9.png; names there look like 0001_"),
        (["synthetic", "--output", "x.jpg"], r"x.jpg: the picture is a PNG"),
        (["elsewhere"], r"data/elsewhere: nothing prepared; prepared here: synthetic"),
        (["../data/synthetic"], r"nothing prepared"),
    ],
)
def test_wrong_input_is_one_line(folder, arguments, message):
    name, *rest = arguments
    options = dict(zip((part.removeprefix("--") for part in rest[::2]), rest[1::2], strict=True))
    output = Path(options["output"]) if "output" in options else None
    with pytest.raises(UserError, match=message) as caught:
        inspect.run(name, options.get("image"), output)
    assert "\n" not in str(caught.value)


def test_broken_label_map_is_one_line(folder):
    rows = list(store.iter_rows(layout.parsing("synthetic")))
    rows[0]["parsing"]["bytes"] = cv2.imencode(".png", np.full((64, 32), 20, np.uint8))[1].tobytes()
    store.write_shards(layout.parsing("synthetic"), rows, schema.PARSING)
    with pytest.raises(UserError, match=r"0000_0.png holds label 20, LIP-20 ends at 19"):
        inspect.run("synthetic", None, None)
