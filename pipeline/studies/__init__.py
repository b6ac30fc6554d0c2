"""User studies: what a rater is shown, the form that shows it, and what the answers say.

Layer 6; may import: core, metrics.
"""
