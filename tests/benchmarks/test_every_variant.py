"""The parameters of a run of every variant, or of some families."""

import csv
from types import SimpleNamespace

import pytest

from benchmarks import every_variant
from models.variants import VARIANTS
from pipeline.core import params


def test_all_families_or_those_that_are_named_and_the_floors():
    whole, some = (every_variant.everything("synthetic", 0.1, families) for families in ((), ("patn", "spig")))
    assert {name for names in whole["variants"].values() for name in names} == set(VARIANTS)
    assert {family for family, names in some["variants"].items() if names} == {"floors", "patn", "spig"}
    assert some["variants"]["spig"] == whole["variants"]["spig"]
    assert {**some, "variants": whole["variants"]} == whole
    assert some["train"]["synthetic"]["spgnet"]["start"] is None
    params.check(whole)
    params.check(some)


def test_some_are_left_out():
    values = every_variant.everything("synthetic", 1.0, ("patn", "gfla"), ("gfla",))
    assert (values["variants"]["patn"], values["variants"]["gfla"]) == (["patn"], [])


def test_a_quarter_of_an_hour_is_set_for_every_training_but_one():
    """No step of the demo's is left, but of the matcher on VGG16, which is slower by a factor of 90."""
    values = every_variant.everything("synthetic", 1.0)
    demo = every_variant.everything("synthetic", 1.0)
    for assignment in every_variant.quarter_hour():
        every_variant.put(values, assignment)
    params.check(values)
    same = set()
    for stage in ("pretrain", "train"):
        for name, block in values[stage]["synthetic"].items():
            assert block.get("checkpoint_every") == (block.get("steps") if "checkpoint_every" in block else None)
            if "steps" in block and block["steps"] == demo[stage]["synthetic"][name]["steps"]:
                same.add(name)
    assert same == {"sgw_matcher_vgg16"}


def test_a_key_for_every_block_and_one_that_no_block_has():
    values = every_variant.everything("synthetic", 1.0)
    every_variant.put(values, "train.synthetic.*.batch=3")
    blocks = values["train"]["synthetic"].values()
    assert {block["batch"] for block in blocks if "batch" in block} == {3}
    with pytest.raises(KeyError, match=r"train\.synthetic\.\*\.bach"):
        every_variant.put(values, "train.synthetic.*.bach=3")


def test_every_trained_variant_is_compared_but_where_a_family_has_one():
    claims, read = list(every_variant.claims()), every_variant.READINGS
    compared = {name for one, other, _ in (*claims, *every_variant.OTHERS, *read) for name in (one, other)}
    assert {name for name, one in VARIANTS.items() if one.phase} - compared == {"patn", "gfla", "def_gan", "vunet"}
    assert not {other for _, other, _ in claims} & {one for one, _, _ in read}


def test_the_table_shows_each_difference_from_the_side_that_is_named(tmp_path, capsys):
    """Of two variants and a floor: stored either way round, + where the first is better whatever the metric's sense."""
    stored = [
        ("spt", "spt_baseline", "ssim", 0.035, 0.031, 0.039, "spt"),
        ("spt_baseline", "spt", "lpips-squeeze-v0.1", 0.028, 0.025, 0.032, "spt"),
        ("spt_ts_pred", "spt", "ssim", 0.005, 0.001, 0.008, "spt_ts_pred"),
        ("copy_source", "spt", "pckh@0.5", -0.474, -0.492, -0.455, "spt"),
        ("copy_source", "spt_baseline", "ssim", 0.001, -0.002, 0.004, "tie"),
    ]
    (tmp_path / "reports/tables").mkdir(parents=True)
    with (tmp_path / "reports/tables/differences.csv").open("w", newline="") as handle:
        rows = csv.DictWriter(handle, ["dataset", "one", "other", "metric", "difference", "low", "high", "verdict"])
        rows.writeheader()
        for row in stored:
            rows.writerow(dict(zip(rows.fieldnames, ("synthetic", *row), strict=True)))
    every_variant.show(SimpleNamespace(project=tmp_path, dataset="synthetic"))
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    assert shown == [
        "| `spt_baseline` | = -0.001 [-0.004, +0.002] | – | – | – | – |",
        "| `spt_ts_pred` | – | – | – | – | – |",
        "| `spt` | – | – | – | – | + +0.474 [+0.455, +0.492] |",
        "| `spt` − `spt_baseline` | SPT, Table 1 | + +0.035 [+0.031, +0.039] | – | + -0.028 [-0.032, -0.025] | – | – |",
        "| `spt` − `spt_ts_pred` | SPT, Table 1 | − -0.005 [-0.008, -0.001] | – | – | – | – |",
        "| `spt_ts_pred` − `spt_baseline` | SPT, Table 1 | – | – | – | – | – |",
    ]
