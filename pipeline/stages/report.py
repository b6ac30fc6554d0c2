"""Write the report: one HTML file that needs no other file and no network.

reads   reports/tables/*.csv, reports/scores/D/V/{scores,pairs,samples,figures}.parquet, reports/published.csv,
        params.yaml, reports/template.html.j2
writes  reports/html/index.html, and reports/html/pictures/: photographs that the page links

Open the file in a browser, mail it, or print it: charts, tables and drawn pictures are inside, and every table can be
sorted and saved as csv. Equal inputs and library versions give equal bytes.

Photographs of real data sets, and what was generated from them, are for research: `report.photographs` in params.yaml
says whether they stand in the page (embed), in the folder pictures/ beside it (link: pass the page on without the
folder), or nowhere (none).

To change the look, edit the template; to change what is counted or chosen, see the stage `tables`.
"""

import base64
import csv
import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline import layout, paper_tables, params, pose, schema, store
from pipeline.atomic import atomic_directory, atomic_file
from pipeline.console import say
from pipeline.datasets import title as dataset_title
from pipeline.errors import UserError

# Short forms for the sentence at the top. These marks make a number a demonstration rather than a result.
DEMONSTRATION = {
    "metric-weights": "metric networks with random weights",
    "weights": "training losses on stand-in features",
    "steps": "short training",
    "width": "narrow networks",
}
LIBRARIES = (
    "torch", "torchvision", "numpy", "scipy", "scikit-image", "lpips", "pytorch-fid", "opencv-python-headless",
    "openvino", "pyarrow", "pandas", "safetensors", "jinja2",
)  # fmt: skip
WORST = 10
DRAWN = {"synthetic"}  # data sets without a photograph
# The sections of figures, in order: id, title, the kinds of `schema.FIGURES` in them, what there is to see.
FIGURES = (
    (
        "relation-maps", "Relation maps", ("relation-maps",),
        "Where SPIG's pyramid non-local block looks (the paper's Figure 7). A red frame marks the target patch; the "
        "heat over the generated picture is the weight with which it gathers from each patch, with one scale a row.",
    ),
    (
        "poses", "Random poses", ("poses",),
        "One person in poses drawn at random from the test images (SPIG's Figure 8). Those images were not read, only "
        "their joints.",
    ),
    (
        "flow", "Flow", ("flow",),
        "What a method warps its source by, each body part by itself. Hue is the direction in which a pixel's source "
        "lies, saturation how far; white in the visibility map is visible. The networks warp features, not a picture.",
    ),
    (
        "parsing", "Predicted parsing", ("parsing",),
        "Methods that work by human parsing first predict the target's from the source's and the pose.",
    ),
    (
        "applications", "Texture transfer and editing", ("texture-transfer", "edit"),
        "SPT's two applications: one person's texture in another's shape, and new clothes by an edited parsing.",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Params:
    title: str
    grid_rows: int
    photographs: str  # embed | link | none


Linked = dict[str, bytes]  # what goes into the folder of pictures, by file name


def read_csv(name: str) -> list[dict[str, str]]:
    """Rows of a file of reports/tables. Raises UserError if it is missing or is an empty file."""
    path = layout.TABLES / name
    if not path.exists():
        raise UserError(f"{path}: not there; run: python -m pipeline tables")
    with path.open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        if not reader.fieldnames:
            raise UserError(f"{path}: empty; run: python -m pipeline tables")
        return list(reader)


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


# ---- tables


def _rounded_like(printed: str, value: str) -> str:
    decimals = len(printed.partition(".")[2])
    return f"{float(value):.{decimals}f}"


PLACES = {"best": "best", "second": "2nd"}
TIED = {"symbol": "≈", "text": "best of this run, or not told from it by a paired bootstrap over the test pairs"}


def shown_tables(name: str, title: str, legend: dict[str, dict], run: list[str]) -> list[dict]:
    """A table as the template shows it: one part for each data set of this run that it has.

    What it has beyond, numbers published on other data sets, is named in the notes of the last part.
    """
    cells, said = read_csv(f"{name}.csv"), read_csv("notes.csv")
    datasets = list(dict.fromkeys(cell["dataset"] for cell in cells))
    parts = []
    for dataset in [dataset for dataset in datasets if dataset in run]:
        own = [cell for cell in cells if cell["dataset"] == dataset]
        rows: dict[str, dict] = {}
        for cell in own:
            row = rows.setdefault(cell["row"], {"name": cell["row"], "kind": cell["kind"], "cells": {}, "n": set()})
            if not cell["value"]:
                continue
            interval = [_rounded_like(cell["printed"], cell[end]) for end in ("low", "high") if cell[end]]
            over = [_rounded_like(cell["printed"], cell[key]) for key in ("mean", "deviation") if cell.get("seeds")]
            row["cells"][cell["column"]] = cell | {
                "place": PLACES.get(cell["place"].partition(" ")[0], ""),
                "interval": f"{interval[0]} – {interval[1]}" if len(interval) == 2 else "",
                "seeds": f"{cell['seeds']} seeds: {over[0]} ± {over[1]}" if over else "",
                "marks": [legend[mark] for mark in cell["marks"].split()] + ([TIED] if "tied" in cell["place"] else []),
            }
            row["n"] |= {int(cell["n"])} if cell["n"] else set()
        used = {mark for cell in own if cell["value"] for mark in cell["marks"].split()}
        higher = {cell["column"]: cell["higher_is_better"] == "True" for cell in own}
        shown = [mark for key, mark in legend.items() if key in used]
        parts.append(
            {
                "id": f"{name}-{dataset}",
                "paper": title.partition(",")[0],
                "title": f"{title}, {dataset_title(dataset)}",
                "columns": [{"name": column, "higher": higher[column]} for column in higher],
                "rows": list(rows.values()),
                "notes": [line["note"] for line in said if (line["table"], line["dataset"]) == (name, dataset)],
                "legend": shown + ([TIED] if any("tied" in cell["place"] for cell in own) else []),
            }
        )
    elsewhere = [dataset_title(dataset) for dataset in datasets if dataset not in run]
    if parts and elsewhere:
        listed = " and ".join(elsewhere)
        parts[-1]["notes"].append(f"Published numbers on {listed}: {name}.csv, under Downloads.")
    return parts


# ---- curves


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers that cover [low, high], in steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def _short(value: float) -> str:
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (abs(value) >= size and value % size == 0):
            return f"{value / size:g}{suffix}"
    return f"{value:g}"


WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 220, 48, 14, 12, 34  # of a chart, in its own units


def chart(rows: list[dict[str, str]], trained: list[str], floors: list[str]) -> dict | None:
    """One metric of one data set over the checkpoints as coordinates for the template's SVG; None without values.

    rows: of all_scores.csv. A series is a trained variant on one split; a floor is a horizontal line at its test score.
    """
    rows = [row for row in rows if row["value"]]
    curves = [row for row in rows if row["variant"] in trained]
    levels = [row for row in rows if row["variant"] in floors and row["split"] == "test" and row["chosen"] == "yes"]
    if not curves:
        return None
    heights = [float(row[key]) for row in (*curves, *levels) for key in ("value", "low", "high") if row[key]]
    spread = (max(heights) - min(heights)) or abs(heights[0]) * 0.1 or 1.0
    y_ticks = ticks(min(heights), min(heights) + spread)
    steps = sorted({int(row["step"]) for row in curves})
    span = (steps[-1] - steps[0]) or 1
    x_ticks = [t for t in ticks(steps[0], steps[-1]) if steps[0] <= t <= steps[-1]] if len(steps) > 1 else steps

    def x(step: float) -> float:
        share = (step - steps[0]) / span if len(steps) > 1 else 0.5
        return round(LEFT + 10 + share * (WIDTH - LEFT - RIGHT - 20), 2)

    def y(value: float) -> float:
        return round(TOP + (y_ticks[-1] - value) / (y_ticks[-1] - y_ticks[0]) * (HEIGHT - TOP - BOTTOM), 2)

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
                series.append({"number": number % 6, "variant": variant, "split": split, "points": points})
    first = curves[0]
    return {
        "metric": first["metric"],
        "protocol": first["protocol"],
        "higher": first["higher_is_better"] == "True",
        "marks": sorted({mark for row in curves for mark in row["marks"].split()}),
        "x_ticks": [{"x": x(t), "label": _short(t)} for t in x_ticks],
        "y_ticks": [{"y": y(t), "label": _short(t)} for t in y_ticks],
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
        "size": {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "bottom": HEIGHT - BOTTOM},
        "summary": "; ".join(
            f"{row['variant']} on {row['split']} at step {row['step']}: {float(row['value']):.4g}"
            for row in curves
            if row["chosen"] == "yes"
        ),
    }


def curves(rows: list[dict[str, str]], trained: list[str], floors: list[str]) -> list[dict]:
    metrics = dict.fromkeys(row["metric"] for row in rows)
    charts = [chart([row for row in rows if row["metric"] == metric], trained, floors) for metric in metrics]
    return [one for one in charts if one]


# ---- pictures


def picture(image: dict, what: str, linked: Linked | None) -> dict:
    """Stored image -> its size and its data URI; its address in `linked`, which it is added to, unless that is None.

    Raises UserError if it does not decode.
    """
    content = image["bytes"] or b""
    array = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if array is None:
        raise UserError(f"{what}: does not decode as a picture; run score again")
    kind = {b"\x89PNG": "png", b"RIFF": "webp"}.get(content[:4], "jpeg")
    uri = data_uri(content, f"image/{kind}")
    if linked is not None:
        name = f"{hashlib.sha256(content).hexdigest()[:24]}.{kind}"
        linked[name] = content
        uri = f"{layout.REPORT_PICTURES.name}/{name}"
    return {"uri": uri, "height": array.shape[0], "width": array.shape[1]}


def skeleton(keypoints: list, height: int, width: int) -> dict:
    """Joints as coloured lines and dots for the template's SVG."""
    joints, valid = pose.to_array(keypoints)
    point = [(round(float(x), 2), round(float(y), 2)) for x, y in joints]
    limbs = [
        {"from": point[a], "to": point[b], "hue": round(360 * index / len(pose.SKELETON))}
        for index, (a, b) in enumerate(pose.SKELETON)
        if valid[a] and valid[b]
    ]
    dots = [point[joint] for joint in range(schema.JOINTS) if valid[joint]]
    return {"limbs": limbs, "dots": dots, "height": height, "width": width, "seen": int(valid.sum())}


def gallery(dataset: str, trained: list[str], rows: int, linked: Linked | None) -> dict | None:
    """Source, target pose, target and each trained variant's picture of the first `rows` sampled pairs."""
    columns, pairs = [], {}
    for variant in trained:
        path = layout.samples(dataset, variant)
        samples = store.read_table(path).to_pylist()
        if not samples:
            continue
        step = max(sample["step"] for sample in samples)
        columns.append({"variant": variant, "step": step})
        values = _pair_values(dataset, variant, step)
        for sample in samples:
            if sample["step"] != step or (sample["pair_index"] not in pairs and len(pairs) == rows):
                continue
            where = f"{path}, pair {sample['pair_index']}"
            if sample["pair_index"] not in pairs:
                target = picture(sample["target"], where, linked)
                pairs[sample["pair_index"]] = {
                    "index": sample["pair_index"],
                    "source_id": sample["source_id"],
                    "target_id": sample["target_id"],
                    "source": picture(sample["source"], where, linked),
                    "target": target,
                    "pose": skeleton(sample["target_keypoints"], target["height"], target["width"]),
                    "generated": {},
                }
            values_of_pair = values.get(sample["pair_index"], {})
            by = next((name for name in values_of_pair if name.startswith("lpips")), None)
            generated = picture(sample["generated"], where, linked) | {"by": by, "lpips": values_of_pair.get(by)}
            pairs[sample["pair_index"]]["generated"][variant] = generated
    return {"columns": columns, "rows": list(pairs.values())} if columns else None


def figures(dataset: str, trained: list[str], linked: Linked | None) -> list[dict]:
    """What `score` drew of each trained variant, with its picture."""
    rows = []
    for variant in trained:
        path = layout.figures(dataset, variant)
        for number, row in enumerate(store.read_table(path).to_pylist()):
            shown = picture(row["picture"], f"{path}, figure {number}", linked)
            rows.append({"variant": variant, "picture": shown} | {key: row[key] for key in ("step", "kind", "caption")})
    return rows


def sections(parts: list[dict]) -> list[dict]:
    """The sections of figures that have any: the figures of each data set, by section."""
    found = []
    for name, title, kinds, text in FIGURES:
        own = [
            {
                "name": part["name"],
                "title": part["title"],
                "figures": [one for one in part["figures"] if one["kind"] in kinds],
            }
            for part in parts
        ]
        own = [part for part in own if part["figures"]]
        if own:
            found.append({"id": name, "title": title, "text": text, "parts": own})
    return found


def _pair_values(dataset: str, variant: str, step: int, split: str = "test") -> dict[int, dict]:
    """Pair index -> its row of pairs.parquet, for one checkpoint and split; NaN as None."""
    path = layout.pair_scores(dataset, variant)
    try:
        table = store.read_table(path, filters=[("step", "=", step), ("split", "=", split)])
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: lacks the columns step and split; run score again") from error
    missing = {name for name, _ in schema.PAIR_SCORE_KEYS} - set(table.column_names)
    if missing:
        raise UserError(f"{path}: lacks the column {sorted(missing)[0]}; run score again")
    rows = {}
    for row in table.to_pylist():
        clean = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}
        rows[row["pair_index"]] = clean
    return rows


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


def worst_pairs(dataset: str, variant: str, step: int) -> dict | None:
    """The test pairs with the largest LPIPS at the chosen checkpoint, and how LPIPS is distributed over all pairs."""
    rows = list(_pair_values(dataset, variant, step).values())
    keys = {name for name, _ in schema.PAIR_SCORE_KEYS}
    metrics = [name for name in (rows[0] if rows else {}) if name not in keys and not name.endswith(schema.INFLUENCE)]
    by = next((name for name in metrics if name.startswith("lpips")), None)
    scored = [row for row in rows if by and row[by] is not None]
    if not scored:
        return None
    scored.sort(key=lambda row: (-row[by], row["pair_index"]))
    return {
        "variant": variant,
        "step": step,
        "by": by,
        "metrics": metrics,
        "rows": scored[:WORST],
        "pairs": len(scored),
        "histogram": histogram([row[by] for row in scored]),
    }


# ---- the page


def _sha256(path: Path) -> str:
    if not path.exists():
        raise UserError(f"{path}: not there; run the stage that writes it (snakemake --cores all)")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"


def overview(scores: list[dict[str, str]], legend: dict[str, dict]) -> list[dict]:
    """One row for each data set and variant: checkpoints, the one that stands for it, pairs, marks."""
    rows = {}
    for score in scores:
        key = (score["dataset"], score["variant"])
        row = rows.setdefault(
            key, {"dataset": dataset_title(key[0]), "variant": key[1], "steps": set(), "pairs": {}, "marks": set()}
        )
        row["steps"].add(int(score["step"]))
        row["marks"] |= set(score["marks"].split())
        seen = int(score["n"] or 0) + int(score["excluded"] or 0)
        row["pairs"][score["split"]] = max(seen, row["pairs"].get(score["split"], 0))
        if score["chosen"] == "yes":
            row["chosen"] = int(score["step"])
    for row in rows.values():
        row["marks"] = [mark for key, mark in legend.items() if key in row["marks"]]
    return list(rows.values())


def warning(scores: list[dict[str, str]]) -> dict | None:
    """What stands above everything when numbers are a demonstration, not a result; None when they are not."""
    found = {}
    for row in scores:
        reasons = [text for mark, text in DEMONSTRATION.items() if mark in row["marks"].split()]
        found.setdefault(row["dataset"], {}).update(dict.fromkeys(reasons))
    reasons = [text for text in DEMONSTRATION.values() if any(text in own for own in found.values())]
    if not reasons:
        return None
    listed = reasons[0] if len(reasons) == 1 else ", ".join(reasons[:-1]) + " and " + reasons[-1]
    return {"datasets": [dataset_title(dataset) for dataset, own in found.items() if own], "reasons": listed}


def pckh(scores: list[dict[str, str]]) -> list[dict]:
    """The chosen checkpoints' PCKh on test, with what the real target images reach under the same detector."""
    rows = []
    for row in scores:
        if row["metric"].startswith("pckh") and row["split"] == "test" and row["chosen"] == "yes" and row["value"]:
            numbers = {key: float(row[key]) if row[key] else None for key in ("value", "low", "high", "ceiling")}
            share = numbers["value"] / numbers["ceiling"] if numbers["ceiling"] else None
            rows.append(row | numbers | {"dataset": dataset_title(row["dataset"]), "share": share})
    return rows


def inputs(datasets: Iterable[str], variants: Iterable[str]) -> list[Path]:
    files = [layout.PUBLISHED]
    for dataset in datasets:
        for variant in variants:
            written = (layout.scores, layout.pair_scores, layout.samples, layout.figures)
            files += [path(dataset, variant) for path in written]
    return files


def page(block: Params) -> tuple[str, Linked]:
    """The whole report as HTML, and the pictures it links. Raises UserError if an input is missing or empty."""
    datasets, variants = params.datasets(), params.variants()
    floors = [variant for variant in variants if params.family(variant) == "reference"]
    trained = [variant for variant in variants if variant not in floors and params.seed_of(variant) is None]
    scores = read_csv("all_scores.csv")
    lacking = {(d, v) for d in datasets for v in variants} - {(row["dataset"], row["variant"]) for row in scores}
    if lacking:
        raise UserError(
            f"{layout.TABLES}/all_scores.csv: nothing on {'/'.join(min(lacking))}; run: python -m pipeline tables"
        )
    digests = [(str(path), _sha256(path)) for path in inputs(datasets, variants)]
    legend = {row["mark"]: row for row in read_csv("legend.csv")}

    parts, linked = [], Linked()
    for dataset in datasets:
        photographs = "embed" if dataset in DRAWN else block.photographs
        into = linked if photographs == "link" else None
        own = [row for row in scores if row["dataset"] == dataset]
        chosen = {row["variant"]: int(row["step"]) for row in own if row["chosen"] == "yes"}
        worst = [worst_pairs(dataset, variant, chosen[variant]) for variant in trained]
        marks = {(r["variant"], r["metric"]): [legend[mark] for mark in r["marks"].split()] for r in own}
        parts.append(
            {
                "name": dataset,
                "title": dataset_title(dataset),
                "marks": marks,
                "curves": curves(own, trained, floors),
                "photographs": photographs,
                "gallery": None if photographs == "none" else gallery(dataset, trained, block.grid_rows, into),
                "figures": [] if photographs == "none" else figures(dataset, trained, into),
                "worst": [one for one in worst if one],
            }
        )

    if not layout.REPORT_TEMPLATE.exists():
        raise UserError(f"{layout.REPORT_TEMPLATE}: not there; restore it (git checkout {layout.REPORT_TEMPLATE})")
    environment = Environment(
        loader=FileSystemLoader(layout.REPORT_TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    named = paper_tables.titles(datasets)
    downloads = [*sorted(layout.TABLES.glob("*.csv")), layout.PUBLISHED]
    text = environment.get_template(layout.REPORT_TEMPLATE.name).render(
        title=block.title,
        warning=warning(scores),
        overview=overview(scores, legend),
        legend=list(legend.values()),
        tables=[part for name, title in named.items() for part in shown_tables(name, title, legend, datasets)],
        scores=[row | {"marks": [legend[mark] for mark in row["marks"].split()]} for row in scores],
        trained=trained,
        floors=floors,
        parts=parts,
        sections=sections(parts),
        apart={kind: [p["title"] for p in parts if p["photographs"] == kind] for kind in ("link", "none")},
        folder=layout.REPORT_PICTURES.name,
        pckh=pckh(scores),
        downloads=[{"name": path.name, "uri": data_uri(path.read_bytes(), "text/csv")} for path in downloads],
        digests=digests,
        versions=[(library, _version(library)) for library in LIBRARIES],
        params_digest=_sha256(layout.PARAMS),
        params_text=layout.PARAMS.read_text(encoding="utf-8"),
    )
    return text, linked


def run() -> None:
    text, linked = page(params.block(Params, "report"))
    with atomic_directory(layout.REPORT_PICTURES) as partial:
        for name, content in linked.items():
            (partial / name).write_bytes(content)
    with atomic_file(layout.REPORT) as partial:
        partial.write_text(text, encoding="utf-8")
    beside = f", {len(linked)} pictures beside it in {layout.REPORT_PICTURES}" if linked else ", one file"
    say(f"{layout.REPORT}: {len(text.encode()) / 1024:.0f} KiB{beside}; open it in a browser")
