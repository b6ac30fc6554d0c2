"""Holding recipes to published numbers, and README's table. No authors' images are at hand: folders, rows and numbers
here are invented.
"""

import csv
from pathlib import Path

import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.commands import reproduced
from pipeline.core import layout
from pipeline.metrics.fid import statistics_of
from pipeline.scoring import comparison
from pipeline.tables import verdicts
from pipeline.tables.inputs import PUBLISHED_COLUMNS
from tests.commands.test_compare import COUNT, drawn, two, write  # noqa: F401  (a fixture)
from tests.conftest import ROOT
from tests.scoring.test_recipes import Brightness, fid, ssim_256


def publish(values: dict[str, str], method: str = "Mine", dataset: str = "Synthetic", paper: str = "Paper") -> None:
    """Rows of published.csv, after those that are there."""
    layout.PUBLISHED.parent.mkdir(exist_ok=True)
    new = not layout.PUBLISHED.exists()
    with layout.PUBLISHED.open("a", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerows([PUBLISHED_COLUMNS] if new else [])
        for metric, value in values.items():
            writer.writerow([paper, "Table 1", dataset, method, "", metric, value, "yes", "there", "yes", "", "", ""])


def psnr(pairs: list) -> float:
    errors = [np.square(generated.astype(float) - target).mean() for generated, target in pairs]
    return float(np.mean([10 * np.log10(255**2 / error) for error in errors]))


def calibrate(*words: str, recipe: str = "gfla") -> int:
    return main(["calibrate", "out", "targets", "--as", recipe, *words])


def kept() -> dict[str, verdicts.Calibration]:
    return {one.number: one for one in verdicts.read_calibrated()}


def test_a_recipe_that_gives_the_printed_number_is_calibrated(two, capsys):  # noqa: F811
    right, own_range = psnr(two), float(np.mean([ssim_256(*pair, 1.5) for pair in two]))
    publish({"PSNR": f"{right:.3f}", "SSIM": f"{own_range + 0.001:.4f}", "Jab (%)": "3"})
    assert calibrate("--row", "mine", "SYNTHETIC") == 0
    said = capsys.readouterr().err
    assert f"published PSNR: {right:.3f}, within its rounding" in said
    assert f"published SSIM: {own_range + 0.001:.4f}, not within its rounding" in said
    assert "LPIPS left out: its network's weights are not there" in said
    found = kept()
    assert found.keys() == {"PSNR", "SSIM_256"}  # pictures of 32 columns are too small for a window of 51
    one = found["PSNR"]
    assert float(one.value) == pytest.approx(right, abs=1e-9)
    assert (one.within, one.equals, one.metric_version, one.pairs) == ("yes", "psnr", "1", str(COUNT))
    assert (one.recipe, one.recipe_version, one.method, one.dataset) == ("gfla", "1", "Mine", "Synthetic")
    assert (found["SSIM_256"].within, found["SSIM_256"].equals) == ("no", "ssim-own-range")
    assert len(one.images_sha256) == len(one.targets_sha256) == 64
    assert one.images_sha256 != one.targets_sha256


def test_the_same_again_changes_nothing_and_another_picture_its_digest(two):  # noqa: F811
    publish({"PSNR": "20.0"})
    assert calibrate("--row", "Mine") == 0
    first = layout.CALIBRATED.read_bytes()
    assert calibrate("--row", "Mine") == 0
    assert layout.CALIBRATED.read_bytes() == first
    before = kept()["PSNR"]
    generated, _ = two[0]
    generated[0, 0] ^= 1
    write(Path("out/0.png"), generated)
    assert calibrate("--row", "Mine") == 0
    assert calibrate("--row", "Mine", recipe="pise") == 0
    after = [one for one in verdicts.read_calibrated() if one.recipe == "gfla"]
    assert len(after) == 1
    assert after[0].targets_sha256 == before.targets_sha256
    assert after[0].images_sha256 != before.images_sha256
    assert len(verdicts.read_calibrated()) == 2


def test_fid_wants_all_training_images(two, monkeypatch):  # noqa: F811
    random = np.random.default_rng(3)
    training = [drawn(random) for _ in range(20)]
    for number, picture in enumerate(training):
        write(Path(f"train/{number:02}.png"), picture)
    network = Brightness()
    monkeypatch.setattr(comparison.networks, "describe", lambda metrics, *_: (metrics, {"inception-tv": {}}))
    monkeypatch.setattr(
        comparison.networks,
        "open_all",
        lambda described, *_: {name: network for name in described if "lpips" not in name},
    )
    from pipeline.metrics.inception import inception_features

    expected = fid(
        network, [generated for generated, _ in two], statistics_of(inception_features(network, np.stack(training)))
    )
    publish({"FID": f"{expected:.5f}"})
    assert calibrate("--row", "Mine") == 2  # nothing of the row was scored
    assert calibrate("--row", "Mine", "--training", "train") == 0
    one = kept()["FID"]
    assert float(one.value) == pytest.approx(expected, abs=1e-6)
    assert (one.within, one.equals) == ("yes", "fid-train-tv")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Nobody"], "no published row has these words"),
        (["Table 1"], "2 rows: Paper, Table 1, Synthetic, Mine; Paper, Table 1, DeepFashion 256x176, Mine; give more"),
        (["DeepFashion 256x176"], f"out: {COUNT} pairs of 8570: a published number is one of them all"),
    ],
)
def test_a_wrong_row_is_one_line(two, capsys, words, message):  # noqa: F811
    publish({"PSNR": "20.0"})
    publish({"PSNR": "20.0"}, dataset="DeepFashion 256x176")
    assert calibrate("--row", *words) == 2
    assert message in capsys.readouterr().err
    assert not layout.CALIBRATED.exists()


def test_another_networks_lpips_calibrates_nothing(two, monkeypatch, capsys):  # noqa: F811
    from pipeline.metrics.lpips import lpips_network

    squeeze = lpips_network(None, seed=3, net="squeeze")
    monkeypatch.setattr(comparison, "_lpips_of", lambda *_: {"lpips-squeeze": squeeze})
    publish({"LPIPS": "0.1"})
    assert calibrate("--row", "Mine") == 2
    assert "has no number of that row that was scored" in capsys.readouterr().err


# ---- README's table


def test_readme_is_not_stale(monkeypatch):
    """`repose reproduced` writes it anew."""
    monkeypatch.chdir(ROOT)
    readme = Path("README.md").read_text(encoding="utf-8")
    assert reproduced.text(readme) == readme


def test_a_calibration_and_a_kept_verdict_stand_in_it(tmp_path, monkeypatch, capsys):
    from tests.tables.test_verdicts import SPGNET

    for name in ("params.yaml", "params.schema.yaml", "README.md"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    assert main(["reproduced", "--keep"]) == 2
    assert "reports/tables/verdicts.csv: not there; run: repose tables" in capsys.readouterr().err

    def row(variant: str) -> str:
        assert main(["reproduced"]) == 0
        return next(line for line in Path("README.md").read_text().splitlines() if line.startswith(f"| `{variant}` |"))

    assert "`spgnet` not calibrated" in row("spgnet")
    layout.TABLES.mkdir(parents=True)
    for one, said in (
        (SPGNET, "calibrated: SSIM by `spgnet`"),
        (SPGNET._replace(recipe_version="0"), "not calibrated"),
    ):
        with layout.CALIBRATED.open("w", newline="") as handle:
            csv.writer(handle).writerows([verdicts.Calibration._fields, one])
        assert said in row("spgnet")
    base = dict.fromkeys(set(reproduced.KEPT) - {"seeds", "mean"}, "") | {
        "dataset": "deepfashion",
        "variant": "spgnet-seed1",
        "kind": "trained",
    }
    rows = [
        base | {"column": "SSIM", "verdict": verdicts.REPRODUCED},
        base | {"column": "FID", "verdict": verdicts.NOT_COMPARABLE},
        base | {"column": "SSIM", "verdict": verdicts.WORSE, "kind": "outside", "variant": "Mine"},
    ]
    with (layout.TABLES / "verdicts.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert main(["reproduced", "--keep"]) == 0
    assert row("spgnet").endswith("| SSIM reproduced (DeepFashion) |")
    assert [one["variant"] for one in reproduced.kept()] == ["spgnet-seed1"]
    Path("README.md").write_text("nothing")
    assert main(["reproduced"]) == 2
    assert "are gone; restore them" in capsys.readouterr().err
