"""The package's own exceptions. Everything else is the built-in that fits (ValueError, TypeError)."""


class StoreError(Exception):
    """An activation store is damaged, incomplete, foreign or from another version.

    The message names the file, the chunk where there is one, and the mend.
    """


class MemoryBudgetError(MemoryError):
    """The work cannot be done within ``max_memory``; raised before anything is allocated.

    Attributes
    ----------
    required : int
        The smallest budget, in bytes, that would do.
    """

    def __init__(self, message: str, required: int) -> None:
        super().__init__(message)
        self.required = required
