"""What is trained and parsed follows from the variants and metrics that params.yaml names."""

import copy
from pathlib import Path

import pytest

from pipeline.core import graph, layout, needs, params
from pipeline.core.errors import UserError
from pipeline.stages import needs as stage
from tests.conftest import ROOT
from tests.small_project import contents, enter


@pytest.fixture
def values(monkeypatch) -> dict:
    """Of params.yaml for Market-1501, with no variant but the floors."""
    monkeypatch.chdir(ROOT)
    params.load.cache_clear()
    found = copy.deepcopy(params.load())
    found["datasets"], found["variants"] = ["market1501"], {family: [] for family in found["variants"]}
    return found


def made(values: dict) -> set[str]:
    return {name for name, is_made in needs.wanted(values, "market1501").items() if is_made}


@pytest.mark.parametrize(
    ("variants", "wanted"),
    [
        ({}, set()),
        ({"spig": ["spig"]}, {"spig_flow"}),
        ({"patn": ["patn"]}, set()),
        ({"gfla": ["gfla"], "spig": ["spig_no_part", "spig_no_part-seed1"]}, {"gfla_flow", "spig_flow_whole"}),
        ({"spgnet": ["spgnet_learned_flow"]}, {"spatn", "spgnet_flow", "parsing"}),
        ({"spt": ["spt_ts_gt"]}, {"spt_detector", "parsing"}),
        ({"sgw_gan": ["sgw_no_parsing"]}, {"sgw_matcher_pose"}),
    ],
    ids=lambda given: "-".join(sorted(given)),
)
def test_what_the_variants_need_is_made_and_nothing_else(values, variants, wanted):
    values["variants"] |= variants
    params.check(values)
    assert made(values) == wanted


def test_a_run_with_settings_of_its_own_needs_what_its_variant_does(values):
    values["named"]["spig"] = {"spig-fast": {"steps": 3}}
    assert made(values) == {"spig_flow"}


def test_what_is_asked_for_by_name_is_made_with_what_it_needs_itself(values):
    values["components"] |= {"spatn": True, "spig_flow": True}
    assert made(values) == {"spatn", "spig_flow", "parsing"}


def test_what_a_needed_component_needs_itself_is_needed_by_it(values):
    values["variants"]["spgnet"] = ["spgnet"]
    jobs = ["train market1501 spgnet", "pretrain market1501 spatn"]
    assert needs.readers(values, "market1501")["parsing"] == jobs


def test_a_metric_that_compares_parsings_needs_them(values):
    values["reference"]["market1501"]["metrics"] = ["identity-target"]
    assert made(values) == set()
    values["reference"]["market1501"]["metrics"] = ["parsing-miou-fg"]
    assert made(values) == {"parsing"}


def test_components_may_be_left_out_but_not_refused_while_they_are_needed(values):
    values["variants"]["spig"], values["components"] = ["spig"], {}
    assert params.check(values)
    assert made(values) == {"spig_flow"}
    values["components"] = {"spig_flow": False}
    with pytest.raises(UserError, match=r"components\.spig_flow is false; variants\.spig: spig needs it: auto"):
        params.check(values)


def test_a_further_seed_makes_nothing_due_and_a_further_variant_only_what_it_needs(values):
    """By what Snakemake compares, `deciding`; DVC compares the files, see below."""

    def of_components(now: dict) -> dict[str, dict]:
        stages = ("pretrain", "parsing", "pseudo_labels")
        return {job.name: job.deciding for job in graph.jobs(now) if job.stage in stages}

    values["variants"]["spig"] = ["spig"]
    before = of_components(values)
    values["variants"]["spig"] = ["spig", "spig-seed1", "spig_no_pnb"]
    assert of_components(values) == before
    values["variants"]["spgnet"] = ["spgnet"]
    changed = {name for name, now in of_components(values).items() if now != before[name]}
    assert changed == {"pretrain_spatn@market1501", "parsing@market1501"}


def test_each_file_changes_with_its_own_answer_only(tmp_path, monkeypatch):
    def written(**variants: list[str]) -> dict[str, bytes]:
        none = {family: [] for family in params.load(ROOT / "params.yaml")["variants"]}
        enter(tmp_path, monkeypatch, variants=none | variants)
        stage.run("synthetic")
        return contents(Path("data/synthetic/needs"))

    one = written(spig=["spig"])
    assert one == written(spig=["spig", "spig-seed1", "spig_no_hdcb"])
    other = written(spig=["spig"], gfla=["gfla"])
    assert {name for name in one if one[name] != other[name]} == {"gfla_flow.json"}
    assert other["gfla_flow.json"] == b"true\n"
    assert {layout.needs("synthetic", name).name for name in needs.wanted(params.load(), "synthetic")} == set(one)
