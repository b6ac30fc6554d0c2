"""Inception score (Salimans et al. 2016) as the field's script computes it: ten splits, TensorFlow's Inception."""

from itertools import pairwise

import numpy as np

SPLITS = 10


def log_probabilities(features: np.ndarray, classifier: np.ndarray) -> np.ndarray:
    """(N, 2048), (1008, 2048) -> (N, 1008) float64 logarithms. As in the script, without the bias and with all 1008
    outputs.
    """
    import torch

    logits = torch.from_numpy(np.asarray(features, dtype=np.float64) @ np.asarray(classifier, dtype=np.float64).T)
    return torch.log_softmax(logits, dim=1).numpy()


def inception_score(features: np.ndarray, classifier: np.ndarray) -> tuple[float, np.ndarray]:
    """exp of the mean over images of KL(p(y|x) || p(y)), p(y) the mean over the split; then the mean over ten splits.

    features: (N, 2048) in the order of the pair list; a split is a tenth of the list. Returns the value and (N,) the
    first-order influence of each image (mean 0); NaN and zeros for fewer than ten images.
    """
    count = len(features)
    influence = np.zeros(count)
    if count < SPLITS:
        return float("nan"), influence
    edges = [part * count // SPLITS for part in range(SPLITS + 1)]
    scores = []
    for start, stop in pairwise(edges):
        logs = log_probabilities(features[start:stop], classifier)
        probabilities = np.exp(logs)
        # The mean's own change cancels to first order: KL(p || mean) is least at the mean.
        divergence = (probabilities * (logs - np.log(probabilities.mean(axis=0)))).sum(axis=1)
        scores.append(np.exp(divergence.mean()))
        share = count / (SPLITS * (stop - start))
        influence[start:stop] = share * scores[-1] * (divergence - divergence.mean())
    return float(np.mean(scores)), influence
