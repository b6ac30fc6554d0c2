"""The 18 joints, the twelve limbs, the label sets of human parsing, and how they are drawn.

Layer 1; may import: core.
"""
