"""Killed at random, twenty times, and resumed: the same bits, and no finished task is computed again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import audit_data
import numpy as np
import pytest
from audit_data import contents

pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

SEED = 20241016
KILLS = 20
ENDS = [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT]

# Imports once, then forks a life each time it is told to: a life begins with an audit, not with imports.
# Each life writes down when tasks begin, end and are kept, in one system call a line.
NURSERY = """
import json, os, sys, time
import audit_data
from qixai_fast.auditing import files, runner
from qixai_fast.auditing.run import audit

store = sys.argv[1]
audit_data.simplify_for_good()
audit_data.small_model()
audit(store, plan=audit_data.plan(), progress=False)

def live(out, log):
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    def note(*what):
        os.write(file, (json.dumps([os.getpid(), time.monotonic(), *what]) + "\\n").encode())
    run, write = runner.StageRunner.run, files.AuditFiles.write
    def noted_run(self, name, depends, title, compute):
        def noted(rng):
            note("begins", name)
            time.sleep(0.02)  # stages of so small a store are over before a signal can meet them
            return compute(rng)
        return run(self, name, depends, title, noted)
    def noted_write(self, name, key, stage):
        write(self, name, key, stage)
        note("kept", name)
    runner.StageRunner.run, files.AuditFiles.write = noted_run, noted_write
    note("lives")
    audit_data.run(store, out)
    note("done")

while line := sys.stdin.readline():
    out, log = json.loads(line)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            live(out, log)
            status = 0
        except KeyboardInterrupt:
            status = 130
        finally:
            os._exit(status)
    print(child, flush=True)
    sys.stdin.readline()
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Lives:
    """Lives of one audit, one after the other, and what they wrote down."""

    def __init__(self, process: subprocess.Popen, folder: Path) -> None:
        self.process = process
        self.out, self.log = folder / "out", folder / "log"

    def tell(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def live(self, seconds: float | None = None, end: int = signal.SIGKILL) -> int:
        """One life, ended after some seconds; its wait status."""
        self.tell(json.dumps([str(self.out), str(self.log)]))
        child = int(self.process.stdout.readline())
        if seconds is not None:
            time.sleep(seconds)
            os.kill(child, end)  # its parent does not wait for it before it is told to
        self.tell("")
        return int(self.process.stdout.readline())

    def notes(self) -> list[list]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def whole_stages(self) -> set[str]:
        """Tasks recorded on disk, told by their files alone."""
        listed = {path.stem for path in (self.out / ".stages").glob("*.json")}
        return listed - {"audit", "published"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("audit") / "store"
    audit_data.make_store(path)
    return path


def arrays_equal(one: Path, other: Path) -> None:
    names = sorted(path.name for path in one.glob("*.npz"))
    assert names == sorted(path.name for path in other.glob("*.npz"))
    assert len(names) > 10
    for name in names:
        with np.load(one / name) as a, np.load(other / name) as b:
            assert a.files == b.files
            for member in a.files:
                assert a[member].dtype == b[member].dtype
                assert a[member].tobytes() == b[member].tobytes(), (name, member)


@pytest.fixture(scope="module")
def process(store):
    with subprocess.Popen(
        [sys.executable, "-c", NURSERY, str(store)],
        cwd=Path(__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as opened:
        yield opened
        opened.stdin.close()
        assert opened.wait(timeout=60) == 0


@pytest.fixture
def lives(process, tmp_path):
    return Lives(process, tmp_path)


@pytest.fixture(scope="module")
def alone(process, tmp_path_factory):
    """A run left alone, and how long it took."""
    opened = Lives(process, tmp_path_factory.mktemp("alone"))
    assert opened.live() == 0
    times = [note[1] for note in opened.notes()]
    return opened, times[-1] - times[0]


def test_killed_twenty_times_at_random(lives, alone):
    """Kills uniform over what is left of the run, so that all of it meets some of them."""
    whole, duration = alone
    n_tasks = len(whole.whole_stages())
    rng = random.Random(SEED)
    kills = 0
    while kills < KILLS:
        before = len(lives.notes())
        recorded = lives.whole_stages()
        # Most lives are short, so that twenty of them fit into one run.
        status = lives.live(rng.uniform(0.0, 3 * duration / KILLS), end=rng.choice(ENDS))
        life = lives.notes()[before:]
        begun = {note[3] for note in life if note[2] == "begins"}
        assert not begun & recorded, f"seed {SEED}, kill {kills}: recorded tasks ran again"
        if status == 0:
            break
        kills += 1
    assert kills >= KILLS // 2, f"seed {SEED}: the run was over after {kills} kills"
    assert lives.live() == 0
    begun = [note[3] for note in lives.notes() if note[2] == "begins"]
    kept = [note[3] for note in lives.notes() if note[2] == "kept"]
    assert sorted(set(begun)) == sorted(whole.whole_stages())
    assert len(kept) == len(set(kept))
    # Every task beyond one run was in flight at a kill: one at a time.
    assert len(begun) - n_tasks <= kills
    assert contents(lives.out) == contents(whole.out)
    assert {"results.json", "plan.toml"} <= contents(whole.out).keys()
    arrays_equal(lives.out, whole.out)


def test_a_finished_audit_computes_nothing_when_called_again(lives):
    assert lives.live() == 0
    before = contents(lives.out)
    count = len(lives.notes())
    assert lives.live() == 0
    assert [note[2] for note in lives.notes()[count:]] == ["lives", "done"]
    assert contents(lives.out) == before


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_ended_politely(lives, alone, end):
    whole, duration = alone
    rng = random.Random(SEED + end)
    for _ in range(3):
        lives.live(rng.uniform(0.1, 0.5) * duration, end=end)
    assert lives.live() == 0
    assert contents(lives.out) == contents(whole.out)
