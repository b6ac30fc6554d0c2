"""Controls: pictures of which it is known how wrong they are, scored as if a method had drawn them.

The true target, damaged targets and other real pictures show what a metric notices and what it does not. Most are made
from the target that a method has to draw, so they are no methods: they have no rank and no place in a table of methods.
To add one, add an entry to CONTROLS.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np

from pipeline.core import console, layout, schema, store
from pipeline.core.atomic import atomic_directory
from pipeline.formats import pictures
from pipeline.loading.pair_lists import chosen
from pipeline.metrics.pckh import Joints
from pipeline.scoring import judge, real
from pipeline.scoring.judged import Pairs
from pipeline.scoring.pairs import Split
from pipeline.scoring.protocol import Protocol

SEED, RESAMPLES = 0, 2000  # of the shuffle and of the bootstrap; of the bootstrap
APART = 0.25  # of an image's height: how far a joint counts as away that only one of two poses has, and at most


class People(NamedTuple):
    """Who is on the images of some pairs, and what there is to choose from."""

    of: np.ndarray  # (N,) str: the person on each image, by its row
    targets: np.ndarray  # (T,) int64: rows of all test targets, also of pairs that are not among these


Choice = Callable[[Pairs, People], np.ndarray | str]  # (P,) rows of the images that are shown, or why there are none


@dataclass(frozen=True)
class Control:
    """What is scored in place of a pair's generated picture: a real image that `shows` chooses, after `damage`.

    damage: (H, W, 3) uint8 RGB -> the same, as a new array or the same one.
    """

    name: str
    title: str
    text: str
    shows: Choice
    damage: Callable[[np.ndarray], np.ndarray] = lambda image: image


def targets(pairs: Pairs, people: People) -> np.ndarray:
    return pairs.rows[:, 1]


def sources(pairs: Pairs, people: People) -> np.ndarray:
    return pairs.rows[:, 0]


def nearest_others(pairs: Pairs, people: People) -> np.ndarray | str:
    """For each pair, of the test targets that show another person the one whose pose is nearest (`pose_distances`);
    of equals the first.
    """
    found: dict[int, int] = {}
    for target in np.unique(pairs.rows[:, 1]).tolist():
        others = people.targets[people.of[people.targets] != people.of[target]]
        if not len(others):
            return "no test target shows another person"
        apart = pose_distances(pairs.joints(np.array([target])), pairs.joints(others), APART * pairs.size[0])
        found[target] = int(others[apart.argmin()])
    return np.array([found[target] for target in pairs.rows[:, 1].tolist()])


def pose_distances(pose: Joints, others: Joints, apart: float) -> np.ndarray:
    """One pose (1, 18) against n -> (n,): mean distance in pixels over the joints that either has.

    No joint counts more than `apart`; one that only one of the two has counts `apart`. Without any joint: `apart`.
    """
    between = np.linalg.norm(np.subtract(others.xy, pose.xy, dtype=np.float64), axis=2).clip(max=apart)
    either = others.valid | pose.valid
    between = np.where(others.valid & pose.valid, between, apart) * either
    return np.divide(between.sum(axis=1), either.sum(axis=1), out=np.full(len(either), apart), where=either.any(axis=1))


def shuffled(pairs: Pairs, people: People) -> np.ndarray | str:
    """The targets dealt anew among the pairs, each once, so that every pair gets one of another person.

    Sorted by person and turned by as many places as the most frequent person has, no group meets itself.
    """
    _, person, times = np.unique(people.of[pairs.rows[:, 1]], return_inverse=True, return_counts=True)
    if 2 * times.max() > len(pairs):
        return f"one person is on {times.max()} of {len(pairs)} targets: more than half cannot be dealt to others"
    random = np.random.default_rng(SEED)
    order = random.permutation(len(pairs))
    order = order[np.argsort(random.permutation(len(times))[person[order]], kind="stable")]
    dealt = np.empty(len(pairs), np.int64)
    dealt[order] = np.roll(pairs.rows[order, 1], times.max())
    return dealt


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Written and read as JPEG, colours at half size (4:2:0), as OpenCV and Pillow do by themselves."""
    written = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return pictures.decode_stored(written.tobytes(), "control")


def shift(image: np.ndarray) -> np.ndarray:
    """One pixel to the right; the first column is there twice."""
    return np.concatenate([image[:, :1], image[:, :-1]], axis=1)


def blur(image: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), 1.0, borderType=cv2.BORDER_REPLICATE)


CONTROLS = (
    Control("true-target", "True target", "the target itself", targets),
    Control(
        "jpeg-95", "JPEG 95", "the target through JPEG at OpenCV's default quality", targets, partial(jpeg, quality=95)
    ),
    Control(
        "jpeg-75", "JPEG 75", "the target through JPEG at Pillow's default quality", targets, partial(jpeg, quality=75)
    ),
    Control("shifted", "Shifted", "the target one pixel to the right, its edge repeated", targets, shift),
    Control("blurred", "Blurred", "the target under a Gaussian of σ = 1 pixel", targets, blur),
    Control(
        "other-person", "Other person, right pose",
        "of the test targets that show another person the one whose pose is nearest, undamaged", nearest_others,
    ),
    Control("wrong-pose", "Right person, wrong pose", "the source as it is: what the floor copy_source gives", sources),
    Control(
        "shuffled", "Targets shuffled",
        "the targets dealt anew, so that each pair has the target of another person's pair", shuffled,
    ),
)  # fmt: skip


def images(control: Control, pairs: Pairs, shown: np.ndarray, batch: int) -> Iterator[tuple[list[int], np.ndarray]]:
    """Pair ids and a control's images (n, H, W, 3) uint8 RGB, `batch` pairs at a time. shown: what `shows` gave."""
    ids = pairs.pair_ids
    for first in range(0, len(shown), batch):
        real_ones = pairs.images(shown[first : first + batch])
        yield ids[first : first + batch], np.stack([control.damage(image) for image in real_ones])


def write(
    dataset: str,
    whole: Split,
    people: Mapping[str, str],
    protocol: Protocol,
    limit: int,
    batch: int,
    unscored: Mapping[str, str],
) -> None:
    """Score every control on `limit` of the test pairs `whole`, chosen as any shorter list is, and write
    reports/scores/D/controls/.

    people: the person on each image, by its id. protocol: of all pairs; of fewer, FID, KID and ceilings are those of
    these pairs' targets. unscored: metric -> why the data set has no score by it; written beside the rest.
    """
    kept = set(chosen(whole.pairs, limit)["pair_index"].to_pylist())
    places = [place for place, pair in enumerate(whole.pair_ids) if pair in kept]
    about = {"pairs": len(places), "of": len(whole), "unscored": dict(unscored), "controls": []}
    with atomic_directory(layout.controls(dataset)) as folder:
        if places:
            split = whole.subset(places).with_masks()
            known = People(np.array([people[name] for name in whole.ids]), np.unique(whole.rows[:, 1]))
            protocol = real.restricted(protocol, split, batch) if len(split) < len(whole) else protocol
        for control in CONTROLS if places else ():
            shown = control.shows(split, known)
            why = shown if isinstance(shown, str) else ""
            about["controls"].append({"name": control.name, "title": control.title, "text": control.text, "why": why})
            console.say(f"{dataset} control {control.name}" + (f": left out, {why}" if why else ""))
            if why:
                continue
            values, totals = judge.score_images(split, images(control, split, shown, batch), protocol, RESAMPLES, SEED)
            marks = ["pairs"] if len(split) < len(whole) else []
            rows = judge.score_rows(totals, protocol.reference, "test", 0, control.name, marks, RESAMPLES)
            table = judge.pair_rows(split, values, 0)
            store.write_table(folder / control.name / "scores.parquet", rows, schema.SCORES)
            store.write_table(folder / control.name / "pairs.parquet", table, table.schema)
        text = json.dumps(about, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        (folder / "controls.json").write_text(text, encoding="utf-8")
