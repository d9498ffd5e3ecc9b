"""Ctrl-C while the command line starts: one line and exit code 130, whatever is being imported."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import audit_data
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as on POSIX")


def interrupted(arguments: list[str], seconds: float, folder: Path) -> tuple[int, str]:
    """Exit code and stderr of a command that is interrupted so long after its first instruction."""
    code = (
        "import sys; sys.argv[0] = 'qixai-fast'\n"
        "from qixai_fast._start import main\n"
        "print('started', flush=True)\n"
        "main()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "started\n"
    time.sleep(seconds)
    child.send_signal(signal.SIGINT)
    try:
        _, errors = child.communicate(timeout=60)
    finally:
        child.kill()
    return child.returncode, errors


@pytest.mark.parametrize("seconds", [0.002, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.2])
def test_an_audit_that_starts(tmp_path: Path, seconds: float) -> None:
    audit_data.make_store(tmp_path / "store")
    arguments = ["audit", "store", "--out", "out", "--n-permutations", "9999", "--quiet"]
    code, errors = interrupted(arguments, seconds, tmp_path)
    assert code == 130, errors
    (line,) = errors.strip().splitlines()
    assert line.startswith("interrupted.")


def test_a_command_that_looks_at_libraries(tmp_path: Path) -> None:
    for seconds in (0.3, 0.5):
        code, errors = interrupted(["info"], seconds, tmp_path)
        if code == 0:  # it was quicker
            continue
        assert (code, errors.strip()) == (130, "interrupted.")


def test_where_the_signal_is_ignored(tmp_path: Path) -> None:
    """As by a shell for what it starts in the background."""
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from qixai_fast._start import main\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.argv = ['qixai-fast', '--version']\n"
        "main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("qixai-fast ")
