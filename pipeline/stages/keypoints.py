"""Put every image's 18 joints into one table: data/D/keypoints.parquet, sorted by image_id.

`keypoints.D.source` says where they come from:
  annotations   the published lists (data/D/raw/annotation-SPLIT.csv, the field's CSV; -1 there is null here), or your
                own, where `path` names them: a folder or zip of OpenPose's files (NAME_keypoints.json, COCO or
                BODY_25) for both splits, or a folder with, for each split, annotation-SPLIT.csv or such files in a
                folder or zip openpose-SPLIT. A split that it has nothing of takes the published list. If the files
                themselves change, run this stage again by hand
  openpose      found in data/D/images by Lightweight OpenPose (data/weights/openpose), which groups peaks into people
  topdown       found there by your own top-down ONNX network with the 17 COCO joints, such as RTMPose or ViTPose: set
                weights.topdown.path in params.yaml
  oracle        the renderer's own joints (synthetic only)
Of several people in an image the one in the middle is taken, never joints of two.

Every row of the CSV lists is kept, even if its image was rejected, with its position in `row`: so
`repose export --what keypoints` gives the published lists back byte for byte. A detector makes a row for
every image of data/D/images; `row` is its position in the split's CSV list if there is one, else by image_id.
`keypoint_scores` are the detector's own. Detection goes on from where a killed run stopped.
"""

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import datasets
from pipeline.anatomy import pose
from pipeline.core import console, environment, layout, params, resume, schema, store
from pipeline.core.digests import code_of
from pipeline.core.errors import UserError
from pipeline.core.settings import setting
from pipeline.extraction import openpose
from pipeline.extraction.topdown import TopDown
from pipeline.formats import annotations, beside, openpose_json, pictures, plausible
from pipeline.loading import published_weights

DETECTED = pa.schema([(name, schema.KEYPOINTS.field(name).type) for name in ("keypoints", "keypoint_scores")])

# Images (H, W, 3) uint8 RGB -> joints (N, 18, 2), scores (N, 18), as openpose.OpenPose.central_people gives them.
Find = Callable[[Sequence[np.ndarray]], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Params:
    source: Literal["annotations", "openpose", "topdown", "oracle"] = setting(
        "the published lists, a detector (topdown: your own, see weights.topdown), or the renderer's own joints"
    )
    path: str | None = setting(
        "source annotations: your own joints in place of the published, a folder or zip", None, minLength=1
    )


def detector(source: str) -> tuple[Find, list[Path]]:
    """The detector of a source, and the files it was read from. Raises UserError if they cannot be had."""
    files = published_weights.files(source)
    if files is None:
        raise UserError(
            f"keypoints.source {source} needs a network, not to be had ({layout.weights(source)}/source.json says"
            f" why); set weights.{source}.path in {layout.PARAMS} and run `repose weights --net"
            f" {source}`"
        )
    find = openpose.OpenPose(files).central_people if source == "openpose" else TopDown(files[0])
    return find, files


def from_csv(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, joints float32 (N, 18, 2), scores float32 (N, 18) (1 or 0) of one split's list, in file order."""
    names, joints, valid = annotations.read_keypoints(path)
    return names, joints, valid.astype(np.float32)


def from_openpose_json(
    files: Path, images: pa.Table, others: Sequence[str]
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """The same from OpenPose's files, for all `images` (columns image_id, width); of several people the central one.

    others: ids of the images that are not wanted, whose files may lie there, too.
    """
    names = images.column("image_id").to_pylist()
    joints = np.zeros((len(names), schema.JOINTS, 2), dtype=np.float32)
    scores = np.zeros((len(names), schema.JOINTS), dtype=np.float32)
    found = openpose_json.read(files, names, others)
    for row, (people, width) in enumerate(zip(found, images.column("width").to_pylist(), strict=True)):
        joints[row], scores[row] = openpose.central(*people, width)
    return names, joints, scores


def own_joints(path: Path, split: str, key: str) -> Path | None:
    """Where the user's folder or zip `path` has the joints of a split; None if it has those of another split alone.

    key: of params.yaml, for messages. Raises UserError if it is nothing of the kind.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; correct {key} in {layout.PARAMS}")
    if not path.is_dir():
        if path.suffix.lower() != ".zip" and not zipfile.is_zipfile(path):  # one cut short says so when it is read
            raise UserError(f"{path}: no folder and no zip; {key} names a folder, also where it holds CSVs")
        return path
    of = {
        one: [path / name for name in (f"annotation-{one}.csv", f"openpose-{one}", f"openpose-{one}.zip")]
        for one in datasets.SPLITS
    }
    if not any(place.exists() for places in of.values() for place in places):
        if not any(path.rglob(f"*{openpose_json.SUFFIX}")):
            wanted = f"NAME{openpose_json.SUFFIX} (OpenPose's), annotation-train.csv or annotation-test.csv"
            raise UserError(f"{path}: holds no {wanted}; correct {key} in {layout.PARAMS}")
        return path
    return next((place for place in of[split] if place.exists()), None)


def listed(dataset: str, split: str, own: Path | None) -> tuple[list[str], np.ndarray, np.ndarray, str]:
    """The same from the list of a split, and who made it: "annotations", published, or "files", the user's.

    own: where the user's are, if anywhere. A split without images needs no list. Raises UserError, also for a list of
    the user's that has none of the images.
    """
    images, key = layout.images(dataset), f"keypoints.{dataset}.path"
    place = own and own_joints(own, split, key)
    path = place or layout.raw(dataset) / f"annotation-{split}.csv"
    if not path.exists() and images.exists() and len(indexed(images, split)) == 0:
        return [], np.zeros((0, schema.JOINTS, 2), np.float32), np.zeros((0, schema.JOINTS), np.float32), "annotations"
    if place is None:
        return *from_csv(path), "annotations"
    wanted = indexed(images, split)
    if path.suffix != ".csv" or path.is_dir():
        everybody = indexed(images)
        others = everybody.filter(pc.not_equal(everybody["split"], split))["image_id"].to_pylist()
        return *from_openpose_json(path, wanted, others), "files"
    called, *found = from_csv(path)
    names = set(wanted.column("image_id").to_pylist())
    called = [path if (path := name.replace("/", beside.PERSON)) in names else name for name in called]
    lacking = sorted(names - set(called))
    if lacking and len(lacking) == len(names):  # not one
        near = get_close_matches(lacking[0], called[:1000], 1, 0)
        nearest = f"; the nearest name in it is {near[0]}" if near else ""
        raise UserError(f"{path}: lists none of the {len(names)} {split} images, the first {lacking[0]}{nearest}")
    if lacking:
        console.say(f"{path}: lacks {len(lacking)} of {len(names)} {split} images, the first {lacking[0]}")
    return called, *found, "files"


def from_truth(raw: Path, split: str) -> tuple[list[str], np.ndarray, np.ndarray, str]:
    """The same from the renderer's truth; its maker is "oracle"."""
    if not (raw / "truth.parquet").exists():
        raise UserError(f"{raw}: no truth.parquet: only a rendered data set has an oracle; set keypoints.source")
    table = store.read_table(raw / "truth.parquet", columns=["image_id", "split", "keypoints"])
    table = table.filter(pc.equal(table.column("split"), split))
    joints, valid = pose.batch_arrays(table.column("keypoints"))
    return table.column("image_id").to_pylist(), joints, valid.astype(np.float32), "oracle"


def indexed(images: Path, split: str | None = None) -> pa.Table:
    """Columns image_id, split, person_id, width of the indexed images (of one split), by image_id."""
    table = store.read_table(images, columns=["image_id", "split", "person_id", "width"])
    return table if split is None else table.filter(pc.equal(table.column("split"), split))


def keypoint_columns(joints: np.ndarray, scores: np.ndarray) -> dict[str, pa.Array]:
    """joints (N, 18, 2), scores (N, 18), 0 where missing -> the two columns of schema.KEYPOINTS."""
    flat = pa.array(np.ascontiguousarray(scores, dtype=np.float32).reshape(-1))
    return {
        "keypoints": pose.to_column(joints, scores > 0),
        "keypoint_scores": pa.FixedSizeListArray.from_arrays(flat, schema.JOINTS),
    }


def table(dataset: str, source: str, own: Path | None = None) -> pa.Table:
    """The lists' or the renderer's joints as schema.KEYPOINTS, sorted by image_id.

    own: where the user's lists are. Raises UserError for a broken list or a doubled name.
    """
    person_id, raw = datasets.get(dataset).person_id, layout.raw(dataset)
    splits = []
    for split in datasets.SPLITS:
        found = listed(dataset, split, own) if source == "annotations" else from_truth(raw, split)
        names, joints, scores, maker = found
        columns = {
            "image_id": pa.array(names, pa.string()),
            "split": pa.array([split] * len(names), pa.string()),
            "person_id": pa.array([person_id(name) for name in names], pa.string()),
            "row": pa.array(np.arange(len(names), dtype=np.int32)),
            **keypoint_columns(joints, scores),
            "keypoint_source": pa.array([maker] * len(names), pa.string()),
        }
        splits.append(pa.table(columns))
    both = pa.concat_tables(splits).sort_by("image_id").combine_chunks()
    for name, following in pairwise(both.column("image_id").to_pylist()):
        if name == following:
            raise UserError(f"{own or raw}: {name} is in the train list and in the test list; names must differ")
    return both


def positions(raw: Path, images: pa.Table) -> np.ndarray:
    """`row` int32 (N,) of images that a detector looked at: the place in the split's list, or else by image_id."""
    rows = np.zeros(len(images), dtype=np.int32)
    for split in datasets.SPLITS:
        here = np.asarray(pc.equal(images.column("split"), split))
        path = raw / f"annotation-{split}.csv"
        if path.exists():
            listed = pa.array(annotations.read_keypoints(path)[0], pa.string())
            rows[here] = pc.index_in(images.column("image_id").filter(pa.array(here)), listed).to_numpy()
        else:
            rows[here] = np.arange(here.sum())
    return rows


def detections(folder: Path, source: str, find: Find, place: resume.Place, made_from: str) -> Iterator[dict]:
    """The joints that `find` finds in the images of the shards `folder`, or in a part of them, as rows of DETECTED.

    made_from: a `resume.stamp` of all that they depend on.
    """

    def compute(names: Sequence[str]) -> list[dict]:
        return pa.table(keypoint_columns(*find(pictures.read(folder, list(names))))).to_pylist()

    names = indexed(folder).column("image_id").to_pylist()
    return resume.rows(place, made_from, names, compute, DETECTED, f"keypoints ({source})")


def detected(raw: Path, folder: Path, source: str, found: Iterable[Mapping]) -> pa.Table:
    """What was found in every image of the shards `folder`, as schema.KEYPOINTS, sorted by image_id."""
    images, joints = indexed(folder), pa.Table.from_pylist(list(found), schema=DETECTED)
    columns = {
        **{name: images.column(name) for name in ("image_id", "split", "person_id")},
        "row": pa.array(positions(raw, images)),
        **{name: joints.column(name) for name in DETECTED.names},
        "keypoint_source": pa.array([source] * len(images), pa.string()),
    }
    return pa.table(columns)


def judge(joints: pa.Table, dataset: str, source: str) -> list[str]:
    """What is doubtful about all joints together. Raises UserError where they plainly are something else."""
    images = layout.images(dataset)
    if source not in ("annotations", "topdown") or not images.exists():
        return []
    sizes = store.read_table(images, columns=["image_id", "height", "width"])
    row = pc.index_in(joints.column("image_id"), sizes.column("image_id").combine_chunks())
    joints, row = joints.filter(row.is_valid()), row.drop_null()
    points, valid = pose.batch_arrays(joints.column("keypoints"))
    scores = np.asarray(pc.list_flatten(joints.column("keypoint_scores"))).reshape(valid.shape)
    size = np.stack([sizes.column(side).take(row).to_numpy() for side in ("height", "width")], axis=1)
    found = plausible.joints(
        points,
        scores if source == "annotations" else valid.astype(np.float32),  # what a network's mean is its own matter
        size,
        np.array(joints.column("split").to_pylist()),
        centred=dataset != "folder",
    )
    remedy = f"correct them, or set keypoints.{dataset}.source in {layout.PARAMS} to openpose, which finds them"
    return plausible.settle(found, f"keypoints {dataset} ({source})", remedy)


def run(dataset: str, part: str | None = None) -> None:
    """Write `data/D/keypoints.parquet`, or one of its parts. Raises UserError: lists missing or broken, a network that
    cannot be had, joints that plainly are not those of the images.
    """
    block = params.block(Params, "keypoints", dataset)
    source, own = block.source, block.path and environment.path(block.path)
    datasets.refuse_own_files(dataset)
    if own and source != "annotations":
        raise UserError(
            f"{layout.PARAMS}: keypoints.{dataset}.path is for annotations, not for {source}; set it to null"
        )
    raw, images, place = layout.raw(dataset), layout.images(dataset), resume.place(part, "keypoints", dataset)
    found, detects = (), source in ("openpose", "topdown")
    if detects:
        find, files = detector(source)
        stamp = resume.stamp(code_of("keypoints", dataset), images, *files, source)
        found = detections(images, source, find, place, stamp)
    if part is not None:
        resume.publish(place, sum(1 for _ in found))
        return
    joints = detected(raw, images, source, found) if detects else table(dataset, source, own)
    doubts = json.dumps(judge(joints, dataset, source), ensure_ascii=False)
    store.write_table(layout.keypoints(dataset), joints, schema.KEYPOINTS, dataset=dataset, doubts=doubts)
    resume.finished(place)
    present = pc.sum(pc.greater(pc.list_flatten(joints.column("keypoint_scores")), 0)).as_py() or 0
    share = present / max(1, len(joints) * schema.JOINTS)
    makers = ", ".join(sorted(joints.column("keypoint_source").unique().to_pylist())) or source
    console.say(f"keypoints {dataset}: {len(joints)} rows, {share:.1%} of the joints present ({makers})")
