"""Weighted sums over the steps of recorded gradients, in memory or on disk."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ._device import Home, home_of, is_torch, resolve_device, to_numpy
from ._memory import parse_memory, release_pages, workers_within
from ._threads import ordered_map, resolve_n_jobs
from ._validate import Array, Float64, as_vector, check_real

# Elements that a thread sums at a time, and steps that it reads of them before their pages go again: float32
# comes in stretches of 512 kB, and the 1 MB of float64 sums is passed over once for all of these steps.
_BLOCK = 1 << 17
_STEPS = 8


def _segment(array: Array, start: int, stop: int) -> Array:
    """Elements ``start:stop`` in C order: a view where the array is contiguous, else a copy of just these."""
    if array.flags.c_contiguous:
        view: Array = array.reshape(-1)[start:stop]
        return view
    return np.asarray(array.flat[start:stop])


def _operand(value: Any, name: str, shape: tuple[int, ...]) -> Array | float:
    """``inputs`` or ``baselines`` as an array of the gradients' shape, or a number."""
    array = to_numpy(value, name)
    check_real(array, name)
    if array.ndim == 0:
        if not np.isfinite(array):
            raise ValueError(f"{name}: wanted a finite number, got {array}")
        return float(array)
    if array.shape != shape and array.shape != (1, *shape[1:]):
        raise ValueError(
            f"{name}: wanted a number, shape {shape} as one step of gradients, or {(1, *shape[1:])}, "
            f"got {array.shape}"
        )
    # A broadcast view is read-only, and release_pages would drop a copy-on-write mapping's changes.
    return array if array.shape == shape else np.broadcast_to(array, shape)


def _operand_segment(operand: Array | float, name: str, start: int, stop: int) -> Float64 | float:
    if isinstance(operand, float):
        return operand
    view = _segment(operand, start, stop)
    values = view.astype(np.float64)
    release_pages(view)
    if not np.isfinite(values).all():
        _locate(operand, name, start, "")
    return values


def _locate(array: Array, name: str, start: int, where: str) -> None:
    """Raise the error that names the first bad element at or after ``start``, if there is one."""
    for first in range(start, array.size, _BLOCK):
        bad = np.flatnonzero(~np.isfinite(_segment(array, first, min(first + _BLOCK, array.size))))
        if len(bad):
            row, *column = (int(i) for i in np.unravel_index(first + bad[0], array.shape))
            place = f"row {row}" + (f", column {', '.join(map(str, column))}" if column else "")
            raise ValueError(
                f"{name}: {array[(row, *column)]} at {where}{place}; remove non-finite values first"
            )


def _check_out(out: Any, shape: tuple[int, ...], gradients: Array) -> None:
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out: wanted a NumPy array or memmap, got {type(out).__name__}")
    if out.dtype.kind != "f":
        raise TypeError(f"out: wanted a floating dtype, got {out.dtype}")
    if out.shape != shape:
        raise ValueError(f"out: wanted shape {shape} as one step of gradients, got {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out: wanted a writeable array, got a read-only one")
    if np.may_share_memory(out, gradients):
        raise ValueError("out: wanted memory of its own, got an array that overlaps gradients")


def _add(steps: Array, weights: Float64, start: int, total: Float64) -> bool:
    """Add weighted steps to a block of sums; False where some are not finite and the sums do not show it."""
    from .kernels.riemann_cpu import add_weighted, add_weighted_half

    if not steps.dtype.isnative:
        steps = steps[:, start : start + len(total)].astype(steps.dtype.newbyteorder("="))
        start = 0
    steps = steps.view()
    steps.flags.writeable = False  # read-only and writable input share one compiled version
    if steps.dtype == np.float16:
        return bool(add_weighted_half(steps.view(np.uint16), weights, start, total))
    add_weighted(steps, weights, start, total)
    return True


def _block_total(
    start: int,
    *,
    gradients: Array,
    weights: Float64,
    inputs: Array | float | None,
    baselines: Array | float,
    out: Array,
) -> None:
    """Sum one block of elements over all steps, scale it, and write it to ``out``."""
    stop = min(start + _BLOCK, out.size)
    total = np.zeros(stop - start)
    finite = True
    if gradients.flags.c_contiguous and gradients.dtype in (np.float16, np.float32, np.float64):
        flat = gradients.reshape(len(gradients), -1)
        for first in range(0, len(weights), _STEPS):
            steps = slice(first, first + _STEPS)
            finite &= _add(flat[steps], weights[steps], start, total)
            for step in flat[steps]:
                release_pages(step[start:stop])
    else:
        for step, weight in zip(gradients, weights, strict=True):
            view = _segment(step, start, stop)
            if view.dtype not in (np.float16, np.float32, np.float64):
                view = view.astype(np.float32 if view.dtype.itemsize <= 2 else np.float64)
            finite &= _add(np.ascontiguousarray(view)[None], np.array([weight]), 0, total)
            release_pages(_segment(step, start, stop))
    if not finite or not np.isfinite(total).all():
        for step in range(len(weights)):
            _locate(gradients[step], "gradients", start, f"step {step}, ")
        raise ValueError("gradients: their weighted sum overflows float64; scale gradients or weights down")
    if inputs is not None:
        total *= _operand_segment(inputs, "inputs", start, stop) - _operand_segment(
            baselines, "baselines", start, stop
        )
    if out.flags.c_contiguous:
        out.reshape(-1)[start:stop] = total
    else:
        out.flat[start:stop] = total


def riemann_accumulate(
    gradients: Any,
    weights: Any,
    *,
    inputs: Any = None,
    baselines: Any = None,
    out: Array | None = None,
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> Any:
    """Weighted sum over the steps of recorded gradients, scaled by the distance that the path goes.

    ``sum_s weights[s] * gradients[s]``, times ``inputs - baselines`` where these are given: the last
    stage of integrated gradients, for gradients that may be larger than memory. They are read once.

    Parameters
    ----------
    gradients : array-like of shape (n_steps, n_samples, ...)
        Any real dtype; NumPy array, memmap or torch tensor.
    weights : array-like of shape (n_steps,)
        Any finite numbers; :func:`qixai_fast.quadrature.path_nodes` gives those of a rule.
    inputs : array-like of shape (n_samples, ...) or number, optional
        Where the path ends. Without it, the sum itself is returned.
    baselines : array-like of shape (n_samples, ...) or (1, ...), or number, optional
        Where the path begins; 0 where not given.
    out : ndarray or memmap of shape (n_samples, ...), optional
        Floating point; takes the result.
    n_jobs : int, optional
        Threads; None for all cores. The result has the same bits for any number.
    device : optional
        None or ``"cpu"``.
    max_memory : int or str, optional
        Limit in bytes, or as ``"2GB"``, on what this call allocates besides its result.

    Returns
    -------
    ndarray or torch.Tensor of shape (n_samples, ...)
        ``out`` where given; else where ``gradients`` lived. float64 for float64 and integer gradients,
        float32 for others; sums are float64 in any case.

    Raises
    ------
    TypeError
        For dtypes that are not real numbers, and an ``out`` that is no floating-point array.
    ValueError
        For shapes that do not fit, NaN or infinite values (the first step, row and column is named),
        and an ``out`` that is read-only or overlaps ``gradients``.
    MemoryBudgetError
        Where ``max_memory`` is too small for one thread.

    References
    ----------
    Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks" (ICML 2017), equation 3.

    Examples
    --------
    The gradient of ``x ** 2`` on the path from 0 to 3; its attribution is 9 = F(3) - F(0).

    >>> import numpy as np
    >>> import qixai_fast as qf
    >>> from qixai_fast.quadrature import path_nodes
    >>> nodes, weights = path_nodes("riemann_middle", 4)
    >>> x = np.array([[3.0]])
    >>> gradients = np.stack([2 * node * x for node in nodes])
    >>> qf.riemann_accumulate(gradients, weights, inputs=x)
    array([[9.]])
    """
    resolve_device(device)
    jobs = resolve_n_jobs(n_jobs)
    budget = parse_memory(max_memory)
    array = np.asarray(
        to_numpy(gradients, "gradients")
    )  # slicing a memmap object is slow, a plain view is not
    check_real(array, "gradients")
    if array.ndim < 2 or array.size == 0:
        raise ValueError(f"gradients: wanted shape (n_steps, n_samples, ...), not empty, got {array.shape}")
    shape = array.shape[1:]
    step_weights = as_vector(weights, "weights")
    if len(step_weights) != len(array):
        raise ValueError(
            f"weights: wanted one a step of gradients ({len(array)} steps), got {len(step_weights)}"
        )
    if inputs is None and baselines is not None:
        raise ValueError("baselines: wanted together with inputs, got baselines alone")
    ends = None if inputs is None else _operand(inputs, "inputs", shape)
    starts = 0.0 if baselines is None else _operand(baselines, "baselines", shape)
    if out is not None:
        _check_out(out, shape, array)

    block = min(_BLOCK, int(np.prod(shape)))
    jobs = workers_within(
        budget,
        jobs,
        # torch tensors in bfloat16, or on a GPU, were copied to be read
        fixed=array.nbytes if _was_copied(gradients) else 0,
        # sums, an upcast segment, finite checks, inputs and baselines with their difference; small objects
        per_worker=(40 + array.itemsize) * block + 65536,
        work="a block of sums for one thread",
    )
    home = Home() if out is not None else home_of(gradients)
    if out is None:
        out = np.empty(
            shape, dtype=np.float64 if array.dtype.itemsize > 4 or array.dtype.kind != "f" else np.float32
        )
    work = partial(
        _block_total, gradients=array, weights=step_weights, inputs=ends, baselines=starts, out=out
    )
    for _ in ordered_map(work, range(0, out.size, _BLOCK), jobs):
        pass
    return home.bring(out)


def _was_copied(value: Any) -> bool:
    if not is_torch(value):
        return False
    return value.device.type != "cpu" or str(value.dtype) == "torch.bfloat16"
