"""Ten minutes on a GPU: what a training step costs there, and what SPIG learns of Market-1501 in that time.

    python -m benchmarks.gpu pack                where Market-1501 is: writes gpu/bundle.zip, at most 50 MB
    python -m benchmarks.gpu run --minutes 9     where the GPU is: reads gpu/bundle.zip, writes gpu/page.md

`pack` takes the images of all official test pairs and as many training people as fit, prepared: `run` decodes no zip of
someone else's and asks the network for nothing. They are 253,110 of the 259,586 training pairs, in 46 MB. The bundle
shows people: it stays out of git, as do the pictures.

`run` needs the bundle, this checkout, torch, numpy, pyarrow, pandas, opencv, scikit-image, safetensors, pyyaml, rich,
and jinja2. Its parts, one after the other, each with its share of the minutes:

    agreement   one variant of each family: the losses of two steps on the device beside the CPU's
    speed       our step beside the plain way (benchmarks/training.py), one variant of each family, both sizes
    detector    the joint detector that PCKh needs, trained
    reference   what the real test images score by it
    flow        SPIG's flow networks
    spig        SPIG at full width, for the time that is left
    score       the official test pairs; without the weights of Inception and LPIPS, no FID and no LPIPS

How many steps a training makes is found by making a few. The page is written anew after every part, so a run that is
cut off leaves what it knew. Losses lie beside it as JSON lines, and eight test pairs as pictures.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
import yaml

from benchmarks import training as step_benchmark
from benchmarks.training import SIZES, Setup
from models.layers.features import NETS
from models.variants import COMPONENTS, VARIANTS, Component, Variant
from pipeline.core import layout, params, schema, store, yaml_file
from pipeline.fetching import networks
from pipeline.loading import arrays, checkpoints, devices, pair_lists, published_weights
from pipeline.training import components, loop, losses, samples, training_data
from pipeline.training.order import BatchOrder

ROOT = Path(__file__).resolve().parent.parent
DATASET = "market1501"
BUNDLE = Path("gpu/bundle.zip")
LARGEST = 50_000_000  # bytes of the bundle
ELSEWHERE = 200  # bytes of an image's joints and pairs
LARGEST_NETWORK = 5_000_000  # published weights that are larger stay out
FAMILIES = ("spig", "spgnet", "spt", "sgw", "patn", "gfla", "def_gan", "vunet")  # a variant of each
SHARES = {"agreement": 0.06, "speed": 0.27, "detector": 0.07, "flow": 0.12}  # of all the time, at most
FEATURES = "squeezenet1_1"
PICTURES = 8


# ---- pack


def chosen_people(pairs: pa.Table, sizes: dict[str, int], people: dict[str, str], room: int) -> pa.Table:
    """The training pairs of as many people as fit into `room` bytes of images, in the order of the list, and all
    validation pairs.

    pairs: of schema.PAIRS. sizes: bytes by image id; people: person by image id.
    """
    validation = pairs.filter(pc.equal(pairs["split"], "val"))
    train = pairs.filter(pc.equal(pairs["split"], "train")).sort_by("pair_index")
    room -= sum(sizes[one] for one in pair_lists.image_ids(validation).to_pylist()) if len(validation) else 0
    of: dict[str, dict[str, int]] = {}
    for one in pair_lists.image_ids(train).to_pylist():
        of.setdefault(people[one], {})[one] = sizes[one]
    kept: list[str] = []
    for images in of.values():
        room -= sum(images.values())
        if room < 0:
            break
        kept.extend(images)
    train = train.filter(pc.is_in(train["source_id"], pa.array(kept, pa.string())))
    return pa.concat_tables([train, validation])


def pack_project(project: Path, bundle: Path, largest: int = LARGEST) -> str:
    """Write the bundle from a project whose Market-1501 is prepared up to `pairs`; return what is in it."""
    with working_in(project), tempfile.TemporaryDirectory() as folder:
        small = [one for one in published_files() if sum(file.stat().st_size for file in one[1]) <= LARGEST_NETWORK]
        images = store.read_table(layout.images(DATASET))
        pairs = store.read_table(layout.pairs(DATASET)).sort_by([("split", "ascending"), ("pair_index", "ascending")])
        keypoints = store.read_table(layout.keypoints(DATASET))
        test = pairs.filter(pc.equal(pairs["split"], "test"))
        ids = images["image_id"].to_pylist()
        lengths = pc.binary_length(pc.struct_field(images["image"].combine_chunks(), "bytes")).to_pylist()
        on_disk = sum(part.stat().st_size for part in store.parts(layout.images(DATASET))) / sum(lengths)
        sizes = {name: int(on_disk * length) + ELSEWHERE for name, length in zip(ids, lengths, strict=True)}
        people = dict(zip(ids, images["person_id"].to_pylist(), strict=True))
        room = largest - sum(file.stat().st_size for _, files in small for file in files) - largest // 25
        room -= sum(sizes[one] for one in pair_lists.image_ids(test).to_pylist())
        kept = pa.concat_tables([chosen_people(pairs, sizes, people, room), test])
        wanted = pair_lists.image_ids(kept)

        data = Path(folder) / "data" / DATASET
        rows = images.filter(pc.is_in(images["image_id"], wanted)).sort_by("image_id")
        described = {"dataset": DATASET, "partial": f"{len(rows)} of {len(images)} images"}
        store.write_shards(data / "images", iter(rows.to_pylist()), schema.IMAGES, **described)
        rows = keypoints.filter(pc.is_in(keypoints["image_id"], wanted))
        store.write_table(data / "keypoints.parquet", rows, schema.KEYPOINTS, dataset=DATASET)
        store.write_table(data / "pairs.parquet", kept, schema.PAIRS, dataset=DATASET)
        for net, _ in small:
            shutil.copytree(layout.weights(net), Path(folder) / layout.weights(net))
        with zipfile.ZipFile(bundle, "w") as archive:  # what is in it is compressed already
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(folder))
    size = bundle.stat().st_size
    if size > largest:
        why = "the test pairs alone are too many, or images larger than was estimated"
        sys.exit(f"{bundle}: {size} bytes, more than {largest}: {why}")
    count_of = {split: len(kept.filter(pc.equal(kept["split"], split))) for split in ("train", "val", "test")}
    listed = ", ".join(f"{number:,} {split}" for split, number in count_of.items())
    return f"{bundle}: {size / 1e6:.1f} MB, {len(wanted):,} images, pairs: {listed}; weights: " + (
        ", ".join(net for net, _ in small) or "none"
    )


def published_files() -> list[tuple[str, list[Path]]]:
    """Every published network that the project has, with its files."""
    nets = [path.name for path in sorted(Path("data/weights").glob("*")) if (path / "source.json").exists()]
    found = ((net, published_weights.files(net)) for net in nets)
    return [(net, files) for net, files in found if files]


def prepare(project: Path) -> None:
    """Market-1501 up to `pairs`, and the feature network, in a project of their own."""
    open_project(project, {})
    stages = [f"{stage} --dataset {DATASET}" for stage in ("fetch", "index", "keypoints", "pairs")]
    for stage in (*stages, f"weights --net {FEATURES}"):
        done = subprocess.run([sys.executable, "-m", "pipeline", *stage.split()], cwd=project)
        if done.returncode:
            sys.exit(f"pack: `{stage}` failed, see above; Market-1501 is looked for in $REPOSE_MIRROR")


# ---- run


def open_project(project: Path, trained: dict[str, dict[str, Any]], metric_net: str = "alex") -> None:
    """Make `project` a folder that stages can run in: the checkout's code and graph, and a params.yaml for Market-1501.

    trained: by stage and name, what replaces values of the block, such as {"train": {"spig": {"steps": 100}}}.
    """
    project.mkdir(parents=True, exist_ok=True)
    sources = ("dvc.yaml", "params.schema.yaml", "pipeline", "models", "reports/template", "reports/template.html.j2")
    for name in sources:
        if not (project / name).exists():
            (project / name).parent.mkdir(exist_ok=True)
            (project / name).symlink_to(ROOT / name)
    values = yaml_file.read(ROOT / "params.yaml")
    values["datasets"] = [DATASET]
    values["variants"] = {family: [] for family in values["variants"]} | {"floors": ["copy_source"], "spig": ["spig"]}
    for stage, names in trained.items():
        for name, changed in names.items():
            values[stage][DATASET][name] |= changed
    values["score"][DATASET]["samples"] = 0  # the pictures are drawn here, and the report's ask for torchvision
    values["reference"][DATASET] |= {"lpips": metric_net, "missing_weights": "skip"}
    text = yaml.safe_dump(values, sort_keys=False)
    (project / "params.yaml").write_text(text, encoding="utf-8")
    params.load.cache_clear()


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@dataclass
class Session:
    """A run: what it may use, and what it has found so far."""

    project: Path
    device: torch.device
    seconds: float
    width: float
    families: Sequence[str]
    datasets: Sequence[str]
    features: str = "vgg19"  # what losses look through in `speed`
    started: float = field(default_factory=time.perf_counter)
    sections: dict[str, list[str]] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)
    changed: dict[str, dict[str, Any]] = field(default_factory=dict)

    def left(self) -> float:
        return self.seconds - (time.perf_counter() - self.started)

    def until(self, part: str) -> float:
        """The time, by `time.perf_counter`, at which a part is to end."""
        return time.perf_counter() + SHARES[part] * self.seconds

    @property
    def metric_net(self) -> str:
        return "squeeze" if find_spec("lpips") else "alex"  # alex: not in the bundle, so LPIPS is left out

    def settle(self, stage: str, name: str, **changed: Any) -> None:
        """Put settings of a training into params.yaml."""
        self.changed.setdefault(stage, {})[name] = changed
        open_project(self.project, self.changed, self.metric_net)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [*("| " + " | ".join(map(str, line)) + " |" for line in lines), ""]


def agreement(run: Session) -> list[str]:
    """Losses of two float32 steps from the same weights on the same batch, without TF32: the device's beside the
    CPU's, the largest relative difference of any term.
    """
    rows, end = [], run.until("agreement")
    with tempfile.TemporaryDirectory() as folder, working_in(run.project):
        step_benchmark.in_data_set(DATASET, Path(folder))
        for name in run.families:
            if time.perf_counter() > end:
                rows.append((f"`{name}`", "left out for want of time", ""))
                continue
            found = []
            for where in (torch.device("cpu"), run.device):
                setup = Setup(VARIANTS[name], DATASET, 0.125, FEATURES, where)
                trainer = setup.trainer("plain")
                data = arrays.load_pairs("d", "train", where, label_set=setup.variant.labels)
                rows_of = BatchOrder(len(data), 4, 0)
                with loop.backends(where, "fp32"):
                    found.append([trainer.step(step, data.batch(rows_of.rows(step))) for step in (1, 2)])
            apart = [
                max(abs(there[term] - value) / max(abs(value), 1e-3) for term, value in here.items())
                for here, there in zip(*found, strict=True)
            ]
            rows.append((f"`{name}`", *(f"{value:.1e}" for value in apart)))
    return table(("variant", "largest relative difference, step 1", "step 2"), rows)


def speed(run: Session) -> list[str]:
    """Our step beside the plain way, medians of ten (on a CPU one), at the published batch; what is left when the time
    is up is named.
    """
    rows, end, steps = [], run.until("speed"), 10 if run.device.type == "cuda" else 1
    with tempfile.TemporaryDirectory() as folder, working_in(run.project):
        for dataset in run.datasets:
            jpegs = step_benchmark.in_data_set(dataset, Path(folder) / dataset)
            for name in run.families:
                size = "x".join(map(str, SIZES[dataset]))
                if time.perf_counter() > end:
                    rows.append((size, f"`{name}`", "left out for want of time", "", "", "", ""))
                    continue
                setup = Setup(VARIANTS[name], dataset, run.width, run.features, run.device)
                if run.device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(run.device)
                took = step_benchmark.seconds_a_step(setup, steps, jpegs)
                peak = torch.cuda.max_memory_allocated(run.device) if run.device.type == "cuda" else 0
                ours, plain = took["ours"], took["plain"]
                row = (f"{1e3 * ours:.1f}", f"{1e3 * plain:.1f}", f"{plain / ours:.1f}x", f"{setup.batch / ours:.0f}")
                rows.append((size, f"`{name}`", setup.batch, *row, f"{peak / 2**30:.1f}"))
    header = ("size", "variant", "batch", "ours, ms", "plain, ms", "ratio", "ours, pairs/s", "both, GiB")
    return table(header, rows)


def steps_in(run: Session, entry: Component | Variant, seconds: float) -> int:
    """How many steps of an entry on the bundle's data fit into so much time, found by making a few; at least 2."""
    started = time.perf_counter()
    precision = "fp32" if entry.name == "detector" else "bf16"  # as `pretrain` trains it
    setup = Setup(entry, DATASET, run.width, FEATURES, run.device, precision)
    trainer = setup.trainer("ours")
    data = training_data.load(DATASET, entry.data, run.device, entry.labels)
    order = BatchOrder(len(data), setup.batch, 0)
    number, begin = 0, 0.0
    with loop.backends(run.device, setup.precision):
        for number in count(1):
            trainer.step(number, data.batch(order.rows(number)))
            if number == 3:  # kernels are chosen by then
                begin = step_benchmark.seconds(run.device)
            if number > 3 and time.perf_counter() - started > 0.1 * seconds:
                break
    each = (step_benchmark.seconds(run.device) - begin) / (number - 3)
    return max(2, int(0.85 * (seconds - (time.perf_counter() - started)) / each))


def pretrained(run: Session, name: str, seconds: float) -> list[str]:
    """Train a component for so much time; say what it ends with."""
    from pipeline.stages import pretrain

    with working_in(run.project):
        entry = COMPONENTS[name]
        steps = steps_in(run, entry, seconds)
        if name == "detector":
            run.settle("pretrain", name, source="trained", seed=0, steps=steps, batch=entry.phase.batch[DATASET])
        else:
            changed = {"steps": steps, "checkpoint_every": steps, "width": run.width, "features": FEATURES}
            run.settle("pretrain", name, **changed, missing_weights="seeded")
        pretrain.run(DATASET, name)
        held_out = checkpoints.meta(layout.checkpoints(DATASET, name)).get("validation")
        about = [f"{steps:,} steps of batch {entry.phase.batch[DATASET]}." + last_losses("pretrain", name)]
        return about + ([f"On people held out: {held_out}."] if held_out else []) + [""]


def last_losses(stage: str, name: str) -> str:
    """Means of the first and the last tenth of the loss log, term by term."""
    import pandas as pd

    log = pd.DataFrame(losses.metrics(layout.metrics_log(stage, DATASET, name))).set_index("step")
    tenth = max(1, len(log) // 10)
    ends = zip(log.columns, log.head(tenth).mean(), log.tail(tenth).mean(), strict=True)
    return " Mean of the first and of the last tenth: " + ", ".join(f"{n} {a:.3g} to {b:.3g}" for n, a, b in ends) + "."


def reference(run: Session) -> list[str]:
    from pipeline.stages import reference as stage

    with working_in(run.project):
        stage.run(DATASET)
        described = components.last_checkpoint(DATASET, "detector")
        return [f"PCKh by our detector of step {described:,}.", ""]


def spig(run: Session) -> list[str]:
    """SPIG for the time that scoring leaves: scoring judges each test pair as `reference` judged each real target."""
    from pipeline.stages import train

    with working_in(run.project):
        judged = len(pair_lists.read(DATASET, "test"))
        targets = store.read_table(layout.reference(DATASET) / "detected.parquet", columns=["image_id"])
        scoring = 1.5 * run.took["reference"] * judged / len(targets) + 0.03 * run.seconds
        steps = steps_in(run, VARIANTS["spig"], max(run.left() - scoring, 0.02 * run.seconds))
        changed = {"steps": steps, "checkpoint_every": steps, "width": run.width, "features": FEATURES}
        run.settle("train", "spig", **changed, missing_weights="seeded")
        train.run(DATASET, "spig")
        batch = VARIANTS["spig"].phase.batch[DATASET]
        return [f"{steps:,} steps of batch {batch}." + last_losses("train", "spig"), ""]


def score(run: Session) -> list[str]:
    """SPIG's scores beside those of the copied source, the latter if there is time for it."""
    from pipeline.stages import score as stage
    from pipeline.stages import train

    with working_in(run.project):
        stage.run(DATASET, "spig")
        draw_pairs(run.device)
        rows = {row["metric"]: row for row in scores_of("spig")}
        copied: dict[str, dict] = {}
        if run.left() > 1.2 * run.took["reference"]:
            train.run(DATASET, "copy_source")
            stage.run(DATASET, "copy_source")
            copied = {row["metric"]: row for row in scores_of("copy_source")}

        def shown(row: dict | None) -> str:
            if row is None or row["value"] is None:
                return "–"
            interval = "" if row["low"] is None else f" [{row['low']:.3f}, {row['high']:.3f}]"
            return f"{row['value']:.3f}{interval}"

        lines = table(
            ("metric", "protocol", "pairs", "`spig`", "`copy_source`", "real targets"),
            [
                (name, row["protocol"], row["n"], shown(row), shown(copied.get(name)), f"{row['ceiling'] or 1:.3f}")
                for name, row in rows.items()
            ],
        )
        marks = sorted({mark for row in rows.values() for mark in row["marks"]})
        return [*lines, f"Marks (docs/protocols.md): {', '.join(marks) or 'none'}. In brackets 95 % intervals.", ""]


def scores_of(variant: str) -> list[dict]:
    rows = store.read_table(layout.scores(DATASET, variant)).to_pylist()
    return [row for row in rows if row["split"] == "test"]


def draw_pairs(device: torch.device) -> None:
    """`pair-N.png` for the first pairs of the fixed shuffle: source, target's pose, target, generated."""
    folder = layout.checkpoints(DATASET, "spig")
    generator, _ = checkpoints.load(folder, checkpoints.steps(folder)[-1])
    data = arrays.load_pairs(DATASET, "test", device, PICTURES)
    for row in range(len(data)):
        one = replace(data, pairs=data.pairs[row : row + 1], pair_index=data.pair_index[row : row + 1])
        samples.draw(generator.to(device), one, Path(f"pair-{one.pair_index.item()}.png"))


PARTS: dict[str, Callable[[Session], list[str]]] = {
    "agreement": agreement,
    "speed": speed,
    "detector": lambda run: pretrained(run, "detector", SHARES["detector"] * run.seconds),
    "reference": reference,
    "flow": lambda run: pretrained(run, "spig_flow", SHARES["flow"] * run.seconds),
    "spig": spig,
    "score": score,
}


def page(run: Session) -> str:
    cuda = run.device.type == "cuda"
    device = torch.cuda.get_device_name(run.device) if cuda else f"a CPU, {torch.get_num_threads()} threads"
    lines = [
        "# Ten minutes on a GPU",
        "",
        f"{device}, torch {torch.__version__}, Python {sys.version.split()[0]}; {run.width:g} times the published",
        f"width; bf16 where nothing else is said; {run.seconds / 60:g} minutes in all. Losses look through {FEATURES},",
        f"in `speed` through {run.features} with seeded weights.",
        "`benchmarks/gpu.py` says what each part does.",
        "",
    ]
    for part, found in run.sections.items():
        lines += [f"## {part} ({run.took[part]:.0f} s)", "", *found]
    return "\n".join(lines)


def whole_run(run: Session, bundle: Path, out: Path, parts: Sequence[str]) -> bool:
    """Every part, the page anew after each; False if one failed. One that needs what failed fails in its turn."""
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(run.project)
    open_project(run.project, {}, run.metric_net)
    for net in networks.NETS:
        record = run.project / layout.weights(net) / "source.json"
        if not record.exists():
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text('{"status": "missing", "reason": "not in the bundle", "files": {}}\n', encoding="utf-8")
    good = True
    for part in parts:
        begin = time.perf_counter()
        try:
            run.sections[part] = PARTS[part](run)
        except Exception as error:  # of many kinds; the other parts are worth having
            traceback.print_exc()
            run.sections[part] = [
                f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                "",
            ]
            good = False
        run.took[part] = time.perf_counter() - begin
        (out / "page.md").write_text(page(run), encoding="utf-8")
        print(f"{part}: {run.took[part]:.0f} s, {run.left():.0f} s left", file=sys.stderr, flush=True)
    for log in (run.project / "logs").rglob("*.jsonl"):
        shutil.copy(log, out / f"{log.parent.name}-{log.name}")
    for picture in run.project.glob("pair-*.png"):
        shutil.copy(picture, out)
    return good


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    pack = what.add_parser("pack", help="write the bundle")
    pack.add_argument("--project", type=Path, help="one with Market-1501 up to `pairs`; default: prepared for this")
    run = what.add_parser("run", help="use it")
    run.add_argument("--minutes", type=float, default=9.0, help="of the whole run (default %(default)s)")
    run.add_argument("--out", type=Path, default=Path("gpu"), help="where the page goes (default %(default)s/)")
    run.add_argument("--device", default="auto", help="auto, cuda, cuda:N or cpu")
    run.add_argument("--width", type=float, default=1.0, help="multiplier of the published channel counts")
    run.add_argument("--features", default="vgg19", choices=NETS, help="that losses look through, in `speed`")
    run.add_argument("--families", nargs="*", default=FAMILIES, choices=FAMILIES, help="whose step is timed")
    run.add_argument("--sizes", nargs="*", default=list(SIZES), choices=SIZES, help="whose batch and size are timed")
    run.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS, help="which, in this order")
    for one in (pack, run):
        one.add_argument("--bundle", type=Path, default=BUNDLE, help="default: %(default)s")
    options = parser.parse_args(arguments)
    bundle = options.bundle.resolve()
    if options.what == "pack":
        bundle.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            if options.project is None:
                prepare(Path(folder))
            print(pack_project(options.project or Path(folder), bundle))
        return 0
    if not bundle.exists():
        sys.exit(f"{bundle}: not there; write it with `python -m benchmarks.gpu pack`, where Market-1501 is")
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        where = devices.device(options.device)
        names = (options.families, options.sizes, options.features)
        session = Session(Path(folder) / "project", where, 60 * options.minutes, options.width, *names)
        good = whole_run(session, bundle, out, options.parts)
    print(out / "page.md")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
