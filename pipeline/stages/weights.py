"""Gather and verify the published weights of one network: data/weights/NET/.

Each file is looked for in this order: `path` in the block weights.NET of params.yaml (your own copy), the folder
$REPOSE_MIRROR, its address (with resume, .work/downloads/). Addresses and digests stand in
pipeline/fetching/networks.py; the digest decides.

Weights that cannot be had do not stop the pipeline: source.json says "missing" and why, and each stage that uses the
network decides what to do (`missing_weights` in its block: stop, or seeded random features that mark every number made
with them). To add them later: set `path` and run this stage again. A file with a wrong digest is never used.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.core import console, digests, layout, params
from pipeline.core.atomic import atomic_directory
from pipeline.core.settings import setting
from pipeline.fetching import download
from pipeline.fetching.download import Download
from pipeline.fetching.networks import EITHER, NETS


@dataclass(frozen=True)
class Params:
    """Block `weights.NET`."""

    path: str | None = setting(
        "your own copy; where a network has a second file, that lies beside it", None, minLength=1
    )
    download: bool = setting("false: only from path or $REPOSE_MIRROR", True)


def wanted(net: str, block: Params) -> list[Download]:
    """The files of a network as its block wants them to be looked for."""
    files = [one if block.download else replace(one, url=None) for one in NETS[net]]
    if block.path is None:
        return files
    path = Path(block.path).expanduser()
    if net in EITHER and path.is_file():
        digest = digests.sha256(path)
        files = [one for one in files if digest.startswith(one.sha256)] or files[:1]
    suffix = Path(files[0].file).suffix
    own = [path if one.file.endswith(suffix) else path.with_suffix(Path(one.file).suffix) for one in files]
    return [replace(one, path=str(place)) for one, place in zip(files, own, strict=True)]


def gather(net: str, block: Params) -> dict[str, Path]:
    """The verified files by their names. Raises download.Unavailable, UserError (wrong digest, no such file)."""
    found: dict[str, Path] = {}
    reasons = []
    for source in wanted(net, block):
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


def run(net: str) -> None:
    """Write `data/weights/NET/`. Raises UserError for a file of the user's that is missing or has a wrong digest."""
    block = params.block(Params, "weights", net)
    with atomic_directory(layout.weights(net)) as partial:
        files = {}
        record, why = {"status": "present", "reason": ""}, ""
        try:
            files = {name: download.place(path, partial / name) for name, path in gather(net, block).items()}
        except download.Unavailable as error:
            record, why = {"status": "missing", "reason": error.clause}, str(error)
        record |= {"net": net, "files": files}
        (partial / "source.json").write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    console.say(f"weights {net}: {', '.join(files)}" if files else f"weights {net}: missing ({why})")
