"""Train one entry of `models.variants` on one data set: gather what it needs, run the loop, publish its checkpoints."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.variants import COMPONENTS, Component, Objective, Phase, Variant
from pipeline.core import console, digests, layout
from pipeline.core.errors import UserError
from pipeline.loading import checkpoints, devices, parallel
from pipeline.loading.arrays import ImageData
from pipeline.loading.parallel import Group
from pipeline.training import (
    augmentation,
    components,
    features,
    loop,
    losses,
    marks,
    samples,
    start,
    tracker,
    training_data,
)
from pipeline.training.features import FeatureSource
from pipeline.training.meta import Meta

FOLLOWS = ("settings", "marks", "parameters", "published")  # of the meta: said beside, or decide nothing themselves
# Said elsewhere, or without effect on results.
NOT_IN_META = ("device", "gpus", "features", "missing_weights", "resident", "start", "start_sha256", "tracker")


@dataclass(frozen=True)
class Task:
    """An entry, the data set that it is trained on, and the block of params.yaml that says how."""

    entry: Component | Variant
    dataset: str
    block: Any  # a `Params`
    name: str  # of its folder: the entry's own, or with a further seed, such as spig-seed1
    family: str | None = None  # of a variant

    @property
    def stage(self) -> str:
        return "pretrain" if isinstance(self.entry, Component) else "train"

    @property
    def title(self) -> str:
        return f"{self.stage} {self.dataset} {self.name}"

    @property
    def where(self) -> str:
        """The block's key in params.yaml."""
        return f"{self.stage}.{self.dataset}.{self.family or self.entry.name}"

    @property
    def judges(self) -> Mapping[str, str]:
        return self.entry.judges if isinstance(self.entry, Variant) else {}


@dataclass(frozen=True)
class Built:
    """The networks of a task, and what they started from: by component, a record of it and its marks; and the same of
    the file of weights that the settings name, if they name one.
    """

    network: nn.Module
    objective: Objective
    kappa: float | None
    started: Mapping[str, tuple[dict, list[str]]]
    start: tuple[dict, list[str]] | None = None


def build(task: Task, phase: Phase, data: ImageData) -> Built:
    """The networks, with the weights of the components that they start from. Raises UserError for an image size that an
    entry's network does not know.
    """
    entry, size, scale = task.entry, (data.height, data.width), task.block.width
    kappa = {"kappa": training_data.kappa(task.dataset)} if entry.limb_maps else {}
    torch.manual_seed(task.block.seed)
    try:
        network, given = entry.build(*size, scale, **kappa), None
    except ValueError as error:
        remedy = f"give {task.dataset} another size in fetch, or take {task.name} out of {layout.PARAMS}"
        raise UserError(f"{task.title}: {error}; {remedy}") from None
    if task.block.start is not None:
        weights = start.read(task.block.start, task.block.start_sha256, task.where)
        start.give(network, weights, [COMPONENTS[name].into for name in entry.components], task.where)
        given = start.record(weights, task.block.start_sha256), weights.meta["marks"]
    like = {"image height": data.height, "image width": data.width}
    started = {}
    for name in entry.components:
        component = COMPONENTS[name]
        same = {**like, "network width": scale, **(kappa if component.limb_maps else {})}
        started[name] = components.start_from(network.get_submodule(component.into), task.dataset, name, same)
    objective = entry.objective(network, *size, scale, phase.weights)
    for judge, name in task.judges.items():
        started[name] = components.start_from(objective.networks()[judge], task.dataset, name, like)
    return Built(network, objective, kappa.get("kappa"), started, given)


def describe(task: Task, built: Built, data: ImageData, source: FeatureSource | None, parts: int) -> Meta:
    """What `meta.json` will say of the task, whose block is resolved and whose batches are split into `parts`."""
    entry, phase, dataset = task.entry, task.entry.phase, task.dataset
    networks = built.objective.networks()
    loop.freeze_untrained(phase, networks, phase.thaw)
    published = marks.published(phase, dataset, data.height)
    found = marks.of(entry, task.block, dataset, data.height, source)
    found |= marks.of_parts(networks.values(), parts, phase.parts.get(published["dataset"], 1))
    found = found.union(*(inherited for _, inherited in (*built.started.values(), built.start or ({}, []))))
    return Meta(
        kind="component" if isinstance(entry, Component) else "variant",
        name=entry.name,
        family=task.family,
        dataset=dataset,
        height=data.height,
        width=data.width,
        settings={key: value for key, value in asdict(task.block).items() if key not in NOT_IN_META},
        features=None if source is None else source.as_dict(),
        components={name: record for name, (record, _) in built.started.items()},
        start=None if built.start is None else built.start[0],
        marks=[mark for mark in marks.MARKS if mark in found],
        parameters=sum(parameter.numel() for parameter in built.network.parameters()),
        published=published,
        kappa=built.kappa,
    )


def schedule(task: Task, phase: Phase, meta: Meta, device: torch.device, inputs: tuple[Path, ...]) -> loop.Run:
    """The task, whose block is resolved, as the loop takes it."""
    block, dataset = task.block, task.dataset

    def first_steps(shares: Mapping[str, Mapping[str, float]]) -> dict[str, int]:
        return {name: 1 + round(share[meta.published["dataset"]] * block.steps) for name, share in shares.items()}

    moves = phase.augment.get(meta.published["dataset"]) if block.augment else None
    return loop.Run(
        title=task.title,
        phase=phase,
        steps=block.steps,
        checkpoint_every=block.checkpoint_every,
        batch=block.batch,
        seed=block.seed,
        precision=block.precision,
        device=device,
        work=layout.work(task.stage, dataset, task.name),
        metrics=layout.metrics_log(task.stage, dataset, task.name),
        settings={key: value for key, value in meta.as_dict().items() if key not in FOLLOWS} | dict(meta.settings),
        starts=first_steps(phase.delays),
        thaws=first_steps(phase.thaw),
        accumulate=block.accumulate,
        compile=block.compile,
        jitter=augmentation.resized(moves, meta.height),
        tracker=block.tracker,
        inputs=inputs,
        code=digests.code_of(task.stage, dataset, task.name),
    )


def fit(
    task: Task, data: ImageData, inputs: tuple[Path, ...], source: FeatureSource | None, group: Group
) -> tuple[loop.Trained, Meta]:
    """Train the task on `data`, which was read from `inputs`, alone or as one process of `group`."""
    block, phase = marks.resolve(task.block, task.entry.phase, task.dataset, data.height)
    task = replace(task, block=block)
    built = build(task, phase, data)
    meta = describe(task, built, data, source, group.size * block.accumulate)
    run = schedule(task, phase, meta, data.device, inputs)
    features_used = "none" if source is None else f"{source.net.net} ({source.provenance[:15]})"
    console.say(
        f"{run.title}: {len(data)} {data.unit} of {data.height} x {data.width}, batch {run.batch}, {run.steps} steps, "
        f"{meta.parameters / 1e6:.2f} M parameters, features {features_used}, {data.device} {run.precision}"
    )
    look = None
    if isinstance(task.entry, Variant) and group.rank == 0:
        look = samples.drawer(task.entry, task.dataset, run.metrics.with_suffix(""), data.device)
    return loop.train(run, built.objective, None if source is None else source.net, data, group, look), meta


def publish(dataset: str, name: str, trained: loop.Trained, meta: Meta) -> None:
    """Put a finished run's losses and checkpoints into place; the first process does it for all. The run's own folder
    stays: the same command publishes from it again, and goes on from it when it asks for more steps.
    """
    if parallel.rank() == 0:
        losses.write(trained.metrics, layout.losses(dataset, name), trained.steps[-1])
        checkpoints.publish(trained.folder, trained.steps, meta.as_dict(), layout.checkpoints(dataset, name))


def train(task: Task) -> None:
    """Load all that a task needs, train it and publish the result. Raises UserError for what is missing."""
    entry, dataset, block = task.entry, task.dataset, task.block
    tracker.require(block.tracker, task.where)
    if entry.needs_parsing:
        training_data.require_parsing(dataset, task.title)
    for component in (*entry.components, *task.judges.values()):
        components.last_checkpoint(dataset, component)
    where = devices.device(block.device)
    with parallel.joined(where) as group:
        source = None
        if entry.features:
            source = features.load(entry.features, block.features, block.missing_weights, task.where)
        data = training_data.load(dataset, entry.data, where, entry.labels, block.resident)
        inputs = training_data.inputs(dataset, entry.data, entry.needs_parsing)
        trained, meta = fit(task, data, inputs, source, group)
        publish(dataset, task.name, trained, meta)
