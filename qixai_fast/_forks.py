"""Forks (``os.fork``, ``multiprocessing``, a data loader's workers) while other threads are inside our calls.

A forked child has only the thread that forked, and a copy of every lock. One that another thread held at that
moment stays locked for ever, and what it guarded may be half done. So a fork waits until the short work under
locks is over: first imports of our modules, compilation, changes of BLAS threads. The rest is made anew.
"""

from __future__ import annotations

# Both take a lock of their own before a fork, and what is registered last comes first: loaded after us, they
# would hold it while we wait for a thread that is importing, and that logs or starts threads on the way.
import concurrent.futures.thread  # noqa: F401
import logging  # noqa: F401
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

# A thread that waits for the one that forks would keep both waiting. Then the child gets a lock of its own,
# which is better than no child.
_PATIENCE = 60.0

importing = threading.RLock()
"""Held while a public name is imported: a module that a fork finds half imported is lost to the child."""

_ours: list[Any] = [importing]
_in_child: list[Callable[[], None]] = []
_one_at_a_time = threading.RLock()
_taken: list[Any] = []
_torch_was_loaded = False


def held_by_forks(lock: Any) -> None:
    """Let every fork wait for a lock (an ``RLock``), so that no child finds it held by a thread it lacks."""
    _ours.append(lock)


def in_child(call: Callable[[], None]) -> Callable[[], None]:
    """Run a function in every forked child, while it holds the locks of :func:`held_by_forks`."""
    _in_child.append(call)
    return call


def _of_numba() -> list[Any]:
    """The locks around compilation and around LLVM, in the order in which numba takes them."""
    compiling = sys.modules.get("numba.core.compiler_lock")
    llvm = sys.modules.get("llvmlite.binding.ffi")
    owners = [getattr(compiling, "global_compiler_lock", None)]
    owners.append(getattr(getattr(llvm, "lib", None), "_lock", None))
    return [lock for owner in owners if (lock := getattr(owner, "_lock", None)) is not None]


def _before() -> None:
    _one_at_a_time.acquire()
    _taken.extend(lock for lock in [*_ours, *_of_numba()] if lock.acquire(timeout=_PATIENCE))


def _release() -> None:
    while _taken:
        _taken.pop().release()
    _one_at_a_time.release()


def _after_in_child() -> None:
    global _torch_was_loaded
    _torch_was_loaded = _torch_was_loaded or "torch" in sys.modules
    try:
        _renew_bars()
        for call in _in_child:
            call()
    finally:
        _release()


def _renew_bars() -> None:
    """Give tqdm another lock: a thread that is not here may have held it to draw."""
    tqdm: Any = sys.modules.get("tqdm.std")
    if tqdm is None:
        return
    lock = threading.RLock()
    tqdm.TqdmDefaultWriteLock.th_lock = lock
    used = getattr(tqdm.tqdm, "_lock", None)
    if isinstance(used, tqdm.TqdmDefaultWriteLock):
        used.locks = [*used.locks[:-1], lock]


def ready_torch() -> None:
    """Before we run torch: on one thread in a forked child, as in a data loader's workers.

    OpenMP's threads are not copied by a fork, and GNU's library waits for them for ever.
    """
    global _torch_was_loaded
    if _torch_was_loaded:
        import torch

        torch.set_num_threads(1)
        _torch_was_loaded = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_release, after_in_child=_after_in_child)
