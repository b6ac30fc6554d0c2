"""The papers' tables: published numbers and ours, cell by cell.

Layer 7; may import: core, datasets, metrics.
"""
