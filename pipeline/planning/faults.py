"""What in params.yaml, and in what is there, would stop a run, or waste it: a line each.

Nothing is read but names, and nothing is downloaded: an address that downloads are allowed from counts as a source.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline import datasets
from pipeline.core import environment, layout, needs, params, seals
from pipeline.core.errors import UserError
from pipeline.core.settings import construct
from pipeline.fetching import download, networks
from pipeline.methods import manifest
from pipeline.metrics import standard


class Tried(download.Unavailable):
    """A network is recorded as missing, and can be looked for again: neither engine does by itself."""


@dataclass(frozen=True)
class Training:
    """A job of `train` or `pretrain`, and its settings."""

    job: str
    key: str  # of its block in params.yaml
    name: str  # of the variant or component
    settings: dict[str, Any]


@dataclass(frozen=True)
class Use:
    """A published network that a job needs; `without`: what it does where that cannot be had."""

    net: str
    job: str
    key: str
    without: str = "stop"


def trainings(values: dict[str, Any], dataset: str) -> list[Training]:
    """Every job on a data set that trains, components first; no floors, and no component that nothing needs."""
    wanted = needs.wanted(values, dataset)
    blocks = values["pretrain"][dataset]
    found = [
        Training(f"pretrain {dataset} {name}", f"pretrain.{dataset}.{name}", name, block)
        for name, block in blocks.items()
        if (block.get("source") == "trained" if name == "detector" else wanted[name])
    ]
    for key, family, run in params.runs(values):
        settings = values["train"][dataset][family] | values.get("named", {}).get(family, {}).get(run, {})
        if "steps" in settings:
            key = f"train.{dataset}.{family}" if key.startswith("variants") else f"named.{family}.{run}"
            found.append(Training(f"train {dataset} {run}", key, params.variant_of(run), settings))
    return found


def unit_of(family: str, height: int, width: int) -> int:
    """What the sides of an image have to be multiples of, for the networks of a family. Where these have a fixed depth,
    the skips of their U-Nets meet only so; models/ says of each how deep it is.
    """
    short = min(height, width)
    return {
        "spig": 2 ** min(5, short.bit_length() - 2),
        "gfla": 2 ** min(5, short.bit_length() - 2),
        "spgnet": 2 ** min(7, short.bit_length() - 2),
        "spt": 64 if short >= 256 else 32,
        "def_gan": 64 if max(height, width) > 128 else 32,
    }.get(family, 4)


def size_of(values: dict[str, Any], dataset: str) -> tuple[int, int]:
    """Height and width of a data set's images by its settings."""
    block = values["fetch"][dataset]
    if dataset.startswith("deepfashion"):
        form = datasets.get("deepfashion").FORMS[block.get("protocol", "canvas256")]
        return form.height, form.width
    return (128, 64) if params.parent(dataset) == "market1501" else (block["height"], block["width"])


def uses(values: dict[str, Any], dataset: str) -> list[Use]:
    """The published networks that the jobs of a data set read."""
    found = []
    for one in trainings(values, dataset):
        for net in needs.of(one.name):
            if net in values["weights"]:
                without = one.settings.get("missing_weights", "stop")
                found.append(Use(one.settings.get("features") or net, one.job, one.key, without))
    block = values["reference"][dataset]
    scored = standard(block.get("lpips", "alex"), block.get("metrics", ()), *size_of(values, dataset))
    nets = dict.fromkeys(net for metric in scored for net in needs.of(metric) if net in values["weights"])
    key = f"reference.{dataset}"
    found += [Use(net, f"reference {dataset}", key, block.get("missing_weights", "stop")) for net in nets]
    if values["pretrain"][dataset]["detector"]["source"] == "openpose":
        found.append(Use("openpose", f"reference {dataset}", f"pretrain.{dataset}.detector"))
    source = values["keypoints"][dataset]["source"]
    if source in ("openpose", "topdown"):
        found.append(Use(source, f"keypoints {dataset}", f"keypoints.{dataset}"))
    if values["parsing"][dataset]["source"] == "schp" and needs.is_parsed(values, dataset):
        found.append(Use("schp", f"parsing {dataset}", f"parsing.{dataset}"))
    return found


def sources(net: str, values: dict[str, Any]) -> list[Path | str]:
    """Where a network's files are or come from: a path, or an address. Raises download.Unavailable, UserError."""
    block = values["weights"][net]
    record = layout.weights(net) / "source.json"
    said = seals.read_json(record) if record.exists() else {}
    if said.get("status") == "present":
        return [record.parent / name for name in said["files"]]
    reasons, found = [], []
    may = networks.may_download(net, block.get("download", True), values["datasets"])
    for one in networks.wanted(net, block.get("path"), may):
        try:
            found.append(download.whereabouts(one, f"weights.{net}"))
        except download.Unavailable as reason:
            reasons.append(reason.clause)
    if reasons if net not in networks.EITHER else not found:
        raise download.Unavailable("; ".join(dict.fromkeys(reasons)))
    untried = may and said.get("reason", "").startswith(download.NO_ADDRESS)  # by what was set then
    if said and block.get("path") is None and not untried:  # neither engine looks again, since no setting changed
        raise Tried("it was not to be had when the stage weights looked for it")
    return found[:1] if net in networks.EITHER else found


def faults(values: dict[str, Any]) -> list[str]:
    """What would stop the run. Raises UserError as `params.load` does."""
    found = [line for dataset in values["datasets"] for line in _of_data(values, dataset)]
    found += _of_networks(values)
    for dataset in values["datasets"]:
        found += _of_own_networks(values, dataset)
        found += _of_parsing(values, dataset)
        found += _of_sizes(values, dataset)
        found += _of_trainings(values, dataset)
    return [*found, *_of_methods(values)]


def _of_methods(values: dict[str, Any]) -> Iterator[str]:
    for name in values.get("methods", ()):
        try:
            method = manifest.read(name)
        except UserError as error:
            yield f"draw: {error}"
            continue
        for dataset in values["datasets"]:
            size = size_of(values, dataset)
            if method.size not in (None, size):
                wanted, own = (f"{height} x {width}" for height, width in (method.size, size))
                yield f"draw {dataset} {name}: takes images of {wanted} (height x width), those of {dataset} are {own}"


def _of_data(values: dict[str, Any], dataset: str) -> Iterator[str]:
    if layout.raw(dataset).exists():
        return
    module, key = datasets.get(dataset), f"fetch.{dataset}"
    if params.parent(dataset) == "folder":
        path = values["fetch"][dataset]["path"]
        if path is None:
            yield f"fetch {dataset}: say where your images are: {key}.path in {layout.PARAMS}"
        elif not environment.path(path).is_dir():
            yield f"fetch {dataset}: {path}: no such folder; correct {key}.path in {layout.PARAMS}"
        return
    try:
        block = construct(module.Fetch, values["fetch"][dataset])
        line = module.cannot_get(block, dataset) if params.parent(dataset) != "synthetic" else None
    except UserError as error:
        line = str(error)
    if line:
        yield f"fetch {line}"


def stopped_without(values: dict[str, Any]) -> dict[str, list[Use]]:
    """The jobs that stop without a network, by network."""
    found: dict[str, list[Use]] = {}
    for use in (use for dataset in values["datasets"] for use in uses(values, dataset)):
        if use.without == "stop":
            found.setdefault(use.net, []).append(use)
    return found


def lacking(net: str, by: list[Use], reason: object) -> str:
    """Which jobs a missing network stops, why it is missing, and what to set."""
    jobs = list(dict.fromkeys(use.job for use in by))
    listed = ", ".join(jobs[:3]) + (f" and {len(jobs) - 3} more" if len(jobs) > 3 else "")
    needed = "needs" if len(jobs) == 1 else "need"
    of_losses = [use.key for use in by if use.job.startswith(("train", "pretrain"))]
    of_metrics = [use.key for use in by if use.key.startswith("reference")]
    others = [f"{key}.missing_weights to seeded (random features, marked)" for key in dict.fromkeys(of_losses)][:2]
    others += [f"{key}.missing_weights to skip" for key in dict.fromkeys(of_metrics)][:2]
    if str(reason).startswith(download.NO_ADDRESS) and networks.NETS[net][0].url:
        others.insert(0, f"weights.{net}.download to true")
    advice = ", or ".join([f"set weights.{net}.path in {layout.PARAMS}", *others])
    return f"{listed} {needed} the published network {net}: {reason}; {advice}"


def _of_networks(values: dict[str, Any]) -> Iterator[str]:
    """A line for each missing network without which a job stops, and one for all that can be looked for again."""
    again = []
    for net, by in stopped_without(values).items():
        try:
            sources(net, values)
        except Tried:
            again.append(net)
        except UserError as error:
            yield f"weights {net}: {error}"
        except download.Unavailable as reason:
            yield lacking(net, by, reason)
    if again:
        yield (
            f"{', '.join(again)}: needed, not to be had when the stage weights looked, and perhaps now: run"
            f" `rm -r {' '.join(str(layout.weights(net)) for net in again)}` and then this again"
        )


def _of_own_networks(values: dict[str, Any], dataset: str) -> Iterator[str]:
    for name, block in values["reference"][dataset].get("networks", {}).items():
        if not environment.path(block["file"]).is_file():
            key = f"reference.{dataset}.networks.{name}.file"
            yield f"{block['file']}: no such file; correct {key} in {layout.PARAMS}"


def _of_parsing(values: dict[str, Any], dataset: str) -> Iterator[str]:
    block, key = values["parsing"][dataset], f"{layout.PARAMS}: parsing.{dataset}"
    by = needs.readers(values, dataset).get(needs.PARSING, ())
    if block["source"] == "none" and by:
        yield f"{key}.source is none, and {by[0]} needs human parsing; set another source"
    if block["source"] == "oracle" and params.parent(dataset) != "synthetic":
        yield f"{key}.source is oracle, which only rendered images have; set another source"
    if values["keypoints"][dataset]["source"] == "oracle" and params.parent(dataset) != "synthetic":
        yield f"{layout.PARAMS}: keypoints.{dataset}.source is oracle, which only rendered images have; set another"
    if block["source"] == "files" and not layout.parsing(dataset).exists():
        if block.get("path") is None:
            yield f"{key}.path is null; name your folder or zip of label maps"
        elif not environment.path(block["path"]).exists():
            yield f"{block['path']}: no such file or folder; correct parsing.{dataset}.path in {layout.PARAMS}"
    for stage, made in (("keypoints", layout.keypoints), ("pairs", layout.pairs)):
        path = values[stage][dataset].get("path")
        if path is not None and not made(dataset).exists() and not environment.path(path).exists():
            yield f"{path}: no such file or folder; correct {stage}.{dataset}.path in {layout.PARAMS}"


def _of_sizes(values: dict[str, Any], dataset: str) -> Iterator[str]:
    height, width = size_of(values, dataset)
    for key, family, run in params.runs(values):
        unit = unit_of(family, height, width)
        if height % unit or width % unit:
            yield (
                f"train {dataset} {run}: its networks take images whose sides are multiples of {unit}, not {height} x"
                f" {width}; leave it out of {key} in {layout.PARAMS}, or the data set out of datasets"
            )


def _of_trainings(values: dict[str, Any], dataset: str) -> Iterator[str]:
    for one in trainings(values, dataset):
        settings, key = one.settings, f"{layout.PARAMS}: {one.key}"
        if one.name == "detector" and settings.get("steps", 0) < 1:
            yield f"{key}.steps is 0; a trained detector needs 1 or more"
        batch, parts = settings.get("batch"), settings.get("accumulate", 1)
        if batch is not None and batch < parts:
            yield f"{key}: a batch of {batch} cannot be split into {parts} micro-batches (accumulate)"
        tracker = settings.get("tracker", "none")
        if tracker != "none" and find_spec(tracker) is None:
            yield f"{key}.tracker is {tracker}, which is not installed: pip install {tracker}, or set it to none"
        for part in needs.parts(one.name):
            width, wanted = values["pretrain"][dataset][part].get("width", 1.0), settings.get("width", 1.0)
            if width != wanted:
                other = f"pretrain.{dataset}.{part}.width is {width:g}"
                yield f"{key}.width is {wanted:g}, and {other}: {one.job} starts from {part}; set both to the same"


def warnings(values: dict[str, Any]) -> list[str]:
    """What stops nothing, but may not be what is meant."""
    found = []
    for dataset in values["datasets"]:
        needed = needs.readers(values, dataset)
        for name, asked in values["components"].items():
            if asked is True and all(by.startswith("pretrain ") for by in needed.get(name, ())):
                found.append(
                    f"components.{name} is true: pretrain {dataset} {name} trains, and no variant starts from it; auto"
                    " leaves it out"
                )
        if values["parsing"][dataset]["source"] in needs.NETWORK_PARSERS and not needs.is_parsed(values, dataset):
            found.append(
                f"parsing {dataset}: no variant or metric reads it, so no image is parsed; parsing.{dataset}.always:"
                " true does it all the same"
            )
        for one in trainings(values, dataset):
            if one.settings.get("device", "auto").startswith("cuda") and not Path("/proc/driver/nvidia").exists():
                found.append(f"{one.key}.device is {one.settings['device']}, and this machine has no GPU of that kind")
    for use in dict.fromkeys(use for dataset in values["datasets"] for use in uses(values, dataset)):
        if use.without != "stop":
            try:
                sources(use.net, values)
            except (download.Unavailable, UserError):
                what = "random features stand in, marked" if use.without == "seeded" else "its metrics are left out"
                found.append(f"{use.job}: the published network {use.net} is not to be had: {what}")
    return found
