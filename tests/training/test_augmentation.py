import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from models import gfla, spgnet
from models.layers.blocks import Batch
from models.layers.schedule import Jitter, Move
from pipeline.training import augmentation

HEIGHT, WIDTH = 64, 32
FREE = Jitter(Move(), Move())  # both sides move as the rows say


def batch_of(images, joints, valid, labels=None):
    """Source and target alike, so that only their moves tell them apart."""
    return Batch(
        images, images.clone(), joints, valid, joints, valid, labels, None if labels is None else labels.clone()
    )


def moves(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def noise(height=HEIGHT, width=WIDTH, seed=0):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_draws_lie_within_the_jitter_and_depend_on_seed_and_step_alone():
    jitter = Jitter(Move(scale=(1 / 1.2, 1.2), angle=5.0, shift=10.0), Move(scale=(0.9, 1.2), geometric=False, shift=2))
    drawn = augmentation.draws(jitter, 4000, 0, 7)
    assert drawn.shape == (4000, 2, 4)
    factor, angle, shift = drawn[:, 0, 0], drawn[:, 0, 1].rad2deg(), drawn[:, 0, 2:]
    assert 1 / 1.2 - 1e-6 <= factor.min() < 0.84 < 1.19 < factor.max() <= 1.2 + 1e-6
    assert factor.log().mean().abs() < 0.005  # as often larger as smaller
    assert -5 <= angle.min() < -4.9 < 4.9 < angle.max() <= 5
    assert -10 <= shift.min() < -9.9 < 9.9 < shift.max() <= 10
    assert drawn[:, 1, 0].mean() == pytest.approx(1.05, abs=0.005)
    assert not drawn[:, 1, 1].any()
    assert drawn[:, 1, 2:].abs().max() <= 2
    moving = drawn.flatten(1)[:, [0, 1, 2, 3, 4, 6, 7]]
    assert np.corrcoef(moving.T.numpy())[np.triu_indices(7, 1)] == pytest.approx(np.zeros(21), abs=0.06)
    assert torch.equal(drawn, augmentation.draws(jitter, 4000, 0, 7))
    assert not torch.equal(drawn, augmentation.draws(jitter, 4000, 0, 8))
    assert not torch.equal(drawn, augmentation.draws(jitter, 4000, 1, 7))


def test_the_authors_ranges():
    """SPGNet's code moves the target alone, by randint(-10, 10) pixels; GFLA's both, the target less and unscaled."""
    (jitter,) = {variant.phase.augment["market1501"] for variant in spgnet.VARIANTS}
    drawn = augmentation.draws(jitter, 4000, 0, 1)
    assert torch.equal(drawn[:, 0], moves([1, 0, 0, 0]).expand(4000, -1))
    assert drawn[:, 1, 2:].unique().tolist() == list(range(-10, 10))
    assert not drawn[:, 1, 1].any()
    batch = batch_of(noise(128, 64), torch.full((1, 18, 2), 30.0), torch.ones(1, 18, dtype=torch.bool))
    moved = augmentation.move(batch, jitter, drawn[:1])
    assert moved.source is batch.source
    assert not torch.equal(moved.target, batch.target)

    (jitter,) = {entry.phase.augment["market1501"] for entry in (*gfla.VARIANTS, *gfla.COMPONENTS)}
    drawn = augmentation.draws(jitter, 4000, 0, 1)
    low, high = drawn.amin(0), drawn.amax(0)
    bound = moves([0.05, np.deg2rad(5), 5, 5], [0, np.deg2rad(1), 2.5, 2.5])
    centre = moves([1, 0, 0, 0])
    torch.testing.assert_close(low, centre - bound, rtol=2e-3, atol=1e-3)
    torch.testing.assert_close(high, centre + bound, rtol=2e-3, atol=1e-3)
    assert "deepfashion" not in gfla.VARIANTS[0].phase.augment


def test_spgnets_target_is_opencvs_warp_of_it():
    """The released code's matrix with height and width exchanged in its offsets, and cv2.warpAffine."""
    (jitter,) = {variant.phase.augment["market1501"] for variant in spgnet.VARIANTS}
    generator = torch.Generator().manual_seed(3)
    image, labels = noise(128, 64), torch.randint(0, 20, (1, 128, 64), dtype=torch.uint8, generator=generator)
    joints = 20 + 20 * torch.rand(1, 18, 2, generator=generator)
    batch = batch_of(image, joints, torch.ones(1, 18, dtype=torch.bool), labels)
    for factor, x, y in ((1.0, 3, -8), (1.13, -10, 9), (0.86, 4, 0)):
        matrix = np.array([[factor, 0, 64 * (1 - factor) + x], [0, factor, 32 * (1 - factor) + y]])
        moved = augmentation.move(batch, jitter, moves([1, 0, 0, 0], [factor, 0, x, y])[None])
        size, border = (64, 128), cv2.BORDER_REPLICATE
        expected = cv2.warpAffine(image[0].permute(1, 2, 0).numpy(), matrix, size, flags=1, borderMode=border)
        difference = (moved.target[0].permute(1, 2, 0) - torch.from_numpy(expected)).abs()
        assert difference.max() < 0.04  # OpenCV rounds positions to 1/32 pixel
        found = cv2.warpAffine(labels[0].numpy(), matrix, size, flags=0, borderMode=border)
        assert (moved.target_labels[0].numpy() == found).mean() > 0.99
        at = joints[0].numpy() @ matrix[:, :2].T + matrix[:, 2]
        inside = (at >= -0.5).all(1) & (at[:, 0] <= 63.5) & (at[:, 1] <= 127.5)
        assert moved.target_valid[0].tolist() == inside.tolist()
        np.testing.assert_allclose(moved.target_joints[0][inside], at[inside], atol=1e-4)


def test_gflas_images_are_pillows_transform_of_them():
    """torchvision's affine map as GFLA's code calls it: nearest pixel, mid-grey outside; joints may lie outside."""
    (jitter,) = {variant.phase.augment["market1501"] for variant in gfla.VARIANTS}
    pixels = torch.randint(0, 256, (128, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    image = (pixels.permute(2, 0, 1)[None].float() - 127.5) / 127.5
    joints = torch.full((1, 18, 2), 3.0)
    batch = batch_of(image, joints, torch.ones(1, 18, dtype=torch.bool))
    for factor, angle, x, y in ((1.0, 5.0, 0.0, 0.0), (0.95, -4.0, 4.3, -2.6), (1.05, 2.0, -5.0, 5.0)):
        radians = np.deg2rad(angle)
        cos, sin = np.cos(radians) / factor, np.sin(radians) / factor
        centre_x, centre_y = 64 * 0.5 + 0.5, 128 * 0.5 + 0.5
        offset_x = -cos * (centre_x + x) - sin * (centre_y + y) + centre_x
        offset_y = sin * (centre_x + x) - cos * (centre_y + y) + centre_y
        inverse = (cos, sin, offset_x, -sin, cos, offset_y)
        grey = Image.fromarray(pixels.numpy()).transform((64, 128), Image.AFFINE, inverse, fillcolor=(128, 128, 128))
        moved = augmentation.move(batch, jitter, moves([factor, radians, x, y], [1, 0, 0, 0])[None])
        difference = (moved.source[0] * 127.5 + 127.5 - torch.from_numpy(np.array(grey)).permute(2, 0, 1)).abs()
        assert (difference.amax(0) <= 0.51).float().mean() > 0.99  # a position between two pixels may go either way
    assert moved.source_valid.all()
    assert (moved.source_joints < 0).any()  # still drawn, as far as its heatmap reaches into the image


def test_whole_pixel_shifts_move_pixels_labels_and_joints_alike():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, HEIGHT, WIDTH, generator=generator)
    labels = torch.randint(0, 20, (2, HEIGHT, WIDTH), dtype=torch.uint8, generator=generator)
    joints = torch.tensor([[[10.0, 20.0], [1.0, 5.0], [30.0, 62.0]]]).expand(2, -1, -1)
    valid = torch.tensor([[True, True, False]]).expand(2, -1)
    batch = batch_of(images, joints, valid, labels)
    rows = torch.stack([moves([1, 0, 0, 0], [1, 0, 3, -4]), moves([1, 0, -5, 0], [1, 0, 0, 2])])
    moved = augmentation.move(batch, FREE, rows)
    torch.testing.assert_close(moved.source[0], images[0], rtol=0, atol=1e-4)
    # target of pair 0: 3 to the right, 4 up; the border is repeated
    rows, columns = (torch.arange(HEIGHT) + 4).clamp(max=HEIGHT - 1), (torch.arange(WIDTH) - 3).clamp(min=0)
    torch.testing.assert_close(moved.target[0], images[0][:, rows][..., columns], rtol=0, atol=1e-4)
    assert torch.equal(moved.target_labels[0], labels[0][rows][:, columns])
    assert torch.equal(moved.target_joints[0], torch.tensor([[13.0, 16.0], [4.0, 1.0], [0.0, 0.0]]))
    assert moved.target_valid[0].tolist() == [True, True, False]
    # source of pair 1: 5 to the left, which takes the second joint out of the image
    torch.testing.assert_close(moved.source[1][..., :-5], images[1][..., 5:], rtol=0, atol=1e-4)
    assert moved.source_valid[1].tolist() == [True, False, False]
    assert torch.equal(moved.source_joints[1], torch.tensor([[5.0, 20.0], [0.0, 0.0], [0.0, 0.0]]))
    assert moved.source_labels.dtype == torch.uint8
    assert torch.equal(batch.source, images)  # the batch given is left as it was


@pytest.mark.parametrize(("factor", "angle"), [(1 / 1.2, 0.0), (0.93, 0.3), (1.1, -0.2), (1.2, 0.0)])
def test_joints_land_where_the_drawn_pixels_land(factor, angle):
    """A Gaussian spot at each joint: after any move its centre of mass is the moved joint."""
    joints = torch.tensor([[[13.0, 22.0], [17.5, 30.25], [15.0, 42.0]]])
    x, y = torch.arange(WIDTH), torch.arange(HEIGHT).unsqueeze(-1)
    spots = torch.exp(-((x - joints[..., :1, None]) ** 2 + (y - joints[..., 1:, None]) ** 2) / (2 * 2.5**2))
    batch = batch_of(spots, joints, torch.ones(1, 3, dtype=torch.bool))
    jitter = Jitter(Move(), Move(centre=(0.6, 0.4), repeat_border=False))
    moved = augmentation.move(batch, jitter, moves([factor, angle, 1.3, -3.7], [factor, angle, -1.4, 5.2])[None])
    for side in ("source", "target"):
        found, mass = getattr(moved, side)[0], getattr(moved, side)[0].sum((1, 2))
        centres = torch.stack([(found * x).sum((1, 2)) / mass, (found * y).sum((1, 2)) / mass], dim=-1)
        torch.testing.assert_close(centres, getattr(moved, f"{side}_joints")[0], rtol=0, atol=0.02)
        assert getattr(moved, f"{side}_valid").all()
        # a spot grows with the image: its mass by the square of the factor
        torch.testing.assert_close(mass, spots[0].sum((1, 2)) * factor**2, rtol=0.01, atol=0)


def test_labels_take_the_nearest_pixel_of_the_images_own_map():
    """A picture of its own labels: after any move, each pixel's label is the one whose colour it holds."""
    labels = torch.randint(0, 20, (1, HEIGHT // 8, WIDTH // 8), generator=torch.Generator().manual_seed(1))
    labels = labels.repeat_interleave(8, 1).repeat_interleave(8, 2).to(torch.uint8)
    batch = batch_of(labels.unsqueeze(1).float(), torch.zeros(1, 18, 2), torch.zeros(1, 18, dtype=torch.bool), labels)
    moved = augmentation.move(batch, FREE, moves([1.15, 0.1, 4.6, -2.2], [0.87, 0, -7.3, 9.9])[None])
    for side in ("source", "target"):
        pixels, found = getattr(moved, side)[:, 0], getattr(moved, f"{side}_labels")
        inside = (pixels - pixels.round()).abs() < 1e-4  # not between two blocks
        assert inside.float().mean() > 0.6
        assert torch.equal(pixels[inside].round().to(torch.uint8), found[inside])


def test_a_target_without_picture_is_moved_as_far_as_it_is_there():
    batch = batch_of(torch.rand(1, 3, HEIGHT, WIDTH), torch.full((1, 18, 2), 12.0), torch.ones(1, 18, dtype=torch.bool))
    batch.target = None
    moved = augmentation.move(batch, FREE, moves([1, 0, 0, 0], [1, 0, 2, 1])[None])
    assert moved.target is None
    assert moved.target_labels is None
    assert moved.target_joints[0, 0].tolist() == [14.0, 13.0]
