"""What a page was made from: digests of the files behind it, networks' weights, library versions, the revision."""

import hashlib
import json
import subprocess
from collections.abc import Collection, Iterable
from importlib import metadata
from pathlib import Path

from pipeline.core import layout, params, seals
from pipeline.core.digests import sha256

LIBRARIES = (
    "torch", "torchvision", "numpy", "scipy", "scikit-image", "lpips", "pytorch-fid", "opencv-python-headless",
    "openvino", "pyarrow", "pandas", "safetensors", "jinja2",
)  # fmt: skip


def _scored(dataset: str, variants: Iterable[str], components: Iterable[str]) -> list[Path]:
    written = (layout.scores, layout.pair_scores, layout.samples, layout.figures, layout.network)
    also = (path(dataset, component) for component in components for path in written[:2])
    return [path(dataset, variant) for variant in variants for path in written] + [one for one in also if one.exists()]


def _prepared(dataset: str) -> list[Path]:
    stages = (
        layout.images, layout.rejects, layout.keypoints, layout.parsing, layout.pairs, layout.distance_maps
    )  # fmt: skip
    found = [path(dataset) for path in stages] + [layout.pseudo_labels(dataset, rule) for rule in layout.RULES]
    found += [layout.reference(dataset) / "reference.json"]
    return [path for path in found if path.exists()]


def digests(datasets: Iterable[str], scored: Iterable[tuple[str, str]], components: Collection[str]) -> list[dict]:
    """Groups of (path, SHA-256). What `scored` names, by data set and variant, must be there; of components and data
    sets, what is, is listed.
    """
    groups = [("Settings, published numbers and definitions", [layout.PARAMS, layout.PUBLISHED, layout.PROTOCOLS])]
    for dataset in datasets:
        groups.append(
            (f"{dataset}: prepared data (of a folder, the digest of its shards' digests)", _prepared(dataset))
        )
        variants = [variant for where, variant in scored if where == dataset]
        groups.append((f"{dataset}: scores and pictures", _scored(dataset, variants, components)))
    return [
        {"title": title, "files": [(str(path), _digest(path)) for path in paths]} for title, paths in groups if paths
    ]


def _digest(path: Path) -> str:
    """Of params.yaml that of the values that are shown, whatever it says by now."""
    return hashlib.sha256(params.text().encode()).hexdigest() if path == layout.PARAMS else sha256(path)


def _json(path: Path) -> dict | None:
    try:
        return seals.read_json(path)
    except (FileNotFoundError, ValueError):
        return None


def weights(nets: Iterable[str]) -> list[dict]:
    """Of each published network: whether its weights were found, and its files' SHA-256."""
    found = []
    for net in nets:
        source = _json(layout.weights(net) / "source.json")
        if source is not None:
            found.append({"net": net, "status": source["status"], "files": source["files"]})
    return found


def sources(datasets: Iterable[str]) -> list[dict]:
    """Of each data set: its terms, and what its source.json says of the images."""
    found = []
    for dataset in datasets:
        source = _json(layout.raw(dataset) / "source.json")
        if source is not None:
            text = json.dumps(source, indent=1, sort_keys=True, ensure_ascii=False)
            found.append({"name": dataset, "terms": source.get("terms", ""), "text": text})
    return found


def version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"


def _git(*command: str) -> str | None:
    """What git prints of the working directory; None outside a repository, without git, and where it fails."""
    if not Path(".git").exists():
        return None
    try:
        found = subprocess.run(["git", *command], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def revision() -> str | None:
    """The commit that is checked out in the working directory, None outside a repository.

    No input of any stage: a commit does not run the report again. The page therefore calls it the revision at the time
    of writing. Edits that are not committed are not seen.
    """
    return _git("rev-parse", "--verify", "HEAD")


def is_clean() -> bool | None:
    """Whether every file under version control is as that commit has it; None outside a repository."""
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return None if changed is None else not changed
