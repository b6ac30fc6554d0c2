"""Write prepared data, generated images and trained networks in forms that other programs read.

--what keypoints   `name: [y, ...]: [x, ...]` in whole pixels, -1 for a missing joint; --split train or test
                   (the published lists come back byte for byte)
--what openpose-json
                   OpenPose's files, NAME_keypoints.json in its COCO layout, with scores and fractions of pixels, by
                   which `compare --poses` comes to `score`'s numbers; --split train or test;
                   --output says where: a zip archive (NAME.zip) or a folder
--what pairs       `from,to`; --split
                     train              the published training list: Repose's train and val pairs, in published order
                     train-without-val  only the pairs that Repose trains on
                     val                the pairs kept out of training, to choose checkpoints on
                     test               the test list
--what generated   what --variant draws of every pair of --split test (the default) or val, as PNGs under the field's
                   names, FROM_2_TO_vis.png; --output says where: a folder or a zip archive. `score --images` reads
                   the folder back to the same numbers
--what model       the generator of --variant as a program for torch alone, which needs nothing of Repose: --output
                   NAME.pt2, written by torch.export; or NAME.onnx with --format onnx, where ONNX has its operators.
                   NAME.json beside it says what goes in, what comes out, and how to call it. Label maps go in as the
                   variant's own set, `label_set` there: those of data/D/parsing, mostly in another one, must be
                   converted first, as docs/labels.md says ("Which set is where"), or it draws other pictures
Lists go to stdout, or to --output FILE. A file is replaced as a whole or, if something fails, not at all; a folder must
be new or empty. The number of rows goes to stderr. A variant's checkpoint is the one that stands for it in the tables
(before scoring: the last); --step takes another.

  repose export --dataset synthetic --what keypoints --split test
  repose export --dataset market1501 --what pairs --split train --output market-pairs-train.csv
  repose export --dataset synthetic --what generated --variant spgnet --output spgnet-images
  repose export --dataset synthetic --what model --variant spgnet --output spgnet.pt2
"""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import datasets
from pipeline.anatomy import pose
from pipeline.core import console, layout, store
from pipeline.core.atomic import atomic_directory, atomic_file
from pipeline.core.errors import UserError
from pipeline.formats import annotations, archive, openpose_json, pair_names, pictures

if TYPE_CHECKING:
    from pipeline.loading.runs import Trained

# --split -> the splits of pairs.parquet it stands for.
_PAIR_SPLITS = {"train": ("train", "val"), "train-without-val": ("train",), "val": ("val",), "test": ("test",)}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--dataset", required=True, help="a prepared data set, such as synthetic or market1501")
    parser.add_argument(
        "--what", required=True, choices=("keypoints", "openpose-json", "pairs", "generated", "model"), help="see above"
    )
    parser.add_argument("--split", choices=tuple(_PAIR_SPLITS), help="see above")
    parser.add_argument("--variant", metavar="V", help="generated, model: a trained variant, such as spgnet")
    parser.add_argument("--step", type=int, metavar="N", help="its checkpoint (default: the tables' choice)")
    parser.add_argument("--format", choices=("torch", "onnx"), default="torch", help="of a model (default: torch)")
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


def _write_all(output: Path, members: Iterable[tuple[str, bytes]]) -> None:
    """Write files, by name, to the zip archive or folder `output`.

    Raises UserError for a folder that holds anything: nobody could tell files of an earlier export from the user's own.
    """
    if output.suffix == ".zip":
        with atomic_file(output) as partial:
            archive.write(partial, members)
        return
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"{output}: is there already; name an empty or a new folder")
    with atomic_directory(output, listed=False) as partial:
        for file, data in members:
            (partial / file).write_bytes(data)


def openpose_files(dataset: str, split: str, output: Path) -> str:
    """Write OpenPose's files to the zip archive or folder `output`; return what they are, in words.

    Raises UserError for a folder that holds anything, and for images that differ only in their extension.
    """
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
    _write_all(output, members)
    return f"{len(table)} files of keypoints ({split})"


def open_variant(dataset: str, variant: str | None, step: int | None, where: str) -> "Trained":
    """The variant at its checkpoint. Raises UserError if it is unknown or not trained."""
    from pipeline.commands.figure import chosen_step
    from pipeline.figures import subject
    from pipeline.loading import devices

    if variant is None:
        raise UserError("export: say which trained network with --variant")
    subject.require_variant(variant)
    step = chosen_step(dataset, variant) if step is None else step
    return subject.open_variant(dataset, variant, step, devices.device(where))


def generated(dataset: str, variant: str | None, step: int | None, split: str, output: Path) -> str:
    """Write the variant's images of a split's pairs, made as scoring makes them; return what they are, in words."""
    from pipeline.core import params
    from pipeline.loading.arrays import load_pairs
    from pipeline.scoring import checkpoint
    from pipeline.stages import score

    if split not in ("test", "val"):
        raise UserError(f"export: images are generated of the split test or val, not of {split}")
    trained = open_variant(dataset, variant, step, params.block(score.Params, "score", dataset).device)
    data = load_pairs(dataset, split, trained.device, label_set=trained.label_set)
    checkpoint.require_size(trained.meta, {"height": data.height, "width": data.width}, trained.title)
    pairs = [(data.ids[source], data.ids[target]) for source, target in data.pairs.tolist()]
    names = dict(zip(data.pair_index.tolist(), pair_names.file_names(pairs), strict=True))

    def members() -> Iterator[tuple[str, bytes]]:
        batches = checkpoint.generate(trained.generator, 16, trained.title, trained.reads_target_parsing, data)
        with console.progress(f"generate {split}", len(data)) as advance:
            for pair_ids, images in batches:
                for pair_id, image in zip(pair_ids, images, strict=True):
                    yield names[pair_id], pictures.encode_png(image)
                advance(len(pair_ids))

    _write_all(output, members())
    return f"{len(data)} images ({split}) by {trained.title}"


def model(dataset: str, variant: str | None, step: int | None, form: str, output: Path) -> str:
    """Write the variant's generator as a program, with its JSON; return what they are, in words."""
    from pipeline.commands import portable

    trained = open_variant(dataset, variant, step, "cpu")
    said = portable.write(trained, form, output)
    return f"{trained.title}, {output.stat().st_size / 1e6:.1f} MB, described in {said},"


def pairs(dataset: str, split: str) -> tuple[str, Iterable[str]]:
    """What it is, in words, and the lines of a pair list, in published order."""
    table = _in_split(store.read_table(layout.pairs(dataset)), _PAIR_SPLITS[split]).sort_by("pair_index")
    counts = {row["values"]: row["counts"] for row in pc.value_counts(table.column("split")).to_pylist()}
    parts = " + ".join(f"{counts.get(part, 0)} {part}" for part in _PAIR_SPLITS[split])
    described = f"{len(table)} pairs ({split}: {parts})"
    names = (table.column(column).to_pylist() for column in ("source_id", "target_id"))
    return described, annotations.pair_lines(zip(*names, strict=True))


def run(
    dataset: str,
    what: str,
    split: str | None,
    output: Path | None,
    variant: str | None = None,
    step: int | None = None,
    format: str = "torch",
) -> None:
    """Write one list, one model, or a file for each image. Raises UserError if what it is made of is not there."""
    datasets.get(dataset)
    files: dict[str, Callable[..., str]] = {
        "openpose-json": lambda: openpose_files(dataset, split, output),
        "generated": lambda: generated(dataset, variant, step, split or "test", output),
        "model": lambda: model(dataset, variant, step, format, output),
    }
    if split is None and what not in ("generated", "model"):
        raise UserError(f"export: {what} of which split? say --split {', '.join(_PAIR_SPLITS)}")
    if what in files:
        if output is None:
            where = "NAME.pt2 or NAME.onnx" if what == "model" else "FOLDER or --output FILE.zip"
            raise UserError(f"export: {what} is no text: say where with --output {where}")
        print(f"export {dataset}: {files[what]()} to {output}", file=sys.stderr)
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
