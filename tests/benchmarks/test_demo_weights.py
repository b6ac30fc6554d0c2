"""The weights that the demo starts from: they are what params.yaml says, fit its networks, and never saw its people."""

import torch
import yaml

from benchmarks import demo_weights
from models.variants import COMPONENTS, VARIANTS
from pipeline.datasets import synthetic
from pipeline.training import start
from tests.conftest import ROOT

PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
BLOCKS = {"spatn": PARAMS["pretrain"]["synthetic"]["spatn"], "spgnet": PARAMS["train"]["synthetic"]["spgnet"]}


def test_the_demo_starts_from_the_weights_in_the_box(monkeypatch):
    """SPGNet's first stage from a file of its own, so that its file may lack it."""
    monkeypatch.chdir(ROOT)
    files = sorted(demo_weights.PACKED.glob("*/*.safetensors"))
    assert [str(file.relative_to(ROOT)) for file in files] == sorted(block["start"] for block in BLOCKS.values())
    assert sum(file.stat().st_size for file in files) < 4e6
    for name, entry, apart in (("spatn", COMPONENTS["spatn"], []), ("spgnet", VARIANTS["spgnet"], ["parsing"])):
        block = BLOCKS[name]
        weights = start.read(block["start"], block["start_sha256"], name)
        assert weights.meta["settings"]["steps"] == weights.meta["step"]
        network = entry.build(64, 32, block["width"], kappa=weights.meta["kappa"])
        before = {key: value.clone() for key, value in network.state_dict().items()}
        start.give(network, weights, apart, name)
        after = network.state_dict()
        changed = {key for key, value in before.items() if not torch.equal(value, after[key])}
        assert {key for key in changed if key.startswith("parsing.")} == set()
        assert len(changed) > 0.8 * len([key for key in before if not key.startswith("parsing.")])
        assert all(value.isfinite().all() for value in after.values())


def test_nobody_in_the_demo_was_seen_by_the_weights():
    """Their people are drawn from another seed, and no two seeds share a person."""
    fetch = PARAMS["fetch"]["synthetic"]
    assert demo_weights.PEOPLE["seed"] != fetch["seed"]

    def people(seed: int, split: str, count: int) -> set[str]:
        return {repr(scene.identity) for scene in synthetic.scenes(seed, split, count, 1)}

    seen = people(demo_weights.PEOPLE["seed"], "train", 100)
    for split in ("train", "test"):
        assert not seen & people(fetch["seed"], split, fetch[f"{split}_identities"])


def test_packing_keeps_numbers_to_their_bits():
    kernel, bias, count = torch.randn(8, 4, 3, 3), torch.randn(8), torch.tensor(3)
    few = [demo_weights.in_few_bits(value) for value in (kernel, bias, count)]
    assert [value.element_size() for value in few] == [1, 2, 8]
    torch.testing.assert_close(few[0].float(), kernel, rtol=1 / 16, atol=2**-10)
    torch.testing.assert_close(few[1].float(), bias, rtol=2**-11, atol=1e-7)
