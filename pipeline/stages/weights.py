"""Gather and verify the published weights of one network: data/weights/NET/.

Each file is looked for in this order: `path` in the block weights.NET of params.yaml (your own copy), the folder
$REPOSE_MIRROR, its address (with resume, .work/downloads/). Addresses and digests stand in
pipeline/fetching/networks.py; the digest decides.

Weights that cannot be had stop a run here, before anything long, if a job of params.yaml needs them and has nothing in
their place (`missing_weights` in its block: stop, or seeded random features that mark every number made with them).
Else source.json says "missing" and why. To add them later: set `path` and run this stage again. A file with a wrong
digest is never used.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.core import console, layout, params
from pipeline.core.atomic import atomic_directory
from pipeline.core.errors import UserError
from pipeline.core.settings import setting
from pipeline.fetching import download
from pipeline.fetching.networks import EITHER, may_download, wanted
from pipeline.planning import faults

OF_DATA = {"openpose": "keypoints", "topdown": "keypoints", "schp": "parsing"}  # which data stage reads it


@dataclass(frozen=True)
class Params:
    """Block `weights.NET`."""

    path: str | None = setting(
        "your own copy; where a network has a second file, that lies beside it", None, minLength=1
    )
    download: bool | Literal["papers"] = setting(
        "false: only from path or $REPOSE_MIRROR; papers: downloaded if papers have numbers on a data set that is asked"
        " for, which they have not on synthetic and folder",
        True,
    )


def gather(net: str, block: Params) -> dict[str, Path]:
    """The verified files by their names. Raises download.Unavailable, UserError (wrong digest, no such file)."""
    found: dict[str, Path] = {}
    reasons = []
    for source in wanted(net, block.path, may_download(net, block.download, params.datasets())):
        try:
            found[Path(source.file).name] = download.obtain(source, f"weights.{net}")
            if net in EITHER:
                break
        except download.Unavailable as reason:
            if net not in EITHER:
                raise
            reasons.append(reason)
    if not found:
        details = filter(None, (reason.detail for reason in reasons))
        raise download.Unavailable("; ".join(reason.clause for reason in reasons), "; ".join(details))
    return found


def _stopped(net: str) -> list[faults.Use]:
    """The jobs that stop without the network. Of one that data stages read only these count: data alone can be made."""
    by = faults.stopped_without(params.load()).get(net, [])
    return [use for use in by if net not in OF_DATA or use.job.startswith(OF_DATA[net])]


def run(net: str) -> None:
    """Write `data/weights/NET/`. Raises UserError for a file of the user's that is missing or has a wrong digest, and
    for a network that cannot be had and that a job needs.
    """
    block = params.block(Params, "weights", net)
    with atomic_directory(layout.weights(net)) as partial:
        files = {}
        record, why = {"status": "present", "reason": ""}, ""
        try:
            files = {name: download.place(path, partial / name) for name, path in gather(net, block).items()}
        except download.Unavailable as error:
            record, why = {"status": "missing", "reason": error.clause}, str(error)
            if by := _stopped(net):
                raise UserError(faults.lacking(net, by, error)) from None
        record |= {"net": net, "files": files}
        (partial / "source.json").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    console.say(f"weights {net}: {', '.join(files)}" if files else f"weights {net}: missing ({why})")
