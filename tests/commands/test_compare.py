"""`repose compare` and `pipeline.scoring.compare` on two folders of small pictures, in a folder that is no project."""

import csv
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from pipeline.__main__ import main
from pipeline.commands.compare import BY_SSIM, worst
from pipeline.core.errors import UserError
from pipeline.fetching.download import MIRROR
from pipeline.formats import annotations, openpose_json
from pipeline.metrics.bootstrap import bootstrap_interval
from pipeline.scoring import compare, comparison, folders, recipes
from pipeline.scoring.comparison import KEYS
from tests.conftest import ROOT

HEIGHT, WIDTH, COUNT = 64, 32, 5


def write(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, picture[..., ::-1])[1])  # by OpenCV not every name can be written


def drawn(random: np.random.Generator) -> np.ndarray:
    return cv2.resize(random.integers(0, 256, (8, 4, 3), dtype=np.uint8), (WIDTH, HEIGHT))


@pytest.fixture
def two(tmp_path, monkeypatch) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folders `out` and `targets` as the working directory has them; the pictures (generated, target) by name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(MIRROR, raising=False)
    random, pictures = np.random.default_rng(0), []
    for number in range(COUNT):
        target = drawn(random)
        noise = random.normal(0, 5 + 10 * number, target.shape)
        generated = np.clip(target + noise, 0, 255).astype(np.uint8)
        write(Path(f"targets/{number}.png"), target)
        write(Path(f"out/{number}.png"), generated)
        pictures.append((generated, target))
    return pictures


def refused(capsys, *arguments: str) -> str:
    """The one line that an input is refused by, at exit status 2."""
    assert main(["compare", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = [line for line in printed.err.splitlines() if line.startswith("repose: ")]
    return line


def points() -> np.ndarray:
    """(18, 2): a pose inside the pictures, with numbers that float32 has exactly."""
    return np.stack([np.linspace(4, 27, 18).round(), np.linspace(4, 59, 18).round()], axis=1).astype(np.float32)


# ---- the numbers


def test_ssim_is_that_of_scikit_image_with_its_interval(two):
    found = compare("out", "targets", metrics=["ssim"])
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    expected = np.array([structural_similarity(*pair, channel_axis=2, **options) for pair in two])
    np.testing.assert_allclose(found.values["ssim"], expected, atol=1e-9)
    interval = bootstrap_interval(found.values["ssim"], None, 2000, seed=0)
    row = found["ssim"]
    assert (row["value"], row["low"], row["high"], row["n"], row["excluded"]) == tuple(interval)
    assert tuple(row) == KEYS
    assert found.table().column_names == ["generated", "target", "ssim"]


def test_pairs_follow_the_list_and_names_whatever_their_endings(two):
    Path("list.csv").write_text("target,generated\n3.jpg,0.png\n1,4\n")
    found = compare("out", "targets", pairs="list.csv", metrics=["psnr"])
    table = found.table()
    assert table["generated"].to_pylist() == ["0.png", "4.png"]
    assert table["target"].to_pylist() == ["3.png", "1.png"]
    alone = compare("out", "targets", metrics=["psnr"])
    assert found.values["psnr"][0] != alone.values["psnr"][0]


def test_the_fields_list_names_files_by_both_ends(two):
    Path("made").mkdir()
    shutil.copy("out/2.png", "made/0_2_1_vis.png")
    Path("list.csv").write_text("from,to\n0.jpg,1.jpg\n3.jpg,4.jpg\n")
    found = compare("made", "targets", pairs="list.csv", metrics=["ssim"])
    table = found.table()
    assert (table["target"].to_pylist(), table["source"].to_pylist()) == (["1.png"], ["0.png"])
    assert found.left_out == ["list.csv: line 3: no generated image in made"]


def test_a_list_of_pairs_is_looked_at(two):
    """A pair that is listed again is scored once; exchanged columns are named."""
    Path("list.csv").write_text("generated,target\n0.png,3.png\n1.png,2.png\n0,3\n")
    found = compare("out", "targets", pairs="list.csv", metrics=["psnr"])
    assert len(found.values["psnr"]) == 2
    assert found.left_out == ["list.csv: line 4: the pair of line 2 again, scored once"]
    Path("out/0.png").rename("out/made.png")
    Path("list.csv").write_text("target,generated\nmade.png,0.png\n")
    with pytest.raises(UserError, match=r"not one of 1 pairs .*; 1 have them the other way round: columns exchanged\?"):
        compare("out", "targets", pairs="list.csv", metrics=["psnr"])


def test_poses_of_another_picture_are_refused(two):
    poses = {f"{number}.png": (points() / (WIDTH, HEIGHT)).tolist() for number in range(COUNT)}
    Path("poses.json").write_text(json.dumps(poses))
    with pytest.raises(UserError, match=r"^poses\.json: all joints lie at x 0\..*parts of width and height"):
        compare("out", "targets", poses="poses.json", metrics=["mask-ssim"])
    missing = {name: [[-1, -1]] * 9 + points()[9:].tolist() for name in poses}
    Path("poses.json").write_text(json.dumps(missing))
    with pytest.raises(UserError, match=r"^poses\.json: 50\.0% of the joints lie at \(-1, -1\).*in JSON they are null"):
        compare("out", "targets", poses="poses.json", metrics=["mask-ssim"])


def test_poses_are_read_in_each_form(two):
    """And the masked metrics see them; one target of the JSON has no pose."""
    pairs, _ = folders.open_folders(Path("out"), Path("targets"), None, None)
    joints, valid = np.tile(points(), (COUNT, 1, 1)), np.ones((COUNT, 18), bool)
    valid[:, 7] = False
    names = [f"{number}.jpg" for number in range(COUNT)]
    Path("poses.csv").write_text("".join(annotations.keypoint_lines(names, joints, valid)))
    Path("openpose").mkdir()
    for name in names:
        Path("openpose", openpose_json.member(name)).write_bytes(openpose_json.write(joints[0], valid[0].astype(float)))
    listed = [[*map(float, point)] if seen else None for point, seen in zip(joints[0], valid[0], strict=True)]
    Path("poses.json").write_text(json.dumps(dict.fromkeys(names[1:], listed)))
    read = [folders.poses(Path(name), pairs) for name in ("poses.csv", "openpose", "poses.json")]
    for one in read[:2]:
        assert np.array_equal(one.xy, np.where(valid[..., None], joints, 0))
        assert np.array_equal(one.valid, valid)
    assert np.array_equal(read[2].valid, valid & (np.arange(COUNT) > 0)[:, None])
    found = compare("out", "targets", poses="poses.json", metrics=["mask-ssim", "inside-psnr"])
    assert (found["mask-ssim"]["n"], found["mask-ssim"]["excluded"], found["mask-ssim"]["marks"]) == (COUNT - 1, 1, [])


def test_joints_that_were_given_by_nobody_are_found_and_marked(two, monkeypatch):
    """In targets the central person's, in generated images the highest peaks, as for `score`."""

    class Detector:
        def __init__(self, files):
            assert files == ["a file"]

        def __call__(self, images):
            return np.tile(points(), (len(images), 1, 1)), np.ones((len(images), 18), np.float32)

        def central_people(self, images):
            return self(images)

    monkeypatch.setattr(comparison, "OpenPose", Detector)
    monkeypatch.setattr(comparison, "_files", lambda net, folder: ["a file"] if net == "openpose" else None)
    monkeypatch.setattr("pipeline.scoring.detectors.digests", lambda files: {})
    found = compare("out", "targets")
    assert found["pckh@0.5"]["value"] == found["pckh@0.5"]["ceiling"] == 1
    assert found["pckh@0.5"]["protocol"].endswith("by Lightweight OpenPose")
    assert found["mask-ssim"]["marks"] == found["pckh@0.5"]["marks"] == ["joints"]
    assert found["ssim"]["marks"] == []


def test_what_cannot_be_had_is_left_out_with_its_reason(two):
    found = compare("out", "targets")
    assert {row["metric"] for row in found.scores} == {"ssim", "ssim-uniform7", "psnr"}  # 32 pixels: no window of 51
    lines = "\n".join(found.left_out)
    assert "mask-ssim, mask-ssim-uniform7, mask-psnr, inside-ssim, inside-psnr, mask-lpips-alex-v0.1" in lines
    assert "needs the targets' joints: give poses" in lines
    assert "fid, kid, is: needs the published weights of inception" in lines
    assert "identity-target, identity-source" not in lines  # each has a reason of its own
    assert "identity-source: needs the source images" in lines


def test_jpegs_are_marked(two):
    for path in Path("out").iterdir():
        write(path.with_suffix(".jpg"), cv2.imread(str(path))[..., ::-1])
        path.unlink()
    assert compare("out", "targets", metrics=["ssim"])["ssim"]["marks"] == ["jpeg"]


def test_the_readmes_example_runs(two, capsys):
    Path("out").rename("generated")
    text = (ROOT / "README.md").read_text()
    exec(re.search(r"```python\n(from pipeline\.scoring import compare\n.*?)```", text, re.DOTALL)[1], {})
    row = compare("generated", "targets", metrics=["ssim"])["ssim"]
    assert capsys.readouterr().out == f"{row['value']} {row['low']} {row['high']}\n"


# ---- the command


def test_json_is_all_of_standard_output_in_full_precision(two, capsys):
    Path("out/6.png").write_bytes(Path("out/1.png").read_bytes())
    assert main(["compare", "out", "targets", "--metrics", "psnr", "ssim", "--json"]) == 0
    printed = capsys.readouterr()
    content = json.loads(printed.out)
    found = compare("out", "targets", metrics=["ssim", "psnr"])
    assert set(content) == {"pairs", "height", "width", "scores", "left_out"}
    assert (content["pairs"], content["height"], content["width"]) == (COUNT, HEIGHT, WIDTH)
    assert {row["metric"]: row for row in content["scores"]} == {row["metric"]: row for row in found.scores}
    assert content["left_out"] == found.left_out == ["out: 6 has no target"]
    assert "out: 6 has no target" in printed.err


def test_table_csv_and_page(two, capsys):
    files = ["--csv", "scores.csv", "--html", "page.html"]
    assert main(["compare", "out", "targets", "--metrics", "ssim", "psnr", *files]) == 0
    printed = capsys.readouterr().out
    found = compare("out", "targets", metrics=["ssim", "psnr"])
    row = found["ssim"]
    assert f"{row['value']:.3f}" in printed
    assert f"{row['low']:.3f} to {row['high']:.3f}" in printed
    assert "gaussian 1.5, uint8, range 255" in printed
    with Path("scores.csv").open(newline="") as handle:
        rows = {one["metric"]: one for one in csv.DictReader(handle)}
    assert float(rows["ssim"]["value"]) == row["value"]
    assert rows["psnr"]["protocol"] == found["psnr"]["protocol"]
    page = Path("page.html").read_text()
    assert page.count("data:image/webp;base64,") == 2 * 4  # the four worst pairs
    assert page.index("<b>4.png</b>") < page.index("<b>3.png</b>")
    assert "<b>0.png</b>" not in page
    assert "http" not in page


def test_the_worst_pairs_are_by_ssim_where_nothing_finer_is_there_and_by_what_there_is(two):
    assert worst(compare("out", "targets", metrics=["ssim", "ssim-uniform7"])) == [
        (BY_SSIM.title, "ssim", [4, 3, 2, 1])
    ]
    assert worst(compare("out", "targets", metrics=["psnr"])) == [("Lowest psnr", "psnr", [4, 3, 2, 1])]


def test_a_hundred_pairs_by_ssim_take_less_than_ten_seconds_and_no_torch(two):
    """Of processor time, the start included."""
    for number in range(100):
        for folder, which in (("many", 0), ("their", 1)):
            write(Path(folder, f"{number}.png"), cv2.resize(two[number % COUNT][which], (176, 256)))
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pipeline.__main__ import main
assert main("compare many their --metrics ssim --json".split()) == 0
assert not {{"torch", "openvino", "pandas"}} & set(sys.modules)
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["scores"][0]["n"] == 100
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10


# ---- by others' recipes


def wrapped(generated: np.ndarray, target: np.ndarray) -> float:
    """PSNR of 8-bit numbers that wrap at 256, as PISE has it."""
    difference = generated.astype(np.int64) - target
    return 10 * np.log10(255**2 / (difference**2 % 256).mean())


def test_a_recipe_stands_beside_the_scores_in_every_output_and_in_none_of_their_rows(two, capsys):
    arguments = ["compare", "out", "targets", "--metrics", "psnr", "ssim", "--as", "pise", "gfla"]
    assert main([*arguments, "--csv", "scores.csv", "--html", "page.html"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    right = compare("out", "targets", metrics=["psnr", "ssim"])
    expected = np.mean([wrapped(*pair) for pair in two])
    assert expected > right["psnr"]["value"] + 5
    assert "By the recipe of PISE: comparable with nothing but numbers made so" in printed
    assert f"PSNR {expected:.3f} {right['psnr']['value']:.3f} 5 psnr differences and squares of 8-bit" in printed
    assert "not released: its SSIM, LPIPS and FID scripts" in printed
    assert "LPIPS left out: its network's weights are not there" in printed
    with Path("scores.csv").open(newline="") as handle:
        assert [row["metric"] for row in csv.DictReader(handle)] == ["ssim", "psnr"]
    with Path("scores-as-pise.csv").open(newline="") as handle:
        (row,) = csv.DictReader(handle)
    assert tuple(row) == recipes.KEYS
    assert float(row["value"]) == pytest.approx(expected, abs=1e-9)
    assert Path("scores-as-gfla.csv").exists()
    page = Path("page.html").read_text()
    assert "<h2>By the recipe of PISE" in page
    assert f"<b>{expected:.3f}</b>" in page
    assert main([*arguments, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["scores"] == sorted(right.scores, key=lambda row: row["metric"], reverse=True)
    assert [one["recipe"] for one in content["by_recipe"]] == ["pise", "gfla"]
    assert content["by_recipe"][0]["numbers"][0]["value"] == pytest.approx(expected, abs=1e-9)


def test_images_of_another_size_are_scored_by_the_recipe_alone(two, capsys):
    for number, (generated, _) in enumerate(two):
        write(Path(f"large/{number}.png"), cv2.resize(generated, (80, 96)))
    assert "large/0.png: wrong size" in refused(capsys, "large", "targets", "--metrics", "psnr")
    found = compare("large", "targets", recipes=["cfld"])
    assert found.scores == []
    assert found.left_out == [
        "the right numbers: generated images are 96 x 80, the targets 64 x 32 (height x width); metrics want one size"
    ]
    psnr = next(row for row in found.by_recipe[0].numbers if row["number"] == "PSNR")
    assert psnr["does"].startswith("generated pictures resized from 96 x 80 (bicubic, antialiased)")
    assert main(["compare", "large", "targets", "--as", "cfld", "--html", "page.html", "--csv", "scores.csv"]) == 0
    assert "<h2>Scores</h2>" not in Path("page.html").read_text()
    assert Path("scores-as-cfld.csv").exists()


def test_draws_are_for_recipes_that_take_the_best(two, capsys):
    shutil.copytree("targets", "perfect")
    line = refused(capsys, "out", "targets", "--metrics", "psnr", "--as", "gfla", "--draws", "perfect")
    assert line.startswith("repose: --draws: no recipe that was asked for looks at further draws; give --as pcdms")
    (found,) = compare("out", "targets", metrics=["psnr"], recipes=["pcdms"], draws=["perfect"]).by_recipe
    assert found.numbers[0]["value"] == pytest.approx(1)
    assert found.notes[-1].startswith("of 2 draws a pair the likest to the true target was scored")


def test_draws_that_are_not_there_are_said_before_anything_is_scored(two, capsys, monkeypatch):
    monkeypatch.setattr(comparison.judge, "score_images", None)
    line = refused(capsys, "out", "targets", "--metrics", "psnr", "--as", "pcdms", "--draws", "nowhere")
    assert line.startswith("repose: nowhere: no such folder")


# ---- what is refused


def test_bad_input_is_one_line(two, capsys):
    ssim = ("--metrics", "ssim")
    assert (
        refused(capsys, "nowhere", "targets") == "repose: nowhere: no such folder; give the folder of generated images"
    )
    Path("empty").mkdir()
    assert "empty: no pictures" in refused(capsys, "empty", "targets")
    write(Path("other/a.png"), two[0][0])
    assert "no file name in common, such as a.png and 0.png" in refused(capsys, "other", "targets", *ssim)
    write(Path("small/0.png"), two[0][0][:-1])
    line = refused(capsys, "small", "targets", *ssim)
    assert line.startswith("repose: small/0.png: wrong size: 63 x 32, the targets are 64 x 32 (height x width)")
    write(Path("mixed/0.png"), two[0][1])
    write(Path("mixed/1.png"), two[1][1][:-1])
    assert "mixed/1.png: is 63 x 32, other images are 64 x 32" in refused(capsys, "out", "mixed", *ssim)
    Path("small/0.png").write_bytes(b"no picture")
    assert "small/0.png: does not decode as a picture" in refused(capsys, "small", "targets", *ssim)
    Path("mixed/0.png").write_bytes(b"")
    assert "mixed/0.png: does not decode as a picture" in refused(capsys, "out", "mixed", *ssim)
    shutil.copy("out/0.png", "out/0.bmp")
    assert "out: 0.bmp and 0.png have one name" in refused(capsys, "out", "targets", *ssim)


def test_a_bad_list_or_pose_file_is_one_line(two, capsys):
    def with_file(option: str, name: str, text: str) -> str:
        Path(name).write_text(text)
        return refused(capsys, "out", "targets", "--metrics", "mask-ssim", option, name)

    line = with_file("--pairs", "list.csv", "a,b\n1,2\n")
    assert line == (
        "repose: list.csv: the columns are a, b; wanted: generated,target (and source, if you like), or from,to"
    )
    assert "no pair; wanted" in with_file("--pairs", "list.csv", "generated,target\n")
    assert "not one of 1 pairs has both files" in with_file("--pairs", "list.csv", "generated,target\n1,9\n")
    assert "list.csv: cannot be read" in refused(capsys, "out", "targets", "--pairs", "nowhere/list.csv")
    assert "not the header" in with_file("--poses", "poses.csv", "name,x,y\n")
    assert "cannot be read as JSON" in with_file("--poses", "poses.json", "{")
    assert "poses.json: 1.png is not what is wanted" in with_file("--poses", "poses.json", '{"1.png": [[1, 2]]}')
    poses = json.dumps({"z.png": points().tolist()})
    assert "no pose of a target, such as 0.png" in with_file("--poses", "poses.json", poses)
    shutil.copytree("targets", "sources")
    Path("sources/3.png").unlink()
    line = refused(capsys, "out", "targets", "--sources", "sources", "--metrics", "ssim")
    assert "sources: no source of 1 of 5 pairs, the first of 3.png" in line


def test_a_metric_that_was_asked_for_and_cannot_be_had_is_one_line(two, capsys, monkeypatch):
    def asked(*names: str) -> str:
        return refused(capsys, "out", "targets", "--metrics", *names)

    line = asked("ssim", "fid")
    assert "fid needs the published weights of inception: pt_inception-2015-12-05-6726825d.pth (https://" in line
    assert line.endswith("$REPOSE_MIRROR/weights, or data/weights of the current folder")
    assert "mask-ssim needs the targets' joints" in asked("mask-ssim")
    assert "parsing-miou looks at more of a data set" in asked("parsing-miou")
    assert "ssim-win51 is not defined for images of 64 x 32" in asked("ssim-win51")
    assert "ssmi; choose from ssim" in asked("ssmi")
    Path("weights").mkdir()
    Path("weights/alexnet-owt-7be5be79.pth").write_bytes(b"something else")
    for folder in ("weights", "."):  # where they lie, or one as $REPOSE_MIRROR is
        line = refused(capsys, "out", "targets", "--metrics", "lpips-alex-v0.1", "--weights", folder)
        assert "weights/alexnet-owt-7be5be79.pth: sha256 is" in line
    assert "nowhere: no such folder" in refused(capsys, "out", "targets", "--weights", "nowhere")
    monkeypatch.setenv(MIRROR, "nowhere")
    assert "REPOSE_MIRROR=nowhere: no such folder" in asked("lpips-alex-v0.1")


def test_the_function_raises_what_the_command_prints(two):
    with pytest.raises(UserError, match="no such folder"):
        compare("nowhere", "targets")
    with pytest.raises(ImportError):
        from pipeline.scoring import nothing  # noqa: F401


# ---- folders of a stranger's


NAMES = (
    "<script>alert(1)</script>",
    "-rf",
    "=1+1",
    "'\"",
    "a\nb",
    "\x1b[2J",
    "[/red]",
    "%s{0}",
    "a" * 251,
    os.fsdecode(b"caf\xe9"),
)


def test_names_are_text_wherever_they_are_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for place, name in enumerate(NAMES):
        name = name.replace("/", "_")
        write(Path(f"out/{name}.png"), drawn(random))
        if place % 2 == 0 or place == len(NAMES) - 1:
            write(Path(f"targets/{name}.png"), drawn(random))
    shutil.copytree("out", "<b>out")
    files = ["--csv", "scores.csv", "--html", "page.html"]
    assert main(["compare", "<b>out", "targets", "--metrics", "ssim", *files]) == 0
    said = capsys.readouterr()
    assert (said.out + said.err).replace("\n", "").isprintable()
    page = Path("page.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "<b>out" not in page
    assert "&lt;script&gt;alert" in page
    assert main(["compare", "<b>out", "targets", "--metrics", "ssim", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pairs"] == 6


def test_pipes_devices_folders_and_giants_are_no_pictures(two, capsys):
    os.mkfifo("out/5.png")
    Path("out/6.png").symlink_to("/dev/zero")
    Path("out/7.png").mkdir()
    assert main(["compare", "out", "targets", "--metrics", "ssim"]) == 0
    capsys.readouterr()
    with Path("out/8.png").open("wb") as sparse:
        sparse.truncate(1 << 40)
    shutil.copy("targets/0.png", "targets/8.png")
    assert "out/8.png: is larger than 64 MiB: no picture" in refused(capsys, "out", "targets", "--metrics", "ssim")
