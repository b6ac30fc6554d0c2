"""What others set: environment variables, on a cluster often to nothing or to a list, and the home folder."""

import os
import re
from pathlib import Path

from pipeline.core.errors import UserError


def number(name: str, default: int) -> int:
    """The whole number, 0 or more, that a variable holds, of a list ("2,1") the first; `default` if it holds none."""
    found = re.match(r"\s*(\d+)\s*(,|$)", os.environ.get(name, ""))
    return int(found[1]) if found else default


def is_on(name: str) -> bool:
    """Whether a switch is set to anything but nothing, 0, no, off or false."""
    return os.environ.get(name, "").strip().lower() not in ("", "0", "no", "off", "false")


def processes() -> int:
    """How many processes make up this run: those that torchrun started."""
    return max(1, number("WORLD_SIZE", 1))


def rank() -> int:
    """This process's number among them; 0 of a process alone, whatever a cluster's RANK counts."""
    return number("RANK", 0) if processes() > 1 else 0


def path(text: str) -> Path:
    """A path as the user writes it: `~` is the home folder. Raises UserError where there is none."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"{text}: there is no home folder (HOME is not set); write the whole path") from None
