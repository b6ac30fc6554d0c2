"""Which pairs are kept as a method's failures."""

import numpy as np

from pipeline.scoring import failures


def test_the_worst_by_each_criterion_first():
    values = {
        "lpips-alex-v0.1": np.array([0.1, 0.5, np.nan, 0.4, 0.5]),
        "identity-target": np.array([0.9, 0.2, 0.3, 0.1, np.nan]),
        "ssim": np.array([0.1, 0.2, 0.3, 0.4, 0.5]),
        "pckh@0.5:influence": np.zeros(5),
    }
    assert failures.worst(values, count=2) == {"lpips-alex-v0.1": [1, 4], "identity-target": [3, 1]}
    assert failures.worst(values, count=9)["lpips-alex-v0.1"] == [1, 4, 3, 0]  # none without a value


def test_equal_shares_of_joints_are_told_by_their_distance():
    values = {
        "pckh@0.5": np.array([0.0, 0.5, 0.0, 0.0, 0.0]),
        "pose-error-px": np.array([9.0, 99.0, 12.0, np.nan, 9.0]),  # nothing found is worse than any distance
    }
    assert failures.worst(values, count=4) == {"pckh@0.5": [3, 2, 0, 4]}
    hopeless = [False, False, False, True, False]
    assert failures.worst(values, count=4, hopeless=hopeless) == {"pckh@0.5": [2, 0, 4, 1]}
