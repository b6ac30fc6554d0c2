"""Train one variant on one data set.

reads   data/D/images/, data/D/keypoints.parquet, data/D/pairs.parquet (split train); for a variant that builds on a
        component its last checkpoint, for one with feature losses data/weights/NET/, for one that needs human parsing
        data/D/parsing/
writes  runs/D/V/checkpoints/: step-*.safetensors (the generator) and meta.json (how to rebuild it, its settings, and
        `marks`: how they differ from the paper's); the folder appears when training is finished, whole
        logs/train/D-V.jsonl: every loss term of every step; logs/train/D-V/step-*.png: what each checkpoint makes of
        four validation pairs (source, target's pose, target, generated)

The block `train.D.FAMILY` of params.yaml sets steps, batch, width and the rest; null is the paper's value. Stopped by
Ctrl-C, a signal or a crash, the same command goes on where it was: on a CPU the result is the same to the byte.
Several processes share each batch: `torchrun --nproc-per-node N -m pipeline train ...`. Losses and steps are those of
one process, but batch norms see each process's part by itself, and dropout and noise are drawn by each.
Further seeds: --variant spig-seed1 trains spig from seed 1 into runs/D/spig-seed1/, if params.yaml names it so under
`variants`; components are those of spig.
A new method: write its networks and objective in models/, add its line to models/variants.py, name it in params.yaml.
The variants copy_source and mean_image are the floor of every table and are not trained.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import nn

from models.layers import features as feature_nets
from models.layers.features import Features
from models.variants import COMPONENTS, VARIANTS, Component, Phase, Variant
from pipeline.core import console, digests, layout, params, store
from pipeline.core.errors import UserError
from pipeline.loading import (
    arrays,
    checkpoints,
    devices,
    pair_lists,
    parallel,
    pixels,
    published_weights,
    stored_images,
)
from pipeline.loading.arrays import ImageData
from pipeline.loading.parallel import Group
from pipeline.training import loop, samples, training_data

PUBLISHED_FEATURES = "vgg19"  # what every paper here uses
MARKS = ("weights", "steps", "settings", "width", "data")
OUTSIDE_SETTINGS = ("device", "features", "missing_weights", "resident")  # said elsewhere, or without effect on results
PUBLISHED_SETS = ("market1501", "deepfashion")
FALLBACK = "market1501"  # whose published values stand in for a data set that no paper used


@dataclass(frozen=True)
class Params:
    """A trained variant or component: `train.D.FAMILY`, `pretrain.D.COMPONENT`."""

    seed: int
    steps: int
    checkpoint_every: int
    batch: int | None
    width: float  # multiplier of the published channel counts
    learning_rate: float | None  # the generator's; other networks keep their published ratio to it
    device: str
    precision: str  # fp32 | bf16
    features: str | None
    missing_weights: str | None
    accumulate: int = 1
    ema: float | None = None
    compile: bool = False
    resident: bool | str = "auto"


@dataclass(frozen=True)
class FloorParams:
    """A variant without training: `train.D.floors`."""

    seed: int


@dataclass(frozen=True)
class FeatureSource:
    """The feature net a run uses; `provenance` is "sha256:..." of its file, or "seeded"."""

    net: Features
    provenance: str


def published(phase: Phase, dataset: str) -> dict[str, Any]:
    """The full schedule that `models.variants` states for a data set (`FALLBACK`'s where no paper used it)."""
    of = dataset if dataset in phase.steps else FALLBACK
    rate = phase.optimisers[phase.generators[0]].lr
    return {"dataset": of, "batch": phase.batch[of], "learning_rate": rate, "steps": phase.steps[of], "width": 1.0}


def resolve(block: Params, phase: Phase, dataset: str) -> tuple[Params, Phase]:
    """`block` with every null replaced by the published value, and the phase at the block's learning rate."""
    paper = published(phase, dataset)
    batch = paper["batch"] if block.batch is None else block.batch
    rate = paper["learning_rate"] if block.learning_rate is None else block.learning_rate
    factor = rate / paper["learning_rate"]
    rates = {name: replace(adam, lr=adam.lr * factor) for name, adam in phase.optimisers.items()}
    return replace(block, batch=batch, learning_rate=rate), replace(phase, optimisers=rates)


def marks(block: Params, phase: Phase, dataset: str, source: FeatureSource | None) -> list[str]:
    """How the settings of a resolved run differ from the paper's: names of MARKS."""
    paper, found = published(phase, dataset), []
    if source is not None and (source.provenance == "seeded" or source.net.net != PUBLISHED_FEATURES):
        found.append("weights")
    if block.steps < paper["steps"]:
        found.append("steps")
    if block.batch != paper["batch"] or block.learning_rate != paper["learning_rate"] or block.ema is not None:
        found.append("settings")
    if block.width != 1:
        found.append("width")
    return found


def data_marks(dataset: str) -> list[str]:
    """["data"] unless the images are all those of a data set that the papers use, and the joints are the published."""
    images = pq.read_schema(store.parts(layout.images(dataset))[0]).metadata or {}
    joints = pq.ParquetFile(layout.keypoints(dataset)).read_row_group(0, columns=["keypoint_source"])
    published = joints["keypoint_source"][0].as_py() == "annotations"
    return [] if dataset in PUBLISHED_SETS and b"partial" not in images and published else ["data"]


def load_features(block: Params, wanted_by: str) -> FeatureSource:
    """The feature net of a block: its published weights, or seeded ones where the block allows them."""
    files = published_weights.require(block.features, block.missing_weights, wanted_by)
    if files is None:
        console.say(
            f"{wanted_by}: weights of {block.features} are missing, seeded features stand in; results are marked"
        )
        return FeatureSource(feature_nets.build(block.features), "seeded")
    try:
        net = feature_nets.build(block.features, published_weights.state_dict(files))
    except ValueError as error:
        raise UserError(f"{files[0]}: {error}; delete {layout.weights(block.features)} and run weights again") from None
    total = hashlib.sha256(b"".join(path.read_bytes() for path in files))
    return FeatureSource(net, f"sha256:{total.hexdigest()}")


def require_parsing(dataset: str, wanted_by: str) -> None:
    """Raises UserError if the data set has no human parsing for a variant or component that needs it."""
    source = (pq.read_schema(store.parts(layout.parsing(dataset))[0]).metadata or {}).get(b"parsing_source", b"none")
    if source == b"none":
        raise UserError(
            f"{wanted_by}: needs human parsing, but {layout.parsing(dataset)} has none (parsing.{dataset}.source is"
            f" none in {layout.PARAMS}); set another source or take the variant out of variants"
        )


def last_checkpoint(dataset: str, component: str) -> int:
    """The last step of a component. Raises UserError, naming the command that makes it, if there is none."""
    folder = layout.checkpoints(dataset, component)
    found = checkpoints.steps(folder)
    if not found:
        asked = params.load()["components"].get(component)
        first = "" if asked else f"set components.{component} to true and "
        if asked is None:  # the detector: always there, but not always ours
            first = f"set pretrain.{dataset}.{component}.source to trained and "
        command = f"python -m pipeline pretrain --dataset {dataset} --component {component}"
        raise UserError(f"{folder}: no checkpoint of {component} to start from; {first}run: {command}")
    return found[-1]


def start_from(part: nn.Module, dataset: str, component: str, like: Mapping[str, Any]) -> tuple[dict, list[str]]:
    """Copy a component's last checkpoint into `part`; return what it was, and its marks.

    `like`: height, width (of the images) and perhaps scale that it must have been trained for. Raises UserError if it
    was not.
    """
    folder, step = layout.checkpoints(dataset, component), last_checkpoint(dataset, component)
    module, meta = checkpoints.load(folder, step)
    trained = {"height": meta["height"], "width": meta["width"], "scale": meta["settings"]["width"]}
    for key, value in like.items():
        if trained[key] != value:
            what = "network width" if key == "scale" else f"image {key}"
            raise UserError(
                f"{folder}: trained for {what} {trained[key]:g}, {value:g} is wanted; pretrain it with the same"
            )
    part.load_state_dict(module.state_dict())
    content = digests.sha256(checkpoints.path(folder, step))
    return {"step": step, "checkpoint": f"sha256:{content}", "features": meta["features"]}, meta["marks"]


def judges(entry: Component | Variant) -> Mapping[str, str]:
    return entry.judges if isinstance(entry, Variant) else {}


def fit(
    stage: str,
    dataset: str,
    entry: Component | Variant,
    block: Params,
    source: FeatureSource | None,
    data: ImageData,
    inputs: tuple[Path, ...],
    group: Group,
    look: Callable[[int, nn.Module], None] | None = None,
    code: Mapping[str, str] | None = None,
) -> tuple[loop.Trained, dict[str, Any]]:
    """Train `entry` on `data`, which was read from `inputs`, by `code` (`digests.code_of` the job; None: all of ours);
    return what the engine leaves and the meta.json that describes it.
    """
    block, phase = resolve(block, entry.phase, dataset)
    paper = published(entry.phase, dataset)
    torch.manual_seed(block.seed)
    network = entry.build(data.height, data.width, block.width)
    size = {"height": data.height, "width": data.width}
    like = {**size, "scale": block.width}
    started = {
        name: start_from(network.get_submodule(COMPONENTS[name].into), dataset, name, like) for name in entry.components
    }
    objective = entry.objective(network, data.height, data.width, block.width, phase.weights)
    for judge, name in judges(entry).items():
        started[name] = start_from(objective.networks()[judge], dataset, name, size)

    taken_over = {mark for _, inherited in started.values() for mark in inherited}
    own = [*marks(block, entry.phase, dataset, source), *data_marks(dataset)]
    settings = {key: value for key, value in asdict(block).items() if key not in OUTSIDE_SETTINGS}
    meta = {
        "kind": "component" if isinstance(entry, Component) else "variant",
        "name": entry.name,
        "dataset": dataset,
        "height": data.height,
        "width": data.width,
        "settings": settings,
        "features": None if source is None else {"net": source.net.net, "provenance": source.provenance},
        "components": {name: made for name, (made, _) in started.items()},
        "marks": [mark for mark in MARKS if mark in taken_over.union(own)],
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "published": paper,
    }

    def first_steps(shares: Mapping[str, Mapping[str, float]]) -> dict[str, int]:
        return {name: 1 + round(share[paper["dataset"]] * block.steps) for name, share in shares.items()}

    run = loop.Run(
        title=f"{stage} {dataset} {entry.name}",
        phase=phase,
        steps=block.steps,
        checkpoint_every=block.checkpoint_every,
        batch=block.batch,
        seed=block.seed,
        precision=block.precision,
        device=data.device,
        work=layout.work(stage, dataset, entry.name),
        metrics=layout.metrics_log(stage, dataset, entry.name),
        settings=meta,
        starts=first_steps(phase.delays),
        thaws=first_steps(phase.thaw),
        accumulate=block.accumulate,
        ema=block.ema,
        compile=block.compile,
        jitter=phase.augment.get(dataset),
        inputs=inputs,
        code=code,
    )
    features = "none" if source is None else f"{source.net.net} ({source.provenance[:15]})"
    console.say(
        f"{run.title}: {len(data)} {data.unit} of {data.height} x {data.width}, batch {run.batch}, {run.steps} steps, "
        f"{meta['parameters'] / 1e6:.2f} M parameters, features {features}, {data.device} {run.precision}"
    )
    return loop.train(run, objective, None if source is None else source.net, data, group, look), meta


def finish(stage: str, dataset: str, name: str, trained: loop.Trained, meta: Mapping[str, Any]) -> None:
    """Publish a finished run and clear its working folder; the first of several processes does it for all."""
    if parallel.rank():
        return
    checkpoints.publish(trained.folder, trained.steps, meta, layout.checkpoints(dataset, name))
    shutil.rmtree(layout.work(stage, dataset, name))


def train_entry(
    stage: str, dataset: str, entry: Component | Variant, block: Params, block_name: str, **more: str
) -> None:
    """Load all that `entry` needs, train it by `block`, and publish it with `more` in its meta.json."""
    if entry.needs_parsing:
        require_parsing(dataset, f"{stage} {dataset} {entry.name}")
    for component in (*entry.components, *judges(entry).values()):
        last_checkpoint(dataset, component)
    where = devices.device(block.device)
    with parallel.joined(where) as group:
        source = load_features(block, f"{stage}.{dataset}.{block_name}") if entry.needs_features else None
        data = training_data.load(dataset, entry.data, where, entry.needs_parsing, block.resident)
        inputs = training_data.inputs(dataset, entry.data, entry.needs_parsing)
        look = sampler(stage, dataset, entry, where) if isinstance(entry, Variant) and group.rank == 0 else None
        code = digests.code_of(stage, dataset, entry.name)
        trained, meta = fit(stage, dataset, entry, block, source, data, inputs, group, look, code)
        finish(stage, dataset, entry.name, trained, {**meta, **more})


def sampler(stage: str, dataset: str, variant: Variant, where: torch.device) -> Callable[[int, nn.Module], None]:
    """A function that draws what a generator makes of a few validation pairs at a step."""
    pairs = arrays.load_pairs(dataset, "val", where, samples.PAIRS, variant.needs_parsing)
    folder = layout.metrics_log(stage, dataset, variant.name).with_suffix("")
    given = variant.given_target_parsing
    return lambda step, generator: samples.draw(generator, pairs, folder / f"step-{step:07d}.png", given)


def _counted(
    batches: Iterable[tuple[list[str], torch.Tensor]], advance: Callable[[int], None]
) -> Iterator[torch.Tensor]:
    """The images of `stored_images.stream` as a network takes them; `advance` counts those that it has taken."""
    for names, images in batches:
        yield pixels.as_floats(images)
        advance(len(names))


def make_floor(dataset: str, variant: Variant, family: str, block: FloorParams) -> None:
    """Step 0 of a variant without training; a generator with `fit` sees every image of the training pairs once."""
    size = store.read_table(layout.images(dataset), columns=["height", "width"]).slice(0, 1).to_pylist()
    if not size:
        raise UserError(f"{layout.images(dataset)}: holds no image; see {layout.rejects(dataset)}")
    height, width = size[0]["height"], size[0]["width"]
    network = variant.build(height, width, 1.0)
    if hasattr(network, "fit"):
        ids = pair_lists.image_ids(pair_lists.read(dataset, "train"))
        with console.progress(f"fit {dataset} {variant.name}", len(ids)) as advance:
            network.fit(_counted(stored_images.stream(dataset, ids), advance))
    work = layout.work("train", dataset, variant.name)
    checkpoints.save(work, 0, network)
    meta = {
        "kind": "variant",
        "name": variant.name,
        "family": family,
        "dataset": dataset,
        "height": height,
        "width": width,
        "settings": asdict(block),
        "features": None,
        "components": {},
        "marks": data_marks(dataset),
        "parameters": 0,
        "published": None,
    }
    finish("train", dataset, variant.name, loop.Trained(work, [0], network), meta)


def run(dataset: str, variant: str) -> None:
    family, name, seed = params.family(variant), params.variant_of(variant), params.seed_of(variant)
    entry = VARIANTS[name]
    if entry.phase is None and parallel.rank():  # nothing to share
        return
    if entry.phase is None:
        make_floor(dataset, entry, family, params.block(FloorParams, "train", dataset, family))
    else:
        block = params.block(Params, "train", dataset, family)
        block = block if seed is None else replace(block, seed=seed)
        train_entry("train", dataset, replace(entry, name=variant), block, family, family=family, name=name)
    console.say(f"train {dataset} {variant}: checkpoints in {layout.checkpoints(dataset, variant)}")
