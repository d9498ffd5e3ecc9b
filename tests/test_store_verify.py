"""Verifying reads runs of chunks by several threads: what it finds does not depend on either."""

import os

import pytest
from store_samples import FILES, fill

from qixai_fast.store import open_store, verifying


@pytest.fixture
def damaged(tmp_path):
    """35 samples in four chunks; one byte wrong in two chunks of every file, and one file cut short."""
    path = tmp_path / "s"
    fill(path, 35)
    store = open_store(path)
    for file in FILES:
        raw = bytearray((path / file).read_bytes())
        data = int.from_bytes(raw[8:10], "little") + 10
        raw[data] ^= 1
        raw[-1] ^= 1
        (path / file).write_bytes(raw)
    os.truncate(path / "x.npy", (path / "x.npy").stat().st_size - 1)
    return store


@pytest.mark.parametrize("n_jobs", [1, 2, 4])
@pytest.mark.parametrize("run_bytes", [1, 500, 2**26])
def test_problems_come_by_chunk_then_file(damaged, monkeypatch, run_bytes, n_jobs):
    monkeypatch.setattr(verifying, "_RUN_BYTES", run_bytes)
    problems = damaged.verify(n_jobs=n_jobs)
    assert len(problems) == 2 * len(FILES)
    chunks = [int(problem.split(": chunk ")[1].split(" ")[0]) for problem in problems]
    assert chunks == [0] * len(FILES) + [3] * len(FILES)
    files = [os.path.basename(problem.split(": ")[0]) for problem in problems]
    assert files[: len(FILES)] == files[len(FILES) :]
    assert sorted(files[: len(FILES)]) == sorted(FILES)
    (cut,) = [problem for problem in problems if "is truncated" in problem]
    assert "x.npy: chunk 3 (samples 30 to 34) is truncated" in cut


def test_every_chunk_is_in_one_run(damaged, monkeypatch):
    for run_bytes in (1, 500, 1500, 2**26):
        monkeypatch.setattr(verifying, "_RUN_BYTES", run_bytes)
        for place, array in enumerate(damaged._manifest.arrays()):
            runs = list(verifying._runs(array, damaged._journal, place))
            assert [index for run in runs for index in range(run.start, run.stop)] == [0, 1, 2, 3]
            assert sum(run.n_bytes for run in runs) == damaged._journal.rows(array) * array.row_bytes


def test_the_bar_counts_bytes(damaged, monkeypatch, capsys):
    monkeypatch.setattr(verifying, "_BAR_DELAY", 0)
    damaged.verify(progress=True)
    told = capsys.readouterr().err
    assert "verify: 100%" in told
    assert "B/s]" in told
    damaged.verify()
    assert capsys.readouterr().err == ""
