"""Threads are ours: serial nogil kernels and single-threaded BLAS under one thread pool.

Results never depend on the number of threads, because the work is cut by
:func:`qixai_fast.statistics.leaf_rows` and by pair blocks, never by workers.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController

from . import _forks

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cores() -> int:
    """Cores this process may run on (its affinity mask), at most ``NUMBA_NUM_THREADS`` where that is set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    limit = os.environ.get("NUMBA_NUM_THREADS", "")
    return int(limit) if limit.isdigit() and int(limit) > 0 else cores


def resolve_n_jobs(n_jobs: int | None) -> int:
    """Number of threads: None for all usable cores, negative counts back from them as in joblib."""
    if n_jobs is None:
        return usable_cores()
    if isinstance(n_jobs, bool) or not hasattr(n_jobs, "__index__"):
        raise TypeError(f"n_jobs: wanted an integer or None, got {type(n_jobs).__name__}")
    count = int(n_jobs)
    if count == 0:
        raise ValueError("n_jobs: 0 has no meaning; use None for all cores, or a count")
    return count if count > 0 else max(1, usable_cores() + 1 + count)


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], n_jobs: int, *, in_flight: int | None = None
) -> Iterator[Result]:
    """Map over threads; results come in order, with a bounded number of them unconsumed.

    The first item that fails, in order, raises; items after it are dropped.

    Parameters
    ----------
    function : callable
        Runs in a worker thread; must release the GIL to gain anything.
    items : iterable
    n_jobs : int
        Threads, as :func:`resolve_n_jobs` returns them. One thread runs in the caller's own.
    in_flight : int, optional
        Items submitted and not yet consumed, at most; ``n_jobs`` where not given.
    """
    if n_jobs <= 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(n_jobs, thread_name_prefix="qixai") as pool:
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                if len(pending) >= (in_flight or n_jobs):
                    yield pending.popleft().result()
                pending.append(pool.submit(function, item))
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


@cache
def _controller(loaded: frozenset[str]) -> Any:
    """Find the BLAS libraries in this process; once for each set of packages that bring one."""
    del loaded
    return ThreadpoolController()


def _loaded() -> frozenset[str]:
    return frozenset({"numpy.linalg", "scipy.linalg", "torch"} & sys.modules.keys())


def _set_blas_threads(library: Any, count: int) -> None:
    # threadpoolctl 3.8 lets only the thread that set a limit first change it again, and ignores all others
    # silently. Here the last user lifts what the first has set, whichever threads they run in.
    getattr(library, "_real_set_num_threads", library.set_num_threads)(count)


_blas_lock = threading.RLock()
_blas_users = 0
_blas_before: list[tuple[Any, int]] = []
_own = threading.local()  # how many of the users are this thread's
_forks.held_by_forks(_blas_lock)


def _lift_limit() -> None:
    for library, count in _blas_before:
        _set_blas_threads(library, count)


@_forks.in_child
def _forget_other_users() -> None:
    """In a forked child: the users in other threads are not there to lift the limit."""
    global _blas_users
    before, _blas_users = _blas_users, getattr(_own, "users", 0)
    if before and not _blas_users:
        _lift_limit()


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Run BLAS and LAPACK on one thread each: their results change with their thread count.

    The limit belongs to the process, so concurrent users share it: the first sets it, the last lifts it.
    """
    global _blas_users, _blas_before
    with _blas_lock:
        if _blas_users == 0:
            libraries = _controller(_loaded()).select(user_api="blas").lib_controllers
            _blas_before = [(library, library.get_num_threads()) for library in libraries]
            for library, _ in _blas_before:
                _set_blas_threads(library, 1)
        _blas_users += 1
        _own.users = getattr(_own, "users", 0) + 1
    try:
        yield
    finally:
        with _blas_lock:
            _blas_users -= 1
            _own.users = getattr(_own, "users", 0) - 1
            if _blas_users == 0:
                _lift_limit()
