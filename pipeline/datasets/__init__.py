"""The data sets, a folder each. To add one, write a module with what is listed here and name it in `_MODULES`.

A form of one, such as deepfashion-resize176, is a data set of its own, by the module and the settings of its parent but
for those of `fetch` and other blocks that params.yaml states for it.

A data set's module has

`Fetch`             frozen dataclass: the keys of its block `fetch.<name>` in params.yaml
`fetch(block, raw, name)`  fill the empty folder `raw` (below) and return a dict for `source.json`, with `images`
                    ({split: {count, ...}}), `terms`, and `height` and `width` in pixels (both null if its images differ
                    in size). `name`: of the data set, or of the form of it that is wanted. Raises UserError.
`cannot_get(block, name)`  where it may lack sources: the line that says which, and how to get them, or None
`person_id(name)`   the identity in an image's file name
`JUNK`              name prefixes of images that show nobody in particular: they enter no pair
`ABOUT`             what its data card says that its files do not

`raw` holds the same files for every data set:

`images.zip`              members `train/NAME` and `test/NAME` (pipeline/formats/archive.py writes it): the bytes as
                          published, or PNGs where the data set's protocol crops or resizes
`annotation-SPLIT.csv`    the field's keypoint lists (annotations.py) of the splits that have one; without it, joints
                          come from a detector (keypoints.source) or from the user (keypoints.path)
`pairs-test.csv`          the published list of test pairs, if there is one
`pairs-train.csv`         the published list of training pairs, if there is one; else the `pairs` stage makes it by rule
`truth.parquet`           the true joints (schema.TRUTH), if the data set knows them
`parsing.zip`             label maps, 8-bit PNG of lip-cihp-21 ids (docs/labels.md) under the names of `images.zip`, if
                          there are any
`boxes.json`              {NAME: [top, left, height, width]}: where the picture lies on an image with bands around it
`source.json`             what it was made from: digests, counts, licence; no paths of this machine and no times

Layer 3; may import: core, anatomy, formats, fetching.
"""

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Literal

from pipeline.core import layout, params
from pipeline.core.errors import UserError

SPLITS = ("train", "test")


@dataclass(frozen=True)
class About:
    """A data set in words: who made it, on which terms, and what to know before it is used."""

    description: str
    creators: tuple[str, ...] = ()
    creator_type: Literal["Person", "Organization"] = "Person"
    year: int | None = None  # of publication
    url: str | None = None
    licence: str | None = None  # an address: of a licence, or of the page with the terms
    citation: str | None = None  # key of its entry in reports/references.bib
    gaps: tuple[str, ...] = ()  # known ones, a sentence each


_MODULES = {  # name -> module, title in tables and pages
    "synthetic": ("pipeline.datasets.synthetic.files", "Synthetic"),
    "market1501": ("pipeline.datasets.market1501", "Market-1501"),
    "deepfashion": ("pipeline.datasets.deepfashion", "DeepFashion"),
    "deepfashion_sample": ("pipeline.datasets.deepfashion_sample", "DeepFashion sample"),
    "folder": ("pipeline.datasets.folder", "Own images"),
}

NAMES = (*_MODULES,)


def refuse_own_files(*names: str) -> None:
    """Raises UserError if the user's own lists lie in a data set's `raw`, where the next `fetch` would delete them."""
    unpublished = {"folder": ("annotation-", "pairs-"), "market1501": ("pairs-train",)}  # lists that `fetch` never has
    for name in names:
        raw = layout.raw(name)
        for found in sorted(raw.iterdir()) if raw.is_dir() else ():
            if found.name.startswith(("openpose-", *unpublished.get(params.parent(name), ()))):
                stage = "pairs" if found.name.startswith("pairs") else "keypoints"
                raise UserError(
                    f"{found}: {raw} is written anew by fetch, so nothing of yours may lie there; move it to a folder"
                    f" elsewhere, and name that as {stage}.{name}.path in {layout.PARAMS}"
                )


def get(name: str) -> ModuleType:
    """The module of a data set, or of the one that it is a form of. Raises UserError for a name that has none."""
    if params.parent(name) not in _MODULES:
        raise UserError(f"unknown data set {name}; known: {', '.join(_MODULES)}")
    return import_module(_MODULES[params.parent(name)][0])


def title(name: str) -> str:
    """The data set's name in tables and pages."""
    parent, _, form = name.partition("-")
    known = _MODULES[parent][1] if parent in _MODULES else parent
    return f"{known} ({form})" if form else known
