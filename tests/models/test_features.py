"""The feature nets against torchvision's, and the promises of seeded weights."""

import copy

import pytest
import torch
import torchvision

from models.layers import features

NETS = tuple(features.NETS)
VGGS = {"vgg19": "E", "vgg16": "D"}  # torchvision's names of their plans


@pytest.fixture(scope="module")
def torchvision_nets() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    vgg = {name: torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs[key]) for name, key in VGGS.items()}
    return {**vgg, "squeezenet1_1": torchvision.models.squeezenet1_1().features}


def images(count: int = 2, height: int = 64, width: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def all_layers(net: str) -> tuple[str, ...]:
    spec = features.NETS[net]
    return tuple({*spec["correctness"].values(), *spec["content"], *spec["style"]})


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("prefix", ["", "features."])
def test_equals_torchvision_at_every_layer(net, prefix, torchvision_nets):
    theirs = torchvision_nets[net]
    weights = {prefix + key: value for key, value in theirs.state_dict().items()}
    weights["classifier.0.weight"] = torch.zeros(1)  # as in a whole net's file
    ours = features.build(net, weights).double()  # SqueezeNet's deep features are near 20, where float32 is coarse
    assert ours.provenance == "pretrained"
    found = ours(images().double(), all_layers(net))

    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (features.MEAN, features.STD))
    x = ((images().double() + 1) / 2 - mean) / std
    if net == "squeezenet1_1":
        x = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
    expected = {}
    for index, layer in enumerate(copy.deepcopy(theirs).double()):
        x = layer(x)
        expected[str(index)] = x.clone()  # their ReLU works in place
    for name in all_layers(net):
        scale = features.NETS[net]["rms"].get(name, 1.0)
        assert torch.allclose(found[name] * scale, expected[name], atol=1e-5), name


# Simonyan and Zisserman's names of the activations that the papers' losses compare.
COMPARED = {
    "correctness": {"vgg19": "3_1 4_1", "vgg16": "3_1 4_1"},
    "content": {"vgg19": "1_1 2_1 3_1 4_1 5_1", "vgg16": "1_1 2_1 3_1 4_1 5_1"},
    "style": {"vgg19": "2_2 3_4 4_4 5_2", "vgg16": "2_2 3_3 4_3 5_2"},
    "second": {"vgg19": "1_2 2_2 3_2 4_2 5_2", "vgg16": "1_2 2_2 3_2 4_2 5_2"},
}


@pytest.mark.parametrize("net", VGGS)
@pytest.mark.parametrize("what", COMPARED)
def test_compared_layers_are_the_activations_that_papers_name(what, net, torchvision_nets):
    names, block, number = {}, 1, 0
    for index, layer in enumerate(torchvision_nets[net]):
        if isinstance(layer, torch.nn.MaxPool2d):
            block, number = block + 1, 0
        elif isinstance(layer, torch.nn.ReLU):
            number += 1
            names[str(index)] = f"{block}_{number}"
    layers = features.NETS[net][what]
    layers = layers.values() if isinstance(layers, dict) else layers
    assert " ".join(names[layer] for layer in layers) == COMPARED[what][net]


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("size", [(128, 64), (64, 32), (256, 256)])
def test_correctness_layers_lie_on_the_flow_grids(net, size):
    model = features.build(net)
    found = model(images(1, *size), tuple(model.correctness.values()))
    for stride, layer in model.correctness.items():
        assert found[layer].shape[2:] == (size[0] // stride, size[1] // stride)


@pytest.mark.parametrize("net", NETS)
def test_layers_follow_a_relu(net):
    found = features.build(net)(images(), all_layers(net))
    for name, x in found.items():
        assert x.min() == 0, name
        assert x.max() > 0, name


@pytest.mark.parametrize("net", NETS)
def test_seeded_weights_are_deterministic_and_keep_the_scale(net):
    first, second, other = features.build(net, seed=3), features.build(net, seed=3), features.build(net, seed=4)
    assert first.provenance == "seeded"
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key])
    assert not torch.equal(first.features[0].weight, other.features[0].weight)
    torch.manual_seed(99)  # the global generator plays no part
    assert torch.equal(features.build(net, seed=3).features[0].weight, first.features[0].weight)
    for name, x in first(images(), all_layers(net)).items():
        assert 0.3 < x.square().mean().sqrt() < 5, name


@pytest.mark.parametrize("net", NETS)
def test_frozen_in_eval_and_gradients_reach_the_image(net):
    model = features.build(net)
    model.train()
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    x = images().requires_grad_()
    model(x, model.content)[model.content[-1]].sum().backward()
    assert x.grad.abs().sum() > 0


def test_runs_no_deeper_than_asked():
    model = features.build("vgg19")
    ran = []
    for name, module in model.features.named_children():
        module.register_forward_hook(lambda *_, name=name: ran.append(int(name)))
    model(images(), ("11", "6"))
    assert max(ran) == 11


@pytest.mark.parametrize("net", NETS)
def test_wrong_weights_are_refused(net, torchvision_nets):
    with pytest.raises(ValueError, match="no feature net"):
        features.build("resnet")
    weights = torchvision_nets[net].state_dict()
    missing = {key: value for key, value in weights.items() if not key.startswith("0.")}
    with pytest.raises(ValueError, match=r"0\.weight is missing"):
        features.build(net, missing)
    with pytest.raises(ValueError, match=r"0\.bias has shape \(1,\)"):
        features.build(net, {**weights, "0.bias": torch.zeros(1)})


@pytest.mark.parametrize(("layers", "more"), [(("4", "7"), ("1", "7", "12")), (("12",), ("1", "4")), (("4",), ())])
def test_a_pair_in_one_pass_is_its_images_one_by_one(layers, more):
    net = features.build("squeezenet1_1")
    source, target = images(4).split(2)
    of_source, of_target = net.pair(source, target, layers, more)
    assert set(of_source) == set(layers)
    assert set(of_target) == {*layers, *more}
    for part, found in ((source, of_source), (target, of_target)):
        for name, value in net(part, tuple(found)).items():
            assert torch.allclose(found[name], value, atol=1e-5)
            assert not found[name].requires_grad


def test_a_pair_runs_the_source_no_deeper_than_asked():
    net, batches = features.build("squeezenet1_1"), {}
    for name, module in net.features.named_children():
        module.register_forward_hook(lambda module, inputs, output, name=name: batches.update({name: len(output)}))
    net.pair(images(), images(), ("7",), ("12",))
    assert batches == {str(k): 4 if k <= 7 else 2 for k in range(13)}
