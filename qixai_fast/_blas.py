"""The one product that NumPy has no name for: X^T X added to what is there, half of it computed.

``X.T @ X`` in NumPy computes half, too, but then copies it to the other half, every time; and SciPy's
own wrapper holds the interpreter's lock. So BLAS is called by the address that SciPy publishes for Cython.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import scipy.linalg.blas

from ._validate import Array

_C_TYPES = {"s": ctypes.c_float, "d": ctypes.c_double}


def _published(letter: str) -> Callable[..., None] | None:
    """``ssyrk`` or ``dsyrk`` by its address; None where its integers are not C's ``int``."""
    from scipy.linalg import cython_blas

    published: Any = cython_blas
    capsule = published.__pyx_capi__[f"{letter}syrk"]
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype = ctypes.c_char_p
    api.PyCapsule_GetName.argtypes = [ctypes.py_object]
    name = api.PyCapsule_GetName(capsule)
    if name.count(b", int *") != 4:
        return None
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    address = api.PyCapsule_GetPointer(capsule, name)
    integer, real = ctypes.POINTER(ctypes.c_int), ctypes.POINTER(_C_TYPES[letter])
    text, data = ctypes.c_char_p, ctypes.c_void_p
    call = ctypes.CFUNCTYPE(None, text, text, integer, integer, real, data, integer, real, data, integer)
    syrk: Callable[..., None] = call(address)
    return syrk


@cache
def _syrk(letter: str) -> Callable[[Array, Array, float], None]:
    """The update ``products = beta * products + rows.T @ rows`` of an upper triangle, in one precision."""
    published = _published(letter)
    real = _C_TYPES[letter]
    wrapper = getattr(scipy.linalg.blas, f"{letter}syrk")

    def by_address(rows: Array, products: Array, beta: float) -> None:
        assert published is not None
        depth, width = (ctypes.c_int(length) for length in rows.shape)
        one, scale = real(1.0), real(beta)
        # What C calls the upper triangle is the lower one to Fortran, which reads columns first.
        published(b"L", b"N", width, depth, one, rows.ctypes.data, width, scale, products.ctypes.data, width)

    def by_wrapper(rows: Array, products: Array, beta: float) -> None:
        wrapper(1.0, rows.T, beta=beta, c=products.T, overwrite_c=1, lower=1)

    return by_wrapper if published is None else by_address


def add_products(rows: Array, products: Array, *, keep: bool) -> None:
    """Compute the upper triangle of ``rows.T @ rows``, added to ``products`` where ``keep``.

    Parameters
    ----------
    rows : ndarray of shape (n, d), float32 or float64, C order
    products : ndarray of shape (d, d), the same dtype, C order
        What is below the diagonal is left as it is.
    keep : bool
        False to overwrite.
    """
    for array in (rows, products):
        if not array.flags.c_contiguous or array.dtype != rows.dtype:
            raise ValueError("add_products: wanted arrays of one dtype in C order")
    if products.shape != (rows.shape[1], rows.shape[1]):
        raise ValueError(f"add_products: wanted shape {(rows.shape[1],) * 2}, got {products.shape}")
    letter = {np.dtype(np.float32): "s", np.dtype(np.float64): "d"}[rows.dtype]
    _syrk(letter)(rows, products, 1.0 if keep else 0.0)


def mirror_upper(products: Array) -> None:
    """Copy the upper triangle of a square matrix to the lower one, in place."""
    step = 256
    for first in range(0, len(products), step):
        rows = slice(first, first + step)
        square: Any = products[rows, rows]
        square[...] = np.triu(square) + np.triu(square, 1).T
        for second in range(first + step, len(products), step):
            columns = slice(second, second + step)
            products[columns, rows] = products[rows, columns].T
