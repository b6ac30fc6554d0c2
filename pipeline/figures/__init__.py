"""The papers' kinds of figures, one module a kind; `subject` opens what they are made of, `figure` is the command.

Layer 5; may import: core, anatomy, drawing, formats, loading, models.
"""
