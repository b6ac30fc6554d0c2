"""Which pair a number in a file's name stands for. Where the number is the only clue, the pictures decide.

A number may count the pairs of a list from 0 or from 1, in the list's order or in another; off by one, every picture is
compared with its neighbour's target, and scores as if the method were bad. So a sample of the files is held against the
stored images of the pairs that each way of counting (`ways`) gives it, reduced to SIDE pixels: the mean difference from
the target or, if that is smaller, from the source. One way beats another if it is nearer by a fifth and by three
standard errors of the difference, file by file. The way that fits the most numbers is taken if no other beats it, and
if it beats chance; else the command stops and says what to give.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from pipeline.core import foreign
from pipeline.core.errors import UserError
from pipeline.formats import pictures
from pipeline.scoring import strips

SAMPLE = 48  # files that are looked at
SIDE = 32  # pixels, the longer side of a reduced picture
NEARER, ERRORS = 0.8, 3.0  # of the other's difference, at most; standard errors, at least
ALIKE = 3.0  # grey levels: files that differ less from each other show one picture, which tells nothing
GAPS = 8  # missing files over which numbers may run on

Pictures = Callable[[int], tuple[np.ndarray | None, np.ndarray | None]]  # a place -> its source and its target


@dataclass(frozen=True)
class Listing:
    """The whole list of pairs whose places numbers may count.

    pairs: (source, target) by place. numbers: what the list itself calls each place, such as pair_index. positions: of
    each place that is scored, its position among the scored pairs. pictures: the stored images of a place, (H, W, 3)
    uint8 RGB, None for one that is not there. size: theirs.
    """

    pairs: Sequence[tuple[str, str]]
    numbers: Sequence[int]
    positions: Mapping[int, int]
    pictures: Pictures
    size: tuple[int, int]


Way = Mapping[int, int]  # a number -> its place in the list


def ways(numbers: Sequence[int], listing: Listing) -> dict[str, Way]:
    """How `numbers`, which are sorted, may count the list, by name; the plainest first."""
    place_of = {number: place for place, number in enumerate(listing.numbers)}
    places, first = range(len(listing.numbers)), listing.numbers[0]

    def shifted(by: int) -> Way:
        return {number: place_of[number - by] for number in numbers if number - by in place_of}

    def ordered(order: Sequence[int]) -> Way:
        return {number: order[number] for number in numbers if number < len(order)}

    found = {"published": shifted(0)}
    runs_on = numbers[-1] - numbers[0] + 1 == len(numbers)
    for start in dict.fromkeys((1, numbers[0] - first)) if runs_on else (1,):
        if start > 0:
            found[f"from-{first + start}"] = shifted(start)
    if 0 < len(listing.positions) < len(places):
        scored = sorted(listing.positions, key=listing.positions.__getitem__)
        found["scored"] = ordered(scored)
        found["scored-from-1"] = {number: scored[number - 1] for number in numbers if 0 < number <= len(scored)}
    as_text = sorted(places, key=str)
    found["as-text"] = ordered(as_text)
    found["as-text-back"] = ordered(np.argsort(as_text).tolist())
    found["reversed"] = ordered(places[::-1])
    found["by-source"] = ordered(sorted(places, key=lambda place: listing.pairs[place]))
    found["by-target"] = ordered(sorted(places, key=lambda place: listing.pairs[place][::-1]))
    return {name: way for name, way in found.items() if way}


IN_WORDS = {
    "published": "as the list numbers its pairs",
    "scored": "the pairs that are scored, from 0",
    "scored-from-1": "the pairs that are scored, from 1",
    "as-text": "in the order of their numbers as text (0, 1, 10, 11, ..., 2)",
    "as-text-back": "by their place among the numbers as text (0, 1, 10, 11, ..., 2)",
    "reversed": "from the list's end",
    "by-source": "in the order of the sources' names",
    "by-target": "in the order of the targets' names",
}


def in_words(name: str) -> str:
    return IN_WORDS.get(name) or f"from {name.removeprefix('from-')}, in the list's order"


def number_of(stem: str, pattern: str = "{index}") -> int | None:
    """The number in a file's name (without ending), however it is padded; None if it is not named so."""
    field = re.escape("{index}")
    form = re.escape(pattern).replace(field, "([0-9]+)", 1).replace(field, r"\1")
    found = re.fullmatch(form, stem)
    return int(found[1]) if found and found.groups() else None


def _small(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.float32)


class Apart(NamedTuple):
    """each: (n,) mean differences in grey levels by file, NaN where a file has no place, or the place no picture."""

    each: np.ndarray
    mean: float
    from_sources: bool


class _Evidence:
    """How far sampled files are from the images of the places that they are given."""

    def __init__(self, files: Mapping[int, Path], listing: Listing):
        sorted_numbers = sorted(files)
        chosen = np.linspace(0, len(files) - 1, min(SAMPLE, len(files))).round().astype(int)
        self._listing, self._stored = listing, {}
        self.shown: dict[int, tuple[np.ndarray | None, np.ndarray]] = {}  # number -> what shows a source, and a target
        for number in (sorted_numbers[row] for row in chosen):
            panels = _panels(files[number], listing.size)
            if panels is not None:
                self.shown[number] = panels
        self.numbers = list(self.shown)

    def _of_place(self, place: int) -> tuple[np.ndarray | None, ...]:
        if place not in self._stored:
            found = self._listing.pictures(place)
            self._stored[place] = tuple(None if one is None else _small(one) for one in found)
        return self._stored[place]

    def apart(self, way: Way, only: Sequence[int] | None = None) -> "Apart":
        """How far the sampled files are from the targets or, if these are nearer on the whole, from the sources."""
        both = np.full((2, len(self.numbers)), np.nan)  # by target, by source
        for row, number in enumerate(self.numbers):
            if number not in way or (only is not None and number not in only):
                continue
            source, target = self._of_place(way[number])
            as_source, as_target = self.shown[number]
            for kind, (stored, shown) in enumerate(((target, as_target), (source, as_source))):
                if stored is not None:
                    both[kind, row] = np.abs(stored - _fitted(shown, stored)).mean()
        means = [kind[np.isfinite(kind)].mean() if np.isfinite(kind).any() else np.inf for kind in both]
        kind = int(np.argmin(means))
        return Apart(both[kind], float(means[kind]), bool(kind))

    @property
    def one_picture(self) -> bool:
        """Whether the sampled files show the same picture, as far as can be seen."""
        seen = [shown for _, shown in self.shown.values()]
        return len(seen) > 1 and all(np.abs(_fitted(one, seen[0]) - seen[0]).mean() < ALIKE for one in seen)


def _fitted(picture: np.ndarray, to: np.ndarray) -> np.ndarray:
    return picture if picture.shape == to.shape else cv2.resize(picture, to.shape[1::-1])


def _panels(path: Path, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
    """What of a file is to be held against a source and a target: a strip's own, else the whole picture, twice."""
    picture = pictures.decode_foreign(foreign.read(path, foreign.PICTURE))
    if picture is None:
        return None
    source, target, _ = strips.cut(picture, *size) or [picture] * 3
    return _small(source), _small(target)


def beats(one: Apart, other: Apart, nearer: float = NEARER, errors: float = ERRORS) -> bool:
    """Whether files are nearer by `one` than by `other`: by the rule above, on the files that both have."""
    both = np.isfinite(one.each) & np.isfinite(other.each)
    if both.sum() < 1:
        return False
    gain = other.each[both] - one.each[both]
    spread = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 2 else 0.0
    return bool(one.each[both].mean() <= nearer * other.each[both].mean() and gain.mean() > errors * spread)


def decide(files: Mapping[int, Path], listing: Listing, option: str) -> tuple[str, Way]:
    """The way in which the numbers of `files` count the list: its name, and the place of each.

    Raises UserError, which says what to give as `option`, where the pictures contradict the numbers or tell nothing.
    """
    numbers = sorted(files)
    known = ways(numbers, listing)
    evidence = _Evidence(files, listing)
    apart = {name: found for name, way in known.items() if np.isfinite((found := evidence.apart(way)).mean)}
    plain = [name for name in known if name == "published" or name.startswith(("from-", "scored"))]
    most = max((len(known[name]) for name in plain), default=0)
    fitting = [name for name in plain if len(known[name]) == most]
    if not fitting or fitting[0] not in apart:  # no number has a place, or no picture was there to look at
        return "published", known.get("published", {})
    taken = fitting[0]
    asked = f"{len(files)} files are named by numbers, {numbers[0]} to {numbers[-1]}"

    def stop(problem: str, *names: str) -> UserError:
        """names: the ways between which the user is to choose."""
        give = " or ".join(f"{option} {name}" for name in dict.fromkeys(names))
        return UserError(f"{asked}{problem}; give {give}, or the list that they count, a CSV of from,to, as {option}")

    def told(name: str) -> str:
        near = " from the sources" if apart[name].from_sources else ""
        return f"{in_words(name)} ({apart[name].mean:.1f} grey levels apart{near})"

    better = min(
        (name for name in apart if beats(apart[name], apart[taken])), key=lambda name: apart[name].mean, default=taken
    )
    if better not in fitting:
        raise stop(f": counted {told(taken)}, but the pictures fit the pairs counted {told(better)}", better, taken)
    taken = better
    if evidence.one_picture:
        return taken, known[taken]
    for name, other in apart.items():
        alike = known[name] != known[taken] and not beats(apart[taken], other)
        # A copy of every source may be a target in another order, where every pair is asked for both ways.
        if alike and (name in fitting or (apart[taken].from_sources and not other.from_sources)):
            raise stop(f": counted {told(taken)} or {told(name)}, the pictures do not tell", taken, name)
    if gap := _gap(evidence, known[taken], listing):
        raise stop(
            f", but the last of them fit the pairs {gap} further down: numbers run on over missing images", taken
        )
    if len(evidence.numbers) > 2 and not _better_than_chance(evidence, known[taken], apart[taken]):
        raise stop(f": counted {told(taken)}, the pictures fit their pairs no better than any others", taken)
    return taken, known[taken]


def _gap(evidence: _Evidence, way: Way, listing: Listing) -> int:
    """Over how many missing images numbers run on, so that the last files belong to later pairs; 0 if they do not."""
    free = len(listing.numbers) - 1 - max(way.values(), default=0)
    last = evidence.numbers[-max(len(evidence.numbers) // 3, 3) :]
    here = evidence.apart(way, last)
    for gap in range(1, min(free, GAPS) + 1):
        if beats(evidence.apart({number: place + gap for number, place in way.items()}, last), here):
            return gap
    return 0


def _better_than_chance(evidence: _Evidence, way: Way, own: Apart) -> bool:
    """Whether files fit their pairs better than those of other files."""
    given = [number for number in evidence.numbers if number in way]
    half = len(given) // 2
    others = {number: way[other] for number, other in zip(given, given[half:] + given[:half], strict=True)}
    return beats(own, evidence.apart(others), nearer=1.0, errors=2.0)


def chosen(files: Mapping[int, Path], listing: Listing, name: str, option: str) -> Way:
    """The way that the user names. Raises UserError for a name that is none."""
    known = ways(sorted(files), listing)
    if name not in known:
        raise UserError(f"{option} {name}: no file, and no way to count these files; give {', '.join(known)}, or a CSV")
    return known[name]
