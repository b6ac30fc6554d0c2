"""The command `figure`: what its pictures show, on a small data set with generators whose output is known."""

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models import variants
from models.layers.blocks import Batch, Output
from models.layers.pose_maps import one_hot
from models.layers.schedule import Variant
from pipeline import drawing
from pipeline.__main__ import main
from pipeline.anatomy import labels
from pipeline.anatomy.distance import limb_distance_maps
from pipeline.commands import figure
from pipeline.core import layout, params, schema, store
from pipeline.core.errors import UserError
from pipeline.figures import appearance, failures, flow, for_report, parsing, poses, relation_maps, subject
from pipeline.loading import checkpoints, pixels, runs, stored_images
from tests import tiny_dataset
from tests.commands.test_inspect import contains
from tests.tiny_dataset import HEIGHT, WIDTH, name

CPU = torch.device("cpu")
SCALE = round(subject.PANEL / HEIGHT)
SIZE = {"height": HEIGHT, "width": WIDTH}
COUNT = tiny_dataset.PEOPLE * tiny_dataset.VIEWS


class Shown(nn.Module):
    """Returns the source inverted, a flow of (3, -2) cells at stride 4, and relation maps whose rows are all different.

    It notes the batches it is given.
    """

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[Batch] = []

    def forward(self, batch: Batch) -> Output:
        self.seen.append(batch)
        h, w = HEIGHT // 4, WIDTH // 4
        flow = torch.tensor([3.0, -2.0]).view(1, 1, 2, 1, 1).expand(-1, -1, -1, h, w)
        flows = {4: flow, 8: flow[..., ::2, ::2] / 2}
        visibilities = {stride: torch.ones_like(one[:, :, :1]) for stride, one in flows.items()}
        relations = {size: torch.eye(size**2).roll(1, 1)[None] for size in (4, 6)}  # patch i looks at patch i + 1
        return Output(-batch.source, flows, visibilities, relations)


class Painter(nn.Module):
    """Gives each label of the target's parsing the mean colour that the label has in the source; predicts that the
    target has the source's parsing.
    """

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.poses: list[tuple[Tensor, ...]] = []

    def appearance(self, batch: Batch) -> Tensor:
        self.poses.append((batch.source_joints, batch.source_valid, batch.target_joints, batch.target_valid))
        own = one_hot(batch.source_labels, 20).flatten(2)
        colours = own @ batch.source.flatten(2).transpose(1, 2) / own.sum(-1, keepdim=True).clamp(min=1)
        return torch.einsum("blhw,blc->bchw", one_hot(batch.target_labels, 20), colours)

    def forward(self, batch: Batch) -> Output:
        return Output(batch.source, parsing=one_hot(batch.source_labels, 20))


def entry(kind: str, network: type[nn.Module], paper: str, parsing: bool) -> Variant:
    phase = variants.VARIANTS["spig"].phase
    return Variant(
        kind, paper, "-", lambda height, width, scale: network(), labels="lip-20" if parsing else None, phase=phase
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The tiny data set with its second half as test pairs, and two variants: shown at steps 1 and 2, painter at 1."""
    tiny_dataset.write(tmp_path, parsing_source="oracle")
    tiny_dataset.write_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    params.load.cache_clear()
    listed = store.read_table(layout.pairs("synthetic")).to_pylist()[12:]
    pairs = [pair | {"split": "test", "pair_index": number} for number, pair in enumerate(listed)]
    store.write_table(layout.pairs("synthetic"), pairs, schema.PAIRS)
    monkeypatch.setitem(variants.VARIANTS, "shown", entry("shown", Shown, "SPIG", parsing=False))
    monkeypatch.setitem(variants.VARIANTS, "painter", entry("painter", Painter, "SPT", parsing=True))
    for kind, steps in (("shown", (1, 2)), ("painter", (1,))):
        where = layout.checkpoints("synthetic", kind)
        for step in steps:
            checkpoints.save(where, step, variants.VARIANTS[kind].build(HEIGHT, WIDTH, 1.0))
        meta = {"kind": "variant", "name": kind, "height": HEIGHT, "width": WIDTH, "settings": {"width": 1.0}}
        checkpoints.write_meta(where, meta)
    yield tmp_path
    params.load.cache_clear()


def drawn(*arguments: str) -> np.ndarray:
    """The picture that the command writes, RGB."""
    assert main(["figure", arguments[0], "--dataset", "synthetic", "--output", "x.png", *arguments[1:]]) == 0
    return cv2.imread("x.png")[:, :, ::-1]


def refused(capsys, *arguments: str) -> str:
    """The one line that the command says instead of drawing."""
    capsys.readouterr()
    assert main(["figure", arguments[0], "--dataset", "synthetic", "--output", "x.png", *arguments[1:]]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("repose:")]
    assert len(said) == 1
    assert not Path("x.png").exists()
    return said[0]


def panel(picture: np.ndarray) -> np.ndarray:
    return picture.repeat(SCALE, axis=0).repeat(SCALE, axis=1)


def trained(kind: str) -> runs.Trained:
    return subject.open_variant("synthetic", kind, 1, CPU)


def person(number: int, view: int) -> runs.Person:
    joints, valid = tiny_dataset.joints(number, view)
    maps = tiny_dataset.label_map(number, view)
    return runs.Person(name(number, view), joints, valid, tiny_dataset.picture(number, view), maps)


# ---- what figures are made of


def test_people_are_those_of_the_data_set(folder):
    for one in ((1, 2), (3, 0)):
        found, expected = subject.people("synthetic", [name(*one)], parsing=True)[name(*one)], person(*one)
        for key in ("picture", "labels", "valid"):
            np.testing.assert_array_equal(getattr(found, key), getattr(expected, key))
        np.testing.assert_array_equal(found.joints[found.valid], expected.joints[expected.valid])


def test_the_generator_sees_the_target_s_joints_only(folder):
    one = trained("shown")
    output = runs.look(one, person(1, 0), person(1, 2))
    (batch,) = one.generator.seen
    assert (batch.target, batch.target_labels, batch.source_labels) == (None, None, None)
    np.testing.assert_array_equal(batch.target_joints[0], tiny_dataset.joints(1, 2)[0])
    np.testing.assert_array_equal(batch.source_joints[0], tiny_dataset.joints(1, 0)[0])
    inverted = 255 - tiny_dataset.picture(1, 0)
    np.testing.assert_array_equal(runs.as_picture(output.image), inverted)
    np.testing.assert_array_equal(pixels.as_bytes(output.image)[0], inverted)  # what is drawn is what is scored


def test_the_checkpoint_is_the_one_of_the_tables(folder, capsys, monkeypatch):
    assert figure.chosen_step("synthetic", "shown") == 2
    assert "not scored yet" in capsys.readouterr().err
    common = dict.fromkeys(schema.SCORES.names) | {"metric": "lpips-alex-v0.1", "marks": []}
    rows = [
        common | {"step": step, "split": split, "value": value, "higher_is_better": False}
        for step, split, value in ((1, "val", 0.1), (2, "val", 0.2), (1, "test", 0.9), (2, "test", 0.1))
    ]
    store.write_table(layout.scores("synthetic", "shown"), rows, schema.SCORES)
    assert figure.chosen_step("synthetic", "shown") == 1
    said = []
    monkeypatch.setattr(subject, "framed", lambda sheet, *lines: said.append(lines[0]) or sheet)
    drawn("flow", "--variant", "shown")
    drawn("flow", "--variant", "shown", "--step", "2")
    assert said == ["flow: shown, step 1, synthetic", "flow: shown, step 2, synthetic"]


def test_pairs_by_index_or_by_the_fixed_shuffle(folder):
    stored = store.read_table(layout.pairs("synthetic")).to_pylist()
    assert subject.pairs("synthetic", 7) == [stored[7]]
    few, more = ({pair["pair_index"] for pair in subject.pairs("synthetic", count=count)} for count in (2, 5))
    assert len(few) == 2
    assert few < more


# ---- relation maps


def test_relation_maps_mark_a_patch_and_heat_what_it_gathers(folder):
    sheet = drawn("relation-maps", "--variant", "shown", "--pair", "0", "--patch", "2", "3", "--patch", "5", "5")
    stored = store.read_table(layout.pairs("synthetic")).to_pylist()[0]
    source = tiny_dataset.picture(int(stored["source_id"][:4]), int(stored["source_id"][5]))
    assert contains(sheet, panel(source))
    assert contains(sheet, panel(255 - source))  # generated
    for size, target, gathered in ((6, (2, 3), (2, 4)), (6, (5, 5), (0, 0)), (4, (1, 2), (1, 3)), (4, (3, 3), (0, 0))):
        weights = np.zeros((size, size))
        weights[gathered] = 1
        assert contains(sheet, relation_maps.overlay(255 - source, weights, 1.0, target))


def test_overlay_is_hot_at_the_weights_and_red_at_the_patch():
    picture = np.full((60, 36, 3), 100, np.uint8)
    weights = np.zeros((6, 6))
    weights[4, 1], weights[0, 0] = 0.5, 0.25
    shown = relation_maps.overlay(picture, weights, 0.5, (1, 5)).astype(int)
    scale = shown.shape[0] // 60
    cells = shown.reshape(6, 10 * scale, 6, 6 * scale, 3).transpose(0, 2, 1, 3, 4)
    middle = cells[:, :, 5 * scale, 3 * scale].sum(axis=-1)
    assert np.unravel_index(middle.argmax(), (6, 6)) == (4, 1)
    assert np.unravel_index(np.where(middle == middle.max(), 0, middle).argmax(), (6, 6)) == (0, 0)
    red = (cells == (255, 40, 40)).all(-1).any(axis=(2, 3))
    assert np.argwhere(red).tolist() == [[1, 5]]


def test_default_patches_follow_the_joints():
    joints, valid = np.zeros((18, 2), np.float32), np.zeros(18, bool)
    for joint, point in {2: (20, 20), 5: (28, 20), 8: (20, 36), 11: (28, 36), 9: (20, 48), 12: (28, 48)}.items():
        joints[joint], valid[joint] = point, True
    spots = relation_maps.default_spots(runs.Pose("x", joints, valid), 64, 32, 4)
    assert [spot[0] for spot in spots] == ["torso", "legs", "background"]
    assert spots[0][1:] == pytest.approx((28.5 / 64, 24.5 / 32))
    assert spots[1][1:] == pytest.approx((42.5 / 64, 24.5 / 32))
    assert spots[2][1:] == (0.125, 0.125)
    nobody = relation_maps.default_spots(runs.Pose("x", joints, np.zeros(18, bool)), 64, 32, 4)
    assert [spot[0] for spot in nobody] == ["background"]


def test_relation_maps_of_a_real_network(folder):
    torch.manual_seed(0)
    network = variants.VARIANTS["spig"].build(HEIGHT, WIDTH, 0.125).eval()
    one = runs.Trained("synthetic", "spig", 0, network, variants.VARIANTS["spig"], CPU, SIZE)
    maps = runs.look(one, person(1, 0), person(1, 1)).relation_maps
    assert {size: tuple(found.shape) for size, found in maps.items()} == {4: (1, 16, 16), 6: (1, 36, 36)}
    assert relation_maps.draw(one, person(1, 0), person(1, 1)).shape[2] == 3


# ---- poses


def test_random_poses_read_no_image_but_the_source_s(folder, monkeypatch):
    read = []
    monkeypatch.setattr(
        stored_images,
        "stream",
        lambda dataset, wanted, real=stored_images.stream: read.extend(wanted.to_pylist()) or real(dataset, wanted),
    )
    drawn("poses", "--variant", "shown", "--image", name(1, 0), "--split", "train", "--count", "3", "--seed", "4")
    assert read == [name(1, 0)]


def test_random_poses_are_drawn_once_each_and_repeat(folder):
    every = subject.poses("synthetic", "train")
    assert 2 < len(every) <= COUNT
    assert all(pose.valid[[2, 5, 8, 11]].all() for pose in every)
    source = every[0]
    found = [poses.random_poses(every, source, len(every) - 1, seed) for seed in (0, 0, 1)]
    ids = [[pose.image_id for pose in one] for one in found]
    assert ids[0] == ids[1] != ids[2]
    assert sorted(ids[0]) == sorted(ids[2]) == [pose.image_id for pose in every[1:]]


def test_poses_show_each_pose_over_its_image(folder):
    asked = ["--variant", "shown", "--image", name(1, 0), "--split", "train", "--count", "2"]
    sheet = drawn("poses", *asked, "--reference")
    every = subject.poses("synthetic", "train")
    chosen = poses.random_poses(every, person(1, 0), 2, 0)
    for pose in chosen:
        cell = np.concatenate(
            [
                subject.skeleton(pose, HEIGHT, WIDTH),
                np.full((8, WIDTH * SCALE, 3), 255, np.uint8),
                panel(255 - tiny_dataset.picture(1, 0)),
            ]
        )
        assert contains(sheet, cell)
        reference = panel(tiny_dataset.picture(int(pose.image_id[:4]), int(pose.image_id[5])))
        assert contains(sheet, reference)
        assert not contains(drawn("poses", *asked), reference)


# ---- flow


def test_flow_is_in_pixels_of_the_image(folder):
    output = runs.look(trained("shown"), person(1, 0), person(1, 1))
    flows, visibilities = flow.full_size(output, HEIGHT, WIDTH)
    assert flows.shape == (1, 2, HEIGHT, WIDTH)
    np.testing.assert_allclose(flows[0, 0], 12, rtol=1e-6)
    np.testing.assert_allclose(flows[0, 1], -8, rtol=1e-6)
    assert visibilities.shape == (1, 1, HEIGHT, WIDTH)


def test_flow_figure_warps_the_source_by_it(folder):
    sheet = drawn("flow", "--variant", "shown", "--pair", "0")
    stored = store.read_table(layout.pairs("synthetic")).to_pylist()[0]
    source = tiny_dataset.picture(int(stored["source_id"][:4]), int(stored["source_id"][5]))
    y, x = np.indices((HEIGHT, WIDTH))
    moved = source[(y - 8).clip(0), (x + 12).clip(max=WIDTH - 1)]  # each pixel from 12 to the right, 8 up
    assert contains(sheet, panel(moved))


def test_flow_colours_tell_direction_and_length():
    """Baker et al.'s wheel: right is red, left cyan to blue; the longest has full colour, rest is white."""
    ways = torch.tensor([(4.0, 0.0), (-4.0, 0.0), (0.0, 0.0), (2.0, 0.0)]).T.view(1, 2, 1, 4)
    right, left, rest, half = flow.coloured(ways)[0, 0].astype(int)
    assert right[0] >= 254
    assert right[1:].max() < 20
    assert left[0] < 20
    assert left[1] > 200
    assert rest.tolist() == [255, 255, 255]
    assert half.tolist() == pytest.approx(((right + 255) / 2).tolist(), abs=2)
    wheel = flow.wheel(65)
    assert np.abs(wheel[32, 64].astype(int) - right).max() <= 1
    assert wheel[0, 0].tolist() == [255, 255, 255]


def test_one_wild_pixel_does_not_pale_the_rest():
    flows = torch.zeros(1, 2, 40, 40)
    flows[:, 0] = 3.0
    flows[0, :, 5, 5] = torch.tensor([-600.0, 800.0])
    shown, longest = flow.clipped(flows)
    assert longest == pytest.approx(3)
    assert shown[0, :, 0, 0].tolist() == [3, 0]
    assert shown[0, :, 5, 5].tolist() == pytest.approx([-1.8, 2.4])


# ---- parsing


def test_parsing_shows_prediction_and_truth_and_counts_what_agrees(folder, monkeypatch):
    sheet = drawn("parsing", "--variant", "painter", "--pair", "0")
    stored = store.read_table(layout.pairs("synthetic")).to_pylist()[0]
    source, target = (person(int(stored[end][:4]), int(stored[end][5])) for end in ("source_id", "target_id"))
    assert contains(sheet, panel(labels.colour(source.labels)))
    assert contains(sheet, panel(labels.colour(target.labels)))
    said = []
    monkeypatch.setattr(parsing.subject, "framed", lambda sheet, *lines: said.extend(lines) or sheet)
    parsing.draw(trained("painter"), source, target)
    assert f"agree on {100 * (source.labels == target.labels).mean():.1f} %" in said[1]


def test_ten_channels_are_spt_s_labels(folder):
    logits = torch.eye(10).view(1, 10, 1, 10)
    np.testing.assert_array_equal(parsing.predicted(logits)[0], range(10))
    one = trained("painter")
    np.testing.assert_array_equal(parsing.shown(one, logits)[0], labels.TO_LIP20["spt-10"])
    # A prediction is right in the ten labels, whatever the garment's name in the stored parsing.
    coat, dress, pants, face = (labels.LIP20.index(label) for label in ("coat", "dress", "pants", "face"))
    target = replace(person(1, 0), labels=np.array([[face, coat, dress, pants]], np.uint8))
    ids = torch.tensor([[1, 3, 3, 3]])  # face, three times upper clothes
    logits = torch.nn.functional.one_hot(ids, 10).permute(2, 0, 1)[None]
    np.testing.assert_array_equal(parsing.agree(one, logits, target), [[True, True, True, False]])


class Repeats(nn.Module):
    """A component that predicts the source's parsing, moved down by `rows`."""

    def __init__(self, rows: int):
        super().__init__()
        self.rows = nn.Parameter(torch.tensor(float(rows)))

    def forward(self, batch: Batch) -> Tensor:
        assert batch.target_labels is None
        return one_hot(batch.source_labels.roll(int(self.rows), 1), 20)


def test_stage_one_shows_both_predictions_and_the_truth(folder, capsys, monkeypatch):
    assert "spatn_no_distance/checkpoints: no checkpoint" in refused(capsys, "stage-one")
    moved = {"spatn_no_distance": 8, "spatn": 4}
    for name_, rows in moved.items():
        known = replace(variants.COMPONENTS[name_], build=lambda *size: Repeats(0), labels="lip-20", limb_maps=False)
        monkeypatch.setitem(variants.COMPONENTS, name_, known)
        where = layout.checkpoints("synthetic", name_)
        checkpoints.save(where, 1, Repeats(0))
        checkpoints.save(where, 2, Repeats(rows))
        meta = {"kind": "component", "name": name_, "height": HEIGHT, "width": WIDTH, "settings": {"width": 1.0}}
        checkpoints.write_meta(where, meta)
    sheet = drawn("stage-one", "--pair", "0")
    pair = subject.pairs("synthetic", 0)[0]
    found = subject.people("synthetic", [pair["source_id"], pair["target_id"]], parsing=True)
    source, target = found[pair["source_id"]], found[pair["target_id"]]
    for rows in moved.values():
        assert contains(sheet, panel(labels.colour(np.roll(source.labels, rows, 0))))
    for part in (source.picture, labels.colour(source.labels), labels.colour(target.labels)):
        assert contains(sheet, panel(part))
    said = []
    monkeypatch.setattr(parsing.subject, "framed", lambda sheet, *lines: said.extend(lines) or sheet)
    opened = [subject.open_component("synthetic", name_, CPU) for name_ in moved]
    parsing.compare(opened, ["without", "with"], source, target)
    for line, (title, rows) in zip(said[1:], zip(["without", "with"], moved.values(), strict=True), strict=True):
        right = 100 * (np.roll(source.labels, rows, 0) == target.labels).mean()
        assert line.startswith(title)
        assert line.endswith(f"agrees with the target on {right:.1f} % of the pixels")


def test_end_to_end_shows_each_variants_parsing_beside_its_image(folder, capsys):
    sheet = drawn("end-to-end", "--variants", "painter", "painter", "--pairs", "2")
    for pair in subject.pairs("synthetic", count=2):
        source = subject.people("synthetic", [pair["source_id"]], parsing=True)[pair["source_id"]]
        assert contains(sheet, panel(source.picture))
        assert contains(sheet, panel(labels.colour(source.labels)))  # Painter predicts the source's
        target = subject.people("synthetic", [pair["target_id"]], parsing=True)[pair["target_id"]]
        assert contains(sheet, panel(labels.colour(target.labels)))
    Path("x.png").unlink()
    line = refused(capsys, "end-to-end", "--variants", "painter", "shown")
    assert "shown predicts no parsing of the target" in line
    assert "spt_ts_pred/checkpoints: no checkpoint" in refused(capsys, "end-to-end")


# ---- distance maps


def test_distance_maps_of_a_pose_are_the_stored_ones(folder, capsys):
    points, valid = tiny_dataset.joints(2, 1)
    maps = limb_distance_maps(points[None], valid[None], HEIGHT, WIDTH, tiny_dataset.KAPPA)[0]
    sheet = drawn("distance-maps", "--image", name(2, 1))
    for one in maps:
        assert contains(sheet, drawing.level(one).repeat(3, 0).repeat(3, 1))
    assert contains(sheet, panel(tiny_dataset.picture(2, 1)))
    assert contains(sheet, panel(drawing.level(maps.max(0))))
    Path("x.png").unlink()
    assert "no image x with joints" in refused(capsys, "distance-maps", "--image", "x")
    shutil.rmtree(layout.distance_maps("synthetic"))
    assert "distance_maps" in refused(capsys, "distance-maps")


# ---- failures


def clothed(trousers: int) -> np.ndarray:
    """A person of 40 rows, `trousers` of them in pants below a coat; the rest background."""
    coat, pants = labels.LIP20.index("coat"), labels.LIP20.index("pants")
    found = np.zeros((HEIGHT, WIDTH), np.uint8)
    found[10 : 50 - trousers], found[50 - trousers : 50] = coat, pants
    return found


def test_errors_are_shares_of_the_person(folder):
    assert failures.search_error(clothed(10), clothed(10)) == 0
    assert failures.search_error(clothed(10), np.roll(clothed(10), 7, 0)) == 0  # another place, the same clothes
    assert failures.search_error(clothed(10), clothed(30)) == pytest.approx(20 / 40)
    assert failures.search_error(clothed(0), clothed(40)) == pytest.approx(1)
    small = clothed(20)[::2]  # a smaller person shows the same shares
    assert failures.search_error(clothed(20), small) == 0
    source, target = replace(person(1, 0), labels=clothed(10)), replace(person(1, 1), labels=clothed(30))
    assert failures.parsing_error(trained("painter"), source, target) == pytest.approx(20 / 40)
    moved = replace(target, labels=np.roll(clothed(10), 5, 0))  # 5 rows more, 5 less, and 5 between the two clothes
    assert failures.parsing_error(trained("painter"), source, moved) == pytest.approx(15 / 45)
    assert failures.worst([0.1, 0.5, 0.2, 0.5], 3) == [1, 3, 2]


def test_failures_are_the_worst_by_their_measures(folder, capsys, monkeypatch):
    known = replace(variants.VARIANTS["painter"], components=("spt_parsing",))
    monkeypatch.setitem(variants.VARIANTS, "painter", known)
    rows = store.read_table(layout.parsing("synthetic")).to_pylist()
    trousers = {row["image_id"]: 3 * number for number, row in enumerate(rows)}
    for row in rows:
        encoded = cv2.imencode(".png", clothed(trousers[row["image_id"]]))[1].tobytes()
        row["parsing"]["bytes"] = encoded
    store.write_shards(layout.parsing("synthetic"), rows, schema.PARSING, parsing_source="oracle")
    asked = []
    with monkeypatch.context() as patch:
        patch.setattr(failures, "draw", lambda *given: asked.extend(given) or np.zeros((8, 8, 3), np.uint8))
        drawn("failures", "--variant", "painter", "--count", "2", "--among", "100")
    _, pairs, searched, looked_at, rule = asked

    def apart(one: str, other: str) -> float:
        return abs(trousers[one] - trousers[other]) / 40

    every = [apart(pair["source_id"], pair["target_id"]) for pair in subject.pairs("synthetic", count=100)]
    assert [error for error, *_ in pairs] == pytest.approx(sorted(every, reverse=True)[:2])
    assert all(error == pytest.approx(apart(*(one.image_id for one in pair))) for error, *pair in pairs)
    table = store.read_table(layout.pseudo_labels("synthetic", "equation")).to_pylist()
    every = [apart(row["image_id"], row["pseudo_id"]) for row in table]
    assert [error for error, *_ in searched] == pytest.approx(sorted(every, reverse=True)[:2])
    assert all((row["image_id"], row["pseudo_id"]) == (a.image_id, b.image_id) for _, row, a, b in searched)
    assert (looked_at, rule) == ((12, len(table)), "equation")
    Path("x.png").unlink()
    assert "shown: learned from no pseudo labels" in refused(capsys, "failures", "--variant", "shown")


def test_the_sheet_of_failures_shows_what_was_predicted_and_what_was_found(folder):
    source, target = (replace(person(1, view), labels=clothed(10 * view)) for view in (1, 2))
    row = {"cost": 12.0, "pose_distance": 0.5}
    sheet = failures.draw(
        trained("painter"), [(0.25, source, target)], [(0.5, row, target, source)], (9, 8), "equation"
    )
    for one in (source, target):
        assert contains(sheet, panel(one.picture))
        assert contains(sheet, panel(labels.colour(one.labels)))


# ---- texture transfer and editing


def painted(source: runs.Person, label_map: np.ndarray) -> np.ndarray:
    """What Painter makes, by a loop."""
    out = np.full((HEIGHT, WIDTH, 3), 127.5)  # 0 of [-1, 1] for a label that the source has not
    for label in np.unique(label_map):
        own = source.picture[source.labels == label]
        if len(own):
            out[label_map == label] = own.astype(float).mean(axis=0)
    return out


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return np.abs(found.astype(float) - expected).max() <= 1


def test_texture_transfer_goes_both_ways(folder):
    one, a, b = trained("painter"), person(1, 0), person(3, 2)
    a_as_b = appearance.render(one, a, b.labels, b)
    assert close(a_as_b, painted(a, b.labels))
    poses_given = [part[0].numpy() for part in one.generator.poses[0]]
    for found, expected in zip(poses_given, (a.joints, a.valid, b.joints, b.valid), strict=True):
        np.testing.assert_array_equal(found, expected)
    b_as_a = appearance.render(one, b, a.labels, a)
    assert close(b_as_a, painted(b, a.labels))
    sheet = drawn("texture-transfer", a.image_id, b.image_id, "--variant", "painter")
    for part in (a.picture, b.picture, a_as_b, b_as_a, labels.colour(a.labels), labels.colour(b.labels)):
        assert contains(sheet, panel(part))


def test_relabel_changes_its_regions_only(folder):
    one = person(2, 1)
    pants, skirt, hat, face = (labels.LIP20.index(label) for label in ("pants", "skirt", "hat", "face"))
    for trousers in ("pants", "trousers"):
        changed = appearance.relabel(one.labels, [f"{trousers}=skirt", "face = hat"], "x")
        np.testing.assert_array_equal(changed == skirt, np.isin(one.labels, [pants, skirt]))
        np.testing.assert_array_equal(changed == hat, np.isin(one.labels, [hat, face]))
        others = ~np.isin(one.labels, [pants, skirt, hat, face])
        np.testing.assert_array_equal(changed[others], one.labels[others])
    swapped = appearance.relabel(one.labels, ["pants=skirt", "skirt=pants"], "x")  # at once, not in turn
    np.testing.assert_array_equal(swapped == pants, one.labels == skirt)


def test_edit_renders_the_edited_parsing_in_the_own_pose(folder):
    one = person(2, 1)
    sheet = drawn("edit", "--variant", "painter", "--image", one.image_id, "--relabel", "pants=skirt")
    edited = appearance.relabel(one.labels, ["pants=skirt"], "x")
    expected = appearance.render(trained("painter"), one, edited, one)
    assert close(expected, painted(one, edited))
    for part in (one.picture, labels.colour(one.labels), labels.colour(edited), expected):
        assert contains(sheet, panel(part))


def test_an_edited_png_is_ids_or_the_colours_that_save_parsing_writes(folder):
    one = person(2, 1)
    asked = ["--variant", "painter", "--image", one.image_id]
    drawn("edit", *asked, "--save-parsing", "mine.png")
    np.testing.assert_array_equal(cv2.imread("mine.png")[:, :, ::-1], labels.colour(one.labels))
    edited = one.labels.copy()
    edited[:20] = labels.LIP20.index("coat")
    cv2.imwrite("colours.png", labels.colour(edited)[:, :, ::-1])
    cv2.imwrite("ids.png", edited)
    sheets = [drawn("edit", *asked, "--parsing", file) for file in ("colours.png", "ids.png")]
    np.testing.assert_array_equal(*sheets)
    assert contains(sheets[0], panel(labels.colour(edited)))


# ---- grid


def test_grid_has_every_variant_on_the_same_pairs(folder):
    sheet = drawn("grid", "--variants", "shown", "painter", "--pairs", "2")
    for pair in subject.pairs("synthetic", count=2):
        source, target = (
            tiny_dataset.picture(int(pair[end][:4]), int(pair[end][5])) for end in ("source_id", "target_id")
        )
        for part in (source, target, 255 - source):
            assert contains(sheet, panel(part))


def test_grid_takes_what_is_trained(folder, monkeypatch):
    monkeypatch.setattr(figure.params, "variants", lambda: ["spig", "shown", "painter"])
    assert drawn("grid", "--pairs", "1").shape == drawn("grid", "--pairs", "1", "--variants", "shown", "painter").shape


# ---- for the report


def test_a_variant_s_figures_for_the_report(folder):
    kinds = {kind: [row["kind"] for row in for_report.rows("synthetic", kind, 1, CPU)] for kind in ("shown", "painter")}
    assert kinds["shown"] == ["relation-maps", "flow"] * 2  # no image of this data set's test split has joints to draw
    assert kinds["painter"] == ["parsing"] * 2 + ["texture-transfer"] + ["edit"] * 2
    assert for_report.rows("synthetic", "copy_source", 0, CPU) == []
    table = store.read_table(layout.keypoints("synthetic"))
    store.write_table(
        layout.keypoints("synthetic"),
        [row | {"split": "test"} for row in table.to_pylist()],
        schema.KEYPOINTS,
    )
    rows = for_report.rows("synthetic", "shown", 2, CPU)
    assert [row["kind"] for row in rows][-1] == "poses"
    first = subject.pairs("synthetic", count=2)[0]
    people = subject.people("synthetic", [first["source_id"], first["target_id"]])
    expected = relation_maps.draw(
        subject.open_variant("synthetic", "shown", 2, CPU), people[first["source_id"]], people[first["target_id"]]
    )
    shown = cv2.imdecode(np.frombuffer(rows[0]["picture"]["bytes"], np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    np.testing.assert_array_equal(shown, expected)  # lossless
    assert (rows[0]["step"], rows[0]["caption"]) == (2, f"pair {first['pair_index']}")
    store.write_table(layout.figures("synthetic", "shown"), rows, schema.FIGURES)


def test_a_submodule_called_appearance_is_not_the_method(folder):
    network = variants.VARIANTS["spgnet"].build(HEIGHT, WIDTH, 0.125).eval()
    one = runs.Trained("synthetic", "spgnet", 0, network, variants.VARIANTS["spgnet"], CPU, SIZE)
    assert isinstance(network.appearance, nn.Module)
    assert not appearance.paints(one)
    assert appearance.paints(trained("painter"))
    assert parsing.draw(one, person(1, 0), person(1, 1)).shape[2] == 3  # a real network's parsing


def test_a_variant_that_is_given_the_target_s_parsing_gets_it(folder, monkeypatch):
    class Given(Painter):
        def forward(self, batch: Batch) -> Output:
            np.testing.assert_array_equal(batch.target_labels[0], tiny_dataset.label_map(1, 2))
            return Output(batch.source)

    given = entry("given", Given, "SPT", parsing=True)
    object.__setattr__(given, "given_target_parsing", True)
    monkeypatch.setitem(variants.VARIANTS, "given", given)
    one = runs.Trained("synthetic", "given", 0, Given(), variants.VARIANTS["given"], CPU, SIZE)
    runs.look(one, person(1, 0), person(1, 2))
    with pytest.raises(UserError, match="is given the target's parsing; a pose has none"):
        runs.look(one, person(1, 0), runs.Pose(name(1, 2), *tiny_dataset.joints(1, 2)))


# ---- refusals


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["relation-maps", "--variant", "painter"], "painter has no relation maps"),
        (["relation-maps", "--variant", "shown", "--patch", "6", "0"], "--patch 6 0: the map is 6 x 6"),
        (["relation-maps", "--variant", "shown", "--pair", "99"], "no usable test pair 99; they are numbered 0 to 11"),
        (["flow", "--variant", "painter"], "painter has no flow"),
        (["parsing", "--variant", "shown"], "shown predicts no parsing"),
        (["flow", "--variant", "shown", "--step", "9"], "no checkpoint of step 9; there are: 1, 2"),
        (["flow", "--variant", "spig"], "checkpoints: no checkpoint; run: repose train"),
        (["flow", "--variant", "spog"], "unknown variant spog"),
        (
            ["poses", "--variant", "shown", "--image", "0001_9.png"],
            "no image 0001_9.png with joints; names there look like",
        ),
        (["poses", "--variant", "shown", "--image", name(0, 2)], "no image 0000_2.png with joints"),  # rejected
        (["poses", "--variant", "shown", "--image", name(1, 0), "--count", "4"], "--count 4: only 0 images"),
        (["texture-transfer", name(1, 0), name(2, 0), "--variant", "shown"], "shown cannot draw a given parsing"),
        (["edit", "--variant", "painter", "--image", name(1, 0)], "nothing to edit: give --relabel FROM=TO or"),
        (["flow", "--variant", "shown", "--output", "x.jpg"], "--output x.jpg: the picture is a PNG"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(folder, capsys, arguments, said):
    assert said in refused(capsys, *arguments)


def test_a_relabelling_that_means_nothing_lists_the_labels_there_are(folder, capsys):
    table = store.read_table(layout.parsing("synthetic")).to_pylist()
    plain = np.zeros((HEIGHT, WIDTH), np.uint8)
    plain[9:40] = labels.LIP20.index("dress")
    for row in table:
        row["parsing"]["bytes"] = cv2.imencode(".png", plain)[1].tobytes()
    store.write_shards(layout.parsing("synthetic"), table, schema.PARSING, parsing_source="oracle")
    asked = ["edit", "--variant", "painter", "--image", name(1, 0), "--relabel"]
    assert refused(capsys, *asked, "pants=skirt").endswith("0001_0.png has no pants; it has: background, dress")
    assert refused(capsys, *asked, "dress=toga").endswith("no label toga; 0001_0.png has: background, dress")
    assert refused(capsys, *asked, "dress").endswith("--relabel dress: write FROM=TO, such as pants=skirt")


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        (np.zeros((HEIGHT, WIDTH + 1), np.uint8), "64 x 33 (height x width), but 0001_0.png is 64 x 32"),
        (np.full((HEIGHT, WIDTH), 21, np.uint8), "id 21 is no label; lip-cihp-21 has 0 to 20"),
        (np.zeros((HEIGHT, WIDTH), np.uint16), "no 8-bit PNG"),
        (np.full((HEIGHT, WIDTH, 3), 7, np.uint8), "colour (7, 7, 7) is no label's"),
        (None, "not there; --save-parsing mine.png writes the image's own"),
    ],
)
def test_an_edited_png_that_is_no_label_map_is_one_line(folder, capsys, picture, said):
    if picture is not None:
        cv2.imwrite("mine.png", picture)
    line = refused(capsys, "edit", "--variant", "painter", "--image", name(1, 0), "--parsing", "mine.png")
    assert "--parsing mine.png: " in line
    assert said in line


def test_values_that_are_not_finite_are_one_line(folder, capsys, monkeypatch):
    monkeypatch.setattr(Shown, "forward", lambda self, batch: Output(batch.source * torch.nan))
    assert "not finite" in refused(capsys, "grid", "--variants", "shown")


def test_a_network_for_another_size_is_one_line(folder, capsys):
    where = layout.checkpoints("synthetic", "shown")
    checkpoints.write_meta(where, checkpoints.meta(where) | {"height": 128, "width": 64})
    assert "trained for images of 128 x 64, 0" in refused(capsys, "grid", "--variants", "shown")


@pytest.mark.parametrize("kind", list(figure.KINDS))
def test_help_teaches_by_example(capsys, kind):
    with pytest.raises(SystemExit) as ended:
        main(["figure", kind, "--help"])
    assert ended.value.code == 0
    assert f"repose figure {kind} " in capsys.readouterr().out


def test_default_name_tells_what_it_is(folder):
    assert main(["figure", "flow", "--dataset", "synthetic", "--variant", "shown", "--pair", "3"]) == 0
    assert (layout.drawn("synthetic") / "flow-shown-2-pair3.png").exists()
