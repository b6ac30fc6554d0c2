"""Find a stand-in target parsing for every training image (SPT's pseudo labels): data/D/pseudo_labels/R/part-*.parquet.

When SPT trains on single images, there is no parsing of the person in another pose. It takes another training image's:
the one whose parsing is most like the source's once each of ten body parts is moved onto it (the equation is in
pipeline/stand_ins/part_search.py). Reads keypoints.parquet and parsing/, so set `parsing.D.source` to anything but
none. One row per training image:

  image_id       the source
  pseudo_id      whose parsing stands in; null where the source lacks a shoulder or a hip, or no candidate is left
  cost           the equation's sum: 2 for each pixel of a part whose label differs, 1 where only one of the two has any
  pose_distance  mean distance of the joints seen in both, in torso lengths of the source

Candidates are training images with shoulders and hips, without those that show nobody in particular. The rule R chooses
among them:

  equation           the lowest cost, as published; it favours small people who show few parts
  balanced           the lowest cost per pixel of the candidate's parts, of candidates that show every part that the
                     source shows; not published

Each rule serves a component, spt_parsing and spt_parsing_balanced. While nothing in params.yaml needs that
(data/D/needs/), nothing is searched and the output has no rows. Both rules take their settings from `pseudo_labels.D`:

  exclude_below      poses nearer than this are left out (torso lengths; not published)
  min_shared_joints  candidates with fewer joints in common are left out
  rerank             how many of the best by the approximate ranking are compared exactly
  frame              cells along each side of a part in the approximate ranking
  device             auto, cpu, cuda or cuda:N for the ranking: the same output from all of them
"""

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import datasets
from pipeline.anatomy import labels, pose
from pipeline.core import console, layout, needs, params, resume, schema, store
from pipeline.core.digests import code_of
from pipeline.core.errors import UserError
from pipeline.core.settings import COUNT, device_setting, setting
from pipeline.formats import pictures
from pipeline.stand_ins import body_parts

if TYPE_CHECKING:  # where nothing is trained on it, as in the demo, the stage does without torch
    from pipeline.stand_ins import part_search

READER = {"equation": "spt_parsing", "balanced": "spt_parsing_balanced"}  # the component that is trained on a rule's
CHUNK = 1024  # sources at a time: all candidates' features are made once for each chunk
_BATCH = 64


@dataclass(frozen=True)
class Params:
    rerank: int = setting("how many of the approximate ranking are compared exactly", 64, **COUNT)
    exclude_below: float = setting(
        "poses nearer than this are left out (torso lengths; not published)", 0.25, minimum=0, maximum=1000
    )
    min_shared_joints: int = setting("joints that two poses must share to be compared", 8, minimum=1, maximum=18)
    frame: int = setting("cells along each side of a part in the approximate ranking", 8, minimum=2, maximum=64)
    device: str = device_setting()


def sources(keypoints: pa.Table, parsing: Path) -> list[str]:
    """Ids of the training images that have a parsing, sorted. Raises UserError without any."""
    train = keypoints.filter(pc.equal(keypoints.column("split"), "train")).column("image_id").combine_chunks()
    ids = store.read_table(parsing, columns=["image_id"]).column("image_id")
    names = ids.filter(pc.is_in(ids, train)).to_pylist()
    if not names:
        raise UserError(f"{parsing}: no parsing of a training image; set parsing.source and run parsing and this again")
    return names


def load(keypoints: pa.Table, parsing: Path, file: BinaryIO) -> "tuple[list[str], part_search.People]":
    """`sources` and their poses; their label maps go to the empty `file`.

    keypoints: columns image_id, split, keypoints. Memory holds the poses alone. Raises UserError without any.
    """
    from pipeline.stand_ins import part_search

    names = sources(keypoints, parsing)
    keypoints = keypoints.filter(pc.equal(keypoints.column("split"), "train"))
    joints, valid = pose.batch_arrays(keypoints.column("keypoints"))
    row_of = {name: row for row, name in enumerate(keypoints.column("image_id").to_pylist())}
    rows, sizes, areas = [], [], []
    with console.progress("label maps", len(row_of)) as advance:
        for some in _batches_of_one_size(parsing, row_of):
            maps = labels.to_spt10(np.stack([one for _, one in some]))
            here = [row_of[name] for name, _ in some]
            codes, area = part_search.encode(maps, joints[here], valid[here])
            file.write(codes.tobytes())
            rows += here
            sizes += [maps.shape[1:]] * len(some)
            areas.append(area)
            advance(len(some))
    file.flush()
    height, width = np.array(sizes, np.int64).T
    codes = np.memmap(file, np.uint16, "r")
    offset = np.cumsum(height * width) - height * width
    return names, part_search.People(joints[rows], valid[rows], codes, offset, height, width, np.concatenate(areas))


def _batches_of_one_size(parsing: Path, wanted: dict[str, int]) -> Iterator[list[tuple[str, np.ndarray]]]:
    """(image_id, LIP-20 ids uint8 (H, W)) of wanted images in order, in lists of at most _BATCH and one size."""
    label_map = pictures.label_decoder(parsing, "lip-20")
    some: list[tuple[str, np.ndarray]] = []
    for row in store.iter_rows(parsing, columns=["image_id", "parsing"]):
        if row["image_id"] not in wanted:
            continue
        one = label_map(row["parsing"]["bytes"], f"{parsing}: parsing of {row['image_id']}")
        if some and (len(some) == _BATCH or some[0][1].shape != one.shape):
            yield some
            some = []
        some.append((row["image_id"], one))
    if some:
        yield some


def candidates(
    names: list[str], people: "part_search.People", junk: tuple[str, ...], block: Params
) -> "part_search.Index":
    """All candidates, ready to be ranked. Raises UserError if there is none."""
    from pipeline.loading import devices
    from pipeline.stand_ins import part_search

    admitted = body_parts.usable(people.joints, people.valid)
    if junk:
        admitted &= [not name.startswith(junk) for name in names]
    found = np.flatnonzero(admitted)
    if not len(found):
        raise UserError("no training image shows both shoulders and both hips: no pseudo labels; look at the keypoints")
    return part_search.index(people, found, block.frame, devices.device(block.device))


def rows(names: list[str], index: "part_search.Index", block: Params, rule: str, some: np.ndarray) -> list[dict]:
    """Rows of schema.PSEUDO_LABELS by a rule, for the sources at positions `some` (int64)."""
    from pipeline.stand_ins import part_search

    some = np.asarray(some)
    people = index.people
    usable = body_parts.usable(people.joints[some], people.valid[some])
    chosen, cost, distance = np.full(len(some), -1), np.zeros(len(some)), np.zeros(len(some))
    chosen[usable], cost[usable], distance[usable] = part_search.search(
        index, some[usable], block.rerank, block.exclude_below, block.min_shared_joints, rule
    )
    return [
        {
            "image_id": names[source],
            "pseudo_id": names[other] if other >= 0 else None,
            "cost": float(paid) if other >= 0 else None,
            "pose_distance": float(away) if other >= 0 else None,
        }
        for source, other, paid, away in zip(some, chosen, cost, distance, strict=True)
    ]


def write(dataset: str, rule: str, block: Params, part: str | None = None) -> None:
    """Write `data/D/pseudo_labels/RULE/` or a part of it. Raises UserError: no parsing, no usable pose, no device."""
    keypoints, parsing, output = layout.keypoints(dataset), layout.parsing(dataset), layout.pseudo_labels(dataset, rule)
    settings = {"rule": rule} | {key: value for key, value in asdict(block).items() if key != "device"}
    place = resume.place(part, "pseudo_labels", dataset, rule)
    layout.WORK.mkdir(exist_ok=True)
    with tempfile.TemporaryFile(dir=layout.WORK) as file:  # label maps: on disk, gone with the process
        table = store.read_table(keypoints, columns=["image_id", "split", "keypoints"])
        names = sources(table, parsing)

        @cache
        def index() -> "part_search.Index":
            """Made only if something is left to search."""
            return candidates(*load(table, parsing, file), datasets.get(dataset).JUNK, block)

        found = resume.rows(
            place,
            resume.stamp(code_of("pseudo_labels", dataset, rule), keypoints, parsing, settings),
            range(len(names)),
            lambda some: rows(names, index(), block, rule, some),
            schema.PSEUDO_LABELS,
            "pseudo_labels",
            CHUNK,
        )
        if part is not None:
            resume.publish(place, sum(1 for _ in found))
            return
        described = {key: str(value) for key, value in settings.items()}
        store.write_shards(output, found, schema.PSEUDO_LABELS, dataset=dataset, **described)
    resume.finished(place)
    written = store.read_table(output, columns=["pseudo_id"]).column("pseudo_id")
    console.say(
        f"pseudo_labels {dataset} {rule}: {len(names)} images, {written.null_count} without a stand-in;"
        f" {len(pc.unique(written.drop_null()))} different ones"
    )


def run(dataset: str, rule: str, part: str | None = None) -> None:
    """Write `data/D/pseudo_labels/RULE/` or a part of it by the block of `params.yaml`; without rows where nothing is
    trained on it.
    """
    if needs.wanted(params.load(), dataset)[READER[rule]]:
        write(dataset, rule, params.block(Params, "pseudo_labels", dataset), part)
        return
    if part is not None:
        resume.publish(resume.place(part, "pseudo_labels", dataset, rule), 0)
        return
    store.write_shards(layout.pseudo_labels(dataset, rule), [], schema.PSEUDO_LABELS, dataset=dataset, rule=rule)
    console.say(f"pseudo_labels {dataset} {rule}: not searched, nothing in {layout.PARAMS} needs {READER[rule]}")
