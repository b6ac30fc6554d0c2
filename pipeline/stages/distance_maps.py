"""Store SPGNet's twelve limb distance maps of every image with keypoints: data/D/distance_maps/part-*.parquet.

M = exp(kappa d), d the distance in pixels to the limb's segment, as uint8 round(255 M), C order (12, height, width); a
limb with a missing end is all zero. `distance_maps.D.kappa` is -0.1 in the released code. Read one back with
  np.frombuffer(row["distance_maps"], np.uint8).reshape(12, row["height"], row["width"])
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.anatomy import pose
from pipeline.anatomy.distance import limb_distance_maps
from pipeline.core import console, layout, params, resume, schema, store
from pipeline.core.digests import code_of
from pipeline.core.settings import setting

ROW_GROUP = 2  # a row is 12 x height x width bytes before compression
_BATCH = 32


@dataclass(frozen=True)
class Params:
    kappa: float = setting("of M = exp(kappa d), d in pixels", -0.1, exclusiveMaximum=0, minimum=-100)


def rows(images: Path, keypoints: pa.Table, kappa: float, first: int = 0, stop: int | None = None) -> Iterator[dict]:
    """Rows of schema.DISTANCE_MAPS for images `first` to before `stop` of the shards `images`, in their order."""
    pictures = store.read_table(images, columns=["image_id", "height", "width"])
    found = pc.index_in(pictures.column("image_id"), pc.cast(keypoints.column("image_id"), pa.string()))
    pictures = pictures.append_column("row", found).filter(pc.is_valid(found))
    pictures = pictures.slice(first, None if stop is None else stop - first)
    joints, valid = pose.batch_arrays(keypoints.column("keypoints"))
    with console.progress("distance maps", len(pictures)) as advance:
        for (height, width), some in _batches_of_one_size(pictures):
            row = some.column("row").to_numpy()
            maps = limb_distance_maps(joints[row], valid[row], height, width, kappa)
            for image_id, one in zip(some.column("image_id").to_pylist(), maps, strict=True):
                yield {"image_id": image_id, "height": height, "width": width, "distance_maps": one.tobytes()}
            advance(len(some))


def _batches_of_one_size(pictures: pa.Table) -> Iterator[tuple[tuple[int, int], pa.Table]]:
    """((height, width), rows) with at most _BATCH rows, in order."""
    heights, widths = pictures.column("height").to_numpy(), pictures.column("width").to_numpy()
    changes = np.flatnonzero((np.diff(heights) != 0) | (np.diff(widths) != 0)) + 1
    for first, last in zip([0, *changes], [*changes, len(pictures)], strict=True):
        for start in range(first, last, _BATCH):
            stop = min(start + _BATCH, last)
            yield (int(heights[start]), int(widths[start])), pictures.slice(start, stop - start)


def run(dataset: str, part: str | None = None) -> None:
    """Write `data/D/distance_maps/`, or one of its parts."""
    kappa = params.block(Params, "distance_maps", dataset).kappa
    images, folder = layout.images(dataset), layout.distance_maps(dataset)
    keypoints = store.read_table(layout.keypoints(dataset), columns=["image_id", "keypoints"])
    count = resume.shards(
        folder,
        resume.place(part, "distance_maps", dataset),
        resume.stamp(code_of("distance_maps", dataset), images, layout.keypoints(dataset), kappa),
        partial(rows, images, keypoints, kappa),
        schema.DISTANCE_MAPS,
        ROW_GROUP,
        dataset=dataset,
        kappa=str(kappa),
        limbs=str(pose.LIMBS),
    )
    if part is None:
        console.say(f"distance_maps {dataset}: {count} images, kappa {kappa}")
