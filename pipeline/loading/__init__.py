"""Prepared data, published weights and checkpoints, read onto a device.

Layer 3; may import: core, anatomy, formats, models.
"""
