"""The losses of a training as curves that DVC plots: the log of every step, thinned to a few hundred points."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from pipeline.core.atomic import atomic_directory

POINTS = 300  # at most, of each loss term


def _steps(log: Path | None) -> Iterator[dict[str, float]]:
    if log is not None and log.exists():
        with log.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def write(log: Path | None, folder: Path) -> None:
    """Write `terms.csv`, `step,name,value`: the mean of each loss term over equal spans of steps, at its last step.

    log: one JSON object a step, as the training loop writes it. Without one, as of a floor, the folder stays empty: DVC
    then draws nothing.
    """
    last = max((line["step"] for line in _steps(log)), default=0)
    span = -(-last // POINTS) or 1
    sums: dict[tuple[int, str], list[float]] = defaultdict(lambda: [0.0, 0])  # span, term -> sum and count
    for line in _steps(log):
        step = line.pop("step")
        for name, value in line.items():
            found = sums[(step - 1) // span, name]
            found[0] += value
            found[1] += 1
    rows = [
        f"{min((number + 1) * span, last)},{name},{total / count:.6g}\n"
        for (number, name), (total, count) in sums.items()
    ]
    with atomic_directory(folder) as partial:
        if rows:
            (partial / "terms.csv").write_text("".join(["step,name,value\n", *rows]), encoding="utf-8")
