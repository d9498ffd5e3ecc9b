"""Scenarios for processes of their own: our calls in forks, workers and threads. ``main`` runs one by name.

A process that hangs prints where all its threads stand, and ends with an exit code that is not 0.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import qixai_fast as qf

CHILD_SECONDS = 20
SECONDS = 60


def end_after(seconds: int) -> None:
    """End this process, with the stacks of its threads; faulthandler's own clock would hang after a fork."""
    faulthandler.enable()
    faulthandler.register(signal.SIGALRM, all_threads=True, chain=True)
    signal.alarm(seconds)


def data(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.maximum(rng.standard_normal((1500, 6)) @ rng.standard_normal((6, 6)), 0).astype(np.float32)


def pca(n_jobs: int = 1, seed: int = 0) -> Any:
    found = qf.pca(data(seed), 3, random_state=0, n_jobs=n_jobs)
    return found.components, found.singular_values


def binned(n_jobs: int = 1, seed: int = 0) -> Any:
    return qf.pairwise_mutual_info_binned(data(seed), n_jobs=n_jobs)


def ksg(n_jobs: int = 1, seed: int = 0) -> Any:
    return qf.pairwise_mutual_info_ksg(data(seed)[:500, :3], n_jobs=n_jobs)


def cosine(n_jobs: int = 1, seed: int = 0) -> Any:
    return qf.cosine_similarity(data(seed), axis=0, n_jobs=n_jobs)


def permuted(n_jobs: int = 1, seed: int = 0) -> Any:
    x = data(seed)[:300]
    found = qf.mutual_info_test(x[:, :2], x[:, 2:], n_permutations=99, random_state=0, n_jobs=n_jobs)
    return found.values, found.pvalues, found.null_mean


def cka(n_jobs: int = 1, seed: int = 0) -> Any:
    x = data(seed)
    return qf.linear_cka(x[:, :3], x[:, 3:], n_jobs=n_jobs), qf.von_neumann_entropy(x + 1, n_jobs=n_jobs)


FAMILIES: list[Callable[..., Any]] = [pca, binned, ksg, cosine, permuted, cka]


def bits(found: Any) -> bytes:
    """The bytes of a number, an array, or a tuple of them."""
    if isinstance(found, tuple):
        return b"".join(map(bits, found))
    return np.asarray(found).tobytes()


def call(function: Callable[..., Any], n_jobs: int = 1) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bits(function(n_jobs))


def all_families(n_jobs: int = 1) -> list[bytes]:
    return [call(function, n_jobs) for function in FAMILIES]


def audited(store: str) -> str:
    plan = qf.AuditPlan(n_permutations=29, n_top_pairs=2, n_jobs=2)
    return repr(qf.audit(store, plan=plan, progress=False).results)


@contextmanager
def small_store() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        with qf.create_store(folder, {"a": qf.LayerSpec((3,)), "b": qf.LayerSpec((3,))}) as writer:
            writer.append({"a": data()[:300, :3], "b": data()[:300, 3:]})
        yield folder


def forked(work: Callable[[], Any]) -> int:
    """Start a child that runs ``work`` and ends with 0 where it returns True."""
    child = os.fork()
    if child:
        return child
    end_after(CHILD_SECONDS)
    code = 2
    try:
        code = 0 if work() is True else 3
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(child: int) -> None:
    """Wait for a child, which must have ended with 0."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, f"a child ended with {code}"


@contextmanager
def busy(*loops: Callable[[], Any]) -> Iterator[None]:
    """Run functions again and again, each in a thread of its own; they must not fail."""
    stop, failed = threading.Event(), []

    def run(loop: Callable[[], Any]) -> None:
        try:
            while not stop.is_set():
                loop()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == [], failed


def compile_one() -> None:
    """Compile something with numba, which takes its lock for some milliseconds."""
    import numba

    assert numba.njit(lambda value: value + 1)(1) == 2


def after_use() -> None:
    """Forks of a process that has used everything, threads included, an audit among it."""
    with small_store() as store:
        wanted, report = all_families(2), audited(store)

        def work() -> bool:
            return all_families(2) == wanted and audited(store) == report

        for child in [forked(work) for _ in range(2)]:
            ended(child)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map_async(all_families, [1, 2]).get(CHILD_SECONDS) == [wanted, wanted]


def while_busy() -> None:
    """Forks at random moments while other threads are inside our calls, BLAS's limit and numba's lock."""
    from threadpoolctl import threadpool_info

    from qixai_fast._threads import single_threaded_blas

    def counts() -> list[int]:
        return [found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"]

    def limited() -> None:
        with single_threaded_blas():
            time.sleep(0.001)

    wanted = all_families()
    before = counts()

    def work(number: int) -> bool:
        chosen = number % len(FAMILIES)
        compile_one()
        right = call(FAMILIES[chosen], 1 + number % 2) == wanted[chosen]
        return right and counts() == before

    loops = [partial(call, function, 2) for function in FAMILIES[:4]]
    with busy(*loops, compile_one, limited):
        for number in range(24):
            ended(forked(partial(work, number)))
            time.sleep(0.0007 * number)
    assert counts() == before


def half_held() -> None:
    """A fork at the very moment when another thread holds what ours or tqdm's bars are guarded by."""
    from tqdm import tqdm
    from tqdm.std import TqdmDefaultWriteLock

    from qixai_fast import _forks, _threads

    all_families()
    drawing = TqdmDefaultWriteLock.th_lock
    tqdm.get_lock()
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with _threads.single_threaded_blas(), drawing:
            inside.set()
            leave.wait()

    def work() -> bool:
        for _ in tqdm(range(3), file=open(os.devnull, "w")):  # noqa: SIM115
            pass
        assert _threads._blas_users == 0
        return all_families() is not None

    def briefly(lock: Any, taken: threading.Event) -> None:
        with lock:
            taken.set()
            time.sleep(0.1)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    with _threads.single_threaded_blas():  # the child's own share of the limit stays, and it lifts that
        ended(forked(lambda: _threads._blas_users == 1 and all_families() is not None))
    ended(forked(work))
    leave.set()
    thread.join()
    from numba.core.compiler_lock import global_compiler_lock

    for lock in (_threads._blas_lock, _forks.importing, global_compiler_lock):
        taken = threading.Event()
        thread = threading.Thread(target=briefly, args=(lock, taken))
        thread.start()
        taken.wait()
        ended(forked(lambda: compile_one() is None and all_families() is not None))
        thread.join()


def first_import() -> None:
    """A fork while another thread imports a public name for the first time."""
    thread = threading.Thread(target=lambda: qf.pca)
    thread.start()
    time.sleep(0.02)
    child = forked(lambda: len(call(pca)) > 0)
    thread.join()
    ended(child)


def import_that_logs() -> None:
    """A fork while another thread imports a module of ours, which makes a logger and a pool on the way."""
    code = (
        "import os, threading, time; import qixai_fast; from qixai_fast import _forks\n"
        "from concurrent.futures import ThreadPoolExecutor; import logging\n"
        "held = threading.Event()\n"
        "def work():\n"
        "    with _forks.importing:\n"
        "        held.set(); time.sleep(0.2); logging.getLogger('new')\n"
        "        with ThreadPoolExecutor(1) as pool: pool.submit(int).result()\n"
        "thread = threading.Thread(target=work); thread.start(); held.wait()\n"
        "child = os.fork()\n"
        "if not child: os._exit(0)\n"
        "os.waitpid(child, 0); thread.join()"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=CHILD_SECONDS)


def joblib() -> None:
    """joblib's backends around our functions, with and without threads in them."""
    from joblib import Parallel, delayed

    wanted = all_families()
    for backend in ("loky", "multiprocessing", "threading"):
        jobs = (delayed(call)(function, n_jobs) for n_jobs in (1, 2) for function in FAMILIES)
        found = Parallel(n_jobs=2, backend=backend)(jobs)
        assert found == wanted + wanted, backend


def fresh_processes() -> None:
    """Started anew, not forked."""
    wanted = all_families()
    for method in ("spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.map_async(all_families, [2]).get(2 * CHILD_SECONDS) == [wanted], method


def data_loader() -> None:
    """torch's workers: they call us, feed a capture, and our gradients run in forked children."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(2)
    model = torch.nn.Sequential(torch.nn.Linear(300, 400), torch.nn.ReLU(), torch.nn.Linear(400, 3)).eval()
    inputs = torch.randn(200, 300)

    def gradients() -> torch.Tensor:
        return qf.integrated_gradients(model, inputs, target=0, n_steps=8, progress=False).values

    class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return 40

        def __getitem__(self, index: int) -> Any:
            found = b"".join(all_families(1 + index % 2)) if index % 8 == 0 else b""
            return inputs[index], index % 3, found == b"" or found == whole

    whole = b"".join(all_families(2))
    wanted = gradients()
    large = torch.randn(2000, 60).to(torch.bfloat16)
    entropy = qf.von_neumann_entropy(large)

    def work() -> bool:
        torch.testing.assert_close(gradients(), wanted)
        assert torch.get_num_threads() == 1
        return bool(abs(qf.von_neumann_entropy(large) - entropy) < 1e-9)

    def load() -> Any:
        return torch.utils.data.DataLoader(Rows(), batch_size=8, num_workers=2)

    def batches() -> Iterator[Any]:
        for rows, labels, right in load():
            assert bool(right.all())
            yield rows, labels

    with tempfile.TemporaryDirectory() as folder:
        store = qf.capture(model, batches(), ["1"], folder, labels=1, progress=False)
        alone = model[:2](inputs[:40]).detach().numpy()
        np.testing.assert_allclose(store["1"], alone, rtol=1e-4, atol=1e-5)
        plan = qf.AuditPlan(n_permutations=29, n_top_pairs=2, max_maps=8)
        report = qf.audit(store, plan=plan, model=model, inputs=load_inputs(load()), progress=False)
        assert report.results["labels"]["n_classes"] == 3
        ended(forked(work))
        ended(forked(lambda: repr(captured(model, inputs, Path(folder) / "again")) != ""))
    assert torch.get_num_threads() == 2
    torch.testing.assert_close(gradients(), wanted)


def load_inputs(batches: Any) -> Iterator[Any]:
    for rows, *_ in batches:
        yield rows


def captured(model: Any, inputs: Any, folder: Path) -> Any:
    return qf.capture(model, inputs.split(50), ["0", "1"], folder, progress=False).verify()


def numba_layer() -> None:
    """A user's own parallel function beside us, on the layer that NUMBA_THREADING_LAYER names."""
    import numba

    wanted = all_families(2)
    started = True
    try:
        numba.threading_layer()
    except ValueError:
        started = False
    assert not started, "our calls have started numba's threads"

    @numba.njit(parallel=True)
    def total(values):
        found = 0.0
        for i in numba.prange(len(values)):
            found += values[i]
        return found

    values = np.ones(10_000)
    assert total(values) == len(values)
    assert numba.threading_layer() == os.environ["NUMBA_THREADING_LAYER"]
    failed: list[Any] = []
    with busy(*[lambda: failed.append(1) if all_families(2) != wanted else None] * 3):
        for _ in range(200):
            assert total(values) == len(values)
            time.sleep(0.001)
        for child in [forked(lambda: all_families(2) == wanted) for _ in range(2)]:
            ended(child)
    assert failed == []
    ended(forked(lambda: all_families(2) == wanted))


def eight_threads() -> None:
    """The same call in eight threads at once, and all calls side by side."""
    wanted = all_families()
    for chosen in [*([number] * 8 for number in range(len(FAMILIES))), [*range(len(FAMILIES)), 0, 1]]:
        found: dict[int, bytes] = {}
        start = threading.Barrier(len(chosen))

        def work(place: int, number: int, found: Any = found, start: Any = start) -> None:
            start.wait()
            found[place] = bits(FAMILIES[number](1 + place % 2))

        threads = [threading.Thread(target=work, args=pair) for pair in enumerate(chosen)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [found[place] for place in range(len(chosen))] == [wanted[number] for number in chosen]


def main(name: str) -> None:
    end_after(SECONDS)
    globals()[name]()
    print("done")


if __name__ == "__main__":
    main(sys.argv[1])
