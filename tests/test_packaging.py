"""Build the sdist and the wheel, install the wheel into an empty environment, and run the demo from there."""

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _run(*command, cwd, timeout=900):
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel that is built from it."""
    out = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def clean(built, tmp_path_factory):
    """The python of an environment that holds the wheel and what it asks for, nothing else."""
    home = tmp_path_factory.mktemp("clean")
    venv.create(home / "env", with_pip=True)
    python = home / "env" / "bin" / "python"
    constraints = ROOT / "constraints.txt"
    _run(python, "-m", "pip", "install", "-q", "-c", constraints, f"{built[1]}[torch,sklearn]", cwd=home)
    return python


def test_sdist_holds_the_kernels_and_the_licence(built):
    with tarfile.open(built[0]) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"setup.py", "pyproject.toml", "LICENSE", "README.md", "kernels/_jit.py"} <= names


def test_wheel_installs_one_top_level_package(built):
    with zipfile.ZipFile(built[1]) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"qixai_fast"}
    for needed in (
        "kernels/_jit.py",
        "py.typed",
        "auditing/report/page.html.jinja",
        "auditing/report/page.css",
    ):
        assert f"qixai_fast/{needed}" in names
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "qixai_fast").rglob("*.py")}
    modules |= {f"qixai_fast/{path.relative_to(ROOT)}" for path in (ROOT / "kernels").glob("*.py")}
    assert modules == {name for name in names if name.endswith(".py")}


def test_installed_package_brings_no_module_called_kernels(clean, tmp_path):
    code = (
        "import importlib.util, json, qixai_fast, qixai_fast.kernels._jit as jit;"
        "print(json.dumps([importlib.util.find_spec('kernels') is None, qixai_fast.__file__, jit.__file__]))"
    )
    absent, package, kernels = json.loads(_run(clean, "-c", code, cwd=tmp_path))
    assert absent
    assert Path(kernels).parents[1] == Path(package).parent
    assert ROOT not in Path(package).parents


def test_demo_runs_from_the_installed_wheel(clean, tmp_path):
    command = clean.parent / "qixai-fast"
    text = _run(command, "demo", "--out", tmp_path / "demo", "--quiet", cwd=tmp_path)
    report = tmp_path / "demo" / "report" / "report.html"
    assert text.rstrip().endswith(str(report))
    results = json.loads((tmp_path / "demo" / "report" / "results.json").read_text())
    assert results["store"]["n_samples"] == 1797
    assert results["store"]["layers"] == ["conv1", "conv2", "dense"]
    assert "all checksums right" in _run(command, "verify", tmp_path / "demo" / "store", cwd=tmp_path)
