"""The two Inception networks of FID, KID and the Inception score: pytorch-fid's and torchvision's."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
import torchvision
from pytorch_fid.inception import FIDInceptionA, FIDInceptionC, FIDInceptionE_1, FIDInceptionE_2
from torch import nn
from torch.nn.functional import interpolate

from pipeline.metrics.networks import Undrawn, in_batches, load_weights, seed_weights

DIMENSIONS = 2048
CLASSES = 1008
SIZE = (299, 299)

Network = TypeVar("Network", bound=nn.Module)


class FidInception(torchvision.models.Inception3):
    """TensorFlow's 2015 Inception as pytorch-fid ports it: (N, 3, H, W) float in [0, 1] -> (N, 2048).

    pytorch-fid's own constructor always downloads its weights. Its network is torchvision's with nine blocks replaced
    and no classifier, so it is assembled here from pytorch-fid's block classes; a test checks that the two are equal.
    `classifier`: (1008, 2048), the last layer's weights, which the Inception score uses without their bias.
    """

    def __init__(self):
        super().__init__(num_classes=1, aux_logits=False, init_weights=False)
        self.Mixed_5b = FIDInceptionA(192, pool_features=32)
        self.Mixed_5c = FIDInceptionA(256, pool_features=64)
        self.Mixed_5d = FIDInceptionA(288, pool_features=64)
        self.Mixed_6b = FIDInceptionC(768, channels_7x7=128)
        self.Mixed_6c = FIDInceptionC(768, channels_7x7=160)
        self.Mixed_6d = FIDInceptionC(768, channels_7x7=160)
        self.Mixed_6e = FIDInceptionC(768, channels_7x7=192)
        self.Mixed_7b = FIDInceptionE_1(1280)
        self.Mixed_7c = FIDInceptionE_2(2048)
        self.fc = nn.Identity()
        self.register_buffer("classifier", torch.zeros(CLASSES, DIMENSIONS))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        resized = interpolate(images, size=SIZE, mode="bilinear", align_corners=False)
        return super().forward(2 * resized - 1)


class TorchvisionInception(torchvision.models.Inception3):
    """torchvision's ImageNet Inception as GFLA's script feeds it: (N, 3, H, W) float in [0, 1] -> (N, 2048).

    Images are resized to SIZE (bilinear), then converted from ImageNet's normalisation to [-1, 1] as torchvision
    does, although they were never normalised that way: the published numbers were made like this.
    """

    def __init__(self):
        super().__init__(num_classes=1, aux_logits=False, transform_input=True, init_weights=False)
        self.fc = nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(interpolate(images, size=SIZE, mode="bilinear", align_corners=False))


def inception_network(state_dict: Mapping[str, torch.Tensor] | None, seed: int = 0) -> FidInception:
    """The network in eval mode on the CPU; `provenance` is "published" or "seeded".

    state_dict: the tensors of pytorch-fid's `pt_inception-2015-12-05` file, or None for seeded weights. Raises
    UserError if the tensors do not fit.
    """
    given = None
    if state_dict is not None:
        given = {"classifier" if k == "fc.weight" else k: v for k, v in state_dict.items() if k != "fc.bias"}
    network = _ready(FidInception, given, seed, "FID Inception")
    if state_dict is None:
        generator = torch.Generator().manual_seed(seed)
        network.classifier.copy_(torch.randn(CLASSES, DIMENSIONS, generator=generator) / DIMENSIONS**0.5)
    return network


def torchvision_inception(state_dict: Mapping[str, torch.Tensor] | None, seed: int = 0) -> TorchvisionInception:
    """As `inception_network`. state_dict: of torchvision's `inception_v3`, whose two classifiers are ignored."""
    given = None
    if state_dict is not None:
        given = {k: v for k, v in state_dict.items() if not k.startswith(("fc.", "AuxLogits."))}
    return _ready(TorchvisionInception, given, seed, "torchvision Inception")


def _ready(kind: type[Network], state: Mapping[str, torch.Tensor] | None, seed: int, what: str) -> Network:
    with Undrawn():
        network = kind()
    if state is None:
        seed_weights(network, seed)
    else:
        load_weights(network, state, what)
    network.provenance = "seeded" if state is None else "published"
    # channels_last is a third faster on a CPU, and uint8 images come in that order anyway.
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def inception_features(network: FidInception | TorchvisionInception, images: np.ndarray) -> torch.Tensor:
    """(N, H, W, 3) RGB, uint8 or float32 in [0, 255] -> (N, 2048) float32 on the network's device."""
    device = next(network.parameters()).device
    return in_batches(lambda x: network(x.permute(0, 3, 1, 2).float() / 255), device, images)
