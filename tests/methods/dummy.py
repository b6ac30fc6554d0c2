"""A method that needs nothing but Python, and its faults by name: `draw.py --pairs CSV --output FOLDER [FAULT]`."""

import argparse
import csv
import random
import shutil
import struct
import sys
import zlib
from pathlib import Path


def flat(path: Path, height: int, width: int, grey: int) -> None:
    """A PNG of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes([grey]) * 3 * width) * height)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


parser = argparse.ArgumentParser()
parser.add_argument("--pairs", type=Path, required=True)
parser.add_argument("--output", type=Path, required=True)
parser.add_argument("--weights", type=Path)
parser.add_argument("fault", nargs="?")
given = parser.parse_args()
fault = given.fault
with given.pairs.open(newline="") as handle:
    pairs = list(csv.DictReader(handle))
if fault == "fails" or (fault == "eight" and len(pairs) != 8):
    print("loading\nno module named theirs")
    sys.exit(3)
for position, pair in enumerate(pairs):
    size = int(pair["height"]), int(pair["width"])
    path = given.output / f"{pair['from']}_2_{pair['to']}.png"
    guess = Path(pair["image"]).with_name(f"{pair['to']}.png")
    if fault == "name":
        path = path.with_name(f"{pair['from']}.png")
    if fault == "missing" and pair["index"] == "2":
        continue
    if fault == "more":
        flat(given.output / "grid.png", *size, 9)
    if fault == "size":
        flat(path, size[0], size[1] + 1, 100)
    elif fault == "no picture":
        path.write_text("nothing")
    elif fault == "jpeg":
        path.write_bytes(b"\xff\xd8\xff\xe0")
    elif fault == "random":
        flat(path, *size, random.randrange(256))
    elif fault == "order":
        flat(path, *size, 10 * position)
    elif fault == "batch":
        flat(path, *size, 10 * len(pairs))
    elif fault == "needs target" or (fault == "target" and guess.exists()):
        shutil.copy(guess, path)
    else:
        shutil.copy(pair["image"], path)
