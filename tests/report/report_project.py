"""A project whose report can be written without training anything: scores, pairs, pictures and tables, invented.

Small for tests of the page; large (`LARGE`) for its size and speed: test_report_browser.py, benchmarks/report.py.
"""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import yaml

from models.variants import VARIANTS
from pipeline.core import layout, params, schema, store
from pipeline.scoring import failures
from pipeline.stages import report, tables
from tests import tiny_dataset
from tests.conftest import ROOT
from tests.stages.test_report import person, png, write_pairs
from tests.stages.test_tables import training_run, write_network, write_scores
from tests.tables.test_controls import usual, write_controls

READ = ("params.yaml", "params.schema.yaml", "reports/published.csv", "reports/template.html.j2", "docs/protocols.md")
FLOORS = ("copy_source", "mean_image")
SAMPLES, FAILING = 8, (3, 40, 41, 42, 43, 44, 45, 46)


@dataclass(frozen=True)
class Size:
    """How much there is to report on. `grain`: pictures as large, in bytes, as photographs of their size are."""

    datasets: tuple[str, ...]
    trained: tuple[str, ...]
    checkpoints: int
    pairs: int
    grain: bool


SMALL = Size(("synthetic",), ("spig", "patn"), 3, 96, False)
TWENTY = tuple(name for name, variant in VARIANTS.items() if variant.phase is not None)[:20]
LARGE = Size(("synthetic", "market1501"), TWENTY, 10, 200, True)


def write(folder: Path, size: Size) -> None:
    """Everything that the report reads, and the report, in the working folder `folder`."""
    for name in READ:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "reports/template", folder / "reports/template")
    write_params(size)
    for dataset in size.datasets:
        tiny_dataset.write(folder, dataset, parsing_source="oracle")
        for number, variant in enumerate((*FLOORS, *size.trained)):
            steps = [0] if variant in FLOORS else [1000 * (n + 1) for n in range(size.checkpoints)]
            write_variant(dataset, variant, steps, number, size)
        write_controls(dataset, usual())
    tables.run()
    report.run()


def write_params(size: Size) -> None:
    """params.yaml with these data sets and variants, all components, and every picture shown."""
    values = yaml.safe_load(layout.PARAMS.read_text())
    wanted = {*FLOORS, *size.trained}
    values["datasets"] = list(size.datasets)
    values["variants"] = {
        family: [one.name for one in import_module(f"models.{family}").VARIANTS if one.name in wanted]
        for family in values["variants"]
    }
    values["components"] = dict.fromkeys(values["components"], True)
    values["report"]["photographs"] = "embed"
    layout.PARAMS.write_text(yaml.safe_dump(values, sort_keys=False))
    params.load.cache_clear()


def write_variant(dataset: str, variant: str, steps: list[int], number: int, size: Size) -> None:
    """Scores, pairs, pictures and figures of one variant: each a little worse than the one before it."""
    rows = training_run(dataset, variant, steps)
    for row in rows:
        row["n"] = size.pairs if row["split"] == "test" else row["n"]
        worse = 1 + 0.01 * number
        for key in ("value", "low", "high"):
            if row[key] is not None:
                row[key] = row[key] / worse if row["higher_is_better"] else row[key] * worse
    write_scores(dataset, variant, rows)
    write_pairs(dataset, variant, steps, size.pairs)
    write_network(dataset, variant, steps)
    shown = [] if variant in FLOORS else list(samples(steps[-1], number, size.grain))
    store.write_table(layout.samples(dataset, variant), shown, schema.SAMPLES)
    figures = [] if variant in FLOORS else list(drawings(steps[-1], number, size.grain))
    store.write_table(layout.figures(dataset, variant), figures, schema.FIGURES)


def grained(image: np.ndarray, seed: int, grain: bool) -> np.ndarray:
    """The image, with noise that makes it as hard to compress as a photograph."""
    if not grain:
        return image
    noise = np.random.default_rng(seed).normal(0, 6, image.shape)
    return (image + noise).round().clip(0, 255).astype(np.uint8)


def samples(step: int, number: int, grain: bool) -> Iterable[Mapping]:
    """Rows of schema.SAMPLES: the first pairs, and some that a method fails on."""
    for index in [*range(SAMPLES), *(index for index in FAILING if index >= SAMPLES)]:
        (source, _), (target, joints) = person(2 * index), person(2 * index + 1)
        blurred = cv2.GaussianBlur(target, (0, 0), 1 + 0.2 * number)
        pictures = {"source": (source, 2 * index), "target": (target, 2 * index + 1)}
        pictures["generated"] = (blurred, 1000 * (number + 1) + index)
        yield {
            "step": step,
            "pair_index": index,
            "source_id": f"{index:04d}_c1.png",
            "target_id": f"{index:04d}_c2.png",
            "why": [failures.SAMPLE] * (index < SAMPLES) + ["lpips-alex-v0.1", "pckh@0.5"] * (index in FAILING),
            **{
                name: {"bytes": png(grained(image, seed, grain)), "path": None}
                for name, (image, seed) in pictures.items()
            },
            "target_keypoints": joints,
        }


def drawings(step: int, number: int, grain: bool) -> Iterable[Mapping]:
    """Rows of schema.FIGURES, of the size that `score` draws them in."""
    for index, kind in enumerate(("relation-maps", "flow")):
        panel = grained(person(2 * index)[0], number, grain)
        picture = cv2.imencode(".webp", np.hstack([panel] * 6), [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
        yield {"step": step, "kind": kind, "caption": f"pair {index}", "picture": {"bytes": picture, "path": None}}
