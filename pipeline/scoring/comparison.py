"""Score a folder of generated images against a folder of targets: the metrics of `score`, without a data set."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from pipeline.core import layout
from pipeline.core.errors import UserError
from pipeline.extraction.openpose import OpenPose
from pipeline.fetching import networks as published
from pipeline.loading import published_weights
from pipeline.metrics import GIVEN, METRICS, Metric, standard
from pipeline.scoring import detectors, folders, image_folder, judge, networks, real
from pipeline.scoring.protocol import Protocol, Reference
from pipeline.scoring.recipes import INCEPTION, RECIPES, ByRecipe, check_asked, score_by, with_draws

KEYS = (
    "metric",
    "protocol",
    "version",
    "value",
    "low",
    "high",
    "n",
    "excluded",
    "ceiling",
    "higher_is_better",
    "marks",
)
_WHERE = ", not in a folder given as weights, $REPOSE_MIRROR/weights, or data/weights of the current folder"


@dataclass(frozen=True)
class Compared:
    """What `compare` found. `found["ssim"]` is the row of one metric.

    scores: a dict of KEYS for each metric, as docs/protocols.md explains them; value, low and high are None where
    there is none. values: (P,) float64 for each metric that has a value for each pair, NaN where one has none; and
    METRIC:influence for each that is no plain mean. pairs: the files, in this order. left_out: files and metrics that
    were not scored, and why, a line each. by_recipe: what the recipes that were asked for make of the same folders.
    """

    scores: list[dict]
    values: dict[str, np.ndarray]
    pairs: folders.FolderPairs
    left_out: list[str]
    by_recipe: tuple[ByRecipe, ...] = ()

    def __getitem__(self, metric: str) -> dict:
        return {row["metric"]: row for row in self.scores}[metric]

    def table(self) -> pa.Table:
        """A row for each pair: its files, then `values`, null where there is none."""
        sources, targets = ([self.pairs.ids[row] for row in rows] for rows in self.pairs.rows.T.tolist())
        columns = {"generated": pa.array([file.name for file in self.pairs.generated]), "target": pa.array(targets)}
        if self.pairs.has_sources:
            columns["source"] = pa.array(sources)
        values = {name: pa.array(one, pa.float64(), from_pandas=True) for name, one in self.values.items()}
        return pa.table(columns | values)


def compare(
    generated: Path | str,
    targets: Path | str,
    *,
    pairs: Path | str | None = None,
    poses: Path | str | None = None,
    sources: Path | str | None = None,
    numbering: str | None = None,
    metrics: Sequence[str] | None = None,
    weights: Path | str | None = None,
    missing_weights: Literal["skip", "seeded"] = "skip",
    bootstrap: int = 2000,
    seed: int = 0,
    batch: int = 16,
    device: str = "auto",
    recipes: Sequence[str] = (),
    draws: Sequence[Path | str] = (),
) -> Compared:
    """Score the pictures of one folder against those of another, by every metric that can be had.

    Pictures are paired by name, whatever their endings, or by the CSV `pairs`: columns generated,target (and source),
    or the field's from,to. numbering: what numbers in the names of generated ones count, such as from-1; None: the
    pictures decide (`scoring.numbering`). All have one size; generated ones are 8-bit RGB. poses: the targets' joints:
    the field's CSV, OpenPose's JSON files, or one JSON object, name -> 18 x [x, y] or null; None: Lightweight OpenPose
    finds them.
    sources: a folder, for the likeness to the source. metrics: names from docs/protocols.md; None: the standard ones
    and, where their network is there, identity-target and identity-source.

    Weights of the metrics' networks are taken from the folder `weights` (where they lie, or one like $REPOSE_MIRROR,
    with a sub-folder weights), $REPOSE_MIRROR, or data/weights of the current folder; where they are missing, their
    metrics are left out ("skip") or scored by random ones and marked ("seeded"). bootstrap, seed: resamples of the
    intervals, as in score. device: auto, cpu, cuda or cuda:N. No value depends on `batch`.

    recipes: names from `scoring.recipes.RECIPES`, whose numbers are found as well; they alone where the generated
    images have another size. draws: folders of further images of each pair, for a recipe that takes the best of them.

    Raises UserError for input that cannot be scored, and for a metric in `metrics` that cannot be had.
    """
    draws = [Path(folder) for folder in draws]
    check_asked(recipes, draws)
    given, left_out = folders.open_folders(Path(generated), Path(targets), _path(pairs), _path(sources), numbering)

    files = with_draws(dict(enumerate(given.generated)), draws)

    @cache  # each is read for its digest
    def files_of(net: str) -> list[Path] | None:
        return _files(net, _path(weights))

    def by_recipes(scores: Sequence[dict]) -> tuple[ByRecipe, ...]:
        right = {row["metric"]: row["value"] for row in scores}
        opened = _lpips_of(recipes, files_of, missing_weights, seed, device)
        return tuple(score_by(name, given, files, opened, {}, right) for name in recipes)

    if recipes and (size := folders.other_size(given)):
        sizes = "{} x {}, the targets {} x {}".format(*size, *given.size)
        left_out.append(f"the right numbers: generated images are {sizes} (height x width); metrics want one size")
        return Compared([], {}, given, left_out, by_recipes([]))
    found = folders.checked(given)
    names = _candidates(metrics, given.size, files_of)
    network = None
    if _needs(names) & {"masks", "joints"}:
        openpose = files_of("openpose")
        network = OpenPose(openpose) if openpose else None
        if poses is not None:
            given = replace(given, target_joints=folders.poses(Path(poses), given))
            folders.look_at_poses(Path(poses), given)
        elif network is not None:
            given = replace(given, target_joints=folders.found_poses(given, network.central_people, batch))
    lacking = {name: _lacks(METRICS[name], given, network is not None, files_of, missing_weights) for name in names}
    if metrics is not None:
        for name, why in lacking.items():
            if why:
                raise UserError(f"{name} {why}")
    left_out += [f"{', '.join(group)}: {why}" for why, group in _grouped(lacking)]
    names = [name for name in names if lacking[name] is None]
    if not names:
        raise UserError(f"no metric can be had; {left_out[-1]}")

    names, described = networks.describe(names, missing_weights, seed, files_of)
    where = None
    if described.keys() - {"reid"}:
        from pipeline.loading.devices import device as chosen

        where = chosen(device)
    opened = networks.open_all(described, where, files_of)
    needs = _needs(names)
    detector = detectors.openpose(network, openpose) if "joints" in needs else None
    statistics, ceilings = {}, {}
    if detector or "reid" in opened or any(METRICS[name].feature for name in names):
        measured = real.measure(given, names, opened, detector and detector.find, batch)
        statistics, ceilings = measured.statistics, measured.ceilings
    made = {"dataset": "", "metrics": names, "marks": {"test": []}, "ceilings": {"test": ceilings}}
    made["detector"] = {"name": detector.name if detector else ""}
    protocol = Protocol(Reference(made, statistics), opened, detector)
    values, totals = judge.score_images(given, image_folder.read_all(given, found, batch), protocol, bootstrap, seed)

    jpeg = ["jpeg"] if any(one.jpeg for one in found.values()) else []
    scores = []
    for row in judge.score_rows(totals, protocol.reference, "test", 0, "", jpeg, bootstrap):
        by_joints = poses is None and {"masks", "joints"} & set(METRICS[row["metric"]].needs)
        scores.append({key: row[key] for key in KEYS} | {"marks": [*row["marks"], *(["joints"] if by_joints else [])]})
    return Compared(scores, values, given, left_out, by_recipes(scores))


def by_recipe(
    recipe: str,
    generated: Path,
    targets: Path,
    *,
    pairs: Path | None,
    poses: Path | None,
    sources: Path | None,
    numbering: str | None,
    weights: Path | None,
    training: Path | None,
    draws: Sequence[Path],
    every: int | None = None,
) -> tuple[ByRecipe, folders.FolderPairs, list[str]]:
    """What one recipe makes of two folders and, for its FID, of a third, all training images: all as for `compare`. The
    pairs, and what was left out of them, a line each. every: how many pairs there must be. Raises UserError for input
    that cannot be scored.
    """
    check_asked([recipe], draws)
    given, left_out = folders.open_folders(generated, targets, pairs, sources, numbering)
    if every is not None and len(given) != every:
        raise UserError(f"{generated}: {len(given)} pairs of {every}: a published number is one of them all")
    if poses is not None:
        given = replace(given, target_joints=folders.poses(poses, given))
        folders.look_at_poses(poses, given)

    @cache
    def files_of(net: str) -> list[Path] | None:
        return _files(net, weights)

    opened, real_side = _lpips_of([recipe], files_of, "skip", 0, "auto"), {}
    if training is not None:
        network, real_side = _of_training(training, files_of)
        opened |= network
    files = with_draws(dict(enumerate(given.generated)), draws)
    return score_by(recipe, given, files, opened, real_side, {}), given, left_out


def _of_training(folder: Path, files_of: networks.Files) -> tuple[dict[str, Any], dict[str, Any]]:
    """torchvision's Inception and its statistics of all pictures in a folder, by their names in `Metric`; nothing where
    its weights are not there, which is said. Raises UserError for a picture of another size than the first.
    """
    from pipeline.loading.devices import device as chosen

    described = networks.describe(["fid-train-tv"], "skip", 0, files_of)[1]
    opened, statistics = networks.open_all(described, chosen("auto"), files_of), None
    for images in folders.pictures_of(folder, "training images") if opened else ():
        from pipeline.metrics.fid import FrechetStatistics
        from pipeline.metrics.inception import inception_features

        features = inception_features(opened[INCEPTION], images).float().cpu().numpy()
        statistics = statistics or FrechetStatistics(features.shape[1])
        statistics.update(features)
    return opened, {INCEPTION: statistics} if opened else {}


def _path(value: Path | str | None) -> Path | None:
    return None if value is None else Path(value)


def _needs(names: Iterable[str]) -> set[str]:
    return {need for name in names for need in METRICS[name].needs}


def _files(net: str, folder: Path | None) -> list[Path] | None:
    """A network's files: in a folder, in $REPOSE_MIRROR, or in the project that is the working directory."""
    if folder is not None and not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of the published weights")
    if found := published.in_folders(net, folder):
        return found
    return published_weights.files(net) if (layout.weights(net) / "source.json").exists() else None


def _candidates(metrics: Sequence[str] | None, size: tuple[int, int], files_of: networks.Files) -> list[str]:
    """What to score if it can be had, in the order of METRICS. Raises UserError for a name that is none, and for a
    metric that is not defined for images of this size.
    """
    if metrics is None:
        return standard(_lpips(files_of), ("identity-target", "identity-source"), *size)
    unknown = [name for name in metrics if name not in METRICS]
    if unknown or not metrics:
        raise UserError(f"metrics: {', '.join(unknown) or 'none'}; choose from {', '.join(METRICS)}")
    defined = standard("alex", metrics, *size)
    undefined = [name for name in metrics if name not in defined]
    if undefined:
        raise UserError(f"{undefined[0]} is not defined for images of {size[0]} x {size[1]} (height x width)")
    return [name for name in defined if name in metrics]


def _lpips(files_of: networks.Files) -> str:
    """The network of LPIPS whose weights are there, AlexNet first; AlexNet if none are."""
    return next((net for net in ("alex", "vgg", "squeeze") if files_of(networks.WEIGHTS[f"lpips-{net}"])), "alex")


def _lpips_of(
    recipes: Sequence[str], files_of: networks.Files, missing_weights: str, seed: int, device: str
) -> dict[str, Any]:
    """It, opened, by its name in `Metric.needs`, if one of the recipes looks through it and it can be had."""
    if not any(number.network == "lpips" for name in recipes for number in RECIPES[name].numbers):
        return {}
    from pipeline.loading.devices import device as chosen

    metric = f"lpips-{_lpips(files_of)}-v0.1"
    return networks.open_all(networks.describe([metric], missing_weights, seed, files_of)[1], chosen(device), files_of)


def _lacks(
    metric: Metric, given: folders.FolderPairs, detects: bool, files_of: networks.Files, missing_weights: str
) -> str | None:
    """Why a metric cannot be had, None if it can."""
    needs = set(metric.needs)
    openpose = f"the weights of Lightweight OpenPose: {published.named('openpose')}{_WHERE}"
    if "labels" in needs or metric.real == "inception-tv":
        return "looks at more of a data set than two folders hold; use `repose score --images`"
    if needs & {"masks", "joints"} and given.target_joints is None:
        return f"needs the targets' joints: give poses, or {openpose}"
    if "joints" in needs and not detects:
        return f"needs {openpose}"
    if metric.name == "identity-source" and not given.has_sources:
        return "needs the source images: give sources"
    if metric.feature and len(given) < 2:
        return "needs two pairs at least"
    for need in sorted(needs - set(GIVEN)):
        net = networks.WEIGHTS[need]
        if files_of(net) is None and (missing_weights == "skip" or need == "reid"):
            return f"needs the published weights of {net}: {published.named(net)}{_WHERE}"
    return None


def _grouped(lacking: dict[str, str | None]) -> list[tuple[str, list[str]]]:
    """(Why, metrics), without those that lack nothing."""
    groups: dict[str, list[str]] = {}
    for name, why in lacking.items():
        if why:
            groups.setdefault(why, []).append(name)
    return list(groups.items())
