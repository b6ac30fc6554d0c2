"""The parameters of a run of every variant, or of some families."""

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
