"""Gather and verify the published weights of one network: data/weights/NET/.

Each file is looked for in this order: `path` in the block weights.NET of params.yaml (your own copy), the folder
$REPOSE_MIRROR, `url` (with resume, .work/downloads/). Its digest in params.yaml decides. Of the files under `either`,
one is enough; those under `files` are all needed.

Weights that cannot be had do not stop the pipeline: source.json says "missing" and why, and each stage that uses the
network decides what to do (`missing_weights` in its block: stop, or seeded random features that mark every number made
with them). To add them later: set `path` and run this stage again. A file with a wrong digest is never used.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.core import console, layout, params
from pipeline.core.atomic import atomic_directory
from pipeline.fetching import download


@dataclass(frozen=True)
class Params:
    """Block `weights.NET`: `files`, all needed, or `either`, of which one is enough; each {path, file, url, sha256}."""

    files: tuple[dict, ...] = ()
    either: tuple[dict, ...] = ()


def gather(block: Params, key: str) -> list[tuple[Mapping, Path]]:
    """The verified files, each with its entry of the block. Raises download.Unavailable, UserError (wrong digest)."""
    if block.files:
        return [(source, download.obtain(source, f"{key}.files.{number}")) for number, source in enumerate(block.files)]
    reasons = []
    for number, source in enumerate(block.either):
        try:
            return [(source, download.obtain(source, f"{key}.either.{number}"))]
        except download.Unavailable as reason:
            reasons.append(reason)
    clauses, details = zip(*((reason.clause, reason.detail) for reason in reasons), strict=True)
    raise download.Unavailable("; ".join(clauses), "; ".join(filter(None, details)))


def run(net: str) -> None:
    """Write `data/weights/NET/`. Raises UserError for a file of the user's that is missing or has a wrong digest."""
    block = Params(**params.load()["weights"][net])
    with atomic_directory(layout.weights(net)) as partial:
        files = {}
        record, why = {"status": "present", "reason": ""}, ""
        try:
            for source, path in gather(block, f"weights.{net}"):
                name = Path(source["file"]).name
                files[name] = download.place(path, partial / name)
        except download.Unavailable as error:
            record, why = {"status": "missing", "reason": error.clause}, str(error)
        record |= {"net": net, "files": files}
        (partial / "source.json").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    console.say(f"weights {net}: {', '.join(files)}" if files else f"weights {net}: missing ({why})")
