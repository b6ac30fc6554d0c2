"""Everything that is trained, small: a trainer in bf16 and random data, for tests of all entries at once."""

from pathlib import Path

import torch
from torch import nn

from models.layers import features
from models.variants import COMPONENTS, VARIANTS
from pipeline.loading import arrays
from pipeline.training import loop

ENTRIES = {name: entry for name, entry in (COMPONENTS | VARIANTS).items() if entry.phase is not None}
HEIGHT, WIDTH, SCALE, BATCH = 128, 64, 0.05, 2


def thin(layers: list[nn.Module]) -> list[nn.Module]:
    """A net's plan with at most 16 channels: as many kernels, quicker."""

    def narrow(layer: nn.Module) -> nn.Module:
        if not isinstance(layer, nn.Conv2d):
            return layer
        return nn.Conv2d(min(layer.in_channels, 16), min(layer.out_channels, 16), 3, padding=1)

    return [narrow(layer) for layer in layers]


def made(name: str, device: torch.device) -> tuple[loop.Trainer, arrays.ImageData]:
    """A trainer of an entry and random data of its kind."""
    entry = ENTRIES[name]
    torch.manual_seed(0)
    network = entry.build(HEIGHT, WIDTH, SCALE, **({"kappa": -0.1} if entry.limb_maps else {}))
    objective = entry.objective(network, HEIGHT, WIDTH, SCALE, entry.phase.weights)
    run = loop.Run(
        title=name,
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
    )
    trainer = loop.Trainer(run, objective, features.build(entry.features) if entry.features else None)

    drawn, images = torch.Generator().manual_seed(1), 2 * BATCH
    pictures = torch.randint(0, 256, (images, 3, HEIGHT, WIDTH), dtype=torch.uint8, generator=drawn)
    joints = torch.rand(images, 18, 2, generator=drawn) * torch.tensor([WIDTH - 1.0, HEIGHT - 1.0])
    labels = torch.randint(0, 20, (images, HEIGHT, WIDTH), dtype=torch.uint8, generator=drawn)
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
