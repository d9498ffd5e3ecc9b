"""The README's code runs: Python blocks in one process, in order; shell lines as a user types them."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def _blocks(language):
    return re.findall(
        rf"^```{language}\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """What the Python blocks print, run from top to bottom in an empty folder."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "readme.py").write_text("\n".join(_blocks("python")), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "readme.py"], cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "report" / "report.html").is_file()
    return done.stdout


def test_python_blocks(output):
    assert "(512, 12) float32" in output
    assert re.search(r"maps \d and \d: \d\.\d\d nats, family-wise p = 0\.005", output)


def test_estimates_are_as_good_as_the_readme_lets_expect(output):
    errors = {
        name: float(value) for name, value in re.findall(r"^(.+?) +\d\.\d+ nats, error (\S+)$", output, re.M)
    }
    assert len(errors) == 4
    assert abs(errors["KSG"]) < 0.03
    assert abs(errors["KSG on float16"]) < 0.03
    assert abs(errors["binned, corrected"]) < 0.15


def test_shell_blocks(tmp_path):
    lines = [line for block in _blocks("sh") for line in block.splitlines() if line]
    assert {shlex.split(line)[1] for line in lines} == {"capture", "verify", "audit"}
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "qixai-fast"
        command = [sys.executable, "-m", "qixai_fast", *arguments, "--quiet"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "demo-report" / "report.html").is_file()


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", README.read_text(encoding="utf-8")):
        assert (README.parent / target).is_file(), target
