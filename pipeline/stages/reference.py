"""Fix what every score of a data set shares: the pairs, the networks, and what real images score.

Reads   data/D/images, data/D/keypoints.parquet, data/D/pairs.parquet, runs/D/detector/checkpoints and the feature
        networks under data/weights (inception for FID; alexnet or squeezenet1_1 for LPIPS).
Writes  data/D/reference/
          reference.json    pair limits, image size, the networks and the detector by digest, the PCKh ceilings
          pairs.parquet     the validation and test pairs that are scored
          fid.safetensors   Inception statistics of the real test targets, each counted once for every pair it ends
          detected.parquet  joints that the detector finds on the real targets

Settings (params.yaml, block reference.D): `val_pairs` and `test_pairs` score that many pairs, drawn by a fixed rule;
null scores all, as the papers do. `missing_weights: seeded` lets an unavailable feature network be replaced by one
with random weights; its numbers rank images roughly, compare with nothing published, and are marked. PCKh counts
joints found again in generated images; the ceiling is what the same detector reaches on the real targets.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes
from torch import nn

from models import detector
from pipeline import checkpoints, console, layout, params, pose, published_weights, schema, store
from pipeline.atomic import atomic_directory
from pipeline.device_data import PairData, device, load_pairs
from pipeline.errors import UserError
from pipeline.metrics.fid import FrechetStatistics, inception_features, inception_network
from pipeline.metrics.lpips import lpips_network
from pipeline.metrics.networks import in_batches
from pipeline.metrics.pckh import Joints, pckh
from pipeline.openpose import OpenPose

SPLITS = ("val", "test")
# A feature network, as the metrics name it -> the published weights it takes.
WEIGHTS = {"inception": "inception", "lpips-alex": "alexnet", "lpips-squeeze": "squeezenet1_1"}


@dataclass(frozen=True)
class Params:
    val_pairs: int | None
    test_pairs: int | None
    lpips: str
    batch: int
    seed: int
    device: str
    missing_weights: str


@dataclass(frozen=True)
class Reference:
    """What the stage wrote. `described`: reference.json; `digest`: SHA-256 over all its files."""

    described: dict
    fid: FrechetStatistics
    digest: str


@dataclass(frozen=True)
class Detector:
    """Finds joints again: `find` takes images (n, H, W, 3) uint8 RGB. `name` goes into PCKh's protocol."""

    name: str
    provenance: dict
    find: Callable[[np.ndarray], Joints]


def digest(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files with their names."""
    if path.is_dir():
        lines = "".join(f"{digest(file)}  {file.name}\n" for file in sorted(path.iterdir()))
        return hashlib.sha256(lines.encode()).hexdigest()
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digests(files: list[Path]) -> dict[str, str]:
    return {file.name: digest(file) for file in sorted(files)}


def describe_networks(lpips: str, missing_weights: str, seed: int) -> dict[str, dict]:
    """The feature networks to score with, by the name the metrics need them under: {"files": {name: sha256}}, or
    {"seed": n} for one whose weights are missing and may be. Raises UserError if they may not.
    """
    described = {}
    for name in ("inception", f"lpips-{lpips}"):
        files = published_weights.require(WEIGHTS[name], missing_weights, "reference")
        described[name] = {"seed": seed} if files is None else {"files": digests(files)}
    return described


def open_networks(described: dict[str, dict], where: torch.device) -> dict[str, nn.Module]:
    """The networks that `describe_networks` described, and no others. Raises UserError if the files changed since."""
    networks = {}
    for name, entry in described.items():
        weights = None
        if "files" in entry:
            files = published_weights.files(WEIGHTS[name])
            if files is None or digests(files) != entry["files"]:
                raise UserError(f"{layout.weights(WEIGHTS[name])}: changed since the reference; run reference again")
            weights = published_weights.state_dict(files)
        seed = entry.get("seed", 0)
        if name == "inception":
            network = inception_network(weights, seed)
        else:
            network = lpips_network(weights, seed, net=name.removeprefix("lpips-"))
        networks[name] = network.to(where)
    return networks


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
        joints, scores = detector.decode(trained(images.permute(0, 3, 1, 2).float() / 127.5 - 1))
        return torch.cat([joints, scores.unsqueeze(-1)], dim=-1)

    def find_trained(images: np.ndarray) -> Joints:
        found = in_batches(peaks, where, images).cpu().numpy()
        return Joints(found[..., :2], found[..., 2] >= detector.THRESHOLD)

    name = f"our detector, {dataset} step {steps[-1]}"
    return Detector(name, {"sha256": digest(checkpoints.path(folder, steps[-1]))}, find_trained)


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


def _real_targets(data: PairData, find: Callable, network: nn.Module | None, batch: int, split: str):
    """One pass over the distinct targets -> their rows, their detected joints, and their statistics for FID.

    A target enters the statistics once for every pair that asks for it, as the generated images do: a generator that
    hits every target has distance 0.
    """
    targets, inverse, counts = data.pairs[:, 1].unique(return_inverse=True, return_counts=True)
    statistics = FrechetStatistics()
    xy, valid = [], []
    with console.progress(f"reference {split}", len(targets)) as advance:
        for rows, times in zip(targets.split(batch), counts.split(batch), strict=True):
            images = images_of(data, rows)
            found = find(images)
            xy.append(found.xy)
            valid.append(found.valid)
            if network is not None:
                statistics.update(inception_features(network, images).repeat_interleave(times, dim=0))
            advance(len(rows))
    return targets, inverse.cpu().numpy(), Joints(np.concatenate(xy), np.concatenate(valid)), statistics


def read(dataset: str) -> Reference:
    """What `run` wrote. Raises UserError if it has not run or is damaged."""
    folder = layout.reference(dataset)
    try:
        described = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
        statistics = FrechetStatistics.from_state(load_file(folder / "fid.safetensors"))
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: not there; run: python -m pipeline reference --dataset {dataset}") from None
    return Reference(described, statistics, digest(folder))


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
    described_networks = describe_networks(block.lpips, block.missing_weights, block.seed)
    for name, entry in described_networks.items():
        if "seed" in entry:
            console.say(f"{name}: published weights missing, random ones instead; its numbers will be marked")
    inception = open_networks({"inception": described_networks["inception"]}, where)["inception"]
    finder = open_detector(dataset, where)

    described = {"dataset": dataset, "networks": described_networks, "pairs": {}, "pckh_ceiling": {}}
    described["detector"] = {"name": finder.name, **finder.provenance}
    pairs, detected = [], []
    for split, limit in zip(SPLITS, (block.val_pairs, block.test_pairs), strict=True):
        data = load_pairs(dataset, split, where, limit)
        network = inception if split == "test" else None
        targets, inverse, found, statistics = _real_targets(data, finder.find, network, block.batch, split)
        counts = pckh(Joints(found.xy[inverse], found.valid[inverse]), joints_of(data, data.pairs[:, 1]))
        ceiling = float(counts.correct.sum() / counts.joints.sum()) if counts.joints.any() else None
        described["pairs"][split] = {"limit": limit, "count": len(data), "targets": len(targets)}
        described["pckh_ceiling"][split] = ceiling
        described |= {"height": data.height, "width": data.width}
        pairs.append(pair_table(data, split))
        for row, xy, valid in zip(targets.tolist(), found.xy, found.valid, strict=True):
            detected.append({"image_id": data.ids[row], "split": split, "keypoints": pose.from_array(xy, valid)})
        reached = "no target has a head box" if ceiling is None else f"PCKh of the real targets {ceiling:.3f}"
        console.say(f"{dataset} {split}: {len(data)} pairs, {len(targets)} targets, {reached} ({finder.name})")

    with atomic_directory(layout.reference(dataset)) as folder:
        text = json.dumps(described, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        (folder / "reference.json").write_text(text, encoding="utf-8")
        (folder / "fid.safetensors").write_bytes(to_bytes(statistics.state()))  # of the last split: test
        store.write_table(folder / "pairs.parquet", pa.concat_tables(pairs), schema.PAIRS)
        store.write_table(folder / "detected.parquet", detected, schema.DETECTED)
