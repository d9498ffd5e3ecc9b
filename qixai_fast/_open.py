"""Inputs of functions that run on the CPU or on a GPU."""

from __future__ import annotations

from typing import Any

from ._validate import Matrix, as_matrix


def opened(X: Any, name: str, backends: list[Any] | None, *, min_samples: int = 1) -> Matrix:
    """A checked input; one that a GPU reads where :func:`~qixai_fast._device.backends_for` gave any.

    Raises
    ------
    TypeError, ValueError
        As :func:`qixai_fast._validate.as_matrix`.
    """
    if backends is None:
        return as_matrix(X, name, min_samples=min_samples)
    from ._gpu.moments import DeviceMatrix

    return DeviceMatrix.of(X, name, backends[0], min_samples=min_samples)
