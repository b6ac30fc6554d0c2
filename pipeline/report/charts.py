"""Charts as coordinates for the template's SVG: curves over checkpoints, and histograms."""

import math
from collections.abc import Callable, Sequence

import numpy as np

COLOURS, SHAPES = 7, 5  # of series: a colour and a marker's shape together tell 35 apart
MANY = 6  # methods in a chart; with more, it shows only the curves on test at first
LINE = 10.5  # height of a line of small text, in a chart's own units
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 220, 48, 14, 12, 34  # of a chart, in its own units
SIZE = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "bottom": HEIGHT - BOTTOM}

Row = dict[str, str]  # of all_scores.csv
Axis = Callable[[float], float]  # a value's coordinate


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers that cover [low, high], in steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def short(value: float) -> str:
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and value % size == 0):
            return f"{value / size:g}{suffix}"
    return f"{value:g}"


def look(number: int) -> dict[str, int]:
    """Colour and shape of the series `number`."""
    return {"number": number % COLOURS, "shape": number // COLOURS % SHAPES}


def _step_axis(steps: Sequence[int]) -> tuple[Axis, list[float]]:
    """x of a training step, and the steps with a tick."""
    first, last = min(steps), max(steps)

    def x(step: float) -> float:
        share = (step - first) / (last - first) if last > first else 0.5
        return round(LEFT + 10 + share * (WIDTH - LEFT - RIGHT - 20), 1)

    return x, [tick for tick in ticks(first, last) if first <= tick <= last] if last > first else [first]


def _value_axis(values: Sequence[float]) -> tuple[Axis, list[float]]:
    """y of a score, and the scores with a tick."""
    low, high = min(values), max(values)
    marked = ticks(low, low + ((high - low) or abs(values[0]) * 0.1 or 1.0))

    def y(value: float) -> float:
        return round(TOP + (marked[-1] - value) / (marked[-1] - marked[0]) * (HEIGHT - TOP - BOTTOM), 1)

    return y, marked


def _series(rows: list[Row], trained: list[str], x: Axis, y: Axis) -> list[dict]:
    """One for each trained variant and split that has points."""
    found = []
    for number, variant in enumerate(trained):
        for split in ("val", "test"):
            own = [row for row in rows if (row["variant"], row["split"]) == (variant, split)]
            points = [
                {
                    "x": x(int(row["step"])),
                    "y": y(float(row["value"])),
                    "low": y(float(row["low"])) if row["low"] else None,
                    "high": y(float(row["high"])) if row["high"] else None,
                    "chosen": row["chosen"] == "yes",
                    "label": f"{variant}, {split}, step {row['step']}: {float(row['value']):.4g}",
                }
                for row in sorted(own, key=lambda row: int(row["step"]))
            ]
            if points:
                found.append({**look(number), "variant": variant, "split": split, "points": points})
    return found


def _floor(row: Row, floors: list[str], y: Axis) -> dict:
    value, variant = float(row["value"]), row["variant"]
    about = {"variant": variant, "label": f"{variant}, test: {value:.4g}"}
    return {"number": floors.index(variant), "y": y(value)} | about


def _published(printed: dict[str, dict], trained: list[str], y: Axis) -> list[dict]:
    """Published numbers at their heights, from the top, their names below one another where they would overlap."""
    found, free = [], 0.0
    for height, one in sorted(((y(float(value)), one) for value, one in printed.items()), key=lambda line: line[0]):
        free = max(height - 3, free + LINE)
        about = f"{one['variant']}, published in {one['table']}: {one['published']}, by the paper's own protocol"
        line = {"y": height, "text_y": round(free, 1), "name": one["variant"], "label": about}
        found.append(look(trained.index(one["variant"])) | line)
    return found


def chart(rows: list[Row], trained: list[str], floors: list[str], published: Sequence[dict] = ()) -> dict | None:
    """One metric of one data set over the checkpoints; None without values.

    A series is a trained variant on one split; a floor is a horizontal line at its test score, and so is each of the
    `published` numbers (of `summary.matches`) of this metric.
    """
    rows = [row for row in rows if row["value"]]
    curves = [row for row in rows if row["variant"] in trained]
    levels = [row for row in rows if row["variant"] in floors and row["split"] == "test" and row["chosen"] == "yes"]
    if not curves:
        return None
    first = curves[0]
    printed = {one["published"]: one for one in published if one["metric"] == first["metric"]}
    values = [float(row[key]) for row in (*curves, *levels) for key in ("value", "low", "high") if row[key]]
    x, x_ticks = _step_axis([int(row["step"]) for row in curves])
    y, y_ticks = _value_axis([*values, *map(float, printed)])
    chosen = [row for row in curves if row["chosen"] == "yes"]
    return {
        "metric": first["metric"],
        "protocol": first["protocol"],
        "higher": first["higher_is_better"] == "True",
        "marks": sorted({mark for row in curves for mark in row["marks"].split()}),
        "x_ticks": [{"x": x(t), "label": short(t)} for t in x_ticks],
        "y_ticks": [{"y": y(t), "label": short(t)} for t in y_ticks],
        "series": _series(curves, trained, x, y),
        "floors": [_floor(row, floors, y) for row in levels],
        "published": _published(printed, trained, y),
        "size": SIZE,
        "summary": "; ".join(
            f"{row['variant']} on {row['split']} at step {row['step']}: {float(row['value']):.4g}" for row in chosen
        ),
    }


def curves(rows: list[Row], trained: list[str], floors: list[str], published: Sequence[dict] = ()) -> list[dict]:
    """A chart for each metric that has values."""
    metrics = dict.fromkeys(row["metric"] for row in rows)
    charts = [chart([row for row in rows if row["metric"] == metric], trained, floors, published) for metric in metrics]
    return [one for one in charts if one]


def histogram(values: list[float], bins: int = 30, width: int = 360, height: int = 70) -> dict:
    """Bars of the values' distribution as SVG coordinates."""
    counts, edges = np.histogram(values, bins=bins)
    bar = width / bins
    tallest = max(int(counts.max()), 1)
    bars = [
        {"x": round(i * bar + 0.5, 2), "w": round(bar - 1, 2), "h": round(float(c) / tallest * height, 2), "n": int(c)}
        for i, c in enumerate(counts)
    ]
    low, middle, high = float(edges[0]), float(np.median(values)), float(edges[-1])
    share = (middle - low) / (high - low)
    labels = [f"{value:.3f}" for value in (low, middle, high)]
    return {"bars": bars, "width": width, "height": height, "labels": labels, "median_x": round(share * width, 2)}
