"""What the runs and metrics that params.yaml asks for need: components, human parsing, published networks.

Who needs what by itself stands in params.schema.yaml (`needs`), where `repose schema` writes it from models/ and
pipeline/metrics; so neither engine has to load a network for it.
"""

from functools import cache
from pathlib import Path
from typing import Any

from pipeline.core import layout, params

PARSING = "parsing"
NETWORK_PARSERS = ("repose", "schp")  # the sources of it that take long


def of(name: str) -> list[str]:
    """What a variant, component or metric needs by itself: components, "parsing", published networks."""
    return params.schema().get("needs", {}).get(name, [])


def parts(name: str) -> list[str]:
    """The components that become a part of a variant or component."""
    return params.schema().get("parts", {}).get(name, [])


def components(values: dict[str, Any]) -> list[str]:
    """Every component that a variant can start from, trained or not."""
    return [name for name in next(iter(values["pretrain"].values())) if name != "detector"]


def readers(values: dict[str, Any], dataset: str) -> dict[str, list[str]]:
    """What is needed on a data set -> the jobs that need it, such as {"spatn": ["train synthetic spgnet"]}.

    A component is needed by the variants that start from it, and by `components` where that says true; what it needs
    itself is needed then, too.
    """
    asked = values["components"]
    queue = [(f"train {dataset} {run}", params.variant_of(run)) for _, _, run in params.runs(values)]
    queue += [(f"pretrain {dataset} {name}", name) for name, wanted in asked.items() if wanted is True]
    queue += [(f"reference {dataset}", name) for name in values["reference"][dataset].get("metrics", ())]
    found: dict[str, list[str]] = {}
    known = {name for reader, name in queue if reader.startswith("pretrain ")}
    for reader, name in queue:
        for need in of(name):
            found.setdefault(need, []).append(reader)
            if need in values["pretrain"][dataset] and need not in known:
                known.add(need)
                queue.append((f"pretrain {dataset} {need}", need))
    return found


def wanted(values: dict[str, Any], dataset: str) -> dict[str, bool]:
    """What takes long -> whether it is made: every component, and "parsing"."""
    needed = readers(values, dataset)
    made = {name: name in needed or values["components"].get(name) is True for name in components(values)}
    return made | {PARSING: PARSING in needed}


def is_parsed(values: dict[str, Any], dataset: str) -> bool:
    """Whether the images get label maps: by a network only if somebody reads them, or `always` is true."""
    block = values["parsing"][dataset]
    if block["source"] in NETWORK_PARSERS and not block.get("always"):
        return wanted(values, dataset)[PARSING]
    return block["source"] != "none"


# ---- the files of the stage `needs`


def text(is_wanted: bool) -> str:
    return "true\n" if is_wanted else "false\n"


@cache  # asked for every input of every job
def is_file(path: str) -> bool:
    """Whether the stage writes this path."""
    parts = Path(path).parts
    return len(parts) > 1 and Path(path).parent == layout.needs(parts[1], "").parent


def said(values: dict[str, Any], path: str) -> bool:
    """What such a file says by these values."""
    return wanted(values, Path(path).parts[1])[Path(path).stem]
