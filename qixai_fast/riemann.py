"""Weighted sums over the steps of recorded gradients, in memory or on disk."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from . import _device
from ._device import Home, backends_for, home_of, is_torch, to_numpy
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


def _values(value: Any, name: str, *, on_gpu: bool) -> Any:
    """An argument as an array, or as a tensor where it lives on a GPU and is wanted there."""
    tensor = _device.gpu_tensor(value) if on_gpu else None
    if tensor is not None:
        if tensor.is_complex() or str(tensor.layout) != "torch.strided":
            raise TypeError(f"{name}: wanted dense real numbers, got {tensor.dtype}, {tensor.layout}")
        return tensor
    array = np.asarray(to_numpy(value, name))  # slicing a memmap object is slow, a plain view is not
    check_real(array, name)
    return array


def _operand(value: Any, name: str, shape: tuple[int, ...], *, on_gpu: bool) -> Any:
    """``inputs`` or ``baselines``: a number, an array of the gradients' shape, or a tensor on a GPU."""
    array = _values(value, name, on_gpu=on_gpu)
    if array.ndim == 0:
        if not np.isfinite(float(array)):
            raise ValueError(f"{name}: wanted a finite number, got {float(array)}")
        return float(array)
    if tuple(array.shape) not in (shape, (1, *shape[1:])):
        raise ValueError(
            f"{name}: wanted a number, shape {shape} as one step of gradients, or {(1, *shape[1:])}, "
            f"got {tuple(array.shape)}"
        )
    if is_torch(array):
        return array
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


def _name_bad(value: Any, place: tuple[int, ...], name: str, where: str) -> None:
    row, *column = place
    text = f"row {row}" + (f", column {', '.join(map(str, column))}" if column else "")
    raise ValueError(f"{name}: {value} at {where}{text}; remove non-finite values first")


def _locate(array: Any, name: str, start: int, where: str) -> None:
    """Raise the error that names the first bad element at or after ``start``, if there is one."""
    if is_torch(array):
        from ._gpu.riemann import first_not_finite

        place = first_not_finite(array)
        if place is not None:
            _name_bad(float(array[place]), place, name, where)
        return
    for first in range(start, array.size, _BLOCK):
        bad = np.flatnonzero(~np.isfinite(_segment(array, first, min(first + _BLOCK, array.size))))
        if len(bad):
            place = tuple(int(i) for i in np.unravel_index(first + bad[0], array.shape))
            _name_bad(array[place], place, name, where)


def _refuse_gradients(gradients: Any) -> None:
    """Raise the error for sums that are not finite."""
    for step in range(len(gradients)):
        _locate(gradients[step], "gradients", 0, f"step {step}, ")
    raise ValueError("gradients: their weighted sum overflows float64; scale gradients or weights down")


def _check_out(out: Any, shape: tuple[int, ...], gradients: Any, device: Any) -> None:
    """Check where results go: an array, or a tensor on the device (None: the CPU)."""
    tensor = None if device is None else _device.gpu_tensor(out)
    if tensor is None and not isinstance(out, np.ndarray):
        wanted = "a NumPy array or memmap" + ("" if device is None else f", or a tensor on {device}")
        raise TypeError(f"out: wanted {wanted}, got {type(out).__name__}")
    if tensor is not None and (tensor.device != device or not is_torch(out)):
        raise ValueError(f"out: wanted a tensor on {device}, got {type(out).__name__} on {tensor.device}")
    if not (out.dtype.kind == "f" if tensor is None else out.is_floating_point()):
        raise TypeError(f"out: wanted a floating dtype, got {out.dtype}")
    if tuple(out.shape) != shape:
        raise ValueError(f"out: wanted shape {shape} as one step of gradients, got {tuple(out.shape)}")
    if tensor is None and not out.flags.writeable:
        raise ValueError("out: wanted a writeable array, got a read-only one")
    if _overlap(out, gradients):
        raise ValueError("out: wanted memory of its own, got an array that overlaps gradients")


def _overlap(one: Any, other: Any) -> bool:
    """Whether two arrays, or two tensors, may share memory."""
    if is_torch(one) != is_torch(other):
        return False
    if not is_torch(one):
        return bool(np.may_share_memory(one, other))
    (low, high), (begin, end) = (
        (
            t.data_ptr(),
            t.data_ptr() + sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True)) * t.itemsize,
        )
        for t in (one, other)
    )
    return bool(low <= end and begin <= high)


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
        _refuse_gradients(gradients)
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
    out: Any = None,
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
        Any real dtype; NumPy array, memmap, torch tensor or CuPy array.
    weights : array-like of shape (n_steps,)
        Any finite numbers; :func:`qixai_fast.quadrature.path_nodes` gives those of a rule.
    inputs : array-like of shape (n_samples, ...) or number, optional
        Where the path ends. Without it, the sum itself is returned.
    baselines : array-like of shape (n_samples, ...) or (1, ...), or number, optional
        Where the path begins; 0 where not given.
    out : ndarray or memmap of shape (n_samples, ...), optional
        Floating point; takes the result. On a GPU also a tensor there.
    n_jobs : int, optional
        Threads; None for all cores. The result has the same bits for any number.
    device : None, "cpu", "cuda" or "cuda:1"
        None: the GPU where an input lives, else the CPU. Arrays and memmaps are streamed through a GPU.
    max_memory : int or str, optional
        Limit in bytes, or as ``"2GB"``, on what this call allocates besides its result; on a GPU also on
        what it takes there.

    Returns
    -------
    ndarray or torch.Tensor of shape (n_samples, ...)
        ``out`` where given; else where ``gradients`` lived. float64 for float64 and integer gradients,
        float32 for others; sums are float64 in any case, on a GPU too: its result differs from the CPU's by
        float64's rounding at most.

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
    backends = backends_for(device, gradients, inputs, baselines)
    on_gpu = backends is not None
    jobs = resolve_n_jobs(n_jobs)
    budget = parse_memory(max_memory)
    array = _values(gradients, "gradients", on_gpu=on_gpu)
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(
            f"gradients: wanted shape (n_steps, n_samples, ...), not empty, got {tuple(array.shape)}"
        )
    shape = tuple(int(length) for length in array.shape[1:])
    step_weights = as_vector(weights, "weights")
    if len(step_weights) != len(array):
        raise ValueError(
            f"weights: wanted one a step of gradients ({len(array)} steps), got {len(step_weights)}"
        )
    if inputs is None and baselines is not None:
        raise ValueError("baselines: wanted together with inputs, got baselines alone")
    ends = None if inputs is None else _operand(inputs, "inputs", shape, on_gpu=on_gpu)
    starts = 0.0 if baselines is None else _operand(baselines, "baselines", shape, on_gpu=on_gpu)
    if out is not None:
        _check_out(out, shape, array, None if backends is None else backends[0].device)
    home = Home() if out is not None else home_of(gradients)
    result = _new_result(array, shape) if out is None else out
    if backends is not None:
        from ._gpu.riemann import accumulate

        finite = accumulate(backends[0], array, step_weights, ends, starts, result, budget)
        if not finite[0]:
            _refuse_gradients(array)
        for operand, name, good in ((ends, "inputs", finite[1]), (starts, "baselines", finite[2])):
            if not good:
                _locate(operand, name, 0, "")
    else:
        _accumulate_on_cpu(
            array, step_weights, ends, starts, result, jobs, budget, copied=_was_copied(gradients)
        )
    return result if out is not None else home.bring(result)


def _new_result(gradients: Any, shape: tuple[int, ...]) -> Any:
    """An array, or a tensor beside gradients on a GPU: float32 for gradients that are no wider."""
    if is_torch(gradients):
        import torch

        small = gradients.is_floating_point() and gradients.itemsize <= 4
        return gradients.new_empty(shape, dtype=torch.float32 if small else torch.float64)
    small = gradients.dtype.kind == "f" and gradients.dtype.itemsize <= 4
    return np.empty(shape, dtype=np.float32 if small else np.float64)


def _accumulate_on_cpu(
    gradients: Array,
    weights: Float64,
    ends: Array | float | None,
    starts: Array | float,
    out: Array,
    jobs: int,
    budget: int | None,
    *,
    copied: bool,
) -> None:
    """Fill ``out``; the gradients count against the budget where they were ``copied`` to be read."""
    block = min(_BLOCK, out.size)
    jobs = workers_within(
        budget,
        jobs,
        # torch tensors in bfloat16, or on a GPU, were copied to be read
        fixed=gradients.nbytes if copied else 0,
        # sums, an upcast segment, finite checks, inputs and baselines with their difference; small objects
        per_worker=(40 + gradients.itemsize) * block + 65536,
        work="a block of sums for one thread",
    )
    work = partial(_block_total, gradients=gradients, weights=weights, inputs=ends, baselines=starts, out=out)
    for _ in ordered_map(work, range(0, out.size, _BLOCK), jobs):
        pass


def _was_copied(value: Any) -> bool:
    if not is_torch(value):
        return False
    return value.device.type != "cpu" or str(value.dtype) == "torch.bfloat16"
