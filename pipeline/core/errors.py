"""The one exception that a user's input may cause, and what only says that the machine had no more to give."""

import errno

_SHORT = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN)
_WORDS = (  # of torch, Arrow, OpenCV, the C++ library, threads and the loader of programs
    *("allocate memory", "out of memory", "Insufficient memory", "malloc of size", "bad_alloc"),
    *("start new thread", "launch worker thread", "failed to map segment"),
    "pyarrow.dataset module is not available",  # it is installed, and could not be loaded
)


class UserError(Exception):
    """Something the user can put right: one line saying what is wrong, where, and what to do (exit status 2).

    Of several such things, an argument each.
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


def is_shortage(error: BaseException) -> bool:
    """Whether memory, file handles or threads ran out. Whatever was read then may be whole."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _SHORT
    return isinstance(error, MemoryError) or any(words in str(error) for words in _WORDS)
