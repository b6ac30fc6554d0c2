"""What the two engines wrote down about how an output was made, read without starting either.

Snakemake keeps a record of each output in .snakemake/metadata/, DVC one of each job in dvc.lock. Each is compared with
what is there now by its engine's own rule, but for one thing: the bytes of prepared data are never read, so that this
takes no longer for a large data set. A change of such bytes shows as a newer file (Snakemake) or another size (DVC).
No engine promises the form of its records, so their version is looked at first.
"""

import ast
import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.core import digests, layout, needs, yaml_file
from pipeline.core.errors import UserError
from pipeline.core.graph import CODE_KEY, Job, Writers, code_of_data_set, key_of

SNAKEMAKE = Path(".snakemake")
DVC_LOCK = Path("dvc.lock")
TIMESTAMP = ".snakemake_timestamp"  # Snakemake's own time of a folder; no part of the data
IGNORED = (TIMESTAMP, "__pycache__", ".*.lock", ".*.partial", ".*.old")  # as in .dvcignore


def why_again(job: Job, writers: Writers, lock: dict[str, dict]) -> list[str] | None:
    """Why its engine would run a job again whose outputs exist; [] if it would not, None if neither has a record.

    Its engine is Snakemake if the outputs have the very times that it wrote down, else DVC, if it has a record.
    writers: of all jobs; lock: of `read_lock`.
    """
    times = {output: record["endtime"] for output, record in zip(job.outputs, _records(job), strict=False)}
    if times and all(_modified(Path(output)) == time for output, time in times.items()):
        return by_snakemake(job, writers)
    recorded = by_dvc(job, writers, lock)
    return by_snakemake(job, writers) if recorded is None else recorded


# ---- Snakemake


def _entry(kind: str, output: str) -> Path:
    return SNAKEMAKE / kind / urlsafe_b64encode(output.encode()).decode()


def _modified(path: Path) -> float:
    stamp = path / TIMESTAMP
    return (stamp if stamp.exists() else path).stat().st_mtime


def _known(version: object, of: Path, known: object, other: str) -> None:
    if version != known:
        raise UserError(f"{of} is of version {version}, and status can read {known} only; `{other}` tells what is done")


def _records(job: Job) -> list[dict]:
    """Of its outputs; [] unless every one has a record. Raises UserError for records of an unknown version."""
    try:
        found = [json.loads(_entry("metadata", output).read_text(encoding="utf-8")) for output in job.outputs]
    except (OSError, ValueError):
        return []
    for record in found:
        _known(record.get("record_format_version"), SNAKEMAKE / "metadata", 6, "snakemake --dry-run")
    return found


def by_snakemake(job: Job, writers: Writers) -> list[str] | None:
    """Why Snakemake would run the job again; [] if it would not, None if it has no record."""
    records = _records(job)
    if not records:
        return None
    if any(_entry("incomplete", output).exists() for output in job.outputs):
        return ["Snakemake did not see it end"]
    oldest = min(_modified(Path(output)) for output in job.outputs)
    return list(dict.fromkeys(why for record in records for why in _differences(job, record, oldest, writers)))


def _differences(job: Job, record: dict, oldest: float, writers: Writers) -> Iterator[str]:
    if record["shellcmd"] != job.command:
        yield "its command changed"
    recorded = next((value for value in map(ast.literal_eval, record["params"]) if isinstance(value, dict)), {})
    for key, value in job.deciding.items():
        if key not in recorded or recorded[key] != value:
            yield f"{layout.PARAMS}: {key} changed" if key in job.params else f"{key} changes"
    for name in sorted(set(writers.files(job)) - set(record["input"])):
        yield f"{name} is new"
    for name in sorted(set(record["input"]) - set(writers.files(job))):
        yield f"{name} is gone"
    for name in record["input"]:
        path = Path(name)  # gone is no change: Snakemake makes again only what it is asked for
        if path.exists() and _modified(path) > oldest and _sha256(path) != record["input_checksums"].get(name, ""):
            yield f"{name} changed"


def _sha256(path: Path) -> str | None:
    if path.is_dir() or path.stat().st_size > 1e6:  # Snakemake keeps no digest of these
        return None
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


# ---- DVC


def read_lock() -> dict[str, dict]:
    """Command -> its entry in dvc.lock; nothing if there is no such file, or an empty one. Raises UserError for an
    unknown version.
    """
    lock = yaml_file.read(DVC_LOCK) if DVC_LOCK.exists() else None
    if not lock:
        return {}
    _known(lock.get("schema"), DVC_LOCK, "2.0", "dvc status")
    return {entry["cmd"]: entry for entry in lock["stages"].values()}


def by_dvc(job: Job, writers: Writers, lock: dict[str, dict]) -> list[str] | None:
    """Why DVC would run the job again; [] if it would not, None if it has no record."""
    entry = lock.get(job.command)
    if entry is None:
        return None
    recorded = {key_of(file, key): v for file, own in entry.get("params", {}).items() for key, v in own.items()}
    found = [f"{layout.PARAMS}: {k} changed" for k, v in job.params.items() if k not in recorded or recorded[k] != v]
    written = {
        out["path"]: out["md5"]
        for other in writers.before(job)
        for out in lock.get(other.command, {"outs": []})["outs"]
    }
    deps, inputs = {dep["path"]: dep for dep in entry["deps"]}, job.inputs
    if made_by := recorded.get(f"{CODE_KEY}.{job.axes.get('dataset')}"):
        folders = code_of_data_set(job.axes["dataset"])
        now, inputs = digests.code(folders), [path for path in inputs if path not in folders]
        found += [f"{path} changed" for path in sorted({*now, *made_by}) if now.get(path) != made_by.get(path)]
    found += [f"{path} is new" for path in inputs if path not in deps]
    for path in (path for path in inputs if path in deps):
        if not Path(path).exists():
            found.append(f"{path} is gone")
        elif not _as_recorded(path, deps[path], written):
            found.append(f"{path} changed")
    found += [
        f"{path} changes"
        for path, says in job.needed.items()
        if Path(path).exists() and Path(path).read_text(encoding="utf-8") != needs.text(says)
    ]
    found += [
        f"{out['path']} is not what DVC wrote" for out in entry["outs"] if _size(Path(out["path"])) != out["size"]
    ]
    return found


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (_files(path) if path.is_dir() else [path]))


def _files(path: Path) -> Iterator[Path]:
    """Those below a folder that DVC counts."""
    for file in path.rglob("*"):
        parts = file.relative_to(path).parts
        if file.is_file() and not any(fnmatchcase(part, name) for part in parts for name in IGNORED):
            yield file


def _as_recorded(path: str, dep: dict, written: dict[str, str]) -> bool:
    """Whether an input is what its entry says. written: the digest of each output of other jobs, by their entries."""
    if path in written:
        return written[path] == dep["md5"]
    below = {out.removeprefix(f"{path}/"): md5 for out, md5 in written.items() if out.startswith(f"{path}/")}
    if any(md5.endswith(".dir") for md5 in below.values()):  # a folder of prepared folders: data/
        return _size(Path(path)) == dep["size"]
    return (_md5_of_folder(below) if below else _md5(Path(path))) == dep["md5"]


def _md5(path: Path) -> str:
    if not path.is_dir():
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    return _md5_of_folder({file.relative_to(path).as_posix(): _md5(file) for file in _files(path)})


def _md5_of_folder(files: dict[str, str]) -> str:
    """DVC's digest of a folder, from the digests of its files."""
    listed = [{"md5": digest, "relpath": name} for name, digest in files.items()]
    listed.sort(key=lambda file: file["relpath"])
    text = json.dumps(listed, sort_keys=True)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() + ".dir"
