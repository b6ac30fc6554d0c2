"""A trained run in three lines of Python, as README has them."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from models.variants import VARIANTS
from pipeline.core import layout
from pipeline.core.errors import UserError
from pipeline.loading import checkpoints
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


def test_the_lines_of_the_readme(run):
    blocks = re.findall(r"```python\n(.+?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    code = next(block for block in blocks if "load_run" in block)
    assert len([line for line in code.splitlines() if line]) == 3
    known = {"source": tiny_dataset.picture(1, 0), "source_joints": joints(0), "target_joints": joints(2)}
    exec(code, known)
    network, _ = checkpoints.load(run / "checkpoints", 2)
    np.testing.assert_array_equal(known["picture"], drawn_by_hand(network, 2))
    assert (known["picture"].dtype, known["picture"].shape) == (np.uint8, (HEIGHT, WIDTH, 3))


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
    with pytest.raises(UserError, match="no trained run"):
        load_run(run.parent)
    with pytest.raises(UserError, match="no checkpoint of step 9; there are: 1, 2"):
        load_run(run, 9)


def test_the_room_of_training_is_light_until_it_is_asked():
    code = "import sys, pipeline.training as t; assert 'torch' not in sys.modules; assert t.load_run.__doc__"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    with pytest.raises(ImportError):
        from pipeline.training import load_nothing  # noqa: F401
