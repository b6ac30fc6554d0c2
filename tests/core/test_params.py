"""params.yaml: a wrong one is refused in one line that names the key and what is allowed, with exit status 2."""

import copy
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module

import pytest
from dvc.utils.hydra import apply_overrides

from models.variants import COMPONENTS, VARIANTS
from pipeline import datasets
from pipeline.commands import schema
from pipeline.core import layout, params, yaml_file
from pipeline.core.errors import UserError
from pipeline.core.settings import construct
from pipeline.stages import pretrain, weights
from pipeline.training.settings import kind_of, kind_of_family
from tests.conftest import ROOT


@pytest.fixture
def values() -> dict:
    """Of params.yaml, with SPIG, which the demo leaves out."""
    params.load.cache_clear()  # other tests have projects of their own
    found = copy.deepcopy(params.load())
    found["variants"]["spig"], found["components"]["spig_flow"] = ["spig"], True
    return found


def at(values: dict, *keys: str) -> dict:
    for key in keys:
        values = values[key]
    return values


@pytest.mark.parametrize(
    ("keys", "value", "says"),
    [
        (("datasets",), ["market"], ["datasets.0 is 'market'", "synthetic, market1501"]),
        (("datasets",), "synthetic", ["datasets is 'synthetic'", "list"]),
        (("variants", "spig"), ["spigg"], ["variants.spig.0 is 'spigg'", "allowed: spig, spig_no_part"]),
        (("variants", "spig"), ["spig", "spig-seedx"], ["variants.spig.1 is 'spig-seedx'", "allowed: spig, "]),
        (("variants", "spig"), ["spig", "spig-seed01"], ["variants.spig.1 is 'spig-seed01'"]),
        (("variants", "spig"), ["spig-seed1"], ["variants.spig: spig-seed1", "spig, which must be listed too"]),
        (("variants", "spig"), ["spig", "spigg-seed1"], ["spigg, which must be listed too"]),
        (("variants", "spig"), ["spig", "spig-seed0"], ["spig-seed0 repeats spig", "train.synthetic.spig.seed is 0"]),
        (("variants", "spig"), ["spig", "spig-seed4294967296"], ["a seed is at most 4294967295"]),
        (
            ("variants", "spig"),
            ["spig", "spig-seed1-seed2"],
            ["variants.spig.1 is 'spig-seed1-seed2'", "allowed: spig"],
        ),
        (("variants", "spig"), [["spig"]], ["variants.spig.0 is ['spig']", "allowed: spig"]),
        (
            ("methods",),
            ["spig"],
            ["methods.0 is 'spig', which is taken; allowed: a folder of methods/"],
        ),
        (("methods",), ["My method"], ["methods.0 is 'My method'; allowed: pattern"]),
        (("named", "spig"), {5: {}}, ["named.spig: the key 5 is no text"]),
        (("report", "title"), "a\0b", ["report.title: text with a zero byte"]),
        (("score", "synthetic", "device"), "cuda\n", ["score.synthetic.device is 'cuda\\n'"]),
        (("score", "synthetic", "bootstrap"), 10**400, ["score.synthetic.bootstrap: a number of 401 digits"]),
        (("variants", "floors"), ["mean_image", "mean_image-seed1"], ["variants.floors.1", "copy_source, mean"]),
        (("components", "spatn"), False, ["components.spatn is false", "variants.spgnet: spgnet needs it"]),
        (("components", "spig_flow"), False, ["components.spig_flow is false", "variants.spig: spig needs it"]),
        (("train", "synthetic", "spig", "features"), "vgg19", ["features is 'vgg19'; allowed: squeezenet1_1, null"]),
        (("train", "synthetic", "spig", "steps"), "many", ["train.synthetic.spig.steps is 'many'", "integer"]),
        (("train", "synthetic", "spig", "steps"), 12.0, ["train.synthetic.spig.steps is 12.0", "integer"]),
        (("train", "synthetic", "spig", "steps"), True, ["train.synthetic.spig.steps is True", "integer"]),
        (("train", "synthetic", "spig", "width"), True, ["train.synthetic.spig.width is True", "number"]),
        (
            ("train", "synthetic", "spig", "width"),
            float("nan"),
            ["train.synthetic.spig.width is nan; allowed: a finite number"],
        ),
        (
            ("train", "synthetic", "spig", "width"),
            float("inf"),
            ["train.synthetic.spig.width is inf; allowed: a finite number"],
        ),
        (("train", "synthetic", "spig", "resident"), 1, ["spig.resident is 1; allowed: True, False, auto"]),
        (("index", "synthetic"), None, ["index.synthetic is None; allowed: a value of type block"]),
        (("report", "title"), None, ["report.title is None; allowed: a value of type string"]),
        (("train", "synthetic", "spig", "steps"), 0, ["train.synthetic.spig.steps", "minimum"]),
        (("train", "synthetic", "spig", "stepz"), 5, ["unknown key train.synthetic.spig.stepz", "steps"]),
        (("bogus",), 1, ["unknown key bogus", "datasets"]),
        (("index", "market"), {"max_rejects": 1}, ["unknown key index.market;", "synthetic, market1501"]),
        (("distance_maps", "synthetic", "kappa"), 0.1, ["distance_maps.synthetic.kappa"]),
        (("reference", "synthetic", "metrics"), ["fid"], ["reference.synthetic.metrics.0 is 'fid'", "fid-train-tv"]),
        (("weights", "openpose", "path"), "", ["weights.openpose.path"]),
        (("fetch", "market1501", "images"), {"paht": "x"}, ["unknown key fetch.market1501.images.paht", "path"]),
        # keys of earlier versions
        (("variants", "reference"), ["copy_source"], ["variants.reference is called variants.floors now"]),
        (("train", "folder", "reference"), {"seed": 0}, ["train.folder.reference is called train.D.floors now"]),
        (("weights", "vgg19", "files"), [], ["weights.vgg19.files is gone", "weights.NET.path"]),
        (("pretrain", "folder", "spatn", "features"), None, ["pretrain.folder.spatn.features is gone"]),
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


ODD = [
    "text", "", "a\0b", "x" * 5000, -1, 0, 10**15, 10**30, 1e30, 12.0, float("nan"), float("inf"), float("-inf"), True,
    None, [], [[1]], {}, {"a": {}}, {5: 1}, {1, 2}, b"",
]  # fmt: skip
SCHEMA = params.schema()
STRICT = params._strict()(SCHEMA)
LEAVES = [
    (f"{kind}.{name}", setting)
    for kind, block in SCHEMA["$defs"].items()
    for name, setting in block["properties"].items()
    if "$ref" not in setting
]


def kinds_of(setting: dict) -> list[str]:
    found = setting.get("type", [])
    return [found] if isinstance(found, str) else found


@pytest.mark.parametrize(("name", "setting"), LEAVES, ids=[name for name, _ in LEAVES])
def test_any_value_is_one_of_the_setting_or_a_line(name, setting):
    """For every setting there is: a wrong value never comes as far as a stage."""
    strict = STRICT.evolve(schema=setting)
    for value in ODD:
        problem = next(params._odd(value, name), None)
        if problem is None:
            problem = next(map(params._explain, strict.iter_errors(value)), None)
        if problem is not None:
            assert "\n" not in problem
            assert len(problem) < 400, "it is one line"
        elif isinstance(value, str):
            assert "string" in kinds_of(setting)
        elif type(value) in (int, float):  # finite, within bounds, and of its type
            assert setting["minimum" if "minimum" in setting else "exclusiveMinimum"] <= value <= 10**9
            assert "number" in kinds_of(setting) or type(value) is int
        elif "enum" not in setting:
            kind = {bool: "boolean", type(None): "null", list: "array", dict: "object"}[type(value)]
            assert kind in kinds_of(setting)


@pytest.mark.parametrize("setting", [setting for _, setting in LEAVES], ids=[name for name, _ in LEAVES])
def test_every_number_has_a_least_and_a_largest_value(setting):
    for one in (setting, setting.get("items", {})):
        if {"integer", "number"} & {*kinds_of(one)} and "enum" not in one:
            assert {"minimum", "exclusiveMinimum"} & one.keys()
            assert {"maximum", "exclusiveMaximum"} & one.keys()


def test_a_block_that_holds_itself(values):
    values["presets"]["demo"] = values["presets"]
    with pytest.raises(UserError, match=r"presets\.demo holds itself"):
        params.check(values)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "a:\n" * 1 + " " * 600 + "b: 1", f"a: {'1' * 5000}", "a: !!int x", "a: !!bool maybe", "a: &b [*b]"],
    ids=["deep", "indented", "digits", "no-int", "no-bool", "itself"],
)
def test_text_that_yaml_chokes_on_is_one_line(tmp_path, text):
    """libyaml ends the process on what is nested too deep."""
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"params\.yaml") as caught:
        params.load(path)
    assert "\n" not in str(caught.value)


def test_a_data_set_without_its_block(values):
    del values["train"]["synthetic"]
    with pytest.raises(UserError, match="train lacks a block for the data set synthetic"):
        params.check(values)


def test_a_missing_key(values):
    del values["train"]["synthetic"]["spig"]["steps"]
    with pytest.raises(UserError, match=r"train\.synthetic\.spig lacks the key steps"):
        params.check(values)


def test_a_further_seed_is_a_run_of_its_variant(values):
    values["variants"]["spig"] = ["spig", "spig_no_pnb", "spig-seed7", "spig_no_pnb-seed12"]
    assert params.check(values) == values
    assert [params.variant_of(name) for name in ("spig", "spig-seed7", "spig_no_pnb-seed12")] == [
        "spig",
        "spig",
        "spig_no_pnb",
    ]
    assert [params.seed_of(name) for name in ("spig", "spig-seed7", "spig_no_pnb-seed12")] == [None, 7, 12]


def test_a_run_with_settings_of_its_own_is_named_and_trained_by_them(monkeypatch, values):
    own = {"learning_rate": 0.5, "batch": None}
    values["named"]["spig"] = {"spig-fast": own, "spig-fast-seed1": own}
    monkeypatch.setattr(params, "load", lambda: params.check(values))
    assert params.variants()[-2:] == ["spig-fast", "spig-fast-seed1"]
    for run, seed in (("spig-fast", 0), ("spig-fast-seed1", 1)):
        assert (params.variant_of(run), params.named(run), params.without_seed(run)) == ("spig", "fast", "spig-fast")
        assert params.family(run) == "spig"
        assert params.training("synthetic", run) == values["train"]["synthetic"]["spig"] | own | {"seed": seed}
    assert params.named("spig-seed1") == params.named("spig") == ""
    assert params.training("synthetic", "spig") == values["train"]["synthetic"]["spig"]


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"fast": {}}, "named.spig.fast: a name is that of a variant, a dash, "),
        ({"spig-seed3": {"seed": 3}}, "named.spig.spig-seed3: a name is that of a variant"),
        ({"spig-fast": {"lr": 1}}, "unknown key named.spig.spig-fast.lr; allowed here: seed, steps"),
        ({"spig-fast": {"learning_rate": 0}}, "named.spig.spig-fast.learning_rate"),
        ({"spig-fast-seed1": {}}, "named.spig: spig-fast-seed1 is a further seed of spig-fast, which must be listed"),
        ({"spig-fast": {"batch": 2}, "spig-fast-seed1": {}}, "must have the same settings"),
        ({"spig-a": {"seed": 1}, "spig-a-seed1": {"seed": 1}}, "whose named.spig.spig-a.seed is 1 too"),
        (
            {"spig_no_part-fast": {}},
            "components.spig_flow_whole is false; named.spig: spig_no_part-fast needs it: auto",
        ),
    ],
    ids=lambda given: given[:30] if isinstance(given, str) else "-",
)
def test_wrong_settings_of_a_runs_own_are_one_line(values, named, says):
    values["named"]["spig"] = named
    values["components"]["spig_flow_whole"] = False
    with pytest.raises(UserError, match=re.escape(says)):
        params.check(values)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_asks_for_its_components_and_no_other(values, name):
    family = next(f for f in values["variants"] if name in allowed(f))
    values["variants"] = {key: [] for key in values["variants"]} | {family: [name]}
    needed = (*VARIANTS[name].components, *VARIANTS[name].judges.values())
    values["components"] = {component: component in needed for component in values["components"]}
    params.check(values)
    for component in needed:
        with pytest.raises(UserError, match=rf"components\.{component} is false"):
            params.check({**values, "components": values["components"] | {component: False}})


def allowed(family: str) -> list[str]:
    items = params.schema()["properties"]["variants"]["properties"][family]["items"]
    return items.get("then", items)["enum"]


def test_every_variant_and_component_can_be_named(values):
    assert {name for family in values["variants"] for name in allowed(family)} == set(VARIANTS)
    assert {*values["components"], "detector"} == set(COMPONENTS)


def test_broken_yaml(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("datasets: [synthetic\nvariants: {")
    with pytest.raises(UserError, match="not valid YAML near line"):
        params.load(path)


def blocks(values: dict) -> Iterator[tuple[type, tuple[str, ...]]]:
    """Every block of params.yaml with its dataclass."""
    for name in datasets.NAMES:
        yield datasets.get(name).Fetch, ("fetch", name)
        for stage in schema._PER_DATA_SET:
            yield import_module(f"pipeline.stages.{stage}").Params, (stage, name)
        yield from ((kind_of(entry), ("pretrain", name, component)) for component, entry in TRAINED.items())
        yield pretrain.DetectorParams, ("pretrain", name, "detector")
        for family in values["variants"]:
            yield kind_of_family(family), ("train", name, family)
    yield from ((weights.Params, ("weights", net)) for net in values["weights"])
    yield from ((import_module(f"pipeline.stages.{stage}").Params, (stage,)) for stage in ("tables", "report"))


TRAINED = {name: entry for name, entry in COMPONENTS.items() if name != "detector"}


def test_every_block_is_one_of_its_stage(values):
    for kind, keys in blocks(values):
        construct(kind, at(values, *keys))


def test_the_schema_is_what_the_stages_say():
    assert layout.PARAMS_SCHEMA.read_text(encoding="utf-8") == schema.text(), "run: repose schema"


def test_a_default_is_within_its_own_limits(values):
    """What a block leaves out is checked by nobody else."""
    for kind, keys in blocks(values):
        for name, setting in params.schema()["$defs"][
            f"{kind.__module__.removeprefix('pipeline.')}.{kind.__qualname__}"
        ]["properties"].items():
            if "default" in setting:
                at(values, *keys)[name] = setting["default"]
    params.check(values)


def test_an_override_of_dvc_reaches_exactly_its_block(tmp_path, values):
    """`dvc exp run -S`, at once for a setting of every block: DVC writes the file anew, and an alias would lose one."""
    path = tmp_path / "params.yaml"
    path.write_bytes((ROOT / layout.PARAMS).read_bytes())
    asked = {key: values[key] for key in ("variants", "components")}
    values = yaml_file.read(path) | asked
    overrides = []
    for number, (_, keys) in enumerate(blocks(values)):
        block = at(values, *keys)
        key = next(reversed(block))  # what a merge brought in comes first
        block[key] = number
        overrides.append(f"{'.'.join(keys)}.{key}={number}")
    apply_overrides(str(path), overrides)
    asked = {key: params.load()[key] for key in ("variants", "components")}
    assert yaml_file.read(path) == values | asked


def test_a_form_has_its_parents_settings_but_for_its_own(values):
    values["datasets"] = ["deepfashion-tall"]
    values["fetch"]["deepfashion"]["img_highres"] = {"path": "mine.zip"}
    values["fetch"]["deepfashion-tall"] = {"protocol": "resize352", "img": {"path": None}}
    values["train"]["deepfashion-tall"] = {"patn": {"steps": 7}}
    before = copy.deepcopy(values)
    filled = params.check(values)
    assert values == before
    assert params.check(filled) == filled
    parent, form = (
        {stage: block[name] for stage, block in filled.items() if stage not in params.SHARED}
        for name in ("deepfashion", "deepfashion-tall")
    )
    assert parent == {stage: before[stage]["deepfashion"] for stage in parent}
    parent["fetch"] = parent["fetch"] | {"protocol": "resize352", "img": {"path": None}}
    parent["train"] = parent["train"] | {"patn": parent["train"]["patn"] | {"steps": 7}}
    assert form == parent
    assert [params.parent(name) for name in ("deepfashion-tall", "deepfashion_sample")] == [
        "deepfashion",
        "deepfashion_sample",
    ]


@pytest.mark.parametrize(
    ("dataset", "block", "says"),
    [
        ("toy-tall", {}, "datasets.0 is 'toy-tall'; allowed: synthetic, "),
        ("deepfashion-", {}, "datasets.0 is 'deepfashion-'; allowed: "),
        ("deepfashion-tall", {"protocl": 1}, "unknown key fetch.deepfashion-tall.protocl; allowed here: protocol, "),
        ("deepfashion-tall", {"protocol": "x"}, "fetch.deepfashion-tall.protocol is 'x'; allowed: canvas256, "),
        ("deepfashion-tall", None, "fetch.deepfashion-tall is None; allowed: a value of type block"),
    ],
)
def test_a_wrong_form_is_refused(values, dataset, block, says):
    values["datasets"] = [dataset]
    if block != {}:
        values["fetch"][dataset] = block
    with pytest.raises(UserError) as caught:
        params.check(values)
    assert str(caught.value).startswith(f"params.yaml: {says}")


def comments(text: str) -> list[str]:
    return re.findall(r"#.*", text)


def test_after_an_override_of_dvc_params_yaml_is_still_to_be_read(tmp_path):
    """Every comment, the order of the keys, presets and who takes over which. Lines are wrapped anew, and what a block
    took over is also written out in it.
    """
    before = (ROOT / layout.PARAMS).read_text(encoding="utf-8")
    path = tmp_path / "params.yaml"
    path.write_text(before)
    apply_overrides(str(path), ["train.synthetic.spig.steps=4", "variants.spig=[spig,spig-seed1]"])
    after = path.read_text()
    assert sorted(comments(after)) == sorted(comments(before))
    assert re.findall(r"^\w+:", after, re.MULTILINE) == re.findall(r"^\w+:", before, re.MULTILINE)
    assert re.findall(r"&\w+", after) == re.findall(r"&\w+", before)
    assert re.findall(r"<<:\s+\*\w+", after) == re.findall(r"<<:\s+\*\w+", before)
    changed, expected = yaml_file.read(path), yaml_file.read(ROOT / layout.PARAMS)
    expected["train"]["synthetic"]["spig"]["steps"] = 4
    expected["variants"]["spig"] = ["spig", "spig-seed1"]
    assert changed == expected


def test_a_preset_reaches_those_that_take_it_over(tmp_path, values):
    path = tmp_path / "params.yaml"
    path.write_text((ROOT / layout.PARAMS).read_text().replace("demo: &demo {seed: 0", "demo: &demo {seed: 5"))
    changed = yaml_file.read(path)
    assert changed["train"]["synthetic"]["spig"]["seed"] == changed["pretrain"]["synthetic"]["spatn"]["seed"] == 5
    assert changed["train"]["market1501"] == values["train"]["market1501"]


def test_no_other_key_than_a_preset_is_an_anchor():
    """An override of a block that others take over would reach them, too."""
    before, _, after = (ROOT / layout.PARAMS).read_text(encoding="utf-8").partition("\npresets:\n")
    assert "&" not in before
    assert "&" not in after.partition("\n\n")[2]


def test_params_yaml_is_readable():
    lines = (ROOT / layout.PARAMS).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 240
    assert max(map(len, lines)) <= 120


def test_without_jsonschema_the_file_is_read_and_a_key_too_many_is_one_line(project):
    """On a machine that has only what training needs."""
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("max_rejects: 0", "max_rejects: 0, max_reject: 0", 1))
    (project / "jsonschema.py").write_text("raise ImportError")
    command = [sys.executable, "-m", "pipeline", "index", "--dataset", "synthetic"]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True)
    said = result.stderr.splitlines()
    assert said[0] == "params.yaml goes unchecked: jsonschema is not installed"
    assert said[1].startswith("repose: params.yaml: index.synthetic: ")
    assert "'max_reject'" in said[1]
    assert (len(said), result.returncode) == (2, 2)


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
        (["trane", "--dataset", "synthetic"], "unknown stage trane; stages: plan, needs, fetch, weights, index"),
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

    Draft202012Validator.check_schema(params.schema())


@pytest.mark.parametrize(
    ("key", "path", "folder"),
    [
        ("fetch.folder.path", "data/folder/photos", "data/folder"),
        ("fetch.folder.csv", "./data/../data/folder/raw/people.csv", "data/folder"),
        ("fetch.market1501.images.path", "data/market1501/raw/images.zip", "data/market1501"),
        ("keypoints.folder.path", "HERE/data/folder/raw", "data/folder"),
        ("pairs.market1501.path", "data/market1501", "data/market1501"),
        ("weights.topdown.path", "data/weights/topdown/mine.onnx", "data/weights"),
        ("parsing.folder.path", "runs/labels", "runs"),
    ],
)
def test_what_is_the_users_may_not_lie_where_stages_write(values, tmp_path, monkeypatch, key, path, folder):
    shutil.copy(ROOT / layout.PARAMS_SCHEMA, tmp_path)
    monkeypatch.chdir(tmp_path)
    *above, last = key.split(".")
    block = values
    for part in above:
        block = block[part]
    block[last] = path.replace("HERE", str(tmp_path))
    with pytest.raises(UserError) as caught:
        params.check(values)
    assert str(caught.value).startswith(f"params.yaml: {key}: {block[last]} lies in {folder}/, which stages write")
    for elsewhere in ("photos", "data/photos", "../data/folder/photos", "~/data/folder", "/data/folder"):
        block[last] = elsewhere
        assert params.check(values) == values


def test_make_clean_deletes_what_stages_write_and_not_all_of_data():
    written = {*datasets.NAMES, "weights"}
    clean = (ROOT / "Makefile").read_text().partition("\nclean:\n")[2]
    assert set(re.search(r"addprefix data/,([\w ]+)", clean)[1].split()) == written
    assert not re.search(r" data( |$)", clean)


def test_the_text_is_that_of_the_values(tmp_path, monkeypatch):
    """A run that is on its way does not show what somebody edits meanwhile."""
    shutil.copy(layout.PARAMS_SCHEMA, tmp_path)
    before = layout.PARAMS.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    params.load.cache_clear()
    layout.PARAMS.write_text(before, encoding="utf-8")
    params.load()
    layout.PARAMS.write_text("datasets: [market1501]\n")
    assert params.text() == before
    params.load.cache_clear()
