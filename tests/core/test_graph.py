"""One graph for both engines, in which every module that decides a result is among the deps of its stage."""

import ast
import copy
import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from models import floors, variants
from models.variants import COMPONENTS, FAMILIES, VARIANTS
from pipeline import __main__ as command_line
from pipeline.commands import handoff
from pipeline.core import graph, layout, params
from pipeline.core.errors import UserError
from pipeline.training.training_data import RULES
from tests.conftest import ROOT, copy_project

# What carries data and names it, without deciding what a result is: an edit here re-runs nothing.
PLUMBING = ("pipeline/core/", "pipeline/training/samples.py")  # the samples are drawn into logs/
# Lists of what exists, which decide what tables and report say of it. For other stages the file of each entry does.
LISTS = ("pipeline/datasets/__init__.py", "models/variants.py")
LIST_READERS = ("tables", "report")
FOR_FAULTS = ("anatomy", "datasets", "extraction", "formats", "loading", "methods", "metrics")
# Imported by a module that serves several stages, but not used by these. A data set's module fetches it, too.
UNUSED = {
    "pretrain": ("models/detector.py",),  # but by the component of that name, whose file it is
    "pseudo_labels": ("pipeline/loading/", "pipeline/fetching/", "pipeline/formats/"),
    **dict.fromkeys(("index", "keypoints", "pairs", "describe"), ("pipeline/fetching/",)),
    "score": ("pipeline/tables/", "pipeline/datasets/"),  # says the row when it is done
    "score_images": ("pipeline/tables/", "pipeline/datasets/", "pipeline/fetching/", "pipeline/commands/compare.py"),
    "draw": ("pipeline/fetching/",),  # its digests decide
    # Whether a run stops, and no output.
    "plan": tuple(f"pipeline/{room}/" for room in (*FOR_FAULTS, "fetching")),
    "weights": tuple(f"pipeline/{room}/" for room in (*FOR_FAULTS, "planning")),
}


# ---- both engines


def resolve(project: Path) -> dict[str, dict[str, dict]]:
    """Both graphs of a project folder: engine -> command -> inputs, outputs, params, rule."""
    result = subprocess.run([sys.executable, "-m", "tests.graphs"], cwd=project, capture_output=True, text=True)
    assert result.returncode == 0, (result.stdout + result.stderr)[-3000:]
    return json.loads(result.stdout)


def one_by_one(paths: Iterable[str], dvc: dict[str, dict], project: Path) -> set[str]:
    """What the deps of a DVC stage stand for: other stages' outputs in a folder of such, and the files of sources."""
    written = [path for job in dvc.values() for path in job["outputs"]]
    found: set[str] = set()
    for path in paths:
        below = {output for output in written if output == path or output.startswith(f"{path}/")}
        if not below and (project / path).is_dir() and path not in ("reports/outside", "reports/studies"):
            files = (file for file in (project / path).rglob("*") if file.is_file() and file.suffix != ".pyc")
            below = {str(file.relative_to(project)) for file in files}
        found |= below or {path}
        found |= {path} & {"reports/outside"}  # others lie beside what stages write there
    return found


def differences(both: dict, project: Path) -> list[str]:
    """Where the two engines disagree, one line each."""
    snakemake, dvc = both["snakemake"], both["dvc"]
    found = [f"only in one engine: {command}" for command in sorted(snakemake.keys() ^ dvc.keys())]
    for command in sorted(snakemake.keys() & dvc.keys()):
        ours, theirs = snakemake[command], dvc[command]
        told = {path for path in theirs["inputs"] if "/needs/" in path}  # what Snakemake takes from there is a param
        found += [f"needs of {command}"] * (told != {key for key in ours["params"] if "/needs/" in key})
        ours = ours | {"params": {key: value for key, value in ours["params"].items() if key not in told}}
        inputs = one_by_one(theirs["inputs"], dvc, project)
        unread = (graph.PLAN, "/settings.yaml", "/needs/", "/number.json")  # what `plan` and `needs` write
        theirs = theirs | {"inputs": sorted(path for path in inputs if not any(one in path for one in unread))}
        for key in theirs:
            if ours[key] != theirs[key]:
                found.append(f"{key} of {command}: {sorted(set(ours[key]) ^ set(theirs[key]))}")
    return found


SOME = {"learning_rate": 0.5}
TRAINED = sum(any(one.phase for one in getattr(family, "VARIANTS", ())) for family in FAMILIES)  # of the families


def with_everything(project: Path) -> Path:
    """Two data sets, all variants, a further seed of each that is trained, a run a family by other settings, a method
    of another program.
    """
    values = yaml.safe_load((project / "params.yaml").read_text())
    values["datasets"] = ["synthetic", "market1501"]
    values["parts"] = [0, 1, 2]
    for family in values["variants"]:
        names = [entry.name for entry in import_module(f"models.{family}").VARIANTS]
        seeds = [] if family == "floors" else [f"{name}-seed1" for name in names]
        values["variants"][family] = names + seeds
    # settings of their own: of the first variant of each family that is trained, and a further seed of these
    own = {family: runs[0] for family, runs in values["variants"].items() if family != "floors"}
    values["named"] = {
        family: dict.fromkeys((f"{name}-own", f"{name}-own-seed1"), SOME) for family, name in own.items()
    }
    values["methods"] = ["theirs"]
    (project / "methods/theirs").mkdir(parents=True)
    (project / "methods/theirs/method.yaml").touch()
    (project / "params.yaml").write_text(yaml.safe_dump(values))
    return project


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> Path:
    return with_everything(copy_project(tmp_path_factory.mktemp("everything")))


@pytest.fixture(scope="module")
def jobs(everything) -> list[graph.Job]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(everything)
        return graph.jobs(params.load(everything / "params.yaml"))


@pytest.fixture(scope="module")
def other_jobs() -> list[graph.Job]:
    """Of the other data sets, one of which is made of another, and of a form of one."""
    others = ["deepfashion", "deepfashion_sample", "folder", "deepfashion-resize176"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return graph.jobs(params.check(params.load(ROOT / "params.yaml") | {"datasets": others}))


def test_both_engines_see_one_graph(project):
    """Of a data set and a form of it, which in params.yaml is one line."""
    path = project / "params.yaml"
    text = path.read_text().replace("\ndatasets: [synthetic]", "\ndatasets: [synthetic, synthetic-wide]")
    path.write_text(text.replace("\nfetch:\n", "\nfetch:\n  synthetic-wide: {width: 64}\n"))
    both = resolve(project)
    assert differences(both, project) == []
    own, form = (
        {command: job for command, job in both["dvc"].items() if f" --dataset {name} " in f"{command} "}
        for name in ("synthetic", "synthetic-wide")
    )
    assert {command.replace("synthetic-wide", "synthetic") for command in form} == own.keys()
    assert len(both["dvc"]) == 2 * len(own) + 13 == 111
    for command, job in form.items():
        parents = own[command.replace("synthetic-wide", "synthetic")]["params"]
        for key, value in job["params"].items():
            other = parents[key.replace("synthetic-wide", "synthetic")]
            assert value == other | ({"width": 64} if key.startswith("fetch.") else {}), key

    # What only a cluster asks: the parser of SGW's image, and more, are components that no variant here starts from.
    stages = {job["rule"].partition("_")[0] for job in both["snakemake"].values() if job["local"]}
    assert stages == {"plan", "needs", "fetch", "weights", "pretrain", "pseudo"}
    assert all(again == 2 * once >= 16_000 for once, again in (job["memory"] for job in both["snakemake"].values()))


def test_what_nothing_needs_is_idle():
    """In the demo, and with one variant more."""
    values = params.load(ROOT / "params.yaml")
    spig = values | {"variants": values["variants"] | {"spig": ["spig"]}}
    demo, more = (
        {stage.name for stage in graph.stages(some) if stage.jobs and stage.is_idle} for some in (values, spig)
    )
    assert {"pretrain_spig_flow", "pretrain_spgnet_flow", "pseudo_labels"} <= demo
    assert not {"pretrain_spatn", "pretrain_detector", "parsing", "index", "score_spgnet"} & demo
    assert demo - more == {"pretrain_spig_flow"}


@pytest.mark.parametrize(("needed", "idle"), [([False, False], True), ([False, True], False), ([None, False], False)])
def test_a_stage_is_idle_if_all_its_jobs_are(needed, idle):
    """Of two data sets one may need what the other does not, or say nothing of it (None)."""
    stage = graph.Stage("parsing", {}, {})
    answers = [{} if one is None else {"needs/parsing.json": one} for one in needed]
    stage.__dict__["jobs"] = {str(number): SimpleNamespace(needed=one) for number, one in enumerate(answers)}
    assert stage.is_idle == idle


def test_both_engines_see_one_graph_of_everything(everything, jobs):
    """And this project's own reading is DVC's."""
    both = resolve(everything)
    assert differences(both, everything) == []
    assert both["dvc"] == {
        job.command: {
            "inputs": sorted(job.inputs),
            "outputs": sorted(job.outputs),
            "params": job.params,
            "rule": job.name.partition("@")[0],
            "log": str(job.log),
        }
        for job in jobs
    }
    assert {job.stage for job in jobs} == {*command_line.STAGES, "score_images"}
    trained = {job.axes["variant"] for job in jobs if job.stage == "train"}
    own = {run for run in trained if params.named(run)}
    assert trained - own == {*VARIANTS, *(f"{name}-seed1" for name, entry in VARIANTS.items() if entry.phase)}
    assert len(own) == 2 * TRAINED


def test_a_planted_difference_is_found(project):
    snakefile = project / "Snakefile"
    text = snakefile.read_text()
    for right, wrong in {
        "job(stage, wildcards).command": 'job(stage, wildcards).command.replace("index ", "index  ")',
        "WRITERS.files(job(stage, wildcards))": "WRITERS.files(job(stage, wildcards))[stage.name == 'distance_maps' :]",
        "job(stage, wildcards).deciding": "{} if stage.name == 'pairs' else job(stage, wildcards).deciding",
        "stage.pattern.outputs": "stage.pattern.outputs + ('data/{dataset}/more',) * (stage.name == 'parsing')",
        "str(stage.pattern.log)": "str(stage.pattern.log) + 's' * (stage.name == 'fetch')",
    }.items():
        assert text.count(right) == 1
        text = text.replace(right, wrong)
    snakefile.write_text(text)
    found = [line.partition(" --dataset")[0].partition(": PATH")[0] for line in differences(resolve(project), project)]
    run = "PATH=${DVC_ROOT-.}/.venv/bin:$PATH python -m pipeline"
    assert sorted(found) == sorted(
        ["only in one engine"] * 2
        + [
            f"inputs of {run} distance_maps",
            f"params of {run} pairs",
            f"outputs of {run} parsing",
            f"log of {run} fetch",
        ]
    )


def test_config_overrides_are_refused(project):
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "1", "--config", "datasets=[market1501]"]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert result.returncode != 0
    assert "edit params.yaml" in result.stdout + result.stderr


@pytest.mark.parametrize("root", [None, "DVC_ROOT"])
def test_a_command_finds_the_environment_of_the_project(tmp_path, jobs, root):
    """Also in another folder, where `dvc exp run --temp` and `--queue` run it: DVC then says where the project is."""
    fetch = next(job for job in jobs if job.stage == "fetch")
    program = tmp_path / "project/.venv/bin/python"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "own $*"\n')
    program.chmod(0o755)
    (tmp_path / "elsewhere").mkdir()
    where = tmp_path / ("elsewhere" if root else "project")
    environment = {"PATH": "/usr/bin:/bin"} | ({root: str(tmp_path / "project")} if root else {})
    for shell in (["sh", "-c"], ["bash", "-euo", "pipefail", "-c"]):  # DVC's, and Snakemake's
        command = [*shell, fetch.command]
        result = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)
        assert result.stdout == "own -m pipeline fetch --dataset synthetic\n", result.stderr


# ---- jobs


def test_every_job_comes_after_those_that_write_what_it_reads(jobs):
    writers, before = graph.Writers(jobs), set()
    for job in jobs:
        assert {other.name for other in writers.before(job)} <= before, job
        before.add(job.name)


def test_each_seed_is_trained_and_scored_by_itself(jobs):
    """As the variant is, from the same parameters, into a folder of its own."""
    by_name = {job.name: job for job in jobs}
    seeds = [job for job in jobs if job.name.endswith("-seed1") and "named" not in job.name]
    assert len(seeds) == 2 * 2 * sum(entry.phase is not None for entry in VARIANTS.values())
    for job in seeds:
        renamed = json.loads(json.dumps(dataclasses.asdict(job)).replace("-seed1", ""))
        assert renamed == json.loads(json.dumps(dataclasses.asdict(by_name[job.name.removesuffix("-seed1")])))


def test_settings_of_a_runs_own_are_its_parameters_alone(jobs):
    """It is trained and scored as its variant is, into a folder of its own; no other job reads them."""
    by_name = {job.name: job for job in jobs}
    own = [job for job in jobs if "_named@" in job.name and not job.name.endswith("-seed1")]
    assert len(own) == 2 * 2 * TRAINED  # trained and scored, on two data sets
    for job in own:
        family = job.name.partition("_named")[0].partition("_")[2]
        key = f"named.{family}.{job.axes['variant']}"
        assert job.params.get(key) == (SOME if job.stage == "train" else None)
        job = dataclasses.replace(job, params={name: value for name, value in job.params.items() if name != key})
        plain = json.loads(json.dumps(dataclasses.asdict(job)).replace("_named@", "@").replace("-own", ""))
        assert plain == json.loads(json.dumps(dataclasses.asdict(by_name[plain["name"]])))
    assert not [
        job for job in jobs if any(key.startswith("named.") for key in job.params) and "_named@" not in job.name
    ]


@pytest.mark.parametrize("block", [{}, {"spig": ["spig"]}])
def test_a_family_that_is_left_out_has_no_variant(block):
    values = {**params.load(ROOT / "params.yaml"), "variants": block, "named": {}}
    found = {job.axes["variant"] for job in graph.jobs(params.check(values)) if job.stage in ("train", "score")}
    assert found == ({"spig"} if block else set())


def test_components_are_inputs_of_what_starts_from_them(jobs):
    for job in jobs:
        name, dataset = (
            params.variant_of(job.axes.get("variant", job.axes.get("component", ""))),
            job.axes.get("dataset"),
        )
        entry = {
            "train": VARIANTS,
            "score": VARIANTS,
            "pretrain": COMPONENTS,
            "score_components": COMPONENTS,
        }.get(job.stage, {}).get(name)
        if entry is None:
            continue
        needed = set()
        if job.stage in ("train", "pretrain"):
            starts_from = (*entry.components, *getattr(entry, "judges", {}).values())
            needed |= {f"runs/{dataset}/{component}/checkpoints" for component in starts_from}
            needed |= {f"data/{dataset}/pseudo_labels/{RULES[entry.data]}"} if entry.data in RULES else set()
            needed |= {f"data/weights/{entry.features}", "data/weights/squeezenet1_1"} if entry.features else set()
        needed |= {f"data/{dataset}/parsing"} if entry.needs_parsing else set()
        assert needed <= set(job.inputs), job


def test_whatever_takes_long_comes_after_the_plan_and_data_do_without(jobs):
    long = {job.stage for job in jobs if graph.PLAN in job.inputs}
    assert long == {"pretrain", "train", "draw", "reference"}
    assert all(graph.PLAN in job.inputs for job in jobs if job.stage in long)


def test_find_gives_the_job_of_a_stage(everything, jobs, monkeypatch):
    monkeypatch.chdir(everything)
    for job in (jobs[0], jobs[len(jobs) // 2], jobs[-1]):
        assert graph.find(job.stage, *job.axes.values()) == job
    with pytest.raises(UserError, match=r"params\.yaml asks for no train synthetic spig-seed2"):
        graph.find("train", "synthetic", "spig-seed2")


def test_the_prepared_data_need_no_training_and_no_metrics_network(jobs):
    """What `snakemake prepared` makes, for every data set; what README names for DVC makes the same."""
    writers = graph.Writers(jobs)

    def all_of(targets: list[graph.Job]) -> dict[str, graph.Job]:
        found = {job.name: job for job in targets}
        return found | {name: job for one in targets for name, job in all_of(writers.before(one)).items()}

    needed = all_of([job for job in jobs if job.stage in graph.DATA_STAGES])
    assert {job.stage for job in needed.values()} == {"fetch", "needs", "weights", *graph.DATA_STAGES}
    nets = {job.axes["net"] for job in needed.values() if job.stage == "weights"}
    assert nets == {"openpose", "topdown", "schp"}  # they find joints and label parts
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for_dvc = re.search(r"dvc repro ((?:\w+ )*describe)`", text)[1].split()
    assert all_of([job for job in jobs if job.name.partition("@")[0] in for_dvc]).keys() == needed.keys()


# ---- names in params.yaml


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("variants.toy", ["toy"], "variants.toy: no stage of dvc.yaml makes or reads it"),
        ("components.toy_flow", False, "components.toy_flow: no stage of dvc.yaml makes or reads it"),
        ("pretrain.synthetic.toy_flow", {"steps": 1}, "pretrain.synthetic.toy_flow: no stage"),
        ("train.folder.toy", {"steps": 1}, "train.folder.toy: no stage"),
        ("weights.resnet", {"path": None}, "weights.resnet: no stage"),
        ("figures", {"synthetic": 1}, "figures: no stage"),
        ("datasets", ["synthetic", "toy"], "lacks fetch.toy, which dvc.yaml reads"),
        ("presets", {"toy": {}}, None),
    ],
)
def test_a_name_that_no_stage_is_there_for_is_an_error(key, value, message):
    values = copy.deepcopy(params.load(ROOT / "params.yaml"))
    *parents, name = key.split(".")
    block = values
    for parent in parents:
        block = block[parent]
    block[name] = value
    if message is None:
        assert graph.stages(values)
    else:
        with pytest.raises(UserError, match=re.escape(f"params.yaml: {message}".replace(": lacks", " lacks"))):
            graph.jobs(values)


def test_a_handoff_says_what_dvc_has_no_default_for(project, monkeypatch):
    """Without a family, or a list of methods, Snakemake runs and DVC cannot read its graph."""
    monkeypatch.chdir(project)
    values = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    values |= {"variants": {"spig": ["spig"]}, "named": {family: {} for family in values["named"] if family != "gfla"}}
    Path("params.yaml").write_text(yaml.safe_dump(values | {"methods": []}), encoding="utf-8")
    left_out = {key for stage in graph.stages(params.load()) for key in stage.left_out}
    assert left_out >= {"variants.floors", "variants.gfla", "named.gfla"}
    assert not {"variants.spig", "named.spig", "methods"} & left_out
    with pytest.raises(UserError, match=r"DVC knows no defaults.*variants\.floors: \[\].*named\.gfla: \{\}"):
        handoff.run(dry_run=True)
    del values["methods"]
    assert "methods" in {key for stage in graph.stages(values) for key in stage.left_out}


def test_who_watches_a_training_decides_nothing():
    """Snakemake compares `deciding`: another tracker runs no job again, another number of steps does."""

    def deciding(**changes) -> dict[str, dict]:
        values = copy.deepcopy(params.load(ROOT / "params.yaml"))
        for stage, name in (("train", "spgnet"), ("pretrain", "spatn")):
            values[stage]["synthetic"][name] |= changes
        return {job.name: job.deciding for job in graph.jobs(values)}

    before = deciding()
    assert deciding(tracker="tensorboard") == before
    changed = {name for name, now in deciding(steps=7).items() if now != before[name]}
    assert {name.partition("@")[0] for name in changed} == {"train_spgnet", "pretrain_spatn"}


def test_every_reader_of_the_graph_says_so(project):
    """Both engines, each stage and `status`, in one line."""
    file = project / "dvc.yaml"
    file.write_text(file.read_text().replace('"${variants.patn}"', "[]"))
    line = "params.yaml: variants.patn: no stage of dvc.yaml makes or reads it"
    for command in ("snakemake -n", "pipeline status", "pipeline index --dataset synthetic", "dvc repro index"):
        result = subprocess.run([sys.executable, "-m", *command.split()], cwd=project, capture_output=True, text=True)
        assert result.returncode != 0
        assert line in result.stdout + result.stderr


# ---- the code that decides a result


@cache
def imports(path: str) -> list[str]:
    """Project files that `path` imports itself, as paths from the project root; not those that are a docstring only."""
    names = []
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    files = []
    for name in (name for name in names if name.partition(".")[0] in ("pipeline", "models")):
        folder = Path(name.replace(".", "/"))
        file = ROOT / (folder / "__init__.py" if (ROOT / folder).is_dir() else folder.with_suffix(".py"))
        if file.exists() and len(ast.parse(file.read_text()).body) > 1:
            files.append(str(file.relative_to(ROOT)))
    return files


def imported_files(path: str, seen: set[str]) -> set[str]:
    """Project files that `path` imports, directly or not, and itself."""
    if path not in seen:
        seen.add(path)
        if path not in LISTS:  # what is below a list is declared entry by entry
            for file in imports(path):
                if not file.startswith(PLUMBING):
                    imported_files(file, seen)
    return seen


def decides(job: graph.Job) -> set[str]:
    """The files of code that decide what a job computes."""
    room = "commands" if job.stage in command_line.COMMANDS else "stages"
    found = imported_files(f"pipeline/{room}/{job.stage}.py", set())
    for folder in (path for path in job.inputs if path.startswith("pipeline/datasets/") and (ROOT / path).is_dir()):
        for path in (ROOT / folder).glob("*.py"):
            imported_files(f"{folder}/{path.name}", found)
    found = {path for path in found if not path.startswith((*PLUMBING, *UNUSED.get(job.stage, ())))}
    name = params.variant_of(job.axes.get("variant", job.axes.get("component", "")))
    for family in FAMILIES:
        if name in {entry.name for kind in ("VARIANTS", "COMPONENTS") for entry in getattr(family, kind, ())}:
            found |= imported_files(str(Path(family.__file__).relative_to(ROOT)), set())
    return found if job.stage in LIST_READERS else found - {*LISTS}


def undeclared(job: graph.Job, code: Iterable[str]) -> set[str]:
    """What decides a job's result and is none of `code`, files and folders."""
    return {path for path in decides(job) if not any(path == dep or path.startswith(f"{dep}/") for dep in code)}


def test_sources_that_decide_a_result_are_inputs(jobs, other_jobs):
    assert {job.name: missing for job in [*jobs, *other_jobs] if (missing := undeclared(job, job.code))} == {}


def test_a_dep_that_is_left_out_is_noticed(jobs, other_jobs):
    """For one data set, variant or component at least; and so every dep on code has a reason."""
    needed: dict[tuple[str, str], bool] = {}
    for job in [*jobs, *other_jobs]:
        for path in job.code:
            key = job.name.partition("@")[0], path.replace(job.axes.get("dataset", "."), "D")
            needed[key] = needed.get(key) or bool(undeclared(job, set(job.code) - {path}))
    assert [key for key, reason in needed.items() if not reason] == [("needs", "pipeline/datasets")]  # reads it as text


def test_the_list_of_families_decides_no_result(monkeypatch):
    """An entry is its family's own, so a family more changes none; two of one name cannot be."""
    before = {kind: getattr(variants, kind) for kind in ("VARIANTS", "COMPONENTS")}
    toy = SimpleNamespace(VARIANTS=(dataclasses.replace(floors.VARIANTS[0], name="toy"),))
    monkeypatch.setattr(variants, "FAMILIES", (toy, *FAMILIES))
    for kind, entries in before.items():
        assert {name: entry for name, entry in variants._by_name(kind).items() if name != "toy"} == entries
    monkeypatch.setattr(
        variants, "FAMILIES", (SimpleNamespace(VARIANTS=(dataclasses.replace(floors.VARIANTS[0]),)), floors)
    )
    with pytest.raises(ValueError, match="copy_source"):
        variants._by_name("VARIANTS")


# ---- what each stage reads of others


DATA = {"index", "keypoints", "pairs"}
SHOWN = {"fetch", "weights", "parsing", "pseudo_labels", "distance_maps", "describe", "reference"}
SHOWN |= {"score", "score_components", "score_images", "tables"}
READS = {
    "plan": set(),
    "needs": set(),
    "fetch": set(),
    "weights": set(),
    "index": {"fetch"},
    "keypoints": {"fetch", "index", "needs", "weights"},
    "parsing": {"fetch", "index", "keypoints", "needs", "weights"},
    "pairs": {"fetch", "keypoints"},
    "pseudo_labels": {"keypoints", "needs", "parsing"},
    "distance_maps": {"index", "keypoints", "needs"},
    "describe": DATA | {"fetch", "parsing", "pseudo_labels", "distance_maps"},
    "reference": DATA | {"parsing", "plan", "pretrain", "weights"},
    "score": DATA | {"parsing", "pretrain", "reference", "train", "weights"},
    "score_components": DATA | {"parsing", "pretrain", "reference"},
    "draw": DATA | {"plan"},
    "score_images": DATA | {"parsing", "pretrain", "reference", "draw", "weights"},
    "tables": {"reference", "score", "score_components", "score_images"},
    "report": DATA | SHOWN | {"plan", "needs"},
}


def trained_on(job: graph.Job) -> set[str]:
    """The stages that a training needs, by its entry in models/."""
    name = job.axes.get("component") or params.variant_of(job.axes["variant"])
    if name == "detector":
        return {"index", "keypoints"}
    entry = (COMPONENTS | VARIANTS)[name]
    also = {
        "parsing": entry.needs_parsing,
        "pseudo_labels": entry.data in RULES,
        "weights": entry.features,
        "pretrain": entry.components or getattr(entry, "judges", ()),
    }
    return DATA | {stage for stage, needed in also.items() if needed}


def test_every_stage_reads_what_others_make_for_it_and_its_own_params(jobs):
    writers = graph.Writers(jobs)
    for job in jobs:
        before = writers.before(job)
        found = {one.stage for one in before}
        if job.stage in ("pretrain", "train"):
            assert trained_on(job) <= found, job
        else:
            own = {job.stage} if job.stage in layout.SPREAD and "part" not in job.axes else set()
            assert found == READS[job.stage] | own, job
        if job.stage == "score":
            assert [str(one) for one in before if one.stage == "train"] == [str(job).replace("score", "train", 1)]
        if "dataset" in job.axes:
            assert {one.axes.get("dataset", job.axes["dataset"]) for one in before} <= {job.axes["dataset"]}, job
        block = {"draw": "reference", "score_images": "score"}.get(job.stage, job.stage)
        own = job.stage in graph.FOREGOING or any(key.partition(".")[0] == block for key in job.params)
        assert own, job


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("data/synthetic/keypoints.parquet", "repose keypoints --dataset synthetic"),
        ("data/synthetic/images", "repose index --dataset synthetic"),
        ("data/synthetic/raw/annotation-test.csv", "repose fetch --dataset synthetic"),
        ("runs/synthetic/spgnet/checkpoints/meta.json", "repose train --dataset synthetic --variant spgnet"),
        ("data/weights/inception/source.json", "repose weights --net inception"),
        ("reports/tables/notes.csv", "repose tables"),
    ],
)
def test_what_is_missing_is_made_by_one_command(path, command, monkeypatch):
    """Not by a run of everything, and what nobody asks for by none."""
    monkeypatch.chdir(ROOT)
    assert graph.how_to_make(path) == f"run: {command}"
    assert "no stage writes it" in graph.how_to_make("data/nowhere/images")
