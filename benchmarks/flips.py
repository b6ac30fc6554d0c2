"""Flip single bits of a finished project's files, one at a time, and count what their readers make of each.

    python benchmarks/flips.py --project DIR --dataset D [--flips 800] [--seed 0]
    python benchmarks/flips.py --project DIR --cost

DIR is a project whose stages have run; the work happens on copies of its files. For every kind of file the table says
how many flips were tried and how many were

  seen      the reader stopped with a line that names the file, or left out what is damaged and said so
  harmless  the reader's values are those of the whole file
  silent    the values are others, and nothing was said
  crashed   anything else, such as a traceback

Each file is read as the stages read it, by the same functions. Of Parquet, half of the flips go into the last 4 KiB:
the footer.

With --cost it says instead what the seals take: for every job of the project, the seconds in which this machine digests
its inputs once (to check them) and its outputs twice (a seal in the file, a line in the list), beside its wall time by
its log. Jobs of less than a second are in the sum alone.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))
from pipeline.core import console, digests, graph, layout, params, seals, store
from pipeline.core.errors import UserError

OUTCOMES = ("seen", "harmless", "silent", "crashed")
FOOTER = 4096


class Kind(NamedTuple):
    """A kind of file: which ones, how one is read as values that can be compared, and how many last bytes get half of
    the flips.
    """

    files: list[Path]
    read: Callable[[Path], Any]
    tail: int = 0


def table(path: Path) -> Any:
    """A table, or all shards of the folder that a shard is in, row groups and metadata included."""
    found = store.read_table(path.parent if path.name.startswith("part-") else path)
    return found, found.schema.metadata


def members(path: Path) -> Any:
    """What is in an archive, as a stage that is given its folder finds it."""
    import zipfile

    seals.check_all(path.parent)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def text(path: Path) -> Any:
    seals.check_all(path.parent)
    return path.read_bytes()


def checkpoint(path: Path) -> Any:
    from pipeline.loading import checkpoints

    network, meta = checkpoints.load(path.parent, int(path.stem.removeprefix("step-")))
    return {name: value.numpy().tobytes() for name, value in network.state_dict().items()}, meta


def statistics(path: Path) -> Any:
    from pipeline.scoring import protocol

    found = protocol.read(path.parts[-3])
    return found.described, {name: repr(protocol._flat({name: value})) for name, value in found.real.items()}


def state(path: Path) -> Any:
    from pipeline.training import states

    return repr(states.load(path.parent))


def log(path: Path) -> Any:
    from pipeline.training import losses

    return list(losses.metrics(path))


def kinds(dataset: str) -> dict[str, Kind]:
    """Of the project that is the working folder."""
    data, scores, runs = Path("data") / dataset, Path("reports/scores") / dataset, Path("runs") / dataset
    texts = [
        layout.raw(dataset) / "source.json",
        layout.scored_by(dataset),
        layout.reference(dataset) / "reference.json",
        *scores.glob("*/network.json"),
        *runs.glob("*/checkpoints/meta.json"),
        *Path(".work").glob(f"*/{dataset}/*/belongs.json"),
    ]
    parquet = [*data.glob("*.parquet"), *data.glob("*/part-*.parquet"), *scores.glob("*/*.parquet")]
    return {
        "Parquet": Kind(parquet, table, FOOTER),
        "checkpoints (safetensors)": Kind(sorted(runs.glob("*/checkpoints/step-*.safetensors")), checkpoint),
        "statistics (safetensors)": Kind([*layout.reference(dataset).glob("*.safetensors")], statistics),
        "state.pt": Kind(sorted(Path(".work").glob(f"*/{dataset}/*/state.pt")), state),
        "JSON": Kind([path for path in texts if path.exists()], seals.read_json),
        "JSONL": Kind(sorted(Path("logs").glob(f"*/{dataset}-*.jsonl")), log),
        "zip": Kind(sorted(layout.raw(dataset).glob("*.zip")), members),
        "CSV": Kind([*layout.raw(dataset).glob("*.csv"), *layout.TABLES.glob("*.csv")], text),
    }


def outcome(path: Path, read: Callable[[Path], Any], whole: Any, said: list[str]) -> str:
    """What becomes of a flipped file whose reader gave `whole` before."""
    said.clear()
    try:
        found = read(path)
    except UserError:
        return "seen"
    except Exception as error:
        if type(error).__name__ == "Unfit":  # of a state: it is set aside, with a line
            return "seen"
        print(f"{path}: {type(error).__name__}: {error}", file=sys.stderr)
        return "crashed"
    return "harmless" if found == whole else "seen" if said else "silent"


def count(kind: Kind, flips: int, chance: random.Random) -> Counter[str]:
    """Outcomes of so many flips, over the files of a kind in turn."""
    found: Counter[str] = Counter()
    said: list[str] = []
    console.say, before = said.append, console.say
    try:
        for number, path in enumerate(kind.files):
            data, whole = path.read_bytes(), kind.read(path)
            for flip in range(number, flips, len(kind.files)):
                first = max(0, len(data) - kind.tail) if kind.tail and flip // len(kind.files) % 2 else 0
                damaged = bytearray(data)
                damaged[chance.randrange(first, len(data))] ^= 1 << chance.randrange(8)
                _put(path, damaged)
                found[outcome(path, kind.read, whole, said)] += 1
            _put(path, data)
    finally:
        console.say = before
    return found


def _put(path: Path, data: bytes) -> None:
    """A file as it would be found by the next process."""
    path.write_bytes(data)
    digests._known.clear()
    seals._without.cache_clear()


def rows(dataset: str, flips: int, seed: int) -> Iterator[tuple[str, Counter[str]]]:
    for name, kind in kinds(dataset).items():
        if kind.files:
            yield name, count(kind, flips, random.Random(f"{seed} {name}"))


def wall(job: graph.Job) -> float | None:
    """Seconds that a job took, by the last line of its log."""
    lines = job.log.read_text(encoding="utf-8").splitlines() if job.log.exists() else []
    return float(lines[-1].split()[1]) if lines and lines[-1].startswith("wall ") else None


def costs() -> Iterator[tuple[str, float, float]]:
    """Job, its wall time and that of its seals, in seconds, of the project that is the working folder."""
    jobs = graph.jobs(params.load())
    outputs = {path for job in jobs for path in job.outputs}
    for job in jobs:
        took, started = wall(job), time.perf_counter()
        for path in [*outputs.intersection(job.inputs), *job.outputs, *job.outputs]:
            digests._known.clear()
            if Path(path).exists():
                digests.sha256(Path(path))
        if took is not None:
            yield str(job), took, time.perf_counter() - started


def print_costs() -> None:
    found = sorted(costs(), key=lambda row: row[2] / max(row[1], 1.0))
    print("| job | wall, s | seals, s | share |\n|---|---:|---:|---:|")
    all_of_it = "all jobs", sum(row[1] for row in found), sum(row[2] for row in found)
    for name, took, sealed in [all_of_it, *[row for row in found[::-1] if row[1] >= 1][:8]]:
        print(f"| {name} | {took:,.1f} | {sealed:.3f} | {sealed / took:.2%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--flips", type=int, default=800, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cost", action="store_true", help="what the seals take")
    given = parser.parse_args()
    if given.cost:
        with chdir(given.project):
            print_costs()
        return
    graph.how_to_make = lambda path: "run: the command"  # what a line ends with; to find it takes longer than the rest
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("data", "runs", "reports", "logs", ".work", "params.yaml", "params.schema.yaml", "dvc.yaml"):
            source = given.project / name
            copy = shutil.copytree if source.is_dir() else shutil.copy2
            copy(source, Path(scratch) / name)
        with chdir(scratch):
            print("| kind | tried | " + " | ".join(OUTCOMES) + " |")
            print("|---|---:|" + "---:|" * len(OUTCOMES))
            total: Counter[str] = Counter()
            for name, found in rows(given.dataset, given.flips, given.seed):
                total += found
                numbers = " | ".join(f"{found[one]:,}" for one in OUTCOMES)
                print(f"| {name} | {found.total():,} | {numbers} |", flush=True)
            print(f"| all | {total.total():,} | " + " | ".join(f"{total[one]:,}" for one in OUTCOMES) + " |")


if __name__ == "__main__":
    main()
