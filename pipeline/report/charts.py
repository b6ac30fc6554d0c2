"""Charts as coordinates for the template's SVG: curves over checkpoints, and histograms."""

import math
from collections.abc import Sequence

import numpy as np

COLOURS, SHAPES = 7, 4  # of series: a colour and a marker's shape together tell 28 apart
MANY = 6  # methods in a chart; with more, it shows test curves alone at first
LINE = 10.5  # height of a line of small text, in a chart's own units
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 220, 48, 14, 12, 34  # of a chart, in its own units


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


def chart(
    rows: list[dict[str, str]], trained: list[str], floors: list[str], published: Sequence[dict] = ()
) -> dict | None:
    """One metric of one data set over the checkpoints as coordinates for the template's SVG; None without values.

    rows: of all_scores.csv. A series is a trained variant on one split; a floor is a horizontal line at its test score,
    and so is each of the `published` numbers (of `summary.matches`) of this metric.
    """
    rows = [row for row in rows if row["value"]]
    curves = [row for row in rows if row["variant"] in trained]
    levels = [row for row in rows if row["variant"] in floors and row["split"] == "test" and row["chosen"] == "yes"]
    if not curves:
        return None
    printed = {one["published"]: one for one in published if one["metric"] == curves[0]["metric"]}
    heights = [float(row[key]) for row in (*curves, *levels) for key in ("value", "low", "high") if row[key]]
    heights += map(float, printed)
    spread = (max(heights) - min(heights)) or abs(heights[0]) * 0.1 or 1.0
    y_ticks = ticks(min(heights), min(heights) + spread)
    steps = sorted({int(row["step"]) for row in curves})
    span = (steps[-1] - steps[0]) or 1
    x_ticks = [t for t in ticks(steps[0], steps[-1]) if steps[0] <= t <= steps[-1]] if len(steps) > 1 else steps

    def x(step: float) -> float:
        share = (step - steps[0]) / span if len(steps) > 1 else 0.5
        return round(LEFT + 10 + share * (WIDTH - LEFT - RIGHT - 20), 1)

    def y(value: float) -> float:
        return round(TOP + (y_ticks[-1] - value) / (y_ticks[-1] - y_ticks[0]) * (HEIGHT - TOP - BOTTOM), 1)

    series = []
    for number, variant in enumerate(trained):
        for split in ("val", "test"):
            own = [row for row in curves if (row["variant"], row["split"]) == (variant, split)]
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
                series.append({**look(number), "variant": variant, "split": split, "points": points})
    first = curves[0]
    return {
        "metric": first["metric"],
        "protocol": first["protocol"],
        "higher": first["higher_is_better"] == "True",
        "marks": sorted({mark for row in curves for mark in row["marks"].split()}),
        "x_ticks": [{"x": x(t), "label": short(t)} for t in x_ticks],
        "y_ticks": [{"y": y(t), "label": short(t)} for t in y_ticks],
        "series": series,
        "floors": [
            {
                "number": floors.index(row["variant"]),
                "variant": row["variant"],
                "y": y(float(row["value"])),
                "label": f"{row['variant']}, test: {float(row['value']):.4g}",
            }
            for row in levels
        ],
        "published": _published([(y(float(value)), one) for value, one in printed.items()], trained),
        "size": {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "bottom": HEIGHT - BOTTOM},
        "summary": "; ".join(
            f"{row['variant']} on {row['split']} at step {row['step']}: {float(row['value']):.4g}"
            for row in curves
            if row["chosen"] == "yes"
        ),
    }


def _published(lines: list[tuple[float, dict]], trained: list[str]) -> list[dict]:
    """Published numbers at their heights, from the top, their names below one another where they would overlap."""
    found, free = [], 0.0
    for height, one in sorted(lines, key=lambda line: line[0]):
        free = max(height - 3, free + LINE)
        about = f"{one['variant']}, published in {one['table']}: {one['published']}, by the paper's own protocol"
        found.append(
            {
                **look(trained.index(one["variant"])),
                "y": height,
                "text_y": round(free, 1),
                "name": one["variant"],
                "label": about,
            }
        )
    return found


def curves(
    rows: list[dict[str, str]], trained: list[str], floors: list[str], published: Sequence[dict] = ()
) -> list[dict]:
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
