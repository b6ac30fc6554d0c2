"""The parts of the report: what the summary says, which pictures are kept, cost, times, definitions, the data."""

import csv
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pipeline.core import layout, store
from pipeline.core.errors import UserError
from pipeline.report import costs, definitions, gallery, page, summary, tables, times, words
from pipeline.report.album import Album
from pipeline.stages import report
from pipeline.stages import tables as tables_stage
from tests import tiny_dataset
from tests.conftest import ROOT
from tests.stages.test_report import Page, made, original, written  # noqa: F401  (made and original are fixtures)
from tests.stages.test_tables import replace_in_params, scored  # noqa: F401  (scored is a fixture)
from tests.tables.test_controls import usual, write_controls

# ---- the summary


def answer(text: str, question: str) -> str:
    found = re.search(rf"<dt>{re.escape(question)}</dt><dd>(.*?)</dd>", text, re.DOTALL)
    return re.sub(r"<[^>]+>", "", found[1])


@pytest.mark.usefixtures("made")
def test_the_summary_answers_from_the_tables():
    text = written()
    best = answer(text, "Which method is best, and by how much?")
    first, second = [row for row in tables.read_csv("leaderboard_synthetic.csv") if row["column"] == "SSIM"][:2]
    assert best.startswith(f"spig is best by SSIM (higher is better): {first['printed']}, 95 % interval ")
    ahead = float(first["value"]) - float(second["value"])
    assert f"It is {ahead:.3f} ahead of the next, {second['row']} ({second['printed']})." in best
    assert "1 trained method and 2 floors on Synthetic, scored on 96 pairs of the test split; " in text
    assert "checkpoint was chosen on 24 pairs of the val split." in answer(text, "What ran?")
    assert "no paper printed numbers on Synthetic" in answer(text, "Does it match the papers?")
    different = answer(text, "What was different from the papers?")
    assert "1 trained method: another number of steps (all); another batch (all); another width (all);" in different
    assert "other loss features (all)" in different
    assert "learning rate" not in different
    assert "2.39 M parameters and needs 390 M multiply-accumulates" in answer(text, "What did it cost?")
    assert "snakemake --cores all" in answer(text, "How do I run it again?")


CELL = {"row": "a", "variant": "a", "kind": "trained", "column": "LPIPS", "metric": "lpips-alex-v0.1"}
CELL |= {"higher_is_better": "False", "printed": "0.3000", "value": "0.3", "low": "", "high": ""}
CELL |= {"n": "9", "excluded": "0"}


def difference(one: str, other: str, value: float, half: float) -> dict[str, str]:
    low, high = value - half, value + half
    verdict = "tie" if low <= 0 <= high else one if high < 0 else other
    numbers = {"difference": str(value), "low": str(low), "high": str(high), "n": "96", "verdict": verdict}
    return {"dataset": "synthetic", "metric": "lpips-alex-v0.1", "one": one, "other": other} | numbers


def said(macro: str, cells: list[dict[str, str]], differences=(), unranked=(), **more) -> str:
    """What the page says of a leaderboard's cells, spaces evened out."""
    one = summary.of_dataset(cells, [], list(differences), list(unranked)) | more
    given = {"one": one, "counted": words.counted, "listed": words.listed, "answers": [], "overview": []}
    given |= {"legend": [], "floors": [], "leaderboards": [], "unscored": [], "defined": {}}
    given |= dict.fromkeys(("times_page", "revision"), "")
    template = page.environment().from_string(
        "{% import 'template/macros.html.j2' as draw with context %}"
        "{% import 'template/summary.html.j2' as said with context %}"
        f"{{{{ said.{macro}(one) }}}}"
    )
    return " ".join(template.render(given).split())


@pytest.mark.usefixtures("scored")
def test_the_summary_tells_a_tie_from_a_difference():
    cells = [
        CELL | {"row": name, "variant": name, "value": value, "printed": value, "kind": kind}
        for name, value, kind in (("a", "0.30", "trained"), ("b", "0.31", "trained"), ("floor", "0.40", "floor"))
    ]
    floors = [difference("a", "floor", -0.1, 0.02), difference("b", "floor", -0.09, 0.02)]
    found = said("chance", cells, [difference("b", "a", 0.01, 0.02), *floors])
    assert "a is not told apart from b: a tie (the difference to b is −0.01, its interval −0.03 to +0.01)" in found
    assert "It is told apart from floor." in found
    assert "By LPIPS, a and b beat the floors (floor) by more than chance." in found
    found = said("chance", cells, [difference("b", "a", 0.01, 0.002), floors[0], difference("b", "floor", -0.01, 0.02)])
    assert "yes. a is told apart from every other method; the nearest, b, differs by −0.01 (interval" in found
    assert "By LPIPS, a beats the floors (floor) by more than chance; b does not." in found
    found = said("best", cells, unranked=["a"])  # sees the true target's parsing: shown, not ranked
    assert found.startswith("b is best")
    assert found.endswith("Not ranked, since they are given the target's parsing: a.")
    assert "There is nothing to compare" in said("chance", cells[:1])
    assert "Not known: no other method was scored on the same pairs" in said("chance", cells)


@pytest.mark.usefixtures("scored")
def test_the_summary_says_when_a_floor_is_best():
    cells = [CELL | {"kind": "floor", "row": "Floor", "variant": "floor"}, CELL | {"value": "0.5", "printed": "0.5000"}]
    found = said("best", cells)
    assert "Floor is best by LPIPS" in found
    assert "nothing trained here beats it; the best that was trained is a (0.5000)" in found
    assert "By LPIPS, no trained method beats the floors (floor) by more than chance." in said("chance", cells)


@pytest.mark.usefixtures("scored")
def test_the_summary_ranks_nobody_by_a_part_of_the_pairs():
    """Nor is anything a checkpoint's that was chosen where nothing was trained, with val pairs or without."""
    easy = CELL | {"row": "Easy (outside)", "variant": "Easy", "kind": "outside", "printed": "0.1000", "value": "0.1"}
    cells = [easy | {"n": "4"}, CELL | {"kind": "floor", "n": "8", "excluded": "1"}]
    found = said("best", cells, [difference("Easy", "a", -0.2, 0.02)])
    assert found.startswith("a is best by LPIPS (lower is better): 0.3000.")
    assert found.endswith("Not ranked, since scored on a part of the pairs: Easy (outside).")
    assert "part of the pairs" not in said("best", [easy | {"n": "8", "excluded": "1"}, cells[1]])
    scores = [{"split": split, "variant": "a", "n": "9", "excluded": "0"} for split in ("test", "val")]
    for rows, kinds in ((scores, "floor"), (scores[:1], "outside")):
        assert not summary.of_dataset([CELL | {"kind": kinds}], rows, [], [])["ran"]["pairs"].get("val")
    assert summary.of_dataset([CELL], scores, [], [])["ran"]["pairs"]["val"] == "9 pairs"


@pytest.mark.usefixtures("scored")
def test_published_numbers_stand_beside_ours():
    base = {"dataset": "market1501", "marks": "", "difference": "", "metric": "", "low": "", "high": ""}
    ours = CELL | {"dataset": "market1501", "marks": "", "difference": "", "low": "0.27", "high": "0.33"}
    ours |= {"row": "SPIG, this run", "variant": "spig"}
    theirs = base | {"row": "SPIG (the paper's)", "variant": "", "kind": "published", "column": "LPIPS"}
    found = summary.matches("market1501", {"spig_table1": [ours, theirs | {"value": "0.2796", "printed": "0.2796"}]})
    assert [(one["variant"], one["published"], one["inside"], one["difference"]) for one in found] == [
        ("spig", "0.2796", True, "")
    ]
    text = said("papers", [ours], matches=found)
    assert "1 of 1 published numbers lie inside our 95 % interval. None can be called a match or a miss" in text
    assert "1 were scored by a protocol" in said("papers", [ours], matches=[found[0] | {"difference": "+0.1"}])
    outside = summary.matches("market1501", {"spig_table1": [ours, theirs | {"value": "0.2", "printed": "0.2"}]})
    assert outside[0]["inside"] is False
    assert summary.matches("market1501", {"spig_table1": [ours]}) == []


# ---- tables


@pytest.mark.usefixtures("made")
def test_marks_of_a_whole_row_stand_on_its_name():
    legend = {row["mark"]: row for row in tables.read_csv("legend.csv")}
    board = tables.shown("leaderboard_synthetic", tables.LEADERBOARD, legend, ["synthetic"])[0]["ours"]
    heads, spig = {column["name"]: column for column in board["columns"]}, board["rows"][0]
    cells = [row for row in tables.read_csv("leaderboard_synthetic.csv") if row["variant"] == "spig"]
    assert {mark["mark"] for mark in spig["marks"]} == {"steps", "weights", "width", "data"}
    for cell in cells:  # none is lost, none said twice
        column, thin = cell["column"], "metric-weights" in cell["marks"]
        shown = [mark["mark"] for one in (heads[column], spig, spig["cells"][column]) for mark in one["marks"]]
        assert sorted(shown) == sorted([*cell["marks"].split(), *["tied"] * ("tied" in cell["place"] and not thin)])


@pytest.mark.usefixtures("made")
def test_all_scores_have_a_cell_each():
    text = written()
    section = text.partition('<h2 id="all">')[2].partition("</section>")[0]
    values = re.findall('<td(?: class="thin")? data-value="([^"]+)"', section)
    expected = [f"{float(row['value']):.6g}" for row in tables.read_csv("all_scores.csv") if row["value"]]
    assert sorted(values) == sorted(expected)


@pytest.mark.usefixtures("made")
def test_definitions_are_those_of_the_protocols():
    found = definitions.read(layout.PROTOCOLS)
    assert {"ssim", "mask-psnr", "pckh@0.5", "fid", "lpips-vgg-v0.1", "parsing-miou-fg"} <= set(found)
    assert found["fid"]["better"] == "lower"
    assert "<b>test targets</b>" in found["fid"]["text"]
    assert "|mask|" in found["inside-psnr"]["text"]
    text = written()
    used = {row["metric"] for row in tables.read_csv("all_scores.csv")}
    assert set(re.findall(r'<dt id="metric-([^"]+)">', text)) == used
    assert 'href="#metric-pckh@0.5"' in text
    layout.PROTOCOLS.write_text("# nothing")
    with pytest.raises(UserError, match="no metric is defined"):
        report.run()


def test_inline_markdown_is_escaped_before_it_is_marked_up():
    assert definitions.marked_up(r"**a** <b> `x < y` *em* 2*3*4 \| [text](page.md)") == (
        "<b>a</b> &lt;b&gt; <code>x &lt; y</code> <em>em</em> 2*3*4 | text"
    )


# ---- pictures, once each


@pytest.mark.usefixtures("made")
def test_a_picture_shown_twice_is_kept_once():
    shown = Page(written())
    uses = [attrs["href"] for attrs in shown.all("use") if attrs["href"].startswith("#p")]
    kept = {f"#{attrs['id']}": attrs["href"] for attrs in shown.all("image")}
    assert uses
    assert set(uses) == set(kept)  # each reference has its picture
    assert min(uses.count(name) for name in kept) > 1
    sources = [attrs["src"] for attrs in shown.all("img")] + list(kept.values())
    assert len(set(sources)) == len(sources)


@pytest.mark.usefixtures("made")
def test_a_full_page_leaves_the_rest_beside_it(monkeypatch):
    monkeypatch.setattr(page, "Album", lambda: Album(limit=20_000))
    text = written()
    shown = Page(text)
    beside = list(layout.REPORT_PICTURES.iterdir())
    linked = {attrs["src"] for attrs in shown.all("img") if not attrs["src"].startswith("data:")}
    assert linked == {f"pictures/{path.name}" for path in beside}
    embedded = {attrs["src"] for attrs in shown.all("img")} - linked | {attrs["href"] for attrs in shown.all("image")}
    assert 0 < sum(map(len, embedded)) <= 20_000
    assert f"({len(beside)} of them because a page takes no more than 0.0 MiB)" in text


@pytest.mark.usefixtures("made")
def test_the_page_states_its_size():
    text = written()
    stated = float(re.search(r"This page is ([\d.]+) MB long\.", text)[1])
    assert stated == pytest.approx(len(text.encode()) / 1e6, abs=0.06)  # rounded, and without the line that says so


@pytest.mark.usefixtures("made")
def test_failures_show_the_pairs_that_score_kept():
    section = written().partition('<h2 id="worst">')[2].partition('<h2 id="pose">')[0]
    assert re.findall(r"<h4>([^<]*) <span", section) == ["Highest LPIPS", "Most joints missed"]
    values = gallery.pair_values(layout.pair_scores("synthetic", "spig"), 90)
    ranked = sorted((3, 40), key=lambda pair: -values[pair]["lpips-alex-v0.1"])
    shown = re.findall(r"<b>([\d.]+)</b> pair (\d+):", section)
    assert shown[:2] == [(f"{values[pair]['lpips-alex-v0.1']:.3f}", str(pair)) for pair in ranked]
    assert len(shown) == 4
    rows = store.read_table(layout.samples("synthetic", "spig")).drop_columns(["why"])
    store.write_table(layout.samples("synthetic", "spig"), rows, rows.schema)
    with pytest.raises(UserError, match="lacks the column why; run score again"):
        report.run()


@pytest.mark.usefixtures("made")
def test_failures_are_shown_without_lpips():
    for name in ("pairs", "samples"):
        path = layout.pair_scores("synthetic", "spig").with_name(f"{name}.parquet")
        table = store.read_table(path)
        if name == "pairs":
            table = table.drop_columns([column for column in table.column_names if "lpips" in column])
        else:
            rows = [row | {"why": [why for why in row["why"] if "lpips" not in why]} for row in table.to_pylist()]
            table = type(table).from_pylist(rows, table.schema)
        store.write_table(path, table, table.schema)
    section = written().partition('<h2 id="worst">')[2].partition('<h2 id="pose">')[0]
    assert re.findall(r"<h4>([^<]*) <span", section) == ["Most joints missed"]
    assert "LPIPS" not in section
    assert "<svg" not in section.partition("</ul>")[2]  # no distribution of what was not scored


# ---- cost, times, the revision


@pytest.mark.usefixtures("made")
def test_cost_is_on_the_page():
    section = written().partition('<h2 id="cost">')[2].partition("</section>")[0]
    assert 'data-value="2389021">2.39 M<' in section
    assert 'data-value="390000000">390 M<' in section
    assert ">9.59 MB<" in section
    layout.network("synthetic", "spig").write_text("{}")
    with pytest.raises(UserError, match=r"network.json: damaged; run score again"):
        report.run()


def edit_table(name: str, change) -> None:
    """Write rows of reports/tables/`name` again as `change` returns them."""
    rows = change(tables.read_csv(name))
    with (layout.TABLES / name).open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.usefixtures("made")
def test_nothing_is_known_of_what_a_method_from_outside_cost():
    assert "Not known for" not in written()
    edit_table(
        "all_scores.csv", lambda rows: rows + [row | {"variant": "theirs"} for row in rows if row["variant"] == "spig"]
    )
    text = written()
    assert "Not known for theirs: of these only pictures were scored." in text
    ran = text.partition('<h2 id="glance">')[2].partition("</section>")[0]
    assert re.search(r'theirs</th><td class="number">–</td>', ran)


@pytest.mark.usefixtures("made")
def test_a_page_of_scores_without_a_val_split():
    """As where nothing was trained, and outside methods alone have rows."""
    assert "of the val split" in written()
    edit_table("all_scores.csv", lambda rows: [row for row in rows if row["split"] == "test"])
    assert "of the val split" not in written()


@pytest.mark.usefixtures("made")
def test_seeds_stand_below_their_number():
    assert "seeds:" not in written()
    spread = {"seeds": "2", "mean": "0.330049", "deviation": "0.0424264"}
    edit_table(
        "leaderboard_synthetic.csv",
        lambda rows: [row | (spread if row["variant"] == "spig" else dict.fromkeys(spread, "")) for row in rows],
    )
    cells = re.findall(r"<small>(2 seeds: [^<]*)</small>", written())
    assert "2 seeds: 0.3300 ± 0.0424" in cells  # as many decimals as the number above


def test_training_differs_where_it_does():
    trained = {
        "settings": {"steps": 10, "batch": 8, "learning_rate": 0.1, "width": 1.0},
        "published": {"steps": 10, "batch": 8, "learning_rate": 0.2, "width": 1.0},
        "features": {"net": "vgg19", "provenance": "sha256:0", "published": "vgg19"},
        "components": {},
    }
    found = costs.training({"trained": trained})
    assert {what for what, one in found.items() if one["differs"]} == {"learning rate"}
    for other in ({"provenance": "seeded"}, {"published": "vgg16"}):
        features = costs.training({"trained": trained | {"features": trained["features"] | other}})["loss features"]
        assert features["differs"]
    assert features["paper"] == "vgg16, published weights"


def write_log(name: str, *lines: str) -> None:
    path = Path("logs", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.usefixtures("made")
def test_times_lie_beside_the_page_and_never_in_it():
    before = written()
    write_log(
        "train/synthetic-spig.log", "train: step 50 of 90  8.5 pairs/s  l1 1", "wall 74.4 s, peak memory 1280 MiB"
    )
    write_log("score/synthetic-spig.log", "  val: 32 pairs", "  test: 96 pairs; 1 x", "wall 64.0 s, peak memory 9 MiB")
    write_log("train/market1501-spig.log", "wall 9.0 s, peak memory 1 MiB")
    write_log("weights/reid.log", "still running")
    assert written() == before  # what the engines compare
    found = [(row["stage"], row["axis"], row["text"], row["memory"], row["rate"]) for row in times.rows(["synthetic"])]
    assert found == [("train", "spig", "1 min 14 s", 1280, 8.5), ("score", "spig", "1 min 4 s", 9, 2.0)]
    write_log("train/synthetic-wide-spig.log", "wall 5.0 s, peak memory 2 MiB")  # a form's
    write_log("train/synthetic-wide-cubic-spig.log", "wall 5.0 s, peak memory 2 MiB")
    wider = ["synthetic-wide-cubic", "synthetic-wide"]
    every = [(row["dataset"], row["axis"]) for row in times.rows(["synthetic", *wider]) if row["stage"] == "train"]
    assert every == [("synthetic", "spig"), *((name, "spig") for name in wider)]
    assert "1 min 14 s" in Page(layout.REPORT_TIMES.read_text()).text
    assert times.spoken(3 * 3600 + 125) == "3 h 2 min"


@pytest.mark.usefixtures("made")
def test_the_revision_is_that_of_the_checkout():
    assert "not in a git repository" in written()
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], [*author, "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *command], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert f"<code>{head}</code>" in written()


# ---- the data


@pytest.mark.usefixtures("made")
def test_what_is_prepared_is_on_the_page():
    assert "Not there when this page was written: fetch, index, keypoints" in written()
    tiny_dataset.write(Path(), parsing_source="oracle")
    shutil.rmtree(layout.distance_maps("synthetic"))
    section = written().partition('<h2 id="data">')[2].partition('<h2 id="cost">')[0]
    assert "Not there when this page was written: distance_maps" in section
    assert "<dt>train images</dt><dd>11 of 4 people</dd>" in section
    valid = np.array([tiny_dataset.joints(p, v)[1] for p in range(4) for v in range(3)])
    share = f"{100 * valid[:, 7].mean():.1f} %"
    assert re.search(rf'<th scope="row">left wrist</th>.*?<td class="number">{share}</td>', section)
    for panel in ("image", "joints", "parsing", "its stand-in (equation)", "pseudo label (equation), 1 px apart"):
        assert section.count(f"<figcaption>{panel}</figcaption>") == 2


@pytest.mark.usefixtures("made")
def test_drawings_of_photographs_stay_where_photographs_are_left_out(monkeypatch):
    tiny_dataset.write(Path(), parsing_source="oracle")
    monkeypatch.setattr(page, "DRAWN", set())
    replace_in_params("photographs: link}", "photographs: none}")
    section = written().partition('<h2 id="data">')[2].partition('<h2 id="cost">')[0]
    assert set(re.findall("<figcaption>([^<]*)</figcaption>", section)) == {
        "joints",
        "parsing",
        "pseudo label (equation), 1 px apart",
        "pseudo label (balanced), 1 px apart",
        "distance maps of twelve limbs",
    }


# ---- controls


@pytest.mark.usefixtures("made")
def test_controls_are_shown_in_words_with_what_is_missing():
    columns = usual()
    del columns["shuffled"]
    write_controls("synthetic", columns, why="one person is on 30 of 40 targets", unscored={"kid": "no <network>"})
    tables_stage.run()
    section = written().partition('<h2 id="controls">')[2].partition("</section>")[0]
    table = [re.findall(r"<td.*?</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", section, re.DOTALL)[1:]]
    words = [[re.sub(r"<[^>]+>", " ", cell).split()[0] for cell in row] for row in table]
    assert words[1] == ["0.900", "no", "reversed", "–"]  # LPIPS, then SSIM
    assert section.count("<small>one person is on 30 of 40 targets</small>") == 3
    assert "<small>no pair has a value</small>" in section
    assert "<b>kid</b>: no &lt;network&gt;" in section
    assert "control <b>Shuffled</b>: one person is on 30 of 40 targets" in section
    assert "<li>Faint: what faint is.</li>" in section
    assert "None: by no metric is a method better than the true target" in section


@pytest.mark.usefixtures("made")
def test_a_page_without_controls_says_how_to_make_them():
    section = written().partition('<h2 id="controls">')[2].partition("</section>")[0]
    assert "<table" not in section
    assert "control <b>all</b>: not scored; run: repose reference --dataset synthetic" in section


def test_only_what_the_templates_write_themselves_is_markup(monkeypatch):
    """`| safe` stands behind text in quotes alone, and what it is joined with is escaped."""
    monkeypatch.chdir(ROOT)
    folder = layout.REPORT_TEMPLATE.parent
    templates = [folder / "template.html.j2", *folder.glob("template/*.j2"), *Path("pipeline").rglob("*.j2")]
    assert len(templates) > 5
    for template in templates:
        text = template.read_text(encoding="utf-8")
        assert not re.search(r"""[^"'\s]\s*\|\s*safe""", text), template
    shown = page.environment().from_string('{{ name.split("_") | join("_<wbr>" | safe) }}').render(name="<script>_x")
    assert shown == "&lt;script&gt;_<wbr>x"
