"""The parser in the box: its answers in any company, how training data are mapped and drawn, what training writes."""

import argparse
import json
import zipfile

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from models import parser as network
from pipeline.anatomy.pose import FLIP
from pipeline.core.errors import UserError
from pipeline.datasets import synthetic
from pipeline.extraction import repose_parser
from pipeline.extraction.repose_parser import prepare, train


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def parser() -> repose_parser.Parser:
    return repose_parser.load()


@pytest.fixture(scope="module")
def people() -> list[synthetic.Rendering]:
    """Synthetic people that nobody trained on."""
    return [synthetic.render(scene) for scene in synthetic.scenes(0, "test", 16, 1)]


@pytest.fixture(scope="module")
def inputs(people) -> tuple[list, np.ndarray, np.ndarray]:
    """As the parser takes them: images RGB, joints, valid."""
    joints = np.stack([person.joints for person in people])
    return [person.image for person in people], joints, ~np.isnan(joints).any(2)


# Inference


def test_an_image_gets_the_same_map_in_any_company(parser, inputs):
    images, joints, valid = inputs
    together = parser(images, joints, valid)
    assert together.shape == (16, 128, 64)
    assert together.dtype == np.uint8
    for row in (0, 7):
        one = slice(row, row + 1)
        assert np.array_equal(parser(images[one], joints[one], valid[one]), together[one])
    assert np.array_equal(parser(images[::-1], joints[::-1], valid[::-1]), together[::-1])
    # Not only the maps: the scores behind them are equal to the last bit.
    scores = parser.logits(images, joints, valid)
    assert torch.equal(scores[5:6], parser.logits(images[5:6], joints[5:6], valid[5:6]))
    assert torch.equal(scores[5:8].flip(0), parser.logits(images[7:4:-1], joints[7:4:-1], valid[7:4:-1]))


def test_maps_are_right_on_new_synthetic_people(parser, inputs, people):
    parsed = parser(*inputs)
    truth = np.stack([person.parsing for person in people])
    assert (parsed == truth).mean() > 0.9
    for label in (2, 13, 14, 15):  # hair, face, left arm, right arm
        both = ((parsed == label) & (truth == label)).sum()
        assert both / ((parsed == label) | (truth == label)).sum() > 0.5


def test_joints_say_which_arm_is_the_left_one(parser, inputs):
    """Joints with sides exchanged: what was a left arm, leg or shoe becomes a right one more often than not."""
    images, joints, valid = inputs
    straight, crossed = parser(*inputs), parser(images, joints[:, list(FLIP)], valid[:, list(FLIP)])
    for left in (14, 16, 18):
        was = straight == left
        assert (crossed[was] == left + 1).mean() > 0.5


def test_values_of_missing_joints_do_not_matter(parser, inputs):
    images, joints, valid = inputs
    some = valid.copy()
    some[:, 2:8] = False
    wild = np.where(some[..., None], joints, 1e6)
    assert np.array_equal(parser(images, wild, some), parser(images, np.where(some[..., None], joints, np.nan), some))


def test_joints_are_pixels_of_the_image_that_was_given(parser, inputs):
    """An image enlarged to the working size by hand, and its joints, give the same scores."""
    image, joints, valid = inputs[0][3], inputs[1][3:4], inputs[2][3:4]
    large = cv2.resize(image, (128, 256), interpolation=cv2.INTER_LINEAR)
    scores = parser.logits([large], (joints + 0.5) * 2 - 0.5, valid)
    torch.testing.assert_close(scores, parser.logits([image], joints, valid), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("size", "width"), [((128, 64), 128), ((256, 256), 256), ((256, 176), 176), ((384, 251), 160)])
def test_maps_have_the_size_of_the_image(parser, size, width):
    assert repose_parser.working_width(*size) == width
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    parsed = parser([image], np.zeros((1, 18, 2)), np.zeros((1, 18), bool))
    assert parsed.shape == (1, *size)
    assert parsed.max() < 20


def test_fused_network_is_the_network_that_was_trained():
    torch.manual_seed(0)
    model = network.Parser()
    for module in model.modules():  # batch norms that do something
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_()
    given = torch.rand(1, 3, 64, 32) * 255, torch.rand(1, 18, 2) * 32, torch.rand(1, 18) > 0.3
    with torch.no_grad():
        expected = model.eval()(*given)
        fused = repose_parser._fuse(model)(*given)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    torch.testing.assert_close(fused, expected, rtol=1e-3, atol=1e-3)


def test_bad_input_is_one_line(parser, tmp_path):
    image, joints, valid = np.zeros((128, 64, 3), np.uint8), np.zeros((2, 18, 2)), np.zeros((2, 18), bool)
    with pytest.raises(UserError, match=r"1 images need joints \(1, 18, 2\)"):
        parser([image], joints, valid)
    with pytest.raises(UserError, match="one size"):
        parser([image, image[:64]], joints, valid)
    assert len(parser([], joints[:0], valid[:0])) == 0
    with pytest.raises(UserError, match="not there"):
        repose_parser.load(weights=tmp_path / "none.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="not this parser's weights"):
        repose_parser.load(weights=tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(UserError, match="not this parser's weights"):
        repose_parser.load(weights=tmp_path / "text.safetensors")


def test_shipped_weights_are_small_finite_and_half_precision():
    assert repose_parser.WEIGHTS.stat().st_size < 8e6
    weights = load_file(repose_parser.WEIGHTS)
    assert {tensor.dtype for tensor in weights.values() if tensor.dim() > 1} == {torch.float16}
    assert all(tensor.isfinite().all() for tensor in weights.values())


def test_weights_survive_shipping(tmp_path):
    """Deep features of SqueezeNet have variances beyond float16; the loaded network still is the trained one."""
    torch.manual_seed(0)
    model = network.Parser()
    model.lateral["12"].norm.running_var.fill_(1e6)
    save_file(train.compact(model), tmp_path / "weights.safetensors")
    shipped = load_file(tmp_path / "weights.safetensors")
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(shipped[name].to(tensor.dtype), tensor, rtol=1e-3, atol=1e-6, msg=name)


# Tags to LIP-20


def standing() -> tuple[np.ndarray, np.ndarray]:
    """Joints of a person who faces the viewer in 200 x 100 pixels: the person's left is at larger x. All found."""
    places = {
        0: (50, 20), 1: (50, 40), 2: (35, 42), 3: (28, 65), 4: (25, 88), 5: (65, 42), 6: (72, 65), 7: (75, 88),
        8: (42, 95), 9: (40, 135), 10: (40, 175), 11: (58, 95), 12: (60, 135), 13: (60, 175),
        14: (46, 16), 15: (54, 16), 16: (41, 18), 17: (59, 18),
    }  # fmt: skip
    return np.array([places[joint] for joint in range(18)], np.float32), np.ones(18, bool)


NAMES = ["null", "skin", "shoes", "suit", "belt", "accessories", "jeans", "t-shirt", "stockings", "bag"]


def tagged(**areas) -> np.ndarray:
    """(200, 100) tags, zero but in the areas: tag name -> list of (x0, y0, x1, y1)."""
    tags = np.zeros((200, 100), np.uint8)
    for name, boxes in areas.items():
        for x0, y0, x1, y1 in boxes:
            tags[y0:y1, x0:x1] = NAMES.index(name.replace("_", "-"))
    return tags


def test_skin_and_shoes_take_side_and_limb_of_the_nearest_bone():
    boxes = {13: (44, 10, 56, 30), 15: (22, 60, 32, 98), 14: (68, 60, 78, 98), 17: (36, 140, 44, 170)}
    boxes[16] = (56, 140, 64, 170)
    shoes = {19: (34, 176, 46, 184), 18: (56, 176, 68, 184)}
    labels = prepare.to_lip20(tagged(skin=boxes.values(), shoes=shoes.values()), NAMES, *standing())
    for label, (x0, y0, x1, y1) in (boxes | shoes).items():
        assert (labels[y0:y1, x0:x1] == label).all(), label
    assert set(np.unique(labels)) == {0, *boxes, *shoes}


def test_without_joints_nobody_knows_the_side():
    tags = tagged(skin=[(40, 140, 44, 170)], shoes=[(56, 176, 68, 184)])
    labels = prepare.to_lip20(tags, NAMES, standing()[0], np.zeros(18, bool))
    assert (labels[tags > 0] == prepare.IGNORE).all()


def test_one_known_joint_of_a_bone_is_enough():
    joints, valid = standing()
    valid[:] = False
    valid[[10, 13]] = True  # ankles
    labels = prepare.to_lip20(tagged(shoes=[(34, 176, 46, 184), (56, 176, 68, 184)]), NAMES, joints, valid)
    assert set(labels[180, 34:46]) == {19}
    assert set(labels[180, 56:68]) == {18}


def test_a_sliver_of_a_patch_joins_its_patch():
    """A forearm beside the hip: a few of its pixels are nearer to the thigh, none becomes leg."""
    joints, valid = standing()
    joints[7] = 63, 100  # left wrist on the left hip
    box = (60, 68, 72, 102)
    labels = prepare.to_lip20(tagged(skin=[box]), NAMES, joints, valid)
    assert set(np.unique(labels)) == {0, 14}
    y, x = np.mgrid[68:102, 60:72]
    points = np.stack([x.ravel(), y.ravel()], 1)
    assert 16 in prepare._nearest_bone(points, prepare.BONES, joints, valid)  # so there was something to do


def test_suit_is_coat_and_trousers_unless_trousers_are_named():
    suit, legs = [(35, 40, 65, 170)], [(35, 140, 65, 170)]
    labels = prepare.to_lip20(tagged(suit=suit), NAMES, *standing())
    assert set(labels[40:96, 50]) == {7}
    assert set(labels[96:170, 50]) == {9}
    labels = prepare.to_lip20(tagged(suit=suit, jeans=legs), NAMES, *standing())
    assert set(labels[40:140, 50]) == {7}
    assert set(labels[140:170, 50]) == {9}


def test_worn_things_take_the_nearest_label_and_held_things_none():
    tags = tagged(t_shirt=[(40, 40, 60, 90)], jeans=[(40, 94, 60, 150)], belt=[(40, 90, 60, 94)])
    tags[100:110, 60:70] = NAMES.index("bag")
    tags[20:24, 60:70] = NAMES.index("accessories")
    labels = prepare.to_lip20(tags, NAMES, *standing())
    assert labels[88:98, 50].tolist() == [5] * 4 + [9] * 6
    assert not labels[100:110, 60:70].any()
    assert (labels[20:24, 60:70] == prepare.IGNORE).all()


def test_every_tag_has_a_label_and_an_unknown_one_is_an_error():
    decided = {prepare.SKIN, prepare.SHOES, prepare.SUIT, prepare.WORN, prepare.IGNORE}
    assert len(prepare.TAGS) == 59
    assert all(label < 20 or label in decided for label in prepare.TAGS.values())
    with pytest.raises(UserError, match="the tags kilt"):
        prepare.to_lip20(np.zeros((4, 4), np.uint8), ["null", "kilt"], *standing())


def test_joints_of_a_bystander_are_not_the_persons():
    joints, valid = standing()
    joints[4] = 95, 5
    near = prepare.near_person(tagged(t_shirt=[(20, 10, 80, 190)]), joints, valid)
    assert near.tolist() == [joint != 4 for joint in range(18)]


def test_holdout_depends_on_the_names_alone():
    names = [f"{number:04d}.jpg" for number in range(1, 1005)]
    held = prepare.is_holdout(names)
    assert held.sum() == 150
    assert np.array_equal(prepare.is_holdout(names[::-1]), held[::-1])
    assert [name for name, out in zip(names, held, strict=True) if out][:5] == FIRST_HELD


FIRST_HELD = ["0009.jpg", "0013.jpg", "0017.jpg", "0021.jpg", "0027.jpg"]


def test_photographs_are_read_from_the_zip(tmp_path, monkeypatch):
    joints, valid = standing()
    tags = tagged(skin=[(44, 10, 56, 30)], jeans=[(36, 95, 64, 150)])
    photo = np.full((200, 100, 3), (10, 120, 200), np.uint8)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("clothing-co-parsing/labels.json", json.dumps([None, *NAMES[1:]]))
        for name in ("0002", "0001"):
            archive.writestr(f"clothing-co-parsing/photos/{name}.jpg", cv2.imencode(".jpg", photo)[1].tobytes())
            archive.writestr(f"clothing-co-parsing/labels/{name}.png", cv2.imencode(".png", tags)[1].tobytes())
    seen = []

    def find(images):
        seen.append(images)
        return joints[None], np.where(valid, 0.9, 0)[None]

    monkeypatch.setattr(prepare, "OpenPose", lambda files: find)
    photos = prepare.read_photos(tmp_path / "photos.zip", [])
    assert [photo["name"] for photo in photos] == ["0001.jpg", "0002.jpg"]
    assert np.abs(seen[0][0, 0, 0].astype(int) - (200, 120, 10)).max() < 4  # the detector takes RGB
    assert np.array_equal(np.unique(photos[0]["labels"]), [0, 9, 13])
    assert photos[0]["found"].all()
    assert photos[0]["valid"].sum() < 18  # elbows and wrists lie far off the tags
    (tmp_path / "no.zip").write_text("no zip")
    with pytest.raises(UserError, match=r"no\.zip: no zip with"):
        prepare.read_photos(tmp_path / "no.zip", [])


# Training


def sample() -> dict:
    """A person of two squares: the left arm (14) is green, the right arm (15) red; wrists in their middles."""
    image, labels = np.full((384, 256, 3), 60, np.uint8), np.zeros((384, 256), np.uint8)
    joints, valid = np.zeros((18, 2), np.float32), np.zeros(18, bool)
    for joint, label, channel, (x, y) in ((7, 14, 1, (140, 130)), (4, 15, 2, (110, 230))):
        area = slice(y - 10, y + 11), slice(x - 10, x + 11)
        image[area] = 0
        image[(*area, channel)] = 255
        labels[area] = label
        joints[joint], valid[joint] = (x, y), True
    return {"image": image, "labels": labels, "joints": joints, "valid": valid}


def test_views_move_pixels_labels_and_joints_together(monkeypatch):
    monkeypatch.setattr(train, "disturb_image", lambda rng, image, labels: image)
    monkeypatch.setattr(train, "disturb_joints", lambda rng, joints, valid, width: (joints, valid))
    errors, mirrored = [], set()
    for seed in range(120):
        width = (128, 192, 256)[seed % 3]
        image, labels, joints, valid = train.view(np.random.default_rng(seed), sample(), width)
        assert image.shape == (256, width, 3)
        assert labels.shape == (128, width // 2)
        order = []
        for joint, label, channel in ((7, 14, 1), (4, 15, 0)):  # RGB now
            y, x = np.nonzero(labels == label)
            if len(y) < 30 or min(y.min(), x.min()) == 0 or y.max() == 127 or x.max() == width // 2 - 1:
                continue  # cut by the border: its middle is not the joint
            assert valid[joint]
            errors.append((2 * x.mean() + 0.5, 2 * y.mean() + 0.5) - joints[joint])
            # In a mirrored view the left arm is the square that was the right one: colours change, the rule does not.
            colour = image[2 * int(y.mean()), 2 * int(x.mean())]
            assert colour.max() > 200
            order.append(bool(colour[channel] > 200))
        mirrored |= set(order)
    assert len(errors) > 30
    assert np.abs(errors).max() < 1.5  # cells are two pixels wide
    assert np.abs(np.mean(errors, axis=0)).max() < 0.15  # and not shifted, not even by half a pixel
    assert mirrored == {True, False}


def test_disturbed_joints_are_inside_and_sometimes_missing():
    joints = np.tile([[60.0, 100.0]], (18, 1)).astype(np.float32)
    joints[3] = -20, 100
    joints[4] = 60, 300
    drawn = [
        train.disturb_joints(np.random.default_rng(seed), joints, np.ones(18, bool), 128)[1] for seed in range(300)
    ]
    share = np.mean(drawn, axis=0)
    assert not share[[3, 4]].any()
    assert ((share > 0.5) & (share < 0.9)).sum() == 16
    assert 0.1 < np.mean([not valid.any() for valid in drawn]) < 0.22


def test_a_batch_is_a_function_of_seed_and_step():
    people = [sample(), sample()]
    draw = {"size": 4, "photos": people, "weights": np.array([0.5, 0.5]), "rendered": people}
    first, again = train.draw_batch(3, 0, **draw), train.draw_batch(3, 0, **draw)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert not torch.equal(first[2], train.draw_batch(4, 0, **draw)[2])
    assert not torch.equal(first[2], train.draw_batch(3, 1, **draw)[2])


def test_rare_labels_are_drawn_more_often_and_weigh_more():
    photos = [{"labels": np.full((40, 40), 5, np.uint8)} for _ in range(99)]
    rare = photos[0]["labels"].copy()
    rare[:10, :10] = 3
    draws, weights = train.label_shares([{"labels": rare}, *photos[1:], photos[1]])
    assert draws.sum() == pytest.approx(1)
    assert draws[0] / draws[1] == pytest.approx(np.sqrt(train.RARE / 0.01))
    share = np.array([1500 + 98 * 1600 + 1600, 100]) / (100 * 1600)
    assert weights[5] == pytest.approx(share[0] ** -0.35 / (share**0.65).sum(), rel=0.01)
    assert weights[3] == 6  # the cap


def test_loss_is_cross_entropy_and_dice():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 20, 6, 5, generator=generator, requires_grad=True)
    labels = torch.randint(0, 12, (2, 6, 5), generator=generator)
    labels[0, :2] = prepare.IGNORE
    weights = torch.rand(20, generator=generator) + 0.5
    known = labels != prepare.IGNORE
    hot = F.one_hot(labels.clamp(max=19), 20).permute(0, 3, 1, 2) * known.unsqueeze(1)
    share = logits.softmax(1) * known.unsqueeze(1)
    dice = 1 - 2 * (share * hot).sum((0, 2, 3)) / (share.sum((0, 2, 3)) + hot.sum((0, 2, 3)))
    expected = (
        F.cross_entropy(logits, labels, weights, ignore_index=prepare.IGNORE) + 0.5 * dice[labels.unique()[:-1]].mean()
    )
    found = train.loss(logits, labels, weights)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in (found, expected)))


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "CHECKPOINT", 2)
    monkeypatch.setattr(train, "WIDTHS", (128, 128, 128))
    torch.manual_seed(0)
    torch.save(network.Parser().features.state_dict(), tmp_path / "encoder.pth")
    content = {"photos": [sample() | {"holdout": False}, sample() | {"holdout": True}], "rendered": [sample()]}

    def arguments(name: str) -> argparse.Namespace:
        (tmp_path / name).mkdir(exist_ok=True)
        prepared = [[train.as_tensors(one) for one in some] for some in content.values()]
        torch.save(prepared, tmp_path / name / "prepared.pt")
        return argparse.Namespace(
            photos=None, openpose=None, encoder=tmp_path / "encoder.pth", out=tmp_path / name, steps=4, batch=2,
            rate=1e-3, seed=0, device="cpu", bf16=False,
        )  # fmt: skip

    train.train(arguments("whole"))
    draw, steps = train.draw_batch, []

    def killed(step, *rest):
        if step == 3:
            raise KeyboardInterrupt
        return draw(step, *rest)

    monkeypatch.setattr(train, "draw_batch", killed)
    with pytest.raises(KeyboardInterrupt):
        train.train(arguments("parts"))
    monkeypatch.setattr(train, "draw_batch", lambda step, *rest: steps.append(step) or draw(step, *rest))
    train.train(arguments("parts"))
    assert steps == [2, 3]
    whole, parts = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts
    start = network.Parser().state_dict()
    assert set(load_file(tmp_path / "whole/weights.safetensors")) == set(start)
