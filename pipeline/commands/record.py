"""Exchange results: pack a method's as one file, merge many authors' files into tables, score one's pictures again.

make   packs one method's result on one data set, of a variant or of images that `score --images` scored, as a file of
       a few MB without any photograph: scores, values of each pair, digests of every picture, list, checkpoint and
       code, machine, cost, and what the method saw. Equal inputs give equal bytes; a variant's seconds a picture and
       memory are measured once (.work/record). What cannot be known here is yours to state: see the options
merge  builds leaderboard, differences and a page from records and checks alone, in --output (default:
       reports/records): no image, no data set and no result of one's own is needed. Each row says that it is a record,
       by whom, of which code, and whether it was checked. What is there twice or at odds is named
check  scores some pairs of a record again from its author's images, which FOLDER has as `score --images` takes them,
       and writes beside the record what came of it, for `merge`. The first pair that differs is named; the exit status
       is then 1. The data set must be prepared here. A seed is drawn and said: whoever made the record cannot know it

Digests catch accidents; only `check` catches invention, and only of pictures and scores (docs/records.md).

  repose record make --dataset synthetic --variant spgnet --author "Ada L."
  repose record make --dataset market1501 --outside "My method" --licence MIT --bibtex mine.bib --code "URL at COMMIT"
  repose record merge records/*.json.gz
  repose record check records/synthetic--spgnet.json.gz --images FOLDER --pairs 200
"""

import argparse
import os
from pathlib import Path
from typing import Any

from pipeline.commands import positive
from pipeline.core import console, layout, params
from pipeline.core.errors import UserError
from pipeline.records import form
from pipeline.records.made import Stated

PAIRS = 200
OF_OUTSIDE = (
    "training_set", "pretraining", "target_parsing", "samples", "parameters", "seconds", "peak_memory"
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="what", metavar="make|merge|check", required=True)
    shape = {"description": __doc__, "formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    make = kinds.add_parser("make", help="pack a result", **shape)
    make.add_argument("--dataset", metavar="D", help="a data set of params.yaml (default: the only one)")
    which = make.add_mutually_exclusive_group(required=True)
    which.add_argument("--variant", metavar="V", help="a variant that was scored here")
    which.add_argument("--outside", metavar="NAME", help="a method whose images were scored here, by its name")
    make.add_argument("--output", type=Path, metavar="FILE", help="default: records/D--NAME.json.gz")
    _of_author(make)
    merge = kinds.add_parser("merge", help="tables and page of many records", **shape)
    merge.add_argument("files", nargs="+", type=Path, metavar="FILE", help="records, and checks of them")
    merge.add_argument(
        "--output", type=Path, default=Path("reports/records"), metavar="DIR", help="replaced as a whole"
    )
    check = kinds.add_parser("check", help="score a sample again", **shape)
    check.add_argument("file", type=Path, metavar="FILE", help="a record")
    check.add_argument("--images", required=True, type=Path, metavar="FOLDER", help="its author's images")
    check.add_argument("--pairs", type=positive, default=PAIRS, metavar="N", help=f"how many (default: {PAIRS})")
    check.add_argument("--seed", type=int, metavar="S", help="of the sample (default: drawn)")
    check.add_argument("--by", metavar="NAME", help="who checks, for the merged page")
    check.add_argument("--pattern", help="how files of images are called, as for score --images")
    check.add_argument("--numbering", help="what numbers in their names count, as for score --images")
    check.add_argument("--output", type=Path, metavar="FILE", help="default: beside the record, .check.json.gz")


def _of_author(make: argparse.ArgumentParser) -> None:
    """What only the author can state."""
    make.add_argument("--author", metavar="NAME", help="whose record it is")
    make.add_argument("--licence", help="of the method's code or weights, such as MIT")
    make.add_argument("--bibtex", type=Path, metavar="FILE", help="what to cite (default: a variant's paper)")
    make.add_argument("--code", default="", help="where the method's own code is, and which version drew the images")
    make.add_argument("--training-set", metavar="TEXT", help="of --outside: what it was trained on")
    make.add_argument(
        "--pretraining", nargs="+", default=(), metavar="TEXT", help="of --outside: weights it began from"
    )
    make.add_argument("--target-parsing", choices=("yes", "no"), help="of --outside: was it given the true target's?")
    make.add_argument("--samples", type=positive, default=1, metavar="N", help="of --outside: images drawn of a pair")
    make.add_argument("--parameters", type=positive, metavar="N", help="of --outside")
    make.add_argument("--seconds", type=float, metavar="S", help="of --outside: a picture")
    make.add_argument("--peak-memory", type=positive, metavar="BYTES", help="of --outside")


def run(what: str, **options) -> int:
    """1 for a check that found a difference, else 0. Raises UserError."""
    return {"make": make, "merge": merge, "check": check}[what](**options) or 0


def make(dataset: str | None, variant: str | None, outside: str | None, output: Path | None, **author: Any) -> None:
    from pipeline.commands.score_images import slug
    from pipeline.records import made

    known = params.datasets()
    if (dataset or known[0]) not in known or (dataset is None and len(known) > 1):
        raise UserError(f"--dataset {dataset or 'is not given'}; {layout.PARAMS} names: {', '.join(known)}")
    dataset, name = dataset or known[0], variant or outside
    stated = _stated(variant is not None, **author)
    path = output or Path("records") / f"{dataset}--{variant or slug(name)}{form.ENDING}"
    result = made.find(dataset, name, outside is not None)
    cost = _cost(dataset, variant, int(result.chosen["step"])) if variant else {}
    content = made.record(result, stated, cost)
    digest = form.write(path, content)
    console.say(f"{path}: {name} on {dataset}, {len(content['pairs'])} pairs; it goes by {digest[:12]}")


def _stated(of_variant: bool, bibtex: Path | None, target_parsing: str | None, **given: Any) -> Stated:
    """Raises UserError for a file that cannot be read, and for what is known of a variant."""
    try:
        text = bibtex.read_text(encoding="utf-8").strip() if bibtex else None
    except (OSError, UnicodeDecodeError):
        raise UserError(f"--bibtex {bibtex}: not there, or no text in UTF-8") from None
    told = {"yes": True, "no": False, None: None}[target_parsing]
    found = Stated(bibtex=text, target_parsing=told, **given | {"pretraining": tuple(given["pretraining"])})
    own = [key for key in OF_OUTSIDE if getattr(found, key) != getattr(Stated(), key)]
    if of_variant and own:
        raise UserError(f"--{own[0].replace('_', '-')}: of a variant it is known; leave it out")
    return found


def _cost(dataset: str, variant: str, step: int) -> dict[str, Any]:
    """Seconds a picture, peak memory and device, measured once for a checkpoint on a machine: equal records later."""
    from models.variants import VARIANTS
    from pipeline.core import seals
    from pipeline.core.atomic import atomic_file
    from pipeline.core.digests import sha256
    from pipeline.loading import checkpoints
    from pipeline.records import made

    folder, kept = layout.checkpoints(dataset, variant), layout.work("record", dataset, variant) / "cost.json"
    of = {"checkpoint": sha256(checkpoints.path(folder, step)), "machine": form.sha256(made.machine())}
    if kept.exists() and seals.fault(kept) == "" and of.items() <= (found := seals.read_json(kept)).items():
        return found["cost"]
    from pipeline.loading.devices import device
    from pipeline.scoring.cost import blank, timed
    from pipeline.stages import score

    where = device(params.block(score.Params, "score", dataset).device)
    generator, meta = checkpoints.load(folder, step)
    entry = VARIANTS[params.variant_of(variant)]
    batch = blank(meta["height"], meta["width"], entry.needs_parsing, entry.given_target_parsing, where)
    seconds, memory = timed(generator.to(where), batch)
    cost = {"seconds": float(f"{seconds:.3g}"), "peak_memory": memory, "device": str(where)}
    with atomic_file(kept) as partial:
        partial.write_text(seals.json_text({**of, "cost": cost}), encoding="utf-8")
    return cost


def merge(files: list[Path], output: Path) -> None:
    from pipeline.records import merged
    from pipeline.stages import tables

    block = params.block(tables.Params, "tables")
    merged.write(output, [form.read(path) for path in files], block.bootstrap, block.seed)


def check(
    file: Path, images: Path, pairs: int, seed: int | None, by: str | None, pattern: str | None, numbering: str | None,
    output: Path | None,
) -> int:  # fmt: skip
    record = form.read(file, form.RECORD)
    dataset = record["dataset"]
    if dataset not in params.datasets():
        raise UserError(f"{file}: of {dataset}, which is not among the data sets of {layout.PARAMS}: prepare it first")
    from pipeline.commands.score_images import known_names
    from pipeline.loading.devices import device
    from pipeline.records import again
    from pipeline.scoring import image_folder
    from pipeline.scoring.pairs import open_split
    from pipeline.scoring.protocol import open_protocol
    from pipeline.stages import score

    seed = int.from_bytes(os.urandom(4)) if seed is None else seed
    where = device(params.block(score.Params, "score", dataset).device)
    protocol = open_protocol(dataset, where)
    described = protocol.reference.described
    split = open_split(dataset, "test", where, protocol.reference)
    sample = again.draw(record, split, pairs, seed)
    names, unchecked = again.comparable(record, described, len(sample.rows) == len(record["pairs"]))
    differs = sample.differs
    if differs is None:
        known, counted = known_names(dataset, split, described["pairs"]["test"]["limit"], numbering)
        matched, _, _ = image_folder.named(images, split, known, pattern, counted)
        found, problems = image_folder.check(split, {row: matched[row] for row in sample.positions if row in matched})
        if not found:
            raise UserError(f"{images}: no image of the {len(sample.rows)} sampled pairs; give the author's images")
        lacking = [place for place, row in enumerate(sample.positions) if row not in found]
        if lacking:
            index, source, target, *_ = sample.rows[lacking[0]]
            path = matched.get(sample.positions[lacking[0]])
            why = dict(problems).get(path, f"no image in {images}")
            differs = f"pair {index} ({source} -> {target}): {path.name + ': ' if path else ''}{why}"
        else:
            differs = again.differing(record, sample, names, split, found, protocol)
    path = output or file.with_name(f"{file.name.removesuffix(form.ENDING)}.check{form.ENDING}")
    form.write(path, again.check(record, sample, names, unchecked, seed, by, differs))
    for name, why in unchecked.items():
        console.say(f"  {name}: not checked: {why}")
    said = f"{len(sample.rows)} of {len(record['pairs'])} pairs, seed {seed}"
    if differs:
        console.say(f"{file}: {record['method']} on {dataset} is not what these images score: {differs}")
        console.say(f"{path}: says so ({said})")
        return 1
    console.say(f"{file}: checked, {said}: {', '.join(names)}; {path} says so")
    return 0
