"""Pictures of a page: the first test pairs, those on which each variant fails, and the figures that `score` drew."""

import math
from pathlib import Path
from typing import NamedTuple

from pipeline.core import layout, schema, store
from pipeline.core.errors import UserError
from pipeline.report.album import Album
from pipeline.report.charts import histogram
from pipeline.scoring import failures

WORST = 10  # rows in the table of the worst pairs
LINED_UP = 2  # pairs at the top of the page
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


class Method(NamedTuple):
    """Whose pictures are shown, and the files that `score` wrote of them."""

    name: str
    samples: Path
    pairs: Path


def trained(dataset: str, variant: str) -> Method:
    return Method(variant, layout.samples(dataset, variant), layout.pair_scores(dataset, variant))


def _samples(path: Path) -> list[dict]:
    table = store.read_table(path)
    if "why" not in table.column_names:
        raise UserError(f"{path}: lacks the column why; run score again")
    return table.to_pylist()


def _shown_pair(sample: dict, where: str, album: Album, link: bool) -> dict:
    """A pair without what was generated for it."""
    target = album.add(sample["target"]["bytes"], where, link)
    return {
        "index": sample["pair_index"],
        "source_id": sample["source_id"],
        "target_id": sample["target_id"],
        "source": album.add(sample["source"]["bytes"], where, link),
        "target": target,
        "pose": album.add_pose(sample["target_keypoints"], target.height, target.width),
    }


def grid(methods: list[Method], rows: int, metrics: dict[str, str], album: Album, link: bool) -> dict | None:
    """Source, target pose, target and each method's picture, at its last checkpoint, of the first `rows` test pairs.

    metrics: metric -> its name, in the order of preference; the first that a pair has a value of stands below it.
    """
    columns, pairs = [], {}
    for method in methods:
        samples = [sample for sample in _samples(method.samples) if failures.SAMPLE in sample["why"]]
        if not samples:
            continue
        step = max(sample["step"] for sample in samples)
        columns.append({"variant": method.name, "step": step})
        values = pair_values(method.pairs, step)
        for sample in samples:
            index = sample["pair_index"]
            if sample["step"] != step or (index not in pairs and len(pairs) == rows):
                continue
            where = f"{method.samples}, pair {index}"
            if index not in pairs:
                pairs[index] = _shown_pair(sample, where, album, link) | {"generated": {}}
            own = values.get(index, {})
            by = next((metric for metric in metrics if own.get(metric) is not None), None)
            below = {"by": by, "name": metrics.get(by), "value": own.get(by)}
            picture = album.add(sample["generated"]["bytes"], where, link)
            pairs[index]["generated"][method.name] = {"picture": picture} | below
    return {"columns": columns, "rows": list(pairs.values())} if columns else None


def lineup(shown: dict, names: dict[str, str]) -> dict:
    """The first pairs of a grid once more, for the top of the page, the methods in the order of `names`: method -> what
    its row of the leaderboard is called. `ratio`: height by width of a picture.
    """
    pairs = []
    for row in shown["rows"][:LINED_UP]:
        made = {names[method]: row["generated"][method]["picture"] for method in names if method in row["generated"]}
        for picture in (row["source"], row["target"], *made.values()):
            picture.uses += 1
        row["pose"]["uses"] += 1
        pairs.append(row | {"generated": made})
    methods = max(len(pair["generated"]) for pair in pairs)
    return {"pairs": pairs, "columns": 3 + methods, "ratio": pairs[0]["target"].height / pairs[0]["target"].width}


def pair_values(path: Path, step: int, split: str = "test") -> dict[int, dict]:
    """Pair index -> its row of a pairs.parquet, for one checkpoint and split; NaN as None."""
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


def failing(dataset: str, variant: str, step: int, album: Album | None, link: bool) -> dict | None:
    """Where a checkpoint fails on test: if LPIPS was scored, the pairs with the largest and how it is distributed over
    all, and by each criterion of `pipeline.scoring.failures` the worst pairs with their pictures (none without album).
    """
    values = pair_values(layout.pair_scores(dataset, variant), step)
    rows = list(values.values())
    keys = {name for name, _ in schema.PAIR_SCORE_KEYS} | {schema.IMAGE_DIGEST}
    metrics = [name for name in (rows[0] if rows else {}) if name not in keys and not name.endswith(schema.INFLUENCE)]
    by = next((name for name in metrics if name.startswith("lpips")), None)
    scored = [row for row in rows if by and row[by] is not None]
    criteria = [] if album is None else _criteria(dataset, variant, step, values, album, link)
    if not scored and not criteria:
        return None
    scored.sort(key=lambda row: (-row[by], row["pair_index"]))
    return {
        "variant": variant,
        "step": step,
        "by": by,
        "metrics": metrics,
        "rows": scored[:WORST],
        "pairs": len(scored),
        "histogram": histogram([row[by] for row in scored]) if scored else None,
        "criteria": criteria,
    }


def _criteria(dataset: str, variant: str, step: int, values: dict[int, dict], album: Album, link: bool) -> list[dict]:
    samples = [sample for sample in _samples(layout.samples(dataset, variant)) if sample["step"] == step]
    metrics = dict.fromkeys(name for sample in samples for name in sample["why"] if name != failures.SAMPLE)
    found = []
    for metric in sorted(metrics, key=lambda name: failures.CRITERIA.index(failures.of_metric(name))):
        criterion = failures.of_metric(metric)
        own = [sample for sample in samples if metric in sample["why"]]
        sign = -1 if criterion.worst_is_highest else 1
        own.sort(key=lambda sample: (sign * values[sample["pair_index"]][metric], sample["pair_index"]))
        pairs = []
        for sample in own:
            where = f"{layout.samples(dataset, variant)}, pair {sample['pair_index']}"
            generated = album.add(sample["generated"]["bytes"], where, link)
            shown = _shown_pair(sample, where, album, link)
            pairs.append(shown | {"generated": generated, "value": values[sample["pair_index"]][metric]})
        found.append({"metric": metric, "title": criterion.title, "pairs": pairs})
    return found


def figures(dataset: str, trained: list[str], album: Album, link: bool) -> list[dict]:
    """What `score` drew of each trained variant, with its picture."""
    rows = []
    for variant in trained:
        path = layout.figures(dataset, variant)
        for number, row in enumerate(store.read_table(path).to_pylist()):
            shown = album.add(row["picture"]["bytes"], f"{path}, figure {number}", link)
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
