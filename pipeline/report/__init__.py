"""The report's page by its parts, a module each: from the run's files to what the template shows.

Layer 8; may import: core, anatomy, drawing, formats, datasets, scoring, tables.
"""
