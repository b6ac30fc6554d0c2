"""What a run takes and what would stop it, known from params.yaml before anything runs. Without torch.

Layer 6; may import: core, datasets, fetching, methods, metrics.
"""
