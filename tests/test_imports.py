"""What a stage imports: no more than it uses, so that it starts fast and runs where the rest is not installed."""

import json
import subprocess
import sys

import pytest

from tests import tiny_dataset

DATA_STAGES = (
    "fetch", "weights", "index", "keypoints", "parsing", "pairs", "pseudo_labels", "distance_maps", "describe"
)  # fmt: skip
# What pyproject.toml declares, but for torch (which wants jinja2), numpy, pyarrow, opencv, safetensors, rich, pyyaml
# and jsonschema.
ABSENT = (
    "openvino", "lpips", "pytorch_fid", "torchvision", "scipy", "skimage", "pandas", "PIL", "snakemake", "dvc",
)  # fmt: skip

WITHOUT = f"""
import importlib, json, sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in {ABSENT} else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
"""


def printed(code: str, *arguments: str, cwd=tiny_dataset.ROOT) -> str:
    """What a fresh Python prints last that finds none of ABSENT."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tiny_dataset.ROOT)!r})\n{WITHOUT}{code}"]
    result = subprocess.run([*command, *arguments], cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1] if result.stdout else ""


@pytest.mark.parametrize("stage", DATA_STAGES)
def test_a_data_stage_imports_only_what_it_uses(stage):
    """Every data set's module with it: `fetch` and `index` take the one that params.yaml names."""
    code = """
from pipeline import datasets
stage = sys.argv[1]
importlib.import_module(f"pipeline.stages.{stage}")
for name in datasets._MODULES:
    datasets.get(name)
print(json.dumps("torch" in sys.modules))
"""
    assert not json.loads(printed(code, stage))


@pytest.mark.parametrize(
    ("modules", "torch"),
    [(("metrics", "scoring.failures"), False), (("stages.reference", "stages.score", "commands.score_images"), True)],
)
def test_scoring_imports_a_metrics_package_when_it_is_scored(modules, torch):
    """And the names of metrics, which tables need, without a network."""
    code = """
for name in sys.argv[1:]:
    importlib.import_module(f"pipeline.{name}")
assert "torch._dynamo" not in sys.modules  # the compiler, which takes longer to load than the rest of torch
print(json.dumps("torch" in sys.modules))
"""
    assert json.loads(printed(code, *modules)) == torch


def test_a_component_that_is_not_trained_costs_no_import_of_torch(tmp_path):
    """`components` names more than any one run needs, and each is a job."""
    tiny_dataset.write_params(tmp_path, components={"spatn_no_distance": False}, variants={"spgnet": ["spgnet"]})
    code = """
from pipeline.__main__ import main
for stage in ("pretrain", "score_components"):
    assert main([stage, "--dataset", "synthetic", "--component", "spatn_no_distance"]) == 0
print(json.dumps("torch" in sys.modules))
"""
    assert not json.loads(printed(code, cwd=tmp_path))


def test_training_needs_no_package_of_scoring_or_reporting(tmp_path):
    tiny_dataset.write(tmp_path)
    tiny_dataset.write_params(tmp_path)
    code = """
from pipeline.__main__ import main
assert main(["train", "--dataset", "synthetic", "--variant", "patn"]) == 0
"""
    printed(code, cwd=tmp_path)
    assert (tmp_path / "runs/synthetic/patn/checkpoints/step-0000002.safetensors").exists()
