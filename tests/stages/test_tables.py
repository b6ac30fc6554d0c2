"""The papers' tables: which checkpoint stands for a variant, and that no number loses its marks, source or protocol."""

import csv
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline.core import layout, params, schema, store
from pipeline.core.errors import UserError
from pipeline.metrics import METRICS
from pipeline.stages import tables
from pipeline.tables import papers
from pipeline.tables.cells import Cell, with_places
from pipeline.tables.inputs import PUBLISHED_COLUMNS, Run, choose, read_published
from pipeline.tables.paired import Difference, over_seeds
from pipeline.tables.papers import MARKS
from pipeline.tables.text import grid, tex_escape
from tests.conftest import name_every_method, working_in

ROOT = Path(__file__).parents[2]
SPIG_COLUMNS = ["FID", "LPIPS", "Mask-LPIPS", "SSIM", "Mask-SSIM", "PSNR", "Mask-PSNR"]

PROTOCOLS = {
    "fid": "pytorch-fid Inception 2048-d, test targets",
    "lpips-alex-v0.1": "lpips 0.1 alex, uint8 scaled to [-1,1]",
    "mask-lpips-alex-v0.1": "lpips 0.1 alex, [-1,1] x pose mask",
    "ssim": "gaussian 1.5, uint8, range 255",
    "mask-ssim": "ssim of uint8 x pose mask, whole image",
    "psnr": "uint8, range 255, per image",
    "mask-psnr": "psnr of uint8 x pose mask, whole image",
    "pckh@0.5": "PATN head box, joints re-detected",
}
REFERENCE = "0" * 64
LOWER = {"fid", "lpips-alex-v0.1", "mask-lpips-alex-v0.1"}
# Invented values per metric: at the start of training and after it.
RANGE = {
    "fid": (180.0, 95.0),
    "lpips-alex-v0.1": (0.52, 0.31),
    "mask-lpips-alex-v0.1": (0.31, 0.17),
    "ssim": (0.31, 0.44),
    "mask-ssim": (0.71, 0.80),
    "psnr": (13.1, 16.4),
    "mask-psnr": (18.2, 21.7),
    "pckh@0.5": (0.32, 0.71),
}


def score(dataset: str, variant: str, step: int, split: str, metric: str, value: float, marks=(), **given) -> dict:
    """One row of scores.parquet; the interval is 4 % to either side, none for FID."""
    interval = (None, None) if metric == "fid" else (0.96 * value, 1.04 * value)
    row = {
        "dataset": dataset,
        "variant": variant,
        "step": step,
        "split": split,
        "metric": metric,
        "protocol": PROTOCOLS[metric],
        "value": value,
        "low": interval[0],
        "high": interval[1],
        "n": 96 if split == "test" else 24,
        "excluded": 0,
        "ceiling": 0.83 if metric == "pckh@0.5" else None,
        "higher_is_better": metric not in LOWER,
        "marks": list(marks),
        "reference": REFERENCE,
        "resamples": 2000,
    }
    return row | given


def scores_of(path: Path) -> list[dict]:
    return store.read_table(path).to_pylist()


def training_run(dataset: str, variant: str, steps: list[int]) -> list[dict]:
    """Scores that improve from the first to the last of `steps`; test is a little worse than val. Floors are poor."""
    rows = []
    reached = {"copy_source": 0.6, "mean_image": 0.25}.get(variant, 1.0)
    for index, step in enumerate(steps):
        done = reached * (index + 1) / len(steps)
        for metric, (start, end) in RANGE.items():
            for split, offset in (("val", 0.0), ("test", -0.02)):
                value = start + (done + offset) * (end - start)
                seeded = ["metric-weights"] if metric == "fid" or "lpips" in metric else []
                trained = ["weights", "steps", "width"] if len(steps) > 1 else []
                rows.append(score(dataset, variant, step, split, metric, value, ["data", *seeded, *trained]))
    return rows


def write_reference(dataset: str, sha256: str = REFERENCE, **about) -> None:
    """What scores of a data set are made by now."""
    layout.scored_by(dataset).parent.mkdir(parents=True, exist_ok=True)
    layout.scored_by(dataset).write_text(json.dumps({"sha256": sha256, **about}))


def write_scores(dataset: str, variant: str, rows: list[dict]) -> None:
    """scores.parquet, a network.json beside it, and the reference by which it was scored."""
    write_reference(dataset)
    store.write_table(layout.scores(dataset, variant), rows, schema.SCORES)
    write_network(dataset, variant, sorted({row["step"] for row in rows}) or [0])


def write_network(dataset: str, variant: str, steps: list[int], **differing) -> None:
    """network.json of a narrow network trained for few steps; of a floor without a schedule."""
    floor = variant in ("copy_source", "mean_image")
    settings = {"steps": steps[-1], "batch": 4, "learning_rate": 0.001, "width": 0.25}
    published = {"steps": 200000, "batch": 8, "learning_rate": 0.001, "width": 1.0}
    trained = {
        "name": variant,
        "height": 128,
        "width": 64,
        "components": {} if floor else differing.pop("components", {"spig_flow": {}}),
        "start": differing.pop("start", None),
        "features": None if floor else {"net": "squeezenet1_1", "provenance": "seeded", "published": "vgg19"},
        "settings": {"seed": 0} if floor else settings | differing,
        "published": None if floor else published,
    }
    about = {"parameters": 0, "macs": 0} if floor else {"parameters": 2389021, "macs": 390_000_000}
    about |= {"checkpoint_bytes": 9_590_000, "given_target_parsing": variant == "spt_ts_gt", "trained": trained}
    path = layout.network(dataset, variant)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(about))


def pair_table(columns: dict[str, np.ndarray], step: int = 0, first: int = 0) -> pa.Table:
    """pairs.parquet with one checkpoint's test pairs."""
    count = len(next(iter(columns.values())))
    indices = range(first, first + count)
    keys = {"step": [step] * count, "split": ["test"] * count, "pair_index": list(indices)}
    names = {f"{side}_id": [f"{index:04d}_{side}.jpg" for index in indices] for side in ("source", "target")}
    table = pa.table([pa.array(column) for column in (*keys.values(), *names.values())], names=[*keys, *names])
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values, pa.float64(), from_pandas=True))
    return table


def write_method(variant: str, columns: dict[str, np.ndarray], offsets: dict[str, float], folder=None, **keys) -> None:
    """Scores of one checkpoint on val and test that agree with its pairs: a plain mean, or an offset and influences."""
    rows = []
    for metric in RANGE:
        if metric in columns:
            value = float(np.nanmean(columns[metric]))
        elif metric in offsets:
            value = offsets[metric]
        else:
            continue
        count = len(next(iter(columns.values())))
        rows += [score("synthetic", variant, 0, split, metric, value, n=count) for split in ("val", "test")]
    table = pair_table(columns, **keys)
    if folder is None:
        write_scores("synthetic", variant, rows)
        store.write_table(layout.pair_scores("synthetic", variant), table, table.schema)
    else:
        rows = [row for row in rows if row["split"] == "test"]
        store.write_table(folder / "scores.parquet", rows, schema.SCORES)
        store.write_table(folder / "pairs.parquet", table, table.schema)
        about = {"kind": "outside", "name": variant, "dataset": "synthetic"}
        (folder / "method.json").write_text(json.dumps(about))


def write_project() -> None:
    """In the working directory: params.yaml, published.csv, the template, and scores of the two floors and of spig."""
    Path("reports").mkdir()
    for name in ("params.yaml", "params.schema.yaml", "reports/published.csv", "reports/template.html.j2"):
        shutil.copy(ROOT / name, name)
    name_every_method(Path("params.yaml"))
    shutil.copytree(ROOT / "reports/template", "reports/template")
    Path("docs").mkdir()
    shutil.copy(ROOT / "docs/protocols.md", "docs")
    set_datasets("[synthetic]")
    set_variants(floors="copy_source, mean_image", spig="spig")
    for variant, steps in (("copy_source", [0]), ("mean_image", [0]), ("spig", [30, 60, 90])):
        write_scores("synthetic", variant, training_run("synthetic", variant, steps))


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """The project folder of `write_project`, as the working directory."""
    with working_in(tmp_path):
        write_project()
        yield tmp_path


def replace_in_params(old: str, new: str) -> None:
    text = Path("params.yaml").read_text()
    assert text.count(old) == 1
    Path("params.yaml").write_text(text.replace(old, new))
    params.load.cache_clear()


def set_datasets(names: str) -> None:
    line = next(line for line in Path("params.yaml").read_text().splitlines() if line.startswith("datasets:"))
    replace_in_params(f"\n{line}\n", f"\ndatasets: {names}\n")


def set_variants(**families: str) -> None:
    """The variants of these families, and none of the others."""
    text = Path("params.yaml").read_text()
    listed = dict.fromkeys(params.load()["variants"], "") | families
    block = "variants: {" + ", ".join(f"{family}: [{names}]" for family, names in listed.items()) + "}\n"
    Path("params.yaml").write_text(re.sub(r"^variants:.*\n(  .*\n)*", block, text, count=1, flags=re.MULTILINE))
    params.load.cache_clear()


def read(name: str) -> list[dict]:
    with (layout.TABLES / name).open(newline="") as handle:
        return list(csv.DictReader(handle))


def cell(name: str, **wanted) -> dict:
    found = [row for row in read(name) if all(row[key] == value for key, value in wanted.items())]
    assert len(found) == 1, (wanted, len(found))
    return found[0]


def text(name: str) -> str:
    return (layout.TABLES / name).read_text()


def write_component(name: str, value: float, counts: np.ndarray) -> None:
    """Scores of a component, whose influences are those of `counts`."""
    metric = "target-parsing-miou"
    given = {"protocol": "20 labels", "higher_is_better": True, "n": len(counts)}
    row = score("synthetic", name, 50, "test", "ssim", value, ["steps"], **given) | {"metric": metric}
    store.write_table(layout.scores("synthetic", name), [row], schema.SCORES)
    table = pair_table({metric + schema.INFLUENCE: counts - counts.mean()}, step=50)
    store.write_table(layout.pair_scores("synthetic", name), table, table.schema)


def test_a_component_with_a_score_stands_beside_its_published_number(scored):
    """And nowhere among the methods; of one that is not trained, or not asked for, there is nothing."""
    random = np.random.default_rng(0)
    easy = random.normal(0, 0.01, 40)
    replace_in_params(" spatn: auto", " spatn: true")
    replace_in_params("spatn_no_distance: auto", "spatn_no_distance: true")
    write_component("spatn", 0.5391, easy + 0.1)
    write_component("spatn_no_distance", 0.52, easy)
    tables.run()
    rows = [row for row in read("spgnet_parsing.csv") if row["dataset"] == "synthetic"]
    assert [(row["row"], row["kind"], row["printed"], row["place"]) for row in rows] == [
        ("SPATN without distance maps, this run", "component", "0.520", ""),
        ("SPATN with distance maps, this run", "component", "0.539", "best"),
    ]
    assert {row["marks"] for row in rows} == {"steps"}
    assert float(rows[1]["low"]) < 0.5391 < float(rows[1]["high"])
    found = [row for row in read("differences.csv") if row["metric"] == "target-parsing-miou"]
    assert [(row["one"], row["other"], row["verdict"]) for row in found] == [("spatn", "spatn_no_distance", "spatn")]
    assert float(found[0]["difference"]) == pytest.approx(0.0191)
    assert "spatn: step 50, its last, from which variants start." in text("spgnet_parsing.md")
    assert "spatn" not in text("leaderboard_synthetic.md")
    assert {row["variant"] for row in read("all_scores.csv")} >= {"spatn", "spig"}
    store.write_table(layout.scores("synthetic", "spatn"), [], schema.SCORES)
    replace_in_params("spatn_no_distance: true", "spatn_no_distance: auto")
    tables.run()
    assert not [row for row in read("spgnet_parsing.csv") if row["dataset"] == "synthetic"]
    assert "spatn" not in text("all_scores.md")


# ---- published numbers


def test_published_numbers_are_those_of_the_papers():
    rows = {
        (r["paper"], r["table"], r["dataset"], r["method"], r["variant"], r["metric"]): r
        for r in read_published(ROOT / layout.PUBLISHED)
    }
    # SPIG, arXiv 2102.02972, Tables 1 and 3; SPGNet, arXiv 2104.06650, supplement, Table A.
    market = [24.254, 0.2796, 0.1464, 0.290, 0.802, 14.526, 20.726]
    for metric, value in zip(SPIG_COLUMNS, market, strict=True):
        row = rows["SPIG", "Table 1", "Market-1501", "SPIG (Ours)", "full", metric]
        assert (float(row["value"]), row["verified"]) == (value, "yes")
    fashion = {"FID": 26.283, "LPIPS": 0.2330, "SSIM": 0.747, "PSNR": 17.524}
    for metric, value in fashion.items():
        assert float(rows["SPIG", "Table 1", "DeepFashion", "Def-GAN", "", metric]["value"]) == value
    assert rows["SPIG", "Table 3 (ablation)", "DeepFashion", "SPIG", "w/o HDCB", "PSNR"]["value"] == "18.021"
    scheme = "S1||S2 (parallel; adopted)"
    assert rows["SPGNet", "Supp. Table A", "DeepFashion", "SPGNet", scheme, "FID"]["value"] == "12.243"


def test_published_file_is_sound():
    rows = read_published(ROOT / layout.PUBLISHED)
    keys = [tuple(row[key] for key in PUBLISHED_COLUMNS[:6]) for row in rows]
    assert len(set(keys)) == len(keys)
    for parts in (1, 2):  # a paper's rows stand together, and in them those of a table
        groups = [key for key, _ in groupby(keys, lambda key, parts=parts: key[:parts])]
        assert len(set(groups)) == len(groups)
    private = ("seed", "memory", ".txt", "FACTS", "index file", "reading note", "read in full", "stored")
    lower = ("FID", "LPIPS", "Mask-LPIPS", "Parameters (M)", "Face distance to target")
    for row in rows:
        assert row["source"].strip()
        assert not any(word in row["source"] + row["other_source"] for word in private)
        metric = row["metric"].split(" ")[0]
        assert (row["higher_is_better"] == "no") == (metric in lower or row["metric"] in lower)
        for value in filter(None, (row["value"], row["other_value"])):
            if metric in ("SSIM", "Mask-SSIM", "LPIPS", "Mask-LPIPS", "PCKh", "mIoU", "Face") and value[:2] != "1.":
                assert 0 < float(value) < 1 or row["metric"] == "Face distance to target"
        unread = "checked against the paper" in row["source"] or "not known" in row["source"]
        assert not (unread and row["verified"] != "no")
        assert row["value"] or not row["other_value"]


def test_published_numbers_say_where_they_were_read():
    """Of the four papers and their context what they were before; of the later ones 149 are the papers' own."""
    rows = read_published(ROOT / layout.PUBLISHED)
    of_context = {f"{name} (context)" for name in ("PATN", "ADGAN", "Def-GAN", "GFLA")} | {
        "later papers, mixed (context)"
    }
    of_then = {"SPIG", "SPGNet", "SPT", "SGW-GAN"} | of_context
    earlier = [row for row in rows if row["paper"] in of_then and row["table"] != "main comparison"]
    later = [row for row in rows if row not in earlier]
    assert Counter(row["verified"] for row in earlier) == {"yes": 119, "second-hand": 68, "no": 146}
    assert Counter(row["verified"] for row in later) == {"yes": 149, "second-hand": 290}
    assert [sum(bool(row["other_value"]) for row in part) for part in (earlier, later)] == [13, 3]
    assert {row["verified"] for row in earlier if row["other_value"]} == {"no"}
    assert all("not read; the same number in " in r["source"] for r in earlier if r["verified"] == "second-hand")
    summed = [row for row in rows if "summar" in row["source"] and row["verified"] != "no"]
    assert {id(row) for row in rows if "summary" in row["marks"]} == {id(row) for row in summed}


def test_a_trap_is_a_mark_of_each_number_that_it_concerns():
    by_mark = {mark: set() for mark in papers.PUBLISHED_MARKS}
    for row in read_published(ROOT / layout.PUBLISHED):
        for mark in row["marks"].split():
            by_mark[mark].add((row["method"], row["dataset"].removeprefix("DeepFashion "), row["metric"]))
    sizes = ("256x176", "512x352")
    assert by_mark["best-of-four"] == {("PCDMs", size, metric) for size in sizes for metric in ("FID", "LPIPS", "SSIM")}
    assert by_mark["lpips-unscaled"] == {("PCDMs", size, "LPIPS") for size in sizes}
    assert by_mark["sigma"] == {("PCDMs", size, "SSIM") for size in sizes}
    assert by_mark["lpips-unknown"] == {("Leffa", size, "LPIPS") for size in sizes}
    assert by_mark["wrapped"] == {("PISE", "256x176", "PSNR"), ("CASD", "256x176", "PSNR")}
    assert ("PIDM", "256x176", "SSIM") in by_mark["squashed"]
    assert {method for method, *_ in by_mark["squashed"]} == {"PIDM", "GFLA"}
    assert {metric[:5] for *_, metric in by_mark["faces-found"]} == {"Face "}
    assert not by_mark["unverified"] | by_mark["second-hand"]  # which `verified` decides


def test_a_published_file_with_excels_mark_of_utf8_is_the_same(tmp_path):
    text = (ROOT / layout.PUBLISHED).read_text(encoding="utf-8")
    (tmp_path / "published.csv").write_text(text, encoding="utf-8-sig")
    assert read_published(tmp_path / "published.csv") == read_published(ROOT / layout.PUBLISHED)


def test_tables_print_the_published_values_as_they_stand(scored):
    tables.run()
    patn = cell("spig_table1.csv", dataset="deepfashion", row="Def-GAN", column="LPIPS")
    assert (patn["value"], patn["printed"], patn["marks"]) == ("0.2330", "0.2330", "")
    assert "0.2330" in text("spig_table1.md")
    assert "0.2330" in text("spig_table1.tex")
    own = [r for r in read("spig_table1.csv") if r["dataset"] == "market1501" and r["row"] == "PATN"]
    assert [r["column"] for r in own] == SPIG_COLUMNS
    assert [r["column"] for r in read("spig_table1.csv") if r["dataset"] == "deepfashion" and r["row"] == "PATN"] == [
        "FID",
        "LPIPS",
        "SSIM",
        "PSNR",
    ]


def test_unverified_published_numbers_are_marked(scored):
    old = 'SPIG,Table 1,Market-1501,PATN,,SSIM,0.282,yes,"SPIG (arXiv 2102.02972), Table 1",yes'
    published = layout.PUBLISHED.read_text()
    assert old in published
    tables.run()
    assert {row["marks"] for row in read("spig_table1.csv") if row["kind"] == "published"} == {""}
    assert "0.282?" not in text("spig_table1.md")
    known = {"unverified", "second-hand"}
    for name in ("spgnet_table1", "spt_table1", "spt_training", "sgw_gan_table1", "sgw_gan_amt"):  # none was read
        marks = {row["marks"] for row in read(f"{name}.csv") if row["value"] and row["kind"] == "published"}
        assert marks == (known if name.endswith("table1") else {"unverified"})
    assert "| GFLA | – | 10.573” | 0.96? | 0.2341” |" in text("spgnet_table1.md")
    assert "10.573\\textquotedblright{}" in text("spgnet_table1.tex")
    for kind in ("md", "tex"):
        assert MARKS["second-hand"].text in text(f"spgnet_table1.{kind}")
    layout.PUBLISHED.write_text(published.replace(old, old.removesuffix("yes") + "no"))
    tables.run()
    assert cell("spig_table1.csv", dataset="market1501", row="PATN", column="SSIM")["marks"] == "unverified"
    for kind in ("md", "tex"):
        assert "0.282?" in text(f"spig_table1.{kind}")
        assert MARKS["unverified"].text in text(f"spig_table1.{kind}")
    assert "?" in {row["symbol"] for row in read("legend.csv")}


def test_what_another_paper_prints_for_a_cell_stands_beside_it_with_its_source(scored):
    tables.run()
    patn = cell("spgnet_table1.csv", dataset="deepfashion", row="PATN", column="FID")
    assert (patn["value"], patn["marks"], patn["other"]) == ("20.739", "unverified", "20.751")
    assert "20.739? (elsewhere 20.751)" in text("spgnet_table1.md")
    assert "(elsewhere 20.751)" in text("spgnet_table1.tex")
    assert "Elsewhere, what another paper prints for the same cell: 20.751 in IMAGPose (NeurIPS 2024, " in text(
        "spgnet_table1.md"
    )
    assert "Elsewhere" not in text("spig_table1.md")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.282,yes,", "high,yes,"),
        ("0.282,yes,", "0.282,perhaps,"),
        ("0.282,yes,", "yes,"),
        ('Table 1",yes,,,', 'Table 1",maybe,,,'),
        ('Table 1",yes,,,', 'Table 1",yes,unheard-of,,'),
        ('Table 1",yes,,,', 'Table 1",yes,unverified,,'),  # that is for `verified` to say
        ('Table 1",yes,,,', 'Table 1",yes,,0.3,'),  # of no source
        ('Table 1",yes,,,', 'Table 1",yes,,,,'),
        ("SPIG,Table 1", "=cmd|' /C calc'!A0,Table 1"),
        ("SPIG,Table 1", "@SPIG,Table 1"),
        ("SPIG,Table 1", f"{'x' * 2_000_000},Table 1"),
        ("paper,table", "paper,tab"),
    ],
)
def test_a_malformed_published_file_is_refused(scored, old, new):
    layout.PUBLISHED.write_text(layout.PUBLISHED.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=r"published\.csv") as caught:
        tables.run()
    assert "\n" not in str(caught.value)


def test_a_published_file_of_another_encoding_is_refused(scored):
    layout.PUBLISHED.write_bytes(layout.PUBLISHED.read_bytes() + "Müller".encode("latin-1"))
    with pytest.raises(UserError, match=r"published\.csv: not UTF-8"):
        tables.run()


# ---- the checkpoint


def test_the_checkpoint_is_chosen_on_val_never_on_test(scored):
    rows = []
    for step, val, test in ((30, 0.40, 0.30), (60, 0.20, 0.50), (90, 0.30, 0.10)):  # test alone would choose 90
        rows.append(score("synthetic", "spig", step, "val", "lpips-alex-v0.1", val))
        rows.append(score("synthetic", "spig", step, "test", "lpips-alex-v0.1", test))
    write_scores("synthetic", "spig", rows)
    tables.run()
    chosen = cell("spig_table1.csv", dataset="synthetic", row="SPIG, this run", column="LPIPS")
    assert (chosen["step"], chosen["split"], chosen["value"]) == ("60", "test", "0.5")
    assert {row["step"] for row in read("all_scores.csv") if row["variant"] == "spig" and row["chosen"] == "yes"} == {
        "60"
    }
    assert "step 60, of 3 checkpoints the one with the lowest lpips-alex-v0.1 on val (0.2000)" in text("spig_table1.md")


def test_choice_follows_the_metrics_direction_and_breaks_ties_early():
    rows = [score("d", "v", step, "val", "ssim", value) for step, value in ((10, 0.4), (20, 0.6), (30, 0.6), (40, 0.1))]
    assert choose(pd.DataFrame(rows), "SSIM", "val")["step"] == 20
    rows = [r | {"metric": "lpips-squeeze-v0.1", "higher_is_better": False} for r in rows]
    assert choose(pd.DataFrame(rows), "LPIPS", "val")["step"] == 40
    assert choose(pd.DataFrame(rows), "LPIPS", "test") is None


def test_no_val_score_is_the_users_error(scored):
    rows = [score("synthetic", "spig", 30, "test", "lpips-alex-v0.1", 0.4)]
    write_scores("synthetic", "spig", rows)
    with pytest.raises(UserError, match="no lpips on val"):
        tables.run()
    rows[0] |= {"split": "val", "value": float("nan")}
    write_scores("synthetic", "spig", rows)
    with pytest.raises(UserError, match="no lpips on val"):
        tables.run()


# ---- marks


def test_marks_of_all_values_of_a_row_stand_on_its_name():
    def cell(row: str, column: str, marks: str) -> Cell:
        return Cell("t", "d", row, "trained", row, column, True, value="0.5", printed="0.5", marks=marks, n=3)

    marks = {"a": ("steps data", "steps"), "b": ("", "data")}
    cells = [cell(row, *each) for row, of in marks.items() for each in zip(("SSIM", "PSNR"), of, strict=True)]
    steps, data = MARKS["steps"].symbol, MARKS["data"].symbol
    rows = grid(cells).drop(columns="Pairs").to_numpy().tolist()
    assert rows == [[f"a{steps}", f"0.5{data}", "0.5"], ["b", "0.5", f"0.5{data}"]]


OURS = [name for name in MARKS if name not in papers.PUBLISHED_MARKS]


def run_with(marks: list[str]) -> None:
    """The tables of one value alone, which has these marks."""
    for variant in ("copy_source", "mean_image", "spig"):
        row = {"step": 1, "metric": "lpips-alex-v0.1", "value": 0.4321, "low": None, "high": None}
        rows = [score("synthetic", variant, split=split, **row) for split in ("val", "test")]
        rows[1]["marks"] = marks
        write_scores("synthetic", variant, rows)
    tables.run()


def check_shown(mark: str, expected: bool) -> None:
    symbol, tex = MARKS[mark].symbol, MARKS[mark].tex + "{}"
    for name in ("spig_table1", "spig_table3", "leaderboard_synthetic", "all_scores"):
        in_csv = [row["marks"] for row in read(f"{name}.csv") if row["value"] == "0.4321" and row["split"] == "test"]
        assert in_csv
        assert set(in_csv) == {mark if expected else ""}
        # The only value of its row: the mark stands on the row's name.
        at = {"all_scores": "0.4321", "leaderboard_synthetic": "spig"}.get(name, ", this run")
        assert (f"{at}{symbol}" in text(f"{name}.md")) == expected
        assert (f"{symbol} {MARKS[mark].text}" in text(f"{name}.md")) == expected
        if name == "all_scores":  # is too long for a page
            continue
        assert (f"{at}{tex}" in text(f"{name}.tex")) == expected
        assert (f"{tex} {tex_escape(MARKS[mark].text)}" in text(f"{name}.tex")) == expected
    assert (mark in {row["mark"] for row in read("legend.csv")}) == expected


@pytest.mark.parametrize("mark", OURS)
def test_a_mark_reaches_all_three_formats_with_its_legend(scored, mark):
    run_with([mark])
    check_shown(mark, True)


def test_without_a_mark_none_is_shown(scored):
    run_with([])
    for mark in OURS:
        check_shown(mark, False)


def test_an_unknown_mark_is_refused(scored):
    write_scores("synthetic", "spig", [score("synthetic", "spig", 1, "val", "ssim", 0.5, ["sloppy"])])
    with pytest.raises(UserError, match="unknown mark sloppy"):
        tables.run()


# ---- differences


def test_a_difference_needs_equal_protocols(scored, monkeypatch):
    set_datasets("[market1501]")
    for variant in ("copy_source", "mean_image", "spig"):
        rows = [score("market1501", variant, 5, s, m, RANGE[m][1]) for s in ("val", "test") for m in RANGE]
        write_scores("market1501", variant, rows)

    tables.run()
    assert {row["difference"] for name in ("spig_table1.csv", "spig_table3.csv") for row in read(name)} == {""}
    assert "Δ" not in text("spig_table1.md")
    assert "between equal protocols" in text("spig_table1.md")

    monkeypatch.setitem(papers.EQUAL_PROTOCOLS, "psnr", {("SPIG", "PSNR")})
    tables.run()
    # 16.4 - 14.526, in that row and that column alone
    found = {(row["dataset"], row["row"], row["column"]): row["difference"] for row in read("spig_table1.csv")}
    assert found.pop(("market1501", "SPIG, this run", "PSNR")) == "+1.874"
    assert set(found.values()) == {""}
    assert "(Δ +1.874)" in text("spig_table1.md")
    assert r"($\Delta$ +1.874)" in text("spig_table1.tex")
    assert "0.3100≠ [0.2976, 0.3224]" in text("spig_table1.md")
    assert "{[}0.2976, 0.3224{]}" in text("spig_table1.tex")

    # nor without a published value that somebody read in the paper
    read_there = 'SPIG,Table 1,Market-1501,SPIG (Ours),full,PSNR,14.526,yes,"SPIG (arXiv 2102.02972), Table 1",'
    published = layout.PUBLISHED.read_text()
    assert read_there + "yes" in published
    layout.PUBLISHED.write_text(published.replace(read_there + "yes", read_there + "no"))
    tables.run()
    assert {row["difference"] for row in read("spig_table1.csv")} == {""}


@pytest.mark.parametrize("mark", ["metric-weights", "data"])
def test_a_mark_that_alters_the_measure_forbids_a_difference(scored, monkeypatch, mark):
    set_datasets("[market1501]")
    monkeypatch.setitem(papers.EQUAL_PROTOCOLS, "psnr", {("SPIG", "PSNR")})
    for variant in ("copy_source", "mean_image", "spig"):
        rows = [score("market1501", variant, 5, s, m, RANGE[m][1], [mark]) for s in ("val", "test") for m in RANGE]
        write_scores("market1501", variant, rows)
    tables.run()
    assert {row["difference"] for row in read("spig_table1.csv")} == {""}


# ---- differences between methods


def three_methods() -> dict[str, np.ndarray]:
    """LPIPS of 96 hard and easy pairs: mean_image is worse, spig and copy_source cannot be told apart."""
    random = np.random.default_rng(0)
    hard = random.normal(0.4, 0.15, 96)
    return {
        "copy_source": hard + random.normal(0.001, 0.02, 96),
        "mean_image": hard + 0.03 + random.normal(0, 0.02, 96),
        "spig": hard + random.normal(0, 0.02, 96),
    }


def test_a_paired_bootstrap_tells_methods_apart_that_their_intervals_do_not(scored):
    values = three_methods()
    for variant, lpips in values.items():
        write_method(variant, {"lpips-alex-v0.1": lpips}, {})
    tables.run()
    found = {(r["one"], r["other"]): r for r in read("differences.csv") if r["metric"] == "lpips-alex-v0.1"}
    assert set(found) == {("copy_source", "mean_image"), ("copy_source", "spig"), ("mean_image", "spig")}
    worse = found["mean_image", "spig"]
    apart = values["mean_image"] - values["spig"]
    assert float(worse["difference"]) == pytest.approx(apart.mean(), rel=1e-12)
    half = 1.96 * apart.std() / np.sqrt(96)
    assert float(worse["low"]) == pytest.approx(apart.mean() - half, abs=0.15 * half)
    assert float(worse["high"]) == pytest.approx(apart.mean() + half, abs=0.15 * half)
    assert (worse["verdict"], worse["n"]) == ("spig", "96")
    assert found["copy_source", "mean_image"]["verdict"] == "copy_source"
    assert found["copy_source", "spig"]["verdict"] == "tie"
    # unpaired the intervals overlap: the pairs' difficulty is what they spread by
    assert values["mean_image"].std() / np.sqrt(96) > apart.mean() / 2

    rows = {r["variant"]: r for r in read("leaderboard_synthetic.csv") if r["column"] == "LPIPS"}
    places = {variant: row["place"] for variant, row in rows.items()}
    order = sorted(("copy_source", "spig"), key=lambda variant: values[variant].mean())
    assert [places[variant] for variant in (*order, "mean_image")] == ["best tied", "second tied", ""]
    assert list(rows) == [*order, "mean_image"]  # sorted by LPIPS
    for variant, shown in (("Copy of the source", True), ("spig", True), ("Mean training image", False)):
        line = next(one for one in text("leaderboard_synthetic.md").split("\n") if one.startswith(f"| {variant} |"))
        assert ("≈" in line) == shown
    assert "does not tell from it" in text("leaderboard_synthetic.md")
    assert r"$\approx$" in text("leaderboard_synthetic.tex")
    assert "| tie |" in text("differences.md")


def test_a_score_that_is_no_mean_is_compared_by_influences(scored):
    random = np.random.default_rng(1)
    shared = random.normal(0, 300, 96)
    shared -= shared.mean()
    for variant, fid in (("copy_source", 60.0), ("mean_image", 40.0), ("spig", 41.0)):
        noise = random.normal(0, 20, 96)
        write_method(
            variant, {"lpips-alex-v0.1": np.ones(96), "fid:influence": shared + noise - noise.mean()}, {"fid": fid}
        )
    tables.run()
    found = {(r["one"], r["other"]): r for r in read("differences.csv") if r["metric"] == "fid"}
    assert float(found["copy_source", "spig"]["difference"]) == pytest.approx(19)
    assert found["copy_source", "spig"]["verdict"] == "spig"  # lower is better
    assert found["mean_image", "spig"]["verdict"] == "tie"
    assert found["copy_source", "mean_image"]["verdict"] == "mean_image"


def test_only_like_is_compared_with_like(scored):
    values = three_methods()
    for variant, lpips in values.items():
        write_method(variant, {"lpips-alex-v0.1": lpips, "psnr": 30 * lpips}, {})
    rows = scores_of(layout.scores("synthetic", "spig"))
    for row in rows:
        row["marks"] = ["metric-weights"] if "lpips" in row["metric"] else []
        row["protocol"] += " of another kind" if row["metric"] == "psnr" else ""
    write_scores("synthetic", "spig", rows)
    tables.run()
    assert {(r["one"], r["other"]) for r in read("differences.csv")} == {("copy_source", "mean_image")}
    assert cell("leaderboard_synthetic.csv", variant="spig", column="LPIPS")["place"] == ""


def test_an_outside_method_has_its_own_row(scored):
    values = three_methods()
    for variant, lpips in values.items():
        write_method(variant, {"lpips-alex-v0.1": lpips, "fid:influence": lpips - lpips.mean()}, {"fid": 50.0})
    folder = layout.outside("synthetic", "my_method")
    folder.mkdir(parents=True)
    mine = {"lpips-alex-v0.1": values["spig"][20:] - 0.05, "fid:influence": np.zeros(76)}
    write_method("My method", mine, {"fid": 1.0}, folder, first=20)
    scores = scores_of(folder / "scores.parquet")
    for row in scores:
        row["marks"] = ["pairs", "jpeg"]
    store.write_table(folder / "scores.parquet", scores, schema.SCORES)
    tables.run()
    own = cell("leaderboard_synthetic.csv", row="My method (outside)", column="LPIPS")
    assert (own["kind"], own["n"], own["marks"], own["place"]) == ("outside", "76", "pairs jpeg", "")
    assert [row["row"] for row in read("leaderboard_synthetic.csv") if row["column"] == "LPIPS"][-1] == own["row"]
    assert "My method (outside): images for only 76 test pairs were given" in text("leaderboard_synthetic.md")
    line = next(one for one in text("leaderboard_synthetic.md").split("\n") if one.startswith("| My method (outside)"))
    assert "♯" in line
    assert MARKS["jpeg"].text in text("leaderboard_synthetic.md")
    found = {(r["one"], r["metric"]): r for r in read("differences.csv") if r["other"] == "My method"}
    # on the pairs that both have; FID, which is no mean over pairs, not at all
    assert set(found) == {(variant, "lpips-alex-v0.1") for variant in values}
    assert found["spig", "lpips-alex-v0.1"]["n"] == "76"
    assert float(found["spig", "lpips-alex-v0.1"]["difference"]) == pytest.approx(0.05)
    assert found["spig", "lpips-alex-v0.1"]["verdict"] == "My method"
    assert {r["chosen"] for r in read("all_scores.csv") if r["variant"] == "My method"} == {"yes"}

    set_datasets("[market1501]")
    for variant in values:
        write_scores("market1501", variant, training_run("market1501", variant, [5]))
    tables.run()
    assert "My method" not in text("all_scores.md")  # of a data set that is not scored now


def test_two_outside_methods_of_one_name_are_refused(scored):
    for slug in ("one", "two"):
        folder = layout.outside("synthetic", slug)
        folder.mkdir(parents=True)
        write_method("Mine", {"ssim": np.ones(9)}, {}, folder)
    with pytest.raises(UserError, match="names two methods"):
        tables.run()
    (layout.outside("synthetic", "one") / "method.json").write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        tables.run()


def test_who_is_told_the_targets_parsing_is_not_ranked(scored):
    set_variants(floors="copy_source", spig="spig", spt="spt, spt_ts_gt")
    for variant, ssim in (("copy_source", 0.2), ("spig", 0.3), ("spt", 0.4), ("spt_ts_gt", 0.5)):
        write_method(variant, {"ssim": np.full(9, ssim), "lpips-alex-v0.1": np.full(9, 1 - ssim)}, {})
    tables.run()
    ranked = [(r["row"], r["place"]) for r in read("leaderboard_synthetic.csv") if r["column"] == "SSIM"]
    assert ranked == [("spt_ts_gt", ""), ("spt", "best"), ("spig", "second"), ("Copy of the source", "")]
    assert "and so not ranked: spt_ts_gt." in text("leaderboard_synthetic.md")
    # in the paper's own table it is a row like the others
    assert cell("spt_training.csv", dataset="synthetic", variant="spt_ts_gt", column="SSIM")["place"] == "best"
    assert "TS-GT is given the parsing of the true target" in text("spt_training.md")


# ---- where rows stand


def test_the_weights_that_a_run_and_its_components_started_from_are_named_below_its_tables(scored):
    begun = {"weights": f"sha256:{'0123456789abcdef' * 4}", "name": "spig", "trained_on": "2,400 people"}
    of_flow = {"spig_flow": {"start": begun | {"name": "spig_flow", "step": None}}}
    write_network("synthetic", "spig", [30, 60, 90], start=begun | {"step": 4000}, components=of_flow)
    tables.run()
    said = (
        "spig: not trained from random weights, but on from weights of spig trained for 4,000 steps on 2,400 people "
        "(sha256:0123456789ab); its spig_flow from weights of spig_flow trained on 2,400 people (sha256:0123456789ab)."
    )
    for name in ("leaderboard_synthetic.md", "spig_table1.md"):
        assert said in (layout.TABLES / name).read_text(), name


def test_ours_stand_below_the_published_row_of_the_same_method(scored):
    set_datasets("[deepfashion]")
    for variant in ("copy_source", "mean_image", "spig", "patn", "spig_no_pnb"):
        write_scores("deepfashion", variant, training_run("deepfashion", variant, [5]))
    set_variants(floors="copy_source, mean_image", spig="spig, spig_no_pnb", patn="patn")
    tables.run()
    first = [r for r in read("spig_table1.csv") if r["dataset"] == "deepfashion" and r["column"] == "FID"]
    assert [(r["row"], r["kind"], r["variant"]) for r in first] == [
        ("VU-Net", "published", ""),
        ("Def-GAN", "published", ""),
        ("PATN", "published", ""),
        ("PATN, this run", "trained", "patn"),
        ("DIST (=GFLA)", "published", ""),
        ("SPIG (the paper's)", "published", ""),
        ("SPIG, this run", "trained", "spig"),
    ]
    rows = list(dict.fromkeys(r["row"] for r in read("spig_table3.csv")))
    assert rows == ["w/o Part", "w/o PNB", "w/o PNB, this run", "w/o HDCB", "Full", "Full, this run"]
    assert "Not in this run: spig_no_part, spig_no_hdcb (variants in params.yaml)." in text("spig_table3.md")
    assert re.search(r"Not in this run: [\w, ]*\bgfla \(variants in params.yaml\)\.", text("spig_table1.md"))


def test_settings_of_a_runs_own_have_a_row_of_their_own_and_its_seeds_share_it(scored):
    named = "{" + ", ".join(f"{run}: {{learning_rate: 0.5}}" for run in ("spig-fast", "spig-fast-seed1")) + "}"
    replace_in_params("\nnamed: {spig: {}", f"\nnamed: {{spig: {named}")
    for run in ("spig-fast", "spig-fast-seed1"):
        write_scores("synthetic", run, training_run("synthetic", run, [30, 60]))
    tables.run()
    rows = {(r["row"], r["variant"]) for r in read("leaderboard_synthetic.csv") if r["kind"] == "trained"}
    assert rows == {("spig", "spig"), ("spig (fast)", "spig-fast")}
    assert cell("leaderboard_synthetic.csv", variant="spig-fast", column="SSIM")["seeds"] == "2"
    rows = list(dict.fromkeys(r["row"] for r in read("spig_table1.csv") if r["dataset"] == "synthetic"))
    assert rows == ["SPIG, this run", "SPIG, this run (fast)"]
    assert "spig-fast: trained from 2 seeds (0, 1)" in text("leaderboard_synthetic.md")


def test_on_another_data_set_ours_stand_alone_in_the_papers_layout(scored):
    tables.run()
    own = [r for r in read("spig_table1.csv") if r["dataset"] == "synthetic"]
    assert [(r["row"], r["kind"], r["column"]) for r in own] == [("SPIG, this run", "trained", c) for c in SPIG_COLUMNS]
    assert {r["n"] for r in own} == {"96"}
    assert {r["row"] for r in read("spig_table3.csv") if r["dataset"] == "synthetic"} == {"Full, this run"}
    assert {r["dataset"] for r in read("spt_table1.csv")} == {"market1501", "deepfashion"}  # no row of ours
    assert "This run did not score this data set." in text("spt_table1.md")


def test_a_table_without_any_number_says_so(scored):
    tables.run()
    assert read("spt_losses.csv") == []
    assert "spt_ts_gt, spt_mask_style, spt_patch_style, spt_no_face" in text("spt_losses.md")
    assert r"spt\_mask\_style" in text("spt_losses.tex")
    assert {r["note"] for r in read("notes.csv") if r["table"] == "spt_losses"} >= set(
        next(t for t in papers.TABLES if t.name == "spt_losses").notes
    )


def test_an_outside_method_stands_below_the_row_of_its_name(scored):
    write_method("spig", {"lpips-alex-v0.1": np.full(9, 0.5)}, {})
    folder = layout.outside("synthetic", "vunet")
    folder.mkdir(parents=True)
    write_method("vunet", {"lpips-alex-v0.1": np.full(9, 0.25)}, {}, folder)
    tables.run()
    for name in ("spig_table1", "spt_table1", "sgw_gan_table1", "leaderboard_synthetic"):
        assert "vunet (outside)" in {row["row"] for row in read(f"{name}.csv")}
    assert "vunet" not in text("spgnet_table1.md")  # not among its rows


def test_an_outside_method_of_any_name_is_a_row_of_the_tables_that_have_its_data_set(scored):
    set_datasets("[market1501]")
    for variant in ("copy_source", "mean_image", "spig"):
        write_scores("market1501", variant, training_run("market1501", variant, [5]))
    folder = layout.outside("market1501", "mine")
    rows = [score("market1501", "Mine", 0, "test", metric, 0.3) for metric in ("ssim", "lpips-alex-v0.1")]
    store.write_table(folder / "scores.parquet", rows, schema.SCORES)
    (folder / "method.json").write_text(json.dumps({"kind": "outside", "name": "Mine", "dataset": "market1501"}))
    tables.run()
    has = {
        table.name for table in papers.TABLES if "Mine (outside)" in {row["row"] for row in read(f"{table.name}.csv")}
    }
    # not those of other data sets alone, nor those for which people were asked; spig_table3 has a row of ours
    assert has == {
        "spig_table1", "spig_table3", "spgnet_table1", "spt_table1", "spt_training", "sgw_gan_table1",
        "sgw_gan_ablation",
    }  # fmt: skip
    own = cell("spig_table1.csv", dataset="market1501", row="Mine (outside)", column="LPIPS")
    assert (own["value"], own["protocol"]) == ("0.3", PROTOCOLS["lpips-alex-v0.1"])
    assert read("spig_table1.csv")[-1]["dataset"] == "deepfashion"  # whose part it does not stand in
    assert "Mine" not in {row["row"] for row in read("spig_table1.csv") if row["dataset"] == "deepfashion"}


@pytest.mark.parametrize(
    ("name", "table", "above"),
    [
        ("PATN", "spig_table1", "PATN"),
        ("gfla", "spig_table1", "DIST (=GFLA)"),
        ("DIST", "spgnet_table1", "GFLA"),
        ("SPIG", "spig_table1", "SPIG (the paper's)"),
        ("SPT", "spt_table1", "SPT E2E"),
        ("DefGAN", "sgw_gan_table1", "DSCF (=Def-GAN)"),
    ],
)
def test_an_outside_method_named_as_a_papers_baseline_stands_below_it(name, table, above):
    defined = next(one for one in papers.TABLES if one.name == table)
    assert [row.name for row in defined.rows if row.is_called(name)] == [above]


def test_somebodys_own_published_numbers_are_added(scored):
    with layout.PUBLISHED.open("a") as handle:
        handle.write("SPT,Table 1,Market-1501,Mine,v2,SSIM,0.345,yes,my paper,yes\n")
    tables.run()
    assert cell("spt_table1.csv", dataset="market1501", row="Mine v2", column="SSIM")["value"] == "0.345"
    assert [r["row"] for r in read("spt_table1.csv") if r["dataset"] == "market1501"][-1] == "Mine v2"
    assert "Mine" not in text("spt_training.md")  # a part of that table


# ---- the published numbers below the leaderboard


def test_published_numbers_on_a_data_set_stand_folded_below_its_leaderboard(scored):
    set_datasets("[market1501]")
    for variant in ("copy_source", "mean_image", "spig"):
        write_scores("market1501", variant, training_run("market1501", variant, [5]))
    tables.run()
    shown = {(r["row"], r["column"]): r for r in read("published_market1501.csv") if r["value"]}
    wanted = [p for p in read_published(ROOT / layout.PUBLISHED) if p["dataset"] == "Market-1501" and p["value"]]
    wanted = [p for p in wanted if p["metric"] in papers.COLUMNS and papers.COLUMNS[p["metric"]].metrics]
    assert len(shown) == len(wanted) > 100  # none is lost, none is shown twice
    assert {r["marks"] for r in shown.values()} == {"", "unverified", "second-hand"}
    checked = shown["PATN (SPIG, Table 1)", "FID"]
    assert (checked["value"], checked["marks"]) == ("24.917", "")
    assert "Table 1" in checked["source"]
    assert shown["PATN (GFLA, Table 1)", "FID"]["marks"] == "second-hand"
    assert shown["VU-Net (GFLA, Table 1)", "FID"]["marks"] == "unverified"
    page = text("leaderboard_market1501.md")
    before, folded = page.split("<details><summary>Published numbers</summary>")
    assert "PATN (GFLA, Table 1)" not in before
    assert "22.657”" in folded
    assert "20.144?" in folded
    assert MARKS["unverified"].text in folded
    assert folded.rstrip().endswith("</details>")
    assert read("published_market1501.csv")[0]["column"] == papers.LEADERBOARD[0]


def test_a_data_set_without_published_numbers_folds_nothing(scored):
    tables.run()
    assert read("published_synthetic.csv") == []
    assert "<details>" not in text("leaderboard_synthetic.md")
    assert "has no number on this data set" in text("published_synthetic.md")


# ---- the leaderboard


def places(column: list[dict], found=()) -> list[str]:
    """The places of trained cells of one SSIM column."""
    given = {"table": "t", "dataset": "d", "kind": "trained", "column": "SSIM", "higher_is_better": True}
    given |= {"metric": "ssim", "protocol": "p", "split": "test", "n": 9}
    cells = [Cell(**(given | {"row": str(i), "variant": str(i)} | one)) for i, one in enumerate(column)]
    return [one.place for one in with_places(cells, list(found), {})]


def told(one: str, other: str, verdict: str) -> Difference:
    return Difference("d", "ssim", "p", one, other, 0.1, 0.0, 0.2, 9, verdict)


def test_ranks_are_among_equals_only():
    values = [{"value": "0.9", "kind": "published"}, {"value": "0.3"}, {"value": "0.5"}, {"value": "0.4"}, {}]
    assert places(values) == ["", "", "best", "second", ""]
    assert places([one | {"higher_is_better": False} for one in values]) == ["", "best", "", "second", ""]
    assert places([{"value": "0.5"}, {"value": "0.4"}]) == ["best", ""]  # the worse of two is not second
    assert places([{"value": "0.5"}, {"value": "0.5"}, {"value": "0.4"}]) == ["best", "best", "second"]
    assert places([{"value": "0.5"}, {"value": "0.4"}, {"value": "0.4"}]) == ["best", "second", "second"]
    for other in ({"protocol": "q"}, {"n": 8}, {"marks": "metric-weights"}, {"metric": "m"}):
        assert places([{"value": "0.5"}, {"value": "0.4"} | other]) == ["", ""]
    assert places([{"value": "0.9", "n": 8}, {"value": "0.5"}, {"value": "0.4"}]) == ["", "best", ""]


def test_ties_are_with_the_best_by_paired_differences():
    values = [{"value": "0.5"}, {"value": "0.4"}, {"value": "0.3"}]
    assert places(values, [told("0", "1", "0"), told("0", "2", "0"), told("1", "2", "tie")]) == ["best", "second", ""]
    assert places(values, [told("0", "1", "tie"), told("0", "2", "0")]) == ["best tied", "second tied", ""]
    assert places(values, [told("2", "0", "tie"), told("0", "1", "0")]) == ["best tied", "second", "tied"]
    # the metric leaves a pair of the one out, and they are compared on those that both have
    assert places([{"value": "0.5", "n": 8, "excluded": 1}, {"value": "0.4"}], [told("0", "1", "0")]) == ["best", ""]


def test_a_part_of_the_pairs_has_no_rank():
    """Easy pairs alone would be the best, whoever drew them; what is compared on common pairs is in differences.csv."""
    values = [{"value": "0.9", "n": 8}, {"value": "0.5"}, {"value": "0.4"}]
    assert places(values, [told("0", "1", "tie"), told("0", "2", "0"), told("1", "2", "1")]) == ["", "best", ""]


def test_the_leaderboard_marks_best_and_second_by_word_and_weight(scored):
    for variant, ssim in (("copy_source", 0.2), ("mean_image", 0.3), ("spig", 0.4)):
        random = np.random.default_rng(2)
        columns = {"ssim": ssim + random.normal(0, 0.01, 96), "lpips-alex-v0.1": 1 - ssim + np.zeros(96)}
        write_method(variant, columns, {})
    tables.run()
    rows = read("leaderboard_synthetic.csv")
    assert list(dict.fromkeys(r["row"] for r in rows)) == ["spig", "Mean training image", "Copy of the source"]
    assert list(dict.fromkeys(r["column"] for r in rows)) == ["LPIPS", "SSIM"]  # those that were scored
    assert [r["place"] for r in rows if r["column"] == "SSIM"] == ["best", "second", ""]
    lines = [line for line in text("leaderboard_synthetic.md").split("\n") if line.startswith("| ")][2:]
    assert lines[0].startswith("| spig | **0.6000** best")
    assert lines[1].startswith("| Mean training image | *0.7000* 2nd")
    assert lines[2].startswith("| Copy of the source | 0.8000 ")
    assert r"\textbf{0.6000} best" in text("leaderboard_synthetic.tex")
    assert r"\textit{0.7000} 2nd" in text("leaderboard_synthetic.tex")


def test_columns_of_random_weights_come_last_and_sort_nothing(scored):
    tables.run()
    columns = list(dict.fromkeys(r["column"] for r in read("leaderboard_synthetic.csv")))
    assert columns == ["SSIM", "PSNR", "Mask-SSIM", "PCKh", "LPIPS", "FID"]
    assert "sorted by SSIM." in text("leaderboard_synthetic.md")
    for variant in ("copy_source", "mean_image", "spig"):
        rows = scores_of(layout.scores("synthetic", variant))
        published = [row | {"marks": ["data"] if variant == "spig" else row["marks"]} for row in rows]
        write_scores("synthetic", variant, published)
    tables.run()  # one number that ranks is enough
    columns = list(dict.fromkeys(r["column"] for r in read("leaderboard_synthetic.csv")))
    assert columns == ["LPIPS", "FID", "SSIM", "PSNR", "Mask-SSIM", "PCKh"]
    assert "sorted by LPIPS." in text("leaderboard_synthetic.md")


# ---- several seeds of one variant


def two_seeds(scored, first: dict[str, float], second: dict[str, float], **more: str) -> None:
    """spig from seeds 0 and 3, one checkpoint each; every pair scores what the run does."""
    set_variants(**({"spig": "spig, spig-seed3"} | more))
    for name, values in (("spig", first), ("spig-seed3", second)):
        write_method(name, {metric: np.full(96, value) for metric, value in values.items()}, {})


def test_tables_show_mean_and_deviation_over_seeds(scored):
    two_seeds(scored, {"lpips-alex-v0.1": 0.30, "ssim": 0.40}, {"lpips-alex-v0.1": 0.36, "ssim": 0.50})
    tables.run()
    # mean of 0.30 and 0.36, and sqrt((0.03^2 + 0.03^2) / (2 - 1))
    for name, row in (("leaderboard_synthetic", "spig"), ("spig_table1", "SPIG, this run")):
        found = cell(f"{name}.csv", dataset="synthetic", row=row, column="LPIPS")
        assert (float(found["value"]), found["printed"], found["seeds"]) == (pytest.approx(0.30), "0.3000", "2")
        assert float(found["mean"]) == pytest.approx(0.33)
        assert float(found["deviation"]) == pytest.approx(0.0424264069)
        line = next(line for line in text(f"{name}.md").split("\n") if re.match(rf"\| {row}\W* \|", line))
        assert "2 seeds: 0.3300 ± 0.0424" in line
        assert "2 seeds: 0.450 ± 0.071" in line
        assert r"2 seeds: 0.3300 $\pm$ 0.0424" in text(f"{name}.tex")
        assert "spig: trained from 2 seeds (0, 3); each run's checkpoint was chosen for itself" in text(f"{name}.md")
    assert {row["variant"] for row in read("leaderboard_synthetic.csv")} == {"spig"}
    every = {(r["variant"], r["split"]): r for r in read("all_scores.csv") if r["metric"] == "ssim"}
    assert [float(every[name, "test"]["value"]) for name in ("spig", "spig-seed3")] == pytest.approx([0.4, 0.5])
    first, other = every["spig", "test"], every["spig-seed3", "test"]
    assert (first["seeds"], other["seeds"], other["mean"], other["deviation"]) == ("2", "", "", "")
    assert (float(first["mean"]), float(first["deviation"])) == pytest.approx((0.45, 0.0707106781))
    assert "| 0.4500 | 0.0707 |" in text("all_scores.md")


def test_each_seeds_checkpoint_is_chosen_for_itself(scored):
    set_variants(spig="spig, spig-seed3")
    for name, best, test in (("spig", 60, 0.30), ("spig-seed3", 90, 0.34)):
        rows = []
        for step in (30, 60, 90):
            rows.append(score("synthetic", name, step, "val", "lpips-alex-v0.1", 0.1 if step == best else 0.2))
            value = test if step == best else 0.9
            rows.append(score("synthetic", name, step, "test", "lpips-alex-v0.1", value))
        write_scores("synthetic", name, rows)
    tables.run()
    found = cell("leaderboard_synthetic.csv", row="spig", column="LPIPS")
    assert float(found["mean"]) == pytest.approx(0.32)
    assert "(steps 60, 90)" in text("leaderboard_synthetic.md")


def test_a_score_that_a_seed_lacks_or_has_by_another_network_has_no_mean(scored):
    two_seeds(scored, {"lpips-alex-v0.1": 0.30, "ssim": 0.40}, {"lpips-alex-v0.1": 0.36})
    rows = scores_of(layout.scores("synthetic", "spig-seed3"))
    write_scores("synthetic", "spig-seed3", [row | {"marks": ["metric-weights"]} for row in rows])
    tables.run()
    for column in ("LPIPS", "SSIM"):
        found = cell("spig_table1.csv", dataset="synthetic", row="SPIG, this run", column=column)
        assert found.get("seeds", "") == ""
    assert "seeds:" not in text("spig_table1.md")


def test_one_seed_leaves_no_trace_of_seeds(scored):
    write_method("spig", {"lpips-alex-v0.1": np.full(96, 0.3)}, {})
    write_method("copy_source", {"lpips-alex-v0.1": np.full(96, 0.4)}, {})
    tables.run()
    for path in layout.TABLES.iterdir():
        assert "seed" not in path.read_text().replace("from a fixed seed", "").replace("(another net, or seeded)", "")


def test_methods_rank_by_their_mean_over_seeds(scored):
    two_seeds(scored, {"lpips-alex-v0.1": 0.30}, {"lpips-alex-v0.1": 0.60}, patn="patn")
    write_method("patn", {"lpips-alex-v0.1": np.full(96, 0.35)}, {})
    tables.run()
    rows = read("leaderboard_synthetic.csv")
    assert [row["row"] for row in rows] == ["patn", "spig"]  # 0.35 before a mean of 0.45, though 0.30 is less
    assert [row["place"] for row in rows] == ["best tied", "tied"]


def seeded(name: str, values: list[float], kind: str = "trained", higher: bool = True) -> Run:
    """A run with one metric and its further seeds."""
    runs = []
    for value in values:
        row = score("d", name, 0, "test", "ssim", value, higher_is_better=higher) | {"marks": ""}
        runs.append(Run("d", name, kind, pd.DataFrame([row]), pd.Series(row), Path("none")))
    return replace(runs[0], others=tuple(runs[1:]))


def verdict(one: list[float], other: list[float], pairs: str, kind: str = "trained", **more) -> Difference:
    found = Difference("d", "ssim", "p", "one", "other", one[0] - other[0], 0.0, 0.0, 96, pairs)
    runs = {("d", "one"): seeded("one", one, **more), ("d", "other"): seeded("other", other, kind, **more)}
    return over_seeds(found, runs)


def test_a_difference_inside_the_spread_over_seeds_is_a_tie():
    near, far = [0.50, 0.52, 0.54], [0.47, 0.49, 0.51]
    # Welch: both deviate by 0.02, so t = 0.03 / sqrt(2 * 0.02^2 / 3) = 1.837 on 4 degrees; 2.776 is asked
    inside = verdict(near, far, "one")
    assert (inside.verdict, inside.seeds) == ("tie", "3 3")
    half = 2.7764451 * (2 * 0.02**2 / 3) ** 0.5
    assert [inside.seeds_difference, inside.seeds_low, inside.seeds_high] == pytest.approx(
        [0.03, 0.03 - half, 0.03 + half]
    )
    assert verdict(near, [value - 0.1 for value in far], "one").verdict == "one"
    assert verdict(near, [value - 0.1 for value in far], "other", higher=False).verdict == "other"
    assert verdict(near, [value - 0.1 for value in far], "tie").verdict == "tie"  # the pairs do not tell
    assert verdict(near, [value - 0.1 for value in far], "other").verdict == "tie"  # the two contradict each other


def test_a_single_run_is_taken_to_vary_as_the_other_does_and_a_floor_not_at_all():
    several = [0.50, 0.52, 0.54]  # deviation 0.02, two degrees: t = 4.3026527
    trained = verdict(several, [0.45], "one")
    half = 4.3026527 * (0.02**2 * (1 + 1 / 3)) ** 0.5
    assert (trained.verdict, trained.seeds) == ("tie", "3 1")
    assert [trained.seeds_low, trained.seeds_high] == pytest.approx([0.07 - half, 0.07 + half])
    floor = verdict(several, [0.45], "one", kind="floor")
    half = 4.3026527 * 0.02 / 3**0.5
    assert floor.verdict == "one"
    assert [floor.seeds_low, floor.seeds_high] == pytest.approx([0.07 - half, 0.07 + half])
    assert verdict([0.5], [0.4], "one") == Difference("d", "ssim", "p", "one", "other", 0.5 - 0.4, 0.0, 0.0, 96, "one")
    assert verdict([0.5, 0.5], [0.4], "one").verdict == "one"  # no spread at all


def test_differences_say_what_the_pairs_and_what_the_seeds_tell(scored):
    two_seeds(scored, {"lpips-alex-v0.1": 0.30}, {"lpips-alex-v0.1": 0.60}, patn="patn")
    write_method("patn", {"lpips-alex-v0.1": np.full(96, 0.35)}, {})
    tables.run()
    (found,) = read("differences.csv")  # seeds of one variant are no methods to compare
    assert (found["one"], found["other"], found["verdict"], found["seeds"]) == ("spig", "patn", "tie", "2 1")
    assert float(found["difference"]) == pytest.approx(-0.05)
    assert float(found["seeds_difference"]) == pytest.approx(0.10)
    assert "Welch" in text("differences.md")


# ---- what DVC shows


def test_dvc_has_the_chosen_checkpoints_scores_with_their_marks(scored):
    tables.run()
    found = json.loads((layout.METRICS / "synthetic/spig.json").read_text())
    rows = {r["metric"]: r for r in read("all_scores.csv") if (r["variant"], r["chosen"]) == ("spig", "yes")}
    test = {
        r["metric"]: r
        for r in read("all_scores.csv")
        if (r["variant"], r["step"], r["split"]) == ("spig", "90", "test")
    }
    assert rows.keys() == test.keys() == set(RANGE)
    assert found.pop("step") == 90
    assert found.pop("marks").split() == ["metric-weights", "steps", "weights", "width", "data"]
    assert found == {metric: float(row["value"]) for metric, row in test.items()}
    assert {path.stem for path in (layout.METRICS / "synthetic").iterdir()} == {"copy_source", "mean_image", "spig"}


def test_dvc_has_a_curve_of_every_metric_and_split(scored):
    tables.run()
    for split in ("val", "test"):
        folder = layout.CURVES / "synthetic" / split
        assert {path.name for path in folder.iterdir()} == {f"{metric}.csv" for metric in RANGE}
        with (folder / "ssim.csv").open(newline="") as file:
            found = [(row["name"], int(row["step"]), float(row["value"])) for row in csv.DictReader(file)]
        every = [r for r in read("all_scores.csv") if (r["split"], r["metric"]) == (split, "ssim")]
        assert found == sorted((r["variant"], int(r["step"]), float(r["value"])) for r in every)
        assert [step for name, step, _ in found if name == "spig"] == [30, 60, 90]


def test_an_outside_methods_name_is_no_path(scored):
    folder = layout.outside("synthetic", "my-method")
    folder.mkdir(parents=True)
    columns = {"ssim": np.full(8, 0.4)}
    write_method("../My method", columns, {"lpips-alex-v0.1": 0.3}, folder)
    tables.run()
    found = json.loads((layout.METRICS / "synthetic/synthetic--my-method.json").read_text())
    assert found["ssim"] == pytest.approx(0.4)


# ---- the rest


def test_all_scores_holds_every_row_exactly(scored):
    tables.run()
    written = {(r["variant"], r["step"], r["split"], r["metric"]): r for r in read("all_scores.csv")}
    expected = [
        row for v, s in (("copy_source", [0]), ("spig", [30, 60, 90])) for row in training_run("synthetic", v, s)
    ]
    assert len(written) == len(expected) + len(training_run("synthetic", "mean_image", [0]))
    for row in expected:
        found = written[row["variant"], str(row["step"]), row["split"], row["metric"]]
        assert float(found["value"]) == row["value"]
        assert found["marks"].split() == [mark for mark in MARKS if mark in row["marks"]]
        assert (found["low"] == "") == (row["low"] is None)
        assert found["protocol"] == row["protocol"]


def test_excluded_pairs_show_in_the_number_of_pairs(scored):
    rows = training_run("synthetic", "spig", [30])
    for row in rows:
        if row["metric"] == "mask-ssim":
            row |= {"n": row["n"] - 6, "excluded": 6}
    write_scores("synthetic", "spig", rows)
    tables.run()
    assert any(
        line.startswith("| SPIG, this run") and "| 90–96 |" in line for line in text("spig_table1.md").split("\n")
    )


def test_tex_is_escaped():
    hostile = r"50% of a_b & {c} #1 $x$ ~^ \input{x} <b> | [y]"
    escaped = tex_escape(hostile)
    assert escaped == (
        r"50\% of a\_b \& \{c\} \#1 \$x\$ \textasciitilde{}\textasciicircum{} "
        r"\textbackslash{}input\{x\} \textless{}b\textgreater{} \textbar{} {[}y{]}"
    )
    assert tex_escape("人") == "U+4EBA"


def test_tex_and_md_keep_their_grid_with_hostile_names(scored):
    hostile = 'P|A&T_N% <i>"x"'
    source = layout.PUBLISHED.read_text()
    doubled = hostile.replace('"', '""')
    layout.PUBLISHED.write_text(
        source.replace("SPIG,Table 1,Market-1501,PATN,", f'SPIG,Table 1,Market-1501,"{doubled}",')
    )
    tables.run()
    line = next(line for line in text("spig_table1.md").split("\n") if "A&T_N" in line)
    assert line.replace(r"\|", "").count("|") == len(SPIG_COLUMNS) + 3
    assert "<i>" not in line
    line = next(line for line in text("spig_table1.tex").split("\n") if r"A\&T\_N\%" in line)
    assert line.replace(r"\&", "").count("&") == len(SPIG_COLUMNS) + 1


def test_tex_is_plain_and_balanced(scored):
    tables.run()
    for name in papers.titles(["synthetic"]):
        body = text(f"{name}.tex")
        assert body.isascii()
        assert body.count("{") - body.count(r"\{") == body.count("}") - body.count(r"\}")
        assert body.count(r"\begin{table}") == body.count(r"\end{tabular}") == body.count(r"\end{table}") > 0


def test_tables_are_reproducible_and_replaced_as_one(scored):
    tables.run()
    first = {path.name: path.read_bytes() for path in layout.TABLES.iterdir()}
    assert set(first) == {
        *(
            f"{name}.{kind}"
            for name in (*papers.titles(["synthetic"]), "published_synthetic", "controls", "all_scores", "differences")
            for kind in ("csv", "md", "tex")
            if kind != "tex" or name not in ("all_scores", "differences")
        ),
        "notes.csv",
        "verdicts.csv",
        "legend.csv",
        "outside_controls.csv",
        "agreement.csv",
        "missing.csv",
        "_SHA256SUMS",
    }
    (layout.TABLES / "stale.md").write_text("left over")
    tables.run()
    assert {path.name: path.read_bytes() for path in layout.TABLES.iterdir()} == first


@pytest.mark.parametrize("missing", ["copy_source", "spig"])
def test_what_is_not_scored_is_left_out_and_said(scored, missing, capsys):
    shutil.rmtree(layout.scores("synthetic", missing).parent)
    tables.run()
    kept = {"copy_source", "mean_image", "spig"} - {missing}
    assert {row["variant"] for row in read("leaderboard_synthetic.csv")} == kept
    assert f"synthetic/{missing}: not scored yet" in capsys.readouterr().err
    assert f"Not scored yet, and so not here: {missing}." in text("leaderboard_synthetic.md")


def test_without_any_score_the_published_numbers_stand(scored):
    set_datasets("[market1501]")
    set_variants()
    tables.run()
    assert read("leaderboard_market1501.csv") == read("all_scores.csv") == read("differences.csv") == []
    assert "Nothing is scored on this data set yet." in text("leaderboard_market1501.md")
    assert cell("spig_table1.csv", dataset="market1501", row="PATN", column="FID")["kind"] == "published"


@pytest.mark.parametrize("damage", ["empty", "columns"])
def test_empty_or_damaged_scores_are_the_users_error(scored, damage):
    path = layout.scores("synthetic", "spig")
    if damage == "empty":
        write_scores("synthetic", "spig", [])
    else:
        store.write_table(path, [], schema.REJECTS)
    with pytest.raises(UserError, match=r"scores\.parquet") as caught:
        tables.run()
    assert "\n" not in str(caught.value)
    assert not layout.TABLES.exists()


# ---- scores of another reference


def outside_method(name: str, **about) -> Path:
    """An outside method that leads by far, scored by the present reference; `about`: more of its method.json."""
    folder = layout.outside("synthetic", name.lower())
    folder.mkdir(parents=True, exist_ok=True)
    write_method(name, {"ssim": np.ones(9)}, {"fid": 0.0}, folder)
    known = json.loads((folder / "method.json").read_text())
    (folder / "method.json").write_text(json.dumps(known | about))
    return folder


def test_an_outside_row_of_another_reference_is_left_out_and_named(scored, capsys):
    """Of the leaderboard, all scores, the papers' tables and DVC's metrics; back when it is of the present one."""
    there = {"sha256": REFERENCE, "pairs": {"test": {"limit": None}}, "networks": {"lpips-alex": {"seed": 1}}}
    folder = outside_method("Mine", reference=there)
    tables.run()
    assert "Mine" in {row["variant"] for row in read("leaderboard_synthetic.csv")}
    now = there | {"sha256": "1" * 64, "pairs": {"test": {"limit": 4}}}
    for variant in ("copy_source", "mean_image", "spig"):
        rows = [row | {"reference": "1" * 64} for row in scores_of(layout.scores("synthetic", variant))]
        write_scores("synthetic", variant, rows)
    write_reference("synthetic", **now)
    tables.run()
    for name in ("leaderboard_synthetic.csv", "all_scores.csv", "spig_table1.csv", "differences.csv"):
        assert "Mine" not in (layout.TABLES / name).read_text(), name
    assert not (layout.METRICS / f"synthetic/{folder.name}.json").exists()
    said = "(other pairs or their limit); run: repose score --dataset synthetic --images FOLDER --name Mine"
    assert f"synthetic/Mine: scored by another reference than data/synthetic/reference, left out; {said}" in (
        capsys.readouterr().err
    )
    assert said in text("leaderboard_synthetic.md")
    write_reference("synthetic", **there)
    tables.run()
    assert {row["variant"] for row in read("all_scores.csv")} == {"Mine"}  # now it is ours that are of another


@pytest.mark.parametrize("name", ["spig", "spatn"])
def test_our_own_rows_of_another_reference_are_left_out(scored, capsys, name):
    replace_in_params("spatn: auto", "spatn: true")
    write_component("spatn", 0.5391, np.arange(40.0))
    rows = [row | {"reference": "2" * 64} for row in scores_of(layout.scores("synthetic", name))]
    store.write_table(layout.scores("synthetic", name), rows, schema.SCORES)
    tables.run()
    assert name not in {row["variant"] for row in read("all_scores.csv")}
    command = "score --dataset synthetic --variant spig" if name == "spig" else "score_components --dataset synthetic"
    assert f"run: repose {command}" in capsys.readouterr().err
    kept = {"copy_source", "mean_image", "spig", "spatn"} - {name}
    assert {row["variant"] for row in read("all_scores.csv")} == kept


@pytest.mark.parametrize("lacking", [["reference", "resamples", "version"], ["version"]])
def test_scores_from_before_rows_named_their_reference_are_left_out(scored, capsys, lacking):
    folder = outside_method("Mine", reference_sha256=REFERENCE)
    older = store.read_table(folder / "scores.parquet").drop_columns(lacking)
    store.write_table(folder / "scores.parquet", older, older.schema)
    tables.run()
    assert "Mine" not in (layout.TABLES / "all_scores.csv").read_text()
    assert "synthetic/Mine: scored by another reference" in capsys.readouterr().err


def test_without_its_reference_no_row_is_believed(scored):
    layout.scored_by("synthetic").unlink()
    with pytest.raises(UserError, match="run: repose reference --dataset synthetic"):
        tables.run()


def test_intervals_of_other_resamples_are_told(scored):
    tables.run()
    assert "numbers of resamples" not in text("leaderboard_synthetic.md")
    folder = outside_method("Mine")
    rows = [row | {"resamples": 100} for row in scores_of(folder / "scores.parquet")]
    store.write_table(folder / "scores.parquet", rows, schema.SCORES)
    tables.run()
    assert "resamples: 100 of Mine; 2000 of " in text("leaderboard_synthetic.md")


# ---- beside published numbers


def outside_on_market(*metrics: str, marks=()) -> None:
    set_datasets("[market1501]")
    set_variants()
    folder = layout.outside("market1501", "mine")
    rows = [score("market1501", "Mine", 0, "test", "ssim", 0.3, marks) | {"metric": metric} for metric in metrics]
    store.write_table(folder / "scores.parquet", rows, schema.SCORES)
    (folder / "method.json").write_text(json.dumps({"kind": "outside", "name": "Mine", "dataset": "market1501"}))
    write_reference("market1501")
    tables.run()


def test_a_number_by_another_protocol_is_marked_beside_published_ones(scored, monkeypatch):
    monkeypatch.setattr(papers, "EQUAL_PROTOCOLS", {"ssim": {("SPIG", "SSIM")}})
    monkeypatch.setattr("pipeline.tables.cells.EQUAL_PROTOCOLS", papers.EQUAL_PROTOCOLS)
    outside_on_market("ssim", "psnr")
    own = {column: cell("spig_table1.csv", row="Mine (outside)", column=column)["marks"] for column in ("SSIM", "PSNR")}
    assert own == {"SSIM": "", "PSNR": "protocol"}
    assert MARKS["protocol"].text in text("spig_table1.md")
    assert cell("leaderboard_market1501.csv", column="PSNR")["marks"] == ""  # no published number stands there


@pytest.mark.parametrize("limited", [True, False])
def test_an_outside_method_on_a_part_of_the_list_is_marked_in_the_papers_tables(scored, limited):
    """By its reference's limit or of its own; the note that no other row is of so few is for the latter alone."""
    outside_on_market("ssim", marks=["pairs"])
    assert cell("spig_table1.csv", row="Mine (outside)", column="SSIM")["marks"] == "pairs protocol"
    assert f"Mine (outside){papers.symbols('pairs protocol')}" in text("spig_table1.md")
    if limited:
        set_variants(floors="copy_source")
        rows = [score("market1501", "copy_source", 0, split, "ssim", 0.2, ["pairs"]) for split in ("val", "test")]
        write_scores("market1501", "copy_source", rows)
        tables.run()
        assert "images for only" not in text("leaderboard_market1501.md")
    else:
        assert "images for only 96 test pairs" in text("leaderboard_market1501.md")


def test_another_networks_lpips_leads_no_column(scored):
    """It is marked, in no rank, and below the rows of the column's own network, however small it is."""
    write_method("copy_source", {"lpips-alex-v0.1": np.full(9, 0.4)}, {})
    write_method("mean_image", {"lpips-alex-v0.1": np.full(9, 0.5)}, {})
    set_variants(floors="copy_source, mean_image")
    folder = layout.outside("synthetic", "mine")
    rows = [score("synthetic", "Mine", 0, "test", "ssim", 0.01, ["lpips"], n=9) | {"metric": "lpips-squeeze-v0.1"}]
    store.write_table(folder / "scores.parquet", [row | {"higher_is_better": False} for row in rows], schema.SCORES)
    (folder / "method.json").write_text(json.dumps({"kind": "outside", "name": "Mine", "dataset": "synthetic"}))
    tables.run()
    column = [row for row in read("leaderboard_synthetic.csv") if row["column"] == "LPIPS"]
    assert [(row["variant"], row["place"]) for row in column] == [
        ("copy_source", "best"), ("mean_image", ""), ("Mine", ""),
    ]  # fmt: skip
    assert f"Mine (outside){papers.symbols('lpips')}" in text("leaderboard_synthetic.md")
    assert [METRICS[f"lpips-{net}-v0.1"].marks for net in ("alex", "vgg", "squeeze")] == [(), ("lpips",), ("lpips",)]


def test_as_many_pairs_are_not_the_same_pairs(scored):
    """FID of two methods on other pairs is in no order, though both have nine."""
    write_method("copy_source", {"ssim": np.full(9, 0.4)}, {"fid": 9.0})
    for name, first in (("One", 0), ("Two", 9)):
        folder = layout.outside("synthetic", name.lower())
        folder.mkdir(parents=True)
        write_method(name, {"ssim": np.full(9, 0.5)}, {"fid": 5.0 + first}, folder, first=first)
    set_variants(floors="copy_source")
    tables.run()
    places = {row["variant"]: row["place"] for row in read("leaderboard_synthetic.csv") if row["column"] == "FID"}
    assert places == {"One": "best", "copy_source": "", "Two": ""}
