"""The benchmark of SPGNet's first stage, on label maps whose scores can be worked out by hand."""

import numpy as np
import pytest
import torch

from benchmarks.target_parsing import count, line
from pipeline.loading import arrays
from tests import tiny_dataset


def test_every_pair_counts_once_against_its_own_target(tmp_path, monkeypatch):
    tiny_dataset.write(tmp_path, parsing_source="oracle")
    monkeypatch.chdir(tmp_path)
    data = arrays.load_pairs("synthetic", "train", torch.device("cpu"), label_set="lip-20")

    def truth(rows: torch.Tensor) -> torch.Tensor:
        return data.parsing(rows)

    seen = []

    def foresee(batch):
        assert batch.target is None
        assert batch.target_labels is None
        seen.append(len(batch.source))
        return batch.source_labels

    counts = count(foresee, data)
    assert sum(seen) == len(data) == 14
    expected = np.zeros((20, 20), int)
    for source, target in data.pairs.tolist():
        maps = truth(torch.tensor([target])).flatten().tolist(), truth(torch.tensor([source])).flatten().tolist()
        for row, column in zip(*maps, strict=True):
            expected[row, column] += 1
    np.testing.assert_array_equal(counts, expected)


def test_the_line_is_the_closed_form():
    """Label 0: 6 right of 8 true, 7 found: 6/9. Label 3: 1 right of 3 true, 2 found: 1/4. Label 5: not in the truth."""
    counts = np.zeros((20, 20), int)
    counts[0, [0, 3, 5]] = 6, 1, 1
    counts[3, [0, 3, 5]] = 1, 1, 1
    whole = (6 / 9 + 1 / 4) / 2
    assert line("it", counts) == f"| it | {whole:.3f} | 0.250 | {7 / 11:.3f} |"
    assert whole == pytest.approx(0.458, abs=1e-3)
