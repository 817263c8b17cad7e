"""How a job can fail, each in one sentence with the next action."""

import errno

from engine.errors import EngineError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def sentence(error: BaseException) -> str:
    """Say what went wrong and what to do.

    Args:
        error: What ended the verb.

    Returns:
        One sentence.
    """
    text = " ".join(str(error).split())
    if isinstance(error, EngineError):
        return text
    if is_out_of_memory(error):
        return (
            "out of memory; duplicate it with a smaller batch, or with --accumulate 2, 4, ..: the "
            "same batch in so many pieces"
        )
    if isinstance(error, OSError) and error.errno in FULL:
        where = f" at {error.filename}" if error.filename else ""
        return f"the disk is full{where}; free some space and resume it"
    if isinstance(error, OSError) and error.filename:
        return f"cannot read or write {error.filename}: {error.strerror}; mend that and resume it"
    if isinstance(error, SystemExit):
        return "its words cannot be read; the log says which, duplicate it with others"
    return f"a bug: {type(error).__name__}: {text[:300]}; the log says where, please report it"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, on a GPU or on the machine.

    Args:
        error: What ended the verb.

    Returns:
        True for the errors of torch and of Python that say so.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(hint in str(error) for hint in NO_MEMORY)
