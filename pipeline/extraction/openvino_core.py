"""The one openvino core of a process."""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openvino


@cache
def core() -> "openvino.Core":
    """Made once and never dropped.

    Where the processor has AMX, each core's first compilation gives its thread a signal stack of its own, and puts the
    one before it back when the core goes. Two cores that go in the order they came leave a stack behind that is no
    longer memory, and the next signal (Ctrl-C, a child's end) is a segmentation fault.
    """
    import openvino

    return openvino.Core()
