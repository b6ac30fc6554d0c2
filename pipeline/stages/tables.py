"""Write the papers' tables: published numbers, and this run's beside them.

reads   reports/scores/D/V/{scores,pairs}.parquet and network.json of every data set and variant in params.yaml,
        reports/outside/ (methods from elsewhere), reports/published.csv
writes  reports/tables/: each as .csv (one value a row) and .md, those of methods in rows as .tex, and notes.csv and
        legend.csv
          the papers' tables   as `pipeline.tables.papers` defines them, in the papers' order of rows and columns:
                               spig_table1, _table2, _table3; spgnet_table_a, _table1, _parsing; spt_table1,
                               _training, _losses; sgw_gan_table1, _ablation, _amt
          leaderboard_D        every method of this run on the data set D, by our protocol
          all_scores           every checkpoint, split and metric
          differences          every two methods of this run on the same test pairs: paired bootstrap, and which are
                               ties

Runs of one variant from several seeds (spig, spig-seed1, ...) share a row: the first seed's number and interval, then
mean ± sample standard deviation over the seeds. One checkpoint stands for a run: the best by `tables.choose_by` on the
val split, never on test; each table says which. Two numbers that a paired bootstrap over the test pairs
(`tables.bootstrap` resamples) does not tell apart are a tie, and so are two that several seeds do not: the best of
this run's rows and those tied with it carry ≈. A number that differs from the paper's set-up carries a mark, explained
under its table. A difference to a published value is printed only where both protocols are known to be equal
(`paper_tables.EQUAL_PROTOCOLS`).

To see your own published numbers here, add rows to reports/published.csv: with their source, and verified = yes
only if you read the value in the paper.
"""

import csv
import json
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from pipeline.core import layout, params, schema, store
from pipeline.core.atomic import atomic_directory
from pipeline.core.console import say
from pipeline.core.errors import UserError
from pipeline.datasets import title as dataset_title
from pipeline.tables import networks, papers
from pipeline.tables.cells import (
    OVER_SEEDS,
    Cell,
    Choice,
    Run,
    Runs,
    as_row,
    chosen_score,
    csv_columns,
    exact,
    leaderboard,
    leaderboard_notes,
    marks_in,
    notes,
    paper_table,
    spread,
    with_places,
)
from pipeline.tables.over_seeds import difference
from pipeline.tables.paired import Difference, Scored, differences
from pipeline.tables.papers import ALTERS_MEASURE, COLUMNS, MARKS
from pipeline.tables.text import grid, markdown_page, symbols, titled, write_csv, write_parts


@dataclass(frozen=True)
class Params:
    choose_by: dict[str, str]  # metric: lpips | ssim | psnr; split: val
    bootstrap: int  # resamples of the paired comparison
    seed: int


PUBLISHED_COLUMNS = (
    "paper", "table", "dataset", "method", "variant", "metric", "value", "higher_is_better", "source", "verified"
)  # fmt: skip


def read_published(path: Path = layout.PUBLISHED) -> list[dict[str, str]]:
    """Rows of published.csv. Raises UserError if it is missing or a row is not well formed."""
    if not path.exists():
        raise UserError(f"{path}: not there; restore it (git checkout {path})")
    with path.open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        if tuple(reader.fieldnames or ()) != PUBLISHED_COLUMNS:
            raise UserError(f"{path}: its columns must be {', '.join(PUBLISHED_COLUMNS)}")
        rows = list(reader)
    for row in rows:
        try:
            assert None not in row  # surplus cells
            assert None not in row.values()  # missing cells
            assert row["verified"] in ("yes", "no")
            assert row["higher_is_better"] in ("yes", "no")
            assert row["value"] == "" or math.isfinite(float(row["value"]))
        except (AssertionError, ValueError):
            name = ", ".join(str(row[key]) for key in ("paper", "table", "dataset", "method", "metric"))
            raise UserError(
                f"{path}: malformed row ({name}): it needs {len(PUBLISHED_COLUMNS)} cells, a number or nothing as "
                "value, yes or no as higher_is_better and verified"
            ) from None
    return rows


def read_scores(dataset: str, variant: str) -> list[dict]:
    """Rows of a variant's score file, as `read_score_file`."""
    return read_score_file(layout.scores(dataset, variant))


def read_score_file(path: Path) -> list[dict]:
    """Rows of one score file, NaN as None. Raises UserError if it is missing, empty, or of other columns."""
    table = store.read_table(path)
    if set(table.column_names) != set(schema.SCORES.names):
        wrong = sorted(set(table.column_names) ^ set(schema.SCORES.names))
        raise UserError(f"{path}: unexpected or missing columns {', '.join(wrong)}; run score again")
    if table.num_rows == 0:
        raise UserError(f"{path}: holds no scores; check that the variant has checkpoints, then run score again")
    rows = table.to_pylist()
    for row in rows:
        for key in ("value", "low", "high", "ceiling"):
            if row[key] is not None and math.isnan(row[key]):
                row[key] = None
        unknown = set(row["marks"] or ()) - set(MARKS)
        if unknown:
            raise UserError(f"{path}: unknown mark {sorted(unknown)[0]}; known: {', '.join(MARKS)}")
        row["marks"] = [mark for mark in MARKS if mark in (row["marks"] or ())]
    return rows


def choose(scores: list[dict], metric: str, split: str) -> Choice | None:
    """The best row of `metric` (a lower-case column of COLUMNS) on `split`; the earliest step wins a tie.

    None if there is no such score. Rows of other splits cannot influence the choice.
    """
    for name in COLUMNS[metric.upper()].metrics:
        rows = [r for r in scores if r["metric"] == name and r["split"] == split and r["value"] is not None]
        if rows:
            best = min(rows, key=lambda r: (-r["value"] if r["higher_is_better"] else r["value"], r["step"]))
            return Choice(best, len({r["step"] for r in rows}))
    return None


def _outside() -> Runs:
    """Methods from elsewhere: what `python -m pipeline score --images` put into reports/outside/ for our data sets."""
    runs = {}
    for path in sorted(layout.OUTSIDE.glob("*/method.json")):
        try:
            method = json.loads(path.read_text(encoding="utf-8"))
            dataset, name = method["dataset"], method["name"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: damaged; score the images again or remove the folder") from None
        if dataset not in params.datasets():
            continue
        scores = read_score_file(path.with_name("scores.parquet"))
        if (dataset, name) in runs or name in params.variants():
            raise UserError(f"{path}: {name} names two methods of {dataset}; remove one folder of {layout.OUTSIDE}")
        runs[dataset, name] = (scores, Choice(scores[0], 1, "outside", path.with_name("pairs.parquet")))
    return runs


def read_runs(choose_by: dict[str, str]) -> Runs:
    """(data set, variant or outside method) -> its scores and its chosen checkpoint. Raises UserError if a file of a
    variant is missing.
    """
    runs = {}
    for dataset in params.datasets():
        for variant in params.variants():
            scores = read_scores(dataset, variant)
            choice = choose(scores, **choose_by)
            if choice is None:
                raise UserError(
                    f"{layout.scores(dataset, variant)}: no {choose_by['metric']} on {choose_by['split']} to choose a "
                    "checkpoint by; score that split or change tables.choose_by in params.yaml"
                )
            family, seed = params.family(variant), params.seed_of(variant)
            kind = "floor" if family == "floors" else "trained"
            seed = params.load()["train"][dataset][family]["seed"] if seed is None else seed
            given = networks.read(dataset, variant).get("given_target_parsing", False)
            pairs = layout.pair_scores(dataset, variant)
            choice = replace(choice, kind=kind, seed=seed, pairs=pairs, given_target_parsing=given)
            runs[dataset, variant] = (scores, choice)
    return runs | _outside()


def by_variant(runs: Runs) -> Runs:
    """One run of each variant, the first seed's, with those from further seeds as its `others`."""
    further: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for (dataset, name), run in runs.items():
        if run[1].kind == "trained" and params.seed_of(name) is not None:
            further[dataset, params.variant_of(name)].append(run)
    return {
        (dataset, name): (scores, replace(choice, others=tuple(further[dataset, name])))
        for (dataset, name), (scores, choice) in runs.items()
        if choice.kind != "trained" or params.seed_of(name) is None
    }


# ---- differences between methods


def scored(scores: list[dict], choice: Choice) -> Scored:
    step = choice.row["step"]
    table = store.read_table(choice.pairs, filters=[("step", "=", step), ("split", "=", "test")])
    keys = list(zip(*(table[name].to_pylist() for name in ("pair_index", "source_id", "target_id")), strict=True))
    rows = {r["metric"]: r for r in scores if (r["step"], r["split"]) == (step, "test") and r["value"] is not None}
    values, pooled = {}, {name for name in rows if name + schema.INFLUENCE in table.column_names}
    for name, row in rows.items():
        if name in pooled:
            values[name] = row["value"] + np.array(table[name + schema.INFLUENCE].to_pylist(), dtype=np.float64)
        elif name in table.column_names:
            values[name] = np.array(table[name].to_pylist(), dtype=np.float64)
    return Scored(keys, rows, values, pooled)


def compared(runs: Runs, block: Params) -> list[Difference]:
    """Every two methods of a data set, in the order of `runs` and of the papers' columns.

    By the first seed of each on the test pairs; where one has several, by their means too.
    """
    methods = {}
    for key, (scores, choice) in runs.items():
        if choice.pairs is not None and choice.pairs.exists():
            methods[key] = scored(scores, choice)
        else:
            say(f"{'/'.join(key)}: no values for each pair; not compared with other methods")
    found = differences(methods, block.bootstrap, block.seed, ALTERS_MEASURE)
    metrics, order = _in_column_order(one.metric for one in found), list(runs)

    def place(one: Difference) -> tuple[int, int, int]:
        first, second = ((one.dataset, name) for name in (one.one, one.other))
        return order.index(first), order.index(second), metrics.index(one.metric)

    return sorted((over_seeds(one, runs) for one in found), key=place)


def over_seeds(found: Difference, runs: Runs) -> Difference:
    """Fill in what several seeds say. Then it is a tie unless both intervals, over pairs and over seeds, tell the same.

    Methods that were scored on other pairs are not compared over seeds.
    """
    sides = [runs[found.dataset, name] for name in (found.one, found.other)]
    several = [spread(run, found.metric) for run in sides]
    rows = [chosen_score(run, found.metric) for run in sides]
    if several == [None, None] or len({row["n"] + row["excluded"] for row in rows}) > 1:
        return found
    values = [known or row["value"] for known, row in zip(several, rows, strict=True)]
    chance = tuple(choice.kind != "floor" for _, choice in sides)
    apart, low, high = difference(*values, chance=chance)
    better = found.one if (apart > 0) == rows[0]["higher_is_better"] else found.other
    return replace(
        found,
        verdict="tie" if low <= 0 <= high or better != found.verdict else better,
        seeds=" ".join(str(known.seeds if known else 1) for known in several),
        seeds_difference=apart,
        seeds_low=low,
        seeds_high=high,
    )


def _in_column_order(metrics: Iterable[str]) -> list[str]:
    """Each metric once: those of the papers' columns, then the others by name."""
    order = [metric for column in COLUMNS.values() for metric in column.metrics]
    return [*order, *sorted(set(metrics) - set(order))]


# ---- files


SCORE_COLUMNS = (
    "dataset", "variant", "step", "chosen", "split", "metric", "protocol", "value", "low", "high", "n", "excluded",
    "ceiling", "higher_is_better", "marks",
)  # fmt: skip


def score_columns(runs: Runs) -> tuple[str, ...]:
    return SCORE_COLUMNS + (OVER_SEEDS if any(choice.others for _, choice in by_variant(runs).values()) else ())


def all_scores(runs: Runs) -> list[tuple]:
    """Every score as a tuple of `score_columns`, sorted by data set and variant then step, split, metric.

    Where a variant has several seeds, their mean stands beside the first's chosen checkpoint.
    """
    rows, columns, first = [], score_columns(runs), by_variant(runs)
    for key, (scores, choice) in runs.items():
        names = _in_column_order(row["metric"] for row in scores)
        for row in sorted(scores, key=lambda r: (r["step"], r["split"], names.index(r["metric"]))):
            chosen = "yes" if row["step"] == choice.row["step"] else "no"
            text = row | {key: exact(row[key]) for key in ("value", "low", "high", "ceiling")}
            text |= {"chosen": chosen, "marks": " ".join(row["marks"])} | dict.fromkeys(OVER_SEEDS)
            several = spread(first[key], row["metric"], row["split"]) if key in first and chosen == "yes" else None
            if several:
                text |= {"seeds": several.seeds, "mean": exact(several.mean), "deviation": exact(several.deviation)}
            rows.append(tuple("" if text[column] is None else text[column] for column in columns))
    return rows


def _write_all_scores(folder: Path, rows: list[tuple], columns: tuple[str, ...]) -> None:
    write_csv(folder / "all_scores.csv", columns, rows)
    at = {column: index for index, column in enumerate(columns)}
    numbers = [column for column in ("value", "low", "high", "ceiling", "mean", "deviation") if column in at]
    text = []
    for row in rows:
        printed = list(row)
        for column in numbers:
            printed[at[column]] = f"{float(row[at[column]]):.4f}" if row[at[column]] else "–"
        printed[at["value"]] += symbols(printed.pop(at["marks"]))  # the marks stand on the value
        text.append(printed)
    used = {mark for row in rows for mark in row[at["marks"]].split()}
    lines = ["chosen = the checkpoint that stands for the variant; low, high = bootstrap 95 % interval over pairs."]
    if "mean" in columns:
        lines.append(
            "mean, deviation = over the seeds of a variant, each at its chosen checkpoint; deviation is the sample "
            "standard deviation. They stand in the rows of the first seed."
        )
    marks = [mark for mark in MARKS if mark in used]
    header = [column for column in columns if column != "marks"]
    (folder / "all_scores.md").write_text(markdown_page("All scores", header, text, lines, marks), encoding="utf-8")


def _write_differences(folder: Path, found: list[Difference]) -> None:
    """All of them as csv; those of the papers' columns as md."""
    several = any(d.seeds for d in found)
    names = [f.name for f in fields(Difference) if several or not f.name.startswith("seeds")]
    write_csv(folder / "differences.csv", names, ([getattr(d, name) for name in names] for d in found))
    shown = {metric for column in COLUMNS.values() for metric in column.metrics}
    text = []
    for d in (d for d in found if d.metric in shown):
        row = [d.dataset, d.one, d.other, d.metric, f"{d.difference:+.4f}", f"{d.low:+.4f}", f"{d.high:+.4f}", d.n]
        if several:
            over = [d.seeds_difference, d.seeds_low, d.seeds_high] if d.seeds else []
            row += [d.seeds.replace(" ", ", "), *(f"{number:+.4f}" for number in over)] if d.seeds else ["–"] * 4
        text.append([*row, d.verdict])
    lines = [
        "difference = the first method's score minus the second's on the pairs that both have; low, high = its 95 % "
        "interval, paired bootstrap over these pairs; verdict = the better one, or a tie where the interval holds "
        "zero. Each comparison stands for itself: of twenty between equals one is expected to be no tie."
    ]
    header = ["dataset", "one", "other", "metric", "difference", "low", "high", "pairs"]
    if several:
        header += ["seeds", "over seeds", "low over seeds", "high over seeds"]
        lines.append(
            "Where a method has several seeds, the difference is that of the first ones; over seeds = that of the "
            "means over seeds, with Welch's 95 % interval. A verdict then names a method only where both intervals "
            "tell it from the other; one of a single seed is taken to vary as much as the other."
        )
    header.append("verdict")
    page = markdown_page("Differences between methods of this run", header, text, lines, [])
    (folder / "differences.md").write_text(page, encoding="utf-8")


def _write_table(
    folder: Path, name: str, title: str, cells: list[Cell], said: dict[str, list[str]], runs: Runs
) -> None:
    """A table's parts, one for each data set; of a table without a value only what is said about it."""
    columns = csv_columns(cells)
    write_csv(folder / f"{name}.csv", columns, (as_row(cell, columns) for cell in cells))
    parts = []
    for dataset, lines in said.items():
        own = [cell for cell in cells if cell.dataset == dataset]
        where = f", {dataset_title(dataset)}" if dataset else ""
        parts.append(titled(title + where, *grid(own), lines, marks_in(own, runs)))
    write_parts(folder, name, parts)


def run() -> None:
    block = params.block(Params, "tables")
    published = read_published()
    every = read_runs(block.choose_by)
    runs = by_variant(every)
    found = compared(runs, block)
    tables: dict[str, tuple[list[Cell], dict[str, list[str]]]] = {}
    for dataset in params.datasets():
        unranked = [name for (where, name), run in runs.items() if where == dataset and run[1].given_target_parsing]
        cells = with_places(leaderboard(dataset, runs), found, unranked)
        tables[f"leaderboard_{dataset}"] = cells, leaderboard_notes(cells, runs)
    for table in papers.TABLES:
        cells = with_places(paper_table(table, published, runs), found)
        tables[table.name] = cells, notes(table, cells, runs)
    rows, columns = all_scores(every), score_columns(every)
    marks = {mark for row in rows for mark in row[columns.index("marks")].split()}
    marks |= {mark for cells, _ in tables.values() for mark in marks_in(cells, runs)}
    with atomic_directory(layout.TABLES) as folder:
        for name, title in papers.titles(params.datasets()).items():
            _write_table(folder, name, title, *tables[name], runs)
        _write_all_scores(folder, rows, columns)
        _write_differences(folder, found)
        lines = [
            (name, where, line) for name, (_, said) in tables.items() for where, text in said.items() for line in text
        ]
        write_csv(folder / "notes.csv", ("table", "dataset", "note"), lines)
        legend = [(name, mark.symbol, mark.text) for name, mark in MARKS.items() if name in marks]
        write_csv(folder / "legend.csv", ("mark", "symbol", "text"), legend)
    for (dataset, variant), (_, choice) in every.items():
        say(f"{dataset}/{variant}: step {choice.row['step']} of {choice.checkpoints} checkpoints")
    say(f"{layout.TABLES}: {', '.join([*tables, 'all_scores', 'differences'])}")
