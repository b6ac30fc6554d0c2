"""PATN's blocks by closed forms, its layer table, its two data sets' settings and its losses."""

import io
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import patn
from models.layers import features, losses
from models.layers.schedule import Adam
from models.variants import VARIANTS
from pipeline.training import loop
from tests.figures import figures
from tests.models.test_spig import build, train

SCALE = 0.125
NORMS = nn.BatchNorm2d | nn.InstanceNorm2d


class Constant(nn.Module):
    """Gives `value` everywhere, whatever it is given, in its input's place."""

    def __init__(self, value: float):
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return torch.full((len(x), 8, *x.shape[-2:]), self.value)


@pytest.fixture(scope="module")
def net() -> features.Features:
    return features.build("squeezenet1_1")


# The block


@pytest.mark.parametrize(("logit", "share"), [(-200.0, 0.0), (0.0, 0.5), (200.0, 1.0)])
def test_attention_is_the_share_of_the_image_path(logit, share):
    torch.manual_seed(0)
    block = patn.PoseAttentionBlock(8, first=False, large=False).eval()
    image, pose = torch.randn(2, 8, 6, 5), torch.randn(2, 16, 6, 5)
    branch = block.image(image)
    block.pose = Constant(logit)
    found, joined = block(image, pose)
    assert torch.allclose(found, image + share * branch, atol=1e-6)
    assert torch.equal(joined, torch.cat([torch.full((2, 8, 6, 5), logit), found], dim=1))


def test_the_pose_path_ends_without_norm():
    """Twice the last weights and bias, twice the logits: a norm would take them back."""
    torch.manual_seed(0)
    block = patn.PoseAttentionBlock(8, first=True, large=True).eval()
    image, pose = torch.randn(1, 8, 6, 5), torch.randn(1, 8, 6, 5)
    before = block(image, pose)[1][:, :8]
    last = [module for module in block.pose if isinstance(module, nn.Conv2d)][-1]
    with torch.no_grad():
        last.weight.mul_(2)
        last.bias.mul_(2)
    assert torch.allclose(block(image, pose)[1][:, :8], 2 * before, atol=1e-6)


def test_the_image_path_by_hand():
    torch.manual_seed(0)
    block = patn.PoseAttentionBlock(4, first=True, large=True).eval()
    x = torch.randn(1, 4, 6, 5)

    def conv(x: Tensor, layer: nn.Conv2d) -> Tensor:
        return F.conv2d(F.pad(x, (1,) * 4, mode="reflect"), layer.weight)

    first, last = (module for module in block.image if isinstance(module, nn.Conv2d))
    expected = F.instance_norm(conv(F.relu(F.instance_norm(conv(x, first))), last))
    assert torch.allclose(block.image(x), expected, atol=1e-6)


# The networks


def table() -> Counter:
    """The released generator's convolutions: (inputs, outputs, kernel side)."""
    encoders = [(3, 64, 7), (36, 64, 7), *[(64, 128, 3), (128, 256, 3)] * 2]
    image_paths = [(256, 256, 3)] * 2 * 9
    pose_paths = [(256, 256, 3)] * 2 + [(512, 512, 3), (512, 256, 3)] * 8
    return Counter([*encoders, *image_paths, *pose_paths, (256, 128, 3), (128, 64, 3), (64, 3, 7)])


@pytest.mark.parametrize(("size", "millions"), [((128, 64), 41.366), ((256, 176), 41.348), ((256, 256), 41.348)])
def test_layers_are_the_published(size, millions):
    """The paper's 41.36 M parameters are those with batch norm (instance norm here has no weights)."""
    model = patn.PATN(*size)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert Counter((m.in_channels, m.out_channels, m.kernel_size[0]) for m in convs) == table()
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.0005)
    dropouts = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
    assert dropouts == [0.5] * 18


@pytest.mark.parametrize(
    ("height", "kind"),
    [(128, patn.BatchNorm), (224, patn.BatchNorm), (256, nn.InstanceNorm2d), (512, nn.InstanceNorm2d)],
)
def test_norm_follows_the_height(height, kind):
    objective = VARIANTS["patn"].objective(
        patn.PATN(height, 64, SCALE), height, 64, SCALE, VARIANTS["patn"].phase.weights
    )
    for network in (objective.generator, objective.appearance, objective.shape):
        norms = [m for m in network.modules() if isinstance(m, NORMS)]
        assert norms
        assert all(type(m) is kind for m in norms)


@pytest.mark.parametrize("size", [(128, 64), (256, 256)])
def test_both_sizes(size):
    torch.manual_seed(0)
    model = patn.PATN(*size, SCALE)
    batch = figures(2, *size, seed=0).without_target()
    with torch.no_grad():
        noisy = model(batch).image
        assert not torch.equal(noisy, model(batch).image)  # dropout
        model.eval()
        image = model(batch).image
        assert torch.equal(image, model(batch).image)
    assert image.shape == (2, 3, *size)
    assert image.isfinite().all()
    assert image.abs().max() <= 1


def test_running_statistics_decide_in_eval_mode():
    torch.manual_seed(0)
    model, batch = patn.PATN(64, 32, SCALE), figures(4, 64, 32, seed=0)
    for _ in range(20):
        model(batch)
    model.eval()
    with torch.no_grad():
        first = model(batch).image
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean += 0.5
        assert not torch.allclose(first, model(batch).image, atol=1e-3)


def test_discriminators_see_what_they_judge():
    _, objective, _ = build("patn")
    for network in objective.networks().values():
        network.eval()
    batch = figures(2, 64, 32, seed=0)
    maps = patn.batch_heatmaps(batch)[1]
    first = objective.judge(objective.shown(batch, batch.target, maps))
    assert {name: tuple(x.shape) for name, x in first.items()} == {
        **{"appearance": (2, 32, 16, 8), "shape": (2, 32, 16, 8)}
    }
    other_source = objective.judge(objective.shown(replace(batch, source=-batch.source), batch.target, maps))
    other_pose = objective.judge(objective.shown(batch, batch.target, maps.roll(5, dims=-1)))
    assert torch.equal(first["shape"], other_source["shape"])
    assert torch.equal(first["appearance"], other_pose["appearance"])
    assert not torch.equal(first["appearance"], other_source["appearance"])
    assert not torch.equal(first["shape"], other_pose["shape"])


@pytest.mark.parametrize("scale", [1.0, 0.125])
def test_initial_weights(scale):
    """N(0, 0.02) at full width, as the code's, and the same scale of signals at others; batch norms N(1, 0.02)."""
    torch.manual_seed(0)
    model = patn.PATN(64, 32, scale)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    for conv in convs:
        count = conv.weight.numel()
        assert conv.weight.std().item() == pytest.approx(0.02 / scale**0.5, rel=5 / (2 * count) ** 0.5)
        assert abs(conv.weight.mean().item()) < 5 * conv.weight.std().item() / count**0.5
    scales = torch.cat([m.weight for m in model.modules() if isinstance(m, nn.BatchNorm2d)])
    assert scales.mean().item() == pytest.approx(1, abs=0.1 / len(scales) ** 0.5)
    assert scales.std().item() == pytest.approx(0.02, rel=0.1)


# The pool of earlier fakes


def pass_on(pool: list[int], given: list[int], draws: list[list[float]], size: int) -> list[int]:
    """The released code's query, image by image: the first `size` are kept, then half are exchanged."""
    passed = []
    for image, odd, place in zip(given, *draws, strict=True):
        if len(pool) < size:
            pool.append(image)
        elif odd > 0.5:
            image, pool[int(place * size)] = pool[int(place * size)], image
        passed.append(image)
    return passed


def test_the_pool_exchanges_images_one_by_one():
    """Batches of 7 through a pool of 10: also an image of the same batch may come back, and one pool is not another."""
    pool, kept, seen, given = patn.ImagePool(10, 1, 2, 2), [], [], 0
    for step in range(40):
        images = list(range(given, given := given + 7))
        torch.manual_seed(step)
        draws = torch.rand(2, 7).tolist()
        torch.manual_seed(step)
        passed = pool(torch.tensor(images, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 1, 2, 2))
        assert passed[:, 0, 0, 0].tolist() == pass_on(kept, images, draws, 10)
        assert pool.images[: len(kept), 0, 1, 1].tolist() == kept
        seen += [step - image // 7 for image in passed[:, 0, 1, 0].long().tolist()]
    assert 0.45 < sum(age == 0 for age in seen) / len(seen) < 0.75
    assert max(seen) > 5


def market(seed: int) -> tuple[loop.Trainer, list]:
    """PATN's training at a sixteenth of its width, with a pool that is full after the first step, and four batches."""
    torch.manual_seed(seed)
    entry = VARIANTS["patn"]
    objective = entry.objective(entry.build(32, 32, 0.0625), 32, 32, 0.0625, entry.phase.weights)
    objective.pools = {name: patn.ImagePool(3, pool.images.shape[1], 32, 32) for name, pool in objective.pools.items()}
    where = {"work": Path("work"), "metrics": Path("metrics"), "settings": {}}
    given = {"batch": 4, "seed": 0, "precision": "fp32", "device": torch.device("cpu")}
    run = loop.Run("patn", entry.phase, steps=9, checkpoint_every=9, **given, **where)
    trainer = loop.Trainer(run, objective, features.build("squeezenet1_1"))
    return trainer, [figures(4, 32, 32, seed=step) for step in range(4)]


def test_a_resumed_run_goes_on_with_its_pool():
    """Two steps, the state through a file, and two more are four steps to the bit; without the pool they are not."""
    whole, batches = market(0)
    wanted = [whole.step(step, replace(batch)) for step, batch in enumerate(batches, start=1)]
    first, _ = market(0)
    assert [first.step(step, replace(batch)) for step, batch in enumerate(batches[:2], start=1)] == wanted[:2]
    file = io.BytesIO()
    torch.save(first.state(2), file)
    for empty in (False, True):
        file.seek(0)
        state = torch.load(file)
        second, _ = market(1)
        if empty:
            for pool in state["apart"][0].values():
                pool["images"].zero_()
        second.restore(state)
        found = [second.step(step, replace(batch)) for step, batch in enumerate(batches[2:], start=3)]
        assert (found == wanted[2:]) != empty


def test_each_process_keeps_its_own_pool():
    """The state that the first process writes holds every process's pool, and gives each its own back."""
    trainer, batches = market(0)
    trainer.step(1, replace(batches[0]))
    state = trainer.state(1)
    assert not state["networks"].keys() & set(trainer.run.phase.apart)
    other = {name: {**pool, "images": pool["images"] + 1} for name, pool in state["apart"][0].items()}
    second, _ = market(1)
    second.group = replace(second.group, rank=1)
    second.restore({**state, "apart": [*state["apart"], other], "rng": state["rng"] * 2})
    for name, pool in other.items():
        assert torch.equal(second.networks[name].images, pool["images"])
        assert second.networks[name].count == 4


def test_the_pool_is_the_discriminators_alone():
    """A fake of the pool changes no generator's term; DeepFashion's training has none."""
    _, objective, phase = build("patn")
    assert {pool.images.shape[0] for pool in objective.pools.values()} == {50}
    assert set(phase.apart) == {f"{name}_pool" for name in objective.pools}
    _, objective, _ = build("patn", 256, 32)
    assert set(objective.networks()) == {"generator", "appearance", "shape"}


# Losses


@pytest.mark.parametrize("height", [64, 256])
def test_losses_by_size(height, net):
    """Market-1501: 10 L1, 10 perceptual, 5 log loss; DeepFashion: 1, 1, 5 least squares; adversaries averaged."""
    _, objective, _ = build("patn", height, 32)
    objective.generator.eval()
    objective.appearance, objective.shape = Constant(0.25), Constant(-1.0)
    batch = figures(2, height, 32, seed=0)
    terms, output = objective.generator_losses(batch, net)
    layer = net.second[0]
    pair = [net(image, (layer,))[layer] for image in (output[0], batch.target)]
    factor = 1 if height == 256 else 10
    assert terms["l1"].item() == pytest.approx(factor * (output[0] - batch.target).abs().mean().item(), rel=1e-5)
    assert terms["perceptual"].item() == pytest.approx(factor * (pair[0] - pair[1]).abs().mean().item(), rel=1e-5)

    def side(logit: float, real: bool) -> float:
        if height == 256:
            return (logit - real) ** 2
        return math.log1p(math.exp(-logit if real else logit))

    assert terms["adversarial"].item() == pytest.approx(5 * (side(0.25, True) + side(-1.0, True)) / 2, rel=1e-5)
    other = objective.discriminator_losses(batch, output)
    for name, logit in (("appearance", 0.25), ("shape", -1.0)):
        assert other[name].item() == pytest.approx(5 * (side(logit, True) + side(logit, False)) / 2, rel=1e-5)


def test_the_perceptual_layer_is_relu1_2():
    layers = features.vgg_layers(4)
    index = int(features.NETS["vgg19"]["second"][0])
    assert [type(layer) for layer in layers[: index + 1]] == [nn.Conv2d, nn.ReLU] * 2


def test_published_schedule():
    phase = VARIANTS["patn"].phase
    for dataset, batch in (("market1501", 32), ("deepfashion", 7)):
        assert phase.batch[dataset] == batch
        assert phase.steps[dataset] * batch == 700 * 4000
    assert phase.decay_from * 700 == pytest.approx(500)


@pytest.mark.slow
def test_overfits_four_pairs(net):
    """All terms and both adversaries on 4 pairs, without dropout: L1 falls below 0.4 of grey images'. With a
    faster Adam with momentum, to get there in seconds.
    """
    _, objective, phase = build("patn")
    for module in objective.generator.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    objective.weights = {**phase.weights, "adversarial": 0.5}
    adam = dict.fromkeys(phase.optimisers, Adam(0.002, (0.9, 0.99)))
    batch = figures(4, 64, 32, seed=0)
    train(objective, replace(phase, optimisers=adam), [batch] * 60, net)
    objective.generator.eval()
    with torch.no_grad():
        generated = objective.generator(batch).image
    assert losses.l1(generated, batch.target) < 0.4 * batch.target.abs().mean()
