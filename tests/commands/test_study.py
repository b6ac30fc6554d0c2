"""`repose study`: from a prepared data set to forms, and from answers to results and the papers' tables."""

import csv
import json
import re
import shutil
from pathlib import Path

import cv2
import pytest
import yaml

from pipeline.__main__ import main
from pipeline.commands import study
from pipeline.core import layout, params, store
from pipeline.studies.draw import Group
from tests.scored_project import entered, stored_images
from tests.studies.raters import filled, saved
from tests.studies.test_form import contents, data_of

MAKE = ["study", "make", "--dataset", "synthetic", "--form", "spig", "--raters", "2", "--images", "2", "--groups", "3"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    with entered(tmp_path_factory.mktemp("project")) as folder:
        shutil.copy(Path(__file__).parents[2] / "reports/published.csv", folder)
        yield folder


def pairs_of(dataset: str = "synthetic") -> dict[int, tuple[str, str]]:
    table = store.read_table(layout.pairs(dataset), filters=[("split", "=", "test")]).to_pylist()
    return {row["pair_index"]: (row["source_id"], row["target_id"]) for row in table}


def images(folder: Path, lacking: int = 0) -> Path:
    """A folder of generated images, the sources upside down, of all pairs but the first few."""
    folder.mkdir()
    for source, target in list(pairs_of().values())[lacking:]:
        picture = stored_images([source])[0][::-1, :, ::-1]
        assert cv2.imwrite(str(folder / f"{Path(source).stem}_2_{Path(target).stem}_vis.png"), picture)
    return folder


def made(tmp_path: Path, *methods: str, options=()) -> tuple[Path, dict]:
    output = tmp_path / "my study"
    assert main([*MAKE, "--methods", *methods, "--output", str(output), *options]) == 0
    return output, json.loads((output / "key.json").read_text())


def refused(capsys, *arguments: str) -> str:
    assert main([*arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("repose: ")
    return lines[-1]


def test_every_picture_of_a_form_is_what_the_key_says(project, tmp_path):
    output, key = made(tmp_path, "copy_source", f"Mine={images(tmp_path / 'mine')}")
    pairs = pairs_of()
    from pipeline.formats import pictures

    for rater, about in key["raters"].items():
        text = (output / f"forms/rater-{rater}.html").read_text()
        shown = [pictures.decode(one) for one in contents(text)]
        parts = data_of(text)["parts"]
        judged = [item["picture"] for part in parts if part["kind"] == "judge" for item in part["items"]]
        for place, (method, pair, real, _) in zip(judged, about["items"][:8], strict=True):
            source, target = (stored_images([name])[0] for name in pairs[pair])
            wanted = target if real else source if method == "copy_source" else source[::-1]
            assert (shown[place] == wanted).all()
        for item, (pair, methods) in zip(parts[-1]["items"], about["items"][8:], strict=True):
            assert [name for name, _ in item["given"]] == ["This person", "in this pose"]
            source = stored_images([pairs[pair][0]])[0]
            assert (shown[item["given"][0][1]] == source).all()
            for place, method in zip(item["options"], methods, strict=True):
                assert (shown[place] == (source if method == "copy_source" else source[::-1])).all()
    assert sorted(path.name for path in (output / "forms").iterdir()) == ["rater-1.html", "rater-2.html"]


def test_a_study_is_the_same_again_and_another_by_another_seed(project, tmp_path):
    first, _ = made(tmp_path, "copy_source", "mean_image")
    content = {path.name: path.read_bytes() for path in (first / "forms").iterdir()}
    shutil.rmtree(first)
    again, _ = made(tmp_path, "copy_source", "mean_image")
    assert {path.name: path.read_bytes() for path in (again / "forms").iterdir()} == content
    shutil.rmtree(again)
    other, _ = made(tmp_path, "copy_source", "mean_image", options=["--seed", "1"])
    assert {path.name: path.read_bytes() for path in (other / "forms").iterdir()} != content


def test_only_pairs_that_all_methods_have_are_drawn(project, tmp_path, capsys):
    folder = images(tmp_path / "theirs", lacking=18)
    _, key = made(tmp_path, "copy_source", str(folder), options=["--groups", "2"])
    have = list(pairs_of())[18:]
    drawn = {item[0] if len(item) == 2 else item[1] for one in key["raters"].values() for item in one["items"]}
    assert drawn <= set(have)
    assert key["methods"] == {"copy_source": "variant", "theirs": "folder"}
    line = refused(capsys, *MAKE, "--methods", str(folder), "copy_source", "--images", "3")
    assert "shows 6 different targets of a method and 3 sets, and all methods have images of 4; ask for less" in line


def results(name: str) -> dict[tuple[str, str], dict]:
    with (layout.study(name) / "results.csv").open() as handle:
        return {(row["method"], row["measure"]): row for row in csv.DictReader(handle)}


def test_answers_become_results(project, tmp_path, capsys):
    """Raters who take every picture of copy_source for real and prefer it; one file each that does not count."""
    output, key = made(tmp_path, "copy_source", "mean_image")

    def fooled(item) -> str:
        if isinstance(item, Group):
            return "copy_source"
        return "real" if item.real or item.method == "copy_source" else "fake"

    line = refused(capsys, "study", "score", str(output))
    assert line == f"repose: {output}/answers: no file; put the raters' JSON files there"
    (output / "answers/begun.json").write_bytes(saved(key["study"], "1", []))
    assert refused(capsys, "study", "score", str(output)).endswith("answers: none of 1 files counts")
    for rater in key["raters"]:
        (output / f"answers/{rater}.json").write_bytes(filled(key, rater, fooled))
    assert main(["study", "score", str(output)]) == 0
    printed = capsys.readouterr()
    assert "begun.json: left out; unfinished: 0 of 11 answers" in printed.err
    assert "| copy_source | 0.00 [" in printed.out
    found = results("my study")
    assert {key: float(row["value"]) for key, row in found.items()} == {
        ("copy_source", "r2g"): 0, ("mean_image", "r2g"): 0, ("copy_source", "g2r"): 100, ("mean_image", "g2r"): 0,
        ("copy_source", "prefer"): 100, ("mean_image", "prefer"): 0,
    }  # fmt: skip
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in found.values())
    folder = layout.study("my study")
    about = json.loads((folder / "study.json").read_text())
    assert (about["raters"], about["asked"], about["left_out"]) == (2, 2, 1)
    assert (folder / "left_out.csv").read_text().splitlines()[1:] == ["begun.json,unfinished: 0 of 11 answers"]
    assert len((folder / "votes.csv").read_text().splitlines()) == 1 + 22
    page = (folder / "results.md").read_text()
    assert "form spig, 2 raters (2 asked; 1 file left out)" in page
    assert "copy_source, Prefer: 6 of 6 votes" in page


def test_a_key_that_is_not_as_it_was_written_scores_nothing(project, tmp_path, capsys):
    output, key = made(tmp_path, "copy_source", "mean_image")
    for rater in key["raters"]:
        answers = filled(key, rater, lambda item: "copy_source" if isinstance(item, Group) else "real")
        (output / f"answers/{rater}.json").write_bytes(answers)
    text = (output / "key.json").read_text()
    (output / "key.json").write_text(text.replace('["copy_source", "mean_image"]', '["mean_image", "copy_source"]', 1))
    assert (output / "key.json").read_text() != text
    assert "key.json: damaged; the votes cannot be read" in refused(capsys, "study", "score", str(output))
    (output / "key.json").write_text(text)
    assert main(["study", "score", str(output)]) == 0


# ---- photographs


@pytest.fixture
def photographed(project):
    """Market-1501, which here holds drawings, too."""
    raw = layout.raw("market1501")
    raw.mkdir(parents=True, exist_ok=True)
    (raw / "source.json").write_text(json.dumps({"terms": "for research only"}))
    before = layout.PARAMS.read_text()
    yield
    layout.PARAMS.write_text(before)
    params.load.cache_clear()


def test_photographs_go_into_a_page_only_if_asked(photographed, tmp_path, capsys):
    market = ["market1501" if word == "synthetic" else word for word in MAKE] + [
        "--methods",
        "copy_source",
        "mean_image",
    ]
    assert main([*market, "--output", str(tmp_path / "beside")]) == 0
    assert main([*market, "--output", str(tmp_path / "in"), "--photographs", "embed"]) == 0
    beside, within = (tmp_path / name / "forms/rater-1.html" for name in ("beside", "in"))
    assert "data:image" not in beside.read_text()
    named = data_of(beside.read_text())["pictures"]
    assert [(beside.parent / one).read_bytes() for one in named] == contents(within.read_text())
    assert not within.with_suffix("").exists()
    for page in (beside, within):
        text = page.read_text()
        assert "They are from Market-1501: for research only." in text
        assert re.search(r'href="https://zheng-lab[^"]+"', text)
    values = yaml.safe_load(layout.PARAMS.read_text())
    values["report"]["photographs"] = "none"
    layout.PARAMS.write_text(yaml.safe_dump(values))
    params.load.cache_clear()
    line = refused(capsys, *market, "--output", str(tmp_path / "none"))
    assert "report.photographs in params.yaml is none" in line
    assert not (tmp_path / "none").exists()
    assert main([*market, "--output", str(tmp_path / "said"), "--photographs", "link"]) == 0


def test_drawings_are_none_and_lie_where_they_are_asked_to(project, tmp_path):
    assert study._words("synthetic-large") == study._words("synthetic")
    assert study._embedded("synthetic-large", None)
    output, _ = made(tmp_path, "copy_source", "mean_image", options=["--photographs", "link"])
    assert "data:image" not in (output / "forms/rater-1.html").read_text()
    assert (output / "forms/rater-1").is_dir()


# ---- wrong input


@pytest.mark.parametrize(
    ("methods", "options", "message"),
    [
        (["nobody"], [], "--methods nobody: neither a folder nor a variant in params.yaml (copy_source, "),
        (["A=nowhere"], [], "--methods A=nowhere: no such folder"),
        (["copy_source", "copy_source"], [], "two are called copy_source; give one of them another name: NAME=FOLDER"),
        (["copy_source"], [], "the best of 1? name 2 to 9"),
        (["copy_source", "mean_image"], ["--images", "0", "--groups", "0"], "nothing is asked then"),
        (["copy_source", "mean_image"], ["--dataset", "elsewhere"], "unknown dataset elsewhere; params.yaml names: "),
        (["copy_source", "mean_image"], ["--output", "."], ".: there is something already, a study perhaps"),
        (["copy_source", "reports"], [], "reports: 0 of 24 test pairs found; wanted: names such as "),
        (["copy_source", "spig"], [], "no checkpoint; run: repose train --dataset synthetic --variant spig"),
    ],
    ids=("method", "folder", "twice", "one", "nothing", "dataset", "output", "names", "untrained"),
)  # fmt: skip
def test_wrong_input_is_one_line(project, capsys, methods, options, message):
    Path("reports").mkdir(exist_ok=True)
    values = yaml.safe_load(layout.PARAMS.read_text())
    values["variants"] = {"floors": ["copy_source", "mean_image"], "spig": ["spig"]}
    layout.PARAMS.write_text(yaml.safe_dump(values))
    params.load.cache_clear()
    assert message in refused(capsys, *MAKE, "--methods", *methods, *options)
    assert not Path("studies").exists()


def test_an_image_of_another_size_stops_it_before_anything_is_written(project, tmp_path, capsys):
    folder = images(tmp_path / "mine")
    for path in folder.iterdir():
        assert cv2.imwrite(str(path), cv2.imread(str(path))[:10])
    line = refused(capsys, *MAKE, "--methods", "copy_source", str(folder), "--output", str(tmp_path / "out"))
    assert "wrong size: 10 x 32, the targets are 64 x 32 (height x width); replace it, or take it out" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [None, "", "[]", "{}"], ids=("none", "empty", "list", "object"))
def test_without_its_key_nothing_is_scored(project, tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "key.json").write_text(content)
    line = refused(capsys, "study", "score", str(tmp_path))
    wanted = "damaged; the votes cannot be read without it" if content is not None else "name the folder that"
    assert f"{tmp_path}/key.json: " in line
    assert wanted in line
