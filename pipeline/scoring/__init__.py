"""How generated images are judged: what all scores of a data set share, the judge, costs, failures.

Layer 6; may import: core, anatomy, formats, loading, extraction, metrics, figures, models.
"""
