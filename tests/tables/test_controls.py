"""What the tables say of the controls: what each metric noticed, what lies outside them, and what is missing."""

import json

import numpy as np
import pytest

from pipeline.core import layout, schema, store
from pipeline.core.errors import UserError
from pipeline.stages import tables
from pipeline.tables import controls
from tests.stages.test_tables import pair_table, read, score, scored, text, write_method, write_reference  # noqa: F401

PAIRS = 40
RANDOM = np.random.default_rng(2)
HARD, NOISE = RANDOM.normal(0, [[0.05], [0.01]], (2, PAIRS))  # how hard a pair is; what two methods differ by
HARD, NOISE = HARD - HARD.mean(), NOISE - NOISE.mean()
ABOUT = {"pairs": PAIRS, "of": 2 * PAIRS, "unscored": {"kid": "no network", "is": "no network"}}


def write_controls(dataset: str, columns: dict[str, dict[str, np.ndarray]], why: str = "", **about) -> None:
    """Controls by name, each with its values of each pair by metric; and one more, `shuffled`, left out if `why`."""
    folder = layout.controls(dataset)
    for name, own in columns.items():
        rows = [
            score(dataset, name, 0, "test", metric.removesuffix(schema.INFLUENCE), float(one.mean()), n=len(one))
            for metric, one in own.items()
        ]
        for row in rows:
            if np.isnan(row["value"]):
                row |= {"value": None, "low": None, "high": None, "n": 0, "excluded": PAIRS}
        store.write_table(folder / name / "scores.parquet", rows, schema.SCORES)
        table = pair_table(own)
        store.write_table(folder / name / "pairs.parquet", table, table.schema)
    said = [{"name": name, "title": name.capitalize(), "text": f"what {name} is", "why": ""} for name in columns]
    said += [{"name": "shuffled", "title": "Shuffled", "text": "dealt", "why": why}] * bool(why)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "controls.json").write_text(json.dumps(ABOUT | {"controls": said} | about))


def usual() -> dict[str, dict[str, np.ndarray]]:
    """SSIM notices all but `faint`, and prefers `flattering`; LPIPS notices `shuffled` by nothing but rounding."""
    true = {"ssim": 0.9 + HARD, "lpips-alex-v0.1": 0.1 + HARD, "psnr": np.full(PAIRS, np.nan)}
    worse = {"ssim": 0.4 + HARD + NOISE, "lpips-alex-v0.1": 0.1 + HARD + 1e-12, "psnr": 20 + HARD}
    return {
        "true-target": true,
        "faint": true | {"ssim": 0.9 + HARD + NOISE},
        "flattering": true | {"ssim": 0.95 + HARD + NOISE},
        "shuffled": worse,
    }


@pytest.fixture
def project(scored):  # noqa: F811
    """Three methods on as many pairs as the controls."""
    for name, value in (("copy_source", 0.5), ("mean_image", 0.3), ("spig", 0.97)):
        write_method(name, {"ssim": value + HARD, "lpips-alex-v0.1": 0.9 + HARD}, {})
    write_controls("synthetic", usual())
    return scored


def of(control: str, metric: str) -> dict[str, str]:
    return next(row for row in read("controls.csv") if (row["control"], row["metric"]) == (control, metric))


def test_a_metric_notices_what_it_scores_worse_by_more_than_chance(project):
    tables.run()
    assert [of(name, "ssim")["noticed"] for name in usual()] == ["", "no", "reversed", "yes"]
    shuffled = of("shuffled", "ssim")
    assert float(shuffled["difference"]) == pytest.approx(-0.5)
    assert -0.51 < float(shuffled["difference_low"]) < -0.5 < float(shuffled["difference_high"]) < -0.49
    assert of("shuffled", "lpips-alex-v0.1")["noticed"] == "no"  # all pairs differ by the same, a rounding
    assert "| no " in text("controls.md")
    assert "| yes -0.500 [-0.50" in text("controls.md")
    assert r"\begin{tabular}" in text("controls.tex")


def test_a_metric_carries_its_marks(project):
    for path in layout.controls("synthetic").glob("*/scores.parquet"):
        rows = store.read_table(path).to_pylist()
        store.write_table(
            path, [row | {"marks": ["metric-weights"] * ("lpips" in row["metric"])} for row in rows], schema.SCORES
        )
    tables.run()
    page = text("controls.md")
    assert "| lpips-alex-v0.1† ↓ |" in page
    assert "| ssim ↑ |" in page
    assert "- † the metric's own feature network" in page


def test_an_empty_cell_has_its_reason(project):
    columns = usual()
    del columns["shuffled"]
    write_controls("synthetic", columns, why="one person is on 30 of 40 targets")
    tables.run()
    assert of("true-target", "psnr")["why"] == "no pair has a value"
    assert {row["why"] for row in read("controls.csv") if row["control"] == "shuffled"} == {
        "one person is on 30 of 40 targets"
    }
    for row in read("controls.csv"):
        assert row["difference"] or row["why"] or row["control"] == "true-target", row
    rows = [(row["kind"], row["name"], row["why"]) for row in read("missing.csv")]
    assert ("control", "Shuffled", "one person is on 30 of 40 targets") in rows
    assert ("metric", "kid", "no network") in rows
    assert "No metric: kid, is; no network." in text("controls.md")


def test_methods_are_held_against_the_controls(project):
    """spig is better than the target, mean_image worse than a shuffle; LPIPS, which notices none, says nothing."""
    tables.run()
    found = [(row["method"], row["metric"], row["what"]) for row in read("outside_controls.csv")]
    assert found == [
        ("spig", "ssim", "better than the true target"),
        ("mean_image", "ssim", "worse than shuffled targets"),
    ]
    assert float(read("outside_controls.csv")[1]["difference"]) == pytest.approx(-0.1)


def test_methods_are_compared_on_the_pairs_of_the_controls(project):
    """Of a method with more pairs those that the controls have; not by a metric that is no mean over pairs."""
    more = {"ssim": np.concatenate([0.97 + HARD, np.full(PAIRS, 0.01)])}
    more["fid" + schema.INFLUENCE] = np.zeros(2 * PAIRS)
    write_method("spig", more, {"fid": 3.0})
    columns = {name: one | {"fid" + schema.INFLUENCE: np.zeros(PAIRS)} for name, one in usual().items()}
    write_controls("synthetic", columns)
    tables.run()
    rows = {(row["method"], row["metric"]): row for row in read("outside_controls.csv")}
    assert rows["spig", "ssim"]["n"] == str(PAIRS)
    assert ("spig", "fid") not in rows
    notes = [row["note"] for row in read("notes.csv") if row["table"] == "controls"]
    assert notes[0].startswith("On 40 of 80 test pairs.")
    assert any(note.startswith("Methods are not held against the controls by fid:") for note in notes)


def test_without_controls_the_command_that_makes_them_is_named(project):
    write_reference("synthetic", "1" * 64)  # these controls are of another reference
    tables.run()
    assert read("controls.csv") == read("outside_controls.csv") == []
    rows = {(row["kind"], row["name"]): row["why"] for row in read("missing.csv")}
    assert rows["control", "all"] == "not scored; run: repose reference --dataset synthetic"
    assert rows["method", "spig"].startswith("scored by another reference than the present one; run: repose score")
    write_controls("synthetic", {}, pairs=0)
    tables.run()
    assert "reference.synthetic.controls is 0" in [row["why"] for row in read("missing.csv")]
    (layout.controls("synthetic") / "controls.json").write_text("{}")
    with pytest.raises(UserError, match=r"controls\.json: damaged; run: repose reference --dataset synthetic"):
        tables.run()


def test_what_is_missing_for_one_reason_stands_together():
    rows = [controls.Missing("d", *row) for row in (("method", "b", "x"), ("metric", "a", "x"), ("method", "c", "x"))]
    assert controls.grouped(rows) == [("metric", ["a"], "x"), ("method", ["b", "c"], "x")]


def test_a_score_without_a_value_is_listed(project):
    scores = store.read_table(layout.scores("synthetic", "spig")).to_pylist()
    for row in scores:
        if row["metric"] == "lpips-alex-v0.1" and row["split"] == "test":
            row |= {"value": None, "low": None, "high": None, "n": 0, "excluded": PAIRS}
    store.write_table(layout.scores("synthetic", "spig"), scores, schema.SCORES)
    tables.run()
    wanted = {"dataset": "synthetic", "kind": "score", "name": "spig, lpips-alex-v0.1"}
    assert wanted | {"why": "no value: 40 of 40 pairs have none"} in read("missing.csv")


def test_small_differences_keep_their_digits():
    numbers = (92.04, -52.139, 1.0, -0.848, 0.0226, -0.00146, 0.0000195, -1e-12)
    assert [controls.number(one, "+") for one in numbers] == [
        "+92.0", "-52.1", "+1.00", "-0.848", "+0.023", "-0.0015", "+0.00002", "+0.000",
    ]  # fmt: skip
