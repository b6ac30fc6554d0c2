"""Gather a data set's published files, verify them and put them into one form: data/D/raw/.

market1501: images, keypoint lists and the test pairs, each looked for in this order:
  1. `path` in the block fetch.market1501 of params.yaml: your own file (for the images the official zip, any other
     packaging of the same images, or the unpacked folder)
  2. the folder $REPOSE_MIRROR, under the name `file` of that block
  3. `url`, with resume: a download that was cut continues where it stopped (.work/downloads/)
Whatever the way, the digests in params.yaml decide. Where nothing is found the message says where to request it.

synthetic: nothing to fetch; the images are rendered here.

Writes data/D/raw/: images.zip (members train/NAME, test/NAME: the published bytes), annotation-{train,test}.csv,
pairs-test.csv if the data set publishes one, source.json (digests, counts, terms of use).
"""

import json

from pipeline import console, datasets, layout, params
from pipeline.atomic import atomic_directory


def run(dataset: str) -> None:
    """Write `data/D/raw/`. Raises UserError: nothing to get it from, a wrong digest, a broken archive."""
    module = datasets.get(dataset)
    block = params.block(module.Fetch, "fetch", dataset)
    with atomic_directory(layout.raw(dataset)) as raw:
        source = module.fetch(block, raw)
        text = json.dumps(source, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        (raw / "source.json").write_text(text, encoding="utf-8")
    counts = ", ".join(f"{split['count']} {name}" for name, split in source["images"].items())
    console.say(f"fetch {dataset}: {counts} images verified; terms: {source['terms']}")
