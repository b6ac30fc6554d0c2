"""The built-in data set as files: renders it into the raw folder, in the formats a downloaded data set comes in."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from pipeline.anatomy import pose
from pipeline.core import console, schema, store
from pipeline.core.settings import SEED, setting
from pipeline.datasets import SPLITS, About, synthetic
from pipeline.formats import annotations, archive, pictures

JUNK = ()  # every image shows a person of the data set
ABOUT = About(
    "Rendered people of quadric parts on rigid bones, dressed and posed within joint limits, whose joints, parsing and "
    "flow are known exactly.",
    ("Repose",),
    "Organization",
    licence="https://www.apache.org/licenses/LICENSE-2.0",
    gaps=(
        "No photographs: bodies have no folds, hands no fingers and light no shadows but one.",
        "What a method scores here says little of what it scores on photographs.",
    ),
)


@dataclass(frozen=True)
class Fetch:
    """Block `fetch.synthetic`: what to render."""

    seed: int = setting("of everything that is drawn", **SEED)
    height: int = setting("pixels", minimum=64, maximum=512, multipleOf=32)
    width: int = setting("pixels", minimum=32, maximum=512, multipleOf=32)
    train_identities: int = setting("people to train on", minimum=2, maximum=4000)
    test_identities: int = setting("people to test on", minimum=1, maximum=4000)
    views: int = setting("images of each", minimum=2, maximum=99)
    background: Literal["varied", "plain"] = setting(
        "varied: another place for every camera; plain: one garden for all", "varied"
    )
    clothes: Literal["varied", "plain"] = setting(
        "plain: each in one colour, coats closed, shoes dark, no gloves and scarves", "varied"
    )


def person_id(name: str) -> str:
    """`0002_c1s1_000451_00.png` -> `0002`."""
    return name.partition("_")[0]


def fetch(block: Fetch, raw: Path, dataset: str) -> dict:
    """Render both splits into `raw`; return what goes into `source.json`."""
    identities = {"train": block.train_identities, "test": block.test_identities}
    plain = [what for what in ("background", "clothes") if getattr(block, what) == "plain"]
    scenes = {
        f"{split}/{synthetic.name(scene)}": scene
        for split in SPLITS
        for scene in synthetic.scenes(block.seed, split, identities[split], block.views, plain)
    }
    joints = {}  # (18, 2) float32, NaN where not in the image
    occluded = {}
    parsing = {}

    def images(advance) -> Iterator[tuple[str, bytes]]:
        for name in sorted(scenes, key=str.encode):
            drawn = synthetic.render(scenes[name], block.height, block.width)
            joints[name], occluded[name] = drawn.joints, drawn.occluded
            parsing[name] = pictures.encode_png(drawn.labels)
            yield name, pictures.encode_png(drawn.image)
            advance()

    with console.progress("rendering", len(scenes)) as advance:
        archive.write(raw / "images.zip", images(advance))
    archive.write(raw / "parsing.zip", parsing.items())

    names = list(scenes)
    points = np.stack([joints[name] for name in names])
    valid = ~np.isnan(points).any(axis=2)
    points = np.where(valid[:, :, None], points, np.float32(0))
    splits, image_ids = zip(*(name.split("/") for name in names), strict=True)
    truth = {
        "image_id": pa.array(image_ids),
        "split": pa.array(splits),
        "keypoints": pose.to_column(points, valid),
        "occluded": pa.array([occluded[name].tolist() for name in names], schema.TRUTH.field("occluded").type),
    }
    store.write_table(raw / "truth.parquet", pa.table(truth), schema.TRUTH)
    for split in SPLITS:
        rows = [row for row, name in enumerate(names) if splits[row] == split]
        lines = annotations.keypoint_lines([image_ids[row] for row in rows], points[rows], valid[rows])
        (raw / f"annotation-{split}.csv").write_text("".join(lines), encoding="utf-8", newline="\n")
    return {
        "dataset": "Repose synthetic",
        "terms": "rendered here; no rights of others",
        "height": block.height,
        "width": block.width,
        "images": {split: {"count": splits.count(split)} for split in SPLITS},
    }
