"""A prepared data set as MLCommons Croissant 1.1 describes one: its files with digests, and the columns in them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.core import layout, schema, store
from pipeline.datasets import About

VERSION = "1.0.0"  # of these files and columns: another column is another version
PARQUET = "application/x-parquet"
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    "description": {"@container": "@language"},
} | {
    key: f"cr:{key}"
    for key in (
        "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileObject",
        "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5",
        "parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate", "separator",
        "source", "subField", "transform",
    )
}  # fmt: skip

# Of every column; docs/shards.md says more.
COLUMNS = {
    "image_id": "the published file name, which joins the tables",
    "split": "train or test; of pairs train, val or test",
    "person_id": "identity, as the file name has it",
    "image": "the JPEG or PNG file as received",
    "height": "pixels",
    "width": "pixels",
    "reason": "why the image was left out",
    "row": "position in the split's published keypoint list, from 0",
    "keypoints": "18 joints in OpenPose's order, x and y in pixels; null where missing",
    "keypoint_scores": "confidence from 0 to 1 of each joint; 0 where missing",
    "keypoint_source": "where the joints come from",
    "parsing": "a label id a pixel, as an 8-bit PNG of the image's size",
    "label_source": "what parsed the image",
    "pair_index": "position in the published list of pairs, from 0",
    "source_id": "image_id of the source",
    "target_id": "image_id of the target",
    "pseudo_id": "image_id of the training image whose parsing stands in for the unseen target's",
    "cost": "how far the two parsings are apart, part by part",
    "pose_distance": "how far the two poses are apart, in torso lengths",
    "distance_maps": "the bytes of uint8, C order, 12 x height x width: 255 exp(kappa d)",
}
TYPES = {
    pa.string(): {"dataType": "sc:Text"},
    pa.binary(): {"dataType": "sc:Text"},  # Croissant has no type for bytes; loaders hand them over as they are
    pa.int32(): {"dataType": "sc:Integer"},
    pa.float32(): {"dataType": "sc:Float"},
    schema.IMAGE: {"dataType": "sc:ImageObject"},
    schema.POINTS: {"dataType": "sc:Float", "isArray": True, "arrayShape": f"{schema.JOINTS},2"},
    schema.JOINT_SCORES: {"dataType": "sc:Float", "isArray": True, "arrayShape": f"{schema.JOINTS}"},
}


def tables(dataset: str) -> dict[str, tuple[Path, pa.Schema, str]]:
    """Record set -> its file or folder of shards, its columns and what a row is; of those that have rows.

    Raises UserError if the stage that writes one has not run, or left it damaged.
    """
    every = {
        "images": (layout.images(dataset), schema.IMAGES, "an image"),
        "rejects": (layout.rejects(dataset), schema.REJECTS, "an image that was left out"),
        "keypoints": (layout.keypoints(dataset), schema.KEYPOINTS, "the joints of an image"),
        "parsing": (layout.parsing(dataset), schema.PARSING, "the human parsing of an image"),
        "pairs": (layout.pairs(dataset), schema.PAIRS, "two images of a person: source and target"),
        "distance_maps": (layout.distance_maps(dataset), schema.DISTANCE_MAPS, "limb distance maps of an image"),
    } | {
        f"pseudo_labels_{rule}": (
            layout.pseudo_labels(dataset, rule),
            schema.PSEUDO_LABELS,
            f"a training image and its stand-in for the target's parsing, by the rule {rule}",
        )
        for rule in layout.RULES
    }
    return {
        name: (path, columns, row)
        for name, (path, columns, row) in every.items()
        if store.read_table(path, columns=columns.names[:1]).num_rows
    }


def files(path: Path) -> list[Path]:
    """A table's file, or its shards."""
    return [path] if path.suffix else store.parts(path)


def _field(name: str, field: pa.Field, source: dict[str, Any]) -> dict[str, Any]:
    source = source | {"extract": {"column": field.name}}
    if field.type == schema.IMAGE:
        source["transform"] = {"jsonPath": "bytes"}
    about = {"@type": "cr:Field", "@id": f"{name}/{field.name}", "name": field.name, "description": COLUMNS[field.name]}
    return about | TYPES[field.type] | {"source": source}


def describe(
    dataset: str, title: str, about: About, terms: str, gaps: Iterable[str], digests: dict[Path, str]
) -> dict[str, Any]:
    """The JSON-LD document, whose paths are from data/D/. digests: SHA-256 by path, of all that `files` names."""
    root = layout.croissant(dataset).parent
    distribution, record_sets = [], []
    for name, (path, columns, row) in tables(dataset).items():
        inside = path.relative_to(root).as_posix()
        for file in files(path):
            here = file.relative_to(root).as_posix()
            distribution.append(
                {"@type": "cr:FileObject", "@id": here, "name": here, "contentUrl": here, "encodingFormat": PARQUET,
                 "contentSize": f"{file.stat().st_size} B", "sha256": digests[file]}
            )  # fmt: skip
        source = {"fileObject": {"@id": inside}}
        if not path.suffix:
            source = {"fileSet": {"@id": f"{inside}/"}}
            distribution.append(
                {"@type": "cr:FileSet", "@id": f"{inside}/", "name": f"{inside}/", "encodingFormat": PARQUET,
                 "includes": f"{inside}/part-*.parquet"}
            )  # fmt: skip
        record_sets.append(
            {"@type": "cr:RecordSet", "@id": name, "name": name, "description": f"A row: {row}.",
             "field": [_field(name, field, source) for field in columns]}
        )  # fmt: skip
    known = {
        "license": about.licence,
        "url": about.url,
        "citeAs": about.citation,
        "datePublished": about.year and str(about.year),
        "creator": [{"@type": about.creator_type, "name": name} for name in about.creators],
    }
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": title,
        "description": f"{about.description} Prepared by Repose. Terms of the images: {terms}.",
        "version": VERSION,
        **{key: value for key, value in known.items() if value},
        "rai:dataLimitations": list(gaps),
        "distribution": distribution,
        "recordSet": record_sets,
    }
