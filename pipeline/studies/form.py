"""A rater's form: one HTML page, with its pictures inside or in a folder beside it, that tells nothing of the key.

Pictures have numbers in the order in which they are shown and, padded with zeros behind their end, one size in bytes:
neither name, type nor size says whose a picture is.
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.studies.draw import Form

TEMPLATE = Path(__file__).with_name("form.html.j2")
KIND = "webp"  # of all pictures
SECONDS = {"judge": 3, "choose": 12}  # about how long an item takes a rater


class Shown(NamedTuple):
    """The pictures of one set, encoded: what is given, by its name on the page, and what there is to choose from."""

    given: Mapping[str, bytes]
    options: Sequence[bytes]


class Words(NamedTuple):
    """What the page calls the real pictures, and on whose terms they are shown."""

    real: str  # in the plural
    owner: str  # of the licence; "" where nothing has to be said
    terms: str
    address: str | None


def page(
    study: str,
    rater: str,
    form: Form,
    blocks: Sequence[Sequence[bytes]],
    groups: Sequence[Shown],
    words: Words,
    folder: str | None,
) -> tuple[str, dict[str, bytes]]:
    """The page, and the files of its `folder` by name: none if the pictures are to be in the page (folder None).

    blocks, groups: the encoded pictures of a `draw.Sheet`, in its order.
    """
    pictures: list[bytes] = []

    def number(picture: bytes) -> int:
        pictures.append(picture)
        return len(pictures) - 1

    parts: list[dict[str, Any]] = [
        {"kind": "judge", "warm_up": form.warm_up, "items": [{"picture": number(one)} for one in block]}
        for block in blocks
    ]
    if groups:
        items = [
            {
                "given": [[name, number(picture)] for name, picture in group.given.items()],
                "options": [number(picture) for picture in group.options],
            }
            for group in groups
        ]
        parts.append({"kind": "choose", "warm_up": 0, "items": items})
    size = max(map(len, pictures))
    padded = [picture.ljust(size, b"\0") for picture in pictures]
    if folder is None:
        sources = [f"data:image/{KIND};base64,{base64.b64encode(one).decode()}" for one in padded]
        beside = {}
    else:
        names = [f"{place:04d}.{KIND}" for place in range(len(padded))]
        sources, beside = [f"{folder}/{name}" for name in names], dict(zip(names, padded, strict=True))
    data = {"study": study, "rater": rater, "seconds": form.seconds, "parts": parts, "pictures": sources}
    return _render(data, form, words, folder), beside


def _render(data: Mapping[str, Any], form: Form, words: Words, folder: str | None) -> str:
    from jinja2 import Environment, StrictUndefined

    counts = {kind: sum(len(part["items"]) for part in data["parts"] if part["kind"] == kind) for kind in SECONDS}
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    return template.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        data=data,
        form=form,
        counts=counts,
        minutes=max(1, round(sum(SECONDS[kind] * count for kind, count in counts.items()) / 60)),
        options=len(data["parts"][-1]["items"][0].get("options", ())),
        words=words,
        folder=folder,
    )
