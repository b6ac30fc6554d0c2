"""Turn the raw images into shards: data/D/images/part-*.parquet, one row per image, sorted by image_id.

The bytes go in as published, never re-encoded. An image that cannot be used is left out and listed, with its reason, in
data/D/rejects.parquet: it does not decode, its size is not the data set's (source.json), it has no row in the keypoint
list of its split (if there is one), or its name occurs twice. A keypoint row without an image is listed there, too.
More than `index.D.max_rejects` of them stop the stage, since something bigger must be wrong.
"""

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline import datasets
from pipeline.core import console, layout, params, schema, seals, store
from pipeline.core.errors import UserError
from pipeline.core.settings import LARGEST, setting
from pipeline.formats import annotations, pictures


@dataclass(frozen=True)
class Params:
    max_rejects: int = setting("images that may be rejected before the stage stops", minimum=0, maximum=LARGEST)


def fault(size: tuple[int, int] | None, expected: tuple[int | None, int | None]) -> str | None:
    """Why an image of this size (height, width; None = does not decode) cannot be used, or None if it can."""
    if size is None:
        return "does not decode"
    if None not in expected and size != expected:
        return f"is {size[0]}x{size[1]} (height x width), not {expected[0]}x{expected[1]}"
    return None


def annotated(raw: Path) -> dict[str, list[str]]:
    """Split -> image ids of its keypoint list, for the splits that come with one."""
    lists = {split: raw / f"annotation-{split}.csv" for split in datasets.SPLITS}
    return {split: annotations.read_keypoints(path)[0] for split, path in lists.items() if path.exists()}


def rows(raw: Path, dataset: str, rejects: list[dict]) -> Iterator[dict]:
    """Rows of schema.IMAGES sorted by image_id; what cannot be used is appended to `rejects` (schema.REJECTS)."""
    source = seals.read_json(raw / "source.json")
    expected = (source["height"], source["width"])
    lists = annotated(raw)
    wanted = {(split, name) for split, names in lists.items() for name in names}
    person_id = datasets.get(dataset).person_id

    def reject(image_id: str, split: str, reason: str) -> None:
        rejects.append({"image_id": image_id, "split": split, "reason": reason})

    seen: set[str] = set()
    with zipfile.ZipFile(raw / "images.zip") as archive:
        members = [tuple(name.split("/", 1)) for name in archive.namelist()]
        members.sort(key=lambda member: (member[1].encode(), member[0]))
        with console.progress("images", len(members)) as advance:
            for split, image_id in members:
                advance()
                if image_id in seen:
                    reject(image_id, split, "its name occurs twice")
                    continue
                seen.add(image_id)
                data = archive.read(f"{split}/{image_id}")
                picture = pictures.decode_foreign(data)
                size = None if picture is None else picture.shape[:2]
                reason = fault(size, expected)
                if reason is None and split in lists and (split, image_id) not in wanted:
                    reason = "no row in the keypoint list"
                if reason is not None:
                    reject(image_id, split, reason)
                    continue
                yield {
                    "image_id": image_id,
                    "split": split,
                    "person_id": person_id(image_id),
                    "image": {"bytes": data, "path": image_id},
                    "height": size[0],
                    "width": size[1],
                }
    for split, image_id in sorted(wanted):
        if image_id not in seen:
            reject(image_id, split, "in the keypoint list, but no such image")


def at_most(limit: int, rejects: list[dict], images: Iterator[dict]) -> Iterator[dict]:
    """Pass `images` on; at their end raise UserError if there are more than `limit` rejects."""
    yield from images
    if len(rejects) > limit:
        shown = "; ".join(f"{reject['image_id']} {reject['reason']}" for reject in rejects[:3])
        more = "; ..." if len(rejects) > 3 else ""
        raise UserError(
            f"{len(rejects)} images cannot be used, more than index.max_rejects = {limit}: {shown}{more}; repair the"
            f" raw data (run fetch again) or raise the limit in {layout.PARAMS}"
        )


def run(dataset: str) -> None:
    """Write `data/D/images/` and `data/D/rejects.parquet`. Raises UserError: too many rejects, no raw data."""
    block = params.block(Params, "index", dataset)
    raw = layout.raw(dataset)
    if not (raw / "images.zip").exists():
        raise UserError(f"{raw}: no images.zip; run: repose fetch --dataset {dataset}")
    rejects: list[dict] = []
    images = at_most(block.max_rejects, rejects, rows(raw, dataset, rejects))
    source = seals.read_json(raw / "source.json")
    described = {"dataset": dataset} | ({"form": source["protocol"]} if "protocol" in source else {})
    described |= {key: json.dumps(source[key], sort_keys=True) for key in ("partial", "own_digests") if source.get(key)}
    count = store.write_shards(layout.images(dataset), images, schema.IMAGES, **described)
    rejects.sort(key=lambda reject: (reject["image_id"], reject["split"], reject["reason"]))
    store.write_table(layout.rejects(dataset), rejects, schema.REJECTS, dataset=dataset)
    console.say(f"index {dataset}: {count} images, {len(rejects)} rejects")
