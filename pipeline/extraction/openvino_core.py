"""The one openvino core of a process."""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openvino


# What openvino raises for a model that it does not take: its words may quote bytes that are no text.
REFUSED = (RuntimeError, UnicodeDecodeError)


@cache
def core() -> "openvino.Core":
    """Made once and never dropped.

    Where the processor has AMX, each core's first compilation gives its thread a signal stack of its own, and puts the
    one before it back when the core goes. Two cores that go in the order they came leave a stack behind that is no
    longer memory, and the next signal (Ctrl-C, a child's end) is a segmentation fault.

    And called before there are threads: when a tensor first meets numpy, openvino makes its table of number types,
    running Python while it holds a lock, and two threads that come there at once wait for each other for good.
    """
    import numpy as np
    import openvino

    openvino.Tensor(np.zeros(1, np.float32)).data  # noqa: B018 (makes the table)
    return openvino.Core()
