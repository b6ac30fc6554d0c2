"""One module a stage, named as the stage: what it reads and writes, its settings, and a thin `run`.

Layer 9; may import: every room below.
"""
