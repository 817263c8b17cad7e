"""The errors a user can meet; each message says what is wrong and what to do next."""


class EngineError(Exception):
    """Anything a user can mend; its message is one clear sentence with the next action."""


class UsageError(EngineError):
    """A choice that cannot be carried out: an unknown name, an empty or contradictory selection."""


class MissingDataError(EngineError):
    """Data, a checkpoint or a result is not on disk; the message names the command for it."""


class CheckpointError(EngineError):
    """A file is damaged, or was made for another format or encoder."""


class ParameterMismatchError(EngineError):
    """Parameter names or shapes differ: counts and the first three names."""


class NonFiniteError(EngineError):
    """A tensor holds NaN or infinity: which tensor, how many values."""


class LostProcessError(EngineError):
    """One of several processes of a run ended before the others; the run can go on."""
