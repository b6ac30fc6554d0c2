"""Every metric's values on one fixed set of images, and what they stand on by digest, as golden.json has them.

A value that changes wants a new version where it is declared (`Metric.version`, `metrics.FORMS`, and for what others'
recipes make of images `tables.verdicts.VERSIONS`), a line in
CHANGELOG.md with "`NAME` version N", and the new value here:

  python -m tests.golden.test_golden

which writes what is new or has a new version, and refuses what changed without one.
"""

import hashlib
import io
import json
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from pipeline import metrics
from pipeline.anatomy import labels, pose
from pipeline.core import schema
from pipeline.datasets import deepfashion, get
from pipeline.datasets.folder import photograph
from pipeline.metrics import METRICS, OF_PARSING, identity, parsing_iou
from pipeline.metrics.fid import statistics_of
from pipeline.metrics.inception import CLASSES, DIMENSIONS, inception_features, inception_network, torchvision_inception
from pipeline.metrics.lpips import lpips_network
from pipeline.metrics.own_network import OwnNetwork
from pipeline.metrics.pckh import Joints
from pipeline.metrics.pose_mask import pose_masks
from pipeline.metrics.stream import PairScores
from pipeline.scoring import recipes
from pipeline.stages import pairs
from pipeline.tables.verdicts import VERSIONS
from tests.conftest import ROOT
from tests.metrics.test_metrics import smooth_images, with_noise
from tests.metrics.test_own_network import settings, write_network

pytestmark = pytest.mark.usefixtures("small_batches_on_one_thread")

GOLDEN = Path(__file__).with_name("golden.json")
OWN = metrics.of_own(["colours"])
NAMES = [*METRICS, *OF_PARSING, *OWN]
# Other processors and libraries change the last digits of float32 sums, and nothing of the others but float64 rounding.
CLOSE = {True: {"rtol": 2e-4, "atol": 2e-5}, False: {"rtol": 1e-9, "atol": 1e-9}}
PAIRS, HEIGHT, WIDTH = 12, 56, 52  # the least that every window fits into


# ---- the set: smooth pictures and noisy copies; pairs that have a rule of their own come first


def _people() -> tuple[Joints, Joints]:
    """Joints as the targets have them and as they were found again."""
    random = np.random.default_rng(5)
    xy = random.uniform((4, 4), (WIDTH - 4, HEIGHT - 4), (PAIRS, 18, 2)).round(2)
    valid = random.random((PAIRS, 18)) < 0.9
    valid[:, [0, 14, 15]] = True  # a face
    valid[0] = False  # nobody: no mask, no box
    valid[2, [0, 1, 14, 15, 16]], valid[2, 17] = False, True  # one head joint: no head box, no face
    found = (xy + random.uniform(-4, 4, xy.shape)).round(2)
    return Joints(xy, valid), Joints(found, random.random(valid.shape) < 0.8)


class Stand(torch.nn.Module):
    """In the place of an Inception where sets are compared: its features are frozen by themselves."""

    def __init__(self, seed: int):
        super().__init__()
        random = np.random.default_rng(seed)
        self.weight = torch.nn.Parameter(torch.from_numpy(random.normal(size=(48, DIMENSIONS)).astype(np.float32)))
        self.classifier = torch.from_numpy(random.normal(0, 0.02, (CLASSES, DIMENSIONS)).astype(np.float32))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.relu(torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1) @ self.weight)


class Pooled:
    """In the place of the re-identification network, whose weights are not ours: it sees what that would."""

    def infer(self, planes: np.ndarray) -> list[np.ndarray]:
        return [planes.reshape(3, 32, 8, 16, 8).mean(axis=(2, 4)).reshape(-1)[:256] - 100]


def _reid() -> identity.ReId:
    network = identity.ReId.__new__(identity.ReId)
    network._network = Pooled()
    return network


def measured() -> dict[str, list[float]]:
    """Metric -> its score, its values of the pairs, their influence, as far as it has them, and the first numbers of
    what its Inception gives for two images.
    """
    target = smooth_images(PAIRS, HEIGHT, WIDTH)
    generated = with_noise(target, 25)
    generated[1] = target[1]  # identical
    joints, detected = _people()
    maps = np.random.default_rng(6).integers(0, 20, (2, PAIRS, HEIGHT // 8, WIDTH // 4), np.uint8)
    parsed, truth = maps.repeat(8, axis=2).repeat(4, axis=3)
    with tempfile.TemporaryDirectory() as folder:
        own = OwnNetwork("colours", settings(write_network(Path(folder) / "net.onnx"), crop="face"))
    with pytest.MonkeyPatch.context() as patch:  # weights that are drawn to be replaced take most of the time
        for name in ("kaiming_uniform_", "kaiming_normal_", "uniform_", "normal_"):
            patch.setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)
        of_lpips = {f"lpips-{net}": lpips_network(None, 3, net) for net in ("alex", "vgg", "squeeze")}
        whole = {"inception": inception_network(None, 3), "inception-tv": torchvision_inception(None, 3)}
    networks = of_lpips | {
        "inception": Stand(0),
        "inception-tv": Stand(1),
        "reid": _reid(),
        "parser": lambda images, xy, valid: parsed[: len(images)],
        "own:colours": own,
    }
    others = np.roll(target, 1, axis=0)
    embeddings = {"reid": (networks["reid"](others), networks["reid"](target))}
    embeddings["own:colours"] = own(others, joints), own(target, joints)
    vectors = embeddings["own:colours"][1]
    rows = {name: inception_features(networks[name], others).numpy() for name in ("inception", "inception-tv")}
    rows["own:colours"] = vectors[np.isfinite(vectors[:, 0])]
    real = {name: statistics_of(one) for name, one in rows.items()} | {f"{n}-sample": one for n, one in rows.items()}

    found: dict[str, list[float]] = {}
    some_pairs = [name for name in METRICS if "lpips" in name]
    for names, count in (([name for name in (*METRICS, *OWN) if name not in some_pairs], PAIRS), (some_pairs, 4)):
        scores = PairScores(range(count), names, networks, real)
        some = slice(0, count)
        scores.update(
            range(count), generated[some], target[some], pose_masks(*joints, HEIGHT, WIDTH)[some],
            *(Joints(one.xy[some], one.valid[some]) for one in (detected, joints)), truth[some],
            {name: tuple(side[some] for side in both) for name, both in embeddings.items()},
        )  # fmt: skip
        table, totals = scores.compute(resamples=100)
        for name in names:
            columns = [table[key] for key in (name, name + schema.INFLUENCE) if key in table]
            found[name] = [*totals[name][:3], *np.concatenate(columns)]
    counts = parsing_iou.label_counts(parsed, truth)
    for name, metric in OF_PARSING.items():
        value, influence = metric.of_set(counts, {}, None)
        found[name] = [value, *influence]
    seen = {name: inception_features(one, target[4:6])[:, :8].flatten().tolist() for name, one in whole.items()}
    for name in METRICS:
        for network in {"inception", "inception-tv"}.intersection(METRICS[name].needs):
            found[name] += seen[network]
    return {name: [float(f"{value:.12g}") for value in values] for name, values in found.items()}


# ---- others' recipes

SIZES = {
    "pidm": (80, 80),
    "pcdms": (96, 96),
    "cfld": (160, 160),
    "mcld": (160, 160),
}  # generated; of others the target's
WIDE = {"pise": (32, 256), "casd": (32, 256), "spgnet": (32, 256)}  # targets; of others 80 x 55


def by_recipes() -> dict[str, list[float]]:
    """recipe-NAME -> what it makes of two pictures, number by number, as the JPEG that they may be; of Inception the
    first features.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in ("kaiming_uniform_", "kaiming_normal_", "uniform_", "normal_"):
            patch.setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)
        networks = {"": None, "lpips": lpips_network(None, 3), recipes.INCEPTION: Stand(1)}
    found: dict[str, list[float]] = {}
    for name, recipe in recipes.RECIPES.items():
        target = smooth_images(2, *WIDE.get(name, (80, 55)))
        generated = with_noise(smooth_images(2, *SIZES.get(name, target.shape[1:3]), seed=3), 25)
        generated = generated[:, :, :176] if name in ("pise", "casd") else generated
        masks = np.zeros(target.shape[:3], np.uint8)
        masks[:, 8:24, 10:40] = 1
        values = found[f"recipe-{name}"] = []
        for number in recipe.numbers:
            looked = [number.view(*pair, True) for pair in zip(generated, target, strict=True)]
            images = [np.stack([pair[side] for pair in looked]) for side in (0, 1)]
            values += (
                number.of(*images, networks[number.network], masks)[:, None].reshape(2, -1)[:, :4].flatten().tolist()
            )
    return {name: [float(f"{value:.12g}") for value in values] for name, values in found.items()}


# ---- what scores stand on


def _keypoints(junk: tuple[str, ...]) -> pa.Table:
    """Ten people of three images a split, of which some have no hip, and some nobody to be."""
    rows = []
    for split in ("train", "test"):
        for row in range(30):
            valid = np.ones(18, bool)
            valid[8] = row % 7 != 0
            start = junk[row % len(junk)] if junk and row % 5 == 0 else ""
            keys = {"image_id": f"{start}{split}{row:02d}.jpg", "split": split, "person_id": f"{split}{row % 10}"}
            rows.append(keys | {"row": row, "keypoints": pose.from_array(np.full((18, 2), float(row)), valid)})
    return pa.Table.from_pylist(rows, pa.schema([schema.KEYPOINTS.field(name) for name in rows[0]]))


def _labels(label_set: str) -> list[np.ndarray]:
    """The tables of a set, and what a map in every label of it becomes."""
    count = len(labels.NAMES[label_set])
    some = np.random.default_rng(8).integers(0, count, (12, 10), np.uint8).repeat(2, axis=0)
    found = [labels.FLIPS[label_set], labels.to_lip20(some, label_set)]
    if label_set in labels.STORED:
        found += [labels.exchange(label_set, other) for other in labels.STORED]
    if label_set in labels.FROM_LIP20:
        lip = np.random.default_rng(9).integers(0, 20, (12, 10), np.uint8).repeat(2, axis=0)
        table = labels.FROM_LIP20[label_set]
        found.append(labels.to_spt10(lip) if label_set == "spt-10" else labels.relabel(lip, table))
    return found


def _png(height: int, width: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(smooth_images(1, height, width, seed=7)[0]).save(file, "PNG")
    return file.getvalue()


def _form(name: str) -> np.ndarray:
    kind, _, what = name.partition("-")
    if kind == "pairs":
        junk = get(what).JUNK if what != "synthetic" else ()
        block = pairs.Params(val_fraction=0.2, test_list="sampled", test_pairs=15, seed=1)
        return np.array(str(pairs.table(_keypoints(junk), Path("nowhere"), what, block).to_pylist()))
    if kind == "pose":
        joints, _ = _people()
        return pose_masks(*joints, HEIGHT, WIDTH)
    if kind == "labels":
        return np.concatenate([one.reshape(-1) for one in _labels(what)])
    if kind == "fit":
        data, _, _ = photograph.fitted(_png(160, 96), 128, 96, what)
    else:
        size = (600, 408) if deepfashion.FORMS[what].images == "img_highres" else (256, 256)
        data, _ = deepfashion.convert(_png(*size), what)
    return np.asarray(Image.open(io.BytesIO(data)))


def digests() -> dict[str, str]:
    """Form -> SHA-256 of what it makes of something fixed."""
    made = {name: _form(name) for name in metrics.FORMS}
    return {name: hashlib.sha256(f"{one.shape}".encode() + one.tobytes()).hexdigest() for name, one in made.items()}


# ---- golden.json


def versions() -> dict[str, int]:
    of_recipes = {f"recipe-{name}": version for name, version in VERSIONS.items()}
    return {name: metrics.metric(name).version for name in NAMES} | metrics.FORMS | of_recipes


def _same(name: str, found: Any, golden: Any) -> bool:
    if isinstance(found, str):
        return found == golden
    loose = name.startswith("recipe-") or bool(set(metrics.metric(name).needs) - set(metrics.GIVEN))
    return len(found) == len(golden) and np.allclose(found, golden, equal_nan=True, **CLOSE[loose])


def complaints(found: Mapping[str, Any], now: Mapping[str, int], golden: Mapping[str, dict], log: str) -> list[str]:
    """What is changed, new or gone against golden.json, a line each. now: the versions that are declared."""
    freeze = "python -m tests.golden.test_golden"
    lines = [f"{name}: gone; take it out of {GOLDEN.name}" for name in golden.keys() - found.keys()]
    for name, value in found.items():
        known = golden.get(name)
        if known is None or known["version"] < now[name]:
            lines.append(f"{name}: version {now[name]} is not frozen: {freeze}")
        elif not _same(name, value, known["value"]):
            lines.append(f"{name}: not what version {now[name]} gave: raise its version, then {freeze}")
        if now[name] > 1 and f"`{name}` version {now[name]}" not in log:
            lines.append(f"{name}: CHANGELOG.md says nothing of `{name}` version {now[name]}")
    return sorted(lines)


def read() -> dict[str, dict]:
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def found(small_batches_on_one_thread) -> dict[str, Any]:
    return measured() | digests() | by_recipes()


def test_no_value_changed_without_a_new_version_and_a_line(found):
    log = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert complaints(found, versions(), read(), log) == []


def test_what_changes_is_named():
    golden = {
        "ssim": {"version": 1, "value": [0.5]},
        "fid": {"version": 1, "value": [10.0]},
        "pose-mask": {"version": 2, "value": "a"},
    }
    now = {"ssim": 1, "fid": 1, "pose-mask": 2}
    log = "the pose mask (`pose-mask` version 2)"
    same = {"ssim": [0.5], "fid": [10.0001], "pose-mask": "a"}
    assert complaints(same, now, golden, log) == []
    assert complaints(same | {"ssim": [0.5001]}, now, golden, log)[0].startswith("ssim: not what version 1 gave")
    assert complaints(same | {"fid": [10.1]}, now, golden, log)[0].startswith("fid: not what version 1 gave")
    assert complaints(same | {"pose-mask": "b"}, now, golden, log)[0].startswith("pose-mask: not what version 2")
    assert complaints(same, now, golden, "")[0].startswith("pose-mask: CHANGELOG.md says nothing")
    assert len(complaints(same, now | {"ssim": 2}, golden, log)) == 2  # neither frozen nor told
    assert complaints(same | {"psnr": [1.0]}, now | {"psnr": 1}, golden, log)[0].startswith("psnr: version 1 is not")
    assert complaints({"ssim": [0.5]}, now, golden, log)[0].startswith("fid: gone")


def test_every_value_lies_in_its_range(found):
    for name in NAMES:
        low, high = metrics.metric(name).range
        per_pair = metrics.metric(name).per_pair is not None
        values = np.array(found[name][: 3 + PAIRS if per_pair else 1])
        values = values[np.isfinite(values)]
        assert len(values) > 0, name
        assert (values >= low - 1e-6).all(), name
        assert (values <= high + 1e-6).all(), name


def test_every_form_of_a_photograph_has_a_version():
    assert {f"form-{name}" for name in deepfashion.FORMS} <= metrics.FORMS.keys()


def _in_words(low: float, high: float) -> str:
    if np.isinf(low):
        return "any"
    return f"{low:g} up" if np.isinf(high) else f"{low:g} to {high:,g}"


def test_the_page_of_protocols_says_what_the_registry_declares():
    text = (ROOT / "docs/protocols.md").read_text(encoding="utf-8")
    said = {}
    for table in re.findall(r"\| name \| better \| range \| definition \|\n\|[-|]+\|\n((?:\|.*\n)+)", text):
        for line in table.splitlines():
            names, better, span, definition = re.split(r"(?<!\\)\|", line)[1:5]
            for name in re.findall(r"`([^`]+)`", names):
                version = re.search(r"\*\*Version (\d+)\*\*", definition)
                said[name.replace("NAME", "colours")] = better.strip(), span.strip(), int(version[1]) if version else 1
    declared = {}
    for name in NAMES:
        one = metrics.metric(name)
        declared[name] = "higher" if one.higher_is_better else "lower", _in_words(*one.range), one.version
    assert said == declared


def main() -> int:
    """Freeze what is new or has a new version; what changed without one is named, and stays."""
    from pipeline.metrics import networks

    networks.BATCH = 4  # as the fixture has it
    now, golden, found = versions(), read() if GOLDEN.exists() else {}, measured() | digests() | by_recipes()
    kept = {name: golden[name] for name in found if name in golden and golden[name]["version"] >= now[name]}
    new = {name: {"version": now[name], "value": value} for name, value in found.items() if name not in kept}
    lines = [f'"{name}": {json.dumps((kept | new)[name])}' for name in sorted(kept | new)]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"frozen: {', '.join(new) or 'nothing'}")
    log = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    left = complaints(found, now, kept | new, log)
    print("\n".join(left))
    return bool(left)


if __name__ == "__main__":
    sys.exit(main())
