"""Images of other programs: which file is whose, what is left out and said, and that they score as a variant would."""

import csv
import json
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from models.variants import VARIANTS
from pipeline.__main__ import main
from pipeline.commands import score_images
from pipeline.core import layout, params, store
from pipeline.core.atomic import atomic_directory
from pipeline.core.errors import UserError
from pipeline.fetching.download import MIRROR
from pipeline.formats import annotations
from pipeline.loading.arrays import load_pairs
from pipeline.scoring import compare, comparison, detectors, image_folder, numbering
from pipeline.scoring.recipes import NO_TRAINING_IMAGES
from pipeline.stages import reference, score
from pipeline.tables.inputs import outdated, read_outside
from pipeline.tables.inputs import reference as reference_of
from tests.scored_project import CPU, HEIGHT, WIDTH, entered, stored_images, write_weights

pytestmark = pytest.mark.usefixtures("small_inception")


@pytest.fixture(scope="module")
def project(tmp_path_factory, small_inception):
    with entered(tmp_path_factory.mktemp("project")) as folder:
        reference.run("synthetic")
        score.run("synthetic", "copy_source")
        yield folder


def listed() -> list[tuple[str, str]]:
    """(source, target) of the seven scored test pairs, in order."""
    table = store.read_table(layout.reference("synthetic") / "pairs.parquet", filters=[("split", "=", "test")])
    return list(zip(table["source_id"].to_pylist(), table["target_id"].to_pylist(), strict=True))


def copies(folder: Path, pairs, form: str = "{from}_{to}.png") -> dict[tuple[str, str], Path]:
    """The source as the generated image of each pair: what copy_source generates."""
    folder.mkdir(exist_ok=True)
    paths = {}
    for source, target in pairs:
        paths[source, target] = folder / form.format(**{"from": Path(source).stem, "to": Path(target).stem})
        assert cv2.imwrite(str(paths[source, target]), stored_images([source])[0][..., ::-1])
    return paths


def rows(name: str, split: str = "test") -> dict[str, dict]:
    table = store.read_table(layout.outside("synthetic", name) / "scores.parquet").to_pylist()
    return {row["metric"]: row for row in table if row["split"] == split}


def files(name: str) -> list[dict]:
    with (layout.outside("synthetic", name) / "files.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


# ---- names


@pytest.mark.parametrize(
    "form",
    [
        "{from}_{to}.png", "{from}___{to}_vis.png", "{from}.jpg___{to}.jpg_vis.png", "{from}_2_{to}_vis.png",
        "{from}_to_{to}.jpg", "{from}.jpg_{to}.jpg.jpeg",
        "{from}_to_{to}.png",  # PCDMs
        "{from}_2_{to}.png",  # MCLD; PIDM, PoCoLD, NTED and GFLA have _vis as well
        "{from}_{to}_vis.jpg",  # PISE
    ],
)  # fmt: skip
def test_the_peers_names_are_recognised(project, form):
    names = image_folder.names_of(listed(), None)
    for position, (source, target) in enumerate(listed()):
        path = Path(form.format(**{"from": Path(source).stem, "to": Path(target).stem}))
        assert image_folder.match([path], names) == ({position: path}, [], [])


def test_own_patterns_are_names(project):
    source, target = (Path(name).stem for name in listed()[2])
    own = image_folder.names_of(listed(), "gen-{to}~{from}")
    assert image_folder.match([Path(f"gen-{target}~{source}.png")], own)[0].keys() == {2}
    other = Path(f"{source}_{target}.png")
    assert image_folder.match([other], own) == ({}, [], [other])
    alone = image_folder.names_of([("a.jpg", "b.jpg"), ("a.jpg", "c.jpg"), ("b.jpg", "c.jpg")], "{to}_x")
    assert (alone["b_x"], alone["c_x"]) == (0, image_folder.SEVERAL)
    for pattern in ("{from}", "{source}_{target}", "{from}_{to}_{index}", "fixed"):
        with pytest.raises(UserError, match="--pattern"):
            image_folder.names_of(listed(), pattern)


def test_names_that_fit_two_pairs_or_two_files_for_one_are_left_out(project):
    names = image_folder.names_of(listed(), None)
    source, target = (Path(name).stem for name in listed()[0])
    twins = [Path(f"{source}_{target}.png"), Path(f"{source}___{target}_vis.jpg")]
    found, left, _ = image_folder.match(twins, names)
    assert found == {}
    assert {why for _, why in left} == {"one of 2 files for one pair"}
    # ids that contain the separator
    names = image_folder.names_of([("a_b", "c"), ("a", "b_c")], None)
    assert image_folder.match([Path("a_b_c.png")], names)[1][0][1].startswith("ambiguous")
    assert image_folder.match([Path("a_b___c.png")], names)[0] == {0: Path("a_b___c.png")}


# ---- files


def test_exported_images_score_as_their_variant_does(project, tmp_path, capsys):
    """Under the field's names, from a folder and from an archive; a checkpoint's own images, not another's."""
    arguments = ["export", "--dataset", "synthetic", "--what", "generated", "--variant", "copy_source", "--step", "5"]
    for output in (tmp_path / "images", tmp_path / "images.zip"):
        assert main([*arguments, "--output", str(output)]) == 0
    pairs = store.read_table(layout.pairs("synthetic"), filters=[("split", "=", "test")]).to_pylist()
    names = {f"{Path(row['source_id']).stem}_2_{Path(row['target_id']).stem}_vis.png" for row in pairs}
    assert {path.name for path in (tmp_path / "images").iterdir()} == names
    assert "24 images (test) by copy_source, step 5, synthetic" in capsys.readouterr().err
    with zipfile.ZipFile(tmp_path / "images.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            path.name: path.read_bytes() for path in (tmp_path / "images").iterdir()
        }
    score_images.run("synthetic", tmp_path / "images", "Read back")
    stored = store.read_table(layout.scores("synthetic", "copy_source")).to_pylist()
    wanted = {row["metric"]: row for row in stored if row["split"] == "test" and row["step"] == 5}
    found = rows("read_back")
    assert found.keys() == wanted.keys()
    for metric, row in found.items():
        for key in ("value", "low", "high", "n", "excluded", "protocol"):
            assert row[key] == wanted[metric][key], (metric, key)
    assert {row["what"] for row in files("read_back")} == {
        "its pair is not scored: reference.synthetic.test_pairs is 7, of 24 pairs", image_folder.COPY
    }  # fmt: skip
    shutil.rmtree(layout.outside("synthetic", "read_back"))


def test_a_copy_of_the_sources_scores_as_copy_source_does(project, copied, capsys):
    folder = copied / "theirs"
    copies(folder, listed())
    (folder / "notes.txt").write_text("not an image")
    for name in ("nobody_knows", "11"):
        cv2.imwrite(str(folder / f"{name}.png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    recipes = ["--as", "gfla", "pise"]
    assert main(["score", "--dataset", "synthetic", "--images", "theirs", "--name", "My method", *recipes]) == 0
    mine = rows("my_method")
    table = store.read_table(layout.scores("synthetic", "copy_source")).to_pylist()
    ours = {row["metric"]: row for row in table if (row["step"], row["split"]) == (5, "test")}
    assert set(mine) == set(ours)
    for name, row in ours.items():
        same = ("value", "low", "high", "n", "excluded", "protocol", "ceiling")
        assert {key: mine[name][key] for key in same} == {key: row[key] for key in same}, name
        assert mine[name]["variant"] == "My method"
        assert set(mine[name]["marks"]) == set(row["marks"]) - {"steps"} | {"source"}  # training's are not known
    method = json.loads((layout.outside("synthetic", "my_method") / "method.json").read_text())
    assert method["pairs"] == {"scored": 7, "missing": 0}
    said = [(row["file"], row["what"]) for row in files("my_method")]
    assert len([what for _, what in said if what == image_folder.COPY]) == 7
    assert [row for row in said if row[1] != image_folder.COPY] == [
        ("11.png", image_folder.BESIDE_NAMES),
        ("nobody_knows.png", "extra: its name is no scored pair's"),
        ("notes.txt", "not an image file"),
    ]
    samples = store.read_table(layout.outside("synthetic", "my_method") / "samples.parquet").to_pylist()
    picture = cv2.imdecode(np.frombuffer(samples[0]["generated"]["bytes"], np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(picture[..., ::-1], stored_images([samples[0]["source_id"]])[0])

    said = capsys.readouterr().err  # the row, before it is in a table
    assert "My method on synthetic; all marked" in said
    assert any(line.split()[:3] == ["ssim", "↑", f"{mine['ssim']['value']:.3f}"] for line in said.splitlines())
    assert mine["ssim"]["protocol"] in said
    # what others' code makes of the images, in no table
    runs = read_outside({})
    assert list(runs) == [("synthetic", "My method")]
    assert set(runs["synthetic", "My method"].scores["metric"]) == set(mine)
    found = json.loads((layout.outside("synthetic", "my_method") / "as-gfla.json").read_text())
    numbers = {row["number"]: row for row in found["numbers"]}
    assert numbers["PSNR"]["value"] == numbers["PSNR"]["right"] == pytest.approx(mine["psnr"]["value"])
    assert numbers["LPIPS"]["value"] == pytest.approx(mine["lpips-alex-v0.1"]["value"], abs=1e-6)  # fills no batch
    assert numbers["LPIPS"]["marks"] == ["metric-weights"]
    assert f"FID left out: {NO_TRAINING_IMAGES}" in found["notes"]
    assert "By the recipe of PISE: comparable with nothing but numbers made so" in said
    assert f"PSNR {numbers['PSNR']['value']:.4f}, right: psnr {mine['psnr']['value']:.4f} (range 1 on floats" in said


def test_two_folders_compare_to_the_scores_numbers(project, copied, monkeypatch):
    """Every metric of the stage, to the last bit: value, interval, pairs, ceiling, protocol, and each pair's own."""
    theirs, targets = copied / "theirs", copied / "targets"
    copies(theirs, listed(), "{from}_2_{to}_vis.png")
    targets.mkdir()
    reader = store.RandomReader(layout.images("synthetic"), ["image"])
    joints = {row["image_id"]: row["keypoints"] for row in store.read_table(layout.keypoints("synthetic")).to_pylist()}
    for name in {target for _, target in listed()}:
        (targets / name).write_bytes(reader[name]["image"]["bytes"])
    poses = {path.name: joints[path.name] for path in targets.iterdir()}
    (copied / "poses.json").write_text(json.dumps(poses))
    (copied / "pairs.csv").write_text("".join(annotations.pair_lines(listed())))
    monkeypatch.delenv(MIRROR, raising=False)
    # The data set's own detector in the place of Lightweight OpenPose, whose weights are not there.
    monkeypatch.setattr(comparison, "OpenPose", lambda files: "opened")
    monkeypatch.setattr(detectors, "openpose", lambda network, files: detectors.open_detector("synthetic", CPU))
    write_weights("openpose", {"network.xml": b"", "network.bin": b""})
    found = compare(
        theirs, targets, pairs="pairs.csv", poses="poses.json", missing_weights="seeded", bootstrap=200, seed=5
    )
    table = store.read_table(layout.scores("synthetic", "copy_source")).to_pylist()
    score = {row["metric"]: row for row in table if (row["step"], row["split"]) == (5, "test")}
    assert {row["metric"] for row in found.scores} == set(score) >= {"fid", "lpips-alex-v0.1", "pckh@0.5", "mask-ssim"}
    for row in found.scores:
        same = set(row) - {"marks"}
        assert {key: row[key] for key in same} == {key: score[row["metric"]][key] for key in same}, row["metric"]
        assert ("metric-weights" in row["marks"]) == ("metric-weights" in score[row["metric"]]["marks"])
    of_pairs = store.read_table(layout.pair_scores("synthetic", "copy_source"), filters=[("split", "=", "test")])
    of_pairs = of_pairs.filter(np.array(of_pairs["step"]) == 5).to_pydict()
    compared = found.table().to_pydict()
    assert compared["target"] == of_pairs["target_id"]
    assert {name: compared[name] for name in found.values} == {name: of_pairs[name] for name in found.values}


def test_a_partial_set_is_scored_on_its_pairs_and_their_targets(project, copied):
    pairs = listed()
    data = load_pairs("synthetic", "test", CPU, 7)
    folder = copied / "part"
    folder.mkdir()
    for source, target in pairs[:5]:  # perfect images of five pairs: distance 0 to the targets of these five
        stem = f"{Path(source).stem}_{Path(target).stem}.png"
        cv2.imwrite(str(folder / stem), stored_images([target])[0][..., ::-1])
    score_images.run("synthetic", folder, "Part")
    found = rows("part")
    assert found["ssim"]["value"] == 1
    assert found["ssim"]["n"] == found["fid"]["n"] == 5
    assert found["fid"]["value"] == pytest.approx(0, abs=1e-6)
    assert "pairs" in found["ssim"]["marks"]
    assert found["pckh@0.5"]["value"] == found["pckh@0.5"]["ceiling"]
    lacking = [(row["source_id"], row["target_id"]) for row in files("part") if row["what"] == "missing"]
    assert lacking == pairs[5:]
    scored = store.read_table(layout.outside("synthetic", "part") / "pairs.parquet")["pair_index"].to_pylist()
    assert scored == data.pair_index[:5].tolist()


def test_strips_are_cut_and_only_if_they_show_the_pair(project):
    source, target = (stored_images([name])[0] for name in listed()[0])
    generated = np.random.default_rng(0).integers(0, 256, source.shape, dtype=np.uint8)
    pose = np.zeros_like(source)
    folder = Path("strips")
    folder.mkdir()

    def written(*panels: np.ndarray, ending: str = "png") -> Path:
        path = folder / f"strip.{ending}"
        cv2.imwrite(str(path), np.concatenate(panels, axis=1)[..., ::-1])
        return path

    others = [np.roll(generated, shift, axis=0) for shift in range(1, 8)]
    pidm, pcdms = ((pose, source, target, *others[:last], generated) for last in (6, 7))
    for panels in ((source, target, generated), (source, pose, target, pose, generated), pidm, pcdms):
        image, count, jpeg = image_folder.read(written(*panels), source, target)
        assert np.array_equal(image, generated)
        assert (count, jpeg) == (len(panels), False)
    image, count, jpeg = image_folder.read(written(source, target, source, ending="jpg"), source, target)
    assert (count, jpeg) == (3, True)  # compressed panels are still recognised
    wrong = (target, source, generated)
    refused = image_folder.read(written(*wrong), source, target)
    assert refused.startswith("a strip of 3 panels that do not show this pair's source and target: ")
    assert refused.endswith("grey levels apart, 12 at most")
    assert image_folder.read(written(source, generated), source, target).startswith("wrong size: 64 x 64")
    assert image_folder.read(written(source[1:]), source, target).startswith(
        "wrong size: 63 x 32, the targets are 64 x 32"
    )


def test_pictures_that_are_not_8_bit_rgb_are_named(project, tmp_path):
    source, target = (stored_images([name])[0] for name in listed()[0])
    path = tmp_path / "image.png"
    for picture, problem in (
        (source[..., 0], "uint8, 1 channels"),
        (np.dstack([source, source[..., :1]]), "uint8, 4 channels"),
        (source.astype(np.uint16) * 257, "uint16, 3 channels"),
    ):
        cv2.imwrite(str(path), picture)
        assert problem in image_folder.read(path, source, target)
    path.write_bytes(b"\x89PNG broken")
    assert image_folder.read(path, source, target) == "does not decode as a picture"
    path.write_bytes(b"")
    assert image_folder.read(path, source, target) == "does not decode as a picture"


def test_jpegs_are_scored_listed_and_marked(project, copied):
    copies(copied / "lossy", listed()[:3], "{from}_{to}.jpg")
    score_images.run("synthetic", copied / "lossy", "Lossy!")
    assert all({"jpeg", "pairs"} <= set(row["marks"]) for row in rows("lossy").values())
    assert sum(row["what"] == "JPEG: scored, marked" for row in files("lossy")) == 3


def test_what_cannot_be_scored_is_one_line(project, copied, capsys):
    empty = copied / "empty"
    empty.mkdir()
    (copied / "large").mkdir()
    source, target = (Path(name).stem for name in listed()[0])
    cv2.imwrite(str(copied / "large" / f"{source}_to_{target}.png"), np.zeros((96, 96, 3), np.uint8))
    before = sorted(layout.OUTSIDE.glob("*"))
    for arguments, problem in (
        (["--images", "large", "--name", "x"], "`repose compare --as RECIPE` resizes as a method's own code does"),
        (["--images", "nowhere", "--name", "x"], "no such folder"),
        (["--images", "empty", "--name", "x"], "0 of 7 test pairs found"),
        (["--images", "empty", "--name", "spig"], "a row of ours is called so"),
        (["--images", "empty", "--name", "???"], "letters or digits"),
    ):
        assert main(["score", "--dataset", "synthetic", *arguments]) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith("repose: ")
        assert problem in said
    assert main(["score", "--dataset", "nothing", "--images=empty", "--name", "x"]) == 2
    assert "unknown dataset nothing" in capsys.readouterr().err
    assert sorted(layout.OUTSIDE.glob("*")) == before
    assert "copy_source" in VARIANTS


@pytest.mark.parametrize("name", ["PATN", "GFLA", "SPIG", "Def-GAN", "SPT", "SGW-GAN"])
def test_the_names_of_papers_baselines_are_accepted(project, name):
    assert score_images.slug(name) == name.lower().replace("-", "_")


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("Наш метод", "наш_метод"),
        ("我们的方法 v2", "我们的方法_v2"),
        ("हिन्दी", "हिन्दी"),  # its vowel signs are no letters
        ("Me\u0301thode", "m\u00e9thode"),  # as macOS writes it
        ("PATN+ (ours)", "patn_ours"),
        ("a/../b", "a_b"),
    ],
)
def test_a_name_keeps_the_letters_of_every_script(project, name, kept):
    assert score_images.slug(name) == kept


def test_a_name_that_no_folder_takes_is_one_line(project):
    with pytest.raises(UserError, match="too long for the name of a folder"):
        score_images.slug("我" * 100)


def test_two_methods_whose_names_make_one_folder_are_told_apart(project, monkeypatch, tmp_path):
    """The second overwrote the first's scores."""
    monkeypatch.setattr(layout, "OUTSIDE", tmp_path)
    first = score_images.folder_of("synthetic", "SPIG+")
    first.mkdir()
    (first / "method.json").write_text('{"name": "SPIG+"}')
    assert score_images.folder_of("synthetic", "SPIG+") == first
    with pytest.raises(UserError, match=r"--name 'SPIG-': .*synthetic--spig is that of 'SPIG\+'; call one"):
        score_images.folder_of("synthetic", "SPIG-")
    assert score_images.folder_of("market1501", "SPIG-") == tmp_path / "market1501--spig"
    first.rename(tmp_path / "synthetic--elsewhere")  # as an older version squeezed it
    assert score_images.folder_of("synthetic", "SPIG+") == tmp_path / "synthetic--elsewhere"
    (tmp_path / "synthetic--elsewhere/method.json").write_text("{")
    with pytest.raises(UserError, match=r"method\.json: damaged; remove its folder"):
        score_images.folder_of("synthetic", "SPIG+")


def test_a_method_that_is_being_written_is_in_no_table(project, monkeypatch, tmp_path):
    monkeypatch.setattr(layout, "OUTSIDE", tmp_path)
    with atomic_directory(layout.outside("synthetic", "mine")) as partial:
        (partial / "method.json").write_text('{"dataset": "synthetic", "name": "mine"}')
        assert read_outside({}) == {}


def test_help_tells_the_names(project, capsys):
    with pytest.raises(SystemExit):
        main(["score", "--images", ".", "--help"])
    shown = capsys.readouterr().out
    assert "FROM___TO" in shown
    assert "--pattern" in shown


# ---- what cannot be matched says what was expected and what is there


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("{to}", 'give --pattern "{to}"'),
        ("{from}-{to}", "or say with --pattern how they are called"),
    ],
)
def test_names_of_another_form_are_told_with_what_reads_them(project, copied, form, said):
    copies(copied / "named", listed(), f"{form}.png")
    with pytest.raises(UserError) as caught:
        score_images.run("synthetic", copied / "named", "Named")
    first = "_".join(Path(name).stem for name in listed()[0])
    assert f"0 of 7 test pairs found; wanted: names such as {first}.png; there: " in str(caught.value)
    assert said in str(caught.value)


def test_names_with_the_target_first_are_told():
    pairs, nothing = [("a.jpg", "b.jpg"), ("a.jpg", "c.jpg")], numbering.Listing([], [], {}, None, (2, 2))
    ids = dict.fromkeys(("a.jpg", "b.jpg", "c.jpg", "d.jpg"), "test") | {"e.jpg": "train"}
    reason = image_folder.reasons(pairs, image_folder.Known(nothing, ids, ""), None)
    assert 'give --pattern "{to}_{from}"' in reason("b_2_a_vis")
    assert reason("d_a") == image_folder.ANOTHER_LIST
    assert reason("a_e") == image_folder.OF_TRAINING
    assert reason("d_x") == "extra: its name is no scored pair's"


def test_names_of_another_pair_list_are_not_called_wrong(project, copied):
    names = sorted({name for both in listed() for name in both})
    every = [(row["source_id"], row["target_id"]) for row in store.read_table(layout.pairs("synthetic")).to_pylist()]
    others = [(a, b) for a in names for b in names if (a, b) not in every]
    copies(copied / "others", others)
    with pytest.raises(UserError, match="names two images of the data set that are no test pair") as caught:
        score_images.run("synthetic", copied / "others", "Others")
    assert "data/synthetic/pairs.parquet" in str(caught.value)
    assert "name the files" not in str(caught.value)


def test_a_limit_is_named_where_it_leaves_files_out(project, copied):
    """The field's strips of the whole list, of which seven pairs are scored; and numbers of the whole list."""
    rows = store.read_table(layout.pairs("synthetic"), filters=[("split", "=", "test")]).to_pylist()
    folder = copied / "whole"
    folder.mkdir()
    for number, row in enumerate(rows):
        source, target = stored_images([row["source_id"], row["target_id"]])
        name = f"{Path(row['source_id']).stem}___{Path(row['target_id']).stem}_vis.png" if number % 2 else None
        picture = np.concatenate([source, target, target], axis=1)[..., ::-1]
        cv2.imwrite(str(folder / (name or f"{row['pair_index']}.png")), picture)
    score_images.run("synthetic", folder, "Strips")
    why = {row["what"] for row in files("strips")}
    assert why == {"its pair is not scored: reference.synthetic.test_pairs is 7, of 24 pairs"}
    assert rows_ssim("strips") == 1


def rows_ssim(name: str) -> float:
    return rows(name)["ssim"]["value"]


# ---- the reference


def test_images_or_joints_that_changed_since_the_reference_are_refused(project, copied):
    copies(copied / "theirs", listed())
    table = store.read_table(layout.keypoints("synthetic"))
    store.write_table(layout.keypoints("synthetic"), table.slice(1), table.schema.remove_metadata())
    with pytest.raises(UserError, match="made from other keypoints; run: repose reference --dataset synthetic"):
        score_images.run("synthetic", copied / "theirs", "Theirs")


def test_a_row_names_the_reference_that_the_tables_hold_it_to(project, copied):
    copies(copied / "theirs", listed())
    score_images.run("synthetic", copied / "theirs", "Theirs")
    now = reference_of("synthetic")
    assert {row["reference"] for row in rows("theirs").values()} == {now["sha256"]}
    method = json.loads((layout.outside("synthetic", "theirs") / "method.json").read_text())
    assert method["reference"] == now
    assert outdated() == {}
    text = (copied / "params.yaml").read_text().replace("test_pairs: 7", "test_pairs: 5")
    (copied / "params.yaml").write_text(text)
    params.load.cache_clear()
    reference.run("synthetic")
    assert set(outdated()) == {("synthetic", "Theirs"), ("synthetic", "copy_source")}
    assert outdated()["synthetic", "Theirs"].startswith("(other pairs or their limit); run: repose score ")
    assert read_outside({}) == {}


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@x", "a\nb", "a\x1b[2J", "\u202ea", "\udce9a"])
def test_a_name_is_one_line_of_text_and_no_formula(name):
    with pytest.raises(UserError, match="give one line of text that does not begin with =, \\+, - or @"):
        score_images.slug(name)


def test_a_files_name_is_text_in_the_list_of_files(tmp_path):
    listed = [("=cmd|' /C calc'!A0.png", "extra"), ("a\n,b.png", "extra"), ("\x1b[2J.png", "extra")]
    score_images._write_files(tmp_path / "files.csv", listed, [], None)
    with (tmp_path / "files.csv").open(newline="") as handle:
        names = [row["file"] for row in csv.DictReader(handle)]
    assert names == ["'=cmd|' /C calc'!A0.png", "a\\x0a,b.png", "\\x1b[2J.png"]
