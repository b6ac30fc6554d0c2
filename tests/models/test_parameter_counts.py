"""How many parameters each network has, beside the one that its authors released, built from their code.

Where ours has fewer, the difference is derived from ours, and the row says what is missing. Not here: networks whose
code was never released (SPIG, SPGNet's stage one, SPT's H_S, Soft-Gated Warping-GAN) or that are replaced by another
kind (SPT's and SPGNet's pretrained pose and flow networks); and Lightweight OpenPose, which runs as it was published.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import nn

from models.variants import COMPONENTS, VARIANTS

MARKET, FASHION = (128, 64), (256, 256)
CONVOLUTIONS = nn.Conv2d | nn.ConvTranspose2d
GFLA = "RenYurui/Global-Flow-Local-Attention 3afa8fe, "
PATN = "tengteng95/Pose-Transfer 281ee2d, "
SPGNET = "cszy98/SPGNet 3c1f6b5, "
DEFGAN = "AliaksandrSiarohin/pose-gan 8693ec4, "
VUNET = "CompVis/vunet e66450c, "
SPT = "SijieSong/person_generation_spt a730506, "


def nothing(network: nn.Module) -> int:
    return 0


def biases(network: nn.Module) -> int:
    """Those before a norm, which would cancel them: one an output of our convolutions without bias."""
    return sum(m.out_channels for m in network.modules() if isinstance(m, CONVOLUTIONS) and m.bias is None)


def biases_of_gfla(network: nn.Module) -> int:
    """The attentions' first layer is cut in two here, and only one half has the bias."""
    return biases(network) - sum(attention.source.out_channels for attention in network.attention.values())


def biases_and_idle_block(network: nn.Module) -> int:
    """The source's last encoder block, which feeds nothing at 128x64: two norms, 4x4 and 3x3 with biases."""
    first, second = 128, 256
    idle = 2 * (first + second) + (16 * first * second + second) + (9 * second * second + second)
    return biases_of_gfla(network) + idle


def biases_of_style(network: nn.Module) -> int:
    return biases(network.style)


def end_of_enc_down(network: nn.Module) -> int:
    """What feeds nothing, behind the last latent: residual blocks joined by 256 and by 128, and a doubling between."""
    narrow, conv = 128 + 2, 2 * 128 * 9 + 2  # an output's weights, its gain and its bias
    joined = [128 * (2 * 128 + 2 + conv), 128 * (narrow + conv)]
    return sum(joined) + 4 * 128 * (128 * 9 + 2)


@dataclass(frozen=True)
class Row:
    entry: str
    size: tuple[int, int]
    network: str  # of the objective, and a submodule of it
    released: int
    code: str
    missing: Callable[[nn.Module], int] = nothing  # parameters of the released network that ours leaves out
    apart: str = ""  # a submodule that is a network of its own in the paper


ROWS = [
    Row("gfla", MARKET, "generator", 12_926_471, GFLA + "PoseGenerator", biases_and_idle_block),
    Row("gfla", FASHION, "generator", 14_047_395, GFLA + "PoseGenerator", biases_of_gfla),
    Row("gfla_flow", MARKET, "flow", 6_604_753, GFLA + "PoseFlowNet", biases),
    Row("gfla_flow", FASHION, "flow", 6_608_212, GFLA + "PoseFlowNet", biases),
    Row("gfla", MARKET, "discriminator", 238_209, GFLA + "ResDiscriminator, 3 layers"),
    Row("gfla", FASHION, "discriminator", 664_577, GFLA + "ResDiscriminator, 4 layers"),
    Row("spig", MARKET, "discriminator", 238_209, GFLA + "ResDiscriminator, 3 layers"),
    Row("spig", FASHION, "discriminator", 664_577, GFLA + "ResDiscriminator, 4 layers"),
    Row("patn", MARKET, "generator", 41_365_763, PATN + "PATNetwork, batch norm"),
    Row("patn", FASHION, "generator", 41_358_019, PATN + "PATNetwork, instance norm", biases),
    Row("patn", MARKET, "appearance", 3_930_368, PATN + "ResnetDiscriminator, 6 channels"),
    Row("patn", FASHION, "appearance", 3_928_384, PATN + "ResnetDiscriminator, 6 channels", biases),
    Row("patn", MARKET, "shape", 3_977_408, PATN + "ResnetDiscriminator, 21 channels"),
    Row("patn", FASHION, "shape", 3_975_424, PATN + "ResnetDiscriminator, 21 channels", biases),
    Row("def_gan", MARKET, "generator", 61_109_085, DEFGAN + "make_generator, 6 scales"),
    Row("def_gan", FASHION, "generator", 82_080_611, DEFGAN + "make_generator, 7 scales"),
    Row("def_gan", MARKET, "discriminator", 2_803_782, DEFGAN + "make_discriminator, disc_type call"),
    Row("def_gan", FASHION, "discriminator", 2_803_782, DEFGAN + "make_discriminator, disc_type call"),
    Row("vunet", MARKET, "generator", 47_419_270, VUNET + "market.yaml, all five models", end_of_enc_down),
    Row("vunet", FASHION, "generator", 47_272_966, VUNET + "deepfashion.yaml, all five models", end_of_enc_down),
    Row("spgnet", MARKET, "generator", 30_914_805, SPGNET + "SPG_net_market", biases_of_style, apart="parsing"),
    Row("spgnet", FASHION, "generator", 87_795_177, SPGNET + "SPG_net_deepfashion", biases_of_style, apart="parsing"),
    Row("spgnet", MARKET, "discriminator", 2_787_137, SPGNET + "NLayerDiscriminator, 24 channels"),
    Row("spgnet", FASHION, "discriminator", 2_787_137, SPGNET + "NLayerDiscriminator, 24 channels"),
    Row("spt_ts_gt", MARKET, "generator", 61_119_453, SPT + "Global_Generator"),
    Row("spt_ts_gt", FASHION, "generator", 61_467_078, SPT + "Local_Generator"),
    Row("spt_ts_gt", FASHION, "discriminator.image", 2_773_953, SPT + "NLayerDiscriminator, 12 channels", biases),
    Row("spt_ts_gt", FASHION, "discriminator.face", 2_767_873, SPT + "NLayerDiscriminator_fadein, 3 channels", biases),
]


@cache
def networks(entry: str, size: tuple[int, int]) -> dict[str, nn.Module]:
    """An entry's networks at full width, without memory for their weights."""
    made = (VARIANTS | COMPONENTS)[entry]
    with torch.device("meta"):
        network = made.build(*size, 1.0, **({"kappa": -0.1} if made.limb_maps else {}))
        return made.objective(network, *size, 1.0, made.phase.weights).networks()


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.entry}-{row.size[0]}-{row.network}" for row in ROWS])
def test_as_many_as_released(row):
    name, _, inner = row.network.partition(".")
    network = networks(row.entry, row.size)[name].get_submodule(inner)
    ours = count(network) - (count(network.get_submodule(row.apart)) if row.apart else 0)
    assert ours + row.missing(network) == row.released, row.code


def test_published_millions():
    """What papers print: GFLA's network for DeepFashion; PATN's with batch norm, and Def-GAN's beside it."""
    generator = networks("gfla", FASHION)["generator"]
    assert (count(generator) + biases_of_gfla(generator)) / 1e6 == pytest.approx(14.04, abs=0.01)
    assert count(networks("patn", MARKET)["generator"]) / 1e6 == pytest.approx(41.36, abs=0.01)
    assert count(networks("def_gan", FASHION)["generator"]) / 1e6 == pytest.approx(82.08, abs=0.01)
