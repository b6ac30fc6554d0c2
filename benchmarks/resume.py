"""Kill each long stage with SIGKILL when half of it is done, start it again, and compare with the output that is there.

    python benchmarks/resume.py --project DIR --dataset D [--stages keypoints parsing ...]

DIR is a project folder whose stages have run; it is not changed. The work happens in a scratch copy beside it, whose
inputs are hard links. For each stage the table says how many pieces were finished at the kill, how many the second run
made, how many of the first were made again, and whether the output has the bytes of the uninterrupted one.
"""

import argparse
import filecmp
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent.parent))
from pipeline.core import resume, store
from pipeline.stages import parsing, pseudo_labels

STAGES = {  # stage -> its output under data/D, and the inputs that it reads there
    "keypoints": ("keypoints.parquet", ("raw", "images")),
    "parsing": ("parsing", ("raw", "images", "keypoints.parquet")),
    "pseudo_labels": ("pseudo_labels/equation", ("keypoints.parquet", "parsing")),
    "distance_maps": ("distance_maps", ("images", "keypoints.parquet")),
}


def pieces(work: Path) -> dict[str, int]:
    """Finished pieces of unfinished work, and when each was written; {} while they are being removed."""
    try:
        return {path.name: path.stat().st_mtime_ns for path in work.glob("[cp]*-*.parquet")}
    except FileNotFoundError:
        return {}


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, copy_function=os.link)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)


def same(one: Path, other: Path) -> bool:
    if one.is_file():
        return filecmp.cmp(one, other, shallow=False)
    names = sorted(path.name for path in one.glob("*.parquet"))
    return names == sorted(path.name for path in other.glob("*.parquet")) and all(
        filecmp.cmp(one / name, other / name, shallow=False) for name in names
    )


def trial(project: Path, dataset: str, stage: str, total: int) -> tuple[int, int, int, bool, float, float]:
    """(pieces at the kill, made after it, made twice, equal bytes, seconds before, seconds after)."""
    output, inputs = STAGES[stage]
    scratch = project.parent / f"{project.name}-{stage}-scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for name in ("pipeline", "models", "dvc.yaml", "params.yaml", "params.schema.yaml"):
        (scratch / name).symlink_to((project / name).resolve())
    copy(project / "data/weights", scratch / "data/weights")
    for name in inputs:
        copy(project / "data" / dataset / name, scratch / "data" / dataset / name)
    work = scratch / ".work" / stage / dataset
    command = [sys.executable, "-m", "pipeline", stage, "--dataset", dataset]
    if stage == "pseudo_labels":
        work, command = work / "equation", [*command, "--rule", "equation"]
    seen, start = {}, time.perf_counter()
    with subprocess.Popen(command, cwd=scratch, stderr=subprocess.DEVNULL) as first:
        while len(seen) < total // 2 and first.poll() is None:
            time.sleep(0.02)
            seen = pieces(work)
        first.send_signal(signal.SIGKILL)
    before, start = time.perf_counter() - start, time.perf_counter()
    assert first.returncode == -signal.SIGKILL, f"{stage} ended before it was killed"
    assert not (scratch / "data" / dataset / output).exists(), "an output is there before it is whole"
    at_kill = pieces(work)
    with subprocess.Popen(command, cwd=scratch, stderr=subprocess.DEVNULL) as second:
        last = at_kill
        while second.poll() is None:
            found = pieces(work)
            last = found if len(found) >= len(last) else last
            time.sleep(0.02)
    assert second.returncode == 0, f"{stage} failed when it was started again"
    after = time.perf_counter() - start
    twice = sum(last.get(name, written) != written for name, written in at_kill.items())
    equal = same(project / "data" / dataset / output, scratch / "data" / dataset / output)
    shutil.rmtree(scratch)
    return len(at_kill), len(last.keys() - at_kill.keys()), twice, equal, before, after


def count(project: Path, dataset: str, stage: str) -> int:
    """How many pieces a stage makes: read from what it wrote."""
    output = project / "data" / dataset / STAGES[stage][0]
    files = [output] if output.is_file() else store.parts(output)
    rows = sum(pq.read_metadata(path).num_rows for path in files)
    size = {"keypoints": resume.CHUNK, "parsing": parsing.CHUNK, "pseudo_labels": pseudo_labels.CHUNK}
    return -(-rows // size.get(stage, store.SHARD_ROWS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path())
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    options = parser.parse_args()
    project = options.project.resolve()
    print("| stage | pieces at the kill | made after it | made twice | equal bytes | s before | s after |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for stage in options.stages:
        total = count(project, options.dataset, stage)
        kept, made, twice, equal, before, after = trial(project, options.dataset, stage, total)
        row = (stage, f"{kept} of {total}", made, twice, "yes" if equal else "NO", f"{before:.0f}", f"{after:.0f}")
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
