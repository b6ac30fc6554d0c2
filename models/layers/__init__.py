"""Layers, losses and maps that several families share."""
