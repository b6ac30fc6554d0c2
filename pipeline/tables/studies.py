"""User studies that were made here, for the papers' tables of user studies: from reports/studies/."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core import layout, params, seals
from pipeline.core.errors import UserError
from pipeline.tables.paired import Difference
from pipeline.tables.papers import PaperTable, Row

MEASURES = {
    "R2G (%)": "r2g", "G2R (%)": "g2r", "Prefer (%)": "prefer", "Jab (%)": "prefer", "Preferred over (%)": "prefer"
}  # fmt: skip


@dataclass(frozen=True)
class Study:
    """One study: its study.json, and the rows of results.csv and differences.csv."""

    about: Mapping[str, Any]
    rates: Mapping[tuple[str, str], Mapping[str, str]]  # by method and measure
    apart: list[Mapping[str, str]]

    @property
    def name(self) -> str:
        return self.about["name"]

    @property
    def dataset(self) -> str:
        return self.about["dataset"]

    @property
    def methods(self) -> list[str]:
        return list(self.about["methods"])

    @property
    def protocol(self) -> str:
        return f"form {self.about['form']['name']}, {self.about['raters']} raters"

    def metric(self, measure: str) -> str:
        """Of this study alone: two studies rank nothing together."""
        return f"{measure} of study {self.name}"

    @property
    def metrics(self) -> set[str]:
        return {self.metric(measure) for measure in MEASURES.values()}

    def fills(self, table: PaperTable, dataset: str) -> bool:
        return self.dataset == dataset and self.about["form"]["name"] in table.study

    def of(self, row: Row) -> Iterator[str]:
        """The study's names of the row's method. Where the row compares two, the study must have asked of these two."""
        for method, kind in self.about["methods"].items():
            own = params.variant_of(method) == row.ours if kind == "variant" else row.is_called(method)
            if own and (not row.over or self.rival(method).casefold() in {name.casefold() for name in row.over}):
                yield method

    def rival(self, method: str) -> str:
        """The other one of two methods; "" of more."""
        others = [name for name in self.methods if name != method]
        return others[0] if len(others) == 1 else ""


def read_studies() -> list[Study]:
    """Of our data sets. Raises UserError if one is damaged."""
    found = []
    for path in sorted(layout.STUDIES.glob("[!.]*/study.json")):
        try:
            about = seals.read_json(path)
            rates = {(row["method"], row["measure"]): row for row in _rows(path.with_name("results.csv"))}
            apart = _rows(path.with_name("differences.csv"))
            assert {"name", "dataset", "form", "methods", "raters", "asked", "left_out"} <= about.keys()
        except (UserError, OSError, ValueError, KeyError, AttributeError, AssertionError):
            raise UserError(f"{path.parent}: damaged; score the study again, or remove the folder") from None
        if about["dataset"] in params.datasets():
            found.append(Study(about, rates, apart))
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    seals.check(path)
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def compared(studies: list[Study]) -> list[Difference]:
    """Which methods of a study differ by more than its raters and pairs explain."""
    return [
        Difference(
            study.dataset, study.metric(row["measure"]), study.protocol, row["one"], row["other"],
            *(float(row[name]) for name in ("difference", "low", "high")), 0, row["verdict"],
        )
        for study in studies
        for row in study.apart
    ]  # fmt: skip


def notes(about: Mapping[str, Any]) -> list[str]:
    """What has to be said of a study's numbers."""
    form, left_out = about["form"], about["left_out"]
    time = f"for {form['seconds']:g} s" if form["seconds"] else "without a limit of time"
    judged = (
        f"{form['images']} real and {form['images']} generated images of each method, {time}, the first "
        f"{form['warm_up']} not counted"
    )
    target = "beside the true target" if form["target"] else "without the true target"
    groups = f"the best of {len(about['methods'])} for {form['groups']} pairs, {target}"
    asked = ", and ".join([judged] * (form["images"] > 0) + [groups] * (form["groups"] > 0))
    files = f"; {left_out} file{'s' * (left_out != 1)} left out" if left_out else ""
    return [
        f"Study {about['name']}: form {form['name']}, {about['raters']} raters ({about['asked']} asked{files}); each "
        f"saw {asked}.",
        "R2G = real pictures called fake, G2R = generated ones called real, Prefer (PIDM: Jab) = share of the votes "
        "for the best; pooled over raters. Intervals: 95 %, over raters and pairs (docs/studies.md).",
    ]
