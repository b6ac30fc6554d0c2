"""What the tables are made from: published numbers, and the scores of each method with the checkpoint chosen for it."""

import csv
import hashlib
import math
import shlex
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core import foreign, graph, layout, needs, params, schema, seals, store
from pipeline.core.errors import UserError
from pipeline.tables.over_seeds import OverSeeds
from pipeline.tables.papers import ALTERS_MEASURE, COLUMNS, MARKS, PUBLISHED_MARKS

if TYPE_CHECKING:
    import pandas as pd

PUBLISHED_COLUMNS = (
    "paper", "table", "dataset", "method", "variant", "metric", "value", "higher_is_better", "source", "verified",
    "marks", "other_value", "other_source",
)  # fmt: skip
VERIFIED = {"yes": "", "second-hand": "second-hand", "no": "unverified"}  # -> the mark that says so


def read_published(path: Path = layout.PUBLISHED) -> list[dict[str, str]]:
    """Rows of published.csv. Raises UserError if it is missing or a row is malformed."""
    if not path.exists():
        raise UserError(f"{path}: not there; restore it (git checkout {path})")
    try:
        lines = foreign.read(path).decode("utf-8-sig").splitlines(keepends=True)
        reader = csv.DictReader(lines, restval="")  # a row of one's own may end with `verified`
        if tuple(reader.fieldnames or ()) != PUBLISHED_COLUMNS:
            raise UserError(f"{path}: its columns must be {', '.join(PUBLISHED_COLUMNS)}")
        rows = list(reader)
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; save it as UTF-8, or restore it (git checkout {path})") from None
    except csv.Error as error:
        raise UserError(f"{path}: not a CSV ({error}); correct it, or restore it (git checkout {path})") from None
    for row in rows:
        try:
            assert None not in row  # surplus cells
            assert not any(cell.startswith(foreign.FORMULA) for key, cell in row.items() if not key.endswith("value"))
            assert row["verified"] in VERIFIED
            assert row["higher_is_better"] in ("yes", "no")
            assert {*row["marks"].split()} <= PUBLISHED_MARKS.keys() - {*VERIFIED.values()}
            for key in ("value", "other_value"):
                assert row[key] == "" or math.isfinite(float(row[key]))
            assert (row["other_value"] == "") == (row["other_source"] == "")
        except (AssertionError, ValueError):
            name = ", ".join(str(row[key]) for key in ("paper", "table", "dataset", "method", "metric"))
            raise UserError(
                f"{path}: malformed row ({name}): it needs a number or nothing as value, yes or no as "
                f"higher_is_better, {', '.join(VERIFIED)} as verified and, where they are filled, known marks, a "
                "number as other_value with its other_source, and no text that begins with =, +, - or @"
            ) from None
    return rows


def read_network(dataset: str, variant: str) -> dict[str, Any]:
    """network.json of a variant: cost, training, and whether it sees the parsing of the true target.

    Raises UserError if it is missing or damaged.
    """
    path = layout.network(dataset, variant)
    try:
        found = seals.read_json(path)
        assert {"parameters", "macs", "checkpoint_bytes", "trained"} <= found.keys()
    except FileNotFoundError:
        raise UserError(f"{path}: not there; {graph.how_to_make(path)}") from None
    except (ValueError, AttributeError, AssertionError):
        raise UserError(f"{path}: damaged; run score again") from None
    return {"given_target_parsing": False} | found


def read_scores(path: Path) -> "pd.DataFrame":
    """One scores.parquet (schema.SCORES); `marks` as text, separated by spaces, in the order of MARKS.

    Raises UserError if it is missing, empty, or has other columns or marks.
    """
    table = store.read_table(path)
    wrong = sorted(set(table.column_names) ^ set(schema.SCORES.names))
    if wrong:
        raise UserError(f"{path}: unexpected or missing columns {', '.join(wrong)}; run score again")
    if table.num_rows == 0:
        raise UserError(f"{path}: holds no scores; check that the variant has checkpoints, then run score again")
    marks = [set(names or ()) for names in table["marks"].to_pylist()]
    if unknown := sorted(set().union(*marks) - set(MARKS)):
        raise UserError(f"{path}: unknown mark {unknown[0]}; known: {', '.join(MARKS)}")
    return table.to_pandas().assign(marks=[" ".join(mark for mark in MARKS if mark in names) for names in marks])


def choose(scores: "pd.DataFrame", column: str, split: str) -> "pd.Series | None":
    """The best row on `split` by a column of COLUMNS, of its first metric that was scored; where none was, since its
    network could not be had, by SSIM, which needs none. The earliest of equals.

    None if there is no such score. Rows of other splits cannot influence the choice.
    """
    scores = scores[(scores["split"] == split) & scores["value"].notna()].sort_values("step")
    for metric in (*COLUMNS[column].metrics, "ssim"):
        rows = scores[scores["metric"] == metric]
        if len(rows):
            values = rows["value"] if rows["higher_is_better"].iloc[0] else -rows["value"]
            return rows.loc[values.idxmax()]
    return None


def altered(marks: str) -> frozenset[str]:
    """Those of the marks that make a metric measure something else than its protocol says."""
    return frozenset(marks.split()) & ALTERS_MEASURE


@dataclass(frozen=True, eq=False)
class Run:
    """A variant trained from one seed, a floor, a component with a score of its own, a method from elsewhere of which
    only images were scored ("outside"), or what somebody else's record says; and the checkpoint that stands for it.
    """

    dataset: str
    name: str
    kind: str  # floor | trained | component | outside | control | record
    scores: "pd.DataFrame"  # as `read_scores`
    chosen: "pd.Series"  # the score by which the checkpoint was chosen; of others, their first score
    pairs: Path  # pairs.parquet
    seed: int | None = None  # of training
    given_target_parsing: bool = False  # sees the parsing of the true target when it is scored: shown, not ranked
    others: tuple["Run", ...] = ()  # the same variant from further seeds
    starts: tuple[str, ...] = ()  # in words, the weights that it and its components were trained on from
    label: str = ""  # of a record, what a leaderboard calls it

    @cached_property
    def checkpoints(self) -> int:
        """How many the choice was made from."""
        rows = self.scores[(self.scores["split"] == self.chosen["split"]) & self.scores["value"].notna()]
        return rows[rows["metric"] == self.chosen["metric"]]["step"].nunique()

    @cached_property
    def at_checkpoint(self) -> "pd.DataFrame":
        """The scores of the chosen checkpoint."""
        return self.scores[(self.scores["step"] == self.chosen["step"]) & self.scores["value"].notna()]

    @cached_property
    def test(self) -> dict[str, dict[str, Any]]:
        """Metric -> the chosen checkpoint's row on test."""
        rows = self.at_checkpoint
        return rows[rows["split"] == "test"].set_index("metric", drop=False).to_dict("index")

    @cached_property
    def pair_set(self) -> str:
        """Which test pairs it was scored on, as a digest; "" if that is not known."""
        if not self.pairs.exists():
            return ""
        filters = [("step", "=", self.chosen["step"]), ("split", "=", "test")]
        table = store.read_table(self.pairs, ["pair_index", "source_id", "target_id"], filters=filters)
        return hashlib.sha256(repr(sorted(map(str, table.to_pylist()))).encode()).hexdigest()

    @cached_property
    def over_seeds(self) -> dict[tuple[str, str], OverSeeds]:
        """(Split, metric) -> the score over all seeds, each at its own chosen checkpoint.

        Empty for one seed; without the scores that a seed lacks, or has by another protocol or network.
        """
        if not self.others:
            return {}
        import pandas as pd

        each = [run.at_checkpoint for run in (self, *self.others)]
        rows = pd.concat(each)
        rows["measured"] = rows["protocol"] + rows["marks"].map(lambda marks: str(sorted(altered(marks))))
        groups = rows.groupby(["split", "metric"])
        pooled = groups["value"].agg(["count", "mean", "std"])
        pooled = pooled[(pooled["count"] == len(each)) & (groups["measured"].nunique() == 1)]
        return {key: OverSeeds(int(count), mean, std) for key, count, mean, std in pooled.itertuples(name=None)}


Runs = dict[tuple[str, str], Run]  # by data set and name


def starts(trained: dict[str, Any]) -> list[str]:
    """The weights that a training and its components started from, where these were not random, in words.

    trained: the meta.json of its checkpoints.
    """
    found = {"": trained.get("start")} | {f"its {n} from ": c.get("start") for n, c in trained["components"].items()}

    def steps(count: int | None) -> str:
        return "" if count is None else f" for {count:,} steps"

    return [
        f"{whose}weights of {one['name']} trained{steps(one['step'])} on {one['trained_on']} ({one['weights'][:19]})"
        for whose, one in found.items()
        if one
    ]


def _run_of(dataset: str, variant: str, choose_by: dict[str, str]) -> Run:
    path = layout.scores(dataset, variant)
    scores = read_scores(path)
    chosen = choose(scores, choose_by["metric"].upper(), choose_by["split"])
    if chosen is None:
        raise UserError(
            f"{path}: no {choose_by['metric']} on {choose_by['split']} to choose a checkpoint by; score that split or "
            "change tables.choose_by in params.yaml"
        )
    family, network = params.family(variant), read_network(dataset, variant)
    return Run(
        dataset,
        variant,
        "floor" if family == "floors" else "trained",
        scores,
        chosen,
        layout.pair_scores(dataset, variant),
        params.training(dataset, variant)["seed"],
        network["given_target_parsing"],
        starts=tuple(starts(network["trained"])),
    )


def _components() -> Runs:
    """The components that are trained and have a score: each stands by its last checkpoint, from which variants start.

    Of one that was not trained when it was scored there are no scores.
    """
    runs: Runs = {}
    for dataset, name in _asked():
        path = layout.scores(dataset, name)
        if path.exists() and store.read_table(path).num_rows and not _scored_otherwise(dataset, path):
            scores = read_scores(path)
            pairs = layout.pair_scores(dataset, name)
            runs[dataset, name] = Run(dataset, name, "component", scores, scores.iloc[0], pairs)
    return runs


def _asked() -> list[tuple[str, str]]:
    """The data set and name of every component that is trained."""
    return [
        (dataset, name)
        for dataset in params.datasets()
        for name, asked in needs.wanted(params.load(), dataset).items()
        if asked
    ]


def _methods() -> Iterator[tuple[Path, dict[str, Any]]]:
    """method.json of every outside method on our data sets. Raises UserError if one is damaged."""
    for path in sorted(layout.OUTSIDE.glob("[!.]*/method.json")):
        try:
            method = seals.read_json(path)
            known = method["dataset"] in params.datasets() and method["name"]
        except (UserError, KeyError, TypeError):
            raise UserError(f"{path}: damaged; score the images again or remove the folder") from None
        if known:
            yield path, method


def read_outside(known: Runs) -> Runs:
    """Methods whose images `repose score --images` scored by the present reference, on our data sets."""
    runs: Runs = {}
    for path, method in _methods():
        key = dataset, name = method["dataset"], method["name"]
        if _scored_otherwise(dataset, path.with_name("scores.parquet")):
            continue
        scores = read_scores(path.with_name("scores.parquet"))
        if key in runs or key in known:
            raise UserError(f"{path}: {name} names two methods of {dataset}; remove one folder of {layout.OUTSIDE}")
        runs[key] = Run(dataset, name, "outside", scores, scores.iloc[0], path.with_name("pairs.parquet"))
    return runs


def read_controls(dataset: str) -> tuple[dict[str, Any], Runs]:
    """controls.json, and the controls of a data set that were scored, in its order; nothing where there are none by the
    present reference. Raises UserError if a file is missing or damaged.
    """
    path = layout.controls(dataset) / "controls.json"
    if not path.exists():
        return {}, {}
    try:
        about = seals.read_json(path)
        folders = {one["name"]: path.parent / one["name"] for one in about["controls"] if not one["why"]}
        assert {"pairs", "of", "unscored"} <= about.keys()
    except (UserError, KeyError, TypeError, AttributeError, AssertionError):
        raise UserError(f"{path}: damaged; run: repose reference --dataset {dataset}") from None
    if any(_scored_otherwise(dataset, folder / "scores.parquet") for folder in folders.values()):
        return {}, {}
    runs: Runs = {}
    for name, folder in folders.items():
        scores = read_scores(folder / "scores.parquet")
        runs[dataset, name] = Run(dataset, name, "control", scores, scores.iloc[0], folder / "pairs.parquet")
    return about, runs


def not_scored() -> list[tuple[str, str]]:
    """The (data set, variant) of params.yaml that have no scores yet."""
    return [key for key in product(params.datasets(), params.variants()) if not layout.scores(*key).exists()]


def reference(dataset: str) -> dict[str, Any]:
    """What scores of a data set are made by now: `scoring.protocol.summary`. Raises UserError if it is missing or
    damaged.
    """
    try:
        return seals.read_json(layout.scored_by(dataset))
    except FileNotFoundError:
        raise UserError(f"{layout.scored_by(dataset)}: not there; run: repose reference --dataset {dataset}") from None


def _scored_otherwise(dataset: str, path: Path) -> bool:
    """Whether a scores.parquet has rows of another reference than the present one, or rows that name none, or no
    version of their metric.
    """
    table = store.read_table(path)
    if not table.num_rows or "value" not in table.column_names:
        return False  # no scores: `read_scores` says so
    named = set(table["reference"].to_pylist()) if {"reference", "version"} <= {*table.column_names} else set()
    return named != {reference(dataset)["sha256"]}


_IN_WORDS = {
    "inputs": "images or joints", "pairs": "pairs or their limit", "metrics": "metrics", "protocols": "protocols",
    "networks": "networks of the metrics", "detector": "joint detector", "height": "image height",
    "width": "image width",
}  # fmt: skip


def _differing(theirs: dict[str, Any], present: dict[str, Any]) -> str:
    """In what two references differ, in brackets; "" where that is not known."""
    words = [text for key, text in _IN_WORDS.items() if key in theirs and theirs[key] != present.get(key)]
    for kind in ("versions", "forms"):
        both = theirs.get(kind, {}).keys() & present.get(kind, {}).keys()
        words += [f"version of {name}" for name in sorted(both) if theirs[kind][name] != present[kind][name]]
    return f" (other {', '.join(words)})" if words else ""


def renewal(dataset: str, name: str) -> str:
    """The command that scores a variant or component again whose scores are by another reference than the present one,
    and so stand in no table; "" if they are by this one, or if there are none. Raises what `reference` does.
    """
    path = layout.scores(dataset, name)
    if not path.exists() or not _scored_otherwise(dataset, path):
        return ""
    stage, axis = ("score", "variant") if name in params.variants() else ("score_components", "component")
    return f"run: repose {stage} --dataset {dataset} --{axis} {name}"


def outdated() -> dict[tuple[str, str], str]:
    """What was scored by another reference than the present one, and so stands in no table -> the command that renews
    it and, of a method from elsewhere, in what the two references differ.
    """
    own = [*product(params.datasets(), params.variants()), *_asked()]
    found = {key: command for key in own if (command := renewal(*key))}
    for path, method in _methods():
        dataset, name = method["dataset"], method["name"]
        if _scored_otherwise(dataset, path.with_name("scores.parquet")):
            apart = _differing(method.get("reference", {}), reference(dataset)).strip()
            command = f"repose score --dataset {dataset} --images FOLDER --name {shlex.quote(name)}"
            found[dataset, name] = f"{apart + '; ' if apart else ''}run: {command}, or remove {path.parent}"
    return found


def read_runs(choose_by: dict[str, str]) -> Runs:
    """Every method that was scored by the present reference. Raises UserError if one's file is missing or damaged."""
    missing = {*not_scored(), *outdated()}
    pairs = product(params.datasets(), params.variants())
    runs = {key: _run_of(*key, choose_by) for key in pairs if key not in missing} | _components()
    return runs | read_outside(runs)


def by_variant(runs: Runs) -> Runs:
    """One run of each variant, the first seed's, with those from further seeds as its `others`."""
    further: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs.values():
        if run.kind == "trained" and params.seed_of(run.name) is not None:
            further[run.dataset, params.without_seed(run.name)].append(run)
    return {
        key: replace(run, others=tuple(further[key]))
        for key, run in runs.items()
        if run.kind != "trained" or params.seed_of(run.name) is None
    }
