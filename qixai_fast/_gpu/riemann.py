"""Weighted sums of recorded gradients on a GPU: resident ones in one launch, a host's streamed through it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from .._lazy_rows import LazyRows
from .._memory import release_pages
from .._validate import Array, Float64
from .backend import Backend
from .rows import DeviceRows

Operand = float | torch.Tensor | Array
"""A number, or one of the shape of a step; (1, ...) where all samples share a row."""

Path = tuple[torch.Tensor | None, ...]
"""Where the paths of some elements end and start."""

_BITS = {
    torch.float16: torch.uint16,
    torch.bfloat16: torch.uint16,
    torch.float32: torch.uint32,
    torch.float64: torch.uint64,
}
_DIRECT = (torch.float32, torch.float64)
_PIECE = 16  # bytes that a thread loads at a time
# Fewer threads leave a large GPU idle: then ranges of steps, of at least so many, are summed side by side.
_THREADS_WANTED = 1 << 17
_SPAN = 16
_MOST_SPANS = 1024
# Bytes of a block of streamed gradients: enough for a bus to run at its full rate.
_BLOCK = 128 * 2**20
# Bytes of the device for each element of a stretch besides its gradients: sums, a result, and both ends of
# the path with what they are made from.
_BESIDES = 48
_LEAST_STRETCH = 4096


def _spans(n_steps: int, threads: int) -> tuple[int, int]:
    """How many ranges of steps to sum side by side, and how many steps each has; from the sizes alone."""
    wanted = min(_THREADS_WANTED // max(threads, 1), n_steps // _SPAN, _MOST_SPANS)
    span = -(-n_steps // max(wanted, 1))
    return -(-n_steps // span), span


def add_weighted(
    backend: Backend,
    steps: torch.Tensor,
    weights: torch.Tensor,
    out: torch.Tensor,
    flags: torch.Tensor,
    *,
    more: bool = False,
    ends: torch.Tensor | None = None,
    starts: torch.Tensor | None = None,
) -> None:
    """``sum_s weights[s] * steps[s]``, times ``ends - starts``, into ``out``. Nothing is waited for.

    Parameters
    ----------
    backend : Backend
    steps : Tensor of shape (n_steps, m)
        On the device, a float type; elements side by side, steps anywhere.
    weights : Tensor of shape (n_steps,)
        float64, on the device.
    out : Tensor of shape (m,)
        float32 or float64, contiguous.
    flags : Tensor of shape (3,)
        int32; become 1 where sums, ends or starts are not finite.
    more : bool
        Whether ``out`` holds sums to go on from.
    ends, starts : Tensor, 1-D
        float32 or float64; shorter ones are repeated. 1 and 0 where not given.
    """
    from ..kernels import riemann_cuda as kernels

    n_steps, count = steps.shape
    kind = {
        torch.float16: kernels.HALF,
        torch.bfloat16: kernels.BRAIN,
        torch.float32: kernels.SINGLE,
        torch.float64: kernels.DOUBLE,
    }[steps.dtype]
    lanes = _PIECE // steps.itemsize
    n_spans, span = _spans(n_steps, -(-count // lanes))
    if n_spans > 1:
        parts = torch.empty(n_spans * count, dtype=torch.float64, device=out.device)
    into = out if n_spans == 1 else parts
    ones, zeros = weights.new_ones(1), weights.new_zeros(1)
    scaled = n_spans == 1
    arguments = (
        weights,
        span,
        int(more and scaled),
        ends if scaled and ends is not None else ones,
        starts if scaled and starts is not None else zeros,
        into,
        flags,
    )
    pitch = steps.stride(0) if n_steps > 1 else -(-count // lanes) * lanes
    aligned = not (steps.data_ptr() % _PIECE or steps.storage_offset() % lanes or pitch % lanes)
    used = count - count % lanes if aligned else 0
    if used:
        words = steps.as_strided(((n_steps - 1) * pitch + used,), (1,)).view(torch.uint32)
        blocks = (-(-used // (lanes * kernels.THREADS)), n_spans)
        kernel = kernels.make_add_weighted(kind)
        backend.launch(kernel, blocks, kernels.THREADS, words, pitch // lanes, used, count, *arguments)
    if used < count:
        elements = steps.as_strided(((n_steps - 1) * pitch + count,), (1,)).view(_BITS[steps.dtype])
        threads = kernels.THREADS if count - used >= kernels.THREADS else 32
        blocks = (-(-(count - used) // threads), n_spans)
        kernel = kernels.make_add_weighted_elements(kind)
        backend.launch(kernel, blocks, threads, elements, pitch, used, count, *arguments)
    if n_spans > 1:
        add_weighted(
            backend,
            parts.view(n_spans, count),
            weights.new_ones(n_spans),
            out,
            flags,
            more=more,
            ends=ends,
            starts=starts,
        )


def _native(tensor: torch.Tensor) -> torch.Tensor:
    """A float type that kernels take for the ends of a path."""
    if tensor.dtype in _DIRECT:
        return tensor
    return tensor.to(torch.float32 if tensor.is_floating_point() else torch.float64)


def _stretch(operand: Operand, start: int, stop: int, shape: tuple[int, ...], backend: Backend) -> Any:
    """An operand's elements ``start:stop`` on the device; once, where one number or row is for all."""
    from ..riemann import _segment

    device = backend.device
    if isinstance(operand, float):
        return torch.tensor([operand], dtype=torch.float64).to(device)
    whole = stop - start == int(np.prod(shape))
    if torch.is_tensor(operand):
        operand = operand.to(device)
        if whole:
            return _native(operand.reshape(-1))
        row = operand[0].numel()
        if len(operand) == 1 < shape[0]:
            return _native(operand.reshape(-1)[torch.arange(start, stop, device=device) % row])
        rows = operand[start // row : -(-stop // row)].reshape(-1)
        return _native(rows[start % row : start % row + stop - start])
    if whole and len(operand) > 1 and operand.strides[0] == 0:
        operand = operand[:1]
        stop = operand.size
    view = _segment(operand, start, stop)
    wide = np.float32 if view.dtype.kind == "f" and view.dtype.itemsize <= 4 else np.float64
    values = torch.from_numpy(np.array(view, dtype=wide)).to(device)
    release_pages(view)
    return values


class _Segments(LazyRows):
    """Elements ``start:stop`` of the steps of an array that is not contiguous."""

    def __init__(self, array: Array, start: int, stop: int) -> None:
        super().__init__((len(array), stop - start), array.dtype, f_contiguous=False)
        self._array, self._start, self._stop = array, start, stop

    def __getitem__(self, index: Any) -> Any:
        from ..riemann import _segment

        return np.stack([_segment(step, self._start, self._stop) for step in self._array[index]])


def accumulate(
    backend: Backend,
    gradients: torch.Tensor | Array,
    weights: Float64,
    ends: Operand | None,
    starts: Operand,
    out: torch.Tensor | Array,
    max_memory: int | None,
) -> tuple[bool, bool, bool]:
    """Fill ``out`` as :func:`qixai_fast.riemann_accumulate` does; whether sums, ends and starts are finite.

    Parameters
    ----------
    backend : Backend
    gradients : Tensor on a GPU, or ndarray
    weights : ndarray of shape (n_steps,)
    ends, starts : float, Tensor on a GPU or ndarray
        Without ``ends`` there is no factor.
    out : Tensor on the device, or ndarray
        Of the shape of a step.
    max_memory : int or None
        Bytes of the device, and of the host.

    Raises
    ------
    MemoryBudgetError
        Where the device has too little room.
    """
    shape = tuple(int(length) for length in out.shape)
    budget = backend.budget(max_memory)
    with backend.current():
        flags = torch.zeros(3, dtype=torch.int32, device=backend.device)
        steps = torch.from_numpy(weights).to(backend.device)
        if torch.is_tensor(gradients):
            work = _resident(backend, gradients.to(backend.device), out, budget)
        else:
            work = _streamed(backend, gradients, out, budget)
        for start, stop, blocks in work:
            path: Path = None, None
            if ends is not None:
                path = tuple(_stretch(one, start, stop, shape, backend) for one in (ends, starts))
            direct = _direct(out, start, stop)
            result = direct
            if result is None:
                dtype = torch.float32 if str(out.dtype).endswith("float32") else torch.float64
                result = torch.empty(stop - start, dtype=dtype, device=backend.device)
            _sum(backend, blocks, steps, result, flags, path)
            if direct is None:
                _keep(result, out, start, stop)
        found = flags.tolist()
    return not found[0], not found[1], not found[2]


def _sum(
    backend: Backend,
    blocks: Iterator[tuple[int, torch.Tensor]],
    weights: torch.Tensor,
    result: torch.Tensor,
    flags: torch.Tensor,
    path: Path,
) -> None:
    """Add up the blocks of steps of one stretch; fused with the factor where there is a single block."""
    sums: torch.Tensor | None = None
    for first, block in blocks:
        here = weights[first : first + len(block)]
        if len(block) == len(weights):
            add_weighted(backend, block, here, result, flags, ends=path[0], starts=path[1])
            continue
        if sums is None:
            sums = torch.empty(block.shape[1], dtype=torch.float64, device=backend.device)
        add_weighted(backend, block, here, sums, flags, more=first > 0)
    if sums is not None:
        add_weighted(backend, sums[None], weights.new_ones(1), result, flags, ends=path[0], starts=path[1])


def _direct(out: torch.Tensor | Array, start: int, stop: int) -> torch.Tensor | None:
    """Where results can be written to as they are made."""
    if torch.is_tensor(out) and out.is_contiguous() and out.dtype in _DIRECT:
        return out.view(-1)[start:stop]
    return None


def _keep(result: torch.Tensor, out: torch.Tensor | Array, start: int, stop: int) -> None:
    if not torch.is_tensor(out):
        values = result.cpu().numpy()
        if out.flags.c_contiguous:
            out.reshape(-1)[start:stop] = values
        else:
            out.flat[start:stop] = values
    elif stop - start == out.numel():
        out.copy_(result.view(out.shape))
    else:
        # Whole samples: a stretch of a strided tensor.
        row = out[0].numel()
        out[start // row : stop // row].copy_(result.view(-1, *out.shape[1:]))


def _fixed(n_steps: int, count: int) -> int:
    """Bytes of the device for weights, sums of ranges of steps, and small things."""
    return n_steps * 8 + 8 * min(8 * _THREADS_WANTED, n_steps // _SPAN * count) + 4096


Work = Iterator[tuple[int, int, Iterator[tuple[int, torch.Tensor]]]]


def _resident(backend: Backend, gradients: torch.Tensor, out: Any, budget: int) -> Work:
    """Stretches of gradients that lie on the device: all of them where they can be used as they lie."""
    n_steps, n = gradients.shape[:2]
    width = gradients[0, 0].numel()
    fixed = _fixed(n_steps, n * width)
    own = gradients.dtype in _BITS
    flat = gradients.view(n_steps, -1) if own and gradients[0].is_contiguous() else None
    native = flat is not None and (_direct(out, 0, 1) is not None)
    copied = 0 if flat is not None else n_steps * (gradients.itemsize if own else 8)
    each = width * (copied + (8 if not native else 0) + _BESIDES)
    rows = n if native else min(n, (budget - fixed) // each)
    backend.require(budget, fixed + (0 if native else each), "sums of resident gradients")
    for first in range(0, n, rows):
        stop = min(first + rows, n)
        if flat is not None:
            part = flat[:, first * width : stop * width]
        else:
            part = gradients[:, first:stop].to(gradients.dtype if own else torch.float64)
            part = part.contiguous().view(n_steps, -1)
        yield first * width, stop * width, iter([(0, part)])


def _streamed(backend: Backend, gradients: Array, out: Any, budget: int) -> Work:
    """Stretches of a host's gradients: all elements, or what a block has room for, some steps a block."""
    n_steps, count = len(gradients), int(np.prod(out.shape))
    itemsize = gradients.dtype.itemsize if gradients.dtype.kind == "f" else 8
    fixed = _fixed(n_steps, count)
    each = _BESIDES + 2 * itemsize
    least = min(count, _LEAST_STRETCH)
    backend.require(budget, fixed + each * least, "a stretch of gradients")
    stretch = min(count, (budget - fixed) // each, _BLOCK // itemsize)
    if stretch < count:
        stretch -= stretch % _LEAST_STRETCH
    free = min((budget - fixed - _BESIDES * stretch) // 2, _BLOCK)
    rows = max(1, min(n_steps, free // (stretch * itemsize)))
    whole = gradients.reshape(n_steps, -1) if gradients.flags.c_contiguous else None
    for start in range(0, count, stretch):
        stop = min(start + stretch, count)
        data: Any = _Segments(gradients, start, stop) if whole is None else whole[:, start:stop]
        yield start, stop, DeviceRows("gradients", data, backend).blocks(rows, checked=False)


def first_not_finite(tensor: torch.Tensor) -> tuple[int, ...] | None:
    """The first place of NaN or infinity in a tensor on a GPU, in C order."""
    rows = max(1, (1 << 24) // max(1, tensor[0].numel()))
    for first in range(0, len(tensor), rows):
        bad = ~torch.isfinite(tensor[first : first + rows])
        if bad.any():
            row = int(bad.reshape(len(bad), -1).any(1).nonzero()[0])
            return first + row, *(int(i) for i in bad[row].nonzero()[0])
    return None
