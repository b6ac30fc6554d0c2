"""How a run differs from the papers': each substitution by itself sets its mark, and the papers' own set-up none."""

import itertools
import re
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from types import SimpleNamespace

import pytest

from models import spgnet
from models.layers.schedule import Jitter
from models.variants import COMPONENTS, VARIANTS
from pipeline.core import layout, params, schema, store, yaml_file
from pipeline.core.errors import UserError
from pipeline.loading import prepared
from pipeline.tables.papers import MARKS, PUBLISHED_MARKS
from pipeline.training import fit, loop, marks
from pipeline.training.features import FeatureSource
from pipeline.training.settings import FeatureParams, kind_of
from pipeline.training.training_data import RULES
from tests.conftest import ROOT

ENTRIES = {name: entry for name, entry in (VARIANTS | COMPONENTS).items() if entry.phase}
# One entry of each kind that a substitution may concern.
KINDS = list(
    {
        (one.paper, one.features, one.labels, one.data, one.limb_maps, one.departs): one for one in ENTRIES.values()
    }.values()
)
SIZES = {"market1501": (128, 64), "deepfashion": (256, 256)}
BLOCK = FeatureParams(seed=0, steps=100, checkpoint_every=10, device="cpu", precision="fp32")


@dataclass(frozen=True)
class Setup:
    """A training and the files that it reads; by itself the paper's own."""

    entry: object
    dataset: str
    height: int = 0
    block: dict = field(default_factory=dict)
    features: tuple[str, str] = ("", "sha256:1")  # net, the paper's where empty, and provenance
    images: dict = field(default_factory=dict)  # metadata
    listed: tuple[str, ...] = ("a",)
    joints: str = "annotations"
    pairs: dict = field(default_factory=dict)
    parsing: dict = field(default_factory=dict)
    kappa: float = -0.1

    def found(self) -> set[str]:
        """Its marks."""
        self._write()
        height = self.height or SIZES[self.dataset][0]
        block = replace(BLOCK, steps=marks.published(self.entry.phase, self.dataset, height)["steps"])
        block, _ = marks.resolve(block, self.entry.phase, self.dataset, height)
        block = replace(block, **{name: change(getattr(block, name)) for name, change in self.block.items()})
        net, provenance = self.features
        source = FeatureSource(SimpleNamespace(net=net or self.entry.features), provenance, self.entry.features)
        return marks.of(self.entry, block, self.dataset, height, source if self.entry.features else None)

    def _write(self) -> None:
        where, paper = self.dataset, marks.PAPERS.get(self.entry.paper, marks.Setup("canvas256"))
        form = {"form": paper.form} if self.dataset == "deepfashion" else {}
        image = {"image_id": "a", "split": "train", "person_id": "1", "image": {"bytes": b"", "path": "a"}}
        images = [image | {"height": 1, "width": 1}]
        store.write_shards(layout.images(where), images, schema.IMAGES, **(form | self.images))
        rows = [
            {"image_id": name, "split": "train", "person_id": "1", "row": 0, "keypoints": [None] * 18}
            | {"keypoint_scores": [0.0] * 18, "keypoint_source": self.joints}
            for name in self.listed
        ]
        store.write_table(layout.keypoints(where), rows, schema.KEYPOINTS)
        counts = {
            "training_pairs": str(prepared.PUBLISHED.get(where.partition("-")[0], (1,))[0]),
            "test_list": "official",
        }
        store.write_table(layout.pairs(where), [], schema.PAIRS, **(counts | self.pairs))
        made = {"parsing_source": "files", "made_in": self.entry.labels or "lip-20"} | self.parsing
        store.write_shards(layout.parsing(where), [], schema.PARSING, **made)
        store.write_shards(layout.distance_maps(where), [], schema.DISTANCE_MAPS, kappa=str(self.kappa))


def everyone(entry) -> bool:
    return True


def in_a_paper(entry) -> bool:
    return entry.paper in marks.PAPERS


# Substitution -> what it changes, whom it concerns, and its mark.
SUBSTITUTIONS = {
    "fewer steps": ({"block": {"steps": lambda n: n - 1}}, everyone, "steps"),
    "more steps": ({"block": {"steps": lambda n: n + 1}}, everyone, "steps"),
    "batch": ({"block": {"batch": lambda n: n + 1}}, everyone, "settings"),
    "learning rate": ({"block": {"learning_rate": lambda x: x / 10}}, everyone, "settings"),
    "narrower": ({"block": {"width": lambda x: x / 2}}, everyone, "width"),
    "wider": ({"block": {"width": lambda x: 2 * x}}, everyone, "width"),
    "trained weights": ({"block": {"start": lambda _: "runs/a/checkpoints/step-1.safetensors"}}, everyone, "start"),
    "bf16": ({"block": {"precision": lambda _: "bf16"}}, everyone, "precision"),
    "another feature net": ({"features": ("squeezenet1_1", "sha256:1")}, lambda e: e.features, "weights"),
    "seeded features": ({"features": ("", "seeded")}, lambda e: e.features, "weights"),
    "a part of the images": ({"images": {"partial": "{}"}}, everyone, "data"),
    "other files than the published": ({"images": {"own_digests": "[]"}}, everyone, "data"),
    "an image of the lists rejected": ({"listed": ("a", "b")}, everyone, "data"),
    "other training pairs": ({"pairs": {"training_pairs": "100"}}, everyone, "data"),
    "joints found": ({"joints": "openpose"}, everyone, "joints"),
    "joints by another network": ({"joints": "topdown"}, everyone, "joints"),
    "another form of the images": ({"images": {"form": "other"}}, in_a_paper, "form"),
    "the parser in the box": ({"parsing": {"parsing_source": "repose"}}, lambda e: e.needs_parsing, "parser"),
    "SCHP": ({"parsing": {"parsing_source": "schp"}}, lambda e: e.needs_parsing, "parser"),
    "another label set": ({"parsing": {"made_in": "atr-18"}}, lambda e: e.needs_parsing, "labels"),
    "the other parser's label set": ({"parsing": {"made_in": "lip-20"}}, lambda e: e.labels == "cihp-20", "labels"),
    "another kappa": ({"kappa": -0.2}, lambda e: e.limb_maps, "settings"),
}


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("dataset", SIZES)
@pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))
def test_the_papers_own_set_up_has_no_mark_but_what_the_entry_states(entry, dataset):
    assert Setup(entry, dataset).found() == set(entry.departs)
    assert set(entry.departs) <= set(marks.DEPARTURES)


@pytest.mark.parametrize("what", SUBSTITUTIONS)
def test_each_substitution_by_itself_sets_its_mark(what):
    change, concerns, mark = SUBSTITUTIONS[what]
    assert any(concerns(entry) for entry in KINDS)
    for entry in KINDS:
        expected = {*entry.departs, *([mark] if concerns(entry) else [])}
        assert Setup(entry, "deepfashion", **change).found() == expected, entry.name


def test_no_augmentation_differs_only_where_the_paper_augments():
    assert any("market1501" in entry.phase.augment for entry in KINDS)
    for entry, dataset in itertools.product(KINDS, SIZES):
        expected = {*entry.departs} | ({"settings"} if dataset in entry.phase.augment else set())
        assert Setup(entry, dataset, block={"augment": lambda _: False}).found() == expected, entry.name


def test_stand_ins_by_another_rule_are_stated_and_inherited():
    """By the folder that each kind of data reads; `spt_balanced` carries the marks of the component it starts from."""
    others = {name for name, entry in ENTRIES.items() if RULES.get(entry.data, "equation") != "equation"}
    assert (
        others == {name for name, entry in ENTRIES.items() if "stand-ins" in entry.departs} == {"spt_parsing_balanced"}
    )
    assert VARIANTS["spt_balanced"].components == ("spt_parsing_balanced",)


def test_rows_that_take_a_side_where_text_and_code_leave_two():
    """All of SPT's, whose adversary has the code's form or the text's. `sgw_image` has the mark from its component."""
    sides = {name for name, entry in ENTRIES.items() if "reading" in entry.departs}
    assert sides == {name for name in VARIANTS if name.startswith("spt")} | {"spgnet_one_block", "sgw_parser_image"}
    assert "sgw_parser_image" in VARIANTS["sgw_image"].components


def test_every_mark_of_a_training_can_be_set_and_is_explained():
    in_table = {mark for _, _, mark in SUBSTITUTIONS.values()}
    departs = {mark for entry in ENTRIES.values() for mark in entry.departs}
    assert {*in_table, *departs, "borrowed", "norms"} == set(marks.MARKS) - ({"design"} - departs)
    assert set(marks.MARKS) < set(MARKS)


@pytest.mark.parametrize("dataset", ["folder", "synthetic", "deepfashion_sample"])
@pytest.mark.parametrize(
    ("height", "like", "batch", "adversary"), [(128, "market1501", 32, 5 / 10), (256, "deepfashion", 4, 5 / 45)]
)
def test_a_data_set_that_no_paper_used_takes_the_values_of_the_nearest_size(dataset, height, like, batch, adversary):
    entry = VARIANTS["spgnet"]
    block, _ = marks.resolve(replace(BLOCK, steps=900), entry.phase, dataset, height)
    assert block.batch == batch
    paper = marks.published(entry.phase, dataset, height)
    assert paper == marks.published(entry.phase, like, height)
    assert entry.phase.delays["adversarial"][paper["dataset"]] == adversary
    assert Setup(entry, dataset, height=height).found() == {*entry.departs, "data", "borrowed"}


@pytest.mark.parametrize("height", [256, 512])
def test_a_form_of_a_papers_data_set_is_trained_as_that_is(height):
    entry, dataset = VARIANTS["patn"], "deepfashion-resize352"
    assert marks.published(entry.phase, dataset, height) == marks.published(entry.phase, "deepfashion", 256)
    found = Setup(entry, dataset, height=height, images={"form": "resize352"}).found()
    assert found == {*entry.departs, "form"}


@pytest.mark.parametrize(
    ("name", "batches"), [("spgnet", (32, 4)), ("spt", (16, 4)), ("patn", (32, 7)), ("sgw", (32, 8)), ("spig", (8, 6))]
)
def test_the_batches_of_the_nearest_size(name, batches):
    found = [marks.published(VARIANTS[name].phase, "folder", height)["batch"] for height in (128, 256)]
    assert tuple(found) == batches
    assert marks.published(VARIANTS[name].phase, "folder", 255)["batch"] == batches[0]
    assert marks.published(VARIANTS[name].phase, "market1501", 256)["batch"] == batches[0]  # what is published, is


@pytest.mark.parametrize(("height", "shift"), [(128, 10.0), (64, 5.0), (192, 15.0), (256, None)])
def test_a_run_is_delayed_and_augmented_as_at_its_size(height, shift, monkeypatch):
    """SPGNet's adversary joins after 5 of 10 epochs on Market-1501, after 5 of 45 on DeepFashion, and only the former
    is augmented, by 10 of its 128 pixels.
    """
    monkeypatch.setattr(fit.digests, "code_of", lambda *axes: {})
    entry = VARIANTS["spgnet"]
    block, phase = marks.resolve(replace(BLOCK, steps=90), entry.phase, "folder", height)
    task = fit.Task(entry, "folder", block, "spgnet", "spgnet")
    published = marks.published(phase, "folder", height)
    meta = SimpleNamespace(published=published, height=height, settings={}, as_dict=dict)
    run = fit.schedule(task, phase, meta, "cpu", ())
    assert run.starts == {"adversarial": 11 if height == 256 else 46}
    assert (run.jitter and run.jitter.target.shift) == shift
    assert run.jitter is None or run.jitter == Jitter(target=replace(spgnet.MOVES.target, shift=shift))
    assert fit.schedule(replace(task, block=replace(block, augment=False)), phase, meta, "cpu", ()).jitter is None


@pytest.mark.parametrize(("name", "unit"), [("def_gan", 64), ("spt_ts_gt", 32)])
def test_a_size_that_a_network_does_not_know_is_one_line(name, unit):
    """DeepFashion's crops of 256 x 176 have 176 columns, which halve four times."""
    task = fit.Task(VARIANTS[name], "deepfashion", BLOCK, name, "a")
    line = rf"train deepfashion {name}: .* multiples of {unit}, not 256 x 176; give deepfashion another size in fetch"
    with pytest.raises(UserError, match=line):
        fit.build(task, VARIANTS[name].phase, SimpleNamespace(height=256, width=176))


@pytest.mark.parametrize(
    ("name", "height", "split"),
    [
        ("sgw", 64, True),
        ("spgnet", 64, True),
        ("patn", 64, True),
        ("patn", 256, False),  # instance norm there
        ("spig", 64, False),
        ("gfla", 64, False),
        ("spt_ts_gt", 64, False),  # the detector that judges it has batch norms, which stand still
    ],
)
def test_batch_norms_that_see_a_part_of_a_batch_are_marked(name, height, split):
    entry = VARIANTS[name]
    size = (height, height, 0.05)
    objective = entry.objective(entry.build(*size), *size, entry.phase.weights)
    networks = objective.networks()
    loop.freeze_untrained(entry.phase, networks, entry.phase.thaw)
    for parts, published in itertools.product((1, 2), (1, 2)):
        expected = {"norms"} if split and parts != published else set()
        assert marks.of_parts(networks.values(), parts, published) == expected


@pytest.mark.parametrize(("height", "parts"), [(128, 4), (256, 2)])
def test_spgnet_s_batch_norms_see_what_one_of_the_authors_gpus_saw(height, parts, monkeypatch):
    """Each saw 8 images of Market-1501 and 2 of DeepFashion; every other system's saw the whole batch."""
    monkeypatch.setattr(marks, "of", lambda *given: set())
    entry = VARIANTS["spgnet"]
    task = fit.Task(entry, "folder", BLOCK, "spgnet", "spgnet")
    network = entry.build(height, height, 0.05, kappa=-0.1)
    built = fit.Built(network, entry.objective(network, height, height, 0.05, entry.phase.weights), -0.1, {}, None)
    for given in (1, 2, 4):
        data = SimpleNamespace(height=height, width=height)
        assert fit.describe(task, built, data, None, given).marks == (["norms"] if given != parts else [])
    assert {name for name, entry in ENTRIES.items() if entry.phase.parts} == {
        name for name in VARIANTS if name.startswith("spgnet")
    }


def test_each_entry_has_the_net_of_its_paper():
    """SPT's losses look through VGG16, for which VGG19 would be a stand-in like any other."""
    for paper in ("SPT", "SGW-GAN"):
        assert {entry.features for entry in VARIANTS.values() if entry.paper == paper} == {"vgg16"}
    assert {VARIANTS[name].features for name in ("spig", "spgnet", "patn", "gfla", "def_gan", "vunet")} == {"vgg19"}
    for net, found in (("vgg16", set()), ("vgg19", {"weights"})):
        setup = Setup(VARIANTS["spt"], "market1501", features=(net, "sha256:1"))
        assert setup.found() == found | set(VARIANTS["spt"].departs)


def test_null_is_the_published_value():
    phase = VARIANTS["spig"].phase
    block, same = marks.resolve(BLOCK, phase, "deepfashion", 256)
    assert (block.batch, block.learning_rate) == (6, 0.001)
    assert same == phase
    block, slower = marks.resolve(replace(BLOCK, learning_rate=2e-4, batch=3), phase, "market1501", 128)
    assert (block.batch, block.learning_rate) == (3, 2e-4)
    assert {name: round(adam.lr, 9) for name, adam in slower.optimisers.items()} == {
        "generator": 2e-4,
        "discriminator": 2e-5,
    }


@pytest.mark.parametrize(
    ("dataset", "changes", "expected"),
    [
        ("market1501", {}, []),
        ("deepfashion", {"images": {"partial": "{}"}}, ["data"]),
        ("market1501", {"joints": "openpose"}, ["joints"]),
        ("synthetic", {"joints": "oracle"}, ["data", "joints"]),
        ("folder", {}, ["data"]),
    ],
)
def test_what_the_prepared_files_say_marks_every_score(dataset, changes, expected):
    Setup(VARIANTS["spig"], dataset, **changes)._write()
    assert prepared.marks(dataset) == expected


@pytest.mark.parametrize(
    ("dataset", "test_list", "count", "others"),
    [
        ("market1501", "official", 12_000, False),
        ("market1501", "official", 11_999, True),
        ("market1501", "sampled", 12_000, True),
        ("deepfashion", "official", 8_570, False),
        ("deepfashion-resize176", "official", 8_569, True),
        ("folder", "sampled", 500, False),  # none is published
    ],
)
def test_pairs_that_are_not_the_published_list(dataset, test_list, count, others):
    Setup(VARIANTS["spig"], dataset, pairs={"test_list": test_list})._write()
    assert prepared.other_test_pairs(dataset, count) == others


@pytest.mark.parametrize("dataset", SIZES)
@pytest.mark.parametrize("name", [name for name in ENTRIES if name != "detector"])
def test_params_yaml_trains_as_the_papers_do(name, dataset, monkeypatch):
    """In full on both of the papers' data sets, and so without a mark of its settings but for the precision and SPIG's
    learning rate: docs/papers.md.
    """
    monkeypatch.chdir(ROOT)
    params.load.cache_clear()
    entry = ENTRIES[name]
    family = {"VU-Net": "vunet"}.get(entry.paper, entry.paper.lower().replace("-", "_"))
    keys = ("pretrain", dataset, name) if name in COMPONENTS else ("train", dataset, family)
    block, _ = marks.resolve(params.block(kind_of(entry), *keys), entry.phase, dataset, SIZES[dataset][0])
    source = None
    if entry.features:
        source = FeatureSource(SimpleNamespace(net=block.features or entry.features), "sha256:1", entry.features)
    found = marks._of_settings(block, entry.phase, dataset, SIZES[dataset][0], source)
    assert found == {"precision"} | ({"settings"} if entry.paper == "SPIG" else set())


def settings_of(schema_of: dict) -> set[str]:
    """Every setting of params.schema.yaml that a stage reads: STAGE.KEY, whatever data set or network it is for."""

    def keys(node: dict) -> set[str]:
        if "$ref" in node:
            node = schema_of["$defs"][node["$ref"].rpartition("/")[2]]
        below = node.get("properties", {})
        if isinstance(every := node.get("additionalProperties"), dict):
            return keys(every)
        return set().union(*(keys(value) or {key} for key, value in below.items()))

    blocks = dict(schema_of["properties"])
    for name in ("datasets", "variants", "components", "presets"):  # what to run, and blocks to take over
        del blocks[name]
    fetch = blocks.pop("fetch")["properties"]
    found = {f"fetch.{name}" for name in ("synthetic", "folder") if keys(fetch.pop(name))}
    found |= {f"fetch.{key}" for of in fetch.values() for key in keys(of)}
    found |= {f"pretrain.{key}" for key in keys(blocks.pop("pretrain")) - keys(blocks["train"])}
    return found | {f"{stage}.{key}" for stage, block in blocks.items() for key in keys(block)}


def test_docs_decide_for_every_setting_which_mark_it_sets():
    text = (ROOT / "docs/papers.md").read_text(encoding="utf-8").partition("## Marks")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    decided = [name for row in rows for name in re.findall(r"`([^`]+)`", row[0])]
    own = {mark for row in rows for mark in re.findall(r"`([^`]+)`", row[1])}
    assert own | set(marks.DEPARTURES) | {"jpeg", "source", "protocol", "raters"} | set(PUBLISHED_MARKS) == set(MARKS)
    there = settings_of(yaml_file.read(ROOT / layout.PARAMS_SCHEMA))
    assert [name for name in there if not any(fnmatch(name, one) for one in decided)] == []
    assert [one for one in decided if not any(fnmatch(name, one) for name in there)] == []
