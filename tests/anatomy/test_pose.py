"""The skeleton is said once in each tree: pipeline/ and models/ cannot import each other."""

from models.layers import pose_maps
from pipeline.anatomy import pose
from pipeline.core import schema


def test_both_trees_have_one_skeleton():
    assert len(pose.JOINT_NAMES) == len(pose.FLIP) == schema.JOINTS == pose_maps.JOINTS == 18
    assert len(pose.LIMBS) == schema.LIMBS == 12
    assert pose.LIMBS == pose_maps.LIMBS
