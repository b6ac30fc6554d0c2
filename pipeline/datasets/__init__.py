"""The data sets, a folder each. To add one, write a module with what is listed here and name it in `_MODULES`.

A data set's module offers

`Fetch`             frozen dataclass: the keys of its block `fetch.<name>` in params.yaml
`fetch(block, raw)` fill the empty folder `raw` (below) and return a dict for `source.json`, with `images` ({split:
                    {count, ...}}), `terms`, and `height` and `width` in pixels (both null if its images differ in
                    size). Raises UserError.
`person_id(name)`   the identity in an image's file name
`JUNK`              prefixes of the names of images that show nobody in particular: no pairs are made of them

`raw` holds the same files for every data set:

`images.zip`              members `train/NAME` and `test/NAME`, the bytes as published (pipeline/archive.py writes it)
`annotation-SPLIT.csv`    the field's keypoint lists for train and test (annotations.py)
`pairs-test.csv`          the published list of test pairs, if there is one
`truth.parquet`           the true joints (schema.TRUTH), if the data set knows them
`parsing.zip`             label maps, 8-bit PNG of LIP-20 ids under the names of `images.zip`, if there are any
`source.json`             what it was made from: digests, counts, licence; no paths and no times
"""

from importlib import import_module
from types import ModuleType

from pipeline.errors import UserError

SPLITS = ("train", "test")

_MODULES = {
    "synthetic": "pipeline.datasets.synthetic.files",
    "market1501": "pipeline.datasets.market1501",
}


def get(name: str) -> ModuleType:
    """The module of a data set. Raises UserError for a name that has none."""
    if name not in _MODULES:
        raise UserError(f"unknown data set {name}; known: {', '.join(_MODULES)}")
    return import_module(_MODULES[name])
