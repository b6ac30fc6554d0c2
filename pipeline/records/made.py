"""What a record says of a method that was scored here: what the stages wrote, and what its author states."""

import hashlib
import os
import platform
import tomllib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core import citations, digests, graph, layout, params, schema, store
from pipeline.core.errors import UserError
from pipeline.loading import checkpoints
from pipeline.metrics import metric
from pipeline.planning.machine import machine as this_machine
from pipeline.records import form
from pipeline.report import provenance
from pipeline.tables.inputs import Run, outdated, read_network, read_runs, reference, starts

LIBRARIES = ("torch", "numpy", "scipy", "scikit-image", "lpips", "pytorch-fid", "opencv-python-headless", "openvino")


@dataclass(frozen=True)
class Stated:
    """What only the author knows. Of a variant that was trained here the last six are known, and None."""

    author: str | None = None
    licence: str | None = None
    bibtex: str | None = None
    code: str = ""  # where the method's code is, and which version of it drew the images
    training_set: str | None = None
    pretraining: tuple[str, ...] = ()
    target_parsing: bool | None = None  # whether the method was given the true target's
    samples: int = 1  # images drawn of a pair, of which one was kept
    parameters: int | None = None
    seconds: float | None = None  # a picture
    peak_memory: int | None = None  # bytes


def find(dataset: str, name: str, outside: bool) -> Run:
    """The variant, or the method from elsewhere, by the checkpoint that stands for it. Raises UserError if it has no
    scores by the present reference.
    """
    by = params.load()["tables"]["choose_by"]
    run = read_runs(by).get((dataset, name))
    if run is not None and (run.kind == "outside") == outside and run.kind != "component":
        return run
    if renewed := outdated().get((dataset, name)):
        raise UserError(f"{name} was scored by another reference than {dataset} has now; {renewed}")
    if outside:
        command = f'repose score --dataset {dataset} --images FOLDER --name "{name}"'
    else:
        command = f"repose score --dataset {dataset} --variant {name}"
    raise UserError(f"{name} is not scored on {dataset}; run: {command}")


def record(run: Run, stated: Stated, cost: dict[str, Any]) -> dict[str, Any]:
    """The content of its record, as `form.write` takes it.

    cost: seconds, peak_memory, device, as they were measured, or None each. Raises UserError if scores or checkpoints
    are not those of one another, or were made before images had digests.
    """
    dataset, step = run.dataset, int(run.chosen["step"])
    columns, rows = _pairs(run, step)
    content = {
        "format": form.RECORD,
        "format_version": form.VERSION,
        "method": run.name,
        "kind": run.kind,
        "dataset": dataset,
        "step": step,
        "author": stated.author,
        "licence": stated.licence,
        "bibtex": stated.bibtex,
        "code": code(stated.code),
        "machine": machine(),
        "reference": _reference(dataset),
        "pair_list": form.pair_list(rows),
        "images": stored_images(dataset, {end for row in rows for end in row[1:3]}),
        "scores": _scores(run),
        "columns": columns,
        "pairs": rows,
    }
    return content | (_of_outside(stated) if run.kind == "outside" else _of_variant(run, stated, cost))


def _of_outside(stated: Stated) -> dict[str, Any]:
    cost = {"seconds": stated.seconds, "peak_memory": stated.peak_memory, "device": None}
    return {
        "cost": cost | {"parameters": stated.parameters, "macs": None},
        "saw": {
            "training_set": stated.training_set,
            "pretraining": list(stated.pretraining),
            "target_parsing": stated.target_parsing,
            "samples": stated.samples,
        },
        "checkpoints": {},
    }


def _of_variant(run: Run, stated: Stated, cost: dict[str, Any]) -> dict[str, Any]:
    network, folder = read_network(run.dataset, run.name), layout.checkpoints(run.dataset, run.name)
    trained, step = network["trained"], int(run.chosen["step"])
    if checkpoints.meta(folder) != trained:
        command = f"repose score --dataset {run.dataset} --variant {run.name}"
        raise UserError(f"{folder}: not what was scored; run: {command}")
    features = trained.get("features")
    looked = [f"losses look through {features['net']}, {features['provenance']} weights"] if features else []
    parts = {f"part-{name}": one["checkpoint"].removeprefix("sha256:") for name, one in _parts(trained).items()}
    return {
        "bibtex": stated.bibtex or citations.of_variant(run.name),
        "cost": cost | {"parameters": network["parameters"], "macs": network["macs"]},
        "saw": {
            "training_set": f"{run.dataset}, split train" if run.kind == "trained" else "none: a floor",
            "pretraining": [*(starts(trained) if run.kind == "trained" else ()), *looked],
            "target_parsing": network["given_target_parsing"],
            "samples": 1,
        },
        "checkpoints": {"generator": digests.sha256(checkpoints.path(folder, step)), **parts},
    }


def _parts(trained: dict[str, Any]) -> dict[str, dict]:
    """The components that it started from, of which the meta.json says which checkpoint."""
    return {name: one for name, one in trained.get("components", {}).items() if "checkpoint" in one}


def _reference(dataset: str) -> dict[str, Any]:
    now = reference(dataset)
    detector = now["detector"]
    return {
        "sha256": now["sha256"],
        "height": now["height"],
        "width": now["width"],
        "detector": detector["name"],
        "instruments": instruments(now),
        "versions": now["versions"],
        "forms": now["forms"],
    }


def instruments(described: dict[str, Any]) -> dict[str, str]:
    """Each network that metrics look through, and the joint detector, by the digest of what a reference says of it."""
    return {
        "joints": form.sha256(described["detector"]),
        **{name: form.sha256(entry) for name, entry in described["networks"].items()},
    }


def used_by(name: str, of_reference: dict[str, str]) -> dict[str, str]:
    """Those of `instruments` that a metric needs. Raises UserError for an unknown metric."""
    return {need: of_reference[need] for need in metric(name).needs if need in of_reference}


def _scores(run: Run) -> list[dict[str, Any]]:
    """Every row of its scores, without what holds for all."""
    keys = ("step", "split", "metric", "protocol", "version", "value", "low", "high", "n", "excluded", "ceiling",
            "higher_is_better", "marks", "resamples")  # fmt: skip
    rows = store.read_table(run.pairs.with_name("scores.parquet")).select(keys).to_pylist()
    return [{**row, "marks": row["marks"] or []} for row in rows]


def _pairs(run: Run, step: int) -> tuple[list[str], list[list]]:
    """The columns and rows of the test pairs at a step. Raises UserError where images have no digest."""
    table = store.read_table(run.pairs, filters=[("step", "=", step), ("split", "=", "test")]).sort_by("pair_index")
    if schema.IMAGE_DIGEST not in table.column_names:
        raise UserError(f"{run.pairs}: written before images had digests; score {run.name} again")
    known = {metric for metric, row in run.test.items() if row["value"] == row["value"]}
    keys = ["pair_index", "source_id", "target_id", schema.IMAGE_DIGEST]
    metrics = [name for name in table.column_names if name.removesuffix(schema.INFLUENCE) in known]
    rows = zip(*(table[name].to_pylist() for name in (*keys, *metrics)), strict=True)
    return [*form.KEYS, *metrics], [list(row) for row in rows]


def stored_images(dataset: str, ids: set[str]) -> dict[str, str]:
    """Image id -> SHA-256 of its file's bytes, which are kept as they came."""
    rows = store.iter_rows(layout.images(dataset), ["image_id", "image"])
    return {
        row["image_id"]: hashlib.sha256(row["image"]["bytes"]).hexdigest() for row in rows if row["image_id"] in ids
    }


def code(method: str = "") -> dict[str, Any]:
    """Which code packed, or checked: `scoring` is a digest of pipeline/ and models/ as Python parses them."""
    project = tomllib.loads((digests.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lock = digests.ROOT / "requirements.lock"
    return {
        "version": project["project"]["version"],
        "revision": provenance.revision(),
        "clean": provenance.is_clean(),
        "scoring": form.sha256(digests.code(graph.CODE)),
        "lock": digests.sha256(lock) if lock.exists() else None,
        "method": method,
    }


def machine() -> dict[str, Any]:
    """The one that this runs on. memory: bytes."""
    here, memory, processor = this_machine(), None, platform.processor()
    with suppress(OSError, ValueError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "processor": processor,
        "cores": here.cores,
        "memory": memory,
        "gpus": [f"{name}, {size:.0f} GiB" for name, size in here.gpus],
        "libraries": dict(_versions(LIBRARIES)),
    }


def _versions(libraries: Iterable[str]) -> Iterable[tuple[str, str]]:
    return ((library, provenance.version(library)) for library in libraries)
