"""People who fill in a form: what they answer, and the file that they save."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.studies import votes
from pipeline.studies.draw import Group, Judged

Answers = Callable[[Judged | Group], str]  # "real" or "fake" of a picture, the method that is picked of a set


def saved(study: str, rater: str, answers: list) -> bytes:
    """The file of a form, as its script writes it."""
    check = votes.checksum(votes.signed(study, rater, answers))
    return json.dumps({"study": study, "rater": rater, "of": 0, "answers": answers, "check": check}).encode()


def filled(key: Mapping[str, Any], rater: str, answer: Answers) -> bytes:
    """The file of a rater who answered every item."""
    answers = []
    for number, item in enumerate(votes.items_of(key, rater), 1):
        given = answer(item)
        answers.append([number, item.methods.index(given) + 1 if isinstance(item, Group) else given, 700 + number])
    return saved(key["study"], rater, answers)


def key_of(sheets: list, study: str = "s") -> dict[str, Any]:
    """A key as `make` keeps it, once through JSON."""
    raters = {str(number): {"items": sheet.items} for number, sheet in enumerate(sheets, 1)}
    return json.loads(json.dumps({"study": study, "raters": raters}))
