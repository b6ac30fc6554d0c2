"""Whether a number of ours reproduces a published one. No authors' images are at hand: calibrations are invented."""

import csv
import json

import pytest

from pipeline.core import layout, schema, store
from pipeline.core.errors import UserError
from pipeline.scoring.recipes import RECIPES
from pipeline.stages import tables
from pipeline.tables import verdicts
from pipeline.tables.cells import Cell, paper_table
from pipeline.tables.inputs import by_variant, read_runs
from pipeline.tables.over_seeds import OverSeeds
from pipeline.tables.papers import MARKS, TABLES
from pipeline.tables.verdicts import BETTER, NOT_COMPARABLE, REPRODUCED, WORSE, Calibration, Ours
from tests.stages.test_tables import (
    cell,
    read,
    score,
    scored,  # noqa: F401  (a fixture)
    set_datasets,
    set_variants,
    text,
    write_scores,
)
from tests.tables.test_later import FORM, PUBLISHED, RESIZED, outside

SPGNET = Calibration(
    "spgnet", "1", "SSIM", "SPGNet", "Supp. Table A", "DeepFashion", "SPGNet", "S1||S2 (parallel; adopted)", "SSIM",
    "0.782", "0.7823", "yes", "ssim-uniform7", "1", "8570", "a" * 64, "b" * 64,
)  # fmt: skip
CFLD = SPGNET._replace(
    recipe="cfld", number="FID", paper="IMAGPose", table="Table 1", dataset="DeepFashion 256x176", method="CFLD",
    variant="", metric="FID", published="6.8040", value="6.80402", equals="fid-train-tv",
)  # fmt: skip


def test_every_recipe_has_a_version():
    assert verdicts.VERSIONS.keys() == RECIPES.keys()


# ---- rounding


@pytest.mark.parametrize(
    ("value", "printed", "expected"),
    [
        (0.7144999, "0.714", True),
        (0.7145, "0.714", True),  # the half itself may go either way
        (0.7145, "0.715", True),
        (0.71451, "0.714", False),
        (0.7135, "0.714", True),
        (0.71349, "0.714", False),
        (10.56, "10.6", True),
        (10.54, "10.6", False),
        (58.4, "58", True),
        (0.2341049, "0.2341", True),
        (0.23415001, "0.2341", False),
    ],
)
def test_a_value_is_held_to_the_digits_that_were_printed(value, printed, expected):
    assert verdicts.within(value, printed) == expected


# ---- what compares


def ours(low=0.77, high=0.79, higher=True, metric="ssim-uniform7", version=1, seeds=None) -> Ours:
    return Ours(low, high, higher, metric, version, seeds)


@pytest.mark.parametrize(
    ("found", "number", "reason"),
    [
        ([SPGNET], ours(), ""),
        ([], ours(), "spgnet is not calibrated for SSIM on DeepFashion"),
        ([SPGNET._replace(dataset="Market-1501")], ours(), "is not calibrated for SSIM on DeepFashion"),
        ([SPGNET._replace(recipe="gfla")], ours(), "is not calibrated for SSIM"),
        ([SPGNET._replace(metric="LPIPS")], ours(), "is not calibrated for SSIM"),
        ([SPGNET._replace(within="no", value="0.791")], ours(), "gives 0.791 of its authors' images where 0.782 is"),
        (
            [SPGNET._replace(recipe_version="2")],
            ours(),
            "version 2 of the recipe spgnet, which is at 1; run: repose",
        ),
        ([SPGNET._replace(recipe_version="2"), SPGNET], ours(), ""),
        ([SPGNET], ours(version=2), "version 1 of ssim-uniform7, and ours is of version 2; run: repose calibrate"),
        ([SPGNET], ours(metric="ssim"), "measured by ssim; the published numbers are ssim-uniform7"),
        ([SPGNET._replace(equals="")], ours(), "resizes pictures or drops pairs, which ours does not"),
        ([SPGNET._replace(within="no"), SPGNET._replace(number="SSIM_256")], ours(), ""),
    ],
)
def test_only_a_calibrated_recipe_of_these_versions_makes_numbers_compare(found, number, reason):
    said = verdicts.incomparable(number, "spgnet", "DeepFashion", "SSIM", found)
    assert reason in said
    assert bool(reason) == bool(said)


def test_the_command_that_renews_a_calibration_names_its_row():
    assert SPGNET.renewal() == (
        "repose calibrate GENERATED TARGETS --as spgnet --row SPGNet 'S1||S2 (parallel; adopted)' DeepFashion SPGNet"
        " 'Supp. Table A'"
    )


# ---- the words


@pytest.mark.parametrize(
    ("number", "published", "word"),
    [
        (ours(), "0.782", REPRODUCED),
        (ours(), "0.700", BETTER),
        (ours(), "0.800", WORSE),
        (ours(higher=False), "0.700", WORSE),
        (ours(higher=False), "0.800", BETTER),
        (ours(), "0.7904", WORSE),
        (ours(), "0.790", REPRODUCED),
        (ours(0.77, 0.7899), "0.790", REPRODUCED),  # printed to three places, it may be 0.7895
        (ours(0.77, 0.7894), "0.790", WORSE),
        (ours(None, None), "0.782", NOT_COMPARABLE),
    ],
)
def test_intervals_over_pairs_tell_them_apart(number, published, word):
    assert verdicts.verdict(number, published)[0] == word


def test_seeds_have_a_say_too():
    """What pairs tell apart, chance in training may not; the published training is taken to vary as ours does."""
    apart, wide, narrow = (OverSeeds(3, 0.78, deviation) for deviation in (0.001, 0.02, 0.0))
    # Student's t is 4.303; the deviation of a mean of three less a single run: 0.001 (4/3)^½
    said = "0.800 lies above 0.77 to 0.79, over pairs; above 0.774532 to 0.785468, over 3 seeds"
    assert verdicts.verdict(ours(seeds=apart), "0.800") == (WORSE, said)
    assert verdicts.verdict(ours(seeds=wide), "0.800")[0] == REPRODUCED
    assert verdicts.verdict(ours(seeds=narrow), "0.800")[0] == WORSE
    assert verdicts.verdict(ours(seeds=narrow), "0.782")[0] == REPRODUCED  # pairs do not tell
    other = OverSeeds(3, 0.9, 0.0)
    assert verdicts.verdict(ours(seeds=other), "0.800")[0] == REPRODUCED  # pairs and seeds contradict each other
    assert "one seed" in verdicts.verdict(ours(), "0.800")[1]


# ---- in the tables


def calibrate(*rows: Calibration) -> None:
    with layout.CALIBRATED.open("w", newline="") as handle:
        csv.writer(handle).writerows([Calibration._fields, *rows])


def spgnet(value: float, *marks: str) -> None:
    """Scores of one checkpoint, its interval 0.01 to either side."""
    rows = []
    for split in ("val", "test"):
        rows += [score("deepfashion", "spgnet", 5, split, "ssim", value - 0.1, marks, n=8570)]
        rows += [rows[-1] | {"metric": "ssim-uniform7", "value": value, "low": value - 0.01, "high": value + 0.01}]
    write_scores("deepfashion", "spgnet", rows)


@pytest.fixture
def on_deepfashion(scored):  # noqa: F811
    set_datasets("[deepfashion]")
    set_variants(spgnet="spgnet")
    spgnet(0.775)
    return scored


def own(*calibrated: Calibration) -> Cell:
    """Our SSIM in the SPGNet supplement's Table A."""
    table = next(table for table in TABLES if table.name == "spgnet_table_a")
    runs = by_variant(read_runs({"metric": "lpips", "split": "val"}))
    part = paper_table(table, PUBLISHED, runs, (), calibrated)
    return next(one for one in part if one.kind == "trained" and one.column == "SSIM")


@pytest.mark.usefixtures("on_deepfashion")
def test_a_number_is_reproduced_better_or_worse_where_its_recipe_is_calibrated():
    alone = own()
    assert (alone.verdict, alone.difference, alone.marks) == (NOT_COMPARABLE, "", "protocol")
    assert alone.reason.startswith("the recipe spgnet is not calibrated for SSIM on DeepFashion: no images that its")
    found = own(SPGNET)
    assert (found.verdict, found.published, found.difference, found.marks) == (REPRODUCED, "0.782", "-0.007", "")
    assert found.reason == "0.782 lies within 0.765 to 0.785, over pairs; one seed"
    assert own(SPGNET._replace(recipe_version="0")).verdict == NOT_COMPARABLE
    spgnet(0.75)
    assert own(SPGNET).verdict == WORSE
    spgnet(0.8)
    assert own(SPGNET).verdict == BETTER
    for mark in ("data", "joints", "form", "pairs", "metric-weights"):
        spgnet(0.8, mark)
        found = own(SPGNET)
        assert (found.verdict, found.difference, found.reason) == (NOT_COMPARABLE, "", MARKS[mark].text)
        assert found.marks == f"{mark} protocol"


@pytest.mark.usefixtures("on_deepfashion")
def test_tables_print_the_word_and_name_what_does_not_compare():
    calibrate(SPGNET, SPGNET._replace(metric="FID", number="FID", recipe_version="0"))
    rows = store.read_table(layout.scores("deepfashion", "spgnet")).to_pylist()
    rows += [rows[-1] | {"metric": "fid", "value": 12.5, "low": 12.0, "high": 13.0}]
    write_scores("deepfashion", "spgnet", rows)
    tables.run()
    page = text("spgnet_table_a.md")
    assert "(Δ -0.007, reproduced)" in page
    assert r"($\Delta$ -0.007, reproduced)" in text("spgnet_table_a.tex")
    assert "SSIM of spgnet: reproduced, 0.782 lies within 0.765 to 0.785, over pairs; one seed." in page
    assert (
        "Not comparable, FID of spgnet: calibrated by version 0 of the recipe spgnet, which is at 1; run: repose"
        in page
    )
    of = {row["column"]: row for row in read("verdicts.csv") if row["table"] == "spgnet_table_a"}
    assert (of["SSIM"]["variant"], of["SSIM"]["published"], of["SSIM"]["verdict"]) == ("spgnet", "0.782", REPRODUCED)
    assert (of["FID"]["verdict"], of["FID"]["difference"]) == (NOT_COMPARABLE, "")


@pytest.mark.usefixtures("scored")
def test_a_quoted_number_counts_where_its_authors_images_gave_it():
    """CFLD's own images, scored here, reproduce it; of MCLD, whose number nobody measured again, nothing is said."""
    set_variants()
    set_datasets(f"[{FORM}]")
    for name in ("CFLD", "MCLD"):
        outside(name, {"FID": 6.8})
        path = layout.outside(FORM, name.lower()) / "scores.parquet"
        rows = [row | {"low": 6.7, "high": 6.9} for row in store.read_table(path).to_pylist()]
        store.write_table(path, rows, schema.SCORES)
    calibrate(CFLD)
    tables.run()
    of = {name: cell(f"{RESIZED}.csv", row=f"{name} (outside)", column="FID") for name in ("CFLD", "MCLD")}
    assert (of["CFLD"]["verdict"], of["CFLD"]["difference"]) == (REPRODUCED, "-0.004")
    assert of["MCLD"]["verdict"] == NOT_COMPARABLE
    assert of["MCLD"]["reason"].startswith("published number as another paper or text quotes it")


@pytest.mark.usefixtures("scored")
@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([["recipe"]], "its columns must be recipe, recipe_version"),
        ([Calibration._fields, SPGNET[:-1]], "line 2 is malformed"),
        ([Calibration._fields, SPGNET, SPGNET._replace(within="maybe")], "line 3 is malformed"),
        ([Calibration._fields, SPGNET._replace(recipe="nobody")], "line 2 is malformed"),
    ],
)
def test_a_malformed_file_is_one_line(lines, message):
    with layout.CALIBRATED.open("w", newline="") as handle:
        csv.writer(handle).writerows(lines)
    with pytest.raises(UserError, match=message):
        tables.run()


def test_the_committed_file_can_be_read():
    assert all(json.dumps(row) for row in verdicts.read_calibrated())
