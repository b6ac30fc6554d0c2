"""Losses for who watches them in TensorBoard or DVCLive: the lines of the metrics log, given to either as well.

Beside logs/train/D-V.jsonl a folder D-V.tensorboard or D-V.dvclive holds them, written anew from that log whenever a
training starts or goes on, so it never holds a step twice, and a tracker that is chosen late has the earlier steps too.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.training import losses

Follow = Callable[[Mapping[str, float]], None]  # takes a line of the log: step, and each loss term by its name


def require(name: str, wanted_by: str) -> None:
    """Raises UserError if the package of a tracker is not installed."""
    if name != "none" and find_spec(name) is None:
        raise UserError(f"{wanted_by}.tracker is {name}, which is not installed: pip install {name}, or set it to none")


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Follow]:
    from torch.utils.tensorboard import SummaryWriter

    def follow(line: Mapping[str, float]) -> None:
        for term, value in line.items():
            if term != "step":
                writer.add_scalar(term, value, line["step"])

    with SummaryWriter(folder) as writer:
        yield follow


@contextmanager
def _dvclive(folder: Path) -> Iterator[Follow]:
    from dvclive import Live

    def follow(line: Mapping[str, float]) -> None:
        live.step = line["step"]
        for term, value in line.items():
            if term != "step":
                live.log_metric(term, value)
        live.make_summary()

    # No experiment, commit or dvc.yaml of its own: those are the project's.
    with Live(str(folder), save_dvc_exp=False, dvcyaml=None, report=None) as live:
        yield follow


_TRACKERS = {"tensorboard": _tensorboard, "dvclive": _dvclive}


@contextmanager
def following(name: str, metrics: Path) -> Iterator[Follow]:
    """Yield a function to call with every further line of the log `metrics`; for "none", one that does nothing."""
    if name == "none":
        yield lambda line: None
        return
    folder = metrics.with_suffix(f".{name}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with _TRACKERS[name](folder) as follow:
        for line in losses.metrics(metrics):
            follow(line)
        yield follow
