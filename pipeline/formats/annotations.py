"""The field's two CSV formats: keypoints (`name: [y, ...]: [x, ...]`) and pairs (`from,to`).

PATN's keypoint files list y before x, eighteen of each in OpenPose-18 order, -1 for a missing joint. A joint is
missing where its y is -1: files for cropped canvases hold joints with a negative x. Both writers give back the
published files byte for byte.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.core import foreign, graph
from pipeline.core.errors import UserError
from pipeline.core.schema import JOINTS

KEYPOINTS_HEADER = "name:keypoints_y:keypoints_x"
PAIRS_HEADER = "from,to"
_MISSING = -1


def _lines(path: Path, header: str) -> Iterator[tuple[int, str]]:
    """(line number, text) of every line after the header. Raises UserError for another header or bytes not UTF-8."""
    try:
        handle = path.open("rb")
    except FileNotFoundError:
        raise UserError(f"{path}: not there; {graph.how_to_make(path)}") from None
    with handle:
        for number, line in enumerate(iter(lambda: handle.readline(foreign.LINE + 1), b""), 1):
            if len(line) > foreign.LINE:
                raise UserError(
                    f"{path}: line {number} is longer than {foreign.LINE >> 20} MiB; is this the right file?"
                )
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")  # Windows' mark of UTF-8
            except UnicodeDecodeError:
                raise UserError(f"{path}: line {number} is not UTF-8 text; is this the right file?") from None
            if number > 1:
                yield number, text
            elif text != header:
                separator = ":" if ":" in header else ","
                if sorted(text.split(separator)) == sorted(header.split(separator)):
                    raise UserError(f"{path}: line 1 is {text!r}, its columns in another order than {header!r}")
                shown = text if len(text) <= 60 else text[:57] + "..."
                raise UserError(f"{path}: line 1 is {shown!r}, not the header {header!r}; a column missing?")


def _coordinates(text: str) -> list[float]:
    values = json.loads(text)
    if not isinstance(values, list) or len(values) != JOINTS:
        raise ValueError
    if not all(type(value) in (int, float) and abs(value) < 2**24 for value in values):  # exact as float32
        raise ValueError
    return values


def read_keypoints(path: Path) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, joints float32 (N, 18, 2) as (x, y) with zeros where missing, valid bool (N, 18), in file order.

    Raises UserError if the file is not there and, naming file and line, for a broken row or a name that occurs twice.
    """
    if path.parent.exists() and not path.exists():
        raise UserError(
            f"{path}: no such keypoint list; where a data set comes without one, give yours as"
            " keypoints.<data set>.path in params.yaml, or set keypoints.<data set>.source to openpose"
        )
    first_line: dict[str, int] = {}
    rows = []
    for number, text in _lines(path, KEYPOINTS_HEADER):
        try:
            name, y, x = text.rsplit(":", 2)
            rows.append((_coordinates(x), _coordinates(y)))
        except (ValueError, RecursionError):
            wanted = f"'name: [{JOINTS} y]: [{JOINTS} x]'"
            raise UserError(f"{path}: line {number} is not {wanted} with numbers in the lists; correct it") from None
        if name in first_line:
            raise UserError(f"{path}: line {number}: {name} occurs twice, first in line {first_line[name]}")
        first_line[name] = number
    joints = np.array(rows, dtype=np.float32).reshape(len(rows), 2, JOINTS).swapaxes(1, 2)
    valid = joints[:, :, 1] != _MISSING
    return list(first_line), np.where(valid[:, :, None], joints, np.float32(0)), valid


def coordinates(joints: np.ndarray, valid: np.ndarray, decimals: int = 0) -> list[tuple[list, list]]:
    """Joints (N, 18, 2), valid (N, 18) -> of each its x and its y as the field's lists have them: -1 where missing, and
    rounded, to whole pixels unless `decimals` says otherwise.
    """
    values = np.round(joints.astype(np.float64), decimals)
    if decimals == 0:
        values = values.astype(np.int64)
    present_at_missing = valid & (values[:, :, 1] == _MISSING)  # a joint just above the image, not a missing one
    values[:, :, 1] = np.where(present_at_missing, 0, values[:, :, 1])
    values = np.where(valid[:, :, None], values, _MISSING)
    return values.swapaxes(1, 2).tolist()


def keypoint_lines(names: Sequence[str], joints: np.ndarray, valid: np.ndarray, decimals: int = 0) -> Iterator[str]:
    """Inverse of `read_keypoints`: the file's lines, with numbers as `coordinates` gives them."""
    yield KEYPOINTS_HEADER + "\n"
    for name, (x, y) in zip(names, coordinates(joints, valid, decimals), strict=True):
        yield f"{name}: {y}: {x}\n"


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """(source, target) names in file order. Raises UserError, naming file and line, for a broken row."""
    pairs = []
    for number, text in _lines(path, PAIRS_HEADER):
        source, comma, target = text.partition(",")
        if not (source and comma and target) or "," in target:
            raise UserError(f"{path}: line {number} is not 'source,target'; correct it")
        pairs.append((source, target))
    return pairs


def pair_lines(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Inverse of `read_pairs`: the file's lines."""
    yield PAIRS_HEADER + "\n"
    for source, target in pairs:
        yield f"{source},{target}\n"
