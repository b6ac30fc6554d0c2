import numpy as np
import pytest
import torch

from models.layers.blocks import Batch
from models.layers.schedule import Jitter
from pipeline.training import augmentation

HEIGHT, WIDTH = 64, 32


def batch_of(images, joints, valid, labels=None):
    """Source and target alike, so that only their moves tell them apart."""
    return Batch(
        images, images.clone(), joints, valid, joints, valid, labels, None if labels is None else labels.clone()
    )


def moves(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def test_draws_lie_within_the_jitter_and_depend_on_seed_and_step_alone():
    drawn = augmentation.draws(Jitter(1.2, 10.0), 4000, 0, 7)
    assert drawn.shape == (4000, 2, 3)
    factor, shift = drawn[..., 0], drawn[..., 1:]
    assert 1 / 1.2 - 1e-6 <= factor.min() < 0.84 < 1.19 < factor.max() <= 1.2 + 1e-6
    assert factor.log().mean().abs() < 0.005  # as often larger as smaller
    assert -10 <= shift.min() < -9.9 < 9.9 < shift.max() <= 10
    assert np.corrcoef(drawn.flatten(1).T.numpy())[np.triu_indices(6, 1)] == pytest.approx(np.zeros(15), abs=0.06)
    assert torch.equal(drawn, augmentation.draws(Jitter(1.2, 10.0), 4000, 0, 7))
    assert not torch.equal(drawn, augmentation.draws(Jitter(1.2, 10.0), 4000, 0, 8))
    assert not torch.equal(drawn, augmentation.draws(Jitter(1.2, 10.0), 4000, 1, 7))


def test_whole_pixel_shifts_move_pixels_labels_and_joints_alike():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, HEIGHT, WIDTH, generator=generator)
    labels = torch.randint(0, 20, (2, HEIGHT, WIDTH), dtype=torch.uint8, generator=generator)
    joints = torch.tensor([[[10.0, 20.0], [1.0, 5.0], [30.0, 62.0]]]).expand(2, -1, -1)
    valid = torch.tensor([[True, True, False]]).expand(2, -1)
    batch = batch_of(images, joints, valid, labels)
    moved = augmentation.move(batch, moves([[1, 0, 0], [1, 3, -4]], [[1, -5, 0], [1, 0, 2]]))
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


@pytest.mark.parametrize("factor", [1 / 1.2, 0.93, 1.1, 1.2])
def test_joints_land_where_the_drawn_pixels_land(factor):
    """A Gaussian spot at each joint: after any move its centre of mass is the moved joint."""
    joints = torch.tensor([[[13.0, 22.0], [17.5, 30.25], [15.0, 42.0]]])
    x, y = torch.arange(WIDTH), torch.arange(HEIGHT).unsqueeze(-1)
    spots = torch.exp(-((x - joints[..., :1, None]) ** 2 + (y - joints[..., 1:, None]) ** 2) / (2 * 2.5**2))
    batch = batch_of(spots, joints, torch.ones(1, 3, dtype=torch.bool))
    moved = augmentation.move(batch, moves([[factor, 1.3, -3.7], [factor, -1.4, 5.2]]))
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
    moved = augmentation.move(batch, moves([[1.15, 4.6, -2.2], [0.87, -7.3, 9.9]]))
    for side in ("source", "target"):
        pixels, found = getattr(moved, side)[:, 0], getattr(moved, f"{side}_labels")
        inside = (pixels - pixels.round()).abs() < 1e-4  # not between two blocks
        assert inside.float().mean() > 0.6
        assert torch.equal(pixels[inside].round().to(torch.uint8), found[inside])


def test_a_target_without_picture_is_moved_as_far_as_it_is_there():
    batch = batch_of(torch.rand(1, 3, HEIGHT, WIDTH), torch.full((1, 18, 2), 12.0), torch.ones(1, 18, dtype=torch.bool))
    batch.target = None
    moved = augmentation.move(batch, moves([[1, 0, 0], [1, 2, 1]]))
    assert moved.target is None
    assert moved.target_labels is None
    assert moved.target_joints[0, 0].tolist() == [14.0, 13.0]
