"""Killed, interrupted, out of space, two at once: complete samples stay, resuming gives the same bytes."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from store_samples import CHUNK, assert_holds, content, fill, samples, writer

from qixai_fast import StoreError
from qixai_fast.store import LayerSpec, create_store, npy, open_store
from qixai_fast.store import writer as writing

HERE = Path(__file__).parent
TOTAL = 57


@pytest.fixture
def quick(tmp_path):
    """A folder where syncing costs nothing, if there is one: these tests sync some thousand times."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def in_child(work):
    """Run in a forked child; return its wait status. Its own exceptions end it with status 1."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitpid(pid, 0)[1]


def die_at(step, *, torn):
    """Count every write, truncation, rename and sync in this process, and be killed at one of them.

    ``torn``: a write that is killed has written half of its bytes. Headers, which lie within one
    disk sector at the beginning of a file, are written whole or not at all.
    """
    count = [0]

    def wrap(original, halve=None):
        def wrapped(*arguments, **keywords):
            count[0] += 1
            if count[0] == step:
                if halve is not None and torn:
                    original(*halve(*arguments))
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **keywords)

        return wrapped

    def half(file, offset, data):
        return file, offset, memoryview(data)[: len(data) // 2 if offset else 0]

    writes = wrap(npy.write_all, half)
    for module in (npy, writing, sys.modules["qixai_fast.store.creating"]):
        module.write_all = writes
    os.fsync = wrap(os.fsync)
    os.replace = wrap(os.replace)


@pytest.mark.parametrize("torn", [False, True])
def test_killed_at_every_step(quick, torn, monkeypatch):
    """SIGKILL at each single system call of creating, filling and closing a store."""
    monkeypatch.setattr(writing, "_SYNC_THREADS", 1)
    whole = fill(quick / "whole", 25)
    step, before = 0, 0
    while True:
        step += 1
        path = quick / f"at{step}"

        def work(path=path, step=step):
            die_at(step, torn=torn)
            fill(path, 25)

        status = in_child(work)
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        if (path / "manifest.json").exists():
            store = open_store(path)
            assert store.n_samples in (0, 10, 20, 25)
            assert store.n_samples >= before
            before = store.n_samples
            assert_holds(store, before)
        resumed = fill(path, 25, resume=True)
        assert_holds(resumed, 25)
        assert content(path) == content(whole.path)
        assert resumed.checksum == whole.checksum
        assert not list(path.glob("*.tmp"))
    assert before == 25
    assert step > 60


def test_killed_at_every_step_of_resuming(quick, monkeypatch):
    """From a store with a partial chunk, an uncommitted tail and a torn line."""
    monkeypatch.setattr(writing, "_SYNC_THREADS", 1)
    whole = fill(quick / "whole", 25)
    step = 0
    while True:
        step += 1
        path = quick / f"at{step}"
        fill(path, 13)
        for file in [*content(path), "journal.jsonl"]:
            with open(path / file, "ab") as tail:
                tail.write(b"\x93torn")

        def work(path=path, step=step):
            die_at(step, torn=True)
            fill(path, 25, resume=True)

        status = in_child(work)
        if status == 0:
            break
        assert_holds(open_store(path), open_store(path).n_samples)
        assert open_store(path).n_samples in (13, 20, 25)
        fill(path, 25, resume=True)
        assert content(path) == content(whole.path)
    assert step > 30


def test_uncommitted_tails_are_cut_off(tmp_path):
    store = fill(tmp_path / "s", 13)
    before = content(store.path)
    for file in before:
        with open(store.path / file, "ab") as tail:
            tail.write(b"tail" * 1000)
    assert_holds(open_store(store.path), 13)
    writer(store.path, resume=True).close()
    assert content(store.path) == before


CHILD = """
import sys
sys.path.insert(0, sys.argv[2])
from store_samples import samples, writer
from pathlib import Path
with writer(Path(sys.argv[1]), resume=True) as opened:
    print(opened.n_samples, flush=True)
    while opened.n_samples < int(sys.argv[3]):
        start = opened.n_samples
        opened.append(**samples(start, min(start + 7, int(sys.argv[3]))))
"""


def child(path, total):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(HERE), str(total)], stdout=subprocess.PIPE, text=True
    )


def test_killed_at_random_moments(quick):
    """A real process each time, killed while it writes; then opened, verified and resumed."""
    total = 12_000
    random.seed(20241016)
    kills, reached = 0, 0
    for _ in range(200):
        process = child(quick / "s", total)
        assert int(process.stdout.readline()) == reached
        time.sleep(random.uniform(0.0, 0.15))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        store = open_store(quick / "s")
        assert store.n_samples % CHUNK == 0 or store.n_samples == total
        assert store.n_samples >= reached
        assert_holds(store, store.n_samples)
        reached = store.n_samples
        if reached == total or kills == 8:
            break
    assert kills >= 3
    assert reached > 0
    store = fill(quick / "s", total, resume=True)
    assert_holds(store, total)
    whole = fill(quick / "whole", total, batch=500)
    assert content(store.path) == content(whole.path)
    assert store.checksum == whole.checksum


def test_ctrl_c_in_a_process(tmp_path):
    """SIGINT from outside: the block is left by KeyboardInterrupt, and all appended samples are committed."""
    total = 100_000
    process = child(tmp_path / "s", total)
    process.stdout.readline()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=30)
    store = open_store(tmp_path / "s")
    assert 0 < store.n_samples < total
    assert_holds(store, store.n_samples)


def interrupted_at(path, step):
    """Append up to sample 25, with a KeyboardInterrupt after one of the writes and syncs; True if it came."""
    count = [0]

    def wrap(call):
        def wrapped(*arguments):
            count[0] += 1
            if count[0] == step:
                call(*arguments)
                raise KeyboardInterrupt
            return call(*arguments)

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_SYNC_THREADS", 1)
        try:
            with writer(path, resume=True) as opened:
                patch.setattr(writing, "write_all", wrap(npy.write_all))
                patch.setattr(os, "fsync", wrap(os.fsync))
                opened.append(**samples(8, 25))
        except KeyboardInterrupt:
            return True
    return False


def test_ctrl_c_at_every_step_of_appending(quick):
    """KeyboardInterrupt inside a commit: leaving the block writes that commit again, whole."""
    step, going = 0, True
    while going:
        step += 1
        path = quick / f"at{step}"
        fill(path, 8)
        going = interrupted_at(path, step)
        store = open_store(path)
        assert store.n_samples in (10, 20, 25)
        assert_holds(store, store.n_samples)
        assert_holds(fill(path, 25, resume=True), 25)
    assert step > 40


def test_an_exception_commits_what_was_appended(tmp_path):
    def failing():
        with writer(tmp_path / "s") as opened:
            opened.append(**samples(0, 13))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert_holds(open_store(tmp_path / "s"), 13)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 512 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = os.name == "posix" and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk(small_disk, tmp_path):
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * 300_000)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        fill(small_disk / "s", 4000)
    message = str(caught.value)
    store = open_store(small_disk / "s")
    kept = store.n_samples
    assert 0 < kept < 4000
    assert f"chunk {kept // CHUNK} (samples {kept} to {kept + CHUNK - 1})" in message
    assert f"the first {kept} samples are complete and stay usable: free space there" in message
    assert "resume=True" in message
    assert message.startswith(str(small_disk / "s"))
    assert_holds(store, kept)
    with pytest.raises(StoreError, match=r"could not be written|cannot be written there"):
        fill(small_disk / "s", 4000, resume=True)
    assert open_store(small_disk / "s").n_samples >= kept
    with pytest.raises(StoreError, match=r"feature-major copy of layer '\.\./x' could not be written"):
        store.columns("../x")
    ballast.unlink()
    total = open_store(small_disk / "s").n_samples + 500
    resumed = fill(small_disk / "s", total, resume=True)
    assert_holds(resumed, total)
    assert content(resumed.path) == content(fill(tmp_path / "whole", total, batch=100).path)


def _free(folder):
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def test_no_room_to_begin(small_disk):
    (small_disk / "ballast").write_bytes(b"\0" * _free(small_disk))
    with pytest.raises(StoreError, match="cannot be written there"):
        writer(small_disk / "s")
    (small_disk / "ballast").unlink()
    assert_holds(fill(small_disk / "s", 12), 12)


def test_a_file_size_limit(tmp_path):
    """The same without mounting anything: a limit on the size of files, in a child process."""

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            fill(tmp_path / "s", 4000)
        except StoreError as error:
            (tmp_path / "message").write_text(str(error))

    assert in_child(work) == 0
    message = (tmp_path / "message").read_text()
    store = open_store(tmp_path / "s")
    assert "File too large" in message
    assert str(tmp_path / "s" / "x.npy") in message
    assert store.n_samples == 550
    assert_holds(store, 550)
    assert_holds(fill(tmp_path / "s", 600, resume=True), 600)


def test_a_broken_writer_says_so(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    with writer(tmp_path / "s") as opened:
        opened.append(**samples(0, 15))
        monkeypatch.setattr(writing, "write_all", full)
        with pytest.raises(StoreError, match=r"chunk 1 \(samples 10 to 19\) could not be written"):
            opened.append(**samples(15, 25))
        monkeypatch.undo()
        with pytest.raises(StoreError, match="an earlier write failed"):
            opened.append(**samples(25, 30))
    assert_holds(open_store(tmp_path / "s"), 10)


def test_two_writers(tmp_path):
    with writer(tmp_path / "s") as opened:
        opened.append(**samples(0, 10))
        for options in ({"resume": True}, {}):
            with pytest.raises(StoreError, match=rf"writer\.lock: another writer \(process {os.getpid()}\)"):
                writer(tmp_path / "s", **options)
        opened.append(**samples(10, 20))
    assert_holds(fill(tmp_path / "s", 25, resume=True), 25)


def test_two_writers_in_two_processes(tmp_path):
    process = child(tmp_path / "s", 10**9)
    try:
        process.stdout.readline()
        with pytest.raises(StoreError, match=rf"another writer \(process {process.pid}\) is adding"):
            writer(tmp_path / "s", resume=True)
    finally:
        process.kill()
        process.wait()
    writer(tmp_path / "s", resume=True).close()


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    """As a data loader's worker that outlives a killed capture."""
    opened = writer(tmp_path / "s")
    here, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        there.send(b"alive")
        there.recv(1)
        os._exit(0)
    here.recv(5)
    opened.append(**samples(0, 5))
    opened._lock.release()
    try:
        assert_holds(fill(tmp_path / "s", 12, resume=True), 12)
    finally:
        here.send(b"x")
        os.waitpid(pid, 0)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs another user to give up root for")
def test_no_permission(tmp_path):
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder.name.startswith(("pytest-", "popen-", "test_")):
            folder.chmod(0o755)
    fill(tmp_path / "s", 5)
    (tmp_path / "s" / "x.npy").chmod(0o600)

    def work():
        os.setuid(65534)
        for attempt in (
            lambda: open_store(tmp_path / "s"),
            lambda: writer(tmp_path / "s", resume=True),
            lambda: writer(tmp_path / "new"),
        ):
            with pytest.raises(StoreError, match=r"Permission denied.*permissions"):
                attempt()

    assert in_child(work) == 0


def test_float16_and_chunks_of_the_default_size(tmp_path):
    """The default chunk is about 32 MiB whatever the batch size."""
    with create_store(tmp_path / "s", {"a": LayerSpec((4096,), "float16")}) as opened:
        for _ in range(9):
            opened.append({"a": np.ones((1000, 4096), np.float16)})
        assert open_store(tmp_path / "s").n_samples == 8192
    assert open_store(tmp_path / "s").n_samples == 9000
