"""Networks, losses and schedules: a file or folder for each published system, and the one list of what can be trained.

Layer 0; may import: nothing of the project. They know no files and no params.yaml; a family imports `layers`, the
joint detector and the family of a component that it starts from, no other.
"""
