"""Files as a stranger may make them, of every kind that is read, and what their readers make of each.

    python -m tests.hostile.fuzz --tries 2000

A file begins as a right one, and is cut, doubled and filled with other bytes and with words that mean something in its
kind. Its reader may take it, or refuse it by a UserError of one readable line. Anything else ends the count. Memory is
limited to MEMORY, and every file to SECONDS.
"""

import argparse
import csv
import hashlib
import io
import json
import resource
import signal
import struct
import sys
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.core import console, params, yaml_file
from pipeline.core.errors import UserError
from pipeline.datasets import deepfashion
from pipeline.datasets.folder import people, photograph
from pipeline.formats import annotations, archive, label_files, openpose_json, pictures
from pipeline.scoring import folders
from pipeline.tables import inputs
from tests.conftest import ROOT

MEMORY = 6 << 30  # bytes of address space, most of it libraries
SECONDS = 5

# ---- right files


def png(picture: np.ndarray) -> bytes:
    """Pillow's: OpenCV's cannot write a palette."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def zipped(members: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return buffer.getvalue()


def safetensors(header: dict, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


COLOURS = np.random.default_rng(0).integers(0, 256, (8, 6, 3), np.uint8)
NUMBERS = str(list(range(18))).encode()
ANNOTATION = b"name:keypoints_y:keypoints_x\n" + b"".join(b"%d.jpg: %s: %s\n" % (n, NUMBERS, NUMBERS) for n in range(3))
OPENPOSE = json.dumps({"version": 1.3, "people": [{"pose_keypoints_2d": [1.5] * 54}]}).encode()
POSES = json.dumps({"a.png": [[1, 2]] * 17 + [None]}).encode()
TENSORS = safetensors({"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}, bytes(16))

# ---- their readers; each is given the bytes, and a folder of its own


def read_zip(data: bytes, folder: Path) -> None:
    (folder / "x.zip").write_bytes(data)
    with archive.reading(folder / "x.zip") as content:
        for name in content.names:
            assert ".." not in name.split("/")
            assert content.size(name) >= 0
            content.read(name)


def by_path(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], None]:
    def reader(data: bytes, folder: Path) -> None:
        (folder / name).write_bytes(data)
        read(folder / name)

    return reader


def read_openpose(data: bytes, folder: Path) -> None:
    (folder / "a_keypoints.json").write_bytes(data)
    for joints, scores in openpose_json.read(folder, ["a.jpg"]):
        assert np.isfinite(joints).all()
        assert np.isfinite(scores).all()


def read_keypoints(path: Path) -> None:
    _, joints, _ = annotations.read_keypoints(path)
    assert np.isfinite(joints).all()


def read_labels(data: bytes, _: Path) -> None:
    assert label_files.read(data, "lip-20", 8, 6, "a.png").max() < 20


def read_picture(data: bytes, _: Path) -> None:
    pictures.decode_given(data, "a.png")
    photograph.fitted(data, 64, 32, "pad")  # says why, if it is none
    deepfashion.convert(data, "crop176")


def read_people(path: Path) -> None:
    people.of_csv(str(path), "mine", ["anna/1.jpg", "bo/2.jpg"], {})


def read_pairs_of_folders(data: bytes, folder: Path) -> None:
    for name in ("made", "real"):
        (folder / name).mkdir(exist_ok=True)
        for number in "12":
            (folder / name / f"{number}.png").write_bytes(png(COLOURS))
    (folder / "pairs.csv").write_bytes(data)
    folders.open_folders(folder / "made", folder / "real", folder / "pairs.csv", None)


def read_yaml(path: Path) -> None:
    yaml_file.read(path)


def read_params(path: Path) -> None:
    params.check(yaml_file.read(path), path)


def read_weights(path: Path) -> None:
    from pipeline.loading import published_weights

    published_weights.state_dict([path])


def read_exported(path: Path) -> None:
    from pipeline.core import digests
    from pipeline.training import start

    path.with_suffix(".json").write_text('{"trained": {"name": "x"}}')
    start.read(str(path), digests.sha256(path), "train")


def read_network(data: bytes, folder: Path) -> None:
    from pipeline.metrics.own_network import OwnNetwork, Settings

    (folder / "net.onnx").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    OwnNetwork("net", Settings(str(folder / "net.onnx"), digest, (8, 8), (0.5,) * 3, (0.5,) * 3))


# ---- right files that need torch or onnx to make


def pickled() -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(2, 2)}, buffer)
    return buffer.getvalue()


def exported() -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), buffer)
    return buffer.getvalue()


def network() -> bytes:
    from onnx import TensorProto, helper

    pool = helper.make_node("GlobalAveragePool", ["x"], ["y"])
    shapes = [("x", [1, 3, 8, 8]), ("y", [1, 3, 1, 1])]
    taken, given = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in shapes)
    graph = helper.make_graph([pool], "g", taken, given)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9).SerializeToString()


def published() -> bytes:
    return b"".join((ROOT / "reports/published.csv").read_bytes().splitlines(keepends=True)[:6])


@dataclass(frozen=True)
class Kind:
    """seed: a right file, or what makes one. words: that mean something in it. heavy: it takes a library to read."""

    seed: bytes | Callable[[], bytes]
    words: Sequence[bytes]
    read: Callable[[bytes, Path], None]
    heavy: bool = False


JSON = (
    b"[" * 5000,
    b"1e999",
    b"-" + b"9" * 400,
    b"null",
    b"true",
    b"NaN",
    b'"\\ud800"',
    b"{}",
    b"[]",
    b"," * 90,
    b"\0",
)
CSV = (
    b'"',
    b",",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b"=cmd|' /C calc'!A0",
    b"@",
    b"x" * 140_000,
    b"<script>",
    b"-1",
    b"1e999",
)
YAML = (
    *(b"&a ", b"*a", b"&a [*a, *a, *a]", b"<<: *a", b"- " * 600, b"[" * 600, b"!!float ''", b"!!timestamp x", b"!!int"),
    *(b"!!python/object:os.system x", b"!!binary", b"!!set", b"!!omap", b"? ", b": ", b"9" * 5000, b"1e999", b".nan"),
    *(b"\0", b"\xff", b"\t", b"---\n", b"%YAML 9.9\n", b"'", b'"\\x00"', b"{", b"}", b"~"),
)
ZIP = (
    b"PK\1\2",
    b"PK\3\4",
    b"PK\5\6",
    b"PK\6\6",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"../",
    b"/",
    b"\x0c\0",
    b"\x0e\0",
    b"\x63\0",
)
PICTURE = (
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\0\0\0\0",
    b"IHDR",
    b"IDAT",
    b"PLTE",
    b"\x10",
    b"acTL",
    b"zTXt",
    b"eXIf",
)
TENSOR = (
    b"F32",
    b"F8_E8M0",
    b"BOOL",
    b"[-1]",
    b"[4294967296,4294967296]",
    b"[0,99]",
    b"\xff" * 8,
    b"__metadata__",
    b"cos\nsystem\n",
)

KINDS = {
    "zip": Kind(lambda: zipped({"train/1.jpg": b"a" * 300, "test/2.jpg": bytes(40)}), ZIP, read_zip),
    "keypoint lists": Kind(ANNOTATION, JSON + CSV + (b": ",), by_path("a.csv", read_keypoints)),
    "pair lists": Kind(b"from,to\na.jpg,b.jpg\nc.jpg,d.jpg\n", CSV, by_path("a.csv", annotations.read_pairs)),
    "OpenPose JSON": Kind(OPENPOSE, JSON, read_openpose),
    "poses as JSON": Kind(POSES, JSON, by_path("a.json", folders._from_json)),
    "label maps": Kind(lambda: png(COLOURS[..., 0] % 20), PICTURE, read_labels),
    "pictures": Kind(lambda: png(COLOURS), PICTURE, read_picture),
    "YAML": Kind(b"a: &a [1, 2.5, x]\nb: {<<: &b {c: 1}, d: *a}\ne:\n  - *b\n", YAML, by_path("a.yaml", read_yaml)),
    "params.yaml": Kind((ROOT / "params.yaml").read_bytes, YAML, by_path("a.yaml", read_params), True),
    "published.csv": Kind(published, CSV, by_path("a.csv", inputs.read_published)),
    "people's CSV": Kind(b"name,identity\nanna/1.jpg,anna\nbo/2.jpg,bo\n", CSV, by_path("a.csv", read_people)),
    "pairs to compare": Kind(b"generated,target\n1.png,2.png\n2.png,1.png\n", CSV, read_pairs_of_folders),
    "image lists": Kind(b"a.jpg\nb.jpg\n", CSV, by_path("a.lst", deepfashion._names)),
    "safetensors": Kind(TENSORS, (*TENSOR, *JSON), by_path("a.safetensors", read_weights), True),
    "weights as pickles": Kind(pickled, (*ZIP, *TENSOR), by_path("a.pth", read_weights), True),
    "exported programs": Kind(exported, (*ZIP, *JSON), by_path("a.pt2", read_exported), True),
    "ONNX": Kind(network, (b"\xff" * 8, b"\x0a", b"\0" * 8, b"../../x", b"\x12\x07"), read_network, True),
}  # fmt: skip


# ---- damage


@cache
def right(name: str) -> bytes:
    seed = KINDS[name].seed
    return seed if isinstance(seed, bytes) else seed()


@st.composite
def damaged(draw: st.DrawFn, name: str) -> bytes:
    """A right file, after one to six changes: at a place, so many bytes are taken out and others put in."""
    data = right(name)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        taken = draw(st.sampled_from((0, 0, 1, 2, 4, 8, 40, len(data))))
        put = draw(st.one_of(st.sampled_from(KINDS[name].words), st.binary(max_size=8), st.just(data[at : at + 64])))
        data = data[:at] + put + data[at + taken :]
    if name in ("label maps", "pictures") and draw(st.booleans()):
        data = with_checksums(data)
    return data


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what is in them now: else a reader looks no further."""
    out, at = data[:8], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4])
        end = min(at + 8 + length, len(data) - 4)
        out += data[at:end] + zlib.crc32(data[at + 4 : end]).to_bytes(4)
        at = end + 4
    return out


def judge(name: str, data: bytes) -> str:
    """ "taken" or "refused"; raises whatever else the reader does."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            KINDS[name].read(data, Path(folder))
        except UserError as error:
            said = console.line(str(error))
            assert said.isprintable(), f"no readable line: {said!r}"
            return "refused"
    return "taken"


def count(name: str, tries: int) -> Counter:
    """How many of so many damaged files are taken and refused. Raises for one that is neither."""
    found: Counter = Counter()

    @settings(
        max_examples=tries, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(damaged(name))
    def one(data: bytes) -> None:
        with in_time():
            found[judge(name, data)] += 1

    one()
    return found


@contextmanager
def in_time():
    def late(*_: object) -> None:
        raise TimeoutError(f"takes more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=2000, help="of each kind")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    out = csv.writer(sys.stdout, delimiter="|")
    for name in arguments.kinds:
        found = count(name, arguments.tries)
        out.writerow((name, found.total(), found["taken"], found["refused"]))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
