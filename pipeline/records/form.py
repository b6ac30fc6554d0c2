"""The file of a record, and of a check of one: what may stand in it, how it is written, and how one is read safely.

It is gzipped JSON of one form: names sorted, an item of a top-level list or block a line, numbers as Python prints
them. So equal content is equal text, whose SHA-256 is what a record goes by, and `zdiff` shows two files' differences
pair by pair. docs/records.md says what each field means.

A file comes from anybody. It is read up to a size, parsed as JSON, and every value is held to SPECS before it is used:
type, range, length, and of text that it is plain. Nothing in it is a path, a format or code to anyone here.
"""

import gzip
import hashlib
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from pipeline import metrics
from pipeline.core.atomic import atomic_file
from pipeline.core.errors import UserError
from pipeline.core.schema import INFLUENCE

RECORD, CHECK = "repose record", "repose check"
VERSION = 1  # of both forms: raised with every change that a reader would notice
ENDING = ".json.gz"
LARGEST_FILE, LARGEST_TEXT = 16 << 20, 48 << 20  # bytes: five times what DeepFashion's 8,570 pairs take
MOST_PAIRS, MOST_SCORES = 200_000, 20_000
LARGEST = 1e12  # no metric and no duration is larger
KEYS = ["pair_index", "source_id", "target_id", "image"]  # the first columns of its pairs; the others are metrics

# ---- what a value may be


class Each(NamedTuple):
    """A list of at most `most`."""

    spec: Any
    most: int


class Named(NamedTuple):
    """A block of at most `most` names that are `key` each."""

    key: Callable[[Any], bool]
    spec: Any
    most: int


def text(longest: int, lines: bool = False) -> Callable[[Any], bool]:
    """Printable characters, none that steers a terminal or turns text round. lines: of several lines; else no formula
    of a spreadsheet.
    """

    def fits(value: Any) -> bool:
        return (
            isinstance(value, str)
            and len(value) <= longest
            and (value.replace("\n", " ") if lines else value).isprintable()
            and (lines or value[:1] not in ("=", "+", "-", "@"))
        )

    return fits


_PLAIN = re.compile(r"[^|<>\[\]{}`*\\$!\"#^~;:@%]{1,80}")


def name(value: Any) -> bool:
    """Of a method or a person: text without a sign of Markdown, LaTeX or HTML."""
    return text(80)(value) and bool(_PLAIN.fullmatch(value)) and value == value.strip() != ""


def matches(pattern: str) -> Callable[[Any], bool]:
    known = re.compile(pattern)
    return lambda value: isinstance(value, str) and bool(known.fullmatch(value))


def whole(low: int, high: int = 2**53) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def number(value: Any) -> bool:
    return type(value) in (int, float) and -LARGEST < value < LARGEST  # NaN is neither


def flag(value: Any) -> bool:
    return type(value) is bool


def maybe(spec: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or spec(value)


def one_of(*allowed: Any) -> Callable[[Any], bool]:
    return lambda value: type(value) in map(type, allowed) and value in allowed


digest, line, metric = matches("[0-9a-f]{64}"), text(500), matches("[a-z0-9@.:_-]{1,80}")
dataset = matches("[a-z][a-z0-9_]{0,39}(-[a-z0-9_]{1,40})?")
_CODE = {
    "version": line, "revision": maybe(matches("[0-9a-f]{40,64}")), "clean": maybe(flag), "scoring": digest,
    "lock": maybe(digest), "method": line,
}  # fmt: skip
_MACHINE = {
    "system": line, "processor": line, "cores": whole(0), "memory": maybe(whole(0)), "gpus": Each(line, 64),
    "libraries": Named(text(80), line, 40),
}  # fmt: skip
_SCORE = {
    "step": whole(0), "split": one_of("val", "test"), "metric": metric, "protocol": line, "version": whole(1),
    "value": maybe(number), "low": maybe(number), "high": maybe(number), "n": whole(0), "excluded": whole(0),
    "ceiling": maybe(number), "higher_is_better": flag, "marks": Each(matches("[a-z-]{1,40}"), 60),
    "resamples": whole(1),
}  # fmt: skip
_REFERENCE = {
    "sha256": digest, "height": whole(1, 1 << 16), "width": whole(1, 1 << 16), "detector": line,
    "instruments": Named(text(80), digest, 40), "versions": Named(metric, maybe(whole(1)), 200),
    "forms": Named(metric, whole(1), 200),
}  # fmt: skip
SPECS = {
    RECORD: {
        "format": one_of(RECORD), "format_version": one_of(VERSION),
        "method": name, "kind": one_of("trained", "floor", "outside"), "dataset": dataset, "step": whole(0),
        "author": maybe(name), "licence": maybe(line), "bibtex": maybe(text(10_000, lines=True)),
        "code": _CODE, "machine": _MACHINE,
        "cost": {
            "seconds": maybe(number), "peak_memory": maybe(whole(0)), "device": maybe(line),
            "parameters": maybe(whole(0)), "macs": maybe(whole(0)),
        },
        "saw": {
            "training_set": maybe(line), "pretraining": Each(line, 40), "target_parsing": maybe(flag),
            "samples": whole(1, 10_000),
        },
        "checkpoints": Named(metric, digest, 60),
        "reference": _REFERENCE, "pair_list": digest, "images": Named(text(300), digest, 2 * MOST_PAIRS),
        "scores": Each(_SCORE, MOST_SCORES), "columns": Each(metric, 300), "pairs": Each(None, MOST_PAIRS),
    },
    CHECK: {
        "format": one_of(CHECK), "format_version": one_of(VERSION), "record": digest, "by": maybe(name),
        "pairs": whole(0), "of": whole(1), "seed": whole(0), "metrics": Each(metric, 300),
        "unchecked": Named(metric, line, 300), "differs": maybe(text(2000)), "code": _CODE, "machine": _MACHINE,
    },
}  # fmt: skip
"""Of each kind of file: its fields. Beside them stands what `digests` gives."""


def wrong(value: Any, spec: Any, where: str = "") -> str | None:
    """Where a value is first not what its spec says, and how, in words; None if it is."""
    if isinstance(spec, dict):
        if not isinstance(value, dict) or value.keys() != spec.keys():
            odd = min(map(ascii, value.keys() ^ spec.keys())) if isinstance(value, dict) else "no block"
            return f"{where or 'it'} is no block of {', '.join(spec)} ({odd[:60]})"
        found = ((value[key], below, f"{where}.{key}".lstrip(".")) for key, below in spec.items())
    elif isinstance(spec, Each):
        if not isinstance(value, list) or len(value) > spec.most:
            return f"{where} is no list of at most {spec.most}"
        found = ((below, spec.spec, f"{where}[{place}]") for place, below in enumerate(value) if spec.spec)
    elif isinstance(spec, Named):
        if not isinstance(value, dict) or len(value) > spec.most or not all(map(spec.key, value)):
            return f"{where} is no block of at most {spec.most} plain names"
        found = ((below, spec.spec, f"{where}.{key}") for key, below in value.items())
    else:
        return None if spec(value) else f"{where} is {_shown(value)}, which it cannot be"
    return next(filter(None, (wrong(*one) for one in found)), None)


def _shown(value: Any) -> str:
    """At most a line of it, whatever it is."""
    said = ascii(value) if not isinstance(value, dict | list) else f"a {type(value).__name__}"
    return said if len(said) <= 60 else f"{said[:50]}..."


# ---- written


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def sha256(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def as_text(content: Mapping[str, Any]) -> str:
    """The one text that a content has."""

    def field(value: Any) -> str:
        if isinstance(value, dict) and value:
            return "{\n" + ",\n".join(f"{canonical(key)}:{canonical(value[key])}" for key in sorted(value)) + "\n}"
        if isinstance(value, list) and value:
            return "[\n" + ",\n".join(map(canonical, value)) + "\n]"
        return canonical(value)

    return "{\n" + ",\n".join(f"{canonical(key)}:{field(content[key])}" for key in sorted(content)) + "\n}\n"


def pair_list(rows: list[list]) -> str:
    """SHA-256 of the lines "INDEX SOURCE TARGET" of the pairs, in order."""
    lines = "".join(f"{index} {source} {target}\n" for index, source, target, *_ in rows)
    return hashlib.sha256(lines.encode()).hexdigest()


def digests(content: Mapping[str, Any]) -> dict[str, str]:
    """The SHA-256 of each field's value; of a record's pairs of each column's, of its scores of each metric's: so that
    what was changed by accident can be named.
    """
    found = {key: sha256(value) for key, value in content.items() if key not in ("pairs", "scores", "digests")}
    if content["format"] == CHECK:
        return found | {"pairs": sha256(content["pairs"])}
    by_metric: dict[str, list] = {}
    for row in content["scores"]:
        by_metric.setdefault(row["metric"], []).append(row)
    found |= {f"scores.{name}": sha256(rows) for name, rows in by_metric.items()}
    columns = enumerate(content["columns"])
    return found | {f"pairs.{name}": sha256([row[place] for row in content["pairs"]]) for place, name in columns}


def write(path: Path, content: Mapping[str, Any]) -> str:
    """Write a content without its digests, which are added, whole or not at all; return what the file goes by. Raises
    UserError for what no reader would take.
    """
    if found := _misshapen(content) or _contradiction(content):
        raise UserError(f"{path}: not written: {found}")
    content = {**content, "digests": digests(content)}
    written = as_text(content).encode()
    packed = gzip.compress(written, 9, mtime=0)
    if len(written) > LARGEST_TEXT or len(packed) > LARGEST_FILE:
        raise UserError(f"{path}: not written: {len(written)} bytes, at most {LARGEST_TEXT} are read again")
    with atomic_file(path) as partial:
        partial.write_bytes(packed)
    return hashlib.sha256(written).hexdigest()


# ---- read


@dataclass(frozen=True)
class File:
    """A record or a check as it was read; `sha256` is that of its text."""

    path: Path
    sha256: str
    content: dict[str, Any]

    def __getitem__(self, key: str) -> Any:
        return self.content[key]

    @property
    def metrics(self) -> list[str]:
        """The columns of values for each pair."""
        return self["columns"][len(KEYS) :]

    @cached_property
    def tested(self) -> dict[str, dict[str, Any]]:
        """Metric -> its row of scores on test at the step that stands for the method."""
        rows = (row for row in self["scores"] if row["split"] == "test" and row["step"] == self["step"])
        return {row["metric"]: row for row in rows}

    @cached_property
    def by_pair(self) -> dict[tuple[int, str, str], tuple[str, dict[str, float | None]]]:
        """Index, source and target -> the digest of the image, and its values."""
        return {
            (row[0], row[1], row[2]): (row[3], dict(zip(self.metrics, row[len(KEYS) :], strict=True)))
            for row in self["pairs"]
        }


def read(path: Path, kind: str | None = None) -> File:
    """A record or a check, of `kind` alone if that is given. Raises UserError for whatever is no such file, is damaged,
    contradicts itself or is too large.
    """
    given = _unpacked(path)
    try:
        content = json.loads(given, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: no record: {str(error)[:80] if isinstance(error, ValueError) else 'nested'}"
        ) from None
    known = content.get("format") if isinstance(content, dict) else None
    if not isinstance(known, str) or known not in SPECS or known != (kind or known):
        raise UserError(f"{path}: no {(kind or RECORD).removeprefix('repose ')} of Repose; `repose record` writes them")
    if content.get("format_version") != VERSION:
        raise UserError(
            f"{path}: of version {_shown(content.get('format_version'))} of this format; here {VERSION} is read"
        )
    fields = {key: value for key, value in content.items() if key != "digests"}
    if found := _misshapen(fields) or _damage(fields, content.get("digests")) or _contradiction(fields):
        raise UserError(f"{path}: {found}; ask whoever made it for another copy")
    if as_text(content).encode() != given:
        raise UserError(f"{path}: not written as `repose record` writes it; ask whoever made it for another copy")
    return File(path, hashlib.sha256(given).hexdigest(), content)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _unpacked(path: Path) -> bytes:
    """Its text. Raises UserError before more than the largest one is in memory."""
    if not path.is_file():
        raise UserError(f"{path}: {'no file' if path.exists() else 'not there'}; name a file of `repose record`")
    if path.stat().st_size > LARGEST_FILE:
        raise UserError(f"{path}: {path.stat().st_size} bytes, a record has at most {LARGEST_FILE}")
    unzip = zlib.decompressobj(wbits=31)  # of gzip
    try:
        given = unzip.decompress(path.read_bytes(), LARGEST_TEXT)
    except zlib.error:
        raise UserError(f"{path}: damaged, or no record; ask whoever made it for another copy") from None
    if unzip.unconsumed_tail:
        raise UserError(f"{path}: more than {LARGEST_TEXT} bytes when unpacked; no record is so large")
    if not unzip.eof or unzip.unused_data:
        raise UserError(f"{path}: damaged: cut short, or more at its end; ask whoever made it for another copy")
    return given


def _misshapen(content: Mapping[str, Any]) -> str | None:
    """Which value is first not what it may be, and how; None if all are."""
    if found := wrong(content, SPECS[content["format"]]):
        return found
    if content["format"] == CHECK:
        return None
    columns = content["columns"]
    if columns[: len(KEYS)] != KEYS or len(set(columns)) != len(columns):
        return f"columns: they are {', '.join(KEYS)}, then metrics, each once"
    kinds = (whole(0, 2**31 - 1), text(300), text(300), digest, *[maybe(number)] * (len(columns) - len(KEYS)))
    for place, row in enumerate(content["pairs"]):
        if not isinstance(row, list) or len(row) != len(kinds):
            return f"pairs[{place}]: no list of {len(kinds)} values"
        for kind, column, value in zip(kinds, columns, row, strict=True):
            if not kind(value):
                return f"pairs[{place}].{column} is {_shown(value)}, which it cannot be"
    return None


def _damage(content: Mapping[str, Any], given: Any) -> str | None:
    """Which part has another digest than the one given; None if none has. content: not misshapen."""
    now = digests(content)
    if not isinstance(given, dict) or given.keys() != now.keys():
        odd = f" ({min(map(ascii, given.keys() ^ now.keys()))[:90]})" if isinstance(given, dict) else ""
        return f"damaged: digests are not those of its parts{odd}"
    changed = next((key for key in now if given[key] != now[key]), None)
    return changed and f"damaged: {changed} has another digest than it was written with"


def _contradiction(content: Mapping[str, Any]) -> str | None:
    return next(_contradictions(content), None) if content["format"] == RECORD else None


def _contradictions(content: Mapping[str, Any]) -> Iterator[str]:
    """Where a record that is not misshapen is at odds with itself, in words."""
    rows = content["pairs"]
    if not rows or len({row[0] for row in rows}) != len(rows):
        yield "pairs: there are none, or one is there twice"
    if pair_list(rows) != content["pair_list"]:
        yield "pair_list: its digest is that of other pairs than those of this record"
    if odd := {end for row in rows for end in row[1:3]} ^ content["images"].keys():
        yield f"images: {_shown(min(odd))} is an image of no pair, or one of a pair without a digest"
    yield from _unlike_their_pairs(content)


def _unlike_their_pairs(content: Mapping[str, Any]) -> Iterator[str]:
    """Scores that are not what the values of their pairs come to."""
    seen = set()
    for row in content["scores"]:
        if (key := (row["step"], row["split"], row["metric"])) in seen:
            yield f"scores: {row['metric']} is there twice"
        seen.add(key)
    of_step = (row for row in content["scores"] if (row["step"], row["split"]) == (content["step"], "test"))
    own = {row["metric"]: row for row in of_step}
    for name, score in own.items():
        low, high = _range(name)
        if score["value"] is not None and not low - 1e-9 <= score["value"] <= high + 1e-9:
            yield f"scores: {name} is {score['value']}, which lies between {low} and {high}"
    if not own:
        yield f"scores: none on test at step {content['step']}"
    for place, column in enumerate(content["columns"][len(KEYS) :], len(KEYS)):
        metric = column.removesuffix(INFLUENCE)
        values = [row[place] for row in content["pairs"] if row[place] is not None]
        if metric not in own:
            yield f"scores: {metric} has values of pairs and no score"
        elif metric == column and f"{metric}{INFLUENCE}" not in content["columns"]:
            mean, score = math.fsum(values) / len(values) if values else None, own[metric]
            if not close(mean, score["value"], 1e-9):
                yield f"scores: {metric} is {score['value']}, but the mean of its pairs is {mean}"
            if (score["n"], score["excluded"]) != (len(values), len(content["pairs"]) - len(values)):
                yield f"scores: {metric} counts {score['n']} pairs, but {len(values)} have a value"
            ends = [end for end in (score["low"], score["value"], score["high"]) if end is not None]
            if any(one > other + 1e-9 for one, other in pairwise(ends)):
                yield f"scores: {metric} is {score['value']}, outside its interval"


def _range(name: str) -> tuple[float, float]:
    """Of a metric's values; any of one that is unknown here."""
    try:
        return metrics.metric(name).range
    except UserError:
        return -math.inf, math.inf


def close(one: float | None, other: float | None, within: float) -> bool:
    """Whether two values differ by no more than `within`, of numbers above 1 by that share; none is like none."""
    if one is None or other is None:
        return one is other
    return abs(one - other) <= within * max(1.0, abs(one), abs(other))
