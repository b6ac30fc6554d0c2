"""Every ablation differs from the system that it is an ablation of in what it names, and in nothing else.

Both are built and described: the entry's settings, its schedule, every plain value in its objective and modules, and
its modules with their parameters. What differs must be what the table says, down to the last value.
"""

import functools
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from models.layers.part_flow import GROUPS, WHOLE_BODY
from models.layers.spectral import NormedConv2d, SpectralNorm
from models.variants import COMPONENTS, VARIANTS

LARGE, SMALL, SCALE = (256, 256), (128, 64), 0.05
ENTRIES = COMPONENTS | VARIANTS


class Ablation(NamedTuple):
    """Of which entry it is an ablation; the settings, and the innermost modules by their numbers of parameters, that
    differ: (the other's, its own), None where there is none.
    """

    full: str
    settings: dict[str, Any]
    modules: dict[str, Any]


FULL = {
    "spig_flow",
    "spatn",
    "spgnet_flow",
    "spt_parsing",
    "spt_detector",
    "sgw_parser",
    "sgw_matcher",
    "gfla_flow",
    "detector",
    "spig",
    "spgnet",
    "spt",
    "sgw",
    "patn",
    "gfla",
    "def_gan",
    "vunet",
}
ABLATIONS = {
    "spig_flow_whole": Ablation(
        "spig_flow",
        {
            "flow.members": ((3, 18, "sum 21"), (1, 18, "sum 18")),
            "flow.sub_poses": ((42, "sum 724"), (36, "sum 630")),
            "flow.groups": (GROUPS, WHOLE_BODY),
            "flow.trunk.down.0.branch.0.inputs": ([12, 18, 12], None),
            "flow.trunk.down.0.shortcut.1.inputs": ([12, 18, 12], None),
        },
        {
            "flow.heads.4": (1305, 435),
            "flow.heads.8": (1305, 435),
            "flow.trunk.down": (81552, 30176),
            "flow.trunk.skip": (20736, 6912),
            "flow.trunk.up": (62784, 20928),
        },
    ),
    "spatn_no_distance": Ablation(
        "spatn", {"entry.limb_maps": (True, False), "parsing.kappa": (-0.1, None)}, {"parsing.pose.0": (23520, 14112)}
    ),
    "spt_parsing_balanced": Ablation("spt_parsing", {"entry.data": ("pseudo_pairs", "balanced_pseudo_pairs")}, {}),
    "spt_parsing_true": Ablation("spt_parsing", {"entry.data": ("pseudo_pairs", "unpaired")}, {}),
    "sgw_parser_image": Ablation(
        "sgw_parser",
        {"parser.image": (False, True)},
        {"discriminator.levels.0": (7432, 7816), "parser.layers.0": (20656, 21832)},
    ),
    "sgw_matcher_pose": Ablation(
        "sgw_matcher", {"entry.labels": ("cihp-20", None)}, {"matcher.features.0": (1440, 1296)}
    ),
    "sgw_matcher_vgg16": Ablation(
        "sgw_matcher",
        {
            "entry.features": (None, "vgg16"),
            "matcher.matched.size": ((64, 64), (256, 256)),
            "matcher.size": ((64, 64), (256, 256)),
            "objective.given": (True, False),
            "phase.frozen": ((), ("features",)),
        },
        {
            "matcher.features.0": (1440, None),
            "matcher.features.1": (16, None),
            "matcher.features.2": (0, None),
            "matcher.features.3": (576, None),
            "matcher.features.4": (16, None),
            "matcher.features.5": (0, None),
            "matcher.features.6": (576, None),
            "matcher.features.7": (16, None),
            "matcher.features.8": (0, None),
            "matcher.features.9": (584, None),
            "matcher.features.layers": (None, 21328),
        },
    ),
    "spig_no_part": Ablation(
        "spig",
        {
            "generator.flow.members": ((3, 18, "sum 21"), (1, 18, "sum 18")),
            "generator.flow.sub_poses": ((42, "sum 724"), (36, "sum 630")),
            "generator.sub_poses": ((21, "sum 173"), (18, "sum 153")),
            "entry.components": (("spig_flow",), ("spig_flow_whole",)),
            "generator.flow.groups": (GROUPS, WHOLE_BODY),
            "generator.flow.trunk.down.0.branch.0.inputs": ([12, 18, 12], None),
            "generator.flow.trunk.down.0.shortcut.1.inputs": ([12, 18, 12], None),
            "generator.local.pose.0.branch.0.inputs": ([6, 9, 6], None),
            "generator.local.pose.0.shortcut.1.inputs": ([6, 9, 6], None),
            "generator.part": (True, False),
        },
        {
            "generator.flow.heads": (2610, 870),
            "generator.flow.trunk": (165072, 58016),
            "generator.fusion.0": (5776, 3472),
            "generator.local.hdcb": (3504, 1168),
            "generator.local.image": (8088, 2696),
            "generator.local.pose": (9720, 4736),
        },
    ),
    "spig_no_hdcb": Ablation("spig", {}, {"generator.local.hdcb": (3504, 0)}),
    "spig_no_pnb": Ablation("spig", {"generator.pnb.sizes": ((4, 6), None)}, {"generator.pnb.blocks": (1072, None)}),
    "spgnet_sequential": Ablation("spgnet", {"objective.true_parsing": (True, False)}, {}),
    "spgnet_joint": Ablation(
        "spgnet",
        {
            "generator.soft_parsing": (False, True),
            "objective.true_parsing": (True, False),
            "phase.frozen": (("parsing", "flow"), ("flow",)),
            "phase.weights": (
                {"l1": 1.0, "perceptual": 0.125, "adversarial": 0.01},
                {"l1": 1.0, "perceptual": 0.125, "adversarial": 0.01, "parsing": 1.0},
            ),
        },
        {},
    ),
    "spgnet_no_distance": Ablation(
        "spgnet",
        {
            "entry.components": (("spatn",), ("spatn_no_distance",)),
            "entry.limb_maps": (True, False),
            "generator.parsing.kappa": (-0.1, None),
        },
        {"generator.parsing.pose": (29280, 19872)},
    ),
    "spgnet_one_block": Ablation(
        "spgnet",
        {
            "generator.norm.from_stack": ((17920, "sum 297147648"), (8960, "sum 76320384")),
            "generator.norm.to_stack": ((32256, "sum 417455360"), (16128, "sum 104361600")),
            "generator.decoder.0.regions.count": (4, 2),
            "generator.decoder.1.regions.count": (4, 2),
            "generator.decoder.2.regions.count": (4, 2),
            "generator.decoder.3.regions.count": (4, 2),
            "generator.decoder.4.regions.count": (4, 2),
            "generator.decoder.5.regions.count": (4, 2),
            "generator.decoder.6.regions.count": (4, 2),
            "generator.spg_blocks": (2, 1),
        },
        {
            "generator.decoder.0": (90090, 52150),
            "generator.decoder.1": (90090, 52150),
            "generator.decoder.2": (90090, 52150),
            "generator.decoder.3": (90090, 52150),
            "generator.decoder.4": (90090, 52150),
            "generator.decoder.5": (90090, 52150),
            "generator.decoder.6": (90090, 52150),
            "generator.deformation.0": (2624, 1312),
            "generator.deformation.1": (2624, 1312),
            "generator.deformation.2": (2624, 1312),
            "generator.deformation.3": (2624, 1312),
            "generator.deformation.4": (2624, 1312),
        },
    ),
    "spgnet_learned_flow": Ablation(
        "spgnet",
        {
            "generator.flow.net.members": (None, (1, 18, "sum 18")),
            "generator.flow.net.sub_poses": (None, (36, "sum 630")),
            "entry.components": (("spatn",), ("spatn", "spgnet_flow")),
            "generator.flow.net.groups": (None, WHOLE_BODY),
            "generator.flow.net.trunk.widths": (None, {4: 16, 8: 16}),
        },
        {"generator.flow.net": (None, 58886)},
    ),
    "spt_baseline": Ablation(
        "spt_ts_pred",
        {
            "generator.parsing.labels.from_lip20": ((20, "sum 77"), None),
            "generator.parsing.mask.ends": ((46, "sum 355"), None),
            "entry.components": (("spt_parsing",), ()),
            "entry.labels": ("lip-20", None),
            "generator.from_where": ("predicted", "none"),
            "generator.parsing.stride": (2, None),
            "objective.regions": ("semantic", "mask"),
            "phase.frozen": (("parsing",), ()),
        },
        {
            "generator.image.appearance": (29824, 29176),
            "generator.image.local": (9897, 8601),
            "generator.image.pose": (29608, 28960),
            "generator.parsing.classify": (2170, None),
            "generator.parsing.decoder": (92170, None),
            "generator.parsing.labels": (0, None),
            "generator.parsing.mask": (0, None),
            "generator.parsing.pose": (29032, None),
            "generator.parsing.semantic": (29752, None),
        },
    ),
    "spt_ts_pred": Ablation("spt", {"phase.thaw": ({"parsing": {"market1501": 0.8, "deepfashion": 0.8}}, {})}, {}),
    "spt_ts_gt": Ablation(
        "spt_ts_pred",
        {
            "generator.parsing.labels.from_lip20": ((20, "sum 77"), None),
            "generator.parsing.mask.ends": ((46, "sum 355"), None),
            "discriminator.sees_parsing": (False, True),  # both are true
            "entry.components": (("spt_parsing",), ()),
            "entry.given_target_parsing": (False, True),
            "generator.from_where": ("predicted", "given"),
            "generator.parsing.stride": (2, None),
            "phase.frozen": (("parsing",), ()),
        },
        {
            "discriminator.image.enter": (392, 1544),
            "generator.parsing.classify": (2170, None),
            "generator.parsing.decoder": (92170, None),
            "generator.parsing.labels": (0, None),
            "generator.parsing.mask": (0, None),
            "generator.parsing.pose": (29032, None),
            "generator.parsing.semantic": (29752, None),
        },
    ),
    "spt_ts_gt_training": Ablation("spt_ts_pred", {"entry.components": (("spt_parsing",), ("spt_parsing_true",))}, {}),
    "spt_balanced": Ablation("spt", {"entry.components": (("spt_parsing",), ("spt_parsing_balanced",))}, {}),
    "spt_log_loss": Ablation("spt", {"objective.error": ("least_squares", "logarithmic")}, {}),
    "spt_mask_style": Ablation("spt_ts_gt", {"objective.regions": ("semantic", "mask")}, {}),
    "spt_patch_style": Ablation("spt_ts_gt", {"objective.regions": ("semantic", "patch")}, {}),
    "spt_no_face": Ablation(
        "spt_ts_gt",
        {},
        {
            "discriminator.face.enter": (392, None),
            "discriminator.face.enter_full": (392, None),
            "discriminator.face.judge": (9601, None),
        },
    ),
    "sgw_no_parsing": Ablation(
        "sgw",
        {
            "entry.components": (("sgw_parser", "sgw_matcher"), ("sgw_matcher_pose",)),
            "entry.labels": ("cihp-20", None),
            "generator.parser.image": (False, None),
            "phase.frozen": (("parser", "matcher"), ("matcher",)),
        },
        {
            "discriminator.levels.0": (5640, 3080),
            "generator.appearance.0": (9032, 1192),
            "generator.matcher.features": (3224, 3080),
            "generator.parser.layers": (200164, None),
            "generator.pose.0": (14912, 7072),
        },
    ),
    "sgw_no_warp": Ablation(
        "sgw",
        {
            "entry.components": (("sgw_parser", "sgw_matcher"), ("sgw_parser",)),
            "generator.cells.size": ((64, 64), None),
            "generator.matcher.image.size": ((256, 256), None),
            "generator.matcher.matched.size": ((64, 64), None),
            "generator.matcher.size": ((64, 64), None),
            "phase.frozen": (("parser", "matcher"), ("parser",)),
        },
        {
            "generator.cells": (0, None),
            "generator.matcher.affine": (102758, None),
            "generator.matcher.compared": (0, None),
            "generator.matcher.features": (3224, None),
            "generator.matcher.image": (0, None),
            "generator.matcher.matched": (0, None),
            "generator.matcher.spline": (104306, None),
            "generator.warping.gate": (2080, None),
            "generator.warping.residual": (18560, None),
        },
    ),
    "sgw_no_gate": Ablation("sgw", {}, {"generator.warping.gate": (2080, None)}),
    "sgw_no_hierarchy": Ablation(
        "sgw",
        {
            "phase.weights": (
                {"adversarial": 1.0, "perceptual": 2.0, "hierarchy": 10.0},
                {"adversarial": 1.0, "perceptual": 2.0},
            )
        },
        {},
    ),
    "sgw_vgg16": Ablation(
        "sgw",
        {
            "entry.components": (("sgw_parser", "sgw_matcher"), ("sgw_parser", "sgw_matcher_vgg16")),
            "generator.matcher.matched.size": ((64, 64), (256, 256)),
            "generator.matcher.size": ((64, 64), (256, 256)),
        },
        {"generator.matcher.features": (3224, 21328)},
    ),
    "sgw_image": Ablation(
        "sgw",
        {
            "entry.components": (("sgw_parser", "sgw_matcher"), ("sgw_parser_image", "sgw_matcher")),
            "generator.parser.image": (False, True),
        },
        {"generator.parser.layers": (200164, 201340)},
    ),
}
PLAIN = bool | int | float | str | tuple | list | dict | range | type(None)


def plain(value: Any) -> bool:
    """Whether a value is a setting: numbers, names, functions, and collections of them."""
    if isinstance(value, dict):
        return all(map(plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(plain, value))
    return isinstance(value, PLAIN) or (callable(value) and not isinstance(value, nn.Module))


def shown(value: Any) -> Any:
    """Functions by name, so that two of one text are equal."""
    if isinstance(value, functools.partial):
        return (shown(value.func), value.args, shown(value.keywords))
    if isinstance(value, dict):
        return {key: shown(each) for key, each in value.items()}
    return getattr(value, "__qualname__", value) if callable(value) else value


def settings(owner: object, path: str) -> Iterator[tuple[str, Any]]:
    for name, value in vars(owner).items():
        if not name.startswith("_") and name != "training" and plain(value):
            yield f"{path}.{name}", shown(value)


@functools.cache
def described(name: str, size: tuple[int, int]) -> tuple[dict[str, Any], dict[str, tuple[str, int]]]:
    """An entry's settings by name, the shape and sum of the indices that its modules keep among them, and its modules
    to the third level by path: text and number of parameters.

    The text of a module of PyTorch states its settings.
    """
    entry = ENTRIES[name]
    torch.manual_seed(0)
    network = entry.build(*size, SCALE, **({"kappa": -0.1} if entry.limb_maps else {}))
    objective = entry.objective(network, *size, SCALE, entry.phase.weights)
    left_out = ("name", "row", "build", "objective", "phase", "departs")  # words, or looked into below
    found = {f"entry.{at.name}": shown(getattr(entry, at.name)) for at in fields(entry) if at.name not in left_out}
    found |= {f"phase.{at.name}": getattr(entry.phase, at.name) for at in fields(entry.phase)}
    found |= settings(objective, "objective")
    modules = {}
    if objective.weights == entry.phase.weights:
        del found["objective.weights"]
    for role, net in objective.networks().items():
        kept = net.named_buffers(prefix=role)
        kept = ((path, one) for path, one in kept if one.dim() and not one.is_floating_point())
        found |= {path: (*one.shape, f"sum {int(one.sum())}") for path, one in kept}
        for path, module in net.named_modules(prefix=role):
            if not type(module).__module__.startswith("torch") and not isinstance(module, NormedConv2d | SpectralNorm):
                found |= settings(module, path)  # a normed convolution is one of PyTorch's but for its weight
            if path.count(".") < 3:
                modules[path] = (str(module), sum(parameter.numel() for parameter in module.parameters()))
    return found, modules


def differences(full: str, name: str, size: tuple[int, int] = LARGE) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings that differ, and the innermost modules that do, by their numbers of parameters: (full's, its)."""
    (settings_a, modules_a), (settings_b, modules_b) = described(full, size), described(name, size)
    keys = [key for key in settings_a.keys() | settings_b.keys() if settings_a.get(key) != settings_b.get(key)]
    paths = [path for path in modules_a.keys() | modules_b.keys() if modules_a.get(path) != modules_b.get(path)]
    inner = [path for path in paths if not any(other.startswith(f"{path}.") for other in paths)]
    count = [{path: number for path, (_, number) in some.items()} for some in (modules_a, modules_b)]
    return (
        {key: (settings_a.get(key), settings_b.get(key)) for key in sorted(keys)},
        {path: (count[0].get(path), count[1].get(path)) for path in sorted(inner)},
    )


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_differs_in_what_it_names_and_in_nothing_else(name):
    expected = ABLATIONS[name]
    settings, modules = differences(expected.full, name)
    assert settings == expected.settings
    assert modules == expected.modules


def test_which_ablations_are_none_on_small_images():
    """Without a face loss below 256 pixels there is none to leave out."""
    same = [name for name, one in ABLATIONS.items() if differences(one.full, name, SMALL) == ({}, {})]
    assert same == ["spt_no_face"]


def test_every_trained_entry_is_a_whole_system_or_an_ablation():
    assert FULL | set(ABLATIONS) == {name for name, entry in ENTRIES.items() if entry.phase}
    assert not FULL & set(ABLATIONS)
