"""The report: one file that asks nothing of the network, escapes what it shows, and renders in a browser."""

import hashlib
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest

from models.variants import VARIANTS
from pipeline.anatomy import pose
from pipeline.commands import figure
from pipeline.core import layout, params, schema, store
from pipeline.core.errors import UserError
from pipeline.figures import for_report
from pipeline.report import album, charts, gallery, provenance
from pipeline.report import page as pages
from pipeline.report import tables as shown_tables
from pipeline.scoring import failures
from pipeline.stages import report, tables
from pipeline.tables import papers
from tests.conftest import working_in
from tests.stages.test_tables import (
    RANGE,
    replace_in_params,
    scores_of,
    set_datasets,
    set_variants,
    write_network,
    write_project,
    write_scores,
)

SHOWN = (gallery.LINED_UP + 6 + 4) * 3  # at the top, in the grid and as failures: source, target, spig
PER_PAIR = [metric for metric in RANGE if metric != "fid"]


def person(seed: int, height: int = 128, width: int = 64) -> tuple[np.ndarray, list]:
    """A drawn figure on a plain ground, (height, width, 3) uint8 BGR, and its 18 joints (two of them missing)."""
    random = np.random.default_rng(seed)
    unit = height / 128
    swing = random.uniform(-10, 10, 4)
    spots = {
        0: (32, 18), 1: (32, 30), 2: (23, 31), 3: (19 + swing[0], 46), 4: (18 + swing[0], 60),
        5: (41, 31), 6: (45 + swing[1], 46), 7: (46 + swing[1], 60), 8: (27, 64), 9: (26 + swing[2], 88),
        10: (26 + swing[2], 114), 11: (37, 64), 12: (38 + swing[3], 88), 13: (38 + swing[3], 114),
        14: (29, 16), 15: (35, 16),
    }  # fmt: skip
    joints = np.zeros((18, 2), np.float32)
    valid = np.zeros(18, bool)
    for joint, spot in spots.items():
        joints[joint], valid[joint] = np.array(spot) * unit, True
    image = np.full((height, width, 3), random.integers(150, 230, 3), np.uint8)
    shirt, trousers = (tuple(int(c) for c in random.integers(20, 220, 3)) for _ in range(2))
    thick = max(2, round(8 * unit))
    for a, b in pose.LIMBS:
        colour = trousers if max(a, b) in (9, 10, 12, 13) else shirt
        cv2.line(image, *(tuple(int(v) for v in joints[j]) for j in (a, b)), colour, thick, cv2.LINE_AA)
    cv2.circle(image, tuple(int(v) for v in joints[0]), round(8 * unit), (150, 180, 220), -1, cv2.LINE_AA)
    return image, pose.from_array(joints, valid)


def png(image: np.ndarray) -> bytes:
    encoded, content = cv2.imencode(".png", image)
    assert encoded
    return content.tobytes()


def write_pictures(dataset: str, variant: str, step: int, count: int = 8, failing: tuple[int, ...] = ()) -> None:
    """samples.parquet: `count` pairs as samples, those of `failing` as the worst by LPIPS and PCKh; network.json."""
    write_network(dataset, variant, [step])
    rows = []
    for index in [*range(count), *(index for index in failing if index >= count)]:
        (source, _), (target, joints) = person(2 * index), person(2 * index + 1)
        rows.append(
            {
                "step": step,
                "pair_index": index,
                "source_id": f"{index:04d}_c1.png",
                "target_id": f"{index:04d}_c2.png",
                "why": [failures.SAMPLE] * (index < count) + ["lpips-alex-v0.1", "pckh@0.5"] * (index in failing),
                "source": {"bytes": png(source), "path": None},
                "target": {"bytes": png(target), "path": None},
                "generated": {"bytes": png(cv2.GaussianBlur(target, (9, 9), 3)), "path": None},
                "target_keypoints": joints,
            }
        )
    store.write_table(layout.samples(dataset, variant), rows, schema.SAMPLES)


def write_figures(dataset: str, variant: str, step: int, kinds: tuple[str, ...] = ("relation-maps", "flow")) -> None:
    content = cv2.imencode(".webp", np.full((90, 60, 3), 40 + len(variant), np.uint8))[1].tobytes()
    rows = [
        {"step": step, "kind": kind, "caption": f"pair {number}", "picture": {"bytes": content, "path": None}}
        for number, kind in enumerate(kinds)
    ]
    store.write_table(layout.figures(dataset, variant), rows, schema.FIGURES)


def write_pairs(dataset: str, variant: str, steps: list[int], count: int = 96, **names: str) -> None:
    random = np.random.default_rng(len(variant))
    keys = [
        {
            "step": step,
            "split": split,
            "pair_index": index,
            "source_id": names.get("source_id", f"{index:04d}_c1.png"),
            "target_id": f"{index:04d}_c2.png",
        }
        for step in steps
        for split, pairs in (("val", 24), ("test", count))
        for index in range(pairs)
    ]
    table = pa.Table.from_pylist(keys, schema=pa.schema(schema.PAIR_SCORE_KEYS))
    for metric in PER_PAIR:
        values = RANGE[metric][1] * random.normal(1, 0.08, len(keys))
        values[3] = math.nan
        table = table.append_column(metric, pa.array(values, pa.float64(), from_pandas=True))
    store.write_table(layout.pair_scores(dataset, variant), table, table.schema)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """The project with pictures, pairs and tables: all inputs of the report. Tests have copies."""
    with working_in(tmp_path_factory.mktemp("original")) as folder:
        write_project()
        for variant, steps in (("copy_source", [0]), ("mean_image", [0]), ("spig", [30, 60, 90])):
            failing = (3, 40) if variant == "spig" else ()
            write_pictures("synthetic", variant, steps[-1], count=8 if variant == "spig" else 1, failing=failing)
            write_pairs("synthetic", variant, steps)
            write_figures("synthetic", variant, steps[-1], ("relation-maps", "flow") if variant == "spig" else ())
        tables.run()
    return folder


@pytest.fixture
def made(original, tmp_path) -> Path:
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    with working_in(tmp_path):
        yield tmp_path


class Page(HTMLParser):
    """What a page holds: every tag with its attributes, and the ids it links to. Void tags need no end."""

    VOID = frozenset({"meta", "link", "img", "br", "wbr", "input"})

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another tag, line {self.getpos()[0]}"

    def handle_data(self, data):
        self.text.append(data)

    def all(self, name: str) -> list[dict]:
        return [attrs for tag, attrs in self.tags if tag == name]


def shown_pictures(page: Page) -> dict[str, int]:
    """How many pictures of each kind the page draws, whether from their own bytes or from a copy it holds once."""
    once = {f"#{attrs['id']}": attrs["href"] for attrs in page.all("image")}
    sources = [attrs["src"] for attrs in page.all("img")] + [
        once[attrs["href"]] for attrs in page.all("use") if attrs["href"] in once
    ]
    kinds = [re.match(r"data:image/(\w+);base64,", source)[1] for source in sources]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def written() -> str:
    report.run()
    return layout.REPORT.read_text()


# ---- the page as a file


def test_page_is_well_formed_and_accessible(made):
    text = written()
    page = Page(text)
    assert page.all("html") == [{"lang": "en"}]
    assert text.partition("<body>")[0].count("<title>Repose") == 1
    assert all(len(page.all(tag)) == 1 for tag in ("h1", "main", "header", "footer", "nav"))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(set(ids)) == len(ids)
    named = [attrs[key] for _, attrs in page.tags for key in ("aria-labelledby",) if key in attrs]
    named += [attrs["href"][1:] for attrs in page.all("a") if attrs["href"].startswith("#")]
    assert named
    named += [one for _, attrs in page.tags for one in attrs.get("aria-describedby", "").split()]
    assert set(named) <= set(ids)
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(attrs.get("scope") in ("row", "col") for attrs in page.all("th"))
    assert all(attrs["alt"].strip() for attrs in page.all("img"))
    pictures = [attrs for attrs in page.all("svg") if attrs.get("aria-hidden") != "true"]
    assert pictures
    assert all(attrs["role"] == "img" and attrs["aria-label"].strip() for attrs in pictures)
    sortable = [attrs for attrs in page.all("th") if "aria-sort" in attrs]
    assert len(sortable) == len([one for one in page.all("button") if "data-methods" not in one]) > 10
    for attrs in [*page.all("img"), *pictures]:
        assert int(attrs["width"]) > 0, attrs
        assert int(attrs["height"]) > 0, attrs


def test_page_asks_nothing_of_the_network(made):
    text = written()
    page = Page(text)
    for tag, attrs in page.tags:
        for key in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            if key in attrs and (tag, attrs[key]) != ("a", "times.html"):
                assert attrs[key].startswith(("data:", "#")), (tag, key, attrs[key][:60])
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", text.split("params.yaml</summary>")[0])
    assert shown_pictures(page) == {"png": SHOWN, "webp": 2}
    assert list(layout.REPORT_PICTURES.iterdir()) == []
    assert {attrs["download"] for attrs in page.all("a") if "download" in attrs} == {
        "agreement.csv",
        "all_scores.csv",
        "controls.csv",
        "differences.csv",
        "legend.csv",
        "missing.csv",
        "notes.csv",
        "outside_controls.csv",
        "published.csv",
        "published_synthetic.csv",
        "verdicts.csv",
        *(f"{name}.csv" for name in papers.titles(["synthetic"])),
    }


def test_a_name_cannot_become_markup(made):
    hostile = "<script>alert(1)</script>"
    write_pairs("synthetic", "spig", [30, 60, 90], source_id=hostile)
    replace_in_params("title: Repose", f'title: "<b>{hostile}"')
    text = written()
    assert hostile not in text
    assert "&lt;script&gt;alert(1)" in text
    assert len(Page(text).all("script")) == 1


def test_page_is_reproducible(made):
    first = written()
    assert written() == first
    assert str(made) not in first


def test_page_says_what_kind_of_numbers_these_are(made):
    text = written()
    assert "A demonstration, not a result." in text
    for reason in shown_tables.DEMONSTRATION.values():
        assert reason in text
    for variant in ("copy_source", "mean_image", "spig"):
        rows = scores_of(layout.scores("synthetic", variant))
        write_scores("synthetic", variant, [row | {"marks": ["data"]} for row in rows])
    tables.run()
    assert "A demonstration" not in written()


def test_tables_on_the_page_are_those_of_the_files(made):
    text = written()
    cells = [attrs for attrs in Page(text).all("td") if "title" in attrs]
    for name in ("leaderboard_synthetic.csv", "spig_table1.csv", "spig_table3.csv"):
        own = [row for row in shown_tables.read_csv(name) if row["dataset"] == "synthetic" and row["value"]]
        assert own
        for row in own:
            assert any(attrs["data-value"] == row["value"] for attrs in cells), row
    for mark in shown_tables.read_csv("legend.csv"):
        explained = f'<dd id="mark-{mark["mark"]}">{mark["text"].replace(chr(39), "&#39;")}</dd>'
        assert text.count(f"<dt>{mark['symbol']}</dt>{explained}") == 1
        assert text.count(f"<dt>{mark['symbol']}</dt>") == 1  # once a page
    best = re.findall(r'<span class="place best">best</span> ([\d.]+)<', text)
    own = [row for row in shown_tables.read_csv("leaderboard_synthetic.csv") if row["variant"] == "spig"]
    expected = [row["printed"] for row in own if "metric-weights" not in row["marks"]]
    assert (len(own), len(expected)) == (6, 4)
    assert best[: len(expected)] == expected  # in the invented scores, training beats both floors everywhere


def test_tables_on_the_page_are_of_the_data_sets_of_the_run(made):
    text = written()
    ids = [attrs["id"] for tag, attrs in Page(text).tags if tag in ("h3", "h4") and "id" in attrs]
    own = [name for name in ids if name.endswith(("-synthetic", "1501")) and not name.startswith("pictures")]
    assert own[:3] == ["leaderboard_synthetic-synthetic", "spig_table1-synthetic", "spig_table3-synthetic"]
    assert set(own[3:]) == {"all-synthetic", "controls-synthetic", "data-synthetic"}
    for variant in ("copy_source", "mean_image", "spig"):
        rows = [row | {"dataset": "market1501"} for row in scores_of(layout.scores("synthetic", variant))]
        write_scores("market1501", variant, rows)
    set_datasets("[market1501]")
    tables.run()
    legend = {row["mark"]: row for row in shown_tables.read_csv("legend.csv")}
    parts = {
        name: shown_tables.shown(name, about, legend, ["market1501"])
        for name, about in papers.titles(["market1501"]).items()
    }
    assert all(shown[0]["dataset"] == "market1501" for shown in parts.values() if len(shown) > 1)
    ours, deepfashion = parts["spig_table1"]
    assert [row["name"] for row in ours["ours"]["rows"]][-2:] == ["SPIG (the paper's)", "SPIG, this run"]
    assert ours["published"]["rows"] == deepfashion["ours"]["rows"] == []  # those are among ours; these, folded
    assert [row["name"] for row in deepfashion["published"]["rows"]][-1] == "SPIG (the paper's)"
    study = parts["spig_table2"][0]
    assert (study["paper"], study["title"]) == ("SPIG", "SPIG, Table 2: user study, Market-1501")
    assert [row["name"] for row in study["published"]["rows"]][::4] == ["VU-Net", "SPIG (the paper's)"]
    pg2 = parts["spt_table1"][0]["published"]["rows"][0]
    assert (pg2["cells"]["IS"]["printed"], [mark["symbol"] for mark in pg2["marks"]]) == ("3.460", ["?"])


def test_published_rows_of_other_data_sets_are_folded(made):
    """Every number that the tables have of a data set not in this run is there, and rows say whether it was checked."""
    text, count = written(), 0
    fold = r'<details class="published-rows"><summary id="([^"]*)-published">(.*?)</details>'
    parts = re.findall(fold, text, re.DOTALL)
    for paper in papers.TABLES:
        for dataset in paper.columns:
            own = [row for row in shown_tables.read_csv(f"{paper.name}.csv") if row["dataset"] == dataset]
            expected = sorted(row["value"] for row in own if row["value"])
            found = [part for name, part in parts if name == f"{paper.name}-{dataset}"]
            assert len(found) == (1 if expected else 0)
            for part in found:
                cells = Page(part.partition("</summary>")[2]).all("td")
                assert sorted(one["data-value"] for one in cells if one.get("data-value")) == expected
                count += len(expected)
    assert count > 200
    tags = re.findall(r'<span class="tag">published, ([\w -]+)</span>', text)
    assert {"verified", "second-hand", "unverified", "in part verified", "in part second-hand"} >= set(tags)
    assert {"verified", "second-hand", "unverified"} <= set(tags)
    later = next(part for name, part in parts if name == "later_256x176-deepfashion-resize176")
    assert re.search(r">Protocol</button>.*<td>CFLD&#39;s</td>", later, re.DOTALL)  # what the rows differ in
    assert re.search(r">0\.114<a class=\"marks\"[^>]*aria-describedby=\"mark-lpips-unknown\"", later)
    assert re.search(r">20\.739<a.*?</a><small title=\"IMAGPose [^>]*>elsewhere 20\.751</small>", text)


def test_a_published_row_says_whether_it_was_checked():
    cell = {
        "row": "a",
        "kind": "published",
        "value": "1",
        "printed": "1.0",
        "n": "",
        "place": "",
        "low": "",
        "high": "",
    }
    no, quoted = "unverified", "second-hand"
    for marks, tag in (
        (["", "squashed"], "verified"), ([no, no], "unverified"), (["", no], "in part verified"),
        ([f"{quoted} summary", quoted], "second-hand"), ([quoted, no], "in part second-hand"),
        ([quoted, ""], "in part verified"),
    ):  # fmt: skip
        cells = [cell | {"column": str(number), "marks": one} for number, one in enumerate(marks)]
        assert [row["tag"] for row in shown_tables._rows(cells)] == [f"published, {tag}"]


def test_published_numbers_are_folded_below_the_leaderboard(made):
    with layout.PUBLISHED.open("a") as file:
        file.write('Ours,Table 9,Synthetic,Elsewhere,,SSIM,0.512,yes,"Ours, Table 9",no\n')
    tables.run()
    board, _, rest = written().partition('<summary id="published_synthetic-synthetic-published">')
    assert "Elsewhere" not in board
    assert rest.startswith("Leaderboard, Synthetic: 1 published row<")
    row = rest.partition("</details>")[0]
    assert "Elsewhere (Ours, Table 9)" in row
    assert 'data-value="0.512" title="Ours, Table 9"' in row
    assert "published, unverified" in row
    assert "leaderboard_synthetic-synthetic" in board
    assert 'class="answers"' in rest


def test_the_page_shows_what_is_scored_and_names_what_is_not(made):
    set_variants(floors="copy_source, mean_image", spig="spig", patn="patn")
    tables.run()
    text = written()
    assert "Not scored yet, and so not on this page: patn." in text
    assert "1 trained method and 2 floors on Synthetic" in text
    shutil.rmtree("reports/scores")
    tables.run()
    text = written()
    assert "Nothing is scored on Synthetic yet." in text
    assert "SPIG (the paper&#39;s)" in text  # what was published is there
    assert Page(text).all("table")


def test_numbers_of_random_weights_take_less_room(made):
    page = Page(written())
    cells = {attrs["data-value"]: attrs for attrs in page.all("td") if "title" in attrs}
    for row in shown_tables.read_csv("leaderboard_synthetic.csv"):
        assert ("thin" in cells[row["value"]]["class"]) == ("metric-weights" in row["marks"]), row
    legend = {row["mark"]: row for row in shown_tables.read_csv("legend.csv")}
    board = shown_tables.shown("leaderboard_synthetic", shown_tables.LEADERBOARD, legend, ["synthetic"])[0]["ours"]
    assert [column["name"] for column in board["columns"] if column["thin"]] == ["LPIPS", "FID"]
    assert [[mark["mark"] for mark in column["marks"]] for column in board["columns"]][-2:] == [["metric-weights"]] * 2
    for row in board["rows"]:
        for name in ("LPIPS", "FID"):
            cell = row["cells"][name]
            assert (cell["place"], cell["interval"], cell["tied"], cell["marks"]) == ("", "", False, [])
    spig1 = shown_tables.shown("spig_table1", "SPIG, Table 1", legend, ["synthetic"])[0]["ours"]
    assert [column["name"] for column in spig1["columns"]][-3:] == ["FID", "LPIPS", "Mask-LPIPS"]


def test_ties_are_on_the_page(made):
    rows = (layout.TABLES / "leaderboard_synthetic.csv").read_text().splitlines(keepends=True)
    tied = [line.replace(",best\n", ",best tied\n").replace(",second\n", ",second tied\n") for line in rows]
    assert tied != rows
    (layout.TABLES / "leaderboard_synthetic.csv").write_text("".join(tied))
    text = written()
    assert '<a class="marks" href="#marks" aria-describedby="mark-tied">≈</a>' in text
    assert f'<dt>≈</dt><dd id="mark-tied">{shown_tables.TIED["text"]}</dd>' in text
    assert '<span class="place second">2nd</span>' in text


def test_params_edited_meanwhile_are_not_the_page_s(made):
    params.load()
    before = layout.PARAMS.read_bytes()
    layout.PARAMS.write_bytes(before + b"# edited\n")
    try:
        (first, *_) = provenance.digests([], [], ())
    finally:
        layout.PARAMS.write_bytes(before)
    assert dict(first["files"])[str(layout.PARAMS)] == hashlib.sha256(before).hexdigest()


def test_provenance_names_digests_and_parameters(made):
    text = written()
    digest = provenance.sha256(layout.samples("synthetic", "spig"))
    assert digest in text
    assert digest == hashlib.sha256(layout.samples("synthetic", "spig").read_bytes()).hexdigest()
    write_pictures("synthetic", "spig", 90, count=5)
    assert digest not in written()
    assert "choose_by: {metric: lpips, split: val}" in text
    assert f"numpy {np.__version__}" in text


# ---- its parts


def test_ticks_are_round_and_cover_the_range():
    assert charts.ticks(0.31, 0.49) == [0.3, 0.35, 0.4, 0.45, 0.5]
    assert charts.ticks(0, 200000) == [0, 50000, 100000, 150000, 200000]
    for low, high in ((1e-7, 3e-7), (-5.0, 123.0), (99.9, 100.0)):
        found = charts.ticks(low, high)
        assert found[0] <= low
        assert found[-1] >= high
        assert 3 <= len(found) <= 9


def _point(variant: str, step: int, value: float, split: str = "test", chosen: str = "no") -> dict:
    row = {"variant": variant, "step": str(step), "split": split, "value": str(value), "low": "", "high": ""}
    return row | {"chosen": chosen, "metric": "ssim", "protocol": "p", "higher_is_better": "True", "marks": ""}


def test_chart_draws_values_to_scale():
    rows = [_point("spig", 0, 0.2), _point("spig", 50, 0.3), _point("spig", 100, 0.4, chosen="yes")]
    rows.append(_point("copy_source", 0, 0.3, chosen="yes"))
    drawn = charts.chart(rows, ["spig"], ["copy_source"])
    a, b, c = drawn["series"][0]["points"]
    assert b["x"] - a["x"] == pytest.approx(c["x"] - b["x"])
    assert a["y"] - b["y"] == pytest.approx(b["y"] - c["y"])
    assert a["y"] > c["y"]  # up is more
    assert drawn["floors"][0]["y"] == pytest.approx(b["y"])
    at = {tick["label"]: tick["y"] for tick in drawn["y_ticks"]}
    assert (at["0.2"], at["0.4"]) == (a["y"], c["y"])
    assert (a["chosen"], c["chosen"]) == (False, True)
    assert charts.chart([_point("copy_source", 0, 0.3)], ["spig"], ["copy_source"]) is None
    assert len(charts.chart([_point("spig", 7, 0.3)], ["spig"], [])["series"][0]["points"]) == 1


def test_every_method_has_a_look_of_its_own():
    trained = [name for name, variant in VARIANTS.items() if variant.phase]
    assert len({tuple(charts.look(number).values()) for number in range(len(trained))}) == len(trained)
    template = pages.environment().from_string(
        "{% import 'template/macros.html.j2' as draw with context %}{{ draw.marker(20, 7, shape, 3.5, '') }}"
    )
    drawn = {template.render(shape=shape) for shape in range(charts.SHAPES)}
    assert len(drawn) == charts.SHAPES


def test_published_numbers_are_lines_of_a_chart():
    rows = [_point("spig", 0, 0.2), _point("spig", 100, 0.4, chosen="yes"), _point("patn", 100, 0.3)]
    said = {"table": "SPIG, Table 1", "metric": "ssim"}
    published = [said | {"variant": name, "published": value} for name, value in (("spig", "0.30"), ("patn", "0.31"))]
    published.append(said | {"variant": "spig", "published": "9", "metric": "psnr"})
    drawn = charts.chart(rows, ["spig", "patn"], [], published)
    patn, spig = drawn["published"]  # from the top
    assert (patn["name"], spig["name"]) == ("patn", "spig")
    assert spig["y"] == drawn["series"][1]["points"][0]["y"]  # where 0.3 is
    assert spig["text_y"] - patn["text_y"] >= charts.LINE  # their names do not overlap
    assert "0.30, by the paper's own protocol" in spig["label"]
    higher = charts.chart(rows, ["spig", "patn"], [], [said | {"variant": "spig", "published": "0.9"}])
    assert max(float(tick["label"]) for tick in higher["y_ticks"]) >= 0.9


def test_skeleton_skips_missing_joints():
    joints, valid = np.full((18, 2), 5.0, np.float32), np.ones(18, bool)
    full = album.skeleton(pose.from_array(joints, valid), 128, 64)
    valid[4] = False  # the right wrist ends one limb
    missing = album.skeleton(pose.from_array(joints, valid), 128, 64)
    assert (len(full["limbs"]), len(missing["limbs"])) == (len(pose.SKELETON), len(pose.SKELETON) - 1)
    assert (full["seen"], missing["seen"]) == (18, 17)


def test_worst_pairs_are_the_largest_of_the_chosen_checkpoint(made):
    table = store.read_table(layout.pair_scores("synthetic", "spig")).to_pylist()
    mine = [row for row in table if (row["step"], row["split"]) == (90, "test") and row["lpips-alex-v0.1"] is not None]
    worst = gallery.failing("synthetic", "spig", 90, None, False)
    expected = sorted(mine, key=lambda row: -row["lpips-alex-v0.1"])[: gallery.WORST]
    assert [row["pair_index"] for row in worst["rows"]] == [row["pair_index"] for row in expected]
    assert worst["pairs"] == len(mine)
    assert sum(bar["n"] for bar in worst["histogram"]["bars"]) == len(mine)


# ---- the first screen


def lineups(text: str) -> list[tuple[str, list[str]]]:
    """What each row at the top is called, and the captions of its pictures."""
    rows = re.findall(r'<ul class="lineup"[^>]* aria-label="([^"]*)">(.*?)</ul>', text, re.DOTALL)
    return [(name, re.findall(r"<span[^>]*>([^<]*)</span></li>", row)) for name, row in rows]


def test_the_first_test_pairs_stand_above_the_leaderboard(made):
    set_variants(floors="copy_source, mean_image", spig="spig", patn="patn")
    rows = scores_of(layout.scores("synthetic", "spig"))
    write_scores("synthetic", "patn", [row | {"variant": "patn", "value": 1.1 * row["value"]} for row in rows])
    write_pairs("synthetic", "patn", [30, 60, 90])
    write_pictures("synthetic", "patn", 90)
    write_figures("synthetic", "patn", 90, ())
    tables.run()
    text = written()
    captions = ["source", "target pose", "target", "patn", "spig"]  # patn leads the leaderboard, not params.yaml
    assert lineups(text) == [(f"Pair {index}: {index:04d}_c1.png to {index:04d}_c2.png", captions) for index in (0, 1)]
    places = [
        text.index(part) for part in ('class="lineup"', 'id="leaderboard_synthetic-synthetic"', 'class="answers"')
    ]
    assert places == sorted(places)
    row = re.search(r'<ul class="lineup".*?</ul>', text, re.DOTALL)[0]
    assert row.count("<use") == 5  # each picture is drawn from the copy that the grid uses
    assert "<img" not in row


def test_pictures_of_outside_methods_stand_beside_ours(made):
    folder = layout.outside("synthetic", "theirs")
    folder.mkdir(parents=True)
    (folder / "method.json").write_text('{"kind": "outside", "name": "Theirs", "dataset": "synthetic"}')
    for name in ("pairs", "samples"):
        shutil.copy(layout.scores("synthetic", "spig").with_name(f"{name}.parquet"), folder / f"{name}.parquet")
    rows = [row | {"variant": "Theirs"} for row in scores_of(layout.scores("synthetic", "spig")) if row["step"] == 90]
    store.write_table(folder / "scores.parquet", rows, schema.SCORES)
    assert lineups(written())[0][1][3:] == ["spig"]  # the tables do not have it yet
    tables.run()
    text = written()
    assert lineups(text)[0][1][3:] == ["spig", "Theirs (outside)"]
    assert 'data-name="Theirs"' in text


# ---- inputs that are not there


@pytest.mark.parametrize("path", [layout.samples, layout.pair_scores, layout.scores, layout.figures, layout.network])
def test_a_missing_score_file_is_the_users_error(made, path):
    path("synthetic", "spig").unlink()
    with pytest.raises(UserError, match="not there") as caught:
        report.run()
    assert "\n" not in str(caught.value)
    assert not layout.REPORT.exists()


@pytest.mark.parametrize("name", ["all_scores.csv", "legend.csv", "notes.csv", "spig_table1.csv", "spt_losses.csv"])
@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_a_missing_or_empty_table_is_the_users_error(made, name, damage):
    (layout.TABLES / name).unlink() if damage == "missing" else (layout.TABLES / name).write_text("")
    with pytest.raises(UserError, match=name):
        report.run()


def test_tables_of_another_run_are_the_users_error(made):
    rows = (layout.TABLES / "all_scores.csv").read_text().splitlines(keepends=True)
    (layout.TABLES / "all_scores.csv").write_text("".join(line for line in rows if ",spig," not in line))
    with pytest.raises(UserError, match="nothing on synthetic/spig"):
        report.run()


def test_a_broken_picture_is_the_users_error(made):
    rows = store.read_table(layout.samples("synthetic", "spig")).to_pylist()
    rows[1]["generated"] = {"bytes": b"no picture", "path": None}
    store.write_table(layout.samples("synthetic", "spig"), rows, schema.SAMPLES)
    with pytest.raises(UserError, match="pair 1: does not decode"):
        report.run()


def test_without_samples_the_page_has_no_pictures(made):
    store.write_table(layout.samples("synthetic", "spig"), [], schema.SAMPLES)
    write_figures("synthetic", "spig", 90, ())
    page = Page(written())
    assert page.all("img") == []
    ids = {attrs.get("id") for _, attrs in page.tags}
    assert not ids & {"pictures", *(name for name, *_ in gallery.FIGURES)}


def test_figures_stand_under_their_kind(made):
    write_figures("synthetic", "spig", 90, ("edit", "poses", "texture-transfer", "flow"))
    text = written()
    ids = [attrs["id"] for _, attrs in Page(text).tags if attrs.get("id") in {name for name, *_ in gallery.FIGURES}]
    assert ids == ["poses", "flow", "applications"]
    not_of_one_variant = {"grid", "distance-maps", "stage-one", "end-to-end"}  # of several, of the data, of components
    measured_over_many = {"failures"}  # which the page's own table of failures answers by the scores
    shown = {kind for _, _, kinds, _ in gallery.FIGURES for kind in kinds}
    assert shown == {*for_report.OF_PAIR, "poses", "texture-transfer", "edit"}
    assert shown == set(figure.KINDS) - not_of_one_variant - measured_over_many
    applications = text.partition('<h2 id="applications">')[2].partition("</section>")[0]
    assert re.findall(r"<figcaption><b>spig</b>, step 90: ([^<]*)", applications) == ["pair 0", "pair 2"]


# ---- photographs


@pytest.fixture
def photographs(made, monkeypatch):
    """The same pictures, as if they were photographs; returns a function that writes the page for a setting."""
    monkeypatch.setattr(pages, "DRAWN", set())

    def write(setting: str) -> str:
        replace_in_params("photographs: link}", f"photographs: {setting}}}")
        return written()

    return write


def stored_pictures() -> set[bytes]:
    rows = store.read_table(layout.samples("synthetic", "spig")).to_pylist()
    rows = [row for number, row in enumerate(rows) if number < 6 or len(row["why"]) > 1 or "sample" not in row["why"]]
    contents = {row[key]["bytes"] for row in rows for key in ("source", "target", "generated")}
    return contents | {
        row["picture"]["bytes"] for row in store.read_table(layout.figures("synthetic", "spig")).to_pylist()
    }


def test_linked_photographs_lie_beside_the_page(photographs):
    text = photographs("link")
    found = [attrs["src"] for attrs in Page(text).all("img")]
    assert len(found) == SHOWN + 2
    assert "data:image/" not in text
    assert {(layout.REPORT.parent / src).read_bytes() for src in found} == stored_pictures()
    assert {layout.REPORT.parent / src for src in found} == set(layout.REPORT_PICTURES.iterdir())
    assert "Photographs of Synthetic, and what was generated from them, are for research only. They lie in" in text
    write_pictures("synthetic", "spig", 90, count=1)
    report.run()
    assert len(list(layout.REPORT_PICTURES.iterdir())) == 3 + 1  # nothing is left of the run before


def test_photographs_are_left_out(photographs):
    text = photographs("none")
    page = Page(text)
    assert page.all("img") == []
    assert list(layout.REPORT_PICTURES.iterdir()) == []
    assert "left out (<code>report.photographs</code>" in text
    assert lineups(text) == []
    assert page.all("table")  # the numbers stay


def test_photographs_in_the_page(photographs):
    text = photographs("embed")
    assert shown_pictures(Page(text))["png"] == SHOWN
    assert "for research only" not in text.partition("params.yaml</summary>")[0]
