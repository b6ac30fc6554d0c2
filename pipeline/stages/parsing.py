"""Put every image's human parsing into shards: data/D/parsing/part-*.parquet, 8-bit PNG of LIP-20 ids.

`parsing.D.source` says where it comes from:
  oracle   the label maps that came with the images (data/D/raw/parsing.zip; synthetic), bytes as they are
  none     there is none: one empty shard that says so; variants that need parsing then say so and stop
"""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from pipeline import console, labels, layout, params, schema, store
from pipeline.errors import UserError


@dataclass(frozen=True)
class Params:
    source: str


def check(data: bytes, height: int, width: int, where: str) -> None:
    """Raise UserError unless `data` is one 8-bit channel of LIP-20 ids, (height, width)."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if image is None or image.dtype != np.uint8 or image.shape != (height, width):
        raise UserError(f"{where}: no 8-bit label map of {height}x{width} (height x width); run fetch again")
    if image.max() >= len(labels.LIP20):
        raise UserError(f"{where}: label {image.max()}, LIP-20 ends at {len(labels.LIP20) - 1}; mend the label maps")


def from_oracle(raw: Path, images: Path) -> Iterator[dict]:
    """Rows of schema.PARSING for every image of the shards `images`, in their order."""
    if not (raw / "parsing.zip").exists():
        raise UserError(f"{raw}: no parsing.zip: only a rendered data set has an oracle; set parsing.source to none")
    with zipfile.ZipFile(raw / "parsing.zip") as archive:
        for image in store.iter_rows(images, columns=["image_id", "split", "height", "width"]):
            name = f"{image['split']}/{image['image_id']}"
            try:
                data = archive.read(name)
            except KeyError:
                raise UserError(f"{raw / 'parsing.zip'}: no label map {name}; run fetch again") from None
            check(data, image["height"], image["width"], f"{raw / 'parsing.zip'}: {name}")
            picture = {"bytes": data, "path": image["image_id"]}
            yield {"image_id": image["image_id"], "parsing": picture, "label_source": "oracle"}


def run(dataset: str) -> None:
    """Write `data/D/parsing/`. Raises UserError for label maps that are missing or broken."""
    source = params.block(Params, "parsing", dataset).source
    rows = from_oracle(layout.raw(dataset), layout.images(dataset)) if source == "oracle" else ()
    count = store.write_shards(layout.parsing(dataset), rows, schema.PARSING, dataset=dataset, parsing_source=source)
    console.say(f"parsing {dataset}: {count} label maps (source: {source})")
