"""Which network is updated first, as in each system's released code, and what the second then sees."""

import pytest
import torch

from models.layers import features
from models.variants import COMPONENTS, VARIANTS
from tests.figures import figures
from tests.models.test_spig import build

FIRST = ("spgnet", "gfla", "def_gan")  # families whose code updates the discriminator first


def test_the_families_whose_code_updates_the_discriminator_first():
    judged = {
        name: one.phase for name, one in (COMPONENTS | VARIANTS).items() if one.phase and one.phase.discriminators
    }
    assert {name for name, phase in judged.items() if phase.discriminators_first} == {
        name for name in judged if name.startswith(FIRST)
    }


@pytest.mark.parametrize("name", FIRST)
def test_the_generator_runs_once_and_is_judged_by_the_updated_discriminator(name, one_thread):
    _, objective, _ = build(name, 64, 32)
    net, batch = features.build("squeezenet1_1"), figures(2, 64, 32, seed=0)
    output = objective.generate(batch)
    first, same = objective.generator_losses(batch, net, output)
    assert same is output
    step = torch.optim.SGD(objective.discriminator.parameters(), lr=10.0)
    objective.discriminator_losses(batch, output)["discriminator"].backward()
    step.step()
    second, _ = objective.generator_losses(batch, net, output)
    assert torch.equal(*(terms["nearest" if name == "def_gan" else "l1"] for terms in (first, second)))
    assert second["adversarial"] != first["adversarial"]
