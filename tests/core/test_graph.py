"""Snakefile and dvc.yaml describe one graph, and every source that decides a result is an input of its stage."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from models.variants import COMPONENTS, VARIANTS
from pipeline.__main__ import STAGES
from pipeline.core import graph, params
from tests.conftest import ROOT, copy_project

# What carries data and names it, without deciding what a result is: an edit here does not re-run the pipeline.
PLUMBING = {"__init__", "__main__", "errors", "atomic", "layout", "schema", "store", "resume", "console", "params"}
PLUMBING |= {"sample_grid"}  # draws into logs/
PLUMBING = {f"pipeline/{name}.py" for name in PLUMBING} | {
    "pipeline/stages/__init__.py",
    "models/__init__.py",
    "models/schedule.py",
}
# Lists of what exists. Each entry's own file is an input of the stages that use it, so a new entry re-runs nothing.
REGISTRIES = {"pipeline/datasets/__init__.py", "pipeline/metrics/__init__.py", "models/variants.py"}
# Readers of inputs that are declared themselves: their content, not this code, decides.
READERS = {"pipeline/loading/published_weights.py", "pipeline/formats/pictures.py"}


def resolve(project: Path) -> dict[str, dict[str, dict]]:
    """Both graphs of a project folder: engine -> command -> inputs, outputs, params, rule."""
    result = subprocess.run([sys.executable, "-m", "tests.graphs"], cwd=project, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout)


def differences(graphs: dict) -> list[str]:
    """Where the two graphs disagree, one line each.

    DVC cannot list files over the data sets of params.yaml, so a directory among its inputs stands for what its other
    stages write there; Snakemake must then read something of every stage that does. A folder of sources stands for all
    of its modules.
    """
    snakemake, dvc = graphs["snakemake"], graphs["dvc"]
    found = [f"only in one engine: {command}" for command in sorted(snakemake.keys() ^ dvc.keys())]
    for command in sorted(snakemake.keys() & dvc.keys()):
        ours, theirs = snakemake[command], dvc[command]
        inputs = set(ours["inputs"])
        for folder in theirs["inputs"]:
            writers = {
                tuple(job["outputs"]) for job in dvc.values() if any(o.startswith(folder + "/") for o in job["outputs"])
            }
            below = {path for path in inputs if path.startswith(folder + "/")}
            known = {path for outputs in writers for path in outputs}
            if writers and below and below <= known and all(below & set(outputs) for outputs in writers):
                inputs = inputs - below | {folder}
            sources = {path for path in inputs if path.startswith(folder + "/") and path.endswith(".py")}
            if sources and sources == {str(path) for path in Path(folder).glob("*.py")}:
                inputs = inputs - sources | {folder}
        if inputs != set(theirs["inputs"]):
            found.append(f"inputs of {command}: {sorted(inputs ^ set(theirs['inputs']))}")
        if ours["outputs"] != theirs["outputs"]:
            found.append(f"outputs of {command}: {sorted(set(ours['outputs']) ^ set(theirs['outputs']))}")
        values = [sorted(json.dumps(value, sort_keys=True) for value in job["params"]) for job in (ours, theirs)]
        if values[0] != values[1]:
            found.append(f"params of {command}: {values[0]} != {values[1]}")
    return found


@pytest.fixture(scope="module")
def graphs() -> dict:
    return resolve(ROOT)


def test_both_engines_see_one_graph(graphs):
    assert differences(graphs) == []


def as_status_reads_it() -> dict[str, dict]:
    """The graph of the working folder, in the form of `resolve`."""
    params.load.cache_clear()
    return {
        job.command: {
            "inputs": sorted(job.inputs),
            "outputs": sorted(job.outputs),
            "params": list(job.params.values()),
        }
        for job in graph.jobs()
    }


def test_every_stage_of_the_table_is_in_the_graph(graphs):
    run = {command.split(" -m pipeline ")[1].split()[0] for command in graphs["dvc"]}
    assert run == set(STAGES)


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> dict:
    """Both graphs with every variant and component."""
    project = copy_project(tmp_path_factory.mktemp("everything"))
    values = yaml.safe_load((project / "params.yaml").read_text())
    choices = yaml.safe_load((project / "params.schema.yaml").read_text())["properties"]["variants"]["properties"]
    items = {family: choice["items"] for family, choice in choices.items()}
    values["variants"] = {family: item.get("then", item)["enum"] for family, item in items.items()}
    values["components"] = dict.fromkeys(values["components"], True)
    (project / "params.yaml").write_text(yaml.safe_dump(values))
    return resolve(project)


def test_every_data_set_at_once(project, monkeypatch):
    file = project / "params.yaml"
    file.write_text(file.read_text().replace("datasets: [synthetic]", "datasets: [synthetic, market1501]"))
    both = resolve(project)
    monkeypatch.chdir(project)
    for job in both["dvc"].values():
        del job["rule"]
    assert as_status_reads_it() == both["dvc"]
    params.load.cache_clear()
    assert differences(both) == []
    assert sum("--dataset market1501" in command for command in both["dvc"]) > 10


def test_every_variant_at_once(everything):
    assert differences(everything) == []
    assert {job["rule"] for job in everything["dvc"].values()} >= {*ENTRIES, *UNUSED}
    trained = [command.rsplit(" ", 1)[1] for command in everything["snakemake"] if "pipeline train" in command]
    assert sorted(trained) == sorted(VARIANTS)


def test_each_seed_is_trained_and_scored_by_itself(project):
    """A variant's further seeds: the same graph in both engines, and nothing of one seed's differs."""
    one = resolve(project)["dvc"]
    params = project / "params.yaml"
    for family, names in {"spig": "spig, spig-seed1, spig-seed22", "spgnet": "spgnet, spgnet-seed1"}.items():
        line = next(line for line in params.read_text().splitlines() if line.startswith(f"  {family}: ["))
        params.write_text(params.read_text().replace(line, f"  {family}: [{names}]", 1))
    both = resolve(project)
    assert differences(both) == []
    runs = ("spig-seed1", "spig-seed22", "spgnet-seed1")
    own = {command: job for command, job in both["dvc"].items() if command.endswith(runs)}
    assert len(own) == 6
    for command, job in own.items():
        run = command.rsplit(" ", 1)[1]
        of_one = one[command.partition("-seed")[0]]
        assert job["params"] == of_one["params"]
        variant = run.partition("-seed")[0]
        for key in ("inputs", "outputs"):
            renamed = {path.replace(f"/{run}/", f"/{variant}/") for path in job[key]}
            assert renamed == set(of_one[key])
    kept = {command: job for command, job in both["dvc"].items() if not command.endswith((*runs, " tables", " report"))}
    assert kept == {command: one[command] for command in kept}
    scored = {path for path in both["snakemake"][tables_command(both)]["inputs"] if path.endswith("scores.parquet")}
    assert {f"reports/scores/synthetic/{run}/scores.parquet" for run in runs} <= scored


def tables_command(graphs: dict) -> str:
    return next(command for command in graphs["snakemake"] if command.endswith(" tables"))


def test_components_are_inputs_of_what_starts_from_them(everything):
    for command, job in everything["dvc"].items():
        name, needed = command.rsplit(" ", 1)[1], set()
        stage, _, _ = job["rule"].partition("_")
        entry = {"train": VARIANTS, "score": VARIANTS, "pretrain": COMPONENTS}.get(stage, {}).get(name)
        if entry is None:
            continue
        if stage != "score":
            starts_from = (*entry.components, *getattr(entry, "judges", {}).values())
            needed |= {f"runs/synthetic/{component}/checkpoints" for component in starts_from}
            needed |= {"data/synthetic/pseudo_labels"} if entry.data == "pseudo_pairs" else set()
            needed |= {"data/weights/vgg19", "data/weights/squeezenet1_1"} if entry.needs_features else set()
        needed |= {"data/synthetic/parsing"} if entry.needs_parsing else set()
        assert needed <= set(job["inputs"]), command


@pytest.mark.parametrize(
    ("file", "old", "new", "kind"),
    [
        (
            "Snakefile",
            "python -m pipeline index --dataset",
            "python -m pipeline index  --dataset",
            "only in one engine",
        ),
        ("Snakefile", '        "pipeline/anatomy/distance.py",\n', "", "inputs of"),
        # The report reads all of data/: what no stage writes there is then an input that only one engine knows.
        ("dvc.yaml", "      - data/${item.dataset}/rejects.parquet\n", "", ("outputs of", "inputs of")),
        ("dvc.yaml", "      - pairs.${item.dataset}\n", "      - index.${item.dataset}\n", "params of"),
        (
            "Snakefile",
            "variant=VARIANTS,\n            file",
            "variant=VARIANTS[:-1],\n            file",
            "inputs of",
        ),
    ],
)
def test_a_planted_difference_is_found(project, file, old, new, kind):
    text = (project / file).read_text()
    assert old in text
    (project / file).write_text(text.replace(old, new, 1))
    found = differences(resolve(project))
    assert len(found) >= 1
    kinds = (kind,) if isinstance(kind, str) else kind
    assert all(line.startswith(kinds) for line in found), found
    assert all(any(line.startswith(one) for line in found) for one in kinds), found


def imported_files(path: str, seen: set[str]) -> set[str]:
    """Project files that `path` imports, directly or not, as paths from the project root."""
    if path in seen:
        return seen
    seen.add(path)
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            file = name.replace(".", "/") + ".py"
            if (ROOT / file).with_suffix("").is_dir():
                file = name.replace(".", "/") + "/__init__.py"
            if name.split(".")[0] in ("pipeline", "models") and (ROOT / file).exists():
                if file in REGISTRIES | PLUMBING | READERS:
                    continue  # what hangs below a registry is declared entry by entry
                imported_files(file, seen)
    return seen


# The files behind an entry of a registry that a stage reaches by name.
ENTRIES = {
    "pretrain_spig_flow": ["models/spig.py"],
    "pretrain_spatn": ["models/spatn.py"],
    "pretrain_spatn_no_distance": ["models/spatn.py"],
    "pretrain_spgnet_flow": ["models/spgnet.py"],
    "pretrain_spt_parsing": ["models/spt/__init__.py"],
    "pretrain_spt_detector": ["models/spt/__init__.py"],
    "pretrain_sgw_parser": ["models/sgw_gan/__init__.py"],
    "pretrain_sgw_matcher": ["models/sgw_gan/__init__.py"],
    "pretrain_sgw_matcher_pose": ["models/sgw_gan/__init__.py"],
    "pretrain_gfla_flow": ["models/gfla.py"],
    "pretrain_detector": ["models/detector.py"],
    "train_floors": ["models/floors.py"],
    "train_spig": ["models/spig.py"],
    "train_spgnet": ["models/spgnet.py"],
    "train_spt": ["models/spt/__init__.py"],
    "train_sgw_gan": ["models/sgw_gan/__init__.py"],
    "train_patn": ["models/patn.py"],
    "train_gfla": ["models/gfla.py"],
}
# Imported by a module that serves several rules, but not used by this one.
DETECTOR, FEATURES = "models/detector.py", "models/layers/features.py"
NETWORKS = {"models/layers/blocks.py", DETECTOR, "models/layers/pose_maps.py"}  # decide by way of the checkpoints read
ENGINE = {f"pipeline/{name}.py" for name in ("engine", "augment", "compiling", "training_data")}
UNUSED = {
    "pseudo_labels": {
        "pipeline/loading/devices.py",
        "pipeline/loading/parallel.py",
    },
    "train_floors": {*ENGINE, FEATURES, "models/layers/losses.py", "models/layers/blocks.py"},
    "pretrain_spig_flow": {DETECTOR},
    "pretrain_spatn": {DETECTOR, FEATURES},
    "pretrain_spatn_no_distance": {DETECTOR, FEATURES},
    "pretrain_spgnet_flow": {DETECTOR, "models/layers/affine_flow.py", "models/spatn.py"},
    "pretrain_spt_parsing": {FEATURES},
    "pretrain_spt_detector": {FEATURES},
    "pretrain_sgw_parser": {DETECTOR, FEATURES},
    "pretrain_sgw_matcher": {DETECTOR, FEATURES},
    "pretrain_sgw_matcher_pose": {DETECTOR, FEATURES},
    "pretrain_gfla_flow": {DETECTOR},
    "pretrain_detector": {FEATURES},
    **{f"score_{family}": NETWORKS for family in ("floors", "spig", "spgnet", "spt", "sgw_gan", "patn", "gfla")},
}


def test_sources_that_decide_a_result_are_inputs(everything):
    lacking = {}
    for command, job in everything["dvc"].items():
        stage = command.split(" -m pipeline ")[1].split()[0]
        needed = set()
        for start in [f"pipeline/stages/{stage}.py", *ENTRIES.get(job["rule"], [])]:
            imported_files(start, needed)
        for folder in (path for path in job["inputs"] if path.startswith("pipeline/datasets/")):
            for path in (ROOT / folder).glob("*.py"):
                own = imported_files(f"{folder}/{path.name}", set())
                needed |= {name for name in own if not name.startswith(folder)}
        missing = needed - PLUMBING - REGISTRIES - READERS - UNUSED.get(job["rule"], set()) - set(job["inputs"])
        if missing:
            lacking[job["rule"]] = sorted(missing)
    assert lacking == {}


def test_sources_that_are_inputs_exist(everything):
    named = {
        path
        for job in everything["dvc"].values()
        for path in job["inputs"]
        if path.split("/")[0] in ("pipeline", "models")
    }
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_config_overrides_are_refused(project):
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "1", "--config", "datasets=[market1501]"]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert result.returncode != 0
    assert "edit params.yaml" in result.stdout + result.stderr
