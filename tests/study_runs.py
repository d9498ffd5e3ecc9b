"""The study's command, in a process of its own: it limits the threads of all libraries."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run_study(*arguments):
    command = [sys.executable, "-m", "benchmarks.study", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
