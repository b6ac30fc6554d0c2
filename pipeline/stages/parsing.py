"""Put every image's human parsing into shards: data/D/parsing/part-*.parquet, 8-bit PNG of label ids.

`parsing.D.source` says where it comes from:
  repose   our own small parser, part of the repository; it also looks at the keypoints
  schp     SCHP trained on LIP: the ONNX file of data/weights/schp/ (stage weights; weights.schp path for your own)
  files    label maps of yours: `path` is a folder or zip with one PNG per image, named as the image (NAME.png for
           NAME.jpg; for PERSON__NAME.jpg also PERSON/NAME.png), in train/ and test/ or in one folder; `labels` is the
           set that they use: lip-20, cihp-20, lip-cihp-21, atr-18, pascal-7, adgan-8, spt-10, lip-20-colours,
           cihp-20-colours or lip-20-voc-colours
           (docs/labels.md). 8-bit grey or palette PNGs. If the files themselves change, run this stage again by hand
  oracle   the label maps that came with the images (data/D/raw/parsing.zip; synthetic), bytes as they are
  none     there is none: one empty shard says so, and variants that need parsing stop with a message
A network, ours or SCHP, is run only if a variant or a metric in params.yaml reads the labels (data/D/needs/), or
`always` is true; else the output is that of none.
Bands that `fetch` put around a photograph (data/D/raw/boxes.json) are background, whatever repose or schp see in them.
`path` is null and `labels` is lip-20 wherever they are not used; `device` says where our own parser runs, as openvino
runs SCHP on the CPU. If interrupted, the stage goes on from where it stopped.

The metadata says which set the ids are in (`label_set`: lip-20, cihp-20 or lip-cihp-21; files in another set become
lip-20) and which one the source spoke (`made_in`). Whoever reads label maps gets them in the set that it works in.
"""

import json
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.anatomy import labels, pose
from pipeline.core import console, environment, layout, needs, params, resume, schema, seals, store
from pipeline.core.digests import code_of
from pipeline.core.errors import UserError
from pipeline.core.settings import device_setting, setting
from pipeline.formats import archive, beside, label_files, pictures, plausible
from pipeline.loading import published_weights

CHUNK = 64  # images: at most this many are lost to a kill
_SEEN = {  # of each map, to judge all of them by: the pixels of each label, and what `plausible` looks at
    "pixels": pa.list_(pa.int64()),
    "under": pa.list_(pa.int16()),
    "stray": pa.float64(),
    "smooth": pa.float64(),
}
_ROWS = pa.schema([*schema.PARSING, *_SEEN.items()])

Parse = Callable[[Sequence[Mapping]], Iterable[np.ndarray | bytes]]


@dataclass(frozen=True)
class Source:
    """What parses the images: `parse`, the name that every row bears, the set of the ids that it gives, the set that
    they were made in, and what else the result is made from (for `resume.stamp`).
    """

    parse: Parse
    name: str
    label_set: str
    made_in: str
    made_from: Sequence[Any]


@dataclass(frozen=True)
class Params:
    source: Literal["repose", "schp", "files", "oracle", "none"] = setting(
        "the parser in the box, SCHP, label maps of your own, the renderer's own labels, or no parsing"
    )
    path: str | None = setting("source files: the folder or zip of label maps", None, minLength=1)
    labels: str = setting("source files: the label set they are in", "lip-20", enum=label_files.SETS)
    device: str = device_setting()
    always: bool = setting("true: run the network even if no variant and no metric of params.yaml reads it", False)


class Joints:
    """The joints of some images: `joints(ids)` -> (N, 18, 2) float32, (N, 18) bool; all missing without a row."""

    def __init__(self, keypoints: Path):
        table = store.read_table(keypoints, columns=["image_id", "keypoints"])
        self._ids = table.column("image_id").combine_chunks()
        self._joints, self._valid = pose.batch_arrays(table.column("keypoints"))

    def __call__(self, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        row = pc.index_in(pa.array(ids, pa.string()), self._ids)
        known = np.asarray(row.is_valid())
        joints = np.zeros((len(ids), schema.JOINTS, 2), dtype=np.float32)
        valid = np.zeros((len(ids), schema.JOINTS), dtype=bool)
        found = row.drop_null().to_numpy()
        joints[known], valid[known] = self._joints[found], self._valid[found]
        return joints, valid


def oracle(raw: Path, stack: ExitStack) -> Parse:
    """The label maps of a rendered data set, as they are. Raises UserError if there are none."""
    if not (raw / "parsing.zip").exists():
        raise UserError(f"{raw}: no parsing.zip: only a rendered data set has an oracle; set parsing.source to none")
    maps = stack.enter_context(zipfile.ZipFile(raw / "parsing.zip"))

    def parse(images: Sequence[Mapping]) -> Iterator[bytes]:
        for image in images:
            name = f"{image['split']}/{image['image_id']}"
            try:
                yield maps.read(name)
            except KeyError:
                raise UserError(f"{raw / 'parsing.zip'}: no label map {name}; run fetch again") from None

    return parse


def files(path: Path, label_set: str, images: Sequence[Mapping], joints: Joints, stack: ExitStack) -> Parse:
    """The user's label maps, those of a set that is not stored as LIP-20. Raises UserError if an image has none."""
    base = label_files.base(label_set)
    source = stack.enter_context(archive.reading(path))
    wanted = [(image["image_id"], image["split"]) for image in images]
    members, extra = beside.find(source.names, wanted, ".png", str(path), "label map")
    if extra:
        console.say(f"{path}: {extra} PNGs belong to no image; left out")

    def parse(images: Sequence[Mapping]) -> Iterator[np.ndarray]:
        points, valid = joints([image["image_id"] for image in images])
        for image, *points_of_it in zip(images, points, valid, strict=True):
            name = members[image["image_id"]]
            ids = label_files.read(source.read(name), label_set, image["height"], image["width"], f"{path}: {name}")
            yield ids if base in labels.STORED else labels.to_lip20(ids, base, *points_of_it)

    return parse


def schp(file: Path, folder: Path) -> Parse:
    """SCHP on the images of the shards `folder`."""
    from pipeline.extraction.schp import Schp

    network = Schp(file)
    return lambda images: network(pictures.read(folder, [image["image_id"] for image in images]))


def repose(parser: Callable, folder: Path, joints: Joints) -> Parse:
    """Our parser, `parser(images of one size, joints, valid)` -> (N, H, W), on the images of the shards `folder`."""

    def parse(images: Sequence[Mapping]) -> list[np.ndarray]:
        ids = [image["image_id"] for image in images]
        decoded = pictures.read(folder, ids)
        points, valid = joints(ids)
        sizes = defaultdict(list)
        for number, picture in enumerate(decoded):
            sizes[picture.shape].append(number)
        parsings: list = [None] * len(ids)
        for numbers in sizes.values():
            found = parser([decoded[number] for number in numbers], points[numbers], valid[numbers])
            for number, parsing in zip(numbers, found, strict=True):
                parsings[number] = parsing
        return parsings

    return parse


def between_bands(parse: Parse, boxes: Mapping[str, Sequence[int]]) -> Parse:
    """`parse` with background around the picture, where an image was fitted with bands: they are no garments."""

    def within(images: Sequence[Mapping]) -> Iterator[np.ndarray]:
        for image, parsing in zip(images, parse(images), strict=True):
            box = boxes.get(image["image_id"])
            yield parsing if box is None else labels.within(parsing, box)

    return within


def parser(block: Params, dataset: str, images: Sequence[Mapping], stack: ExitStack) -> Source:
    """What parses the images. Raises UserError if the source lacks what it needs."""
    folder, keypoints = layout.images(dataset), layout.keypoints(dataset)
    if block.path is not None and block.source != "files":
        raise UserError(f"{layout.PARAMS}: parsing.{dataset}.path is for files, not for {block.source}; set it to null")
    if block.source == "oracle":
        raw = layout.raw(dataset)
        return Source(oracle(raw, stack), "oracle", labels.EVERY, labels.EVERY, [raw / "parsing.zip"])
    if block.source == "files":
        if block.path is None:
            raise UserError(f"{layout.PARAMS}: parsing.{dataset}.path is null; name your folder or zip of label maps")
        path = environment.path(block.path)
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; correct parsing.{dataset}.path in {layout.PARAMS}")
        if block.labels not in label_files.SETS:
            allowed = ", ".join(label_files.SETS)
            raise UserError(f"{layout.PARAMS}: parsing.{dataset}.labels is {block.labels!r}; allowed: {allowed}")
        parse = files(path, block.labels, images, Joints(keypoints), stack)
        made_in = label_files.base(block.labels)
        label_set = made_in if made_in in labels.STORED else "lip-20"
        return Source(parse, f"files:{block.labels}", label_set, made_in, [path, block.labels])
    boxes, bands = {}, layout.raw(dataset) / "boxes.json"
    if bands.exists():
        boxes = seals.read_json(bands)
    if block.source == "schp":
        found = published_weights.files("schp")
        if found is None:
            raise UserError(
                f"parsing.{dataset}.source is schp, whose weights could not be had: set weights.schp path in"
                f" {layout.PARAMS} and run `repose weights --net schp`, or set source: repose"
            )
        parse = between_bands(schp(found[0], folder), boxes)
        return Source(parse, "schp", "lip-20", "lip-20", [*found, boxes])
    from pipeline.extraction import repose_parser
    from pipeline.loading import devices

    where = devices.device(block.device)
    parse = between_bands(repose(repose_parser.load(where), folder, Joints(keypoints)), boxes)
    return Source(parse, "repose", "lip-20", "lip-20", [repose_parser.WEIGHTS, where.type, boxes])


def rows(images: Sequence[Mapping], source: Source, joints: Joints) -> Iterator[dict]:
    """Rows of schema.PARSING, and _SEEN, for some images. Raises UserError for a broken label map.

    The source gives each image's labels, or a PNG of them, which is checked and kept as it is.
    """
    count = len(labels.NAMES[source.label_set])
    known = zip(*joints([image["image_id"] for image in images]), strict=True)
    for image, parsing, of_it in zip(images, source.parse(images), known, strict=True):
        data, where = parsing, f"label map of {image['split']}/{image['image_id']}"
        if isinstance(parsing, bytes):
            size = image["height"], image["width"]
            parsing = pictures.decode_labels(data, where, size, "run fetch again", source.label_set)
        else:
            data = pictures.encode_labels(parsing)
        assert parsing.shape == (image["height"], image["width"]), where
        yield {
            "image_id": image["image_id"],
            "parsing": {"bytes": data, "path": image["image_id"]},
            "label_source": source.name,
            "pixels": np.bincount(parsing.reshape(-1), minlength=count).tolist(),
            "under": plausible.under(parsing, *of_it).tolist(),
            "stray": plausible.stray(parsing, *of_it),
            "smooth": plausible.smooth(parsing),
        }


def judge(dataset: str, source: Source, seen: Sequence[Mapping]) -> list[str]:
    """What is doubtful about all label maps together. Raises UserError where the user's plainly are something else."""
    if source.name == "oracle":
        return []
    setting = f"parsing.{dataset}.labels in {layout.PARAMS}"
    at, *shares = (np.array([row[key] for row in seen]) for key in ("under", "stray", "smooth"))
    found = plausible.label_maps(
        at.reshape(-1, plausible.THROAT_AT + 1), *shares, source.label_set, source.made_in, setting
    )
    if seen and not any(any(row["pixels"][1:]) for row in seen):
        found = [plausible.Finding(True, f"all {len(seen)} label maps are background and nothing else")]
    if not source.name.startswith("files"):  # a network's, which the user cannot correct
        found = [one._replace(plain=False) for one in found]
    return plausible.settle(found, f"parsing {dataset} ({source.name})", f"correct {setting}, or the files")


def report(dataset: str, names: Sequence[str], pixels: np.ndarray, empty: Sequence[str]) -> None:
    """Log which labels occur, and how many images show no person at all."""
    order = [label for label in np.argsort(-pixels, kind="stable") if pixels[label]]
    shares = ", ".join(f"{names[label]} {pixels[label] / pixels.sum():.1%}" for label in order[:8])
    console.say(f"parsing {dataset}: {len(order)} labels occur, by pixels: {shares}")
    if empty:
        console.say(f"parsing {dataset}: WARNING: no person in {len(empty)} label maps, the first {empty[0]}")


def run(dataset: str, part: str | None = None) -> None:
    """Write `data/D/parsing/` or a part of it. Raises UserError: label maps or weights that are missing or broken."""
    block = params.block(Params, "parsing", dataset)
    folder, place = layout.parsing(dataset), resume.place(part, "parsing", dataset)
    why = None
    if block.source == "none":
        why = "source: none"
    elif not needs.is_parsed(params.load(), dataset):
        why = f"no variant or metric in {layout.PARAMS} reads it; parsing.{dataset}.always: true"
    metadata = {"dataset": dataset, "parsing_source": "none" if why else block.source}
    if why and part is not None:
        resume.publish(place, 0)
        return
    if why:
        store.write_shards(folder, (), schema.PARSING, **metadata)
        console.say(f"parsing {dataset}: 0 label maps ({why})")
        return
    stored, keypoints = layout.images(dataset), layout.keypoints(dataset)
    images = store.read_table(stored, columns=["image_id", "split", "height", "width"]).to_pylist()
    with ExitStack() as stack:
        source = parser(block, dataset, images, stack)
        names = labels.NAMES[source.label_set]
        stamp = resume.stamp(code_of("parsing", dataset), stored, keypoints, source.name, *source.made_from)
        compute = partial(rows, source=source, joints=Joints(keypoints))
        made = resume.rows(place, stamp, images, compute, _ROWS, "parsing", CHUNK)
        if part is not None:
            resume.publish(place, sum(1 for _ in made))
            return
        seen = [{name: row[name] for name in ("image_id", *_SEEN)} for row in made]
        doubts = json.dumps(judge(dataset, source, seen), ensure_ascii=False)
        metadata |= {"label_set": source.label_set, "made_in": source.made_in, "doubts": doubts}
        count = store.write_shards(folder, resume.again(place, schema.PARSING.names), schema.PARSING, **metadata)
    resume.finished(place)
    console.say(f"parsing {dataset}: {count} label maps (source: {source.name}, {source.label_set})")
    pixels = np.array([row["pixels"] for row in seen], np.int64).reshape(-1, len(names)).sum(axis=0)
    report(dataset, names, pixels, [row["image_id"] for row in seen if not any(row["pixels"][1:])])
