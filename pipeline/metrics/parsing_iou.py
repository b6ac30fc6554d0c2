"""Mean intersection over union of a parsing with the target's: of the generated image's, or of a predicted one."""

import numpy as np

LABELS = 20


def label_counts(parsed: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Maps of 20 labels (N, H, W) uint8 twice -> (N, 3 * 20) float32: each label's number of pixels in both, in
    `parsed` and in `target`.
    """
    rows = [
        np.concatenate([np.bincount(m.reshape(-1), minlength=LABELS) for m in (mine[mine == theirs], mine, theirs)])
        for mine, theirs in zip(parsed, target, strict=True)
    ]
    return np.array(rows, dtype=np.float32).reshape(len(rows), 3 * LABELS)  # exact: below 2^24 pixels


def mean_iou(counts: np.ndarray, background: bool) -> tuple[float, np.ndarray]:
    """(N, 60) of `label_counts` -> the mean over the labels that the targets show of (sum of intersections) / (sum of
    unions), sums over all pairs, with or without label 0; and (N,) each pair's first-order influence (mean 0).

    NaN and zeros if no target shows a label.
    """
    both, parsed, target = np.asarray(counts[:], dtype=np.float64).reshape(-1, 3, LABELS).transpose(1, 0, 2)
    shown = target.sum(axis=0) > 0
    shown[0] &= background
    if not shown.any():
        return float("nan"), np.zeros(len(target))
    union = (parsed + target - both)[:, shown]
    ratio = both[:, shown].sum(axis=0) / union.sum(axis=0)
    influence = ((both[:, shown] - ratio * union) / union.mean(axis=0)).mean(axis=1)
    return float(ratio.mean()), influence - influence.mean()
