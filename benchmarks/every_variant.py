"""Every variant in one run, and what the run says of the papers' orderings.

    python -m benchmarks.every_variant params > my-params.yaml      then, as params.yaml:  snakemake --cores all
    python -m benchmarks.every_variant params --families spig patn      some families; each is compared in itself
    python -m benchmarks.every_variant params --quarter-hour      a quarter of an hour of one core each, as measured
    python -m benchmarks.every_variant table --project DIR          Markdown

`params` prints the repository's params.yaml with every variant and component in it. All take the settings of the demo
(the blocks `synthetic`) but for the weights that it starts from, `--scale` times its steps, so that the variants of a
family differ in what the paper varies and in nothing else; --set changes single keys, and with its steps the one
checkpoint of a training. `table` reads reports/tables/differences.csv of a finished project: paired differences over
the test pairs of the chosen checkpoints with their 95 % bootstrap intervals.

A paper's ordering is tested, not a paper's number: networks are narrow and trainings short here. An interval covers
which pairs were drawn, and not the seed of the training.
"""

import argparse
import csv
import sys
from collections.abc import Collection, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from benchmarks.data import say, table
from models.variants import VARIANTS
from pipeline.core import yaml_file
from pipeline.tables import papers

ROOT = Path(__file__).resolve().parent.parent
FLOOR = "copy_source"
METRICS = ("ssim", "mask-ssim", "lpips-squeeze-v0.1", "mask-lpips-squeeze-v0.1", "pckh@0.5")
SHOWN = ("SSIM", "mask-SSIM", "LPIPS", "mask-LPIPS", "PCKh")
# The tables whose rows are one method taken apart, and the row that the paper adopts.
ABLATIONS = {
    "spig_table3": "spig", "spgnet_table_a": "spgnet", "spt_training": "spt", "spt_losses": "spt_ts_gt",
    "sgw_gan_ablation": "sgw",
}  # fmt: skip
# Some 15 minutes of one core (AVX-512) a variant and 5 a component, on images of 64 x 32. Where the published rate is
# 0.0002, twice that: the runs are a hundredth as long.
QUARTER_HOUR = (
    "fetch.synthetic.train_identities=192",
    "fetch.synthetic.test_identities=48",
    "fetch.synthetic.views=8",
    "pairs.synthetic.test_pairs=384",
    "reference.synthetic.lpips=squeeze",
    "pretrain.synthetic.detector.steps=1000",
    *(
        f"{stage}.synthetic.*.{setting}"
        for stage in ("pretrain", "train")
        for setting in ("batch=8", "precision=bf16", "missing_weights=stop")
    ),
)
STEPS_AND_RATES = {  # the rate None is the demo's
    "pretrain": {
        "spig_flow": (7800, 0.0004),
        "spig_flow_whole": (7800, 0.0004),
        "spatn": (4800, 0.001),
        "spatn_no_distance": (4800, 0.001),
        "spgnet_flow": (13500, 0.0004),
        "spt_parsing": (3900, 0.0004),
        "spt_parsing_balanced": (3900, 0.0004),
        "spt_parsing_true": (3900, 0.0004),
        "spt_detector": (3000, None),
        "sgw_parser": (4900, 0.0004),
        "sgw_parser_image": (4900, 0.0004),
        "sgw_matcher": (8000, None),
        "sgw_matcher_pose": (8000, None),
        "gfla_flow": (11500, 0.0004),
    },
    "train": {
        "spig": (5000, 0.0004),
        "spgnet": (5000, 0.0004),
        "spt": (2750, 0.0004),
        "sgw_gan": (8100, 0.0004),
        "patn": (3900, None),
        "gfla": (7000, 0.0004),
        "def_gan": (7600, 0.0004),
        "vunet": (7200, None),
    },
}
BEYOND = (("spgnet", "spgnet_no_distance", "SPGNet, supplement C"),)  # compared in a text, by the parsing's mIoU
# What the papers' tables compare besides: rows of which neither is adopted, or one is told the target's parsing.
OTHERS = (
    ("spgnet_joint", "spgnet_sequential", "SPGNet, Supp. Table A"),
    ("spt_ts_pred", "spt_baseline", "SPT, Table 1"),
    ("spt_ts_gt", "spt_ts_pred", "SPT, Table 1"),
    ("spt", "spt_ts_gt", "SPT, Table 1"),
)
# Rows of ours: another reading of a text, or an option, beside what we take by default.
READINGS = (
    ("spgnet_one_block", "spgnet", "one SPG block a level, as Table B has it"),
    ("spgnet_learned_flow", "spgnet", "flow by a network"),
    ("spt_ts_gt_training", "spt_ts_pred", "TS-GT: true parsing in training alone"),
    ("spt_balanced", "spt", "stand-ins by the rule `balanced`"),
    ("spt_log_loss", "spt", "the adversary's log form"),
    ("sgw_vgg16", "sgw", "matcher on VGG16"),
    ("sgw_image", "sgw", "stage one sees the image"),
)


def everything(
    dataset: str, scale: float, families: Collection[str] = (), without: Collection[str] = ()
) -> dict[str, Any]:
    """params.yaml with every variant and component, and the demo's training, its steps times `scale`, for `dataset`.

    families: only their variants, and the floors; none named: all. without: variants that are left out.
    """
    values = yaml_file.read(ROOT / "params.yaml")
    values["datasets"] = [dataset]
    for family in values["variants"]:
        named = not families or family in ("floors", *families)
        names = [one.name for one in import_module(f"models.{family}").VARIANTS] if named else []
        values["variants"][family] = [name for name in names if name not in without]
    for stage in ("pretrain", "train"):
        for name, demo in values[stage]["synthetic"].items():
            if "width" in demo:  # not the floors, nor the detector, which is no part of a method
                steps = max(2, round(demo["steps"] * scale))
                begun = {"start": None, "start_sha256": None} if "start" in demo else {}  # all from random weights
                values[stage][dataset][name] = demo | {"steps": steps, "checkpoint_every": steps} | begun
    return values


def put(values: dict[str, Any], assignment: str) -> None:
    """Set `a.b.c=VALUE` in place; `*` stands for every block whose key c is not null. KeyError where none has it.

    `steps` are also those between checkpoints, where there are any: one checkpoint, the last.
    """
    where, _, text = assignment.partition("=")
    *path, last = where.split(".")
    blocks = [values]
    for key in path:
        blocks = [one for block in blocks for one in (block.values() if key == "*" else [block[key]])]
    blocks = [block for block in blocks if last in block and ("*" not in path or block[last] is not None)]
    if not blocks:
        raise KeyError(where)
    for block in blocks:
        block[last] = yaml_file.parse(text, Path(where))
        if last == "steps" and "checkpoint_every" in block:
            block["checkpoint_every"] = block["steps"]


def quarter_hour() -> Iterator[str]:
    """The assignments of the longest runs that were measured."""
    yield from QUARTER_HOUR
    for stage, blocks in STEPS_AND_RATES.items():
        for name, (steps, rate) in blocks.items():
            yield f"{stage}.synthetic.{name}.steps={steps}"
            if rate is not None:
                yield f"{stage}.synthetic.{name}.learning_rate={rate}"


def claims() -> Iterator[tuple[str, str, str]]:
    """(the method that the paper adopts, the same with something changed, where the paper compares them)."""
    read = {name for name, _, _ in READINGS}
    for one in papers.TABLES:
        if one.name in ABLATIONS:
            whole = ABLATIONS[one.name]
            told = VARIANTS[whole].given_target_parsing
            for row in one.rows:
                # Being told the target's parsing is no part taken away.
                if row.ours not in (whole, *read) and VARIANTS[row.ours].given_target_parsing == told:
                    yield whole, row.ours, f"{one.paper}, {one.source}"
    yield from BEYOND


Differences = dict[tuple[str, str, str], dict[str, str]]


def read_differences(project: Path, dataset: str) -> Differences:
    """(one, other, metric) -> row, each difference in both directions."""
    found = {}
    with (project / "reports/tables/differences.csv").open(newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            if row["dataset"] == dataset:
                found[row["one"], row["other"], row["metric"]] = row
                turned = {"difference": row["difference"], "low": row["high"], "high": row["low"]}
                turned = {key: str(-float(value)) for key, value in turned.items()}
                found[row["other"], row["one"], row["metric"]] = row | turned
    return found


def cell(row: dict[str, str] | None, one: str) -> str:
    """A difference, its interval, and + where `one` is told to be better, - where worse, = where not told apart."""
    if row is None:
        return "–"
    sign = {"tie": "=", one: "+"}.get(row["verdict"], "−")
    middle, low, high = (float(row[key]) for key in ("difference", "low", "high"))
    return f"{sign} {middle:+.3f} [{low:+.3f}, {high:+.3f}]"


def show(options: argparse.Namespace) -> None:
    found = read_differences(options.project, options.dataset)
    run = {one for one, _, _ in found}
    columns = list(zip(METRICS, SHOWN, strict=True))
    say("Every method minus the copy of the source:")
    rows = [
        (f"`{name}`", *(cell(found.get((name, FLOOR, metric)), name) for metric, _ in columns))
        for name, one in VARIANTS.items()
        if one.phase and name in run
    ]
    table(("variant", *SHOWN), rows)
    for title, head, compared in (
        ("What the papers adopt minus the same with something changed:", "adopted − changed", claims()),
        ("What their tables compare besides:", "one − other", OTHERS),
        ("Other readings and options of ours:", "one − what we take by default", READINGS),
    ):
        rows = [
            (f"`{one}` − `{other}`", where, *(cell(found.get((one, other, metric)), one) for metric, _ in columns))
            for one, other, where in compared
            if {one, other} <= run
        ]
        if rows:
            say(title)
            table((head, "by", *SHOWN), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("params", "table"))
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--scale", type=float, default=1.0, help="params: times the demo's steps")
    names = list(yaml_file.read(ROOT / "params.yaml")["variants"])
    parser.add_argument("--families", nargs="*", default=[], choices=names, help="params: only these; default: all")
    parser.add_argument(
        "--without", nargs="*", default=[], choices=VARIANTS, metavar="VARIANT", help="params: not these"
    )
    parser.add_argument("--quarter-hour", action="store_true", help="params: the settings of the longest runs measured")
    parser.add_argument("--set", nargs="*", default=[], metavar="A.B.C=VALUE", help="params: single keys; * for each")
    parser.add_argument("--project", type=Path, default=Path.cwd(), help="table: a project whose tables are made")
    options = parser.parse_args()
    if options.what == "table":
        return show(options)
    values = everything(options.dataset, options.scale, options.families, options.without)
    for assignment in [*(quarter_hour() if options.quarter_hour else ()), *options.set]:
        put(values, assignment)
    yaml.safe_dump(values, sys.stdout, sort_keys=False, width=1000)


if __name__ == "__main__":
    main()
