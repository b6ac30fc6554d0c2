import copy
import signal
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from models.layers import features
from models.layers.blocks import Batch, PatchDiscriminator
from models.layers.schedule import Jitter, Move
from models.variants import COMPONENTS, Adam, Phase
from pipeline.core.errors import UserError
from pipeline.loading import checkpoints
from pipeline.training import loop, losses
from tests.fake_device import FakeCuda
from tests.figures import figures
from tests.models.test_spig import build, take, with_gaps
from tests.training.entries import Casts

CPU = torch.device("cpu")
PHASE = Phase(
    generators=("generator",),
    discriminators=("discriminator",),
    optimisers={"generator": Adam(0.01, (0.5, 0.9)), "discriminator": Adam(0.02, (0.0, 0.99))},
    weights={},
    batch={},
    steps={},
)


class Noise:
    """Eleven pairs of random images."""

    unit, resident = "pairs", True

    def __init__(self):
        self.images = torch.randn(2, 11, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return 11

    def batch(self, rows):
        nothing = torch.zeros(len(rows), 18, 2)
        return Batch(
            self.images[0, rows], self.images[1, rows], nothing, nothing[..., 0] > 0, nothing, nothing[..., 0] > 0
        )


class Game:
    """A small adversarial objective: batch norm, dropout, and a network that must stay as it is."""

    def __init__(self, at_step=None):
        torch.manual_seed(4)
        self.generator = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 3, 1)
        )
        self.discriminator = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3))
        self.frozen = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
        self.calls, self.at_step = 0, at_step or {}

    def networks(self):
        return {"generator": self.generator, "discriminator": self.discriminator, "frozen": self.frozen}

    def generator_losses(self, batch, features):
        self.calls += 1
        self.at_step.get(self.calls, lambda game: None)(self)
        made = self.generator(batch.source)
        terms = {
            "l1": (made.float() - batch.target).abs().mean(),
            "seen": (self.frozen(made) - self.frozen(batch.target)).float().square().mean(),
            "adversarial": -self.discriminator(made).float().mean(),
        }
        return {name: getattr(self, "factor", {}).get(name, 1.0) * term for name, term in terms.items()}, made

    def discriminator_losses(self, batch, made):
        real, fake = self.discriminator(batch.target).float(), self.discriminator(made.detach()).float()
        return {"discriminator": (1 - real).relu().mean() + (1 + fake).relu().mean()}


@pytest.fixture(autouse=True)
def _one_thread():
    """These networks are too small to share: waiting threads only slow a busy machine down."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(tmp_path):
    return loop.Run(
        title="train test game",
        phase=PHASE,
        steps=7,
        checkpoint_every=3,
        batch=4,
        seed=1,
        precision="fp32",
        device=CPU,
        work=tmp_path / "work",
        metrics=tmp_path / "logs/game.jsonl",
        settings={"width": 1.0},
    )


def sent(batch, device):
    return Batch(*(None if one is None else one.to(device) for one in vars(batch).values()))


def named(tree, prefix=""):
    """The tensors in nested dictionaries and lists, with their places."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from [(f"{prefix}{key}", value)] if isinstance(value, torch.Tensor) else named(value, f"{prefix}{key}.")


def files(run):
    return {path.name: path.read_bytes() for path in (run.work / "checkpoints").iterdir()}


def logged(run):
    return list(losses.metrics(run.metrics))


@pytest.fixture
def uninterrupted(run, tmp_path):
    whole = replace(run, work=tmp_path / "whole", metrics=tmp_path / "whole.jsonl")
    loop.train(whole, Game(), None, Noise())
    return files(whole), logged(whole)


def test_steps_equal_a_loop_written_out_with_plain_adam(run):
    """The oracle: the textbook alternation, no fused kernels, no freezing, gradients thrown away by hand."""
    data, order = Noise(), loop.BatchOrder(11, run.batch, run.seed)
    ours, theirs = Game(), Game()
    trainer = loop.Trainer(run, ours, None)
    theirs.frozen.eval()
    generator = torch.optim.Adam(theirs.generator.parameters(), 0.01, (0.5, 0.9), foreach=False)
    discriminator = torch.optim.Adam(theirs.discriminator.parameters(), 0.02, (0.0, 0.99), foreach=False)
    for step in (1, 2, 3):
        batch = data.batch(order.rows(step))
        torch.manual_seed(step)
        terms = trainer.step(step, batch)
        torch.manual_seed(step)
        losses, made = theirs.generator_losses(batch, None)
        generator.zero_grad()
        sum(losses.values()).backward()
        generator.step()
        judged = theirs.discriminator_losses(batch, made)
        discriminator.zero_grad()
        sum(judged.values()).backward()
        discriminator.step()
        wanted = {name: loss.item() for name, loss in {**losses, **judged}.items()}
        assert terms == pytest.approx(wanted, rel=1e-5, abs=1e-7)
    for name, network in ours.networks().items():
        torch.testing.assert_close(network.state_dict(), theirs.networks()[name].state_dict())


class JudgedFirst(Game):
    """For `discriminators_first`; dropout and batch norm would show a second forward."""

    def generate(self, batch):
        return self.generator(batch.source)

    def generator_losses(self, batch, features, made=None):
        self.calls += 1
        return {
            "l1": (made.float() - batch.target).abs().mean(),
            "adversarial": -self.discriminator(made).float().mean(),
        }, made


def test_discriminators_first_equal_a_loop_written_out(run):
    """As GFLA's and SPGNet's released code goes: one forward, the discriminator's step on it, the generator's against
    the new discriminator.
    """
    data, order = Noise(), loop.BatchOrder(11, run.batch, run.seed)
    ours, theirs = JudgedFirst(), JudgedFirst()
    trainer = loop.Trainer(replace(run, phase=replace(PHASE, discriminators_first=True)), ours, None)
    generator = torch.optim.Adam(theirs.generator.parameters(), 0.01, (0.5, 0.9), foreach=False)
    discriminator = torch.optim.Adam(theirs.discriminator.parameters(), 0.02, (0.0, 0.99), foreach=False)
    for step in (1, 2, 3):
        batch = data.batch(order.rows(step))
        torch.manual_seed(step)
        terms = trainer.step(step, batch)
        torch.manual_seed(step)
        made = theirs.generator(batch.source)
        judged = theirs.discriminator_losses(batch, made)["discriminator"]
        discriminator.zero_grad()
        judged.backward()
        discriminator.step()
        losses, _ = theirs.generator_losses(batch, None, made)
        generator.zero_grad()
        sum(losses.values()).backward()
        generator.step()
        wanted = {name: loss.item() for name, loss in {**losses, "discriminator": judged}.items()}
        assert terms == pytest.approx(wanted, rel=1e-5, abs=1e-7)
    for name, network in ours.networks().items():
        torch.testing.assert_close(network.state_dict(), theirs.networks()[name].state_dict())


def test_networks_outside_the_phase_stay_as_they_are(run):
    game = Game()
    before = {name: value.clone() for name, value in game.frozen.state_dict().items()}
    moved = game.discriminator[0].weight.clone()
    loop.train(run, game, None, Noise())
    assert all(torch.equal(before[name], value) for name, value in game.frozen.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in game.frozen.parameters())
    assert not torch.equal(moved, game.discriminator[0].weight)


def test_frozen_parts_of_the_generator_stay_as_they_are(run):
    """Here its batch norm: neither its weights nor its statistics move, and the rest of the generator does."""
    game = Game()
    before = {name: value.clone() for name, value in game.generator.state_dict().items()}
    loop.train(replace(run, phase=replace(PHASE, frozen=("1",))), game, None, Noise())
    after = game.generator.state_dict()
    moved = {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == {"0", "3"}
    assert not game.generator[1].training
    assert all(parameter.grad is None for parameter in game.generator[1].parameters())


def test_a_frozen_part_trains_once_it_is_thawed(run):
    """Still before its step, as if never frozen from then on; the optimiser holds it all along."""
    game = Game()
    game.progress = None
    thawing = replace(run, phase=replace(PHASE, frozen=("0", "1")), thaws={"1": 3})
    trainer = loop.Trainer(thawing, game, None)
    before = {name: value.clone() for name, value in game.generator.state_dict().items()}

    def moved():
        after = game.generator.state_dict()
        return {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}

    for step in (1, 2):
        trainer.step(step, Noise().batch(torch.arange(4)))
        assert moved() == {"3"}
        assert game.generator[1].weight.grad is None
        assert not game.generator[1].training
        assert game.progress == (step - 1) / 7
    trainer.step(3, Noise().batch(torch.arange(4)))
    assert moved() == {"1", "3"}
    assert game.generator[1].weight.grad.any()
    assert game.generator[1].training
    assert not game.generator[0].training
    held = {id(parameter) for parameter in trainer.optimisers["generator"].param_groups[0]["params"]}
    assert held == {id(parameter) for part in (1, 3) for parameter in game.generator[part].parameters()}
    assert trainer.optimisers["generator"].state[game.generator[1].weight]["step"] == 1


def test_a_frozen_part_is_that_of_the_state_that_is_restored(run):
    """Also where steps in bf16 were made before."""
    frozen = replace(run, phase=replace(PHASE, frozen=("0",)), precision="bf16")
    batch, trainers = Noise().batch(torch.arange(4)), []
    for _ in range(2):
        trainers.append(loop.Trainer(frozen, Game(), None))
    with torch.no_grad():
        trainers[0].generator[0].weight.neg_()
    state = copy.deepcopy(trainers[0].state(0))
    trainers[1].step(1, batch)
    found = []
    for trainer in trainers:
        trainer.restore(state)
        found.append(trainer.step(1, batch))
    assert found[0] == found[1]


def test_learning_rates_fall_linearly_to_zero(run):
    """The published rate up to `decay_from`, then down by equal amounts: the step after the last would have 0."""
    trainer = loop.Trainer(replace(run, steps=8, phase=replace(PHASE, decay_from=0.5)), Game(), None)
    rates = []
    for step in range(1, 9):
        trainer.step(step, Noise().batch(torch.arange(4)))
        rates.append([trainer.optimisers[name].param_groups[0]["lr"] for name in PHASE.optimisers])
    for column, adam in zip(zip(*rates, strict=True), PHASE.optimisers.values(), strict=True):
        assert column == pytest.approx([adam.lr * share for share in (1, 1, 1, 1, 1, 0.75, 0.5, 0.25)])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("at", [3, 4, 5, 7])
def test_a_thawing_run_that_died_ends_with_the_same_bytes(run, tmp_path, monkeypatch, at, precision):
    monkeypatch.setattr(loop, "STATE_SECONDS", 0.0)
    run = replace(run, phase=replace(PHASE, frozen=("0", "1")), thaws={"0": 4}, precision=precision)
    whole = replace(run, work=tmp_path / "whole", metrics=tmp_path / "whole.jsonl")
    loop.train(whole, Game(), None, Noise())
    with pytest.raises(ZeroDivisionError):
        loop.train(run, Game({at: crash}), None, Noise())
    game = Game()
    loop.train(run, game, None, Noise())
    assert game.calls == 8 - at
    assert (files(run), logged(run)) == (files(whole), logged(whole))


class Plain(Game):
    """Networks that look at each image by itself, one of them with a spectral norm, and a term without batch norm."""

    def __init__(self, at_step=None):
        super().__init__(at_step)
        torch.manual_seed(5)
        self.generator = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.InstanceNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1)
        )
        self.discriminator = PatchDiscriminator(32, 32, 0.1)
        for weight in self.discriminator.parameters():
            weight.data *= 50  # large beside Adam's steps, which one power iteration could not follow
        self.frozen = nn.Sequential(nn.Conv2d(3, 2, 1))

    def discriminator_losses(self, batch, made):
        """Squares: where all hinges are active, a bias's gradients cancel, and Adam would follow their rounding."""
        real, fake = self.discriminator(batch.target).float(), self.discriminator(made.detach()).float()
        return {"discriminator": (1 - real).square().mean() + (1 + fake).square().mean()}


class PlainJudgedFirst(JudgedFirst, Plain):
    pass


@pytest.mark.parametrize("kind", [Plain, PlainJudgedFirst])
@pytest.mark.parametrize("accumulate", [2, 3, 4])
def test_micro_batches_make_the_large_batchs_step(run, tmp_path, accumulate, kind):
    """Unequal parts among them (4 = 2 + 1 + 1), spectral norms, both updates: the same weights and the same log."""
    whole, small = kind(), kind()
    run = replace(run, phase=replace(PHASE, discriminators_first=kind is PlainJudgedFirst))
    loop.train(run, whole, None, Noise())
    parts = replace(run, accumulate=accumulate, work=tmp_path / "parts", metrics=tmp_path / "parts.jsonl")
    loop.train(parts, small, None, Noise())
    assert small.calls == accumulate * whole.calls
    for step, (one, other) in enumerate(zip(logged(run), logged(parts), strict=True), 1):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-6), step
    for name, network in whole.networks().items():
        torch.testing.assert_close(small.networks()[name].state_dict(), network.state_dict(), rtol=1e-3, atol=1e-5)


class Figures(Noise):
    """Eleven pairs of drawn people, some without a head, legs or other joints."""

    def __init__(self):
        self.pairs = with_gaps(figures(11, 64, 32, seed=0))

    def batch(self, rows):
        return take(self.pairs, rows)


class PreciseFigures(Figures):
    def batch(self, rows):
        found = vars(super().batch(rows)).items()
        return Batch(**{key: x.double() if x is not None and x.is_floating_point() else x for key, x in found})


@pytest.mark.parametrize(
    "name", ["spig", "gfla", *(n for n in COMPONENTS if "sampling" in COMPONENTS[n].phase.weights)]
)
def test_micro_batches_lose_what_the_batch_does(run, tmp_path, monkeypatch, name):
    """Phases with a sampling loss, 5 = 2 + 2 + 1 pairs, some with empty masks: every term of three steps to 1e-9.

    In float64: Adam's first steps are the signs of gradients, and of those near zero rounding in float32 decides.
    """
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    logs, net = [], features.build("squeezenet1_1").double()
    for accumulate in (1, 3):
        _, objective, phase = build(name)
        for network in objective.networks().values():
            network.double()
        log = tmp_path / f"{accumulate}.jsonl"
        parts = replace(run, phase=phase, steps=3, batch=5, accumulate=accumulate, metrics=log)
        loop.train(parts, objective, net, PreciseFigures())
        logs.append(logged(parts))
    for one, other in zip(*logs, strict=True):
        assert other == pytest.approx(one, rel=1e-9, abs=0), one["step"]


def test_more_micro_batches_than_rows_are_refused(run):
    with pytest.raises(UserError, match="a batch of 4 cannot be split over 1 processes of 5 micro-batches"):
        loop.train(replace(run, accumulate=5), Game(), None, Noise())


def test_a_look_at_a_checkpoint_disturbs_nothing(run, uninterrupted):
    """It is given the weights saved, in eval mode, and may draw random numbers or change them."""
    seen = []

    def look(step, generator):
        saved = load_file(checkpoints.path(run.work / "checkpoints", step))
        assert all(torch.equal(value, saved[name]) for name, value in generator.state_dict().items())
        assert not generator.training
        seen.append(step)
        generator[0].weight.data.zero_()

    loop.train(run, Game(), None, Noise(), look=look)
    assert seen == [3, 6, 7]
    assert (files(run), logged(run)) == uninterrupted


class Fetched(Noise):
    """The same pairs, as if each batch had to be read."""

    resident = False


def test_batches_fetched_ahead_are_the_same(run, uninterrupted):
    loop.train(run, Game(), None, Fetched())
    assert (files(run), logged(run)) == uninterrupted


def test_augmentation_is_a_function_of_seed_and_step_and_of_no_cut(run):
    """Micro-batches hold the moves of the whole batch; without a jitter nothing moves."""
    data, group = Noise(), loop.parallel.alone(CPU)
    jittered = replace(run, jitter=Jitter(source=Move(scale=(0.8, 1.2), angle=5.0, shift=3.0)))
    (whole,), _ = loop.parts_of(jittered, data, group)(2)
    parts, shares = loop.parts_of(replace(jittered, accumulate=2), data, group)(2)
    assert shares == [0.5, 0.5]
    torch.testing.assert_close(torch.cat([part.source for part in parts]), whole.source, rtol=0, atol=0)
    (plain,), _ = loop.parts_of(run, data, group)(2)
    assert torch.equal(plain.source, data.batch(loop.BatchOrder(11, 4, 1).rows(2)).source)
    assert not torch.equal(plain.source, whole.source)
    (other,), _ = loop.parts_of(replace(jittered, seed=2), data, group)(2)
    assert not torch.equal(other.source, whole.source)


class Weighted(Game):
    """An adversary that can be left out."""

    def __init__(self):
        super().__init__()
        self.weights, self.seen = {"l1": 1.0, "adversarial": 0.5}, []

    def generator_losses(self, batch, features):
        self.seen.append(self.weights["adversarial"])
        terms, made = super().generator_losses(batch, features)
        return {name: term for name, term in terms.items() if self.weights.get(name)}, made

    def discriminator_losses(self, batch, made):
        return super().discriminator_losses(batch, made) if self.weights["adversarial"] else {}


def test_a_delayed_term_comes_in_at_its_step(run):
    game = Weighted()
    delayed = replace(run, phase=replace(PHASE, weights=dict(game.weights)), starts={"adversarial": 4})
    first = game.discriminator[0].weight.clone()
    trainer = loop.Trainer(delayed, game, None)
    for step in (1, 2, 3):
        assert set(trainer.step(step, Noise().batch(torch.arange(4)))) == {"l1"}
    assert torch.equal(first, game.discriminator[0].weight)
    assert set(trainer.step(4, Noise().batch(torch.arange(4)))) == {"l1", "adversarial", "discriminator"}
    assert not torch.equal(first, game.discriminator[0].weight)
    assert game.seen == [0, 0, 0, 0.5]


def test_weight_decay_is_added_to_the_gradient(run):
    adam = {**PHASE.optimisers, "discriminator": Adam(0.02, (0.0, 0.99), weight_decay=0.3)}
    trainer = loop.Trainer(replace(run, phase=replace(PHASE, optimisers=adam)), Game(), None)
    assert trainer.optimisers["discriminator"].defaults["weight_decay"] == 0.3
    assert trainer.optimisers["generator"].defaults["weight_decay"] == 0


def test_a_discriminator_takes_no_gradient_from_its_opponent(run):
    seen = []
    look = {2: lambda game: seen.extend(weight.requires_grad for weight in game.discriminator.parameters())}
    loop.train(run, Game(look), None, Noise())
    assert seen == [False] * 4


def test_checkpoints_at_every_interval_and_at_the_end(run):
    folder, steps, generator, log = loop.train(run, Game(), None, Noise())
    assert log == run.metrics
    assert steps == checkpoints.steps(folder) == [3, 6, 7]
    assert checkpoints.save(run.work / "again", 7, generator).read_bytes() == checkpoints.path(folder, 7).read_bytes()
    assert [row["step"] for row in logged(run)] == list(range(1, 8))
    assert set(logged(run)[0]) == {"step", "l1", "seen", "adversarial", "discriminator"}


def crash(game):
    raise ZeroDivisionError


@pytest.mark.parametrize("at", [1, 2, 4, 5, 7])
def test_a_run_that_died_ends_with_the_same_bytes(run, uninterrupted, at):
    with pytest.raises(ZeroDivisionError):
        loop.train(run, Game({at: crash}), None, Noise())
    torch.manual_seed(99)  # another process has another random state
    game = Game()
    loop.train(run, game, None, Noise())
    assert (files(run), logged(run)) == uninterrupted
    assert game.calls == 7 - 3 * ((at - 1) // 3)  # it went on from the last checkpoint, not from the start


@pytest.mark.parametrize("damage", [b"\0" * 40 + b"\n", b"\xff\xfe\n", b"3\n", b'{"step": 3, "l1'])
def test_a_damaged_line_in_the_log_of_losses_does_not_stop_a_run(run, uninterrupted, damage):
    """A power cut leaves such; the log then goes on where the state does."""
    with pytest.raises(ZeroDivisionError):
        loop.train(run, Game({5: crash}), None, Noise())
    lines = run.metrics.read_bytes().splitlines(keepends=True)
    run.metrics.write_bytes(b"".join(lines[:2]) + damage)
    loop.train(run, Game(), None, Noise())
    whole, rows = uninterrupted
    assert files(run) == whole
    assert logged(run) == rows[:2] + rows[3:]


def test_state_is_saved_between_checkpoints_too(run, uninterrupted, monkeypatch):
    monkeypatch.setattr(loop, "STATE_SECONDS", 0.0)
    with pytest.raises(ZeroDivisionError):
        loop.train(run, Game({6: crash}), None, Noise())
    game = Game()
    loop.train(run, game, None, Noise())
    assert game.calls == 2
    assert (files(run), logged(run)) == uninterrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_saves(run, uninterrupted, number):
    """Its handler is called, no signal sent: that would end the process where none is installed."""
    handler = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        loop.train(run, Game({5: lambda game: signal.getsignal(number)(number, None)}), None, Noise())
    assert signal.getsignal(number) is handler
    assert sorted(path.name for path in run.work.iterdir()) == ["belongs.json", "checkpoints", "state.pt"]
    game = Game()
    loop.train(run, game, None, Noise())
    assert game.calls == 2
    assert (files(run), logged(run)) == uninterrupted


@pytest.mark.parametrize(("value", "shown"), [(float("nan"), "nan"), (float("inf"), "inf")])
def test_a_loss_that_is_no_number_stops_the_run(run, value, shown):
    def spoil(game):
        game.factor = {"seen": value}

    with pytest.raises(UserError) as caught:
        loop.train(run, Game({5: spoil}), None, Noise())
    message = str(caught.value)
    assert "\n" not in message
    assert f"the loss term seen is {shown} at step 5" in message
    assert "step-0000003.safetensors" in message
    with pytest.raises(UserError, match="at step 2; no checkpoint yet"):
        loop.train(replace(run, seed=8), Game({2: spoil}), None, Noise())


def kept(trainer):
    """Copies of all weights and of the optimisers' states."""
    weights = {name: {**net.state_dict()} for name, net in trainer.networks.items()}
    return copy.deepcopy(
        {name: [weights[name], trainer.optimisers[name].state_dict()["state"]] for name in trainer.optimisers}
    )


class Spoilt(Game):
    """From its second step on, one side's loss is NaN in the middle of the batch, and its gradients with it."""

    def __init__(self, side):
        super().__init__()
        self.side = side

    def generator_losses(self, batch, features):
        terms, made = super().generator_losses(batch, features)
        return {name: self._spoil("generator", term) for name, term in terms.items()}, made

    def discriminator_losses(self, batch, made):
        terms = super().discriminator_losses(batch, made)
        return {name: self._spoil("discriminator", term) for name, term in terms.items()}

    def _spoil(self, side, term):
        return term * float("nan") if self.calls > 1 and side == self.side else term


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(("side", "term"), [("generator", "l1"), ("discriminator", "discriminator")])
def test_a_loss_that_is_no_number_reaches_no_weight(run, side, term, device):
    """Nor Adam's moments and number of steps, though a GPU is asked for the loss only when the step is over."""
    with FakeCuda() if device == "cuda" else nullcontext():
        device = torch.device(device)
        trainer = loop.Trainer(replace(run, device=device), Spoilt(side), None)
        trainer.step(1, sent(Noise().batch(torch.arange(4)), device))
        before = kept(trainer)
        with pytest.raises(UserError, match=f"the loss term {term} is nan at step 2"):
            trainer.step(2, sent(Noise().batch(torch.arange(4)), device))
        after = kept(trainer)
    spoilt = ("generator", "discriminator") if side == "generator" else ("discriminator",)
    for name in spoilt:
        for (key, value), now in zip(named(before[name]), dict(named(after[name])).values(), strict=True):
            if "running_" not in key and "num_batches" not in key:  # of batch norms, which follow what they see
                assert torch.equal(value, now), f"{name}: {key}"
    assert torch.equal(after["discriminator"][1][0]["step"], torch.tensor(1.0))


def test_a_weight_that_is_no_number_is_never_saved(run):
    def spoil(game):  # batch norm in train mode does not read its running mean: every loss stays finite
        game.generator[1].running_mean.fill_(float("nan"))

    with pytest.raises(UserError, match=r"a weight of the network generator .* at step 6; .*step-0000003"):
        loop.train(run, Game({5: spoil}), None, Noise())
    assert list(files(run)) == ["step-0000003.safetensors"]


def test_bf16_gives_the_losses_of_fp32_within_two_percent(run, tmp_path):
    loop.train(run, Game(), None, Noise())
    seen = []
    half = replace(run, precision="bf16", work=tmp_path / "half", metrics=tmp_path / "half.jsonl")
    loop.train(half, Game({1: lambda game: seen.append(torch.is_autocast_enabled("cpu"))}), None, Noise())
    assert seen == [True]
    for full, rough in zip(logged(run), logged(half), strict=True):
        assert rough == pytest.approx(full, rel=0.02, abs=0.02)
    assert logged(run) != logged(half)


def test_global_switches_are_put_back(run):
    seen = []
    look = {1: lambda game: seen.append(torch.are_deterministic_algorithms_enabled())}
    loop.train(run, Game(look), None, Noise())
    assert seen == [True]
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


@pytest.mark.parametrize(("precision", "products"), [("fp32", "highest"), ("bf16", "high")])
def test_matrix_products_are_as_precise_as_convolutions(precision, products):
    """On a GPU: TF32 for both where bf16 is allowed, for neither where it is not, and as before afterwards."""
    with loop.backends(torch.device("cuda"), precision):
        assert torch.get_float32_matmul_precision() == products
        assert torch.backends.cudnn.allow_tf32 == (precision == "bf16")
        assert torch.backends.cudnn.benchmark
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("lower", [True, False])
def test_frozen_networks_are_kept_in_the_steps_precision(run, monkeypatch, lower):
    """No step rounds their weights anew, and the values are those that rounding gives, to the bit."""
    put, net = loop.put, features.build("squeezenet1_1")
    monkeypatch.setattr(loop, "put", lambda values: put(values) if lower else None)
    trainer = loop.Trainer(replace(run, precision="bf16"), Game(), net)
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with (
        Casts([*net.parameters(), *trainer.networks["frozen"].parameters()]) as casts,
        torch.autocast("cpu", torch.bfloat16),
    ):
        torch.manual_seed(1)
        trainer.step(1, Noise().batch(torch.arange(4)))
        found = net(image, net.content)
    assert (casts.count == 0) == lower
    with torch.autocast("cpu", torch.bfloat16):
        wanted = features.build("squeezenet1_1")(image, net.content)
    assert all(torch.equal(found[layer], wanted[layer]) for layer in wanted)
