"""Every component and variant overfits eight pairs to a stated loss: 15 steps of the loop, 32x32, an eighth of
the width.

What is stated is the term that compares with a truth, as a share of its value at the first step; all others are left
out. `last layer` is where the same steps end when only the last layer learns, on one of the kind: a gradient lost on
its way through a network misses the stated share. Whether all terms together, and the adversary, beat a copy of the
source is asked in the file of each family.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from models.layers import blocks, features
from models.variants import COMPONENTS, VARIANTS, Adam
from pipeline.training import loop
from tests.figures import figures
from tests.models.test_spig import PHASES, build

SIZE, STEPS = (32, 32), 15
FAST, SLOW = Adam(0.004, (0.9, 0.99)), Adam(0.001, (0.9, 0.99))


@dataclass(frozen=True)
class Stated:
    """terms fall below `share` of their start."""

    terms: tuple[str, ...]
    share: float
    adam: Adam = FAST


KINDS = {
    "spig_flow": Stated(("sampling",), 0.5),  # last layer 0.68
    "spgnet_flow": Stated(("sampling",), 0.41),  # 0.45
    "gfla_flow": Stated(("sampling",), 0.36),  # 0.51
    "spatn": Stated(("cross_entropy",), 0.3),  # 0.36
    "sgw_parser": Stated(("cross_entropy",), 0.4, SLOW),  # 0.48
    "sgw_matcher": Stated(("affine", "spline"), 0.2, SLOW),  # 1.0 and 0.18: eight fixed warps
    "spt_parsing": Stated(("cross_entropy",), 0.52, SLOW),  # 0.63, on pseudo labels
    "spt_detector": Stated(("heatmap",), 0.5),
    "detector": Stated(("heatmap",), 0.5),  # 0.71
    "spig": Stated(("l1",), 0.85),  # 1.0
    "gfla": Stated(("l1",), 0.9),  # 0.94
    "patn": Stated(("l1",), 0.65, Adam(0.002, (0.5, 0.99))),  # 0.86
    "spgnet": Stated(("l1",), 0.6, Adam(0.002, (0.5, 0.99))),  # 0.81
    "vunet": Stated(("perceptual",), 0.3, SLOW),  # 0.71
    "def_gan": Stated(("nearest",), 0.6, Adam(0.002, (0.5, 0.99))),  # 0.74
    "sgw": Stated(("perceptual",), 0.75, SLOW),  # 0.78 (sgw_no_parsing), 0.81 (sgw_no_warp); it has no L1
    # Never sees a target: what its losses know is the source, drawn again on the way back from the other pose.
    "spt": Stated(("content",), 0.6, Adam(0.0005, (0.5, 0.99))),  # 0.89
}


def stated(name: str) -> Stated:
    """By the longest name that it begins with; of an entry that is not above, the first term must fall a little."""
    kinds = sorted((kind for kind in KINDS if name.startswith(kind)), key=len)
    return KINDS[kinds[-1]] if kinds else Stated(tuple((VARIANTS | COMPONENTS)[name].phase.weights)[:1], 0.95)


@pytest.fixture(scope="module")
def net() -> features.Features:
    return features.build("squeezenet1_1")


# Its features are VGG16's and stay as they are: random ones, which a test has, told it nothing in 15 steps.
UNSEEN = pytest.mark.xfail(reason="not seen to learn without VGG16's weights", strict=True)


def marks(name: str) -> list[pytest.MarkDecorator]:
    """Ablations, the same networks with a part left out, are in the slow tier."""
    return [pytest.mark.slow] * (name not in KINDS) + [UNSEEN] * (name == "sgw_matcher_vgg16")


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in PHASES])
def test_overfits_eight_pairs_to_a_stated_loss(name, net, tmp_path, one_thread):
    kind, spec = stated(name), (VARIANTS | COMPONENTS)[name]
    network, objective, phase = build(name, *SIZE)
    if name in ("gfla", "gfla_flow"):  # whose own weights start so small that 15 steps show nothing
        network.apply(blocks.initialise)
    weights = {term: weight * (term in kind.terms) for term, weight in phase.weights.items()}
    objective.weights = weights
    run = loop.Run(
        title=name,
        phase=replace(phase, weights=weights, optimisers=dict.fromkeys(phase.optimisers, kind.adam), decay_from=1.0),
        steps=STEPS,
        checkpoint_every=STEPS,
        batch=8,
        seed=0,
        precision="fp32",
        device=torch.device("cpu"),
        work=tmp_path,
        metrics=Path("unused"),
        settings={},
    )
    trainer, batch = loop.Trainer(run, objective, net), figures(8, *SIZE, seed=0)
    if spec.data in ("unpaired", "pseudo_pairs", "balanced_pseudo_pairs"):
        batch.target = None
    found = []
    for step in range(1, STEPS + 1):
        torch.manual_seed(0)  # the matchers draw their warps
        found.append(trainer.step(step, batch))
    for term in kind.terms:
        assert found[0][term] > 0
        assert found[-1][term] < kind.share * found[0][term], [round(row[term] / found[0][term], 2) for row in found]
