"""Methods of other programs: pinned, each run in an environment of its own, and checked. Images are all that they give.

Layer 4; may import: core, datasets, fetching, formats.
"""
