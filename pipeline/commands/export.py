"""Write prepared data in formats that other code bases read.

--what keypoints   `name: [y, ...]: [x, ...]`, -1 for a missing joint; --split train or test
                   (the published lists come back byte for byte)
--what openpose-json
                   OpenPose's files, NAME_keypoints.json in its COCO layout, with scores; --split train or test;
                   --output says where: a zip archive (NAME.zip) or a folder
--what pairs       `from,to`; --split
                     train              the published training list: Repose's train and val pairs, in published order
                     train-without-val  only the pairs that Repose trains on
                     val                the pairs kept out of training, to choose checkpoints on
                     test               the test list
Lists go to stdout, or to --output FILE. A file or folder is replaced as a whole or, if something fails, not at all. The
number of rows goes to stderr.

  repose export --dataset synthetic --what keypoints --split test
  repose export --dataset market1501 --what pairs --split train --output market-pairs-train.csv
"""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import datasets
from pipeline.anatomy import pose
from pipeline.core import layout, store
from pipeline.core.atomic import atomic_directory, atomic_file
from pipeline.core.errors import UserError
from pipeline.formats import annotations, archive, openpose_json

# --split -> the splits of pairs.parquet it stands for.
_PAIR_SPLITS = {"train": ("train", "val"), "train-without-val": ("train",), "val": ("val",), "test": ("test",)}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--dataset", required=True, help="a prepared data set, such as synthetic or market1501")
    parser.add_argument("--what", required=True, choices=("keypoints", "openpose-json", "pairs"))
    parser.add_argument("--split", required=True, choices=tuple(_PAIR_SPLITS), help="see above")
    parser.add_argument("--output", type=Path, metavar="PATH", help="write here instead of to stdout")


def _in_split(table: pa.Table, splits: tuple[str, ...]) -> pa.Table:
    return table.filter(pc.is_in(table.column("split"), pa.array(splits)))


def _keypoints(dataset: str, split: str) -> pa.Table:
    """The rows of one split, in the order of the file they came from."""
    if split not in datasets.SPLITS:
        raise UserError(f"export: keypoints have no split {split}; use {' or '.join(datasets.SPLITS)}")
    return _in_split(store.read_table(layout.keypoints(dataset)), (split,)).sort_by("row")


def keypoints(dataset: str, split: str) -> tuple[str, Iterable[str]]:
    """What it is, in words, and the lines of the keypoint list of one split."""
    table = _keypoints(dataset, split)
    joints, valid = pose.batch_arrays(table.column("keypoints"))
    lines = annotations.keypoint_lines(table.column("image_id").to_pylist(), joints, valid)
    return f"{len(table)} rows of keypoints ({split})", lines


def openpose_files(dataset: str, split: str, output: Path | None) -> str:
    """Write OpenPose's files to the zip archive or folder `output`; return what they are, in words.

    Raises UserError without an output, for a folder that holds other things, and for images that differ only in their
    extension.
    """
    if output is None:
        raise UserError("export: openpose-json is many files: say where with --output FOLDER or --output FILE.zip")
    table = _keypoints(dataset, split)
    names = table.column("image_id").to_pylist()
    joints, _ = pose.batch_arrays(table.column("keypoints"))
    scores = pc.list_flatten(table.column("keypoint_scores")).to_numpy().reshape(len(table), -1)
    files: dict[str, str] = {}
    for name in names:
        if files.setdefault(openpose_json.member(name), name) != name:
            other = files[openpose_json.member(name)]
            raise UserError(f"export: {other} and {name} would be one file; OpenPose's names leave out the extension")
    members = ((file, openpose_json.write(*found)) for file, *found in zip(files, joints, scores, strict=True))
    if output.suffix == ".zip":
        with atomic_file(output) as partial:
            archive.write(partial, members)
    else:
        if output.exists() and not (
            output.is_dir() and all(path.name.endswith(openpose_json.SUFFIX) for path in output.iterdir())
        ):
            raise UserError(f"{output}: holds other things than OpenPose's files; name an empty or a new folder")
        with atomic_directory(output) as partial:
            for file, data in members:
                (partial / file).write_bytes(data)
    return f"{len(table)} files of keypoints ({split})"


def pairs(dataset: str, split: str) -> tuple[str, Iterable[str]]:
    """What it is, in words, and the lines of a pair list, in published order."""
    table = _in_split(store.read_table(layout.pairs(dataset)), _PAIR_SPLITS[split]).sort_by("pair_index")
    counts = {row["values"]: row["counts"] for row in pc.value_counts(table.column("split")).to_pylist()}
    parts = " + ".join(f"{counts.get(part, 0)} {part}" for part in _PAIR_SPLITS[split])
    described = f"{len(table)} pairs ({split}: {parts})"
    names = (table.column(column).to_pylist() for column in ("source_id", "target_id"))
    return described, annotations.pair_lines(zip(*names, strict=True))


def run(dataset: str, what: str, split: str, output: Path | None) -> None:
    """Write one list, or a file for each image. Raises UserError if the stage that prepares it has not run."""
    datasets.get(dataset)
    if what == "openpose-json":
        print(f"export {dataset}: {openpose_files(dataset, split, output)} to {output}", file=sys.stderr)
        return
    described, lines = {"keypoints": keypoints, "pairs": pairs}[what](dataset, split)
    if output is None:
        try:
            sys.stdout.buffer.writelines(line.encode() for line in lines)
            sys.stdout.buffer.flush()
        except BrokenPipeError:  # `| head`: the reader has what it wanted
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    else:
        with atomic_file(output) as partial, partial.open("wb") as handle:
            handle.writelines(line.encode() for line in lines)
    print(f"export {dataset}: {described} to {output or 'stdout'}", file=sys.stderr)
