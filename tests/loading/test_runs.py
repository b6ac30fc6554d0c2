"""A trained run in a few lines of Python, as README has them."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from models.variants import VARIANTS
from pipeline.core import layout, schema, store
from pipeline.core.errors import UserError
from pipeline.loading import checkpoints, runs
from pipeline.loading.pixels import as_bytes, as_floats
from pipeline.training import load_run
from tests import tiny_dataset
from tests.conftest import ROOT
from tests.scored_project import write_checkpoints
from tests.tiny_dataset import HEIGHT, WIDTH


@pytest.fixture
def run(tmp_path, monkeypatch, one_thread):
    """runs/synthetic/spig with checkpoints 1 and 2, and one that reads parsing: spt."""
    monkeypatch.chdir(tmp_path)
    for name in ("spig", "spt"):
        write_checkpoints("synthetic", name, "variant", VARIANTS[name].build(HEIGHT, WIDTH, 0.25), [1], ["steps"])
        checkpoints.save(layout.checkpoints("synthetic", name), 2, VARIANTS[name].build(HEIGHT, WIDTH, 0.25))
    return tmp_path / "runs/synthetic/spig"


def joints(view: int) -> np.ndarray:
    points, valid = tiny_dataset.joints(1, view)
    return np.where(valid[:, None], points, np.nan)


def drawn_by_hand(network, view: int) -> np.ndarray:
    from models.variants import Batch

    def posed(view: int):
        points, valid = (torch.from_numpy(array)[None] for array in tiny_dataset.joints(1, view))
        return torch.where(valid[..., None], points, 0.0), valid

    source = as_floats(torch.from_numpy(tiny_dataset.picture(1, 0)).permute(2, 0, 1)[None])
    with torch.no_grad():
        return as_bytes(network(Batch(source, None, *posed(0), *posed(view))).image)[0].numpy()


def test_the_lines_of_the_readme(tmp_path, monkeypatch, one_thread):
    """The people, joints and label maps are those of the data set."""
    tiny_dataset.write(tmp_path, parsing_source="own")
    monkeypatch.chdir(tmp_path)
    some = store.read_table(layout.pairs("synthetic")).to_pylist()
    store.write_table(layout.pairs("synthetic"), [row | {"split": "test"} for row in some], schema.PAIRS)
    network = VARIANTS["spgnet"].build(HEIGHT, WIDTH, 0.25, kappa=-0.1)
    write_checkpoints("synthetic", "spgnet", "variant", network, [1], ["steps"])
    blocks = re.findall(r"```python\n(.+?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    known = {}
    exec(next(block for block in blocks if "load_run" in block), known)
    source, target = known["source"], known["target"]
    expected = runs.as_picture(runs.look(known["run"], source, target).image)
    np.testing.assert_array_equal(known["picture"], expected)
    assert (known["picture"].dtype, known["picture"].shape) == (np.uint8, (HEIGHT, WIDTH, 3))
    np.testing.assert_array_equal(np.isfinite(source.points).all(axis=1), source.valid)


def test_a_run_draws_as_its_network_does(run):
    picture = load_run(run).draw(tiny_dataset.picture(1, 0), joints(0), joints(2))
    network, _ = checkpoints.load(run / "checkpoints", 2)
    np.testing.assert_array_equal(picture, drawn_by_hand(network, 2))


def test_a_run_is_its_network_its_entry_and_its_settings(run, monkeypatch):
    monkeypatch.chdir(run)
    for folder in (run, run / "checkpoints", "."):
        one = load_run(folder, step=1, device="cpu")
        assert (one.variant, one.dataset, one.step) == ("spig", "synthetic", 1)
        assert one.entry is VARIANTS["spig"]
        assert one.settings == {"width": 0.25}
        assert not one.generator.training
        assert not any(parameter.requires_grad for parameter in one.generator.parameters())


def test_what_a_run_cannot_draw_is_one_line(run):
    one = load_run(run)
    other = load_run(run.with_name("spt"))
    picture, maps = tiny_dataset.picture(1, 0), tiny_dataset.label_map(1, 0)
    with pytest.raises(UserError, match="trained for images of 64 x 32, source is 32 x 32"):
        one.draw(picture[:32], joints(0), joints(1))
    with pytest.raises(UserError, match="spt reads the source's parsing; give its label map too"):
        other.draw(picture, joints(0), joints(1))
    assert other.draw(picture, joints(0), joints(1), maps).shape == (HEIGHT, WIDTH, 3)
    there = f"trained variants: {run}, {run.with_name('spt')}$"
    for wrong in (run.parent, run.with_name("spgnet")):
        with pytest.raises(UserError, match=f"no trained run .*; {there}"):
            load_run(wrong)
    with pytest.raises(UserError, match=r"trained variants: runs/synthetic/spig, runs/synthetic/spt$"):
        load_run("runs/market1501/spig")
    with pytest.raises(UserError, match="no checkpoint of step 9; there are: 1, 2"):
        load_run(run, 9)


def test_the_room_of_training_is_light_until_it_is_asked():
    code = "import sys, pipeline.training as t; assert 'torch' not in sys.modules; assert t.load_run.__doc__"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    with pytest.raises(ImportError):
        from pipeline.training import load_nothing  # noqa: F401
