"""User studies made here, beside the published ones: in the tables of the forms that they used, and nowhere else."""

import csv
import json
from collections.abc import Mapping

import pytest

from pipeline.core import layout, seals
from pipeline.core.errors import UserError
from pipeline.stages import tables
from pipeline.studies.draw import FORMS
from pipeline.studies.rates import Apart, Rate
from pipeline.tables import papers
from tests.stages.test_tables import cell, read, scored, set_datasets, text  # noqa: F401  (a fixture)

Value = tuple[float, float, float]


def write(
    name: str, dataset: str, form: str, methods: Mapping[str, str], values: Mapping[tuple[str, str], Value], ties=()
) -> None:
    """A study's results. values: by measure and method. ties: measures by which all methods are one."""
    folder = layout.study(name)
    folder.mkdir(parents=True)
    rates = [Rate(measure, method, *value, 0, 0, 30, 30) for (measure, method), value in values.items()]
    apart = []
    for measure in ("r2g", "g2r", "prefer"):
        own = {one.method: one.value for one in rates if one.measure == measure}
        for one, other in zip(own, list(own)[1:], strict=False):
            verdict = "tie" if measure in ties else max((one, other), key=own.__getitem__)
            apart.append(Apart(measure, one, other, own[one] - own[other], 0, 0, verdict))
    for file, rows, kind in (("results", rates, Rate), ("differences", apart, Apart)):
        with (folder / f"{file}.csv").open("w", newline="") as handle:
            csv.writer(handle).writerows([kind._fields, *rows])
    about = {"name": name, "dataset": dataset, "form": FORMS[form].described(), "methods": methods}
    about |= {"raters": 30, "asked": 31, "left_out": 1, "study": "s", "seed": 0}
    (folder / "study.json").write_text(json.dumps(about))


THREE = {"spig": "variant", "PATN": "folder", "Mine": "folder"}
VALUES = {
    ("r2g", "spig"): (12.5, 10.0, 15.0), ("r2g", "PATN"): (7.25, 5.0, 9.0), ("r2g", "Mine"): (8.0, 5.0, 9.0),
    ("g2r", "spig"): (49.5, 45.0, 54.0), ("g2r", "PATN"): (38.0, 33.0, 43.0), ("g2r", "Mine"): (5.0, 3.0, 9.0),
    ("prefer", "spig"): (60.0, 55.0, 65.0), ("prefer", "PATN"): (30.0, 25.0, 35.0),
    ("prefer", "Mine"): (10.0, 7.0, 14.0),
}  # fmt: skip


def test_a_study_stands_in_spigs_table_beside_the_published_numbers(scored):  # noqa: F811
    set_datasets("[synthetic, market1501]")
    write("market", "market1501", "spig", THREE, VALUES, ties=("g2r",))
    write("drawn", "synthetic", "spig", THREE, VALUES)
    tables.run()
    rows = [row["row"] for row in read("spig_table2.csv") if row["dataset"] == "market1501"][::2]
    assert rows == [
        "VU-Net", "Def-GAN", "PATN", "PATN (study market)", "DIST (=GFLA)", "SPIG (the paper's)", "spig (study market)",
        "Mine (study market)",
    ]  # fmt: skip
    own = cell("spig_table2.csv", dataset="market1501", row="spig (study market)", column="Prefer (%)")
    assert (own["kind"], own["printed"], own["low"], own["high"]) == ("study", "60.00", "55.0", "65.0")
    assert (own["marks"], own["place"], own["difference"]) == ("raters", "best", "")
    assert cell("spig_table2.csv", dataset="market1501", row="SPIG (the paper's)", column="G2R (%)")["value"] == "50.00"
    ranked = {
        row["row"]: row["place"] for row in read("spig_table2.csv") if row["column"] == "G2R (%)" and row["place"]
    }
    assert ranked == {
        "spig (study market)": "best tied", "PATN (study market)": "second tied",
        "spig (study drawn)": "best", "PATN (study drawn)": "second",
    }  # fmt: skip
    assert {row["row"] for row in read("spig_table2.csv") if row["dataset"] == "synthetic"} == {
        f"{name} (study drawn)" for name in THREE
    }
    page = text("spig_table2.md")
    assert "| spig (study market)ᵛ | **49.50≈** best [45.00, 54.00] | **60.00** best [55.00, 65.00] | – |" in page
    assert "Study market: form spig, 30 raters (31 asked; 1 file left out); each saw 55 real and 55 generated" in page
    assert "R2G in study market: spig 12.50, PATN 7.25, Mine 8.00." in page
    assert "ᵛ a user study of one's own" in page
    assert "study market" not in text("spig_table1.md") + text("sgw_gan_amt.md")


def test_another_form_is_another_question(scored):  # noqa: F811
    write("seen", "synthetic", "pidm", THREE, VALUES)
    tables.run()
    assert [table.name for table in papers.TABLES if "study seen" in text(f"{table.name}.md")] == ["pidm_figure5"]
    page = text("pidm_figure5.md")
    assert "| Mine (study seen)ᵛ | *8.00* 2nd [5.00, 9.00] | 5.00 [3.00, 9.00] | 10.00 [7.00, 14.00] | – |" in page
    assert "R2G in study" not in page


@pytest.mark.parametrize(
    ("methods", "row"),
    [
        ({"sgw": "variant", "pix2pix": "folder"}, "sgw over pix2pix (study two)"),
        ({"Deformable GAN": "folder", "SGW-GAN": "folder"}, "SGW-GAN over Deformable GAN (study two)"),
        ({"sgw": "variant", "pix2pix": "folder", "PG2": "folder"}, None),
        ({"sgw": "variant", "Mine": "folder"}, None),
    ],
    ids=("pix2pix", "by-its-alias", "three", "unknown"),
)
def test_a_study_of_two_methods_fills_the_pairwise_comparison(scored, methods, row):  # noqa: F811
    write("two", "synthetic", "spig", methods, {("prefer", name): (70.0, 60.0, 80.0) for name in methods})
    tables.run()
    found = {one["row"]: one["printed"] for one in read("sgw_gan_amt.csv") if one["kind"] == "study"}
    assert found == ({row: "70.0"} if row else {})


def test_a_study_of_a_data_set_that_is_not_of_this_run_is_left_out(scored):  # noqa: F811
    write("market", "market1501", "spig", THREE, VALUES)
    tables.run()
    assert "study market" not in text("spig_table2.md")


def test_a_damaged_study_is_named(scored):  # noqa: F811
    write("broken", "synthetic", "spig", THREE, VALUES)
    (layout.study("broken") / "results.csv").unlink()
    with pytest.raises(UserError, match=r"reports/studies/broken: damaged; score the study again"):
        tables.run()


def test_a_study_whose_numbers_are_not_as_they_were_written_is_named(scored):  # noqa: F811
    write("changed", "synthetic", "spig", THREE, VALUES)
    seals.write_list(layout.study("changed"))
    tables.run()
    path = layout.study("changed") / "results.csv"
    path.write_text(path.read_text().replace("60.0", "68.0"))
    with pytest.raises(UserError, match=r"reports/studies/changed: damaged; score the study again"):
        tables.run()
