"""Prepared data, weights and checkpoints, read onto a device."""
