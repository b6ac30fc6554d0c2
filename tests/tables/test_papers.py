"""The definitions of the papers' tables: the papers' order, and nothing that does not exist elsewhere."""

import pytest

from models.variants import VARIANTS
from pipeline.core import layout
from pipeline.datasets import title
from pipeline.metrics import METRICS, OF_PARSING
from pipeline.stages.score_components import SCORED
from pipeline.tables import papers
from pipeline.tables.cells import paper_table
from pipeline.tables.inputs import read_published
from pipeline.tables.papers import COLUMNS, MARKS, PROTOCOL, TABLES
from tests.stages.test_tables import ROOT

PUBLISHED = read_published(ROOT / layout.PUBLISHED)
PAPERS = {"SPIG", "SPGNet", "SPT", "SGW-GAN"}
# Table -> its first published line on a data set: row, column, value, in the order that the paper prints them.
FIRST_AND_LAST = {
    ("spig_table1", "market1501"): ("VU-Net FID 24.386", "SPIG (the paper's) Mask-PSNR 20.726"),
    ("spig_table1", "deepfashion"): ("VU-Net FID 13.836", "SPIG (the paper's) PSNR 18.030"),
    ("spig_table2", "market1501"): ("VU-Net Prefer (%) 11.44", "SPIG (the paper's) Prefer (%) 41.45"),
    ("spig_table2", "deepfashion"): ("VU-Net Prefer (%) 1.00", "SPIG (the paper's) Prefer (%) 66.45"),
    ("spig_table3", "deepfashion"): ("w/o Part FID 13.736", "Full PSNR 18.030"),
    ("spgnet_table_a", "deepfashion"): (
        "S1 > S2: stage one frozen SSIM 0.785", "S1 || S2: independent, adopted LPIPS 0.2105",
    ),
    ("spgnet_table1", "deepfashion"): ("PATN SSIM 0.773", "SPGNet (the paper's) LPIPS 0.2105"),
    ("spgnet_parsing", "deepfashion"): (
        "SPATN without distance maps mIoU 0.520", "SPATN with distance maps mIoU 0.539",
    ),
    ("spt_table1", "deepfashion"): ("PG2 IS 3.090", "SPT E2E SSIM 0.736"),
    ("spt_table1", "market1501"): ("PG2 IS 3.460", "SPT E2E Mask-SSIM 0.758"),
    ("spt_training", "deepfashion"): ("SPT Baseline IS 3.140", "SPT E2E SSIM 0.736"),
    ("spt_training", "market1501"): ("SPT Baseline IS 2.776", "SPT E2E Mask-SSIM 0.758"),
    ("sgw_gan_table1", "deepfashion"): ("pix2pix SSIM 0.692", "SGW-GAN (the paper's) IS 3.314"),
    ("sgw_gan_table1", "market1501"): ("pix2pix SSIM 0.183", "SGW-GAN (the paper's) IS 3.409"),
    ("sgw_gan_ablation", "deepfashion"): (
        "w/o soft-gated warping-block SSIM 0.777", "w/o soft-gated warping-block IS 3.262",
    ),
    ("sgw_gan_ablation", "market1501"): (
        "w/o soft-gated warping-block SSIM 0.337", "w/o soft-gated warping-block IS 3.394",
    ),
    ("sgw_gan_amt", "deepfashion"): (
        "SGW-GAN over pix2pix Preferred over (%) 98.7", "SGW-GAN over DSCF (=Def-GAN) Preferred over (%) 79.6",
    ),
    ("sgw_gan_amt", "market1501"): (
        "SGW-GAN over pix2pix Preferred over (%) 83.4", "SGW-GAN over DSCF (=Def-GAN) Preferred over (%) 62.1",
    ),
    ("pidm_figure5", "deepfashion"): ("PIDM (the paper's) G2R (%) 48", "IMAGPose (its paper's) Jab (%) 42.3"),
    ("later_256x176", "deepfashion-resize176"): ("ADGAN FID 14.458", "MCLD PSNR 18.84"),
    ("later_512x352", "deepfashion-resize352"): ("CocosNet-v2 FID 13.325", "One-to-All-1.3B PSNR 16.84"),
}  # fmt: skip
# The rows of each table in the paper's order, by the names in published.csv (method, or variant of the paper's own).
ORDER = {
    "spig_table1": "VU-Net, Def-GAN, PATN, DIST (=GFLA), SPIG (Ours)",
    "spig_table2": "VU-Net, Def-GAN, PATN, DIST (=GFLA), SPIG (Ours)",
    "spig_table3": "w/o Part, w/o PNB, w/o HDCB, Full",
    "spgnet_table1": "PATN, Intr-Flow, GFLA, XingGAN, ADGAN, SPGNet (Ours)",
    "spgnet_parsing": "without distance map, with distance map",
    "spt_table1": "PG2, Def-GAN, V-UNet, BodyROI7, UPIS, Baseline, TS-Pred, TS-GT, E2E",
    "spt_training": "Baseline, TS-Pred, TS-GT, E2E",
    "sgw_gan_table1": "pix2pix, PG2, DSCF (=Def-GAN), UPIS, AUNET (=VU-Net), BodyROI7, SGW-GAN (Full)",
    "sgw_gan_ablation": "w/o parsing, w/o soft-gated warping-block, w/o A_att, w/o L_PH",
    "sgw_gan_amt": "vs pix2pix, vs PG2, vs BodyROI7, vs DSCF (=Def-GAN)",
    "pidm_figure5": "PIDM, IMAGPose",
}


def test_rows_and_columns_stand_in_the_papers_order():
    found = {}
    for table in TABLES:
        for cell in paper_table(table, PUBLISHED, {}):
            if cell.value:
                found.setdefault((table.name, cell.dataset), []).append(f"{cell.row} {cell.column} {cell.value}")
    assert {key: (lines[0], lines[-1]) for key, lines in found.items()} == FIRST_AND_LAST
    tables = {table.name: table for table in TABLES}
    for name, order in ORDER.items():
        rows = [row for row in tables[name].rows if row.method]
        assert [row.variant if row.variant and row.variant != "full" else row.method for row in rows] == order.split(
            ", "
        )
    assert tables["spig_table1"].columns["market1501"] == (
        "FID", "LPIPS", "Mask-LPIPS", "SSIM", "Mask-SSIM", "PSNR", "Mask-PSNR",
    )  # fmt: skip
    assert tables["spgnet_table_a"].columns["deepfashion"] == ("SSIM", "FID", "PCKh", "LPIPS")
    assert tables["spt_table1"].columns["market1501"] == ("IS", "SSIM", "Mask-IS", "Mask-SSIM")


def test_every_published_number_of_the_four_papers_stands_in_a_table():
    shown = {
        (table.paper, table.source, title(cell.dataset), cell.row, cell.column): cell.value
        for table in TABLES
        for cell in paper_table(table, PUBLISHED, {})
    }
    values = sorted((p["paper"], p["table"], p["dataset"], p["metric"], p["value"]) for p in PUBLISHED if p["value"])
    found = {(paper, source, dataset, column, value) for (paper, source, dataset, _, column), value in shown.items()}
    assert {one for one in values if one[0] in PAPERS} <= found
    assert {p["paper"] for p in PUBLISHED} >= PAPERS


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_definition_names_only_what_exists(table):
    keys = {(p["paper"], p["table"], p["method"], p["variant"]) for p in PUBLISHED}
    for row in table.rows:
        assert row.ours == "" or row.ours in VARIANTS or row.ours in SCORED
        for where in (row.read_in or ((table.paper, table.source),)) if row.method else ():
            assert (*where, row.method, row.variant) in keys
        assert bool(row.protocol) == bool(table.of)
    assert len({row.name for row in table.rows}) == len(table.rows)
    assert table.paper in PROTOCOL
    for columns in table.columns.values():
        for column in columns:
            metrics = [(METRICS | OF_PARSING)[name] for name in table.metrics_of(column)]
            assert all(metric.higher_is_better == COLUMNS[column].higher_is_better for metric in metrics)
    assert set(table.notes_of) <= set(table.columns)


def test_every_variant_of_a_paper_has_its_row():
    shown = {row.ours for table in TABLES for row in table.rows}
    # Section C has the parsing only; Table B prints one block without a figure; the last is not in the paper.
    not_in_a_table = {"spgnet_no_distance", "spgnet_one_block", "spgnet_learned_flow"}
    families = ("spig", "spgnet", "spt", "sgw", "patn", "gfla", "def_gan", "vunet")
    assert {name for name in VARIANTS if name.startswith(families)} - not_in_a_table <= shown


def test_names_and_symbols_are_unique():
    assert len({table.name for table in TABLES}) == len(TABLES)
    assert len({mark.symbol for mark in MARKS.values()}) == len(MARKS)
    assert len({mark.tex for mark in MARKS.values()}) == len(MARKS)
    assert set(papers.titles(["d"])) == {"leaderboard_d", *(table.name for table in TABLES)}
    assert set(papers.LEADERBOARD) <= set(COLUMNS)
