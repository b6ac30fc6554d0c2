"""How long each stage took, from its log: the page beside the report."""

import re
from pathlib import Path

from pipeline.core import layout
from pipeline.report.page import environment

STAGES = (
    "fetch", "weights", "index", "keypoints", "parsing", "pairs", "pseudo_labels", "distance_maps", "describe",
    "pretrain", "reference", "train", "draw", "score", "score_components", "tables",
)  # fmt: skip
_END = re.compile(r"^wall ([\d.]+) s, peak memory (\d+) MiB$")
_RATE = re.compile(r"step \d+ of \d+ +([\d.]+) pairs/s")
_SCORED = re.compile(r"^  \w+: (\d+) pairs")


def spoken(seconds: float) -> str:
    """ "4.2 s", "3 min 20 s", "5 h 3 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _of_log(path: Path) -> dict | None:
    """Seconds, MiB and pairs a second of the log's run; None for one that did not end."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    end = _END.match(lines[-1]) if lines else None
    if end is None:
        return None
    seconds = float(end[1])
    rates = [float(rate[1]) for line in lines if (rate := _RATE.search(line))]
    scored = sum(int(pairs[1]) for line in lines if (pairs := _SCORED.match(line)))
    failed = any(line.startswith("failed: ") for line in lines)
    rate = rates[-1] if rates else scored / seconds if scored and seconds else None
    return {"seconds": seconds, "memory": int(end[2]), "rate": rate, "failed": failed}


def rows(datasets: list[str]) -> list[dict]:
    """A row for each log of a stage that ran for `datasets` or for all, in the order of the stage table."""
    found = []
    for stage in STAGES:
        for path in sorted(layout.log(stage).parent.glob("*.log")):
            own = [
                name for name in datasets if f"{path.stem}-".startswith(f"{name}-")
            ]  # a form's are also its parent's
            dataset = max(own, key=len, default="")
            axis = path.stem.removeprefix(dataset).removeprefix("-")
            if stage in ("weights", "tables"):
                dataset, axis = "", path.stem if stage == "weights" else ""
            elif not own:
                continue
            run = _of_log(path)
            if run is not None:
                found.append(
                    {"stage": stage, "dataset": dataset, "axis": axis} | run | {"text": spoken(run["seconds"])}
                )
    return found


def page(title: str, datasets: list[str]) -> str:
    """The page beside the report, as HTML."""
    return environment().get_template(f"{layout.REPORT_PARTS}/times.html.j2").render(title=title, times=rows(datasets))
