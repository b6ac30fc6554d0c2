"""What every room stands on: paths, settings, parquet columns and files, atomic writes, messages, the graph.

Layer 0; may import: nothing of the project.
"""
