"""What a page shows of each data set: counts, completeness, pairs, and two images with all that is known of them."""

from collections.abc import Iterator

import cv2
import numpy as np

from pipeline import drawing
from pipeline.anatomy import labels, pose
from pipeline.core import layout, schema, store
from pipeline.formats import pictures
from pipeline.report import prepared
from pipeline.report.album import Album

EXAMPLES = 2
MAP_HEIGHT = 96  # pixels of one distance map
REASONS = 12


def _share(part: float, whole: float) -> float:
    return float(part) / whole if whole else 0.0


def _number(count: int) -> str:
    return f"{count:,}"


def _counts(dataset: str) -> Iterator[tuple[str, str]]:
    found = prepared.images(dataset)
    for split, count in found.splits.items():
        yield f"{split} images", f"{_number(count)} of {_number(found.people[split])} people"
    sizes = list(found.sizes.items())
    more = f" and {len(sizes) - 3} more" if len(sizes) > 3 else ""
    listed = ", ".join(f"{size} ({_number(count)})" for size, count in sizes[:3]) if len(sizes) > 1 else ""
    yield "size, height x width", (listed + more) or "".join(found.sizes)
    if found.rejects is not None:
        yield "images left out", _number(sum(found.rejects.values()))


def _rejects(dataset: str) -> list[tuple[str, int]]:
    found = prepared.images(dataset).rejects or {}
    rows = list(found.items())[:REASONS]
    rest = sum(found.values()) - sum(count for _, count in rows)
    return [*rows, ("other reasons", rest)] if rest else rows


def _joints(dataset: str) -> dict:
    found = prepared.keypoints(dataset)
    bars = [
        {"name": name.replace("_", " "), "share": _share(count, found.rows)}
        for name, count in zip(pose.JOINT_NAMES, found.present.tolist(), strict=True)
    ]
    mean = _share(found.present.sum(), found.rows)
    said = (
        f"{_number(found.rows)} images by {', '.join(found.sources)}; {mean:.1f} of {schema.JOINTS} joints in the mean"
    )
    return {"bars": bars, "text": said}


def _labels(dataset: str) -> dict | None:
    found = prepared.parsing(dataset)
    if not found.total:
        return None
    bars = [
        {"name": labels.LIP20[label], "share": float(found.shares[label]), "colour": _css(labels.COLOURS[label])}
        for label in np.argsort(-found.shares, kind="stable").tolist()
        if found.shares[label]
    ]
    return {
        "bars": bars,
        "text": f"{_number(found.total)} maps by {', '.join(found.sources)}; {found.looked_at} looked at",
    }


def _css(colour: np.ndarray) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour.tolist())


def _pseudo(dataset: str) -> list[tuple[str, str]]:
    found = prepared.pseudo_labels(dataset)
    rows = [("training images", _number(found.rows)), ("without a stand-in", _number(found.without))]
    for name, middle in (("cost, pixels", found.cost), ("pose distance, torso lengths", found.pose_distance)):
        if middle is not None:
            rows.append((name, "{1:.4g} (5 to 95 %: {0:.4g} to {2:.4g})".format(*middle)))
    return rows


def _chosen(dataset: str) -> list[str]:
    """Images to show: evenly spread over those that have a stand-in, without pseudo labels over all."""
    if layout.pseudo_labels(dataset).exists():
        table = store.read_table(layout.pseudo_labels(dataset), columns=["image_id", "pseudo_id"])
        ids = [row["image_id"] for row in table.to_pylist() if row["pseudo_id"] is not None]
    else:
        ids = store.read_table(layout.images(dataset), columns=["image_id"])["image_id"].to_pylist()
    return [ids[(2 * number + 1) * len(ids) // (2 * EXAMPLES)] for number in range(min(EXAMPLES, len(ids)))]


def _stored(folder, image_id: str) -> dict | None:
    if not folder.exists():
        return None
    try:
        return store.RandomReader(folder)[image_id]
    except (KeyError, TypeError):  # TypeError: shards without a row have no statistics
        return None


def _label_picture(dataset: str, image_id: str) -> bytes | None:
    row = _stored(layout.parsing(dataset), image_id)
    if row is None:
        return None
    where = f"{layout.parsing(dataset)}: {image_id}"
    return pictures.encode_png(labels.colour(pictures.decode_labels(row["parsing"]["bytes"], where)))


def _map_picture(row: dict) -> bytes:
    """The twelve distance maps in two rows, each MAP_HEIGHT pixels high."""
    shape = (schema.LIMBS, row["height"], row["width"])
    size = (max(1, round(MAP_HEIGHT * row["width"] / row["height"])), MAP_HEIGHT)
    maps = [
        np.pad(cv2.resize(one, size, interpolation=cv2.INTER_AREA), ((0, 2), (0, 2)))
        for one in np.frombuffer(row["distance_maps"], np.uint8).reshape(shape)
    ]
    return pictures.encode_png(
        drawing.level(np.concatenate([np.concatenate(maps[:6], axis=1), np.concatenate(maps[6:], axis=1)]))
    )


def _example(dataset: str, image_id: str, album: Album, photographs: str) -> dict:
    """One image's panels: title, what it shows, and a picture or a skeleton. Drawings are no photographs: they show
    where `photographs` leaves those out, and are never linked.
    """
    image = _stored(layout.images(dataset), image_id)
    what = f"{layout.images(dataset)}, {image_id}"
    panels = []

    def photograph(name: str, row: dict | None) -> None:
        if row is not None and photographs != "none":
            picture = album.add(row["image"]["bytes"], f"{what}, {name}", photographs == "link")
            panels.append({"title": name, "alt": f"{name} {row['image_id']}", "picture": picture})

    def drawn(name: str, content: bytes | None, alt: str) -> None:
        if content is not None:
            panels.append({"title": name, "alt": alt, "picture": album.add(content, f"{what}, {name}", False)})

    photograph("image", image)
    if layout.keypoints(dataset).exists():
        filters = [("image_id", "=", image_id)]
        rows = store.read_table(layout.keypoints(dataset), columns=["keypoints"], filters=filters).to_pylist()
        if rows and image:
            pose_of = album.add_pose(rows[0]["keypoints"], image["height"], image["width"])
            panels.append({"title": "joints", "pose": pose_of})
    drawn("parsing", _label_picture(dataset, image_id), f"parsing of {image_id} in the colours of the bars")
    pseudo = _stored(layout.pseudo_labels(dataset), image_id)
    if pseudo is not None and pseudo["pseudo_id"] is not None:
        other = pseudo["pseudo_id"]
        photograph("its stand-in", _stored(layout.images(dataset), other))
        alt = f"pseudo target label of {image_id}: the parsing of {other}"
        drawn(f"pseudo label, {pseudo['cost']:.0f} px apart", _label_picture(dataset, other), alt)
    maps = _stored(layout.distance_maps(dataset), image_id)
    if maps is not None:
        drawn("distance maps of twelve limbs", _map_picture(maps), f"distance maps of {image_id}, white on the limb")
    return {"id": image_id, "panels": panels}


def section(dataset: str, title: str, album: Album, photographs: str) -> dict:
    """Everything the template shows of a data set; of what is not prepared, that it is missing."""
    missing = prepared.missing(dataset)
    there = {stage for stage in prepared.OUTPUTS if stage not in missing}
    return {
        "name": dataset,
        "title": title,
        "missing": missing,
        "counts": list(_counts(dataset)) if "index" in there else [],
        "rejects": _rejects(dataset) if "index" in there else [],
        "joints": _joints(dataset) if "keypoints" in there else None,
        "labels": _labels(dataset) if "parsing" in there else None,
        "pairs": prepared.pair_statistics(dataset) if {"pairs", "keypoints"} <= there else {},
        "pseudo": _pseudo(dataset) if "pseudo_labels" in there else [],
        "maps": prepared.distance_maps(dataset) if "distance_maps" in there else None,
        "examples": [_example(dataset, one, album, photographs) for one in _chosen(dataset)]
        if "index" in there
        else [],
    }
