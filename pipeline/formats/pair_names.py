"""How files of generated images are called: by source and target, in the ways of the field's main code bases."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.core.errors import UserError

MIDDLES = ("_", "___", "_2_", "_to_")
PATTERNS = tuple(f"{{from}}{middle}{{to}}{end}" for middle in MIDDLES for end in ("", "_vis"))
SEVERAL = -1  # a name's position if it stands for more than one pair


def names_of(pairs: Sequence[tuple[str, str]], pattern: str | None) -> dict[str, int]:
    """Every file name (without ending) that spells out one of `pairs`, (source id, target id) -> its position there, or
    SEVERAL. None by a pattern of {index}, which is for `numbering`.

    Raises UserError for a pattern with other fields than {from} and {to}, {to}, or {index}.
    """
    fields = set(re.findall(r"{(\w*)}", pattern or ""))
    if pattern is not None and fields not in ({"from", "to"}, {"to"}, {"index"}):
        raise UserError(
            f'--pattern {pattern!r}: it needs {{from}} and {{to}}, {{to}} or {{index}}, as in "{{from}}-{{to}}_fake"'
        )
    names: dict[str, int] = {}
    for position, both in enumerate(pairs if fields != {"index"} else ()):
        for one, other in itertools.product(*({name, Path(name).stem} for name in both)):
            for form in PATTERNS if pattern is None else (pattern,):
                name = form.replace("{from}", one).replace("{to}", other)
                names[name] = position if names.get(name, position) == position else SEVERAL
    return names


def file_names(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """FROM_2_TO_vis.png of each pair, (source id, target id), without the images' extensions where that tells all pairs
    apart. Raises UserError where no name does: for a pair that is listed twice.
    """
    known, found = names_of(pairs, None), []
    for position, (source, target) in enumerate(pairs):
        forms = f"{Path(source).stem}_2_{Path(target).stem}_vis", f"{source}_2_{target}_vis"
        name = next((form for form in forms if known[form] == position), None)
        if name is None:
            raise UserError(f"{forms[1]} would be the image of two pairs; no name tells them apart")
        found.append(f"{name}.png")
    return found
