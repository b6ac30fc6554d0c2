"""What dropped batches change, on an archive of a few pictures."""

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import recipes
from pipeline.metrics.lpips import lpips_network
from pipeline.metrics.psnr import psnr


def test_the_last_pairs_by_name_are_dropped(tmp_path, monkeypatch, capsys):
    random, pictures = np.random.default_rng(0), {}
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for number in range(5):
            noise = random.integers(0, 50 + 40 * number, (64, 32, 3), dtype=np.uint8)
            pictures[f"{number}.png"] = noise
            archive.writestr(f"folder/{number}.png", cv2.imencode(".png", noise[..., ::-1])[1].tobytes())
    pairs = [("3.png", "4.png"), ("0.png", "1.png"), ("2.png", "1.png"), ("1.png", "0.png"), ("4.png", "4.png")]
    Path(tmp_path / "pairs.csv").write_text("from,to\n" + "".join(f"{a},{b}\n" for a, b in pairs))
    monkeypatch.setattr(recipes, "squeeze", lambda: lpips_network(None, net="squeeze"))
    monkeypatch.setattr(recipes, "BATCHES", (2, 4))
    recipes.dropped(tmp_path / "images.zip", tmp_path / "pairs.csv", 4)
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| `psnr`")).split("|")
    values = [psnr(pictures[a][None], pictures[b][None])[0] for a, b in sorted(pairs[:4])]
    assert float(row[2]) == pytest.approx(np.mean(values), abs=1e-5)
    assert float(row[3]) == 0  # four pairs fill two batches of two
    monkeypatch.setattr(recipes, "BATCHES", (3, 4))
    recipes.dropped(tmp_path / "images.zip", tmp_path / "pairs.csv", 4)
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| `psnr`")).split("|")
    assert float(row[3]) == pytest.approx(np.mean(values[:3]) - np.mean(values), abs=1e-5)
