"""One side of a comparison of two commits, in a process of its own: `benchmarks.beside` starts it.

Networks, losses and loop are those of the working folder, a checkout of either commit, so nothing is used here that one
of the two lacks. The first argument is JSON: what to train (`Task`). Each line of standard input asks for one step, and
is answered by a line of JSON: the processor seconds that it took, its loss terms, and the process's peak in MiB.
"""

import json
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import models
from models.layers import features as feature_nets
from models.variants import COMPONENTS, VARIANTS, Batch
from pipeline.loading import devices
from pipeline.training import loop


@dataclass(frozen=True)
class Task:
    """An entry, and how it is trained. data: an .npz with images uint8 (N, 3, H, W), joints (N, 18, 2), valid (N, 18),
    labels uint8 (N, H, W), pairs (P, 2).
    """

    name: str
    data: str
    batch: int
    width: float  # of the networks
    features: str  # the net that losses look through, its weights seeded
    precision: str
    seed: int
    length: int  # of the run, in steps
    first: int  # the step that is asked for first


def batches(task: Task, kind: str) -> Iterator[Batch]:
    """Batches of an entry's kind of data, in an order that the seed decides."""
    data = {name: torch.from_numpy(value) for name, value in np.load(task.data).items()}
    order = np.random.default_rng(task.seed)
    while True:
        if kind == "images":
            rows = torch.from_numpy(order.integers(len(data["images"]), size=task.batch))
            source, target = rows.tensor_split(2)
        else:
            source, target = data["pairs"][torch.from_numpy(order.integers(len(data["pairs"]), size=task.batch))].T
        images = [data["images"][rows].float() / 127.5 - 1 for rows in (source, target)]
        yield Batch(
            source=images[0],
            target=images[1] if kind in ("pairs", "images") else None,
            source_joints=data["joints"][source],
            source_valid=data["valid"][source],
            target_joints=data["joints"][target],
            target_valid=data["valid"][target],
            source_labels=data["labels"][source],
            target_labels=data["labels"][target],
        )


def trainer(task: Task, height: int, width: int) -> loop.Trainer:
    """The networks from the task's seed."""
    entry = (COMPONENTS | VARIANTS)[task.name]
    torch.manual_seed(task.seed)
    network = entry.build(height, width, task.width)
    objective = entry.objective(network, height, width, task.width, entry.phase.weights)
    run = loop.Run(
        title=task.name,
        phase=entry.phase,
        steps=task.length,
        checkpoint_every=task.length,
        batch=task.batch,
        seed=task.seed,
        precision=task.precision,
        device=devices.device("cpu"),
        work=Path("unused"),
        metrics=Path("unused"),
        settings={},
    )
    looks = getattr(entry, "features", None) or getattr(entry, "needs_features", False)
    return loop.Trainer(run, objective, feature_nets.build(task.features) if looks else None)


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    with np.load(task.data) as data:
        height, width = data["images"].shape[2:]
    made = trainer(task, height, width)
    entry = (COMPONENTS | VARIANTS)[task.name]
    print(json.dumps(str(Path(models.__file__).parent.parent)), flush=True)
    with loop.backends(made.run.device, task.precision):
        steps = range(task.first, task.length + 1)
        for step, batch, _ in zip(steps, batches(task, entry.data), sys.stdin, strict=False):
            start = time.process_time()
            terms = {name: float(value) for name, value in made.step(step, batch).items()}
            took = time.process_time() - start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(json.dumps({"seconds": took, "terms": terms, "peak": peak}), flush=True)


if __name__ == "__main__":
    main()
