"""A few of DeepFashion's photographs: everything as in `deepfashion`, which says what becomes of a partial set.

A data set of its own, so that its numbers never stand under the name of the whole one.
"""

from dataclasses import replace

from pipeline.datasets import deepfashion
from pipeline.datasets.deepfashion import JUNK, Fetch, cannot_get, fetch, person_id

__all__ = ["ABOUT", "JUNK", "Fetch", "cannot_get", "fetch", "person_id"]

ABOUT = replace(
    deepfashion.ABOUT,
    description="A few of DeepFashion's test photographs, some of which stand in for the training split.",
    gaps=(*deepfashion.ABOUT.gaps, "Scores on it compare with nothing published."),
)
