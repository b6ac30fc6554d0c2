"""How long a random read of one row takes, beside decoding one JPEG: `python benchmarks/random_read.py D`.

Prints medians in milliseconds over the same random images of the prepared data set D (run the data stages first).
"""

import sys
import time
from pathlib import Path
from statistics import median

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from pipeline.core import layout, store

ROWS = 500


def milliseconds(function, items: list) -> float:
    times = []
    for item in items:
        start = time.perf_counter()
        function(item)
        times.append((time.perf_counter() - start) * 1e3)
    return median(times)


def main(dataset: str) -> None:
    ids = store.read_table(layout.images(dataset), columns=["image_id"]).column("image_id").to_pylist()
    chosen = [ids[i] for i in np.random.default_rng(0).permutation(len(ids))[:ROWS]]
    images = store.RandomReader(layout.images(dataset), ["image"])
    maps = store.RandomReader(layout.distance_maps(dataset))
    encoded = [np.frombuffer(images[name]["image"]["bytes"], np.uint8) for name in chosen]
    decode = milliseconds(lambda data: cv2.imdecode(data, cv2.IMREAD_COLOR), encoded)
    for what, function, items in (
        ("decode one image", lambda data: cv2.imdecode(data, cv2.IMREAD_COLOR), encoded),
        ("read an image row", images.__getitem__, chosen),
        ("read a row of distance maps", maps.__getitem__, chosen),
    ):
        took = milliseconds(function, items)
        print(f"{what:28} {took:7.3f} ms  {took / decode:5.1f} decodes")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "synthetic")
