"""Two steps of everything that is trained, on a pretended GPU: the same values as on the CPU, no tensor on the wrong
side, and budgets of host waits and kernels, which only fall.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from models.layers import pose_maps
from pipeline.training import loop
from tests.fake_device import FakeCuda
from tests.training.entries import BATCH, CASES, Case, cases, made

pytestmark = pytest.mark.usefixtures("thin_features")

# By case: host waits and kernels (`FakeCuda.operations`) of one step in bf16 with its batch, from the second step on.
# Both are exact. They hardly depend on the batch and the networks' width.
BUDGET = {
    "spig_flow": (1, 700),
    "spig_flow_whole": (1, 667),
    "spatn": (1, 619),
    "spatn_no_distance": (1, 587),
    "spgnet_flow": (1, 667),
    "spt_parsing": (1, 764),
    "spt_parsing_balanced": (1, 764),
    "spt_parsing_true": (1, 764),
    "spt_detector": (1, 212),
    "sgw_parser": (1, 579),
    "sgw_parser_image": (1, 579),
    "sgw_matcher": (1, 454),
    "sgw_matcher_pose": (1, 473),
    "sgw_matcher_vgg16": (1, 338),
    "gfla_flow": (1, 602),
    "detector": (1, 212),
    "spig": (1, 2148),
    "spig_no_part": (1, 2020),
    "spig_no_hdcb": (1, 2125),
    "spig_no_pnb": (1, 2040),
    "spgnet": (1, 3184),
    "spgnet_sequential": (1, 3446),
    "spgnet_joint": (1, 3850),
    "spgnet_no_distance": (1, 3184),
    "spgnet_one_block": (1, 2757),
    "spgnet_learned_flow": (1, 3230),
    "spt_baseline": (1, 1833),
    "spt_ts_pred": (1, 2183),
    "spt_ts_gt": (1, 1833),
    "spt_ts_gt_training": (1, 2183),
    "spt": (1, 2183),
    "spt_balanced": (1, 2183),
    "spt_log_loss": (1, 2178),
    "spt_mask_style": (1, 1926),
    "spt_patch_style": (1, 1885),
    "spt_no_face": (1, 1833),
    "sgw": (1, 1123),
    "sgw_no_parsing": (1, 978),
    "sgw_no_warp": (1, 925),
    "sgw_no_gate": (1, 1099),
    "sgw_no_hierarchy": (1, 1043),
    "sgw_vgg16": (1, 1186),
    "sgw_image": (1, 1123),
    "patn": (1, 1584),
    "gfla": (1, 1899),
    "def_gan": (1, 1387),
    "vunet": (1, 3040),
    "spig at 256": (1, 2206),
    "spgnet at 256": (1, 4054),
    "sgw at 256": (1, 1123),
    "patn at 256": (1, 1969),
    "gfla_flow at 256": (1, 767),
    "gfla at 256": (1, 2347),
    "def_gan at 256": (1, 1516),
    "vunet at 256": (1, 2967),
    "spt, H_S in training": (1, 2702),
    "spt at 256, alone": (1, 2506),
    "spt at 256, fading": (1, 2873),
    "spt at 256, H_S in training": (1, 3406),
}
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@contextmanager
def sound_kernels(entry: str) -> Iterator[None]:
    """Without oneDNN for SPIG: its gradients of a grouped, dilated convolution in bf16 and channels_last are partly
    memory that nobody wrote. On a CPU we train in the contiguous layout, where they are right.
    """
    with torch.backends.mkldnn.flags(enabled=not entry.startswith("spig")):
        yield


def as_on_the_device(trainer: loop.Trainer) -> None:
    """Give the CPU the device's memory layout, so that it calls the same kernels."""
    trainer.layout = torch.channels_last
    for network in (*trainer.networks.values(), *filter(None, [trainer.features])):
        network.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", cases())
def test_two_steps_equal_those_of_the_cpu_within_the_budget(name):
    case, losses = CASES[name], []
    with sound_kernels(case.entry):
        with FakeCuda() as device:
            trainer, data = made(case, CUDA)
            for step in case.steps:
                device.clear()
                losses.append(trainer.step(step, data.batch(torch.arange(BATCH))))
            waits, kernels = sum(device.waits.values()), sum(device.operations.values())
            weights = {name: net.cpu().state_dict() for name, net in trainer.networks.items()}
        trainer, data = made(case, CPU)
        as_on_the_device(trainer)
        assert losses == [trainer.step(step, data.batch(torch.arange(BATCH))) for step in case.steps]
    for network, ours in weights.items():
        for key, value in trainer.networks[network].state_dict().items():
            assert torch.equal(ours[key], value), f"{network}.{key}"
    assert not {one for one in device.operations if "layer_norm" in one}  # CUDA's takes one block an image
    assert waits <= BUDGET[name][0], f"the host waits {waits} times:\n{device.where()}"
    assert kernels <= BUDGET[name][1], f"{kernels} kernels: {device.operations.most_common()}"


def test_every_case_has_a_budget():
    assert set(BUDGET) == set(CASES)


def planted(monkeypatch, fault) -> FakeCuda:
    """The step of a small entry on the device, with `fault` called on the joints whenever heatmaps are drawn."""
    real = pose_maps.heatmaps

    def faulty(joints, *rest, **options):
        fault(joints)
        return real(joints, *rest, **options)

    monkeypatch.setattr(pose_maps, "heatmaps", faulty)
    with FakeCuda() as device:
        trainer, data = made(Case("gfla_flow"), CUDA)
        device.clear()
        trainer.step(1, data.batch(torch.arange(BATCH)))
    return device


def test_a_planted_tensor_on_the_wrong_side_is_found(monkeypatch):
    with pytest.raises(RuntimeError, match="mul: tensors on cuda:0 and on the cpu"):
        planted(monkeypatch, lambda joints: joints * torch.ones(2))


def test_a_planted_call_of_numpy_is_found(monkeypatch):
    with pytest.raises(TypeError, match="cuda:0"):
        planted(monkeypatch, lambda joints: joints.numpy())


FAULTS = {
    "item": (lambda joints: joints.sum().item(), "_local_scalar_dense"),
    "truth of a tensor": (lambda joints: bool((joints > 0).all()), "_local_scalar_dense"),
    "list as an index": (lambda joints: joints[:, [0, 2]], "index from the host"),
    "assignment to a list": (
        lambda joints: joints.clone().__setitem__((slice(None), (0, 2)), 1.0),
        "index from the host",
    ),
    "mask as an index": (lambda joints: joints[joints > 3], "mask as an index"),
    "numbers": (lambda joints: torch.tensor([1.0, 2.0], device=joints.device), "tensor of numbers"),
    "new_tensor": (lambda joints: joints.new_tensor([1.0, 2.0]), "new_tensor of numbers"),
    "copy": (lambda joints: torch.ones(2).to(joints.device, non_blocking=True), "copy to the device"),
    "copy back": (lambda joints: joints.cpu(), "copy to the host"),
    "copy into": (lambda joints: joints.clone().copy_(torch.ones(2)), "copy_ between host and device"),
    "checked inverse": (lambda joints: torch.linalg.inv(joints[:, :2]), "_linalg_check_errors"),
    "synchronize": (lambda joints: torch.cuda.current_stream().synchronize(), "synchronize"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_wait_is_found_with_its_line(monkeypatch, name):
    fault, why = FAULTS[name]
    before = planted(monkeypatch, lambda joints: None).waits
    found = planted(monkeypatch, fault).waits - before
    assert {why for why, _ in found} == {why}
    assert all("pose_maps.py:" in line for _, line in found)


def test_what_needs_no_wait_is_not_counted_as_one(monkeypatch):
    def harmless(joints):
        pinned = torch.ones(2).pin_memory()
        there = pinned.to(joints.device, non_blocking=True)
        joints.clone().copy_(pinned, non_blocking=True)
        back = (joints + there).to("cpu", non_blocking=True)
        assert (back.is_pinned(), there.is_pinned()) == (True, False)
        torch.linalg.inv_ex(joints[:, :2])
        torch.where(joints > 3, joints, 0.0)[:, 2:4] = 5.0

    before = planted(monkeypatch, lambda joints: None).waits
    assert planted(monkeypatch, harmless).waits == before


def test_kernels_are_counted_as_they_are_documented():
    with FakeCuda() as device:
        x = torch.ones(2, 3, 8, 8).to(CUDA)
        norm = nn.BatchNorm2d(4).to(CUDA)
        convolution = nn.Conv2d(3, 4, 3).to(CUDA)
        device.clear()
        norm(convolution(x)).flatten(1)[:, :5].sum().backward()
    forward = {"convolution": 2, "native_batch_norm": 2, "sum": 1}
    assert {name: device.operations[name] for name in forward} == forward
    assert device.operations["convolution_backward"] == 2  # of weight and bias: the images need no gradient
    assert device.operations["view"] == device.operations["slice"] == 0
    assert not device.waits
