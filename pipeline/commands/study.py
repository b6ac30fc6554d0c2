"""Ask people: make the forms of a user study, and score what they answered.

make   draws what each rater sees and writes, to --output (default: studies/D-FORM-SEED),
         forms/rater-NN.html  a form for each rater, to be opened in a browser, on a phone, too: give each to one person
         forms/rater-NN/      its pictures, where they are photographs (see below): give the folder with the form
         key.json             what every picture is: keep it to yourself
         answers/             empty: put the files here that the raters save at the end
score  reads FOLDER, which `make` wrote, checks and pools the files in its answers/, and writes to reports/studies/NAME,
       NAME being the folder's: results.csv and .md, differences.csv, votes.csv, left_out.csv and study.json. The
       papers' tables of user studies have the numbers on their next run; to drop a study, remove its folder there.

A method is a trained variant, whose images are made here, or a folder of images, read as `score --images` reads it,
called by its name or by yours: NAME=FOLDER. Named as a paper's baseline (PATN=FOLDER), it stands below that one's
numbers. Pairs are drawn from the test list, of those that all methods have an image of.

Forms, by the papers that describe them (docs/studies.md):
  spig   55 real and 55 generated images of each method, shuffled, each shown for one second; the first ten are not
         counted. Then the best of all methods' images for 30 pairs, beside source and target pose
  pidm   30 and 30 of each method, for as long as one likes. Then the best for 30 pairs, the true target beside them

Photographs of people, and what was drawn from them, lie in a folder beside the form; --photographs embed puts them
into the page. Whoever gets a form gets photographs: it says whose licence binds them.

  repose study make --dataset synthetic --methods spgnet mean_image --form spig --raters 5 --images 12 --groups 8
  repose study make --dataset market1501 --methods spig PATN=patn-images --form pidm --raters 20 --seed 1
  repose study score studies/market1501-pidm-1
"""

import argparse
import csv
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import datasets
from pipeline.commands import positive
from pipeline.core import console, layout, params, seals, store
from pipeline.core.atomic import atomic_directory
from pipeline.core.errors import UserError
from pipeline.studies import draw, rates, votes
from pipeline.studies.form import Shown, Words, page

if TYPE_CHECKING:
    from pipeline.loading.runs import Trained

FORMS, KEY, ANSWERS = Path("forms"), Path("key.json"), Path("answers")
NAMES = {"r2g": "R2G", "g2r": "G2R", "prefer": "Prefer"}


def _count(text: str) -> int:
    """A whole number of 0 or more."""
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="what", metavar="make|score", required=True)
    shape = {"description": __doc__, "formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    make = kinds.add_parser("make", help="write the forms of a study", **shape)
    make.add_argument("--dataset", required=True, help="a prepared data set, such as synthetic or market1501")
    make.add_argument(
        "--methods", required=True, nargs="+", metavar="V", help="trained variants, FOLDERs or NAME=FOLDERs of images"
    )
    make.add_argument("--form", required=True, choices=tuple(draw.FORMS), help="whose, see above")
    make.add_argument("--raters", required=True, type=positive, metavar="N", help="how many people are asked")
    make.add_argument("--seed", type=_count, default=0, metavar="S", help="another draw (default: 0)")
    make.add_argument(
        "--images", type=_count, metavar="N", help="real and generated ones of a method (default: form's)"
    )
    make.add_argument("--groups", type=_count, metavar="N", help="pairs to pick the best of (default: the form's)")
    make.add_argument("--output", type=Path, metavar="DIR", help="a new or empty folder")
    make.add_argument("--photographs", choices=("link", "embed"), help="beside the form, or in it: see above")
    make.add_argument("--pattern", help="how files of images are called, as for score --images")
    make.add_argument("--numbering", help="what numbers in their names count, as for score --images")
    score = kinds.add_parser("score", help="check and pool the answers", **shape)
    score.add_argument("folder", type=Path, metavar="FOLDER", help="what `repose study make` wrote")


def run(what: str, **options) -> None:
    """Raises UserError."""
    {"make": make, "score": score}[what](**options)


# ---- make


@dataclass(frozen=True)
class Method:
    """A trained variant, or a folder of images."""

    name: str
    folder: Path | None

    @property
    def described(self) -> str:
        return "variant" if self.folder is None else "folder"


@dataclass(frozen=True)
class Stored:
    """The usable test pairs and their images, as much of `judged.Pairs` as finding files takes."""

    dataset: str
    table: pa.Table  # of schema.PAIRS, in list order

    @cached_property
    def ids(self) -> list[str]:
        return sorted({*self.table["source_id"].to_pylist(), *self.table["target_id"].to_pylist()})

    @cached_property
    def pair_ids(self) -> list[int]:
        return self.table["pair_index"].to_pylist()

    @cached_property
    def ends(self) -> dict[int, tuple[str, str]]:
        """pair_index -> source and target."""
        names = (self.table[name].to_pylist() for name in ("source_id", "target_id"))
        return dict(zip(self.pair_ids, zip(*names, strict=True), strict=True))

    @cached_property
    def rows(self) -> np.ndarray:
        row = {name: number for number, name in enumerate(self.ids)}
        return np.array([[row[name] for name in self.ends[pair]] for pair in self.pair_ids])

    @cached_property
    def size(self) -> tuple[int, int]:
        return self.picture(self.ids[0]).shape[:2]

    @cached_property
    def _reader(self) -> store.RandomReader:
        return store.RandomReader(layout.images(self.dataset), ["image"])

    def picture(self, image_id: str) -> np.ndarray:
        from pipeline.formats import pictures

        return pictures.decode_stored(self._reader[image_id]["image"]["bytes"], image_id)

    def __len__(self) -> int:
        return len(self.table)


def _methods(given: Sequence[str]) -> list[Method]:
    """Raises UserError for what is neither a variant nor a folder, and for a name that comes twice."""
    found = []
    for text in given:
        name, equals, path = text.partition("=")
        if equals and name:
            found.append(Method(name, Path(path)))
        elif text in params.variants() or not Path(text).is_dir():
            found.append(Method(text, None))
        else:
            found.append(Method(Path(text).resolve().name, Path(text)))
    for method in found:
        if method.folder is None and method.name not in params.variants():
            raise UserError(
                f"--methods {method.name}: neither a folder nor a variant in {layout.PARAMS} "
                f"({', '.join(params.variants())})"
            )
        if method.folder is not None and not method.folder.is_dir():
            raise UserError(f"--methods {method.name}={method.folder}: no such folder")
    names = [method.name for method in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"--methods: two are called {twice[0]}; give one of them another name: NAME=FOLDER")
    return found


def _embedded(dataset: str, photographs: str | None) -> bool:
    """Whether pictures go into the page. Raises UserError where params.yaml says that none are shown."""
    from pipeline.report.page import is_drawn

    if is_drawn(dataset):
        return photographs != "link"
    if photographs is None and params.load()["report"]["photographs"] == "none":
        raise UserError(
            f"report.photographs in {layout.PARAMS} is none, and a form shows photographs of {datasets.title(dataset)};"
            " say --photographs link (beside the form) or embed (in it)"
        )
    return photographs == "embed"


def _words(dataset: str) -> Words:
    from pipeline.report.page import is_drawn

    if is_drawn(dataset):
        return Words("original drawings of people", "", "", None)
    about, source = datasets.get(dataset).ABOUT, layout.raw(dataset) / "source.json"
    if about.licence is None:
        return Words("photographs of people", "They are private", "their owners decide who may see them", None)
    try:
        terms = seals.read_json(source)["terms"]
    except (OSError, ValueError, KeyError):
        raise UserError(f"{source}: not there, or damaged; run: repose fetch --dataset {dataset}") from None
    return Words("photographs of people", f"They are from {datasets.title(dataset)}", terms, about.licence)


def make(
    dataset: str, methods: list[str], form: str, raters: int, seed: int, images: int | None, groups: int | None,
    output: Path | None, photographs: str | None, pattern: str | None, numbering: str | None,
) -> None:  # fmt: skip
    """Draw a study and write its forms. Raises UserError, before anything is generated if it can be known by then."""
    from pipeline.loading import pair_lists

    if dataset not in params.datasets():
        raise UserError(f"unknown dataset {dataset}; {layout.PARAMS} names: {', '.join(params.datasets())}")
    asked, embedded, words = _methods(methods), _embedded(dataset, photographs), _words(dataset)
    output = output or Path("studies") / f"{dataset}-{form}-{seed}"
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: there is something already, a study perhaps; name a new folder with --output")
    stored = Stored(dataset, pair_lists.read(dataset, "test"))
    files = {one.name: _files(one.folder, stored, pattern, numbering) for one in asked if one.folder is not None}
    common = set(stored.pair_ids).intersection(*files.values())
    targets = {pair: stored.ends[pair][1] for pair in sorted(common)}
    shape, names = draw.FORMS[form].resized(images, groups), [one.name for one in asked]
    if not shape.images and not shape.groups:
        raise UserError("--images 0 and --groups 0: nothing is asked then")
    sheets = draw.sheets(shape, names, targets, raters, seed)
    pool = {one.name: _pool(one, dataset, stored, _wanted(sheets, one.name), files.get(one.name)) for one in asked}
    _write(output, dataset, shape, seed, asked, sheets, stored, pool, words, embedded)


def _wanted(sheets: Iterable[draw.Sheet], method: str) -> list[int]:
    """The pairs of which a method's image is shown to anybody."""
    items = [item for sheet in sheets for item in sheet.items]
    return sorted({i.pair for i in items if isinstance(i, draw.Group) or (i.method == method and not i.real)})


def _files(folder: Path, stored: Stored, pattern: str | None, numbering: str | None) -> dict[int, Path]:
    """pair_index -> its file. Raises UserError if there is none."""
    from pipeline.commands import score_images
    from pipeline.scoring import image_folder

    known, counted = score_images.known_names(stored.dataset, stored, None, numbering)
    found, left, _ = image_folder.named(folder, stored, known, pattern, counted)
    if not found:
        raise UserError(score_images.advice(folder, stored.dataset, stored, 0, left))
    return {stored.pair_ids[position]: path for position, path in found.items()}


def _pool(
    method: Method, dataset: str, stored: Stored, pairs: list[int], files: Mapping[int, Path] | None
) -> dict[int, bytes]:
    """A method's images of these pairs, encoded. Raises UserError for a file that is no such image."""
    from pipeline.formats import pictures
    from pipeline.scoring import image_folder

    found = {}
    with console.progress(f"images of {method.name}", len(pairs)) as advance:
        if files is None:
            for batch_ids, images in _generated(dataset, method.name, stored, pairs) if pairs else ():
                found |= {pair: pictures.encode_webp(one) for pair, one in zip(batch_ids, images, strict=True)}
                advance(len(batch_ids))
            return found
        for pair in pairs:
            read = image_folder.read(files[pair], *map(stored.picture, stored.ends[pair]))
            if isinstance(read, str):
                raise UserError(f"{files[pair]}: {read}; replace it, or take it out")
            found[pair] = pictures.encode_webp(read[0])
            advance()
    return found


def _generated(dataset: str, variant: str, stored: Stored, pairs: list[int]) -> Iterable[tuple[list[int], np.ndarray]]:
    """pair_index and images (n, H, W, 3) uint8 of a trained variant, by the checkpoint that stands for it."""
    from pipeline.commands.export import open_variant
    from pipeline.scoring import checkpoint
    from pipeline.scoring.pairs import load
    from pipeline.stages import score as scoring

    trained: Trained = open_variant(dataset, variant, None, params.block(scoring.Params, "score", dataset).device)
    height, width = stored.size
    checkpoint.require_size(trained.meta, {"height": height, "width": width}, trained.title)
    wanted = stored.table.filter(pc.is_in(stored.table["pair_index"], pa.array(pairs)))
    data = load(dataset, wanted, trained.device, trained.label_set)
    return checkpoint.generate(trained.generator, 16, trained.title, trained.reads_target_parsing, data)


def _write(
    output: Path, dataset: str, shape: draw.Form, seed: int, methods: Sequence[Method], sheets: Sequence[draw.Sheet],
    stored: Stored, pool: Mapping[str, Mapping[int, bytes]], words: Words, embedded: bool,
) -> None:  # fmt: skip
    """The folder of a study."""
    real = _real(dataset, stored, sheets, shape)
    raters = {f"{number:0{len(str(len(sheets)))}d}": sheet for number, sheet in enumerate(sheets, 1)}
    key = {
        "dataset": dataset,
        "form": shape.described(),
        "seed": seed,
        "methods": {one.name: one.described for one in methods},
        "raters": {rater: {"items": sheet.items} for rater, sheet in raters.items()},
    }
    digest = hashlib.sha256(json.dumps(key).encode())
    for images in pool.values():
        for pair in sorted(images):
            digest.update(images[pair])
    study = digest.hexdigest()[:12]

    def generated(group: draw.Group) -> Shown:
        source, target = stored.ends[group.pair]
        given = {"This person": real[source], "in this pose": real[f"pose {target}"]}
        given |= {"real picture": real[target]} if shape.target else {}
        return Shown(given, [pool[method][group.pair] for method in group.methods])

    with atomic_directory(output) as partial:
        (partial / FORMS).mkdir()
        (partial / ANSWERS).mkdir()
        (partial / KEY).write_text(json.dumps({"study": study, **key}, ensure_ascii=False) + "\n", encoding="utf-8")
        for rater, sheet in raters.items():
            blocks = [
                [real[stored.ends[one.pair][1]] if one.real else pool[one.method][one.pair] for one in block]
                for block in sheet.blocks
            ]
            folder = None if embedded else f"rater-{rater}"
            text, beside = page(study, rater, shape, blocks, list(map(generated, sheet.groups)), words, folder)
            (partial / FORMS / f"rater-{rater}.html").write_text(text, encoding="utf-8")
            if folder:
                (partial / FORMS / folder).mkdir()
            for name, content in beside.items():
                (partial / FORMS / folder / name).write_bytes(content)
    size = sum(path.stat().st_size for path in (output / FORMS).rglob("*") if path.is_file()) / len(sheets) / 1e6
    items = len(sheets[0].items)
    console.say(
        f"{output / FORMS}: {len(sheets)} forms of {items} items, {size:.1f} MB each"
        f"{'' if embedded else ' with the folder of its pictures'}; give each to one person"
    )
    console.say(f"{output / KEY}: what every picture is; keep it to yourself")
    console.say(f"Put the files that the raters save into {output / ANSWERS}, then run: repose study score {output}")


def _real(dataset: str, stored: Stored, sheets: Iterable[draw.Sheet], shape: draw.Form) -> dict[str, bytes]:
    """The stored images that anybody is shown, by id, and the poses of sets, as "pose ID"; encoded."""
    from pipeline.anatomy import pose
    from pipeline.figures import subject
    from pipeline.formats import pictures
    from pipeline.loading.runs import Pose

    items = [item for sheet in sheets for item in sheet.items]
    groups = {item.pair for item in items if isinstance(item, draw.Group)}
    shown = {stored.ends[item.pair][1] for item in items if isinstance(item, draw.Judged) and item.real}
    shown |= {stored.ends[pair][0] for pair in groups}
    shown |= {stored.ends[pair][1] for pair in groups} if shape.target else set()
    found = {}
    with console.progress("stored images", len(shown)) as advance:
        for name in sorted(shown):
            found[name] = pictures.encode_webp(stored.picture(name))
            advance()
    posed = {stored.ends[pair][1] for pair in groups}
    table = store.read_table(layout.keypoints(dataset), ["image_id", "keypoints"])
    table = table.filter(pc.is_in(table["image_id"], pa.array(sorted(posed), pa.string())))
    for name, joints, valid in zip(table["image_id"].to_pylist(), *pose.batch_arrays(table["keypoints"]), strict=True):
        found[f"pose {name}"] = pictures.encode_webp(subject.skeleton(Pose(name, joints, valid), *stored.size))
    return found


# ---- score


def score(folder: Path) -> None:
    """Check and pool the answers of a study, and write its results. Raises UserError if there are none that count."""
    key = _key(folder / KEY)
    given = sorted(path for path in (folder / ANSWERS).glob("[!.]*") if path.is_file())
    answers, left_out = votes.gather({path.name: path.read_bytes() for path in given}, key)
    for name, why in left_out:
        console.say(f"{name}: left out; {why}")
    if not answers:
        raise UserError(
            f"{folder / ANSWERS}: "
            + (f"none of {len(given)} files counts" if given else "no file; put the raters' JSON files there")
        )
    pooled, methods = votes.pool(answers, key), list(key["methods"])
    found, apart = rates.rates(pooled, methods), rates.differences(pooled, methods)
    name = folder.resolve().name
    about = {one: key[one] for one in ("study", "dataset", "form", "seed", "methods")}
    about |= {"name": name, "raters": len(answers), "asked": len(key["raters"]), "left_out": len(left_out)}
    with atomic_directory(layout.study(name)) as partial:
        _csv(partial / "results.csv", rates.Rate._fields, found)
        _csv(partial / "differences.csv", rates.Apart._fields, apart)
        _csv(partial / "votes.csv", votes.Vote._fields, pooled)
        _csv(partial / "left_out.csv", ("file", "why"), left_out)
        (partial / "study.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (partial / "results.md").write_text(_page(about, found, apart), encoding="utf-8")
    print(_table(about, found))
    unheard = [rater for rater in key["raters"] if rater not in answers]
    if unheard:
        console.say(f"no answers that count of {len(unheard)} of {len(key['raters'])} raters: {', '.join(unheard)}")
    console.say(f"{layout.study(name)}: {len(pooled)} votes of {len(answers)} raters; the next run of tables has them")


def _key(path: Path) -> dict:
    try:
        assert not seals.fault(path)
        key = json.loads(path.read_text(encoding="utf-8"))
        assert {"study", "dataset", "form", "seed", "methods", "raters"} <= key.keys()
    except FileNotFoundError:
        raise UserError(f"{path}: not there; name the folder that `repose study make` wrote") from None
    except (ValueError, AttributeError, AssertionError):
        raise UserError(f"{path}: damaged; the votes cannot be read without it") from None
    return key


def _csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([console.readable(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)


def _interval(low: float, high: float) -> str:
    return "" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]"


def _table(about: Mapping, found: Sequence[rates.Rate]) -> str:
    """A row for each method, a column for each measure, as Markdown."""
    import pandas as pd

    from pipeline.tables.text import markdown

    cells = {(one.method, one.measure): f"{one.value:.2f}{_interval(one.low, one.high)}" for one in found}
    measures = [name for name in rates.MEASURES if any(one.measure == name for one in found)]
    rows = [[method, *(cells[method, name] for name in measures)] for method in about["methods"]]
    return markdown(pd.DataFrame(rows, columns=["Method", *(f"{NAMES[name]} (%) ↑" for name in measures)]))


def _page(about: Mapping, found: Sequence[rates.Rate], apart: Sequence[rates.Apart]) -> str:
    from pipeline.tables.studies import notes

    ties = [f"{one.one} and {one.other} ({NAMES[one.measure]})" for one in apart if one.verdict == "tie"]
    lines = [*notes(about), *([f"Not told apart at 95 %, two at a time: {', '.join(ties)}."] if ties else [])]
    counts = [f"{one.method}, {NAMES[one.measure]}: {one.hits} of {one.votes} votes" for one in found]
    listed = "".join(f"- {line}\n" for line in [*lines, f"Counts: {'; '.join(counts)}."])
    return f"## User study {about['name']}, {datasets.title(about['dataset'])}\n\n{_table(about, found)}\n\n{listed}"
