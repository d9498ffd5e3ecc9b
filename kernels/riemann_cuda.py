"""Weighted sums of recorded gradients on a GPU: a thread sums 16 bytes of elements over the steps.

Sums are float64, and every element is a sum of its own, in the order of the steps, as on the CPU. Where there
are too few elements to keep a GPU busy, ranges of steps are summed beside each other, and then added in their
order; how many depends on the sizes alone.

On paper, on an H200 (4.8 TB/s; 132 multiprocessors at 1.7 GHz, each of them 64 multiply-adds in
float64 and 16 conversions to float64 a clock): each gradient is read once, and sums stay in registers. At the
memory's full rate float32 brings 5.3 elements a clock and multiprocessor, 8 % of what its multiply-adds take
and a third of its conversions; float16 and bfloat16 bring 10.7, 17 % and two thirds. So the memory alone is
the limit: the target of 85 % of a copy's rate leaves 15 % for the launch and the last blocks. Beside 50 steps
of float32 (200 bytes an element) the ends of the path and the result are 12 bytes. Four loads of 16 bytes are
in flight a thread: with 1,024 threads 64 kB a multiprocessor, while 4.8 TB/s times a latency of 0.7 us are
25 kB. None of this was measured.
"""

from functools import cache

from numba import cuda, float64, uint32, uint64

from ._cuda_jit import jit_cuda, jit_device
from ._cuda_words import as_double, as_float, high_brain, high_half, load_words, low_brain, low_half

THREADS = 128
HALF, BRAIN, SINGLE, DOUBLE = range(4)
_INFINITE = float("inf")
_LOW_WORD, _WORD = uint64(0xFFFFFFFF), uint64(32)


@jit_device
def _finish(total, j, ends, starts, place, out, flags):
    """Scale a sum by the distance that its path goes, keep it, and flag what is not finite."""
    # Threads that find something all write the same, so their order does not matter.
    if not abs(total) < _INFINITE:
        flags[0] = 1
    # A single row, or a single number, is for all.
    end = float64(ends[j] if j < len(ends) else ends[j % len(ends)])
    start = float64(starts[j] if j < len(starts) else starts[j % len(starts)])
    if not abs(end) < _INFINITE:
        flags[1] = 1
    if not abs(start) < _INFINITE:
        flags[2] = 1
    out[place] = total * (end - start)


@jit_device
def _add(kind, sums, words, weight):
    """Add the weighted numbers in 16 bytes; ``kind`` is known to the compiler."""
    if kind == HALF:
        for i in range(4):
            sums[2 * i] += weight * float64(low_half(words[i]))
            sums[2 * i + 1] += weight * float64(high_half(words[i]))
    elif kind == BRAIN:
        for i in range(4):
            sums[2 * i] += weight * float64(low_brain(words[i]))
            sums[2 * i + 1] += weight * float64(high_brain(words[i]))
    elif kind == SINGLE:
        for i in range(4):
            sums[i] += weight * float64(as_float(words[i]))
    else:
        for i in range(2):
            sums[i] += weight * as_double(words[2 * i], words[2 * i + 1])


@jit_device
def _number(kind, bits):
    """A single number, by its bits."""
    if kind == HALF:
        return float64(low_half(uint32(bits)))
    if kind == BRAIN:
        return float64(low_brain(uint32(bits)))
    if kind == SINGLE:
        return float64(as_float(uint32(bits)))
    return as_double(uint32(bits & _LOW_WORD), uint32(bits >> _WORD))


@cache
def make_add_weighted(kind):
    """The kernel for gradients of a kind: ``HALF``, ``BRAIN`` (bfloat16), ``SINGLE`` or ``DOUBLE``.

    ``add_weighted(words, pitch, used, count, weights, span, more, ends, starts, out, flags)`` takes 16 bytes
    of elements a thread, and ``span`` steps a block of the grid's second axis.

    Parameters of the kernel
    ------------------------
    words : uint32, 1-D
        Begins at a multiple of 16 bytes.
    pitch : int
        Pieces of 16 bytes from step to step.
    used : int
        Elements of a step to sum: a multiple of those in 16 bytes.
    count : int
        Elements of a step.
    weights : float64, (n_steps,)
    span : int
    more : int
        1: sums go on from what ``out`` holds.
    ends, starts : float32 or float64, 1-D
        Sums are multiplied by their difference; shorter ones are repeated.
    out : float32 or float64, 1-D
        ``count`` results for every span.
    flags : int32, (3,)
        Become 1 where sums, ends or starts are not finite.
    """
    # Only numbers are closed over: numba tells kernels on disk apart by them.
    lanes = 16 // (8 if kind == DOUBLE else 4 if kind == SINGLE else 2)

    @jit_cuda
    def add_weighted(words, pitch, used, count, weights, span, more, ends, starts, out, flags):
        piece = cuda.grid(1)
        first = piece * lanes
        if first >= used:
            return
        base = cuda.blockIdx.y * count
        s = cuda.blockIdx.y * span
        stop = min(s + span, len(weights))
        sums = cuda.local.array(lanes, float64)
        for lane in range(lanes):
            sums[lane] = float64(out[base + first + lane]) if more else 0.0
        while s + 4 <= stop:
            # All loads before the first sum: four are on their way at a time.
            p = load_words(words, s * pitch + piece)
            q = load_words(words, (s + 1) * pitch + piece)
            r = load_words(words, (s + 2) * pitch + piece)
            t = load_words(words, (s + 3) * pitch + piece)
            _add(kind, sums, p, weights[s])
            _add(kind, sums, q, weights[s + 1])
            _add(kind, sums, r, weights[s + 2])
            _add(kind, sums, t, weights[s + 3])
            s += 4
        while s < stop:
            _add(kind, sums, load_words(words, s * pitch + piece), weights[s])
            s += 1
        for lane in range(lanes):
            _finish(sums[lane], first + lane, ends, starts, base + first + lane, out, flags)

    return add_weighted


@cache
def make_add_weighted_elements(kind):
    """As :func:`make_add_weighted`, an element a thread: for what does not begin or end at 16 bytes.

    Parameters of the kernel
    ------------------------
    elements : uint16, uint32 or uint64, 1-D
        Their bits. Steps of ``count`` elements.
    pitch : int
        Elements from step to step.
    first : int
        Elements before this one are left out.
    count, ... : as there
    """

    @jit_cuda
    def add_weighted_elements(elements, pitch, first, count, weights, span, more, ends, starts, out, flags):
        j = first + cuda.grid(1)
        if j >= count:
            return
        place = cuda.blockIdx.y * count + j
        s = cuda.blockIdx.y * span
        stop = min(s + span, len(weights))
        total = float64(out[place]) if more else 0.0
        while s + 4 <= stop:
            p, q = elements[s * pitch + j], elements[(s + 1) * pitch + j]
            r, t = elements[(s + 2) * pitch + j], elements[(s + 3) * pitch + j]
            total += weights[s] * _number(kind, p)
            total += weights[s + 1] * _number(kind, q)
            total += weights[s + 2] * _number(kind, r)
            total += weights[s + 3] * _number(kind, t)
            s += 4
        while s < stop:
            total += weights[s] * _number(kind, elements[s * pitch + j])
            s += 1
        _finish(total, j, ends, starts, place, out, flags)

    return add_weighted_elements
