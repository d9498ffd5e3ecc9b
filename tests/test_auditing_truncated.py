"""A file that is cut short in the middle of a stage: a named error, and no signal that ends the process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
from audit_data import contents, plan, simplify_for_good

from qixai_fast import StoreError
from qixai_fast._file_maps import FileMap
from qixai_fast.store import LayerSpec, create_store, open_store

N = 6000
QUICK = {"n_permutations": 19, "test_samples": 300, "null_samples": 200, "n_jobs": 1}


def make_large_store(path: Path) -> None:
    """Two layers of many pages."""
    rng = np.random.default_rng(1)
    layers = {name: rng.standard_normal((N, 6)).astype(np.float32) for name in ("first", "second")}
    specs = {name: LayerSpec((6,), "float32") for name in layers}
    with create_store(path, layers=specs, labels=True) as writer:
        writer.append(layers, labels=np.arange(N) % 3)


def audit_and_cut(folder: Path, pattern: str, moment: int) -> int:
    """An audit in which a file loses its end just before some part is taken; how many parts were taken."""
    from qixai_fast.auditing.run import audit

    taken = 0
    whole = FileMap.__getitem__

    def cutting(self, index):
        nonlocal taken
        if taken == moment:
            for path in folder.glob(pattern):
                os.truncate(path, 1000)
        taken += 1
        return whole(self, index)

    FileMap.__getitem__ = cutting
    try:
        audit(folder / "store", folder / "out", plan=plan(**QUICK), progress=False)
    finally:
        FileMap.__getitem__ = whole
    return taken


def main(folder: Path, pattern: str) -> None:
    """Print how audits end in children whose file is cut at different moments."""
    from qixai_fast.auditing import context

    simplify_for_good()
    context.COPIED_BYTES = 0  # columns are read from feature-major copies
    make_large_store(folder / "store")
    audit_and_cut(folder, pattern, -1)  # makes the copies
    shutil.rmtree(folder / "out")
    total = audit_and_cut(folder, pattern, -1)
    whole = contents(folder / "out")
    print(total)
    files = {path: path.read_bytes() for path in (folder / "store").rglob("*.npy")}
    for moment in np.linspace(0, total - 1, 25).astype(int).tolist():
        for path, data in files.items():
            path.write_bytes(data)
        shutil.rmtree(folder / "out", ignore_errors=True)
        child = os.fork()
        if child == 0:
            code = 0
            try:
                audit_and_cut(folder, pattern, moment)
                print("the same" if contents(folder / "out") == whole else "others", flush=True)
            except StoreError as error:
                print(f"StoreError {error}", flush=True)
            except BaseException:
                traceback.print_exc()
                code = 1
            os._exit(code)
        _, status = os.waitpid(child, 0)
        if status:
            print(f"ended with status {status}, cut at {moment}", flush=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("pattern", ["store/second.npy", "store/columns/second.*.npy"])
def test_cut_at_any_part(tmp_path: Path, pattern: str) -> None:
    """The audit says which file it was, wherever in a stage that happens.

    Where it is a copy that has not been opened yet, rows are read in its place, with the same results.
    """
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path), pattern], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    count, *lines = done.stdout.splitlines()
    assert int(count) > 50
    assert len(lines) == 25, done.stdout + done.stderr
    name = Path(pattern).name.partition(".")[0]
    right = [line.startswith("StoreError") and f"{name}." in line for line in lines]
    if "columns" in pattern:
        right = [found or line == "the same" for found, line in zip(right, lines, strict=True)]
    assert all(right), done.stdout + done.stderr
    assert any("became shorter while it was read" in line for line in lines)
    assert any("was cut short; the stage at work was not kept" in line for line in lines)


def test_parts_are_as_those_of_a_plain_map(tmp_path: Path) -> None:
    make_large_store(tmp_path / "store")
    store = open_store(tmp_path / "store")
    plain = np.load(tmp_path / "store" / "first.npy", mmap_mode="r")
    for found, same in ((store["first"], plain), (store.columns("first"), plain)):
        assert isinstance(found, FileMap)
        for index in (3, slice(2, 9), (slice(None), 4), [5, 1], (2, 3), (slice(0, 9, 2), [1, 0])):
            part = found[index]
            np.testing.assert_array_equal(part, same[index])
            assert not isinstance(part, FileMap) or np.shares_memory(part, found)
        assert type(found + 1) is np.ndarray
        assert type(found.sum()) is np.float32
        assert type(found.T[1:3]) is FileMap
    os.truncate(tmp_path / "store" / "first.npy", 5000)
    with pytest.raises(StoreError, match=r"first\.npy: became shorter .* 5000 bytes of 144128"):
        store["first"][10:20]
    with pytest.raises(StoreError, match="became shorter"):
        store["first"].T[0]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
