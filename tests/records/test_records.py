"""Records: packed, exchanged, merged and scored again; what was changed on the way, or invented, is named."""

import copy
import csv
import gzip
import hashlib
import json
import random
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
import yaml

from models.variants import VARIANTS
from pipeline.__main__ import main
from pipeline.commands import score_images
from pipeline.core import layout, params, store
from pipeline.core.errors import UserError
from pipeline.loading import checkpoints
from pipeline.metrics import metric
from pipeline.records import again, form, made, merged
from pipeline.stages import reference, score
from tests.conftest import ROOT
from tests.scored_project import HEIGHT, WIDTH, entered, stored_images, write_checkpoints

NAME = "My method"
MINE = "records/synthetic--my_method.json.gz"
STATED = ("--author", "Ada L.", "--licence", "MIT", "--code", "a repository at 1234567", "--samples", "4")


def shrink() -> None:
    """One data set, metrics that need no network, no pictures kept, and the files that stand beside params.yaml."""
    values = yaml.safe_load(layout.PARAMS.read_text())
    values["datasets"] = ["synthetic"]
    values["variants"] = {name: [] for name in values["variants"]} | {"floors": ["copy_source"], "patn": ["patn"]}
    values["reference"]["synthetic"] |= {"missing_weights": "skip", "val_pairs": 2}
    values["score"]["synthetic"]["samples"] = 0
    layout.PARAMS.write_text(yaml.safe_dump(values))
    for path in (layout.PUBLISHED, layout.PROTOCOLS, layout.REFERENCES, layout.REPORT_TEMPLATE):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, path)
    shutil.copytree(ROOT / "reports/template", "reports/template")
    params.load.cache_clear()


def write_runs() -> None:
    """A narrow PATN, untrained, and the copy of the source: each with the meta.json that a training leaves."""
    write_checkpoints("synthetic", "patn", "variant", VARIANTS["patn"].build(HEIGHT, WIDTH, 0.05), [5], ["steps"])
    for name in ("copy_source", "patn"):
        folder = layout.checkpoints("synthetic", name)
        meta = checkpoints.meta(folder) | {"components": {}, "start": None, "settings": {"width": 0.05, "seed": 0}}
        checkpoints.write_meta(folder, meta | {"features": None, "family": "patn"})


def write_images(folder: Path) -> None:
    """The mean of source and target, as an outside method might draw them."""
    folder.mkdir()
    for row in store.read_table(layout.pairs("synthetic"), filters=[("split", "=", "test")]).to_pylist():
        source, target = stored_images([row["source_id"], row["target_id"]]).astype(np.float32)
        name = f"{Path(row['source_id']).stem}_{Path(row['target_id']).stem}.png"
        cv2.imwrite(str(folder / name), ((source + target) / 2).round().astype(np.uint8)[..., ::-1])


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A clone that scored two variants and an outside method, and packed the latter."""
    with entered(tmp_path_factory.mktemp("project")) as folder:
        shrink()
        write_runs()
        reference.run("synthetic")
        for name in ("copy_source", "patn"):
            score.run("synthetic", name)
        write_images(folder / "theirs")
        score_images.run("synthetic", folder / "theirs", NAME)
        assert main(["record", "make", "--outside", NAME, *STATED]) == 0
        yield folder


@pytest.fixture(scope="module")
def mine(project) -> form.File:
    return form.read(project / MINE)


def changed(record: form.File, change: Callable[[dict], Any], path: Path) -> Path:
    """A record written anew after a change, its digests with it: what somebody does who means to."""
    content = copy.deepcopy(record.content)
    del content["digests"]
    change(content)
    form.write(path, content)
    return path


def slipped(record: form.File, change: Callable[[dict], Any], path: Path) -> Path:
    """A record changed by accident: its digests stay."""
    content = copy.deepcopy(record.content)
    change(content)
    path.write_bytes(gzip.compress(form.as_text(content).encode(), mtime=0))
    return path


def packed(path: Path, text: bytes) -> Path:
    path.write_bytes(gzip.compress(text))
    return path


def board(folder: Path, name: str = "leaderboard_synthetic") -> dict[str, dict[str, dict]]:
    """Row -> column -> cell."""
    rows: dict[str, dict[str, dict]] = {}
    with (folder / f"{name}.csv").open(newline="") as handle:
        for cell in csv.DictReader(handle):
            rows.setdefault(cell["row"], {})[cell["column"]] = cell
    return rows


def problems(folder: Path) -> list[str]:
    with (folder / "problems.csv").open(newline="") as handle:
        return [row["what"] for row in csv.DictReader(handle)]


def merge(output: Path, *files: Path) -> dict[str, dict[str, dict]]:
    merged.write(output, [form.read(path) for path in files], 200, 0)
    return board(output)


# ---- made


def test_a_record_says_what_was_judged_and_holds_no_picture(project, mine):
    pairs = [row for row in store.read_table(layout.reference("synthetic") / "pairs.parquet").to_pylist()
             if row["split"] == "test"]  # fmt: skip
    keys = ("pair_index", "source_id", "target_id")
    assert [tuple(row[:3]) for row in mine["pairs"]] == [tuple(row[key] for key in keys) for row in pairs]
    lines = "".join(f"{row['pair_index']} {row['source_id']} {row['target_id']}\n" for row in pairs)
    assert mine["pair_list"] == hashlib.sha256(lines.encode()).hexdigest()
    for row in mine["pairs"]:
        drawn = cv2.imread(f"theirs/{Path(row[1]).stem}_{Path(row[2]).stem}.png")[..., ::-1]
        assert row[3] == hashlib.sha256(drawn.tobytes()).hexdigest()
    stored = {row["image_id"]: row["image"]["bytes"] for row in store.iter_rows(layout.images("synthetic"))}
    assert mine["images"] == {
        name: hashlib.sha256(stored[name]).hexdigest() for row in pairs for name in (row["source_id"], row["target_id"])
    }
    scores = store.read_table(layout.outside("synthetic", "my_method") / "scores.parquet").to_pylist()
    assert {row["metric"]: row["value"] for row in scores} == {n: row["value"] for n, row in mine.tested.items()}
    assert {"ssim", "psnr", "pckh@0.5", "pckh@0.5:influence"} <= {*mine.metrics}
    assert mine["saw"] == {"training_set": None, "pretraining": [], "target_parsing": None, "samples": 4}
    assert (mine["author"], mine["licence"], mine["code"]["method"]) == ("Ada L.", "MIT", "a repository at 1234567")
    assert mine["code"]["revision"] is None
    assert re.fullmatch("[0-9a-f]{64}", mine["code"]["lock"])
    assert not re.search(rb"\xff\xd8\xff|PNG|RIFF", gzip.decompress((project / MINE).read_bytes()))


def test_equal_inputs_give_equal_bytes(project, tmp_path):
    for name in ("a", "b"):
        output = str(tmp_path / f"{name}.json.gz")
        assert main(["record", "make", "--variant", "patn", "--output", output]) == 0
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()
    assert (tmp_path / "a.json.gz").read_bytes()[4:8] == bytes(4)  # gzip's time


def test_of_a_variant_cost_paper_and_checkpoint_are_known(project, tmp_path, capsys):
    output = tmp_path / "patn.json.gz"
    assert main(["record", "make", "--dataset", "synthetic", "--variant", "patn", "--output", str(output)]) == 0
    record = form.read(output, form.RECORD)
    file = checkpoints.path(layout.checkpoints("synthetic", "patn"), 5)
    assert record["checkpoints"] == {"generator": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert "Progressive Pose Attention" in record["bibtex"]
    assert record["kind"] == "trained"
    assert record["cost"]["seconds"] > 0
    assert record["cost"]["peak_memory"] > 1e7
    assert record["cost"]["macs"] > 0
    network = json.loads(layout.network("synthetic", "patn").read_text())
    assert record["cost"]["parameters"] == network["parameters"] > 0
    assert record["saw"]["training_set"] == "synthetic, split train"
    assert record["saw"]["target_parsing"] is False
    assert {row["split"] for row in record["scores"]} == {"val", "test"}
    assert main(["record", "make", "--variant", "patn", "--training-set", "more", "--output", str(output)]) == 2
    assert "--training-set: of a variant it is known" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--variant", "copy"], "copy is not scored on synthetic; run: repose score --dataset synthetic --variant"),
        (["--outside", "Nobody"], 'Nobody is not scored on synthetic; run: repose score --dataset synthetic --images'),
        (["--variant", NAME], "My method is not scored"),
        (["--outside", "patn"], "patn is not scored"),
        (["--outside", NAME, "--author", "<b>me</b>"], "author is '<b>me</b>', which it cannot be"),
        (["--outside", NAME, "--bibtex", "none.bib"], "--bibtex none.bib: not there"),
        (["--dataset", "market1501", "--outside", NAME], "--dataset market1501; params.yaml names: synthetic"),
    ],
    ids=["variant", "outside", "no-variant", "no-outside", "author", "bibtex", "dataset"],
)  # fmt: skip
def test_what_cannot_be_packed_is_one_line(project, options, said, tmp_path, capsys):
    assert main(["record", "make", *options, "--output", str(tmp_path / "x.json.gz")]) == 2
    assert said in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_a_checkpoint_that_was_not_scored_is_not_packed(project, copied):
    folder = layout.checkpoints("synthetic", "patn")
    checkpoints.write_meta(folder, checkpoints.meta(folder) | {"marks": ["steps", "width"]})
    with pytest.raises(UserError, match="not what was scored; run: repose score"):
        made.record(made.find("synthetic", "patn", False), made.Stated(), {})


def test_scores_of_before_images_had_digests_are_scored_again(project, copied):
    path = layout.outside("synthetic", "my_method") / "pairs.parquet"
    table = store.read_table(path).drop_columns(["image_sha256"])
    shutil.rmtree(path.parent / "_SHA256SUMS", ignore_errors=True)
    (path.parent / "_SHA256SUMS").unlink()
    store.write_table(path, table, table.schema.remove_metadata())
    with pytest.raises(UserError, match="before images had digests; score My method again"):
        made.record(made.find("synthetic", NAME, True), made.Stated(), {})


# ---- two clones


def test_two_clones_exchange_merge_and_check(project, copied, tmp_path, capsys):
    """One packs a variant and an outside method, the other merges them with its own and checks them."""
    for name in ("patn", "copy_source"):
        assert main(["record", "make", "--variant", name, "--author", "Ada L."]) == 0
    shutil.rmtree(layout.OUTSIDE)  # the other clone: it has the data set, and neither scores nor pictures of theirs
    shutil.rmtree("reports/scores/synthetic/patn")
    check = ["record", "check", MINE, "--images", "theirs", "--by", "Bob", "--seed", "3"]
    assert main([*check, "--pairs", "4"]) == 0
    assert "checked, 4 of 7 pairs, seed 3: " in capsys.readouterr().err
    files = sorted(map(str, Path("records").glob("*.json.gz")))
    assert main(["record", "merge", *files]) == 0
    rows = board(Path("reports/records"))
    version = f"record at version {form.read(Path(MINE))['code']['version']}"
    assert {*rows} == {
        f"{NAME}, by Ada L. ({version}, checked by Bob on 4 of 7 pairs)",
        f"patn, by Ada L. ({version}, not checked)",
        f"copy_source, by Ada L. ({version}, not checked)",
    }
    ours = next(cells for row, cells in rows.items() if row.startswith(NAME))
    assert float(ours["SSIM"]["value"]) == form.read(Path(MINE)).tested["ssim"]["value"]
    assert ours["SSIM"]["kind"] == "record"
    assert ours["SSIM"]["place"].startswith("best")
    page = Path("reports/records/index.html").read_text()
    for text in ("checked by Bob on 4 of 7 pairs", "Progressive Pose Attention", "a repository at 1234567", "MIT"):
        assert text in page
    assert main(["record", "merge", *files]) == 0  # its own folder is replaced
    assert main([*check, "--pairs", "100"]) == 0
    assert form.read(Path("records/synthetic--my_method.check.json.gz")).content["unchecked"] == {}


def test_differences_come_from_the_values_of_pairs(project, mine, tmp_path):
    """One of two results with half as much SSIM on each pair is told from the other; one with itself is a tie."""

    def halve(content: dict) -> None:
        content["author"] = "B"
        scale(content, "ssim", 0.5)

    rows = merge(tmp_path / "out", mine.path, changed(mine, halve, tmp_path / "half.json.gz"))
    ranks = {row.partition(" (")[0]: cells["SSIM"]["place"] for row, cells in rows.items()}
    assert ranks == {f"{NAME}, by Ada L.": "best", f"{NAME}, by B": ""}
    ranks = {row.partition(" (")[0]: cells["PSNR"]["place"] for row, cells in rows.items()}
    assert ranks == {f"{NAME}, by Ada L.": "best tied", f"{NAME}, by B": "best tied"}


# ---- what was changed on the way: digests


def scale(content: dict, metric: str, by: float) -> None:
    """A metric's score, its interval and the values of its pairs, consistently."""
    place = content["columns"].index(metric)
    for row in content["pairs"]:
        row[place] *= by
    for row in content["scores"]:
        if row["metric"] == metric:
            row |= {end: row[end] * by for end in ("low", "high")}
            row["value"] = sum(pair[place] for pair in content["pairs"]) / len(content["pairs"])


def one_score(content: dict) -> None:
    next(row for row in content["scores"] if row["metric"] == "psnr")["value"] += 0.5


def one_image(content: dict) -> None:
    content["pairs"][2][3] = "0" * 64


def one_pair(content: dict) -> None:
    """Its target is the one before's."""
    content["pairs"][3][2] = content["pairs"][2][2]


ACCIDENTS = {
    "metric": (one_score, "damaged: scores.psnr has another digest"),
    "image": (one_image, "damaged: pairs.image has another digest"),
    "field": (lambda content: content["cost"].update(parameters=7), "damaged: cost has another digest"),
    "licence": (lambda content: content.update(licence="BSD"), "damaged: licence has another digest"),
    "pair list": (one_pair, "damaged: pairs.target_id has another digest"),
    "digest": (lambda content: content["digests"].update(saw="1" * 64), "damaged: saw has another digest"),
    "value": (lambda content: content["pairs"][1].__setitem__(4, 0.5), "damaged: pairs.ssim has another digest"),
    "no digest": (
        lambda content: content["digests"].pop("pairs.ssim"),
        "digests are not those of its parts .'pairs.ssim",
    ),
    "lacking": (lambda content: content.pop("saw"), "is no block of .*'saw'"),
    "more": (lambda content: content.update(extra=1), "is no block of .*'extra'"),
}


@pytest.mark.parametrize("what", ACCIDENTS)
def test_an_accident_is_named_by_its_field(mine, what, tmp_path):
    change, said = ACCIDENTS[what]
    with pytest.raises(UserError, match=said):
        form.read(slipped(mine, change, tmp_path / "x.json.gz"))


AT_ODDS = {
    "metric": (one_score, r"scores: psnr is [\d.]+, but the mean of its pairs is"),
    "count": (lambda content: content["scores"][0].update(n=6), "scores: ssim counts 6 pairs, but 7 have a value"),
    "pair list": (one_pair, "pair_list: its digest is that of other pairs|images: "),
    "interval": (lambda content: content["scores"][0].update(high=-0.5), "scores: ssim is .* outside its interval"),
    "range": (lambda content: scale(content, "ssim", 9), "scores: ssim is .* which lies between -1 and 1"),
    "twice": (lambda content: content["pairs"].append(content["pairs"][0]), "one is there twice"),
    "images": (lambda content: content["images"].popitem(), "images: .* without a digest"),
    "strange image": (lambda content: content["images"].update(moon="0" * 64), "images: 'moon' is an image of no pair"),
    "step": (lambda content: content.update(step=9), "scores: none on test at step 9"),
    "score": (lambda content: content["scores"].append(content["scores"][0]), "scores: ssim is there twice"),
    "column": (lambda content: content["columns"].__setitem__(4, "psnr"), "columns: "),
    "row": (lambda content: content["pairs"][1].pop(), r"pairs\[1\]: no list of"),
    "value": (lambda content: content["pairs"][1].__setitem__(4, "0.8"), r"pairs\[1\].ssim is '0.8', which"),
    "no score": (lambda content: content["scores"].pop(0), "scores: ssim has values of pairs and no score"),
}


@pytest.mark.parametrize("what", AT_ODDS)
def test_a_record_that_contradicts_itself_is_neither_written_nor_read(mine, what, tmp_path):
    change, said = AT_ODDS[what]
    with pytest.raises(UserError, match=said):
        changed(mine, change, tmp_path / "x.json.gz")

    def with_digests(content: dict) -> None:
        change(content)
        with suppress(LookupError):  # what is misshapen has none
            content["digests"] = form.digests(content)

    with pytest.raises(UserError, match=said):
        form.read(slipped(mine, with_digests, tmp_path / "x.json.gz"))


# ---- what was invented: only a check


def checked(path: Path, images: str | Path = "theirs", pairs: int = 7) -> tuple[int, form.File]:
    output = path.with_name("check.json.gz")
    options = ["--images", str(images), "--pairs", str(pairs), "--seed", "1", "--output", str(output)]
    return main(["record", "check", str(path), *options]), form.read(output, form.CHECK)


def pair_of(record: form.File, place: int) -> str:
    index, source, target = record["pairs"][place][:3]
    return f"pair {index} ({source} -> {target})"


def all_ssim(content: dict) -> None:
    scale(content, "ssim", 1.2)


def one_psnr(content: dict) -> None:
    """Of the fifth pair, and its mean."""
    content["pairs"][4][content["columns"].index("psnr")] += 0.01
    scale(content, "psnr", 1.0)


INVENTED = {
    "metric": (all_ssim, 0, "ssim is "),
    "one value": (one_psnr, 4, "psnr is "),
    "image": (one_image, 2, "its image is another one"),
    "whole set": (lambda content: next(row for row in content["scores"] if row["metric"] == "pckh@0.5").update(value=1),
                  None, "pckh@0.5 of all pairs is 1 in the record"),
}  # fmt: skip


@pytest.mark.parametrize("what", INVENTED)
def test_an_invention_is_found_by_a_check_and_the_pair_is_named(project, mine, what, tmp_path, capsys):
    change, place, said = INVENTED[what]
    path = changed(mine, change, tmp_path / "x.json.gz")
    form.read(path)  # no digest tells
    status, check = checked(path)
    assert status == 1
    assert check["differs"].startswith(said if place is None else f"{pair_of(mine, place)}: {said}")
    assert check["differs"] in " ".join(capsys.readouterr().err.split("\n"))
    merge(tmp_path / "out", path, tmp_path / "check.json.gz")
    assert f"{NAME}, by Ada L.: a check found that {check['differs']}" in problems(tmp_path / "out")
    assert "check failed on 7 of 7 pairs" in (tmp_path / "out/index.html").read_text()


def test_a_changed_pair_list_is_named(project, mine, tmp_path):
    def other_list(content: dict) -> None:
        one_pair(content)
        content["pair_list"] = form.pair_list(content["pairs"])
        content["images"] = {end: content["images"][end] for row in content["pairs"] for end in row[1:3]}

    path = changed(mine, other_list, tmp_path / "x.json.gz")
    index, source, target = mine["pairs"][3][:3]
    status, check = checked(path)
    assert status == 1
    now = mine["pairs"][2][2]
    assert check["differs"] == f"pair {index} is {source} -> {now} in the record, {source} -> {target} in the list here"
    merge(tmp_path / "out", mine.path, path)
    assert f"{path}: on a board of its own: pair {index} is {source} -> {now}, not {source} -> {target}" in problems(
        tmp_path / "out"
    )
    assert len(board(tmp_path / "out")) == len(board(tmp_path / "out", "leaderboard_synthetic-2")) == 1

    def longer(content: dict) -> None:
        content["pairs"][0][0] = 999
        content["pair_list"] = form.pair_list(content["pairs"])

    assert "is no scored test pair here" in checked(changed(mine, longer, tmp_path / "x.json.gz"))[1]["differs"]


def test_a_changed_or_missing_picture_is_named(project, mine, tmp_path):
    images = shutil.copytree("theirs", tmp_path / "theirs")
    first, last = mine["pairs"][0], mine["pairs"][6]
    path = images / f"{Path(last[1]).stem}_{Path(last[2]).stem}.png"
    picture = cv2.imread(str(path))
    picture[5, 5, 0] ^= 1
    cv2.imwrite(str(path), picture)
    record = shutil.copy(mine.path, tmp_path / "x.json.gz")
    status, check = checked(record, images)
    assert status == 1
    assert check["differs"].startswith(f"{pair_of(mine, 6)}: its image is another one")
    path = images / f"{Path(first[1]).stem}_{Path(first[2]).stem}.png"
    path.unlink()
    assert checked(record, images)[1]["differs"] == f"{pair_of(mine, 0)}: no image in {images}"
    path.write_bytes(b"no picture")
    assert checked(record, images)[1]["differs"] == f"{pair_of(mine, 0)}: {path.name}: does not decode as a picture"


def test_a_changed_picture_of_the_data_set_is_named(project, mine, tmp_path):
    name = mine["pairs"][0][1]
    path = changed(mine, lambda content: content["images"].update({name: "0" * 64}), tmp_path / "x.json.gz")
    status, check = checked(path)
    assert status == 1
    assert check["differs"] == f"image {name} of the data set has other bytes here than in the record"
    merge(tmp_path / "out", mine.path, path)
    assert f"{path}: on a board of its own: image {name} has other bytes" in problems(tmp_path / "out")


def test_a_sample_checks_what_it_can_and_says_what_not(project, mine, tmp_path):
    """Another version and another network are no difference, but not checked; nor is an unknown metric."""

    def other(content: dict) -> None:
        content["reference"]["instruments"]["joints"] = "0" * 64
        next(row for row in content["scores"] if row["metric"] == "psnr")["version"] = 9
        unknown = dict(content["scores"][0], metric="beauty", value=3.0, n=7)
        content["scores"].append(unknown)

    status, check = checked(changed(mine, other, tmp_path / "x.json.gz"), pairs=3)
    assert status == 0
    assert check["pairs"] == 3
    assert check["differs"] is None
    assert check["unchecked"] == {
        "pckh@0.5": "through another network here: joints",
        "pose-error-px": "through another network here: joints",
        "psnr": "of version 9 in the record, 1 here",
        "beauty": "unknown here",
    }
    assert "ssim" in check["metrics"]
    assert not {*check["unchecked"]} & {*check["metrics"]}


def test_a_seed_is_drawn_and_kept(project, mine, tmp_path, capsys):
    record = shutil.copy(mine.path, tmp_path / "x.json.gz")
    seeds = set()
    for _ in range(2):
        assert main(["record", "check", str(record), "--images", "theirs", "--pairs", "2"]) == 0
        seeds.add(form.read(tmp_path / "x.check.json.gz")["seed"])
    assert len(seeds) == 2
    assert main(["record", "check", str(record), "--images", str(tmp_path)]) == 2
    assert "no image of the 7 sampled pairs" in capsys.readouterr().err


# ---- merged


def test_what_is_there_twice_or_at_odds_is_named(project, mine, tmp_path):
    again = shutil.copy(mine.path, tmp_path / "again.json.gz")
    moved = changed(mine, lambda content: content["machine"].update(cores=64), tmp_path / "moved.json.gz")
    rows = merge(tmp_path / "out", mine.path, again, moved)
    assert len(rows) == 1
    assert problems(tmp_path / "out") == [
        f"{again}: the same as {mine.path}; counted once",
        f"{moved}: the result of {mine.path}, with another machine; left out",
    ]
    other = changed(mine, all_ssim, tmp_path / "other.json.gz")
    rows = merge(tmp_path / "out", mine.path, other)
    assert len(rows) == 2
    assert all(form.read(path).sha256[:6] in " ".join(rows) for path in (mine.path, other))
    said = problems(tmp_path / "out")
    assert f"{other}: one of 2 results of {NAME}, by Ada L.; all stand" in said
    assert re.search(
        rf"have one picture of {re.escape(pair_of(mine, 0))}, and ssim of it is .*: one of them is", said[2]
    )
    stranger = changed(mine, lambda content: content.update(author="B"), tmp_path / "stranger.json.gz")
    merge(tmp_path / "out", mine.path, stranger)
    assert problems(tmp_path / "out") == []


def test_a_metric_of_another_version_is_left_out_and_an_unknown_mark_refused(project, mine, tmp_path):
    def newer(content: dict) -> None:
        next(row for row in content["scores"] if row["metric"] == "psnr")["version"] = 9

    (row,) = merge(tmp_path / "out", changed(mine, newer, tmp_path / "x.json.gz")).values()
    assert row["SSIM"]["value"]
    assert "PSNR" not in row
    assert problems(tmp_path / "out") == [
        f"{NAME}, by Ada L.: psnr left out: version 9 there, 1 here; its author's `repose score` renews it"
    ]
    marked = changed(mine, lambda content: content["scores"][0]["marks"].append("moon"), tmp_path / "y.json.gz")
    with pytest.raises(UserError, match="carries the mark moon, which is unknown here"):
        merge(tmp_path / "out", marked)


def test_through_another_network_nothing_is_ranked(project, mine, tmp_path):
    def other(content: dict) -> None:
        content["author"] = "B"
        content["reference"]["instruments"]["joints"] = "0" * 64
        scale(content, "ssim", 0.5)

    rows = merge(tmp_path / "out", mine.path, changed(mine, other, tmp_path / "x.json.gz"))
    assert [cells["PCKh"]["place"] for cells in rows.values()] == ["", ""]
    assert sorted(cells["SSIM"]["place"] for cells in rows.values()) == ["", "best"]


def test_the_true_targets_parsing_is_shown_and_not_ranked(project, mine, tmp_path):
    told = changed(
        mine, lambda content: content["saw"].update(target_parsing=True) or content.update(author="B"),
        tmp_path / "x.json.gz",
    )  # fmt: skip
    rows = merge(tmp_path / "out", mine.path, told)
    assert {cells["SSIM"]["place"] for row, cells in rows.items() if "by B" in row} == {""}


def test_checks_count_for_their_record_alone_and_a_failed_one_first(project, mine, tmp_path):
    record = shutil.copy(mine.path, tmp_path / "x.json.gz")
    _, check = checked(record, pairs=3)
    failed = {key: value for key, value in check.content.items() if key != "digests"}
    form.write(tmp_path / "failed.json.gz", failed | {"differs": "pair 1: no", "pairs": 2})
    form.write(tmp_path / "stray.json.gz", failed | {"record": "0" * 64})
    files = [record, *(tmp_path / f"{name}.json.gz" for name in ("check", "failed", "stray"))]
    (row,) = merge(tmp_path / "out", *files)
    assert row.endswith("check failed on 2 of 7 pairs)")
    stranger = changed(mine, lambda content: content.update(author="B"), tmp_path / "stranger.json.gz")
    third = changed(mine, lambda content: content.update(author="C"), tmp_path / "third.json.gz")
    rows = merge(tmp_path / "out", *files, stranger, third)
    assert {row.partition(" (")[0]: cells["SSIM"]["place"] for row, cells in rows.items()} == {
        f"{NAME}, by Ada L.": "", f"{NAME}, by B": "best tied", f"{NAME}, by C": "best tied"
    }  # fmt: skip
    assert f"{files[3]}: checks the record {'0' * 12}, which is not among the files" in problems(tmp_path / "out")
    (row,) = merge(tmp_path / "out", *files[:2])
    assert row.endswith(", checked on 3 of 7 pairs)")


def test_a_folder_of_something_else_is_not_replaced(project, mine, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years")
    assert main(["record", "merge", str(mine.path), "--output", str(tmp_path)]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "years"
    checked(Path(shutil.copy(mine.path, tmp_path / "x.json.gz")), pairs=2)
    assert main(["record", "merge", str(tmp_path / "check.json.gz"), "--output", str(tmp_path / "out")]) == 2
    assert "no record among the files" in capsys.readouterr().err


def test_what_others_wrote_is_text_on_the_page(project, mine, tmp_path):
    def hostile(content: dict) -> None:
        content["licence"] = "<script>alert(1)</script>"
        content["bibtex"] = "@misc{x,\n title={</pre><img src=//evil>}}"
        content["saw"]["training_set"] = '"><svg onload=alert(1)>'

    merge(tmp_path / "out", changed(mine, hostile, tmp_path / "x.json.gz"))
    page = (tmp_path / "out/index.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;/pre&gt;&lt;img" in page
    assert not re.search(r"<script>alert|<img|<svg onload", page)


# ---- files from anybody


@pytest.mark.parametrize(
    "text",
    ["<b>x", "a|b", "[x](y)", "`x`", "a*b", "$x$", "back\\slash", "two\nlines", "\x1b[31mred", "right‮left", " x",
     "", "x" * 81, "=1+1", "@x", "-x", "a\0b", "\ud800", "http://x"],
    ids=ascii,
)  # fmt: skip
def test_a_name_is_plain(text):
    assert not form.name(text)


def test_names_of_all_scripts_are_plain():
    for text in ("DIST (=GFLA)", "Ada L.", "方法 2", "Méthode", "PCDMs & co", "X-MDPT-L"):
        assert form.name(text)


def test_what_is_no_record_is_one_line(project, mine, tmp_path):
    given = gzip.decompress(mine.path.read_bytes())
    path = tmp_path / "x.json.gz"
    whole = mine.path.read_bytes()
    for content, said in (
        (b"", "damaged"), (b"PK\3\4", "damaged, or no record"), (whole[:-9], "cut short"), (whole + b"x", "more at"),
        (whole + whole, "more at its end"), (gzip.compress(b"{"), "no record"), (gzip.compress(b"[1]"), "no record of"),
        (gzip.compress(b"[" * 100_000), "no record"), (gzip.compress(b'{"format": NaN}'), "NaN is no number"),
        (gzip.compress(b'{"format": ' + b"9" * 9999 + b"}"), "no record"), (gzip.compress(b"\xff"), "no record"),
        (gzip.compress(b'{"format":["repose record"]}'), "no record of"),
        (gzip.compress(given.replace(b'"format_version":1', b'"format_version":2')), "of version 2"),
        (gzip.compress(given.replace(b'"format_version":1', b'"format_version":true')), "format_version"),
        (gzip.compress(given.replace(b'"samples":4', b'"samples":4.0')), "saw.samples is 4.0"),
        (gzip.compress(given.replace(b'"samples":4', b'"samples":1e999')), "saw.samples is inf"),
        (gzip.compress(given.replace(b'"samples":4', b'"samples":true')), "saw.samples is True"),
        (gzip.compress(given.replace(b'"step":0\n', b'"step":0 \n')), "not written as"),
        (gzip.compress(given.replace(b'{\n"author"', b'{\n"author":"Ada L.",\n"author"', 1)), "not written as"),
    ):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(UserError, match=said):
            form.read(path)
    for wrong, said in ((tmp_path, "no file"), (tmp_path / "none", "not there")):
        with pytest.raises(UserError, match=said):
            form.read(wrong)
    with pytest.raises(UserError, match="no check of Repose"):
        form.read(mine.path, form.CHECK)


def test_no_more_is_unpacked_than_a_record_may_have(project, mine, tmp_path, monkeypatch):
    monkeypatch.setattr(form, "LARGEST_TEXT", 1 << 16)
    with pytest.raises(UserError, match="more than 65536 bytes when unpacked"):
        form.read(packed(tmp_path / "bomb.json.gz", b" " * (1 << 24)))
    monkeypatch.setattr(form, "LARGEST_FILE", 100)
    with pytest.raises(UserError, match="a record has at most 100"):
        form.read(mine.path)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a JSON value: what holds it, and by which key."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, inner in list(below) for found in ((value, key), *places(inner))]


ODD = [
    None,
    True,
    -1,
    2**70,
    1e300,
    0.5,
    "",
    "x" * 5000,
    "../../etc/passwd",
    "<script>",
    [],
    {},
    [[[]]],
    {"a": {}},
    "0" * 64,
]


def test_a_garbled_record_is_one_line_or_sound(project, mine, tmp_path):
    """Values exchanged for odd ones, the digests made to fit, and bytes flipped: an error of ours would be raised."""
    draw, path, refused = random.Random(5), tmp_path / "x.json.gz", []
    whole = mine.path.read_bytes()
    for turn in range(300):
        if turn % 3:
            content = copy.deepcopy(mine.content)
            holder, key = draw.choice(places({k: v for k, v in content.items() if k != "digests"}))
            if holder.keys() <= content.keys() if isinstance(holder, dict) else False:
                holder = content
            holder[key] = copy.deepcopy(draw.choice(ODD))
            with suppress(LookupError, TypeError):  # what is misshapen has none
                content["digests"] = form.digests(content)
            path.write_bytes(gzip.compress(form.as_text(content).encode(), 1))
        else:
            flipped = bytearray(whole)
            flipped[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
            path.write_bytes(flipped)
        try:
            form.read(path)
        except UserError as error:
            refused.append(str(error))
    assert len(refused) > 250
    assert not [said for said in refused if "\n" in said or len(said) > 900]


class Record(dict):
    """As much of a record as the test needs."""

    tested: ClassVar = {"fid": {"version": metric("fid").version}, "ssim": {"version": metric("ssim").version}}


def test_scores_of_a_whole_set_want_all_pairs(monkeypatch):
    monkeypatch.setattr(again.made, "instruments", lambda described: {})
    monkeypatch.setattr(again.made, "used_by", lambda name, instruments: {})
    record, described = Record(reference={"instruments": {}}), {"metrics": ["fid", "ssim"]}
    assert again.comparable(record, described, all_pairs=True) == (["fid", "ssim"], {})
    names, unchecked = again.comparable(record, described, all_pairs=False)
    assert names == ["ssim"]
    assert unchecked == {"fid": "of the whole set: only a check of all pairs covers it"}


def test_a_sample_is_that_of_its_seed(monkeypatch):
    monkeypatch.setattr(again.made, "stored_images", lambda dataset, names: {})
    record = Record(pairs=[[number, "a.jpg", "b.jpg"] for number in range(50)], images={}, dataset="synthetic")
    split = SimpleNamespace(ids=["a.jpg", "b.jpg"], rows=np.tile([0, 1], (50, 1)), pair_ids=range(50))
    one, same, other = (again.draw(record, split, 5, seed).positions for seed in (1, 1, 2))
    assert one == same != other
    assert len({*one}) == 5
    assert again.draw(record, split, 80, 1).positions == [*range(50)]
