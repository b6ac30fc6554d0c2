"""params.yaml: a wrong one is refused in one line that names the key and what is allowed, with exit status 2."""

import copy
import subprocess
import sys
from dataclasses import fields
from importlib import import_module

import pytest
import yaml

from models.variants import COMPONENTS, VARIANTS
from pipeline.core import layout, params
from pipeline.core.errors import UserError


@pytest.fixture
def values() -> dict:
    return copy.deepcopy(params.load())


def at(values: dict, *keys: str) -> dict:
    for key in keys:
        values = values[key]
    return values


@pytest.mark.parametrize(
    ("keys", "value", "says"),
    [
        (("datasets",), ["market"], ["datasets.0 is 'market'", "synthetic, market1501"]),
        (("datasets",), "synthetic", ["datasets is 'synthetic'", "array"]),
        (("variants", "spig"), ["spigg"], ["variants.spig.0 is 'spigg'", "allowed: spig, spig_no_part"]),
        (("variants", "spig"), ["spig", "spig-seedx"], ["variants.spig.1 is 'spig-seedx'", "allowed: spig, "]),
        (("variants", "spig"), ["spig", "spig-seed01"], ["variants.spig.1 is 'spig-seed01'"]),
        (("variants", "spig"), ["spig-seed1"], ["variants.spig: spig-seed1", "spig, which must be listed too"]),
        (("variants", "spig"), ["spig", "spigg-seed1"], ["spigg, which must be listed too"]),
        (("variants", "spig"), ["spig", "spig-seed0"], ["spig-seed0 repeats spig", "train.synthetic.spig.seed is 0"]),
        (("variants", "spig"), ["spig", "spig-seed4294967296"], ["a seed is at most 4294967295"]),
        (("variants", "floors"), ["mean_image", "mean_image-seed1"], ["variants.floors.1", "copy_source, mean"]),
        (("components", "spatn"), False, ["components.spatn is False; allowed: True, for spgnet", "start from it"]),
        (("components", "spig_flow"), False, ["components.spig_flow is False; allowed: True, for spig"]),
        (("train", "synthetic", "spig", "features"), None, ["train.synthetic.spig.features is None", "string"]),
        (
            ("train", "synthetic", "spig", "steps"),
            "many",
            ["train.synthetic.spig.steps is 'many'", "integer"],
        ),
        (("train", "synthetic", "spig", "steps"), 0, ["train.synthetic.spig.steps", "minimum"]),
        (("train", "synthetic", "spig", "stepz"), 5, ["unknown key train.synthetic.spig.stepz", "steps"]),
        (("bogus",), 1, ["unknown key bogus", "datasets"]),
        (("index", "market"), {"max_rejects": 1}, ["unknown key index.market;", "synthetic, market1501"]),
        (("distance_maps", "synthetic", "kappa"), 0.1, ["distance_maps.synthetic.kappa"]),
        (("weights", "openpose", "files", 0, "sha256"), None, ["weights.openpose.files.0.sha256"]),
        (("fetch", "market1501", "images", "url"), "ftp://host/x", ["fetch.market1501.images.url"]),
    ],
)
def test_what_is_wrong_is_named(values, keys, value, says):
    at(values, *keys[:-1])[keys[-1]] = value
    with pytest.raises(UserError) as caught:
        params.check(values)
    assert "\n" not in str(caught.value)
    for words in says:
        assert words in str(caught.value)


def test_a_data_set_without_its_block(values):
    del values["train"]["synthetic"]
    with pytest.raises(UserError, match="train lacks a block for the data set synthetic"):
        params.check(values)


def test_a_missing_key(values):
    del values["score"]["synthetic"]["bootstrap"]
    with pytest.raises(UserError, match=r"score\.synthetic lacks the key bootstrap"):
        params.check(values)


def test_a_further_seed_is_a_run_of_its_variant(values):
    values["variants"]["spig"] = ["spig", "spig_no_part", "spig-seed7", "spig_no_part-seed12"]
    assert params.check(values) is values
    assert [params.variant_of(name) for name in ("spig", "spig-seed7", "spig_no_part-seed12")] == [
        "spig",
        "spig",
        "spig_no_part",
    ]
    assert [params.seed_of(name) for name in ("spig", "spig-seed7", "spig_no_part-seed12")] == [None, 7, 12]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_asks_for_its_components_and_no_other(values, name):
    """The schema's list of what each variant starts from is that of models/variants.py."""
    family = next(f for f in values["variants"] if name in allowed(f))
    values["variants"] = {key: [] for key in values["variants"]} | {family: [name]}
    needed = (*VARIANTS[name].components, *VARIANTS[name].judges.values())
    values["components"] = {component: component in needed for component in values["components"]}
    params.check(values)
    for component in needed:
        with pytest.raises(UserError, match=rf"components\.{component} is False"):
            params.check({**values, "components": values["components"] | {component: False}})


def allowed(family: str) -> list[str]:
    schema = yaml.safe_load(layout.PARAMS_SCHEMA.read_text())
    items = schema["properties"]["variants"]["properties"][family]["items"]
    return items.get("then", items)["enum"]


def test_every_variant_and_component_can_be_named(values):
    assert {name for family in values["variants"] for name in allowed(family)} == set(VARIANTS)
    assert {*values["components"], "detector"} == set(COMPONENTS)


def test_broken_yaml(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("datasets: [synthetic\nvariants: {")
    with pytest.raises(UserError, match="not valid YAML near line"):
        params.load(path)


@pytest.mark.parametrize(
    ("stage", "kind", "keys"),
    [
        ("index", "Params", ()),
        ("keypoints", "Params", ()),
        ("parsing", "Params", ()),
        ("pairs", "Params", ()),
        ("distance_maps", "Params", ()),
        ("reference", "Params", ()),
        ("score", "Params", ()),
    ],
)
@pytest.mark.parametrize("dataset", ["synthetic", "market1501"])
def test_a_stage_reads_exactly_its_block(stage, kind, keys, dataset):
    block = at(params.load(), stage, dataset, *keys)
    module = import_module(f"pipeline.stages.{stage}")
    assert {field.name for field in fields(getattr(module, kind))} == set(block)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["train", "--dataset", "synthetic", "--variant", "spigg"],
            "unknown variant spigg; params.yaml names: copy_source",
        ),
        (
            ["train", "--dataset", "market", "--variant", "spig"],
            "unknown dataset market; params.yaml names: synthetic",
        ),
        (["trane", "--dataset", "synthetic"], "unknown stage trane; stages: fetch, weights, index"),
        (["weights", "--net", "vgg"], "unknown net vgg; params.yaml names: inception"),
    ],
)
def test_the_command_line_refuses_in_one_line(arguments, says):
    result = subprocess.run([sys.executable, "-m", "pipeline", *arguments], capture_output=True, text=True)
    assert result.returncode == 2
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_wrong_params_file_stops_a_stage_with_status_2(project):
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("datasets: [synthetic]", "datasets: [synthetc]"))
    command = [sys.executable, "-m", "pipeline", "index", "--dataset", "synthetic"]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert result.returncode == 2
    says = "repose: params.yaml: datasets.0 is 'synthetc'; allowed: synthetic, market1501, deepfashion, "
    assert result.stderr.startswith(says)
    assert result.stderr.count("\n") == 1


def test_the_schema_is_itself_valid():
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(yaml.safe_load(layout.PARAMS_SCHEMA.read_text()))
