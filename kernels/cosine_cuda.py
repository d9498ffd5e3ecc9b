"""Unit vectors, and the best k of each row over tiles of scores, on CUDA: see :mod:`.cosine_cpu`.

A block works on one row. Scores come as cuBLAS leaves them and are read once, 64 bits a load, several loads
under way a thread. A score above a bar that is not negative is found without taking its word apart: its bits,
read as an integer, are larger than the bar's, so that adding what is between the bar and the largest integer
carries into the sign's place. That is three integer instructions for each 32 bits, and no floating point.

What it costs, on paper, beside products of half precision with d features on 132 multiprocessors at
1.7 GHz: 2 d operations a score, and 2 bytes written and 2 read for it. At d = 512 a product at 790 TFLOP/s
takes 1.30 ps a score and hides its writes (0.42 ps at 4.8 TB/s). Reading takes 0.46 ps at nine tenths of that
rate, with the scan's 2.5 instructions a score (0.09 ps) behind it. Placing the k (1 + ln(n / k)) scores that
ever come above the bar, some 600 cycles each in one of 18 blocks of a multiprocessor, takes 0.05 ps a score
for a list of 32 out of a million. Together 1.30 / 1.81 = 72 % of the bare product's rate. Scores of 4 bytes
would be read in 0.93 ps, and give 58 %: :mod:`qixai_fast._gpu.cosine` says how 2 are enough.
"""

import math
from functools import cache

import numpy as np
from numba import cuda, float32, float64, int32, int64, uint32, uint64

from ._cuda_jit import jit_cuda, jit_device

# Squares whose sum lies between these neither overflow nor lose digits to underflow, as on the CPU.
_SMALLEST_SAFE = 1e-200
_LARGEST_SAFE = 1e200
_MOST_THREADS = 256
_NONE = 2**31 - 1
_KINDS = {16: int32, 32: float32, 64: float64}

# Rows of a list that are kept in shared memory, 16 bytes each at most.
MOST_SHARED = 1024


@jit_device
def _sum_up(value, shared):
    """The sum of all threads' values, in each: a tree over a power of two of them."""
    t = cuda.threadIdx.x
    shared[t] = value
    half = cuda.blockDim.x // 2
    cuda.syncthreads()
    while half > 0:
        if t < half:
            shared[t] += shared[t + half]
        half //= 2
        cuda.syncthreads()
    total = shared[0]
    cuda.syncthreads()
    return total


@jit_device
def _largest(value, shared):
    """The largest of all threads' values, in each."""
    t = cuda.threadIdx.x
    shared[t] = value
    half = cuda.blockDim.x // 2
    cuda.syncthreads()
    while half > 0:
        if t < half:
            shared[t] = max(shared[t], shared[t + half])
        half //= 2
        cuda.syncthreads()
    largest = shared[0]
    cuda.syncthreads()
    return largest


@jit_device
def _moved(value, divisor, shift, mean):
    """A value in float64, brought to an ordinary size, less the row's mean; exactly 0 in a constant row."""
    wide = float64(value)
    if divisor != 1.0:
        wide /= divisor
    return (wide - shift) - mean


@jit_device
def _squares(rows, i, divisor, shift, mean, shared):
    total = 0.0
    for j in range(cuda.threadIdx.x, rows.shape[1], cuda.blockDim.x):
        value = _moved(rows[i, j], divisor, shift, mean)
        total += value * value
    return _sum_up(total, shared)


@jit_cuda
def unit_rows(rows, center, target, is_zero):
    """Write rows scaled to unit norm, which is taken in float64; a row with no direction becomes zeros.

    A block a row, of a power of two threads, at most 256. NaN and infinite values give NaN.

    Parameters
    ----------
    rows : array of shape (r, d), float32 or float64
    center : bool
        Take each row's own mean away first. It is taken about the row's first value, so that a
        constant row becomes exactly zero.
    target : array of shape (r, d), float32 or float64
    is_zero : array of shape (r,), uint8
        Written: whether the row is zero (or constant, where centred).
    """
    shared = cuda.shared.array(_MOST_THREADS, float64)
    i, t, step = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
    d = rows.shape[1]
    squares = _squares(rows, i, 1.0, 0.0, 0.0, shared)
    divisor, shift, mean = 1.0, 0.0, 0.0
    if not (_SMALLEST_SAFE < squares < _LARGEST_SAFE):
        largest = 0.0
        for j in range(t, d, step):
            largest = max(largest, abs(float64(rows[i, j])))
        largest = _largest(largest, shared)
        if largest > 0.0:
            divisor = largest
            squares = _squares(rows, i, divisor, 0.0, 0.0, shared)
    if center and squares > 0.0:
        shift = _moved(rows[i, 0], divisor, 0.0, 0.0)
        total = 0.0
        for j in range(t, d, step):
            total += _moved(rows[i, j], divisor, shift, 0.0)
        mean = _sum_up(total, shared) / d
        squares = _squares(rows, i, divisor, shift, mean, shared)
    if t == 0:
        is_zero[i] = squares == 0.0
    inverse = 0.0 if squares == 0.0 else 1.0 / math.sqrt(squares)
    for j in range(t, d, step):
        target[i, j] = _moved(rows[i, j], divisor, shift, mean) * inverse


@jit_device
def _take_in(best, score, index, place):
    """Place a score above the bar behind all that are no lower, to within the tolerance; the last falls out.

    As on the CPU: behind the first that is lower there may be others that are no lower, and one behind those
    would let errors of a tolerance each add up. All threads call it. ``best`` is a row's values, indices, how
    many they are, and the tolerance; ``place[0]`` is how many before and after.
    """
    values, indices, k, tolerance = best
    t, threads = cuda.threadIdx.x, cuda.blockDim.x
    for p in range(t, k, threads):
        if values[p] + tolerance < score:
            cuda.atomic.min(place, 0, p)
    cuda.syncthreads()
    at = place[0]
    # From the back, a thread an element, so that none is overwritten before it has been read.
    base = (k - 1) // threads * threads
    while base >= 0 and base + threads > at:
        p = base + t
        moves = at < p < k
        before = p - 1 if moves else 0
        value, where = values[before], indices[before]
        cuda.syncthreads()
        if moves:
            values[p] = value
            indices[p] = where
        elif p == at:
            values[p] = score
            indices[p] = index
        cuda.syncthreads()
        base -= threads
    if t == 0:
        place[0] = k
    cuda.syncthreads()


@jit_device
def _fetch(best, places, values, indices, i):
    for p in range(cuda.threadIdx.x, values.shape[1], cuda.blockDim.x):
        best[p] = values[i, p]
        places[p] = indices[i, p]
    cuda.syncthreads()


@jit_device
def _keep(best, places, values, indices, i):
    cuda.syncthreads()
    for p in range(cuda.threadIdx.x, values.shape[1], cuda.blockDim.x):
        values[i, p] = best[p]
        indices[i, p] = places[p]


@jit_device
def _number_at(scores, i, j):
    return scores[i, j]


@jit_device
def _order_at(scores, i, j):
    """A float16 seen as int16, as an integer in the order of the numbers."""
    half = int32(scores[i, j])
    return half ^ ((half >> int32(15)) & int32(0x7FFF))


@jit_device
def _above(word, room, values, signs):
    """Nonzero where one of a word's scores is above a bar; ``room`` is what lies between it and the most."""
    return ((word & values) + room) & ~word & signs


@jit_device
def _take_in_words(score_at, tile, i, base, in_a_word, own, best, found, place):
    """Take in the scores above the bar of one word a thread from ``base`` on, in ascending order."""
    scores, _, n, first = tile
    values, _, k, tolerance = best
    start = (base + cuda.threadIdx.x) * in_a_word
    last = -1
    while True:
        bar = values[k - 1] + tolerance
        mine = _NONE
        for back in range(in_a_word):
            j = start + in_a_word - 1 - back
            if last < j < n and first + j != own and score_at(scores, i, j) > bar:
                mine = j
        if mine != _NONE:
            cuda.atomic.min(found, 0, mine)
        cuda.syncthreads()
        j = found[0]
        cuda.syncthreads()
        if j == _NONE:
            break
        if cuda.threadIdx.x == 0:
            found[0] = _NONE
        _take_in(best, score_at(scores, i, j), first + j, place)
        last = j


@jit_device
def _scan(score_at, tile, masks, i, own, best, held, tail):
    """Merge row ``i`` of a tile into its best.

    ``held`` and ``tail`` are one memory, seen as numbers and as integers: how the bar's bits are read.
    """
    found = cuda.shared.array(1, int32)
    place = cuda.shared.array(1, int32)
    t, threads, last = cuda.threadIdx.x, cuda.blockDim.x, held.shape[1] - 1
    _, words, n, _ = tile
    in_a_word, every, plain, signs, most = masks
    n_words = (n + in_a_word - 1) // in_a_word
    if t == 0:
        found[0] = _NONE
        place[0] = last + 1
    base = 0
    while base < n_words:
        if t == 0:
            held[i, last] = best[0][last]
        cuda.syncthreads()
        bar = tail[i, last]
        if bar >= 0:
            # Up to the next score above the bar: loads, a carry for each, and a barrier every four. Below
            # zero the order of the bits is another one; then every word is taken apart.
            room = (most - uint64(bar)) * every
            while base + 4 * threads <= n_words:
                # Unsigned: an index that may be negative costs more instructions than the comparison.
                at = uint32(base + t)
                hit = (
                    _above(words[i, at], room, plain, signs)
                    | _above(words[i, uint32(at + threads)], room, plain, signs)
                    | _above(words[i, uint32(at + 2 * threads)], room, plain, signs)
                    | _above(words[i, uint32(at + 3 * threads)], room, plain, signs)
                )
                if cuda.syncthreads_or(int32(hit != uint64(0))):
                    break
                base += 4 * threads
        stop = min(base + 4 * threads, n_words)
        while base < stop:
            _take_in_words(score_at, tile, i, base, in_a_word, own, best, found, place)
            base += threads


def _masks(bits):
    """How many scores of so many bits are in a word, and what takes it apart."""
    every = sum(1 << (bits * lane) for lane in range(64 // bits))
    signs = every << (bits - 1)
    words = every, 2**64 - 1 - signs, signs, 2 ** (bits - 1) - 1
    return 64 // bits, *(np.uint64(word) for word in words)


@cache
def make_update_top_k(bits, capacity):
    """Make the kernel that merges tiles of float32 or float64 scores into the best k of each row.

    Parameters
    ----------
    bits : {32, 64}
        Of a score.
    capacity : int
        ``k`` at most; lists are in shared memory. 0: in the device's memory, and any ``k``.

    Returns
    -------
    kernel
        A block a row. Arguments:

        scores : array of shape (r, m), C-contiguous
        words : array of shape (r, m * bits / 64), uint64
            The same memory.
        n : int
            Scores of a row; what is behind them is never taken.
        first_candidate : int
            Index of the first score's candidate. Candidates must come in ascending order over the calls:
            then, of scores that are equal to within the tolerance, the one of the lowest index is kept and
            stands first.
        own : array of shape (r,), int64
            The candidate that is left out of each row; -1 for none.
        tolerance : float
            Of the dtype of the scores.
        values, indices : arrays of shape (r, k)
            Updated; best first to within the tolerance. Start with -inf and -1.
        tail : array of shape (r, k), int32 or int64
            The memory of ``values``.
    """
    masks = _masks(bits)
    kind = float32 if bits == 32 else float64

    @jit_cuda
    def update_top_k(scores, words, n, first_candidate, own, tolerance, values, indices, tail):
        i, k = cuda.blockIdx.x, values.shape[1]
        best = cuda.shared.array(capacity, kind)
        places = cuda.shared.array(capacity, int64)
        _fetch(best, places, values, indices, i)
        tile = scores, words, n, first_candidate
        _scan(_number_at, tile, masks, i, own[i], (best, places, k, tolerance), values, tail)
        _keep(best, places, values, indices, i)

    @jit_cuda
    def update_long_top_k(scores, words, n, first_candidate, own, tolerance, values, indices, tail):
        i, k = cuda.blockIdx.x, values.shape[1]
        tile = scores, words, n, first_candidate
        _scan(_number_at, tile, masks, i, own[i], (values[i], indices[i], k, tolerance), values, tail)

    return update_top_k if capacity else update_long_top_k


@cache
def make_update_candidates(capacity):
    """Make the kernel that merges tiles of float16 scores into a list of the likely best of each row.

    As :func:`make_update_top_k` makes it, but for ``scores``, which are int16 (the bits); ``values``, which
    are int32 in the order of the numbers, their own ``tail``, and start with the least integer; and
    ``tolerance``, which is 0.
    """
    masks = _masks(16)

    @jit_cuda
    def update_candidates(scores, words, n, first_candidate, own, tolerance, values, indices, tail):
        i, k = cuda.blockIdx.x, values.shape[1]
        best = cuda.shared.array(capacity, int32)
        places = cuda.shared.array(capacity, int64)
        _fetch(best, places, values, indices, i)
        tile = scores, words, n, first_candidate
        _scan(_order_at, tile, masks, i, own[i], (best, places, k, tolerance), values, tail)
        _keep(best, places, values, indices, i)

    return update_candidates


@cache
def make_rescore(bits, capacity):
    """Make the kernel that takes the likely best of a panel of candidates into the best k by exact scores.

    Parameters
    ----------
    bits : {32, 64}
        Of unit vectors and scores.
    capacity : int
        The longest lists of candidates, which are no shorter than those of the best.

    Returns
    -------
    kernel
        A block a row, of a power of two threads, at most 256. Arguments:

        X : array of shape (r, d)
            Unit vectors.
        panel : array of shape (m, d)
            Those of candidates ``first_candidate`` to ``first_candidate + m - 1``.
        first_candidate : int
        orders, candidates : arrays of shape (r, c)
            As :func:`make_update_candidates` leaves them.
        least : array of shape (r,), int32
            Candidates of a lower order are left out.
        tolerance, values, indices
            As for :func:`make_update_top_k`.
    """
    kind = float32 if bits == 32 else float64

    @jit_cuda
    def rescore(X, panel, first_candidate, orders, candidates, least, tolerance, values, indices):
        sums = cuda.shared.array(_MOST_THREADS, float64)
        place = cuda.shared.array(1, int32)
        chosen = cuda.shared.array(capacity, int64)
        sorted_ = cuda.shared.array(capacity, int64)
        best = cuda.shared.array(capacity, kind)
        places = cuda.shared.array(capacity, int64)
        i, t, threads = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
        k, c = values.shape[1], candidates.shape[1]
        # Others get a place behind all: their number is what the ranks leave free.
        for p in range(t, c, threads):
            j = candidates[i, p] - first_candidate
            wanted = 0 <= j < panel.shape[0] and orders[i, p] >= least[i]
            chosen[p] = j if wanted else _NONE
            sorted_[p] = _NONE
        if t == 0:
            place[0] = k
        _fetch(best, places, values, indices, i)
        for p in range(t, c, threads):
            rank = 0
            for q in range(c):
                rank += chosen[q] < chosen[p]
            if chosen[p] != _NONE:
                sorted_[rank] = chosen[p]
        cuda.syncthreads()
        for p in range(c):
            j = sorted_[p]
            if j == _NONE:
                break
            total = 0.0
            for feature in range(t, X.shape[1], threads):
                total += float64(X[i, feature]) * float64(panel[j, feature])
            score = kind(_sum_up(total, sums))
            if score > best[k - 1] + tolerance:
                _take_in((best, places, k, tolerance), score, first_candidate + j, place)
        _keep(best, places, values, indices, i)

    return rescore
