"""The command `generate`: whose picture in whose pose is drawn, fitted how, and what is refused in one line."""

import csv
import hashlib
import itertools
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from models import variants
from models.layers.blocks import Batch, Output
from pipeline import drawing
from pipeline.__main__ import main
from pipeline.commands import figure, generate
from pipeline.core import params
from pipeline.datasets.folder import photograph as own_images
from pipeline.extraction import openpose
from pipeline.fetching import networks
from pipeline.figures import subject
from pipeline.formats import openpose_json, pictures
from tests import tiny_dataset
from tests.commands.test_figure import entry
from tests.scored_project import write_checkpoints, write_weights
from tests.tiny_dataset import HEIGHT, WIDTH

SEEN: list[Batch] = []  # what the generators were given


class Inverted(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, batch: Batch) -> Output:
        SEEN.append(batch)
        return Output(-batch.source)


def photograph(seed: int, height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_NEAREST)


def write(path: str, picture: np.ndarray) -> Path:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(pictures.encode_png(picture))
    return Path(path)


def person(seed: int, joints: int = 18) -> tuple[np.ndarray, np.ndarray]:
    points, scores = tiny_dataset.joints(7, seed)[0].astype(float), np.zeros(18)
    scores[:joints] = 0.5
    return points * (scores > 0)[:, None], scores


@pytest.fixture
def found(monkeypatch) -> dict[bytes, list]:
    """The people whom the detector finds, by the fitted picture's bytes; of one that is not there, person 0."""
    people: dict[bytes, list] = {}

    def everybody(picture, *_):
        some = people.get(picture.tobytes(), [person(0)])
        joints, scores = ([one[part] for one in some] for part in (0, 1))
        return np.reshape(joints, (-1, 18, 2)), np.reshape(scores, (-1, 18))

    monkeypatch.setattr(openpose, "everybody", everybody)
    monkeypatch.setattr(generate.Reader, "_detector", SimpleNamespace(mean_maps=lambda picture: (picture, None, None)))
    return people


@pytest.fixture
def project(tmp_path, monkeypatch, found):
    """A project with the variants `shown` (steps 1 and 2) and `parsed`, which reads parsing; photograph me.png."""
    tiny_dataset.write_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    params.load.cache_clear()
    for name, parsing in (("shown", False), ("parsed", True)):
        monkeypatch.setitem(variants.VARIANTS, name, entry(name, Inverted, "SPIG", parsing))
        write_checkpoints("synthetic", name, "variant", Inverted(), [1, 2], [])
    spatn = variants.COMPONENTS["spatn"].build(HEIGHT, WIDTH, 0.25, kappa=-0.1)
    write_checkpoints("synthetic", "spatn", "component", spatn, [1], [])
    write("me.png", photograph(1, HEIGHT, WIDTH))
    Path("pose.json").write_bytes(openpose_json.write(*person(1)))
    SEEN.clear()
    yield tmp_path
    params.load.cache_clear()


SHOWN = "runs/synthetic/shown"


def drawn(path: str) -> np.ndarray:
    return cv2.imread(path)[:, :, ::-1]


def run(*arguments: str) -> int:
    return main(["generate", *arguments])


def refused(capsys, *arguments: str) -> str:
    """The one line that the command says instead of drawing."""
    capsys.readouterr()
    assert run(*arguments) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("repose:")]
    assert len(said) == 1
    assert not Path("generated").exists()
    return said[0]


def test_a_photograph_in_the_pose_of_a_file(project, capsys):
    assert run("--image", "me.png", "--pose", "pose.json", "--run", SHOWN, "--strip") == 0
    np.testing.assert_array_equal(drawn("generated/me_to_pose.png"), 255 - photograph(1, HEIGHT, WIDTH))
    (batch,) = SEEN
    for side, seed in (("source", 0), ("target", 1)):
        points, scores = person(seed)
        np.testing.assert_allclose(getattr(batch, f"{side}_joints")[0], points, atol=1e-4)
        np.testing.assert_array_equal(getattr(batch, f"{side}_valid")[0], scores > 0)
    assert batch.target is batch.source_labels is batch.target_labels is None
    strip = drawn("generated/me_to_pose_strip.png")
    posed = SimpleNamespace(joints=person(1)[0], valid=person(1)[1] > 0)
    shown = (photograph(1, HEIGHT, WIDTH), None, 255 - photograph(1, HEIGHT, WIDTH))
    panels = [subject.skeleton(posed, HEIGHT, WIDTH) if one is None else subject.enlarged(one) for one in shown]
    titles = ("source", "pose", "shown, step 2")
    expected = drawing.beside([drawing.titled(one, title) for one, title in zip(panels, titles, strict=True)])
    np.testing.assert_array_equal(strip, expected)
    assert "generated/me_to_pose.png: 64 x 32 (height x width) by shown, step 2, synthetic" in capsys.readouterr().err
    assert sorted(path.name for path in Path("generated").iterdir()) == ["me_to_pose.png", "me_to_pose_strip.png"]


@pytest.mark.parametrize("fit", ["pad", "squash"])
def test_a_photograph_and_a_pose_of_another_size_are_fitted_alike(project, capsys, fit):
    """The picture as the data set `folder` does, a joint to the pixel that its own pixel became."""
    picture = photograph(2, 200, 300)
    points, scores = person(1, joints=2)
    points[:2] = (37, 20), (262, 180)
    for x, y in points[:2].astype(int):
        picture[y - 8 : y + 9, x - 8 : x + 9] = 255
    picture[picture.sum(2) < 765] //= 2
    path = write("large.png", picture)
    Path("large.json").write_bytes(openpose_json.write(points, scores))
    more = ["--fit", fit, "--pose-size", "200", "300"]
    assert run("--image", "large.png", "--pose", "large.json", "--run", SHOWN, *more) == 0
    stored = pictures.decode(own_images.fitted(path.read_bytes(), HEIGHT, WIDTH, fit)[0])
    np.testing.assert_array_equal(drawn("generated/large_to_large.png"), 255 - stored)
    margin = " as 21 x 32 and a margin" if fit == "pad" else ""
    assert f"large.png: 200 x 300 (height x width) fitted to 64 x 32{margin}\n" in capsys.readouterr().err
    for x, y in SEEN[0].target_joints[0, :2].tolist():
        patch = stored[round(y), round(x)].astype(int)
        assert patch.min() > 200
    assert SEEN[0].target_valid[0].sum() == 2


def test_every_photograph_of_a_folder_in_every_pose_of_another(project, capsys, found):
    for number in range(3):
        write(f"people/{number}.png", photograph(number, HEIGHT, WIDTH))
    found[photograph(2, HEIGHT, WIDTH).tobytes()] = []
    Path("people/broken.jpg").write_bytes(b"no picture")
    Path("people/phone.heic").write_bytes(b"x")
    Path("people/notes.txt").write_text("no picture either")
    Path("poses").mkdir()
    for number in (4, 5):
        Path(f"poses/{number}_keypoints.json").write_bytes(openpose_json.write(*person(number)))
    Path("poses/bad.json").write_text("{")
    write("poses/photo.png", photograph(9, HEIGHT, WIDTH))
    assert run("--image", "people", "--pose", "poses", "--run", SHOWN, "--output", "out") == 0
    pairs = itertools.product("01", ("4", "5", "photo"))
    assert {path.name for path in Path("out").iterdir()} == {f"{source}_to_{pose}.png" for source, pose in pairs}
    for number in range(2):
        np.testing.assert_array_equal(drawn(f"out/{number}_to_5.png"), 255 - photograph(number, HEIGHT, WIDTH))
    said = capsys.readouterr().err
    assert said.count("left out: ") == 5
    assert "out: 6 pictures, 2 photographs in 3 poses, of 64 x 32" in said
    for line in (
        "people/2.png: no person",
        "people/broken.jpg: is no picture",
        "people/notes.txt: is no picture",
        "poses/bad",
    ):
        assert f"left out: {line}" in said


def test_the_checkpoint_is_the_one_of_the_tables_of_the_runs_own_project(project, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(figure, "chosen_step", lambda *names: asked.append((names, Path.cwd())) or 1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert generate.open_run(project / SHOWN, None).step == 1
    assert asked == [(("synthetic", "shown"), project)]
    assert generate.open_run(project / SHOWN, 2).step == 2
    (project / SHOWN).rename(elsewhere / "shown")
    assert generate.open_run(elsewhere / "shown", None).step == 2  # a copy without a project: the last
    assert len(asked) == 1


def test_a_variant_that_reads_parsing_gets_the_parsers(project, monkeypatch):
    from pipeline.extraction import repose_parser

    maps = tiny_dataset.label_map(1, 0)

    def parser(images, joints, valid):
        np.testing.assert_array_equal(images[0], photograph(1, HEIGHT, WIDTH))
        np.testing.assert_allclose(joints[0], person(0)[0], atol=1e-4)
        return maps[None]

    monkeypatch.setattr(repose_parser, "load", lambda device: parser)
    assert run("--image", "me.png", "--pose", "pose.json", "--run", "runs/synthetic/parsed") == 0
    np.testing.assert_array_equal(SEEN[0].source_labels[0], maps)
    given = variants.VARIANTS["parsed"]
    object.__setattr__(given, "given_target_parsing", True)
    assert run("--image", "me.png", "--pose", "me.png", "--run", "runs/synthetic/parsed") == 0
    np.testing.assert_array_equal(SEEN[1].target_labels[0], maps)
    assert run("--image", "me.png", "--pose", "pose.json", "--run", "runs/synthetic/parsed") == 2


def test_of_several_people_the_one_in_the_middle_where_it_is_asked_for(project, capsys, found):
    left, right = person(0), person(1)
    left[0][:, 0] -= 14
    found[photograph(1, HEIGHT, WIDTH).tobytes()] = [left, right, person(2, joints=4)]  # the third: some stray joints
    arguments = ["--image", "me.png", "--pose", "pose.json", "--run", SHOWN]
    said = refused(capsys, *arguments)
    assert "me.png: 2 people; cut it to one, or take the one in the middle with --central" in said
    assert run(*arguments, "--central") == 0
    np.testing.assert_allclose(SEEN[0].source_joints[0], right[0], atol=1e-4)
    crowd = json.loads(openpose_json.write(*left)), json.loads(openpose_json.write(*right))
    Path("crowd.json").write_text(json.dumps({"people": [one["people"][0] for one in crowd]}))
    assert run("--image", "me.png", "--pose", "crowd.json", "--run", SHOWN) == 2
    assert "crowd.json: 2 people" in capsys.readouterr().err


def test_what_cannot_be_drawn_is_one_line(project, capsys, found, monkeypatch):
    write("nobody.png", photograph(3, HEIGHT, WIDTH))
    found[photograph(3, HEIGHT, WIDTH).tobytes()] = [person(0, joints=4)]
    Path("empty.json").write_text('{"people": []}')
    Path("list.json").write_text("[]")
    Path("far.json").write_bytes(openpose_json.write(person(0)[0] * 9, person(0)[1]))
    Path("unit.json").write_bytes(openpose_json.write(person(0)[0] / (WIDTH, HEIGHT), person(0)[1]))
    Path("text.png").write_text("no picture")
    Path("none").mkdir()
    write("twice/a.png", photograph(1, HEIGHT, WIDTH))
    Path("twice/a.jpg").write_bytes(Path("twice/a.png").read_bytes())
    for image, pose, folder, more, said in (
        ("nobody.png", "pose.json", SHOWN, [], "nobody.png: no person found"),
        ("text.png", "pose.json", SHOWN, [], "text.png: is no picture"),
        ("gone.png", "pose.json", SHOWN, [], "--image gone.png: not there"),
        ("none", "pose.json", SHOWN, [], "--image none: no file in it"),
        ("me.png", "nobody.png", SHOWN, [], "nobody.png: no person found"),
        ("me.png", "empty.json", SHOWN, [], "empty.json: holds no person"),
        ("me.png", "list.json", SHOWN, [], "list.json: no pose file of OpenPose's: no list `people`"),
        ("me.png", "far.json", SHOWN, [], "far outside 64 x 32 (height x width); say with --pose-size"),
        ("me.png", "unit.json", SHOWN, [], "parts of width and height? wanted are pixels"),
        ("me.png", "pose.json", "runs/synthetic", [], "runs/synthetic: no trained run"),
        ("me.png", "pose.json", "runs/synthetic/spatn", [], "runs/synthetic/spatn: a component, which draws no"),
        ("me.png", "pose.json", SHOWN, ["--step", "3"], "no checkpoint of step 3; there are: 1, 2"),
        ("twice", "pose.json", SHOWN, [], "a_to_pose.png: would be two pictures"),
    ):
        assert said in refused(capsys, "--image", image, "--pose", pose, "--run", folder, *more)


def test_missing_weights_of_the_detector_are_one_line(project, capsys, monkeypatch):
    monkeypatch.undo()
    monkeypatch.delenv("REPOSE_MIRROR", raising=False)
    monkeypatch.chdir(project)
    monkeypatch.setitem(variants.VARIANTS, "shown", entry("shown", Inverted, "SPIG", False))
    arguments = ["--image", "me.png", "--pose", "pose.json", "--run", SHOWN]
    said = refused(capsys, *arguments)
    assert "human-pose-estimation-0001.xml and human-pose-estimation-0001.bin (https://" in said
    assert "or run `repose weights --net openpose` in the project, but then" in said
    write_weights("openpose", {})
    assert refused(capsys, *arguments) == said


def test_weights_of_the_detector_in_the_mirror_will_do(project, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(project)
    monkeypatch.setenv("REPOSE_MIRROR", str(tmp_path / "mirror"))
    names = [Path(one.file).name for one in networks.NETS["openpose"]]
    files = [replace(one, sha256=hashlib.sha256(b"weights").hexdigest()) for one in networks.NETS["openpose"]]
    monkeypatch.setitem(networks.NETS, "openpose", tuple(files))
    for name in names:
        path = tmp_path / "mirror/weights" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
    write_weights("openpose", {})
    monkeypatch.setattr(openpose, "OpenPose", lambda found: found)
    reader = generate.Reader(SimpleNamespace(height=HEIGHT, width=WIDTH), project, "pad", False, None)
    assert [file.name for file in reader._detector] == names
    assert not (project / "data/weights/openpose" / names[0]).exists()


@pytest.mark.real
def test_real_photographs(mirror, project, monkeypatch, capsys):
    """A crop of Market-1501 beside its annotated joints; two people side by side are two."""
    monkeypatch.undo()
    monkeypatch.chdir(project)
    monkeypatch.setitem(variants.VARIANTS, "shown", entry("shown", Inverted, "SPIG", False))
    net = "human-pose-estimation-0001"
    files = [mirror / f"weights/{net}{end}" for end in (".xml", ".bin")]
    write_weights("openpose", {file.name: file.read_bytes() for file in files})
    with (mirror / "market1501/market-annotation-test.csv").open() as handle:
        rows = {row[0]: row[1:] for row in csv.reader(handle, delimiter=":")}
    with zipfile.ZipFile(mirror / "market1501/Market-1501-v15.09.15.zip") as archive:
        names = [name for name in archive.namelist() if "bounding_box_test/0009_c1" in name][:2]
        crops = [pictures.decode(archive.read(name)) for name in names]
    write("me.png", crops[0])
    assert run("--image", "me.png", "--pose", "pose.json", "--run", SHOWN) == 0
    y, x = (np.array(json.loads(text)) for text in rows[Path(names[0]).name])
    known = (x >= 0) & SEEN[0].source_valid[0].numpy()
    apart = SEEN[0].source_joints[0].numpy()[known] * 2 - np.stack([x, y], 1)[known]
    assert known.sum() > 10
    assert np.linalg.norm(apart, axis=1).mean() < 8  # of 128 pixels' height
    write("two.png", np.concatenate(crops, axis=1))
    capsys.readouterr()
    assert run("--image", "two.png", "--pose", "pose.json", "--run", SHOWN) == 2
    assert "two.png: 2 people" in capsys.readouterr().err
