"""The package's own exceptions. Everything else is the built-in that fits (ValueError, TypeError)."""

from __future__ import annotations


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

    def __reduce__(self) -> tuple[type[MemoryBudgetError], tuple[str, int]]:
        return MemoryBudgetError, (str(self), self.required)


class ClusterError(RuntimeError):
    """A Dask cluster cannot go on: its scheduler or its workers are gone.

    What an audit finished is kept; the same audit goes on from there, on a cluster or without one.
    """
