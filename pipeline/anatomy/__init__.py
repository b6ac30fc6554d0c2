"""Joints, limbs, label sets, and how they are drawn."""
