"""The training loop, what it is fed, and the state from which a stopped run goes on.

Layer 5; may import: core, anatomy, drawing, formats, loading, models.
"""
