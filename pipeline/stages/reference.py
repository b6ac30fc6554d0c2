"""Fix what every score of a data set shares: the pairs, the metrics, the networks, and what real images score.

Reads   data/D/images, data/D/keypoints.parquet, data/D/pairs.parquet, runs/D/detector/checkpoints and the metrics'
        networks under data/weights (inception; alexnet, vgg16 or squeezenet1_1 for LPIPS; inception_v3 and reid where
        a metric asks for them); data/D/parsing for parsing-miou.
Writes  data/D/reference/
          reference.json       pair limits, image size, metrics, the networks and the detector by digest, and the
                               ceilings: what the real target images score where that is not trivial
          pairs.parquet        the validation and test pairs that are scored
          real.safetensors     Inception statistics of the real test targets, each counted once for every pair it ends;
                               some of these targets' features for KID; where a metric asks for them, statistics of the
                               training images and embeddings of the real ones
          detected.parquet     joints that the detector finds on the real targets
          parsing.parquet      the targets' parsing, where a metric asks for it

Settings (params.yaml, block reference.D): `val_pairs` and `test_pairs` score that many pairs, drawn by a fixed rule;
null scores all, as the papers do. `lpips` is the network of LPIPS: alex, vgg or squeeze. `metrics` names what to score
beside the standard metrics; each costs a pass of a network more (docs/protocols.md): fid-train-tv, mask-is,
parsing-miou, parsing-miou-fg, identity-target, identity-source, or LPIPS by another network.
`missing_weights`: stop; skip leaves the metrics of an unavailable network out; seeded replaces it by one with random
weights, whose numbers rank images roughly, compare with nothing published, and are marked (the re-identification
network cannot be replaced, and is left out).
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes
from torch import nn

from models import detector
from pipeline.anatomy import pose
from pipeline.core import console, layout, params, schema, store
from pipeline.core.atomic import atomic_directory
from pipeline.core.digests import sha256
from pipeline.core.errors import UserError
from pipeline.extraction import repose_parser
from pipeline.extraction.openpose import OpenPose
from pipeline.formats import pictures
from pipeline.loading import checkpoints, published_weights, stored_images
from pipeline.loading.arrays import PairData, load_pairs
from pipeline.loading.devices import device
from pipeline.loading.pixels import as_floats
from pipeline.metrics import FEATURES, GIVEN, METRICS, standard
from pipeline.metrics.fid import FrechetStatistics, statistics_of
from pipeline.metrics.identity import ReId, similarity
from pipeline.metrics.networks import in_batches
from pipeline.metrics.pckh import Joints, pckh
from pipeline.metrics.pose_error import pose_error
from pipeline.metrics.pose_mask import pose_masks
from pipeline.metrics.stream import Comparison

SPLITS = ("val", "test")
# A network, as the metrics name it -> the published weights it takes.
WEIGHTS = {
    "inception": "inception",
    "inception-tv": "inception_v3",
    "lpips-alex": "alexnet",
    "lpips-vgg": "vgg16",
    "lpips-squeeze": "squeezenet1_1",
    "reid": "reid",
}
KID_TARGETS = 2048  # real features that are kept for KID, 8 KiB each


@dataclass(frozen=True)
class Params:
    val_pairs: int | None
    test_pairs: int | None
    lpips: str
    metrics: list[str]
    batch: int
    seed: int
    device: str
    missing_weights: str


@dataclass(frozen=True)
class Reference:
    """What the stage wrote. `described`: reference.json; `digest`: SHA-256 over all its files.

    real: "inception" and, if wanted, "inception-tv": FrechetStatistics; "inception-sample": (m, 2048) float32;
    "embeddings-val", "embeddings-test": (n, 256) float32, in the order of the split's images.
    """

    described: dict
    real: Mapping[str, Any]
    digest: str


@dataclass(frozen=True)
class Detector:
    """Finds joints again: `find` takes images (n, H, W, 3) uint8 RGB. `name` goes into PCKh's protocol."""

    name: str
    provenance: dict
    find: Callable[[np.ndarray], Joints]


def digests(files: list[Path]) -> dict[str, str]:
    return {file.name: sha256(file) for file in sorted(files)}


def networks_of(metrics: Iterable[str]) -> list[str]:
    """The networks that these metrics need, sorted."""
    return sorted({need for name in metrics for need in METRICS[name].needs} - set(GIVEN))


def describe_networks(metrics: Sequence[str], missing_weights: str, seed: int) -> tuple[list[str], dict[str, dict]]:
    """The metrics that can be scored, and their networks by the name they need them under: {"files": {name: sha256}},
    or {"seed": n} for one whose weights are missing and may be random.

    With missing_weights "skip" the metrics of a missing network are left out. Raises UserError with "stop".
    """
    described, lacking = {}, set()
    for name in networks_of(metrics):
        if name == "parser":
            described[name] = {"files": digests([repose_parser.WEIGHTS])}
            continue
        files = published_weights.require(WEIGHTS[name], missing_weights, "reference")
        if files is not None:
            described[name] = {"files": digests(files)}
        elif missing_weights == "seeded" and name != "reid":
            described[name] = {"seed": seed}
            console.say(f"{name}: published weights missing, random ones instead; its numbers will be marked")
        else:
            lacking.add(name)
            console.say(f"{name}: published weights missing; its metrics are left out")
    return [name for name in metrics if not lacking & set(METRICS[name].needs)], described


def open_networks(described: dict[str, dict], where: torch.device) -> dict[str, Any]:
    """The networks that `describe_networks` described, and no others. Raises UserError if the files changed since."""
    networks = {}
    for name, entry in described.items():
        files = None
        if name == "parser":
            files = [repose_parser.WEIGHTS]
        elif "files" in entry:
            files = published_weights.files(WEIGHTS[name])
        if "files" in entry and (files is None or digests(files) != entry["files"]):
            folder = repose_parser.WEIGHTS if name == "parser" else layout.weights(WEIGHTS[name])
            raise UserError(f"{folder}: changed since the reference; run reference again")
        networks[name] = _open(name, files, entry.get("seed", 0), where)
    return networks


def _open(name: str, files: list[Path] | None, seed: int, where: torch.device) -> Any:
    from pipeline.metrics.inception import inception_network, torchvision_inception
    from pipeline.metrics.lpips import lpips_network

    if name == "parser":
        return repose_parser.load(str(where))
    if name == "reid":
        return ReId(files)
    weights = None if files is None else published_weights.state_dict(files)
    if name.startswith("lpips-"):
        return lpips_network(weights, seed, net=name.removeprefix("lpips-")).to(where)
    return {"inception": inception_network, "inception-tv": torchvision_inception}[name](weights, seed).to(where)


def open_detector(dataset: str, where: torch.device) -> Detector:
    """The data set's joint detector: OpenPose, or the last checkpoint of the network trained on its training images."""
    folder = layout.checkpoints(dataset, "detector")
    meta = checkpoints.meta(folder)
    if meta["kind"] == "openpose":
        files = published_weights.require("openpose", "stop", f"the detector of {dataset}")
        network = OpenPose(files)

        def find(images: np.ndarray) -> Joints:
            joints, scores = network(images)
            return Joints(joints, scores > 0)

        return Detector("Lightweight OpenPose", {"files": digests(files)}, find)

    steps = checkpoints.steps(folder)
    if not steps:
        raise UserError(f"{folder}: no checkpoint; run the stage pretrain, component detector")
    trained, _ = checkpoints.load(folder, steps[-1])
    trained.to(where)

    def peaks(images: torch.Tensor) -> torch.Tensor:  # (B, H, W, 3) uint8 -> (B, 18, 3): x, y, score
        joints, scores = detector.decode(trained(as_floats(images.permute(0, 3, 1, 2))))
        return torch.cat([joints, scores.unsqueeze(-1)], dim=-1)

    def find_trained(images: np.ndarray) -> Joints:
        found = in_batches(peaks, where, images).cpu().numpy()
        return Joints(found[..., :2], found[..., 2] >= detector.THRESHOLD)

    name = f"our detector, {dataset} step {steps[-1]}"
    return Detector(name, {"sha256": sha256(checkpoints.path(folder, steps[-1]))}, find_trained)


def images_of(data: PairData, rows: torch.Tensor) -> np.ndarray:
    """Stored images `rows` -> (n, H, W, 3) uint8 RGB, as every metric takes them."""
    return data.images[rows.to(data.images.device)].permute(0, 2, 3, 1).contiguous().cpu().numpy()


def joints_of(data: PairData, rows: torch.Tensor) -> Joints:
    return Joints(data.joints[rows].cpu().numpy(), data.valid[rows].cpu().numpy())


def pair_table(data: PairData, split: str) -> pa.Table:
    """The pairs of `data` in order, as `schema.PAIRS`."""
    pairs = data.pairs.cpu().numpy()
    columns = [
        pa.array([split] * len(data)),
        pa.array(data.pair_index.cpu().numpy(), pa.int32()),
        *(pa.array([data.ids[row] for row in pairs[:, side]]) for side in (0, 1)),
    ]
    return pa.Table.from_arrays(columns, schema=schema.PAIRS)


class Real(NamedTuple):
    """What the real images of one split give."""

    real: dict[str, Any]  # as Reference.real, without the training images'
    ceilings: dict[str, float]  # metric -> its value for the real targets, where that is not trivial
    targets: torch.Tensor  # rows of the distinct targets
    detected: Joints  # found on them


def measure(
    data: PairData,
    split: str,
    metrics: Sequence[str],
    networks: Mapping[str, Any],
    find: Callable[[np.ndarray], Joints],
    labels: Mapping[int, np.ndarray],
    batch: int,
) -> Real:
    """One pass over the distinct targets of `data`, judged as if they had been generated.

    A target enters statistics and means once for every pair that asks for it, as the generated images do: a generator
    that hits every target has FID 0. labels: the targets' parsing, by row; empty unless a metric needs it.
    """
    wanted = [METRICS[name] for name in scored(metrics, split)]
    features = {metric.feature: FEATURES[metric.feature].storage(len(data)) for metric in wanted if metric.feature}
    features.pop("inception-tv", None)  # compared with the training images, not with these
    targets, inverse = data.pairs[:, 1].cpu().unique(return_inverse=True)
    pairs_of = [np.flatnonzero(inverse.numpy() == number) for number in range(len(targets))]
    xy, valid, done = [], [], 0
    with console.progress(f"reference {split}", len(targets)) as advance:
        for rows in targets.split(batch):
            images, joints = images_of(data, rows), joints_of(data, rows)
            found = find(images)
            xy.append(found.xy)
            valid.append(found.valid)
            masks = pose_masks(*joints, data.height, data.width)
            parsing = np.stack([labels[row] for row in rows.tolist()]) if labels else None
            judged = Comparison(images, images, networks, masks, found, joints, parsing)
            places = pairs_of[done : done + len(rows)]
            times = [len(place) for place in places]
            for name, kept in features.items():
                kept[np.concatenate(places)] = FEATURES[name].of(judged).repeat(times, axis=0)
            done += len(rows)
            advance(len(rows))
    detected = Joints(np.concatenate(xy), np.concatenate(valid))
    at = inverse.numpy()
    seen, truth = Joints(detected.xy[at], detected.valid[at]), joints_of(data, data.pairs[:, 1])

    real: dict[str, Any] = {}
    pooled = {"pckh@0.5": pckh(seen, truth)[:2], "pose-error-px": pose_error(seen, truth)}
    ceilings = {name: above.sum() / below.sum() for name, (above, below) in pooled.items() if below.any()}
    if "inception" in features:
        real["inception"] = statistics_of(features["inception"])
        chosen = np.linspace(0, len(data) - 1, min(KID_TARGETS, len(data))).round().astype(int)
        real["inception-sample"] = np.array(features["inception"][chosen])
    for metric in wanted:
        if metric.feature in features and metric.real is None:
            ceilings[metric.name] = metric.of_set(features[metric.feature], networks, None)[0]
    if "reid" in networks:
        embedded = []
        with console.progress(f"reference {split}, identities", len(data.ids)) as advance:
            for rows in torch.arange(len(data.ids)).split(batch):
                embedded.append(networks["reid"](images_of(data, rows)))
                advance(len(rows))
        real[f"embeddings-{split}"] = embeddings = np.concatenate(embedded)
        source, target = embeddings[data.pairs.cpu().numpy()].transpose(1, 0, 2)
        ceilings["identity-source"] = similarity(target, source).mean()
    return Real(real, {k: float(v) for k, v in ceilings.items() if np.isfinite(v)}, targets, detected)


def scored(metrics: Iterable[str], split: str) -> list[str]:
    """Those of `metrics` that are scored on a split: of val only those that have a value for each pair."""
    return [name for name in metrics if split == "test" or METRICS[name].per_pair]


def _of_training_images(dataset: str, network: nn.Module) -> FrechetStatistics:
    """Every image of split train, once."""
    table = store.read_table(layout.images(dataset), columns=["image_id", "split"])
    wanted = table.filter(pc.equal(table["split"], "train"))["image_id"].combine_chunks()
    from pipeline.metrics.inception import DIMENSIONS, inception_features

    statistics = FrechetStatistics(DIMENSIONS)
    with console.progress("reference train", len(wanted)) as advance:
        for names, images in stored_images.stream(dataset, wanted):
            statistics.update(inception_features(network, images.permute(0, 2, 3, 1).contiguous().numpy()))
            advance(len(names))
    return statistics


def _parsing(dataset: str, ids: list[str]) -> pa.Table:
    """The stored parsing of these images. Raises UserError if one has none."""
    table = store.read_table(layout.parsing(dataset), filters=[("image_id", "in", ids)]).sort_by("image_id")
    lacking = sorted(set(ids) - set(table["image_id"].to_pylist()))
    if lacking:
        raise UserError(
            f"{layout.parsing(dataset)}: no parsing of {len(lacking)} targets, {lacking[0]} the first; run parsing (its"
            f" source must not be none), or take parsing-miou out of reference.{dataset}.metrics in {layout.PARAMS}"
        )
    return table.replace_schema_metadata().cast(schema.PARSING)


def labels_of(table: pa.Table, data: PairData) -> dict[int, np.ndarray]:
    """Rows of `schema.PARSING` -> (H, W) uint8 LIP-20 ids, by the row of `data` with that image."""
    row = {name: number for number, name in enumerate(data.ids)}
    found = {}
    for entry in table.to_pylist():
        if entry["image_id"] in row:
            what = f"parsing of {entry['image_id']}"
            found[row[entry["image_id"]]] = pictures.decode_labels(entry["parsing"]["bytes"], what)
    return found


def read_labels(dataset: str, data: PairData) -> dict[int, np.ndarray]:
    """The targets' parsing that `run` stored, by row of `data`; empty where no metric needed it."""
    path = layout.reference(dataset) / "parsing.parquet"
    return labels_of(store.read_table(path), data) if path.exists() else {}


def _flat(real: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """FrechetStatistics as three arrays NAME/KEY; arrays as they are."""
    flat = {}
    for name, value in real.items():
        arrays = {f"{name}/{key}": array for key, array in value.state().items()} if hasattr(value, "state") else None
        flat |= arrays or {name: np.ascontiguousarray(value)}
    return flat


def _unflat(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    real: dict[str, Any] = {name: array for name, array in flat.items() if "/" not in name}
    for name in {key.split("/")[0] for key in flat if "/" in key}:
        state = {key.split("/")[1]: array for key, array in flat.items() if key.startswith(f"{name}/")}
        real[name] = FrechetStatistics.from_state(state)
    return real


def read(dataset: str) -> Reference:
    """What `run` wrote. Raises UserError if it has not run or is damaged."""
    folder = layout.reference(dataset)
    try:
        described = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
        real = _unflat(load_file(folder / "real.safetensors"))
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: not there; run: python -m pipeline reference --dataset {dataset}") from None
    return Reference(described, real, sha256(folder))


def load_scored_pairs(
    dataset: str, split: str, where: torch.device, reference: Reference, parsing: bool = False
) -> PairData:
    """The pairs that the reference lists for `split`. Raises UserError if the data set no longer gives them."""
    data = load_pairs(dataset, split, where, reference.described["pairs"][split]["limit"], parsing)
    listed = store.read_table(layout.reference(dataset) / "pairs.parquet", filters=[("split", "=", split)])
    if not pair_table(data, split).equals(listed):
        raise UserError(f"{layout.reference(dataset)}: made for other pairs of {split}; run reference again")
    return data


def run(dataset: str) -> None:
    block = params.block(Params, "reference", dataset)
    where = device(block.device)
    limits = dict(zip(SPLITS, (block.val_pairs, block.test_pairs), strict=True))
    data = {split: load_pairs(dataset, split, where, limit) for split, limit in limits.items()}
    height, width = data["test"].height, data["test"].width
    wanted = standard(block.lpips, block.metrics, height, width)
    undefined = sorted(set(block.metrics) - set(wanted))
    if undefined:
        raise UserError(
            f"{layout.PARAMS}: reference.{dataset}.metrics: {undefined[0]} is not defined for images of "
            f"{height} x {width}; leave it out"
        )
    metrics, described_networks = describe_networks(wanted, block.missing_weights, block.seed)
    networks = open_networks(described_networks, where)
    finder = open_detector(dataset, where)

    parsing = None
    if "parser" in networks:
        parsing = _parsing(dataset, sorted({data["test"].ids[row] for row in data["test"].pairs[:, 1].tolist()}))
    described = {"dataset": dataset, "height": height, "width": width, "metrics": metrics, "pairs": {}, "ceilings": {}}
    described["networks"] = described_networks
    described["detector"] = {"name": finder.name, **finder.provenance}
    real, pairs, detected = {}, [], []
    for split in SPLITS:
        labels = labels_of(parsing, data[split]) if parsing is not None and split == "test" else {}
        found = measure(data[split], split, metrics, networks, finder.find, labels, block.batch)
        real |= found.real
        count, targets = len(data[split]), len(found.targets)
        described["pairs"][split] = {"limit": limits[split], "count": count, "targets": targets}
        described["ceilings"][split] = found.ceilings
        pairs.append(pair_table(data[split], split))
        for row, xy, valid in zip(found.targets.tolist(), *found.detected, strict=True):
            entry = {"image_id": data[split].ids[row], "split": split, "keypoints": pose.from_array(xy, valid)}
            detected.append(entry)
        ceiling = found.ceilings.get("pckh@0.5")
        reached = "no target has a head box" if ceiling is None else f"PCKh of the real targets {ceiling:.3f}"
        console.say(f"{dataset} {split}: {count} pairs, {targets} targets, {reached} ({finder.name})")
    if "inception-tv" in networks:
        real["inception-tv"] = _of_training_images(dataset, networks["inception-tv"])

    with atomic_directory(layout.reference(dataset)) as folder:
        text = json.dumps(described, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        (folder / "reference.json").write_text(text, encoding="utf-8")
        (folder / "real.safetensors").write_bytes(to_bytes(_flat(real)))
        store.write_table(folder / "pairs.parquet", pa.concat_tables(pairs), schema.PAIRS)
        store.write_table(folder / "detected.parquet", detected, schema.DETECTED)
        if parsing is not None:
            store.write_table(folder / "parsing.parquet", parsing, schema.PARSING)
