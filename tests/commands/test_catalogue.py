"""What there is by name: `repose list`, `describe NAME` and `cite`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from models.variants import COMPONENTS, VARIANTS
from pipeline.__main__ import main
from pipeline.commands import catalogue
from pipeline.core import citations, params
from pipeline.core.errors import UserError
from pipeline.datasets import NAMES
from pipeline.metrics import METRICS, OF_PARSING
from pipeline.tables.papers import TABLES
from tests import tiny_dataset
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def entries():
    return catalogue.entries()


def printed(capsys, *words: str) -> str:
    assert main([*words]) == 0
    return capsys.readouterr().out


def test_everything_is_listed_once_and_described(entries):
    names = {kind: {entry.name for entry in entries if entry.kind == kind} for kind in catalogue.KINDS}
    assert {*NAMES} < names["dataset"]
    assert names["variant"] == {*VARIANTS}
    assert names["component"] == {*COMPONENTS}
    assert names["metric"] == {*METRICS, *OF_PARSING}
    assert names["table"] == {table.name for table in TABLES}
    assert len({entry.name.casefold() for entry in entries}) == len(entries)
    for entry in entries:
        about = catalogue.described(entry)
        assert "\n" not in entry.line
        assert len(about) > 3, entry
        assert all(isinstance(value, str | int | list) for value in about.values())


def test_a_description_says_what_the_registries_say(entries):
    def of(name: str) -> dict:
        return catalogue.described(catalogue.find(name, entries))

    assert of("spgnet")["starts from"] == ["spatn"]
    assert of("spgnet")["published networks"] == ["vgg19"]
    assert [line[:2] for line in of("spgnet")["differs from its paper"]] == ["ᶠ "]
    assert of("spt_ts_gt")["reads parsing"] == "the source's and the true target's, lip-20"
    assert of("spt_detector")["about"].startswith("SPT: trained once, for spt_baseline, ")
    psnr = of("psnr")
    assert (psnr["version"], psnr["range"]) == (METRICS["psnr"].version, "0 to infinity, higher is better")
    assert psnr["definition"].startswith("10 log10(255² / MSE) in dB")
    assert "|mask|" in of("inside-psnr")["definition"]
    assert of("market1501")["test pairs"] == "12000, official list"
    assert of("deepfashion-resize176")["form"] == "resize176"
    assert of("spig_table1")["published numbers"] == ["55 read in the paper"]
    assert of("Spig-fast-seed2")["name"] == "spig"  # of a run, its variant


def test_every_metric_has_its_definition():
    assert [name for name in METRICS | OF_PARSING if not catalogue.definition(name)] == []


@pytest.mark.parametrize(
    ("name", "meant"), [("spgne", "spgnet or "), ("mask-sim", "mask-ssim or "), ("later256x176", "later_256x176 or ")]
)
def test_a_wrong_name_gets_the_likest(entries, name, meant):
    with pytest.raises(UserError, match=f"nothing is called {name}; did you mean {meant}"):
        catalogue.find(name, entries)
    with pytest.raises(UserError, match="nothing is called psnr-fast; "):  # no run of a variant
        catalogue.find("psnr-fast", entries)


def test_what_is_prepared_is_counted(tmp_path, monkeypatch):
    tiny_dataset.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert any(line.endswith(" pairs for val") for line in catalogue._prepared("synthetic"))
    assert catalogue._prepared("market1501")[0].startswith("no: ")


def test_the_commands_print_what_was_asked_for(capsys):
    lines = printed(capsys, "list", "metric", "dataset").splitlines()
    assert {line.split()[0] for line in lines} == {"metric", "dataset"}
    listed = json.loads(printed(capsys, "list", "table", "--json"))
    assert listed[0] == {"kind": "table", "name": "spig_table1", "line": "SPIG, Table 1: comparison", "cites": "SPIG"}
    assert json.loads(printed(capsys, "describe", "fid", "--json"))["version"] == METRICS["fid"].version
    assert printed(capsys, "describe", "fid") == printed(capsys, "about", "fid")
    assert "\nkind        metric\n" in printed(capsys, "describe", "fid")
    cited = printed(capsys, "cite", "spgnet", "spatn", "spig-seed1", "SPGNet")
    assert cited == f"{citations.bibtex('SPGNet')}\n\n{citations.bibtex('SPIG')}\n"
    assert [*json.loads(printed(capsys, "cite", "market1501", "ssim", "--json"))] == ["Market-1501", "SSIM"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list", "metrics"], "no kind is called metrics; give some of dataset, "),
        (["describe", "spgne"], "did you mean spgnet"),
        (["cite", "kid"], "kid: no reference is known here"),
    ],
)
def test_wrong_words_give_one_line(capsys, words, message):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_the_stage_that_writes_data_cards_is_still_called_describe(capsys):
    assert main(["describe", "--dataset", "nix"]) == 2
    assert "unknown dataset nix" in capsys.readouterr().err


def test_they_run_without_torch():
    code = """
import sys
from pipeline.__main__ import main
assert main(["list"]) == main(["describe", "spgnet"]) == main(["cite", "spgnet"]) == 0
assert not {"torch", "pandas", "scipy"} & {*sys.modules}
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


# ---- references


def test_every_paper_and_data_set_has_its_entry_and_every_entry_is_of_something(entries):
    papers = {entry.paper for entry in (VARIANTS | COMPONENTS).values()} - {"none", "ours"}
    assert papers <= citations.entries().keys()
    assert {entry.cites for entry in entries} - {None} == citations.entries().keys()
    text = Path("reports/references.bib").read_text(encoding="utf-8")
    assert text.count("\n@") == len(citations.entries())
    for key, entry in citations.entries().items():
        assert entry.count("{") == entry.count("}"), key
        assert all(f"  {field} = {{" in entry for field in ("title", "author", "year")), key


def test_of_a_run_its_papers_entry_is_cited():
    assert citations.of_variant("spig-fast-seed1") == citations.bibtex("SPIG")
    assert citations.of_variant("spt_parsing") == citations.bibtex("SPT")
    assert citations.of_variant("copy_source") is citations.of_variant("detector") is None
    with pytest.raises(UserError, match="unknown variant spigg"):
        citations.of_variant("spigg")
    with pytest.raises(UserError, match="has no entry Nix"):
        citations.bibtex("Nix")


def test_elsewhere_they_say_where_to_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for read in (citations.entries, params.load):
        read.cache_clear()
    with pytest.raises(UserError, match="run from the project's root folder"):
        catalogue.entries()
    with pytest.raises(UserError, match="run from the project's root folder"):
        citations.bibtex("SPIG")
    for read in (citations.entries, params.load):
        read.cache_clear()
