"""What stands in for an array whose values come in parts, when they are asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np


class LazyRows:
    """A matrix that is not in memory; slices of it are NumPy arrays.

    It has no ``__array__`` and no length on purpose: nothing may turn the whole of it into an array unawares.

    Parameters
    ----------
    shape : (n, d)
    dtype : dtype
    f_contiguous : bool
        Whether columns, rather than rows, are what is quickly read.
    """

    ndim = 2

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any], *, f_contiguous: bool) -> None:
        self.shape, self.dtype = shape, dtype
        self.itemsize = dtype.itemsize
        self.nbytes = dtype.itemsize * shape[0] * shape[1]
        self.flags = SimpleNamespace(f_contiguous=f_contiguous, c_contiguous=False, writeable=False)

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError

    @property
    def mapped(self) -> np.ndarray[Any, Any] | None:
        """The mapped file behind it, where there is one already."""
        return None
