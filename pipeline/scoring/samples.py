"""The pictures that are kept of a scored method: its first pairs, and those that it fails on most."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from pipeline.anatomy import pose
from pipeline.core import layout, store
from pipeline.formats import pictures
from pipeline.loading.arrays import PairData
from pipeline.metrics.pckh import pckh
from pipeline.scoring import failures
from pipeline.scoring.pairs import joints_of


def choose(data: PairData, values: Mapping[str, np.ndarray], first: int) -> dict[int, list[str]]:
    """The pairs to keep pictures of: position -> why, ascending. The `first` ones, and the worst by each criterion.

    values: as `judge.score_images` returns them.
    """
    joints = joints_of(data, data.pairs[:, 1])
    why: dict[int, list[str]] = {position: [failures.SAMPLE] for position in range(min(first, len(data)))}
    for metric, positions in failures.worst(values, hopeless=pckh(joints, joints).degenerate).items():
        for position in positions:
            why.setdefault(position, []).append(metric)
    return dict(sorted(why.items()))


def rows(
    dataset: str, data: PairData, why: Mapping[int, Sequence[str]], generated: Iterable[np.ndarray], step: int
) -> list[dict]:
    """Rows of `schema.SAMPLES`: source and target as stored, the generated image (H, W, 3) uint8 RGB as PNG.

    why: by position of the pair, as `choose` gives it; `generated`, in its order.
    """
    stored = store.RandomReader(layout.images(dataset), ["image"])
    found = []
    for (position, reasons), image in zip(why.items(), generated, strict=True):
        source, target = (data.ids[row] for row in data.pairs[position].tolist())
        joints, valid = joints_of(data, data.pairs[[position], 1])
        found.append(
            {
                "step": step,
                "pair_index": int(data.pair_index[position]),
                "source_id": source,
                "target_id": target,
                "why": list(reasons),
                "source": stored[source]["image"],
                "target": stored[target]["image"],
                "generated": {"bytes": pictures.encode_png(image), "path": None},
                "target_keypoints": pose.from_array(joints[0], valid[0]),
            }
        )
    return found
