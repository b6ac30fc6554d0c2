"""SPT's search for the image whose parsing stands in for that of a target which it never sees.

Layer 3; may import: core, anatomy.
"""
