"""Downloads: resumed where they stopped, and checked against a digest.

Layer 2; may import: core.
"""
