"""The files that raters saved: checked against the key, and pooled into votes.

The key is what `repose study make` keeps: study, form, methods, and of each rater the items in order, an item being
[method, pair, real, counted] or [pair, [method, ...]] (`draw.Judged` and `draw.Group`).
"""

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from pipeline.studies.draw import Group, Judged

JUDGEMENTS = ("real", "fake")


class Vote(NamedTuple):
    """One answer. kind: judge (said real or fake of a picture) or choose (a method, out of all). method: whose picture
    it was or, of a real one, in whose list it stood; of a choice the one that was picked.
    """

    rater: str
    item: int
    kind: str
    method: str
    pair: int
    real: bool | None
    answer: str
    counted: bool
    ms: int


def checksum(text: str) -> str:
    """FNV-1a in 64 bits, as the page computes it: it tells what was changed by hand or on the way, and is no secret."""
    total = 0xCBF29CE484222325
    for byte in text.encode():
        total = (total ^ byte) * 0x100000001B3 % 2**64
    return f"{total:016x}"


def signed(study: str, rater: str, answers: list) -> str:
    """What the checksum of a file is taken over."""
    return "\n".join([f"{study} {rater}", *(" ".join(map(str, one)) for one in answers)])


def items_of(key: Mapping[str, Any], rater: str) -> list[Judged | Group]:
    return [
        Group(item[0], tuple(item[1])) if len(item) == 2 else Judged(*item) for item in key["raters"][rater]["items"]
    ]


def read(content: bytes, key: Mapping[str, Any]) -> tuple[str, list] | str:
    """The rater and the answers of one file; or why it does not count."""
    try:
        found = json.loads(content)
        study, rater, answers, check = (found[name] for name in ("study", "rater", "answers", "check"))
        whole, known = checksum(signed(study, rater, answers)) == check, rater in key["raters"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "foreign: not a file that a form saves"
    if study != key["study"]:
        return f"foreign: of the study {study}, this is {key['study']}"
    if not known:
        return f"foreign: this study has no rater {rater}"
    if not whole or (reason := _implausible(answers, items_of(key, rater))):
        return "edited: it is not as the form saved it" + (f" ({reason})" if whole else "")
    if len(answers) < len(key["raters"][rater]["items"]):
        return f"unfinished: {len(answers)} of {len(key['raters'][rater]['items'])} answers"
    return rater, answers


def _implausible(answers: list, items: list[Judged | Group]) -> str:
    """What no form saves, however far the rater came."""
    if len(answers) > len(items):
        return "more answers than items"
    for place, (answer, item) in enumerate(zip(answers, items, strict=False), 1):
        allowed = range(1, len(item.methods) + 1) if isinstance(item, Group) else JUDGEMENTS
        if len(answer) != 3 or answer[0] != place or answer[1] not in allowed:
            return f"answer {place}"
        if not isinstance(answer[2], int) or answer[2] < 0:
            return f"time of answer {place}"
    return ""


def gather(files: Mapping[str, bytes], key: Mapping[str, Any]) -> tuple[dict[str, list], list[tuple[str, str]]]:
    """The answers of each rater who finished; and the files that do not count: (name, why).

    Of equal files of one rater the first counts. Of two that differ neither does: nobody knows whose answers they are.
    """
    finished: dict[str, dict[str, list]] = defaultdict(dict)
    left_out = []
    for name, content in sorted(files.items()):
        found = read(content, key)
        if isinstance(found, str):
            left_out.append((name, found))
        else:
            finished[found[0]][name] = found[1]
    counted = {}
    for rater, by_name in finished.items():
        first, *others = by_name
        if all(by_name[name] == by_name[first] for name in others):
            counted[rater] = by_name[first]
            left_out += [(name, f"duplicate: of {first}") for name in others]
        else:
            why = f"duplicate: {len(by_name)} different files of rater {rater}; keep the one that counts"
            left_out += [(name, why) for name in by_name]
    return dict(sorted(counted.items())), sorted(left_out)


def pool(answers: Mapping[str, list], key: Mapping[str, Any]) -> list[Vote]:
    """The votes of all raters, in the order in which they were given."""
    votes = []
    for rater, given in answers.items():
        for (number, answer, ms), item in zip(given, items_of(key, rater), strict=True):
            if isinstance(item, Group):
                method = item.methods[answer - 1]
                votes.append(Vote(rater, number, "choose", method, item.pair, None, "best", True, ms))
            else:
                shown = item.method, item.pair, item.real
                votes.append(Vote(rater, number, "judge", *shown, answer, item.counted, ms))
    return votes
