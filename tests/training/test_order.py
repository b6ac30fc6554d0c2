import pytest
import torch

from pipeline.training.order import BatchOrder


@pytest.mark.parametrize(("pairs", "batch"), [(10, 3), (7, 7), (3, 8)])
def test_every_epoch_covers_every_pair_once(pairs, batch):
    order = BatchOrder(pairs, batch, seed=5)
    seen = torch.cat([order.rows(step) for step in range(1, 4 * pairs + 1)])
    for epoch in seen[: 4 * pairs].split(pairs):
        assert sorted(epoch.tolist()) == list(range(pairs))


def test_order_is_a_function_of_seed_and_step():
    one, other = BatchOrder(1000, 16, 0), BatchOrder(1000, 16, 0)
    forward = [one.rows(step) for step in range(1, 200)]
    backward = [other.rows(step) for step in range(199, 0, -1)][::-1]
    assert all(torch.equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert not torch.equal(one.rows(1), BatchOrder(1000, 16, 1).rows(1))
    epochs = torch.cat(forward)[:2000].split(1000)
    assert not torch.equal(*epochs)
    # seed 0's second epoch must not be seed 1's first: a sum of seed and epoch would make it so
    assert not torch.equal(epochs[1][:16], BatchOrder(1000, 16, 1).rows(1))
