"""Records: one method's result on one data set as one file, packed, read with care, merged and scored again.

Layer 9; may import: core, datasets, planning, metrics, loading, scoring, tables, report.
"""
