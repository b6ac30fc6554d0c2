"""What `score` says of a method when it is done."""

from pipeline.core import layout
from pipeline.tables import row
from tests.stages.test_tables import PROTOCOLS, scored, training_run, write_scores  # noqa: F401


def test_a_row_is_that_of_the_checkpoint_that_the_tables_take(scored):  # noqa: F811
    first, *found = row.lines(layout.scores("synthetic", "spig"))
    assert first == (
        "scores of spig on synthetic, step 90, of 3 checkpoints the best by lpips-alex-v0.1 on val; "
        "all marked data steps weights width"
    )
    rows = {line.split()[0]: line for line in found}
    assert rows.keys() == PROTOCOLS.keys()
    test = {r["metric"]: r for r in training_run("synthetic", "spig", [30, 60, 90]) if r["step"] == 90}
    assert all(PROTOCOLS[metric] in line and "96 pairs" in line for metric, line in rows.items())
    assert rows["fid"].split()[1:3] == ["↓", f"{test['fid']['value']:.3f}"]
    assert rows["fid"].endswith("; metric-weights")
    assert "[" not in rows["fid"]  # it has no interval here
    ssim = test["ssim"]
    assert f"{ssim['value']:.3f}  [{ssim['low']:.3f}, {ssim['high']:.3f}]" in rows["ssim"]


def test_a_floor_is_the_best_of_nothing_and_a_missing_metric_chose_none(scored):  # noqa: F811
    """A floor has one checkpoint, of no step; without LPIPS the choice is SSIM's, and the line says so."""
    write_scores("synthetic", "spig", training_run("synthetic", "spig", [0]))
    assert row.lines(layout.scores("synthetic", "spig"))[0].startswith("scores of spig on synthetic; all marked ")
    rows = [one for one in training_run("synthetic", "spig", [30, 60]) if "lpips" not in one["metric"]]
    write_scores("synthetic", "spig", rows)
    said = row.lines(layout.scores("synthetic", "spig"))[0]
    assert ", of 2 checkpoints the best by ssim on val; " in said


def test_nothing_is_said_without_a_test_score(scored):  # noqa: F811
    rows = [one for one in training_run("synthetic", "spig", [5]) if one["split"] == "val"]
    write_scores("synthetic", "spig", rows)
    assert row.lines(layout.scores("synthetic", "spig")) == []
