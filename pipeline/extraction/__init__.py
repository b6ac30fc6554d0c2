"""Networks that find joints and human parsing in images.

Layer 4; may import: core, anatomy, formats, datasets, models.
"""
