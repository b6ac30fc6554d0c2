"""Parsing labels: our lookups beside the field's way, and what surrounds SCHP's network.

    OMP_NUM_THREADS=1 taskset -c 0 .venv/bin/python -m benchmarks.parsing

CPU time on one core, milliseconds an image, medians. In place of SCHP (its file could not be had) runs torchvision's
DeepLabV3 on ResNet-101 with random weights: same backbone, same input, last stages at stride 8 where SCHP has 16, so it
does more work than SCHP.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from pipeline.anatomy import labels
from pipeline.extraction import schp
from pipeline.formats import pictures

SIZES = ((128, 64), (256, 256))
REPEATS = 9


def milliseconds(work: Callable, items: list) -> float:
    for item in items[:4]:
        work(item)
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        for item in items:
            work(item)
        times.append((time.process_time() - start) / len(items))
    return 1e3 * median(times)


def label_maps(height: int, width: int, count: int = 32) -> list[np.ndarray]:
    """Smooth random regions of all 20 labels."""
    rng = np.random.default_rng(0)
    return [
        cv2.resize(rng.normal(size=(8, 4, 20)), (width, height), interpolation=cv2.INTER_CUBIC)
        .argmax(2)
        .astype(np.uint8)
        for _ in range(count)
    ]


def masked(parsing: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The field's relabelling: one comparison and one masked write a label."""
    out = np.zeros_like(parsing)
    for label, target in enumerate(table):
        out[parsing == label] = target
    return out


def coloured_pixel_by_pixel(parsing: np.ndarray) -> np.ndarray:
    """The field's colouring (LIP toolbox, CIHP_PGN): a Python loop over pixels."""
    out = np.zeros((*parsing.shape, 3), np.uint8)
    colours = [tuple(colour) for colour in labels.COLOURS[:20].tolist()]
    for y, row in enumerate(parsing):
        for x, label in enumerate(row):
            out[y, x] = colours[label]
    return out


def from_colours_masked(image: np.ndarray) -> np.ndarray:
    out = np.zeros(image.shape[:2], np.uint8)
    for label, colour in enumerate(labels.COLOURS[:20]):
        out[(image == colour).all(axis=2)] = label
    return out


def network(folder: Path) -> Path:
    import openvino
    import torch
    from torchvision.models.segmentation import deeplabv3_resnet101

    class Fusion(torch.nn.Module):
        def __init__(self):
            super().__init__()
            net = deeplabv3_resnet101(weights=None, weights_backbone=None, num_classes=schp.LABELS)
            self.backbone, self.head = net.backbone, net.classifier

        def forward(self, image):
            logits = self.head(self.backbone(image)["out"])
            return torch.nn.functional.interpolate(logits, (119, 119), mode="bilinear", align_corners=True)

    torch.manual_seed(0)
    example = torch.zeros(1, 3, schp.SIZE, schp.SIZE)
    model = openvino.convert_model(Fusion().eval(), example_input=example)
    openvino.save_model(model, folder / "net.xml", compress_to_fp16=False)
    return folder / "net.xml"


def main() -> None:
    table = labels.FROM_LIP20["adgan-8"]
    print("| work | size | ours (ms) | the field's way (ms) | ratio |\n|---|---|---|---|---|")
    for height, width in SIZES:
        maps = label_maps(height, width)
        images = [labels.colour(one) for one in maps]
        for one, image in zip(maps, images, strict=True):  # the same answers, or the times mean nothing
            assert (labels.relabel(one, table) == masked(one, table)).all()
            assert (from_colours_masked(image) == one).all()
            assert (labels.from_colours(image) == one).all()
        assert (coloured_pixel_by_pixel(maps[0]) == images[0]).all()
        rows = [
            ("relabel", lambda one: labels.relabel(one, table), lambda one: masked(one, table), maps, maps),
            ("colour", labels.colour, coloured_pixel_by_pixel, maps, maps[:4]),
            ("from_colours", labels.from_colours, from_colours_masked, images, images),
        ]
        for name, ours, theirs, items, their_items in rows:
            a, b = milliseconds(ours, items), milliseconds(theirs, their_items)
            print(f"| {name} | {height}x{width} | {a:.3f} | {b:.3f} | {b / a:.0f} |")
        print(f"| to_spt10 | {height}x{width} | {milliseconds(labels.to_spt10, maps):.3f} | | |")
        print(f"| PNG of a label map | {height}x{width} | {milliseconds(pictures.encode_labels, maps):.3f} | | |")
    with tempfile.TemporaryDirectory() as folder:
        net = schp.Schp(network(Path(folder)))
    logits = np.random.default_rng(0).normal(size=(schp.LABELS, 119, 119)).astype(np.float32)
    for height, width in SIZES:
        images = [np.random.default_rng(i).integers(0, 256, (height, width, 3), np.uint8) for i in range(8)]
        before = milliseconds(schp.prepare, images)
        after = milliseconds(lambda _, h=height, w=width: schp.labels_of(logits, h, w), images)
        start = time.process_time()
        net(images[:3])
        whole = 1e3 * (time.process_time() - start) / 3
        print(f"| SCHP: prepare | {height}x{width} | {before:.1f} | | |")
        print(f"| SCHP: labels_of | {height}x{width} | {after:.1f} | | |")
        print(f"| SCHP-sized network, all of it | {height}x{width} | {whole:.0f} | | |")


if __name__ == "__main__":
    main()
