"""Draw one of the papers' figures as a PNG, with a trained variant on prepared images.

  repose figure grid --dataset synthetic
  repose figure relation-maps --dataset synthetic --variant spig

More on each kind: repose figure KIND --help. Pairs are test pairs, given by their pair_index. Generators
see only the target's joints; panels of a target's image or parsing are there to compare with, and say so.

The checkpoint is the one that stands for the variant in the tables (before scoring: the last); --step takes another.
The picture goes to reports/figures/DATASET/, or to --output. It shows the data set's photographs: those of Market-1501
and DeepFashion are for research only, so do not publish their figures where you would not publish the images.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from models.variants import COMPONENTS, VARIANTS
from pipeline.commands import positive
from pipeline.core import layout, params, store
from pipeline.core.atomic import atomic_file
from pipeline.core.console import say
from pipeline.core.errors import UserError
from pipeline.figures import appearance, distance_maps, failures, flow, grid, parsing, poses, relation_maps, subject
from pipeline.formats import pictures
from pipeline.loading import checkpoints, devices, runs
from pipeline.tables.inputs import choose, read_scores
from pipeline.training import training_data

Drawn = tuple[np.ndarray, str]  # the picture and the stem of its default name, under reports/figures/DATASET/


def _relation_maps(
    dataset: str, variant: str, step: int | None, pair: int | None, patch: Sequence[Sequence[int]], over: str
) -> Drawn:
    """Where the pyramid non-local block looks from a target patch (SPIG's Figure 7).

    For each target patch and each size of the pyramid (6 x 6 and 4 x 4), a heat map of the patches it gathers from,
    over the generated image; the red frame is the target patch. Default patches: torso, legs and background.

      repose figure relation-maps --dataset synthetic --variant spig
      repose figure relation-maps --dataset synthetic --variant spig --pair 3 --patch 1 2 --patch 4 2
    """
    trained, chosen = _variant(dataset, variant, step), subject.pairs(dataset, pair)[0]
    picture = relation_maps.draw(trained, *_people(dataset, chosen, trained.reads_parsing), patch or (), over)
    return picture, f"relation-maps-{variant}-{trained.step}-pair{chosen['pair_index']}"


def _poses(
    dataset: str, variant: str, step: int | None, image: str, count: int, seed: int, split: str, reference: bool
) -> Drawn:
    """One person in poses drawn at random from the data set (SPIG's Figure 8).

    Only the joints of the other images are read; with --reference, those images are shown below as well. `inspect`
    lists names of images.

      repose figure poses --dataset synthetic --variant spig --image ID --count 8 --seed 1
    """
    trained = _variant(dataset, variant, step)
    source = subject.people(dataset, [image], trained.reads_parsing)[image]
    targets = poses.random_poses(subject.poses(dataset, split), source, count, seed)
    shown = subject.people(dataset, [target.image_id for target in targets]) if reference else {}
    picture = poses.draw(trained, source, targets, [shown[t.image_id].picture for t in targets if reference])
    return picture, f"poses-{variant}-{trained.step}-{_plain(image)}-seed{seed}"


def _flow(dataset: str, variant: str, step: int | None, pair: int | None) -> Drawn:
    """The flow by which a variant warps its source, and what it takes for visible.

    A row for each body part (SPIG), or one for the whole body (SPGNet): the flow in the colours of the wheel,
    visibility (white: visible), the source warped by the flow, and the same with what is invisible faded.

      repose figure flow --dataset synthetic --variant spig
    """
    trained, chosen = _variant(dataset, variant, step), subject.pairs(dataset, pair)[0]
    picture = flow.draw(trained, *_people(dataset, chosen, trained.reads_parsing))
    return picture, f"flow-{variant}-{trained.step}-pair{chosen['pair_index']}"


def _parsing(dataset: str, variant: str, step: int | None, pair: int | None) -> Drawn:
    """Parsing of the source, of the target as predicted from the pose, and of the target (SPGNet, SPT).

    The prediction is made from the source's parsing and the pose; the target's own parsing is there to compare with.

      repose figure parsing --dataset synthetic --variant spgnet
    """
    trained, chosen = _variant(dataset, variant, step), subject.pairs(dataset, pair)[0]
    picture = parsing.draw(trained, *_people(dataset, chosen, parsing=True))
    return picture, f"parsing-{variant}-{trained.step}-pair{chosen['pair_index']}"


def _distance_maps(dataset: str, image: str | None) -> Drawn:
    """The twelve distance maps of one pose (SPGNet's supplement, Figure A).

    Those that `distance_maps` stored. Default image: the target of the fixed pair.

      repose figure distance-maps --dataset synthetic
    """
    image = image or subject.pairs(dataset)[0]["target_id"]
    person = subject.people(dataset, [image])[image]
    row = store.RandomReader(layout.distance_maps(dataset))[image]
    maps = np.frombuffer(row["distance_maps"], np.uint8).reshape(-1, row["height"], row["width"])
    return distance_maps.draw(person, maps, training_data.kappa(dataset)), f"distance-maps-{_plain(image)}"


def _stage_one(dataset: str, pair: int | None) -> Drawn:
    """One pair's target parsing, predicted without distance maps and with them, beside the target's (SPGNet).

    By the last checkpoints of the components spatn_no_distance and spatn, both of which must be trained.

      repose figure stage-one --dataset synthetic --pair 3
    """
    titles = {"spatn_no_distance": "without distance maps", "spatn": "with distance maps"}
    opened = [subject.open_component(dataset, name, devices.device("auto")) for name in titles]
    chosen = subject.pairs(dataset, pair)[0]
    picture = parsing.compare(opened, list(titles.values()), *_people(dataset, chosen, parsing=True))
    return picture, f"stage-one-pair{chosen['pair_index']}"


def _end_to_end(dataset: str, variants: Sequence[str] | None, pairs: int) -> Drawn:
    """TS-Pred beside E2E: the target's parsing that each predicts, and the image that it paints into it (SPT).

    Other variants that predict a parsing can be named. The pairs are a fixed draw from the test list.

      repose figure end-to-end --dataset synthetic
      repose figure end-to-end --dataset synthetic --variants spt spt_balanced --pairs 6
    """
    trained = [_variant(dataset, name, None) for name in variants or ("spt_ts_pred", "spt")]
    return grid.draw(trained, _pairs_of_people(dataset, pairs, parsing=True), parsing=True), "end-to-end"


def _failures(dataset: str, variant: str, step: int | None, count: int, among: int) -> Drawn:
    """SPT's two kinds of failure: a wrongly predicted parsing, and a stand-in that wears other clothes.

    The worst of --among test pairs (a fixed draw), by the share of the person's pixels that are predicted wrongly; and
    of --among training images (evenly spaced), by the share of their pixels that would have to change label to become
    the stand-in's. docs/figures.md has both measures.

      repose figure failures --dataset synthetic --variant spt
      repose figure failures --dataset synthetic --variant spt --count 3 --among 500
    """
    trained = _variant(dataset, variant, step)
    data = [COMPONENTS[name].data for name in trained.entry.components]
    rule = next((training_data.RULES[kind] for kind in data if kind in training_data.RULES), None)
    if rule is None:
        raise UserError(f"{variant}: learned from no pseudo labels; try spt or spt_ts_pred")
    people = _pairs_of_people(dataset, among, parsing=True)
    errors = [failures.parsing_error(trained, *pair) for pair in people]
    pairs = [(errors[row], *people[row]) for row in failures.worst(errors, count)]

    found = store.read_table(layout.pseudo_labels(dataset, rule))
    found = found.filter(found["pseudo_id"].is_valid()).to_pylist()
    found = [found[row] for row in np.unique(np.linspace(0, len(found) - 1, among).round().astype(int))]
    shown = subject.people(dataset, [row[end] for row in found for end in ("image_id", "pseudo_id")], parsing=True)
    sides = [(shown[row["image_id"]], shown[row["pseudo_id"]]) for row in found]
    errors = [failures.search_error(image.labels, stand_in.labels) for image, stand_in in sides]
    searched = [(errors[row], found[row], *sides[row]) for row in failures.worst(errors, count)]
    picture = failures.draw(trained, pairs, searched, (len(people), len(found)), rule)
    return picture, f"failures-{variant}-{trained.step}"


def _texture_transfer(dataset: str, variant: str, step: int | None, first: str, second: str) -> Drawn:
    """Exchange the clothes' texture of two people (SPT's first application).

    A's appearance in B's parsing and pose, and B's in A's. `inspect` lists names of images.

      repose figure texture-transfer A B --dataset synthetic --variant spt
    """
    trained = _variant(dataset, variant, step)
    found = subject.people(dataset, [first, second], parsing=True)
    picture = appearance.transfer(trained, found[first], found[second])
    return picture, f"texture-transfer-{variant}-{trained.step}-{_plain(first)}-{_plain(second)}"


def _edit(
    dataset: str,
    variant: str,
    step: int | None,
    image: str,
    parsing: Path | None,
    relabel: Sequence[str] | None,
    save_parsing: Path | None,
) -> Drawn:
    """Change a person's clothes by editing their parsing (SPT's second application).

    Either replace labels by others (repeat --relabel for several), or paint: --save-parsing writes the image's parsing
    as a PNG in the legend's colours, --parsing reads it back after editing (without smoothing; a grey PNG of label ids
    will do too). The person keeps pose and appearance.

      repose figure edit --dataset synthetic --variant spt --image ID --relabel pants=skirt
      repose figure edit --dataset synthetic --variant spt --image ID --save-parsing mine.png
      repose figure edit --dataset synthetic --variant spt --image ID --parsing mine.png
    """
    trained = _variant(dataset, variant, step)
    person = subject.people(dataset, [image], parsing=True)[image]
    edited = person.labels if parsing is None else appearance.read_parsing(parsing, person)
    edited = appearance.relabel(edited, relabel or (), image)
    if save_parsing is not None:
        _refuse_other_than_png("--save-parsing", save_parsing)
        with atomic_file(save_parsing) as partial:
            partial.write_bytes(appearance.write_parsing(edited))
        say(f"parsing: {save_parsing}")
    elif parsing is None and not relabel:
        has = appearance.present(person.labels)
        raise UserError(f"nothing to edit: give --relabel FROM=TO or --parsing FILE; {image} has: {has}")
    return appearance.edit(trained, person, edited), f"edit-{variant}-{trained.step}-{_plain(image)}"


def _grid(dataset: str, variants: Sequence[str] | None, pairs: int) -> Drawn:
    """Source, target pose, target, and every variant's image of the same pairs: the papers' comparison figure.

    Default variants: all of params.yaml that are trained. The pairs are a fixed draw from the test list.

      repose figure grid --dataset synthetic
      repose figure grid --dataset synthetic --variants spig copy_source --pairs 6
    """
    if not variants:
        variants = [name for name in params.variants() if layout.checkpoints(dataset, name).exists()]
        if not variants:
            raise UserError(f"{dataset}: no variant of {layout.PARAMS} is trained; run train, or name --variants")
    trained = [_variant(dataset, name, None) for name in variants]
    people = _pairs_of_people(dataset, pairs, any(one.reads_parsing for one in trained))
    return grid.draw(trained, people), "grid"


KINDS: dict[str, Callable[..., Drawn]] = {
    "relation-maps": _relation_maps,
    "poses": _poses,
    "flow": _flow,
    "parsing": _parsing,
    "distance-maps": _distance_maps,
    "stage-one": _stage_one,
    "end-to-end": _end_to_end,
    "failures": _failures,
    "texture-transfer": _texture_transfer,
    "edit": _edit,
    "grid": _grid,
}


def chosen_step(dataset: str, variant: str) -> int:
    """The checkpoint that stands for the variant in the tables; before it was scored, the last one."""
    steps = checkpoints.steps(layout.checkpoints(dataset, variant))
    if layout.scores(dataset, variant).exists():
        choose_by = params.load()["tables"]["choose_by"]
        scores = read_scores(layout.scores(dataset, variant))
        chosen = choose(scores, choose_by["metric"].upper(), choose_by["split"])
        if chosen is not None and chosen["step"] in steps:
            return int(chosen["step"])
    if not steps:
        command = f"repose train --dataset {dataset} --variant {variant}"
        raise UserError(f"{layout.checkpoints(dataset, variant)}: no checkpoint; run: {command}")
    say(f"{variant}: not scored yet, so no checkpoint was chosen; the last one, step {steps[-1]}")
    return steps[-1]


def _variant(dataset: str, variant: str, step: int | None) -> runs.Trained:
    step = chosen_step(dataset, variant) if step is None and variant in VARIANTS else step
    return subject.open_variant(dataset, variant, step, devices.device("auto"))


def _people(dataset: str, pair: dict, parsing: bool = False) -> tuple[runs.Person, runs.Person]:
    """Source and target of a pair."""
    found = subject.people(dataset, [pair["source_id"], pair["target_id"]], parsing)
    return found[pair["source_id"]], found[pair["target_id"]]


def _pairs_of_people(dataset: str, count: int, parsing: bool) -> list[tuple[runs.Person, runs.Person]]:
    """Sources and targets of the first `count` test pairs of the fixed shuffle."""
    chosen = subject.pairs(dataset, count=count)
    found = subject.people(dataset, [pair[end] for pair in chosen for end in ("source_id", "target_id")], parsing)
    return [(found[pair["source_id"]], found[pair["target_id"]]) for pair in chosen]


def _plain(image_id: str) -> str:
    """An image's name as a part of a file's name."""
    return image_id.replace("/", "_")


def _refuse_other_than_png(option: str, path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise UserError(f"{option} {path}: the picture is a PNG; give a name that ends in .png")


def add_arguments(parser: ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    parsers = {}
    for name, made_by in KINDS.items():
        summary = made_by.__doc__.splitlines()[0]
        described = "\n".join(line.removeprefix("    ") for line in made_by.__doc__.splitlines())
        one = kinds.add_parser(
            name, help=summary, description=described, formatter_class=RawDescriptionHelpFormatter, allow_abbrev=False
        )
        if name == "texture-transfer":
            one.add_argument("first", metavar="A", help="image of the first person")
            one.add_argument("second", metavar="B", help="image of the second person")
        one.add_argument("--dataset", required=True, metavar="D", help="a prepared data set, such as synthetic")
        if name not in ("grid", "distance-maps", "stage-one", "end-to-end"):
            one.add_argument("--variant", required=True, metavar="V", help="a trained variant, such as spig")
            one.add_argument("--step", type=int, metavar="N", help="its checkpoint (default: the tables' choice)")
        if name in ("relation-maps", "flow", "parsing", "stage-one"):
            one.add_argument("--pair", type=int, metavar="N", help="pair_index of a test pair (default: a fixed one)")
        one.add_argument("--output", type=Path, metavar="FILE", help="where the PNG goes")
        parsers[name] = one
    one = parsers["relation-maps"]
    one.add_argument(
        "--patch", type=int, nargs=2, action="append", metavar=("ROW", "COL"),
        help="a target patch of the 6 x 6 map, from 0; repeat for more (4 x 4: the patch that holds its middle)",
    )  # fmt: skip
    one.add_argument("--over", choices=("generated", "target"), default="generated", help="the image under the heat")
    one = parsers["poses"]
    one.add_argument("--image", required=True, metavar="ID", help="image of the person")
    one.add_argument("--count", type=positive, default=8, metavar="N", help="how many poses (default: 8)")
    one.add_argument("--seed", type=int, default=0, metavar="N", help="another draw (default: 0)")
    one.add_argument(
        "--split", choices=("test", "train"), default="test", help="the images to draw from (default: test)"
    )
    one.add_argument("--reference", action="store_true", help="show the images that the poses come from")
    one = parsers["distance-maps"]
    one.add_argument("--image", metavar="ID", help="whose pose (default: the target of the fixed pair)")
    one = parsers["failures"]
    one.add_argument("--count", type=positive, default=2, metavar="N", help="how many of each kind (default: 2)")
    one.add_argument("--among", type=positive, default=100, metavar="N", help="the worst of so many (default: 100)")
    one = parsers["edit"]
    one.add_argument("--image", required=True, metavar="ID", help="image of the person")
    one.add_argument("--parsing", type=Path, metavar="FILE", help="the edited parsing, a PNG")
    one.add_argument("--relabel", action="append", metavar="FROM=TO", help="label names, such as pants=skirt")
    one.add_argument("--save-parsing", type=Path, metavar="FILE", help="write the parsing that was drawn, to edit it")
    for name, default in (("grid", "all trained ones"), ("end-to-end", "spt_ts_pred spt")):
        one = parsers[name]
        one.add_argument("--variants", nargs="+", metavar="V", help=f"in this order (default: {default})")
        one.add_argument("--pairs", type=positive, default=4, metavar="N", help="how many (default: 4)")


def run(kind: str, dataset: str, output: Path | None, **options) -> None:
    """Draw and write one figure; `options` are the kind's own arguments. Raises UserError."""
    if output is not None:
        _refuse_other_than_png("--output", output)
    picture, name = KINDS[kind](dataset=dataset, **options)
    path = output or layout.drawn(dataset) / f"{name}.png"
    with atomic_file(path) as partial:
        partial.write_bytes(pictures.encode_png(picture))
    say(f"{path}: {picture.shape[1]} x {picture.shape[0]} pixels")
