"""The command line in a child, and the most memory that the kernel saw it take."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

_CODE = (
    "import sys; from qixai_fast.cli import app\n"
    "try: app(sys.argv[1:])\n"
    "finally: print(next(line for line in open('/proc/self/status') if 'VmHWM' in line))\n"
)


def peak_of_audit(folder: Path, plan: str, budget: int) -> int:
    """Bytes that were resident at most (VmHWM counts every page of a mapped file) in an audit of ``store``.

    Parameters
    ----------
    folder : Path
        Of the store and the report.
    plan : str
        A plan file's text.
    budget : int
        As ``--max-memory``.
    """
    (folder / "plan.toml").write_text(plan)
    arguments = ["audit", "store", "--out", "out", "--plan", "plan.toml", "--max-memory", str(budget)]
    done = subprocess.run(
        [sys.executable, "-c", _CODE, *arguments, "--quiet"],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = re.search(r"VmHWM:\s+(\d+) kB", done.stdout)
    assert found is not None
    return 1024 * int(found[1])
