"""Show what is prepared of a data set: counts, what is missing, and one image with everything known about it.

Reads whatever is there under data/DATASET/, complete or not. The picture shows the image with its joints, its parsing,
the partner of its first pair, the image whose parsing is its pseudo target label, and its twelve distance maps. It
goes to --output, by default .work/inspect/DATASET/ID.png; a terminal with colours shows it coarsely, too.

  repose inspect synthetic
  repose inspect market1501 --image 0002_c1s1_000451_03.jpg --output sample.png
"""

import difflib
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from pipeline import drawing
from pipeline.anatomy import labels, pose
from pipeline.core import layout, params, schema, store
from pipeline.core.atomic import atomic_file
from pipeline.core.errors import UserError
from pipeline.formats import pictures
from pipeline.report import prepared

_PANEL = 384  # height in pixels that pictures are enlarged to, about


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", help="a data set of which something is prepared, such as synthetic or market1501")
    parser.add_argument("--image", metavar="ID", help="the image to show (default: the first that is source of a pair)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the PNG goes")


def _how_to_make(dataset: str, stages: Iterable[str]) -> list[str]:
    further = {"pseudo_labels": f" --rule {layout.RULES[0]}"}
    lines = [f"repose {stage} --dataset {dataset}{further.get(stage, '')}" for stage in stages]
    if lines and layout.PARAMS.exists() and dataset not in params.datasets():
        lines.insert(0, f"(add {dataset} to datasets in {layout.PARAMS}, then)")
    return lines


def summary(dataset: str) -> Table:
    """Everything that can be counted, as one table."""
    table = Table(title=str(layout.images(dataset).parent), title_justify="left", show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for stage, lines in prepared.lines(dataset).items():
        for number, line in enumerate(lines):
            table.add_row("" if number else stage, line.what if line.share is None else f"  {line.what}", line.text)
    return table


# ---- one image


def _first_image(dataset: str, ids: list[str]) -> str:
    """The first image that is the source of a pair; without pairs, the first with joints; else the first."""
    wanted: set[str] = set()
    if layout.pairs(dataset).exists():
        wanted = set(pc.unique(store.read_table(layout.pairs(dataset), columns=["source_id"])["source_id"]).to_pylist())
    elif layout.keypoints(dataset).exists():
        wanted = set(store.read_table(layout.keypoints(dataset), columns=["image_id"])["image_id"].to_pylist())
    return next((name for name in ids if name in wanted), ids[0])


def _unknown(dataset: str, image_id: str, ids: list[str]) -> UserError:
    if layout.rejects(dataset).exists():
        for row in store.read_table(layout.rejects(dataset)).to_pylist():
            if row["image_id"] == image_id:
                return UserError(f"{layout.rejects(dataset)}: {image_id} was rejected: {row['reason']}; choose another")
    near = difflib.get_close_matches(image_id, ids, n=3, cutoff=0)
    hint = f"names there look like {', '.join(near)}" if near else "there are none; run index"
    return UserError(f"{layout.images(dataset)}: no image {image_id}; {hint}")


def _scale(picture: np.ndarray) -> int:
    return max(1, round(_PANEL / picture.shape[0]))


def _posed(dataset: str, image_id: str, title: str) -> np.ndarray:
    """A stored image with its joints."""
    row = prepared.stored(layout.images(dataset), image_id)
    picture, keypoints = pictures.decode_stored(row["image"]["bytes"], image_id), prepared.joints(dataset, image_id)
    if keypoints is None:
        drawn, seen = drawing.enlarged(picture, _scale(picture)), "no joints"
    else:
        points, valid = pose.to_array(keypoints)
        drawn = drawing.skeleton(picture, points, valid, _scale(picture))
        seen = f"{valid.sum()} of {schema.JOINTS} joints"
    return drawing.titled(drawn, title, image_id, f"{row['split']}, person {row['person_id']}, {seen}")


def _parsed(dataset: str, image_id: str, title: str) -> Iterator[np.ndarray]:
    """The image's parsing over the image, and the legend; nothing if it has none."""
    stored = prepared.stored(layout.parsing(dataset), image_id)
    row = prepared.stored(layout.images(dataset), image_id)
    if stored is not None and row is not None:
        picture = pictures.decode_stored(row["image"]["bytes"], image_id)
        folder = layout.parsing(dataset)
        label_map = pictures.label_decoder(folder, labels.EVERY)(
            stored["parsing"]["bytes"], f"{folder}: {image_id}", picture.shape[:2]
        )
        drawn = drawing.enlarged(drawing.parsing(picture, label_map), _scale(picture))
        yield drawing.titled(drawn, title, image_id, f"source: {stored['label_source']}")
        yield drawing.titled(drawing.legend(np.unique(label_map).tolist()), "labels")


def _partner(dataset: str, image_id: str, ids: set[str]) -> tuple[str, str] | None:
    """Title and id of the other image of the first pair that the image is in, as its source if possible."""
    if not layout.pairs(dataset).exists():
        return None
    for own, other in (("source_id", "target_id"), ("target_id", "source_id")):
        pairs = store.read_table(layout.pairs(dataset), filters=[(own, "=", image_id)]).sort_by("pair_index")
        for pair in pairs.to_pylist():
            if pair[other] in ids:
                role = other.removesuffix("_id")
                return f"{role} of {pair['split']} pair {pair['pair_index']}", pair[other]
    return None


def _maps(dataset: str, image_id: str) -> Iterator[np.ndarray]:
    """The distance maps in rows of six; nothing if there are none."""
    stored = prepared.stored(layout.distance_maps(dataset), image_id)
    if stored is not None:
        yield from drawing.limb_maps(prepared.limb_maps(stored))


def sheet(dataset: str, image_id: str, ids: list[str]) -> np.ndarray:
    """Everything known about one image of `ids` (all that are stored) as a picture, (H, W, 3) uint8 RGB."""
    panels = [_posed(dataset, image_id, "image"), *_parsed(dataset, image_id, "parsing")]
    partner = _partner(dataset, image_id, set(ids))
    if partner is not None:
        panels.append(_posed(dataset, partner[1], partner[0]))
    for rule, row in prepared.stand_ins(dataset, image_id).items():
        panels += _parsed(dataset, row["pseudo_id"], f"pseudo target parsing ({rule}), cost {row['cost']:.0f} px")
    return np.pad(
        drawing.below([drawing.beside(panels), *_maps(dataset, image_id)]),
        ((8, 0), (8, 0), (0, 0)),
        constant_values=drawing.PAPER,
    )


def run(dataset: str, image: str | None, output: Path | None) -> None:
    """Print the summary and write one image's sheet. Raises UserError: nothing prepared, no such image."""
    missing, folder = prepared.missing(dataset), layout.images(dataset).parent
    if len(missing) > len(prepared.STAGES) or folder.name != dataset:
        there = sorted(path.parent.name for path in folder.parent.glob("*/images")) or ["nothing yet"]
        raise UserError(f"{folder}: nothing prepared; prepared here: {', '.join(there)}; the first step would be fetch")
    if output is not None and output.suffix.lower() != ".png":
        raise UserError(f"--output {output}: the picture is a PNG; give a name that ends in .png")
    ids: list[str] = []
    if layout.images(dataset).exists():
        ids = store.read_table(layout.images(dataset), columns=["image_id"])["image_id"].to_pylist()
    if image is not None and image not in ids:
        raise _unknown(dataset, image, ids)
    terminal = Console(highlight=False, markup=False)
    terminal.print(summary(dataset))
    if missing:
        terminal.print("missing; to make it:", *_how_to_make(dataset, missing), sep="\n  ", soft_wrap=True)
    if not ids:
        return
    shown = image if image is not None else _first_image(dataset, ids)
    drawn = sheet(dataset, shown, ids)
    path = output or layout.work("inspect", dataset) / f"{shown.replace('/', '_')}.png"
    with atomic_file(path) as partial:
        partial.write_bytes(pictures.encode_png(drawn))
    if terminal.is_terminal and terminal.color_system in ("truecolor", "256"):
        terminal.print(drawing.half_blocks(drawn, min(terminal.width, 120)))
    terminal.print(f"{shown}: {path}", soft_wrap=True)
