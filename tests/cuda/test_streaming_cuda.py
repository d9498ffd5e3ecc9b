"""Order of copies and work, budgets, and work over several devices, by the record of a stand-in device."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accounting import device_memory
from fake_device import FakeBackend

from qixai_fast._gpu.rows import DeviceRows
from qixai_fast._gpu.spread import spread
from qixai_fast.errors import MemoryBudgetError


class Recorded(FakeBackend):
    """Also records host writes, copies and work, by the buffers that they touch."""

    def __init__(self, index=0):
        super().__init__(index)
        self.hosts = []

    def pinned(self, shape, dtype):
        tensor = super().pinned(shape, dtype)
        self.hosts.append(tensor)
        return tensor


@pytest.fixture
def backend():
    return Recorded()


def consumed(backend, n, rows, *, stop=None):
    """What the record holds of a stream through n rows, with ("work", start) where a block is worked on."""
    X = np.arange(3.0 * n).reshape(n, 3)
    sides = {}
    for start, block in DeviceRows.of(X, "X", backend).blocks(rows):
        np.testing.assert_array_equal(block.numpy(), X[start : start + rows])
        sides[start] = block.data_ptr()
        backend.log.append(("work", start))
        if start == stop:
            break
    return [entry for entry in backend.log if entry[0] != "pinned"], sides


def test_the_next_copy_is_on_its_way_before_a_block_is_worked_on(backend):
    log, sides = consumed(backend, 40, 8)
    copies = [i for i, entry in enumerate(log) if entry[0] == "mark" and entry[2] == "copies"]
    works = [i for i, entry in enumerate(log) if entry[0] == "work"]
    assert len(copies) == len(works) == 5
    for number in range(4):
        assert copies[number + 1] < works[number]
    starts = list(sides)
    assert len(set(sides.values())) == 2
    assert all(sides[a] != sides[b] for a, b in pairwise(starts))


def test_a_buffer_is_sent_to_only_after_the_work_on_it(backend):
    log, _ = consumed(backend, 40, 8)
    copies = [i for i, entry in enumerate(log) if entry[0] == "mark" and entry[2] == "copies"]
    works = [i for i, entry in enumerate(log) if entry[0] == "work"]
    for number, place in enumerate(copies):
        kind, mark, stream = log[place - 1]
        assert (kind, stream) == ("wait", "copies")
        marked = log.index(("mark", mark, "current"))
        if number >= 2:
            assert works[number - 2] < marked < place, "the mark follows the work on that buffer"
        else:
            assert marked < copies[0], "and the memory's former use, at first"


def test_work_waits_for_its_copy_and_a_host_buffer_for_its_own(backend):
    log, _ = consumed(backend, 40, 8)
    copies = [entry for entry in log if entry[0] == "mark" and entry[2] == "copies"]
    for number, (_, mark, _) in enumerate(copies):
        at_work = log.index(("work", 8 * number))
        assert ("wait", mark, "current") in log[:at_work]
        if number + 2 < len(copies):
            # Filled again before that next copy is sent: the host has waited for this one until then.
            assert log.index(("block until", mark)) < log.index(copies[number + 2])


def test_leaving_early_waits_for_the_copies_under_way(backend):
    log, _ = consumed(backend, 40, 8, stop=8)
    copies = [entry[1] for entry in log if entry[0] == "mark" and entry[2] == "copies"]
    assert len(copies) == 3
    assert {("block until", copies[1]), ("block until", copies[2])} <= set(log[log.index(("work", 8)) :])


def test_input_that_fails_midway_waits_too(backend):
    class Broken(np.ndarray):
        def __getitem__(self, rows):
            if isinstance(rows, slice) and rows.start == 16:
                raise OSError("the file is gone")
            return super().__getitem__(rows)

    X = np.zeros((40, 3)).view(Broken)
    rows = DeviceRows("X", X, backend)
    with pytest.raises(OSError, match="the file is gone"):
        for _ in rows.blocks(8):
            pass
    copies = [entry[1] for entry in backend.log if entry[0] == "mark" and entry[2] == "copies"]
    assert [("block until", mark) in backend.log for mark in copies] == [True, True]


def test_pinned_input_is_sent_as_it_lies(backend):
    backend.pinned_inputs = True
    _, sides = consumed(backend, 21, 8)
    assert backend.hosts == []
    assert len(sides) == 3
    columns = DeviceRows.of(np.asfortranarray(np.ones((21, 3))), "X", backend)
    assert sum(len(block) for _, block in columns.blocks(8)) == 21
    assert len(backend.hosts) == 2, "a copy to the device wants rows that lie together"


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 16, 17])
def test_small_inputs(backend, n):
    log, _ = consumed(backend, n, 8)
    assert [entry[1] for entry in log if entry[0] == "work"] == list(range(0, n, 8))


def test_large_blocks_are_filled_by_several_threads(backend, monkeypatch):
    from qixai_fast._gpu import rows as module

    monkeypatch.setattr(module, "_READ_BYTES", 64)
    monkeypatch.setattr(module, "usable_cores", lambda: 4)
    X = np.arange(999.0 * 3).reshape(999, 3)
    taken = torch.cat([block.clone() for _, block in DeviceRows.of(X, "X", backend).blocks(100)])
    np.testing.assert_array_equal(taken.numpy(), X)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int16])
def test_blocks_take_what_they_say(dtype):
    gpu = SimpleNamespace(simulated=True, backend=FakeBackend())
    rows = DeviceRows.of(np.ones((1000, 16), dtype), "X", gpu.backend)
    with device_memory(gpu) as used:
        for _ in rows.blocks(100):
            pass
    assert rows.block_bytes(100) <= used.peak <= rows.block_bytes(100) + 100, "but for sums"


def test_the_accountant_sees_each_tensor_once():
    gpu = SimpleNamespace(simulated=True, backend=FakeBackend())
    with device_memory(gpu) as used:
        first = torch.zeros(1000)
        second = first + 1  # 8,000 bytes of two
        del first
        third = second[10:].reshape(-1, 2)
        third += 1
        shared = torch.from_numpy(np.ones(10**6))
        shared *= 2
        buffer = gpu.backend.pinned((10**6,), torch.float32)
        buffer += 1
    assert used.peak == 8000


def test_budgets():
    backend = FakeBackend(memory=10**6)
    assert backend.budget(None) == 900_000
    assert backend.budget(10**5) == 10**5
    assert backend.budget(10**9) == 900_000
    backend.require(100, 100, "a table")
    with pytest.raises(MemoryBudgetError, match=r"a table needs 101 B of cpu, it may take 100 B") as caught:
        backend.require(100, 101, "a table")
    assert caught.value.required == 101


def test_items_come_in_order_from_all_devices():
    backends = [FakeBackend(0), FakeBackend(1)]
    both = threading.Barrier(2, timeout=30)
    used = []

    def work(backend, item):
        if item < 2:
            both.wait()  # one device alone would never get here twice
        time.sleep(0.002 * (item % 3))
        used.append(backend.index)
        return item, backend

    results = list(spread(work, range(20), backends))
    assert [item for item, _ in results] == list(range(20))
    assert set(used) == {0, 1}
    assert all(("mark", 1, "current") in backend.log for backend in backends)
    assert all(backend.log[1] == ("block until", 1) for backend in backends), "the caller's work first"


def test_one_item_at_a_time_has_a_device():
    busy, most = {0: 0, 1: 0}, []

    def work(backend, item):
        busy[backend.index] += 1
        most.append(busy[backend.index])
        time.sleep(0.001)
        busy[backend.index] -= 1
        return item

    assert list(spread(work, range(30), [FakeBackend(0), FakeBackend(1)])) == list(range(30))
    assert max(most) == 1


@pytest.mark.parametrize("count", [1, 2])
def test_the_first_item_that_fails_raises(count):
    backends = [FakeBackend(index) for index in range(count)]

    def work(backend, item):
        if item >= 3:
            raise ArithmeticError(f"item {item}")
        return item

    results = spread(work, range(100), backends)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ArithmeticError, match="item 3"):
        next(results)
    assert list(spread(lambda backend, item: item, range(3), backends)) == [0, 1, 2]


@pytest.mark.parametrize("count", [1, 2])
def test_spread_left_early_starts_no_more(count):
    backends = [FakeBackend(index) for index in range(count)]
    started = []

    def work(backend, item):
        started.append(item)
        return item

    results = spread(work, range(1000), backends)
    assert next(results) == 0
    results.close()
    assert len(started) <= 2 * count + 1


def test_a_single_device_is_current_for_the_work_alone():
    backend = FakeBackend()
    inside = []

    class Current:
        def __enter__(self):
            inside.append(True)

        def __exit__(self, *rest):
            inside.pop()

    backend.current = Current
    for item in spread(lambda backend, item: len(inside), range(3), [backend]):
        assert item == 1
        assert not inside, "the caller's device is its own between results"


def test_spread_of_nothing():
    for count in (1, 2):
        assert list(spread(lambda backend, item: item, [], [FakeBackend(i) for i in range(count)])) == []
