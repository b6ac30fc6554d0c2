"""What a page shows of each data set: what was counted, and two images with all that is known of them."""

import cv2
import numpy as np

from pipeline import drawing
from pipeline.anatomy import labels
from pipeline.core import layout, store
from pipeline.datasets import title as dataset_title
from pipeline.formats.pictures import encode_png, label_decoder
from pipeline.report import prepared
from pipeline.report.album import Album

EXAMPLES = 2
MAP_HEIGHT = 96  # pixels of one distance map


def _chosen(dataset: str) -> list[str]:
    """Images to show: evenly spread over those that have a stand-in, without pseudo labels over all."""
    if rules := prepared.searched(dataset):
        table = store.read_table(layout.pseudo_labels(dataset, rules[0]), columns=["image_id", "pseudo_id"])
        ids = table.filter(table["pseudo_id"].is_valid())["image_id"].to_pylist()
    else:
        ids = store.read_table(layout.images(dataset), columns=["image_id"])["image_id"].to_pylist()
    return [ids[(2 * number + 1) * len(ids) // (2 * EXAMPLES)] for number in range(min(EXAMPLES, len(ids)))]


def _label_picture(dataset: str, image_id: str) -> bytes | None:
    row = prepared.stored(layout.parsing(dataset), image_id)
    if row is None:
        return None
    folder = layout.parsing(dataset)
    label_map = label_decoder(folder, labels.EVERY)
    return encode_png(labels.colour(label_map(row["parsing"]["bytes"], f"{folder}: {image_id}")))


def _map_picture(row: dict) -> bytes:
    """The twelve distance maps in two rows, each MAP_HEIGHT pixels high."""
    size = (max(1, round(MAP_HEIGHT * row["width"] / row["height"])), MAP_HEIGHT)
    maps = [
        np.pad(cv2.resize(one, size, interpolation=cv2.INTER_AREA), ((0, 2), (0, 2))) for one in prepared.limb_maps(row)
    ]
    return encode_png(drawing.level(np.concatenate([np.concatenate(half, axis=1) for half in (maps[:6], maps[6:])])))


def _example(dataset: str, image_id: str, album: Album, photographs: str) -> dict:
    """One image's panels: title, what it shows, and a picture or a skeleton. Drawings are no photographs: they show
    where `photographs` leaves those out, and are never linked.
    """
    image = prepared.stored(layout.images(dataset), image_id)
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
    joints = prepared.joints(dataset, image_id)
    if joints and image:
        panels.append({"title": "joints", "pose": album.add_pose(joints, image["height"], image["width"])})
    drawn("parsing", _label_picture(dataset, image_id), f"parsing of {image_id} in the colours of the bars")
    for rule, row in prepared.stand_ins(dataset, image_id).items():
        other = row["pseudo_id"]
        photograph(f"its stand-in ({rule})", prepared.stored(layout.images(dataset), other))
        alt = f"pseudo target label of {image_id} by the rule {rule}: the parsing of {other}"
        drawn(f"pseudo label ({rule}), {row['cost']:.0f} px apart", _label_picture(dataset, other), alt)
    maps = prepared.stored(layout.distance_maps(dataset), image_id)
    if maps is not None:
        drawn("distance maps of twelve limbs", _map_picture(maps), f"distance maps of {image_id}, white on the limb")
    return {"id": image_id, "panels": panels}


def section(dataset: str, album: Album, photographs: str) -> dict:
    """Everything the template shows of a data set's preparation, and which stages have not run."""
    chosen = _chosen(dataset) if layout.images(dataset).exists() else []
    return {
        "name": dataset,
        "title": dataset_title(dataset),
        "missing": prepared.missing(dataset),
        "stages": [(prepared.STAGES[stage].title, lines) for stage, lines in prepared.lines(dataset).items()],
        "examples": [_example(dataset, one, album, photographs) for one in chosen],
    }
