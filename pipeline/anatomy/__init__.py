"""The 18 joints, the twelve limbs and the label sets of human parsing.

Layer 1; may import: core.
"""
