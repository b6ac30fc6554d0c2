"""Fix what every score of a data set shares: the pairs, the metrics, the networks, and what real images score.

Reads   data/D/images, data/D/keypoints.parquet, data/D/pairs.parquet, runs/D/detector/checkpoints and the metrics'
        networks under data/weights (inception; alexnet, vgg16 or squeezenet1_1 for LPIPS; inception_v3 and reid where
        a metric needs them); data/D/parsing for parsing-miou.
Writes  data/D/reference/
          reference.json       pair limits, image size, metrics, their protocols and versions; images, joints, networks
                               and the detector by digest; how images, joints and pairs differ from the papers'
                               (marks), and the ceilings: what the real target images score where that is not trivial
          pairs.parquet        the validation and test pairs that are scored
          real.safetensors     Inception statistics of the real test targets, each counted once for every pair that
                               ends in it; some of these targets' features for KID; where a metric needs them,
                               statistics of the training images and embeddings of the real ones
          detected.parquet     joints that the detector finds on the real targets
          parsing.parquet      the targets' parsing, where a metric needs it
        reports/scores/D/reference.json: reference.json without its numbers, and a digest of all of the above. Every
        score carries this digest; the tables leave out those of another one
        reports/scores/D/controls/: what the true target, damaged targets and other real images score, a folder with
        scores and pairs for each of these controls; controls.json: what they are, and why a metric or a control is
        left out

Settings (params.yaml, block reference.D): `val_pairs` and `test_pairs` score that many pairs, drawn by a fixed rule;
null scores all, as the papers do. `lpips` is the network of LPIPS: alex, vgg or squeeze. `metrics` names what to score
beyond the standard metrics (docs/protocols.md): SSIM by another window or range (ssim-gauss12, ssim-own-range,
ssim-gauss12-own-range), or what costs another pass of a network: fid-train-tv, mask-is, parsing-miou, parsing-miou-fg,
identity-target, identity-source, or LPIPS by another network.
`networks` names ONNX files of your own, such as DINOv2, CLIP or a face network: each gives frechet-NAME, kid-NAME,
cosine-target-NAME and cosine-source-NAME (docs/protocols.md has the settings):
  NAME: {file: my.onnx, sha256: DIGEST, size: [224, 224], mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5],
         crop: none | person | face, kernel: polynomial | gaussian}
`missing_weights`, where a network's published weights cannot be had: stop; skip leaves its metrics out; seeded replaces
it by one with random weights, whose numbers rank images roughly, compare with nothing published, and are marked (the
re-identification network cannot be replaced, and is left out). `controls`: on how many of the test pairs the controls
are scored (docs/protocols.md).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.anatomy import pose
from pipeline.core import console, layout, params
from pipeline.core.errors import UserError
from pipeline.core.settings import BATCH, COUNT, LARGEST, SEED, device_setting, setting
from pipeline.loading import pair_lists, prepared
from pipeline.loading.devices import device
from pipeline.metrics import FORMS, GIVEN, METRICS, metric, of_own, own_network, standard, versions
from pipeline.scoring import controls, networks, pairs, protocol, real
from pipeline.scoring.detectors import open_detector


@dataclass(frozen=True)
class Params:
    val_pairs: int | None = setting("validation pairs to score; null: all", **COUNT)
    test_pairs: int | None = setting("test pairs to score; null: all, as the papers do", None, **COUNT)
    lpips: Literal["alex", "vgg", "squeeze"] = setting("the network of LPIPS", "alex")
    metrics: tuple[str, ...] = setting(
        "what to score beside the standard metrics, most of them a network pass more (docs/protocols.md)",
        (),
        items={"enum": [name for name, metric in METRICS.items() if metric.optional]},
    )
    networks: Mapping[str, own_network.Settings] = setting(
        "networks of your own by name: each gives frechet-NAME, kid-NAME, cosine-target-NAME, cosine-source-NAME",
        {},
        propertyNames={
            "pattern": own_network.NAME,
            "description": "a name is of small letters and digits, with - or _",
        },
    )
    batch: int = setting("images that a network sees at a time; no value depends on it", 16, **BATCH)
    seed: int = setting("of stand-ins for missing weights", 0, **SEED)
    controls: int = setting(
        "test pairs on which true, damaged and other real images are scored; 0: none", 200, minimum=0, maximum=LARGEST
    )
    device: str = device_setting()
    missing_weights: Literal["stop", "skip", "seeded"] = setting(
        "where a metric's network cannot be had: stop, leave the metric out, or random features, marked in every table",
        "stop",
    )


def run(dataset: str) -> None:
    block = params.block(Params, "reference", dataset)
    where = device(block.device)
    limits = {"val": block.val_pairs, "test": block.test_pairs}
    listed = {split: pairs.listed(dataset, split, limits[split]) for split in protocol.SPLITS}
    data = {split: pairs.load(dataset, table, where) for split, table in listed.items()}
    height, width = data["test"].height, data["test"].width
    wanted = standard(block.lpips, block.metrics, height, width)
    undefined = sorted(set(block.metrics) - set(wanted))
    if undefined:
        raise UserError(
            f"{layout.PARAMS}: reference.{dataset}.metrics: {undefined[0]} is not defined for images of "
            f"{height} x {width}; leave it out"
        )
    metrics, described_networks = networks.describe(wanted, block.missing_weights, block.seed)
    own = networks.of_user(dataset)
    described_networks |= {name: settings.described() for name, settings in own.items()}
    metrics += of_own(block.networks)
    opened = networks.open_all(described_networks, where, own=own)
    detector = open_detector(dataset, where)
    parsing = pairs.target_parsing(dataset, listed["test"]) if "parser" in opened else None

    described: dict[str, Any] = {
        "dataset": dataset,
        "height": height,
        "width": width,
        "metrics": metrics,
        "protocols": {name: metric(name).protocol for name in metrics} | networks.protocols(described_networks),
        "versions": versions(metrics),
        "forms": FORMS,
        "inputs": protocol.inputs(dataset),
        "networks": described_networks,
        "detector": {"name": detector.name, **detector.provenance},
        "pairs": {},
        "marks": {},
        "ceilings": {},
    }
    differs = prepared.marks(dataset)
    statistics, detected, splits = {}, [], {}
    for split, these in data.items():
        labels = pairs.labels_of(parsing, these) if parsing is not None and split == "test" else {}
        splits[split] = pairs.Split(split, listed[split], these, {}, labels)
        found = real.measure(splits[split], metrics, opened, detector.find, block.batch)
        statistics |= found.statistics
        count, targets = len(these), len(found.targets)
        described["pairs"][split] = {"limit": limits[split], "count": count, "targets": targets}
        others = split == "test" and (limits[split] is not None or prepared.other_test_pairs(dataset, count))
        described["marks"][split] = [*differs, *(["pairs"] if others else [])]
        described["ceilings"][split] = found.ceilings
        for row, xy, valid in zip(found.targets.tolist(), *found.detected, strict=True):
            detected.append({"image_id": these.ids[row], "split": split, "keypoints": pose.from_array(xy, valid)})
        ceiling = found.ceilings.get("pckh@0.5")
        reached = "no target has a head box" if ceiling is None else f"PCKh of the real targets {ceiling:.3f}"
        console.say(f"{dataset} {split}: {count} pairs, {targets} targets, {reached} ({detector.name})")
    for name in sorted(own.keys() - statistics.keys()):
        raise UserError(
            f"{layout.PARAMS}: reference.{dataset}.networks.{name.removeprefix(own_network.PREFIX)}: the joints show a "
            f"{own[name].crop} in the targets of fewer than two test pairs; set another crop, or leave it out"
        )
    if "inception-tv" in opened:
        statistics["inception-tv"] = real.training_statistics(dataset, opened["inception-tv"])
    protocol.write(dataset, described, statistics, list(listed.values()), detected, parsing)

    usable = pair_lists.usable_images(dataset)
    people = dict(zip(usable["image_id"].to_pylist(), usable["person_id"].to_pylist(), strict=True))
    made = protocol.Protocol(protocol.read(dataset), opened, detector)
    left_out = _unscored(dataset, described, wanted)
    controls.write(dataset, splits["test"], people, made, block.controls, block.batch, left_out)


def _unscored(dataset: str, described: dict[str, Any], wanted: list[str]) -> dict[str, str]:
    """Metrics by which the data set is not scored -> why."""
    size, why = (described["height"], described["width"]), {}
    for name, one in METRICS.items():
        lacking = set(one.needs) - set(GIVEN) - described["networks"].keys()
        if name in described["metrics"]:
            continue
        if min(size) < one.smallest or one.width not in (None, size[1]):
            why[name] = f"not defined for images of {size[0]} x {size[1]} (height x width)"
        elif name not in wanted:
            why[name] = f"on request: not in reference.{dataset}.metrics"
        else:
            nets = ", ".join(sorted(networks.WEIGHTS[need] for need in lacking))
            why[name] = f"the published weights of {nets} could not be had: logs/weights/{nets}.log says why"
    return why
