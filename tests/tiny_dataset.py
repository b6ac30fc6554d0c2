"""A data set of coloured rectangles with joints, written through `pipeline.core.store` alone, and its params.yaml."""

import json
from pathlib import Path

import cv2
import numpy as np
import yaml

from models.variants import COMPONENTS, VARIANTS
from pipeline.anatomy import pose
from pipeline.anatomy.distance import limb_distance_maps
from pipeline.core import layout, schema, store

ROOT = Path(__file__).parent.parent
HEIGHT, WIDTH = 64, 32
PEOPLE, VIEWS = 4, 3
VAL_PERSON = "0003"
KAPPA = -0.3  # of the distance maps; the published one is -0.1


def picture(person: int, view: int) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) uint8 RGB: a rectangle on a ground, both of the person's colours, moved by the view."""
    random = np.random.default_rng([person, view])
    image = np.full((HEIGHT, WIDTH, 3), 40 * person + 20, np.uint8)
    image[8 + view : 56 + view, 8 + view : 24 + view] = np.random.default_rng(person).integers(0, 256, 3)
    return image + random.integers(0, 8, image.shape, dtype=np.uint8)


def label_map(person: int, view: int) -> np.ndarray:
    """(HEIGHT, WIDTH) uint8, LIP-20 ids: all twenty, in blocks of 4x4 pixels."""
    blocks = np.random.default_rng([9, person, view]).permutation(HEIGHT * WIDTH // 16).reshape(HEIGHT // 4, WIDTH // 4)
    return (blocks % 20).astype(np.uint8).repeat(4, axis=0).repeat(4, axis=1)


def joints(person: int, view: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng([7, person, view])
    points = random.uniform((4, 4), (WIDTH - 4, HEIGHT - 4), (18, 2)).astype(np.float32)
    return points, random.random(18) > 0.1


def name(person: int, view: int) -> str:
    return f"{person:04d}_{view}.png"


def write(folder: Path, dataset: str = "synthetic", parsing_source: str = "none") -> None:
    """All shards that training reads, under `folder`: train images of PEOPLE people, pairs within each of them.

    One image (the last of person 0) is rejected: it has joints and pairs but no row among the images. Parsing is empty
    unless it has a source. Everybody's stand-in is the next person.
    """
    rejected = name(0, VIEWS - 1)
    everyone = [(person, view) for person in range(PEOPLE) for view in range(VIEWS)]
    images, keypoints, maps, parsing, pairs = [], [], [], [], []
    for row, (person, view) in enumerate(everyone):
        common = {"image_id": name(person, view), "split": "train", "person_id": f"{person:04d}"}
        encoded = cv2.imencode(".png", picture(person, view)[:, :, ::-1])[1].tobytes()
        if common["image_id"] != rejected:
            image = {"bytes": encoded, "path": common["image_id"]}
            images.append({**common, "image": image, "height": HEIGHT, "width": WIDTH})
            labels = {"bytes": cv2.imencode(".png", label_map(person, view))[1].tobytes(), "path": image["path"]}
            parsing.append({"image_id": image["path"], "parsing": labels, "label_source": parsing_source})
        points, valid = joints(person, view)
        scores = valid.astype(float).tolist()
        stored = {"keypoints": pose.from_array(points, valid), "keypoint_scores": scores, "keypoint_source": "test"}
        keypoints.append({**common, "row": row, **stored})
        drawn = limb_distance_maps(points[None], valid[None], HEIGHT, WIDTH, KAPPA).tobytes()
        maps.append({"image_id": name(person, view), "height": HEIGHT, "width": WIDTH, "distance_maps": drawn})
    for person in range(PEOPLE):
        split = "val" if f"{person:04d}" == VAL_PERSON else "train"
        for source in range(VIEWS):
            for target in range(VIEWS):
                if source != target:
                    ids = {"source_id": name(person, source), "target_id": name(person, target)}
                    pairs.append({"split": split, "pair_index": len(pairs), **ids})
    store.write_shards(folder / layout.images(dataset), images, schema.IMAGES)
    store.write_table(folder / layout.keypoints(dataset), keypoints, schema.KEYPOINTS)
    store.write_table(folder / layout.pairs(dataset), pairs, schema.PAIRS)
    parsing = [] if parsing_source == "none" else parsing
    store.write_shards(folder / layout.parsing(dataset), parsing, schema.PARSING, parsing_source=parsing_source)
    ids = [row["image_id"] for row in images]
    stand_ins = [
        {"image_id": one, "pseudo_id": other, "cost": 1.0, "pose_distance": 1.0}
        for one, other in zip(ids, ids[VIEWS:] + ids[:VIEWS], strict=True)
    ]
    for rule in layout.RULES:
        store.write_shards(folder / layout.pseudo_labels(dataset, rule), stand_ins, schema.PSEUDO_LABELS)
    store.write_shards(folder / layout.distance_maps(dataset), maps, schema.DISTANCE_MAPS, kappa=str(KAPPA))


def list_of(paper: str) -> list[str]:
    return [name for name, variant in VARIANTS.items() if variant.paper == paper]


def write_params(folder: Path, **blocks: dict) -> None:
    """The project's params.yaml, small enough for a test, with every variant and component.

    `blocks` change values in it, such as spig={"steps": 3}, variants={"spig": []}, components={"spatn": False}.
    """
    values = yaml.safe_load((ROOT / layout.PARAMS).read_text())
    values["datasets"] = ["synthetic"]
    common = {"steps": 2, "checkpoint_every": 1, "batch": 2, "width": 0.1, "device": "cpu", "missing_weights": "seeded"}
    common |= {"start": None, "start_sha256": None}
    papers = {"spig": "SPIG", "spgnet": "SPGNet", "spt": "SPT", "sgw_gan": "SGW-GAN", "patn": "PATN", "gfla": "GFLA"}
    papers |= {"def_gan": "Def-GAN", "vunet": "VU-Net"}
    values["variants"] |= {family: list_of(paper) for family, paper in papers.items()}
    values["components"] = dict.fromkeys(values["components"], True)
    for component in values["components"]:
        values["pretrain"]["synthetic"][component] |= common
        if not COMPONENTS[component].features:
            del values["pretrain"]["synthetic"][component]["missing_weights"]
    values["pretrain"]["synthetic"]["detector"] |= {"steps": 2, "batch": 4, "device": "cpu"}
    for family in papers:
        values["train"]["synthetic"][family] |= common
    for block, changes in blocks.items():
        stage = "pretrain" if block in values["pretrain"]["synthetic"] else "train"
        (values if block in values else values[stage]["synthetic"])[block] |= changes
    (folder / layout.PARAMS).write_text(yaml.safe_dump(values))
    (folder / layout.PARAMS_SCHEMA).write_text((ROOT / layout.PARAMS_SCHEMA).read_text())
    for net in ("vgg16", "vgg19", "squeezenet1_1"):
        (folder / layout.weights(net)).mkdir(parents=True, exist_ok=True)
        missing = {"status": "missing", "files": {}, "reason": "not for tests"}
        (folder / layout.weights(net) / "source.json").write_text(json.dumps(missing))
