"""The losses of a training as curves that DVC plots: the log of every step, thinned to a few hundred points."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from pipeline.core import console, seals
from pipeline.core.atomic import atomic_directory

POINTS = 300  # at most, of each loss term


def _lines(path: Path | None) -> Iterator[dict[str, float] | None]:
    if path is not None and path.exists():
        with path.open(encoding="utf-8", errors="replace") as log:
            yield from map(seals.read_line, log)


def metrics(path: Path | None) -> Iterator[dict[str, float]]:
    """The lines of the metrics log: step, and each loss term by its name; none without a log. Damaged ones are left
    out, with a word.
    """
    damaged = 0
    for values in _lines(path):
        if values is None:
            damaged += 1
        else:
            yield values
    if damaged:
        console.say(f"{path}: damaged lines, left out of the curves: {damaged}; no weight depends on them")


def write(log: Path | None, folder: Path, steps: int = 0) -> None:
    """Write `terms.csv`, `step,name,value`: the mean of each loss term over equal spans of steps, at its last step.

    log: one JSON object a step, as the training loop writes it. Without one, as of a floor, the folder stays empty: DVC
    then draws nothing. steps: of the training as it is asked for; the log goes on where more were made before.
    """
    last = max((line["step"] for line in _lines(log) if line), default=0)  # read twice, not kept: it may be long
    last = min(last, steps)
    span = -(-last // POINTS) or 1
    sums: dict[tuple[int, str], list[float]] = defaultdict(lambda: [0.0, 0])  # span, term -> sum and count
    for line in metrics(log):
        step = line.pop("step")
        if step > last:
            continue
        for name, value in line.items():
            found = sums[(step - 1) // span, name]
            found[0] += value
            found[1] += 1
    rows = [
        f"{min((number + 1) * span, last)},{name},{total / count:.6g}\n"
        for (number, name), (total, count) in sums.items()
    ]
    with atomic_directory(folder, listed=False) as partial:  # DVC plots every file of it
        if rows:
            (partial / "terms.csv").write_text("".join(["step,name,value\n", *rows]), encoding="utf-8")
