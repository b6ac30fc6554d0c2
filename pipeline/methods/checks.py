"""Whether a method keeps to the contract: eight synthetic pairs, drawn several times over.

The true targets are on no disk. What a method that looks for them would find is a decoy, in the last run only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.core.errors import UserError
from pipeline.datasets import synthetic
from pipeline.formats import pictures
from pipeline.methods.call import Pair, Task, unlike

PAIRS, SEED, CHUNK = 8, 20, 3
SIZE = 128, 64  # height and width for a method that takes any
ALIKE = 2  # grey levels that a pixel may differ by in another batch: sums of another order are rounded otherwise
CHECKS = {
    "names": "a picture for every pair, under its name, and no other file",
    "sizes": "8-bit RGB, of the size of the source",
    "determinism": "the same pixels when it is run again",
    "batch": "the same picture of a pair whatever other pairs come with it, and in which order",
    "targets": "the target is not looked for",
}

Draw = Callable[[Sequence[int], bytes | None], Mapping[str, bytes]]
"""Positions of pairs, and a decoy that lies where a target would be or none -> the files that were written, by name."""


class Verdict(NamedTuple):
    """passed: None if it could not be judged. why: what was found, in a few words."""

    check: str
    passed: bool | None
    why: str


def synthetic_people(height: int, width: int) -> list[tuple[synthetic.Rendering, synthetic.Rendering]]:
    """Source and target of PAIRS people."""
    scenes = synthetic.scenes(SEED, "test", PAIRS, 2)
    drawn = [synthetic.render(scene, height, width) for scene in scenes]
    return list(zip(drawn[::2], drawn[1::2], strict=True))


def task(people: Sequence[tuple[synthetic.Rendering, synthetic.Rendering]]) -> Task:
    """What a method is given of them."""
    pairs = []
    for number, both in enumerate(people):
        valid = [np.isfinite(one.joints).all(axis=1) for one in both]
        joints = [np.where(seen[:, None], one.joints, 0) for one, seen in zip(both, valid, strict=True)]
        pairs.append(Pair(number, f"s{number:05d}", f"t{number:05d}", joints[0], valid[0], joints[1], valid[1]))
    encoded = [(pair.source, pictures.encode_png(one.image)) for pair, (one, _) in zip(pairs, people, strict=True)]
    return Task(pairs, *people[0][0].image.shape[:2], lambda: iter(encoded))


def decoy(height: int, width: int) -> bytes:
    """PNG of noise: no target, and like none."""
    return pictures.encode_png(np.random.default_rng(SEED).integers(0, 256, (height, width, 3), np.uint8))


def check(draw: Draw, names: Sequence[str], height: int, width: int) -> Iterator[Verdict]:
    """The verdicts in the order of CHECKS. names: the file of each pair.

    Raises UserError, as `draw` does, if nothing can be drawn at all.
    """
    everybody, bait = range(len(names)), decoy(height, width)
    try:
        first = draw(everybody, None)
    except UserError:
        draw(everybody, bait)  # fails, too, unless it reads a target
        yield from (Verdict(one, None, "it draws nothing without targets") for one in CHECKS if one != "targets")
        yield Verdict("targets", False, "it fails where no files with the targets' names are, and runs where they are")
        return
    yield _of_names(first, names)
    found = {name: first[name] for name in names if name in first}
    if not found:
        yield from (Verdict(one, None, "no picture has its name") for one in CHECKS if one != "names")
        return
    yield _of_sizes(found, height, width)
    pixels = {name: picture for name, png in found.items() if not isinstance(picture := pictures.exact(png), str)}
    if not pixels:
        yield from (Verdict(one, None, "no picture can be read") for one in ("determinism", "batch", "targets"))
        return

    def differing(runs: Sequence[Sequence[int]], allowed: int, lying: bytes | None = None) -> str:
        """Which pictures are others when these pairs are drawn, run after run, in words. lying: the decoy."""
        again: dict[str, bytes] = {}
        try:
            for positions in runs:
                again.update(draw(positions, lying))
        except UserError as error:
            return f"it fails: {error}"
        apart = {name: _apart(before, pictures.exact(again.get(name, b""))) for name, before in pixels.items()}
        apart = {name: levels for name, levels in apart.items() if levels > allowed}
        most = max(apart, key=apart.__getitem__, default=None)
        return f"{len(apart)} of {len(pixels)} pictures differ, {most} by {apart[most]} grey levels" if apart else ""

    again = differing([everybody], 0)
    yield Verdict("determinism", not again, again)
    if again:
        yield from (Verdict(one, None, "its pictures differ anyway") for one in ("batch", "targets"))
        return
    told = {
        "in the opposite order": differing([everybody[::-1]], ALIKE),
        f"as {CHUNK} pairs and {len(names) - CHUNK}": differing([everybody[:CHUNK], everybody[CHUNK:]], ALIKE),
    }
    yield Verdict("batch", not any(told.values()), "; ".join(f"{how}: {why}" for how, why in told.items() if why))
    baited = differing([everybody], 0, bait)
    yield Verdict("targets", not baited, baited and f"where files have the targets' names, {baited}")


def _of_names(written: Mapping[str, bytes], names: Sequence[str]) -> Verdict:
    lacking = [name for name in names if name not in written]
    others = sorted(set(written) - set(names))
    parts = [f"{len(lacking)} of {len(names)} are not there, {lacking[0]} the first"] if lacking else []
    parts += [f"{len(others)} files too many, {others[0]} the first"] if others else []
    return Verdict("names", not parts, "; ".join(parts))


def _of_sizes(found: Mapping[str, bytes], height: int, width: int) -> Verdict:
    for name, png in found.items():
        if why := unlike(png, height, width):
            return Verdict("sizes", False, f"{name}: {why}")
    return Verdict("sizes", True, "")


def _apart(one: np.ndarray, other: np.ndarray | str) -> int:
    """The largest difference of a pixel in grey levels; 255 if the other is no picture, or of another size."""
    if isinstance(other, str) or one.shape != other.shape:
        return 255
    return int(np.abs(one.astype(np.int16) - other).max())
