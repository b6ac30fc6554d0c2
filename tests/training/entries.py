"""Everything that is trained, small: a trainer in bf16 and random data, for tests of all entries at once."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from models.layers import features
from models.variants import COMPONENTS, VARIANTS
from pipeline.loading import arrays
from pipeline.training import loop
from tests.models.test_ablations import ABLATIONS

ENTRIES = {name: entry for name, entry in (COMPONENTS | VARIANTS).items() if entry.phase is not None}
SCALE, BATCH = 0.05, 2


class Case(NamedTuple):
    """An entry in training: images of a size, two steps in a row of a run of nine, and the first step that trains a
    frozen submodule.
    """

    entry: str
    size: tuple[int, int] = (128, 64)
    steps: tuple[int, int] = (1, 2)
    thaws: Mapping[str, int] = MappingProxyType({})


LARGE = (256, 256)
# Beyond every entry at 128x64: the networks that are others at 256x256, before, while and after SPT's enhancer is faded
# in, and its last part, which trains H_S, too.
CASES = {name: Case(name) for name in ENTRIES} | {
    "spig at 256": Case("spig", LARGE),
    "spgnet at 256": Case("spgnet", LARGE),
    "sgw at 256": Case("sgw", LARGE),
    "patn at 256": Case("patn", LARGE),
    "gfla_flow at 256": Case("gfla_flow", LARGE),
    "gfla at 256": Case("gfla", LARGE),
    "def_gan at 256": Case("def_gan", LARGE),
    "vunet at 256": Case("vunet", LARGE),
    "spt, H_S in training": Case("spt", thaws={"parsing": 1}),
    "spt at 256, alone": Case("spt", LARGE),
    "spt at 256, fading": Case("spt", LARGE, (5, 6)),
    "spt at 256, H_S in training": Case("spt", LARGE, (8, 9), {"parsing": 8}),
}


def cases(chosen: Callable[[Case], bool] = lambda case: True) -> list:
    """The names of cases as parameters of a test; ablations, and what is at 256x256, are marked as slow."""
    slow = [name for name, case in CASES.items() if case.entry in ABLATIONS or case.size == LARGE]
    return [
        pytest.param(name, marks=[pytest.mark.slow] * (name in slow)) for name in sorted(CASES) if chosen(CASES[name])
    ]


def thin(layers: list[nn.Module]) -> list[nn.Module]:
    """A net's plan with at most 16 channels: as many kernels, quicker."""

    def narrow(layer: nn.Module) -> nn.Module:
        if not isinstance(layer, nn.Conv2d):
            return layer
        return nn.Conv2d(min(layer.in_channels, 16), min(layer.out_channels, 16), 3, padding=1)

    return [narrow(layer) for layer in layers]


def made(case: Case, device: torch.device) -> tuple[loop.Trainer, arrays.ImageData]:
    """A trainer and random data of its kind."""
    entry, (height, width) = ENTRIES[case.entry], case.size
    torch.manual_seed(0)
    network = entry.build(height, width, SCALE, **({"kappa": -0.1} if entry.limb_maps else {}))
    objective = entry.objective(network, height, width, SCALE, entry.phase.weights)
    run = loop.Run(
        title=entry.name,
        phase=entry.phase,
        steps=9,
        checkpoint_every=9,
        batch=BATCH,
        seed=0,
        precision="bf16",
        device=device,
        work=Path("work"),
        metrics=Path("metrics"),
        settings={},
        thaws=case.thaws,
    )
    trainer = loop.Trainer(run, objective, features.build(entry.features) if entry.features else None)

    drawn, images = torch.Generator().manual_seed(1), 2 * BATCH
    pictures = torch.randint(0, 256, (images, 3, height, width), dtype=torch.uint8, generator=drawn)
    joints = torch.rand(images, 18, 2, generator=drawn) * torch.tensor([width - 1.0, height - 1.0])
    labels = torch.randint(0, 20, (images, height, width), dtype=torch.uint8, generator=drawn)
    valid = torch.rand(images, 18, generator=drawn) > 0.1
    fields = {
        "images": pictures.to(device),
        "joints": joints.to(device),
        "valid": valid.to(device),
        "labels": labels.to(device) if entry.needs_parsing else None,
        "ids": [str(number) for number in range(images)],
        "device": device,
    }
    if entry.data == "images":
        return trainer, arrays.ImageData(**fields)
    kind = arrays.PairData if entry.data == "pairs" else arrays.UnpairedData
    pairs = torch.arange(images).view(-1, 2)
    return trainer, kind(**fields, pairs=pairs, pair_index=torch.arange(BATCH))


class Casts(TorchDispatchMode):
    """Counts what is made of some weights in another precision."""

    def __init__(self, weights: Iterable[Tensor]):
        super().__init__()
        self.count, self.of = 0, {weight.data_ptr() for weight in weights}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.count += func is torch.ops.aten._to_copy.default and args[0].data_ptr() in self.of
        return func(*args, **kwargs or {})
