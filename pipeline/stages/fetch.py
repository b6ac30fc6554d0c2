"""Gather a data set's published files, verify them and bring them into one form: data/D/raw/.

market1501: images, keypoint lists and the test pairs, each looked for in this order:
  1. `path` in the block fetch.market1501 of params.yaml: your own file (for the images the official zip, any other
     packaging of the same images, or the unpacked folder)
  2. the folder $REPOSE_MIRROR, under the name `file` of that block
  3. `url`, with resume: a download that was cut continues where it stopped (.work/downloads/)
In every case the digests in params.yaml decide. Where nothing is found, the message says where to request it.

deepfashion: the same for img.zip (256x256) or img_highres.zip, PATN's image lists, keypoints and pairs. The images are
gated: request them, and put the password of an encrypted archive into the environment variable that `password_env`
names; it is never stored. `protocol`: canvas256 (img.zip as it is), crop176 (its middle 176 columns), or from
img_highres.zip squash256 (256x256), resize176 (256x176), resize352 (512x352), Pillow's bicubic filter, and with that of
other code resize176-cv2-bilinear, -cv2-cubic, -squashed, resize352-cv2-bilinear, -cv2-cubic. Train keypoints and pairs
may be missing: use keypoints.source openpose.
`allow_partial` takes whatever images there are; deepfashion_sample is a block of its own for such a part.

folder: your own images. `path`: the folder; `identity`: subfolder (one sub-folder per person; `level` says which one,
where their names leave it open) or csv (`csv`: a file with the header name,identity or name,identity,split). They are
fitted to `height` x `width`: `fit` pad or squash. source.json lists what was not used, and why; docs/data.md says more.

synthetic: nothing to fetch; the images are rendered here.

A form of one of them, such as deepfashion-resize176, is a data set of its own: fetch.deepfashion-resize176 says what is
different in it, such as `protocol: resize176`, and all else is its parent's.

Writes data/D/raw/: images.zip (members train/NAME, test/NAME: the published bytes, or PNGs where they are cropped or
resized), annotation-{train,test}.csv and pairs-{train,test}.csv if the data set publishes them, source.json (digests,
counts, terms of use).
"""

import json
from dataclasses import fields, is_dataclass
from typing import Any

from pipeline import datasets
from pipeline.core import console, layout, params
from pipeline.core.atomic import atomic_directory


def own_digests(block: Any) -> list[str]:
    """The published files of a block whose digest in params.yaml is not the published one: KEY.sha256."""
    return [
        f"{one.name}.{digest.name}"
        for one in fields(block)
        if is_dataclass(one.default)
        for digest in fields(one.default)
        if digest.name.endswith("sha256") and (known := getattr(one.default, digest.name))
        if getattr(getattr(block, one.name), digest.name) != known
    ]


def run(dataset: str) -> None:
    """Write `data/D/raw/`. Raises UserError: nothing to get it from, a wrong digest, a broken archive."""
    module = datasets.get(dataset)
    block = params.block(module.Fetch, "fetch", dataset)
    datasets.refuse_own_files(dataset)
    with atomic_directory(layout.raw(dataset)) as raw:
        source = module.fetch(block, raw, dataset)
        if own := own_digests(block):
            source["own_digests"] = own
        text = json.dumps(source, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        (raw / "source.json").write_text(text, encoding="utf-8")
    counts = ", ".join(f"{split['count']} {name}" for name, split in source["images"].items())
    console.say(f"fetch {dataset}: {counts} images; terms: {source['terms']}")
