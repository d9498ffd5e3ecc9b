"""Work on a Dask cluster: the same leaves, pairs and tree as on threads, in other processes.

Two places hold all work that is cut: leaves of rows combined in one tree (:func:`tree`), and blocks of pairs
or columns (:func:`mapped`). Both run on threads of this process, unless :func:`on_cluster` is set. Data
does not travel: an array that is a view of a file, or was made from one, is sent as the file's name or as the
call that made it (:mod:`qixai_fast._origins`), and every worker keeps what it has opened.

The context variable is that of the thread which set it: threads of ours inside a task, or beside an audit,
work where they are.
"""

from __future__ import annotations

import copy
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from . import _origins
from ._threads import ordered_map, single_threaded_blas
from ._trees import combine_tree
from .errors import ClusterError
from .store.remote import source_of

Item = TypeVar("Item")
Result = TypeVar("Result")
Partial = TypeVar("Partial")

# Subtrees and batches, for each thread of the cluster: enough that a slow worker holds nobody up for long.
_TASKS_PER_THREAD = 8
# Partials that one task combines: so many of them are held at a time.
_FAN_IN = 4
# Tasks in flight for each thread where items come one after the other, and how long one of these should take.
_IN_FLIGHT = 3
_TASK_SECONDS = 0.25
# Arrays up to this size are sent, wherever they came from.
_SMALL_BYTES = 2**24
# How often to look whether scheduler and workers are still there, and how long to wait for them.
_POLL_SECONDS = 1.0
_PATIENCE_SECONDS = 60.0

_current: ContextVar[Cluster | None] = ContextVar("qixai_fast_cluster", default=None)
_numbers = itertools.count()


def current() -> Cluster | None:
    """The cluster that work goes to; None for this process."""
    return _current.get()


@contextmanager
def on_cluster(client: Any) -> Iterator[Cluster]:
    """Send what is cut to the workers of a ``distributed.Client``, until the context ends."""
    cluster = Cluster(client)
    token = _current.set(cluster)
    try:
        yield cluster
    finally:
        _current.reset(token)
        cluster.forget()


def mapped(function: Callable[[Item], Result], items: Iterable[Item], n_jobs: int) -> Iterator[Result]:
    """:func:`~qixai_fast._threads.ordered_map` of a function without side effects, here or on a cluster."""
    cluster = _current.get()
    if cluster is None:
        return ordered_map(function, items, n_jobs)
    return cluster.map(function, items)


def tree(
    function: Callable[[Item], Partial],
    items: Sequence[Item],
    combine: Callable[[Partial, Partial], Partial],
    n_jobs: int,
) -> Partial:
    """Combine the partials of all items in the tree that their order fixes, here or on a cluster."""
    cluster = _current.get()
    if cluster is None:
        return combine_tree(ordered_map(function, items, n_jobs), combine)
    return cluster.reduce(function, items, combine)


# What runs on a worker --------------------------------------------------------------------------


def _keep(payload: bytes) -> bytes:
    return payload


def _named(error: Exception) -> Exception:
    """An error about files, naming the worker; others as they are."""
    if isinstance(error, _origins.Unseen):
        return error.on(_worker_name())
    return error


def _worker_name() -> str:
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:
        return "this process"
    return str(worker.address)


def _subtree(payload: bytes, items: bytes) -> Any:
    """One partial of consecutive items."""
    try:
        function, combine = _origins.load(payload)
        with single_threaded_blas():
            return combine_tree(map(function, _origins.read(items)), combine)
    except _origins.Unseen as error:
        raise _named(error) from None


def _joined(payload: bytes, partials: Sequence[Any]) -> Any:
    """One partial of some. The first is copied: a task that runs again must find it as it was."""
    _, combine = _origins.load(payload)
    first, *others = partials
    with single_threaded_blas():
        return combine_tree([copy.deepcopy(first), *map(copy.deepcopy, others)], combine)


def _batch(payload: bytes, items: bytes) -> tuple[list[Any], float]:
    """Results of some items, and the seconds they took."""
    try:
        function = _origins.load(payload)
        began = time.perf_counter()
        with single_threaded_blas():
            return [function(item) for item in _origins.read(items)], time.perf_counter() - began
    except _origins.Unseen as error:
        raise _named(error) from None


def _call(payload: bytes, item: Any, *depends: Any) -> Any:
    """A function of one item and of other tasks' results."""
    try:
        function = _origins.load(payload)
        with single_threaded_blas():
            return function(item, *depends)
    except _origins.Unseen as error:
        raise _named(error) from None


def _word(function: Callable[..., Any] | None) -> str:
    """A function's name in letters alone."""
    name = "any" if function is None else getattr(function, "__name__", type(function).__name__)
    return "".join(filter(str.isalpha, name)) or "any"


# What runs here ---------------------------------------------------------------------------------


class Cluster:
    """A ``distributed.Client``, and how work is cut for it.

    Parameters
    ----------
    client : distributed.Client

    Attributes
    ----------
    n_tasks : int
        Tasks sent so far.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self.n_tasks = 0
        self._seen: dict[str, int] = {}

    @property
    def threads(self) -> int:
        """Threads of all workers there are now, one at least."""
        return max(1, len(self._seats()))

    def _seats(self) -> list[str]:
        """Addresses of all workers there are now, each as often as it has threads, in turns."""
        with self._answered():
            threads = {address: int(count) for address, count in sorted(self.client.nthreads().items())}
        turns = range(max(threads.values(), default=0))
        return [address for turn in turns for address, count in threads.items() if turn < count]

    @contextmanager
    def _answered(self) -> Iterator[None]:
        """Turn what happens where the scheduler is gone into one error."""
        try:
            yield
        except (OSError, TimeoutError):
            raise ClusterError(f"the scheduler at {self.address} does not answer any more") from None

    @property
    def address(self) -> str:
        scheduler = self.client.scheduler
        return str(scheduler.address if scheduler is not None else "the cluster")

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """A function's result, or the exception, on each worker, by its address."""
        with self._answered():
            found: dict[str, Any] = self.client.run(function, *arguments, on_error="return")
        return found

    def forget(self) -> None:
        """Let workers drop what they keep for this process."""
        if self.client.status == "running":
            try:
                self.client.run(_origins.forget, on_error="ignore")
            except (OSError, TimeoutError):
                return

    def reaches(self, *matrices: Any) -> bool:
        """Whether all workers see the files that some matrices (or None) lie in, or were made from.

        Work on others is done here: to send them would cost more than it saves.
        """
        for matrix in matrices:
            paths = [] if matrix is None else _origins.files_of(matrix.data)
            if not all(self._sees(path) for path in paths):
                return False
            if matrix is not None and not paths and matrix.data.nbytes > _SMALL_BYTES:
                return False
        return True

    def _sees(self, path: str) -> bool:
        if source_of(path) is not None:  # workers make copies of their own
            return True
        size = os.path.getsize(path)
        if self._seen.get(path) != size:
            found = self.everywhere(_origins.size_of, path)
            if any(there != size for there in found.values()):
                return False
            self._seen[path] = size
        return True

    def submit(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        kind: Callable[..., Any] | None = None,
        worker: str | None = None,
    ) -> Any:
        """A future of a module's own function; arguments may be futures, or lists of them.

        ``worker`` should run it, if it is there and not behind the others.

        The scheduler learns how long tasks of a kind take, by the words of their keys: without one, long
        tasks would be taken for short ones, and pile up on the worker that has what they need.
        """
        self.n_tasks += 1
        key = f"qixai-{_word(function)}-{_word(kind)}-{id(self):x}-{next(_numbers)}"
        place = {} if worker is None else {"workers": [worker], "allow_other_workers": True}
        return self.client.submit(function, *arguments, key=key, pure=False, **place)

    def payload(self, value: Any) -> Any:
        """Functions and what they close over, kept on the cluster; a task that is run again finds them."""
        return self.submit(_keep, _origins.dump(value))

    def wait(self, future: Any) -> Any:
        """A task's result, or the error that says what happened to it.

        Raises
        ------
        ClusterError
            Where the scheduler or all workers are gone, or the task took too many workers with it.
        """
        from distributed import KilledWorker
        from distributed.client import FutureCancelledError
        from distributed.comm.core import CommClosedError

        deadline: float | None = None
        while True:
            try:
                return future.result(timeout=_POLL_SECONDS)
            except KilledWorker as error:
                raise ClusterError(_how_it_died(error)) from None
            except (FutureCancelledError, CommClosedError):
                raise ClusterError(f"the scheduler at {self.address} is gone, with its tasks") from None
            except TimeoutError:
                if future.done():
                    if future.status != "error":
                        continue
                    raise
            if self.client.status == "running" and self._has_workers():
                deadline = None
                continue
            deadline = deadline or time.monotonic() + _PATIENCE_SECONDS
            if time.monotonic() > deadline:
                lost = "has no workers" if self.client.status == "running" else "does not answer"
                raise ClusterError(f"the scheduler at {self.address} {lost}, for {_PATIENCE_SECONDS:.0f} s")

    def _has_workers(self) -> bool:
        try:
            return bool(self.client.nthreads())
        except (OSError, TimeoutError):
            return False

    def reduce(
        self,
        function: Callable[[Item], Partial],
        items: Sequence[Item],
        combine: Callable[[Partial, Partial], Partial],
    ) -> Partial:
        """As :func:`tree`: a task takes an aligned subtree, and workers combine what tasks give.

        Subtrees of 2^k items are whole nodes of the tree over all items, so that nothing is combined
        otherwise than on one machine.
        """
        size = 1
        while len(items) > size * _TASKS_PER_THREAD * self.threads:
            size *= 2
        payload = self.payload((function, combine))
        cut = [items[start : start + size] for start in range(0, len(items), size)]
        leaves = [self.submit(_subtree, payload, _origins.dump(part), kind=function) for part in cut]
        level = leaves
        while len(level) > 1:
            groups = [level[start : start + _FAN_IN] for start in range(0, len(level), _FAN_IN)]
            level = [
                group[0] if len(group) == 1 else self.submit(_joined, payload, group, kind=function)
                for group in groups
            ]
        try:
            result: Partial = self.wait(level[0])
        except ClusterError:
            raise
        except Exception:
            # The first in order is the error that one machine gives.
            for leaf in leaves:
                self.wait(leaf)
            raise
        return result

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """As :func:`mapped`: batches of items, longer ones where items are quick, a few of them in flight."""
        payload = self.payload(function)
        seats = self._seats()
        threads = max(1, len(seats))
        # In turns: left alone, the scheduler puts the first tasks where their function is, all of them.
        turns = itertools.cycle(seats or [None])
        longest = 2**20
        if isinstance(items, Sized):
            longest = max(1, len(items) // (_TASKS_PER_THREAD * threads))
        pending: deque[Any] = deque()
        source = iter(items)
        size = 1
        while True:
            while len(pending) < _IN_FLIGHT * threads:
                batch = list(itertools.islice(source, size))
                if not batch:
                    break
                pending.append(
                    self.submit(_batch, payload, _origins.dump(batch), kind=function, worker=next(turns))
                )
            if not pending:
                return
            results, seconds = self.wait(pending.popleft())
            each = seconds / len(results)
            wanted = int(_TASK_SECONDS / each) if each > 0 else 2 * size
            size = max(1, min(longest, 2 * size, wanted))
            yield from results

    def graph(self, function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Futures of ``function(item, *results)`` for each ``(item, *futures)``."""
        payload = self.payload(function)
        return [self.submit(_call, payload, *call, kind=function) for call in calls]


def _how_it_died(error: Any) -> str:
    last = getattr(error, "last_worker", None)
    where = "" if last is None else f", the last at {getattr(last, 'address', last)}"
    times = getattr(error, "allowed_failures", 0) + 1
    return (
        f"a task ended {times} workers{where}: most likely their memory was too small for it. Give workers "
        "more memory (--memory-limit), run fewer threads in each, or audit fewer layers at a time"
    )
