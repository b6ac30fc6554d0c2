"""Gather and verify the published weights of one network: data/weights/NET/.

Each file is looked for in this order: `path` in the block weights.NET of params.yaml (your own copy), the folder
$REPOSE_MIRROR, its address (with resume, .work/downloads/). Addresses and digests stand in
pipeline/fetching/networks.py; the digest decides.

Weights that cannot be had stop a run here, before anything long, if a job of params.yaml needs them and has nothing in
their place (`missing_weights` in its block: stop, or seeded random features that mark every number made with them).
Else source.json says "missing" and why. To add them later: set `path` and run this stage again. A file with a wrong
digest is never used.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from pipeline.core import console, layout, params
from pipeline.core.atomic import atomic_directory
from pipeline.core.errors import UserError
from pipeline.core.settings import setting
from pipeline.fetching import download
from pipeline.fetching.networks import EITHER, wanted
from pipeline.planning import faults

OF_DATA = {"openpose": "keypoints", "topdown": "keypoints", "schp": "parsing"}  # which data stage reads it
