"""Files that the field exchanges: archives, annotation lists, OpenPose JSON, label maps, pictures.

Layer 2; may import: core, anatomy.
"""
