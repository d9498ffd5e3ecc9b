"""One thread for every library, and what a result must tell about the machine that made it.

To be imported before numpy, since a BLAS reads its limit once.
"""

import os
import platform
from importlib import metadata

THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
SEED = 0
# A peer that is missing has no version, and no numbers either.
PACKAGES = (
    *("qixai-fast", "numpy", "scipy", "numba", "llvmlite", "scikit-learn", "torch", "NPEET", "ennemi"),
    *("captum", "dask", "faiss-cpu", "fbpca", "shap", "lime"),
)


def limit_threads():
    os.environ.update(dict.fromkeys(THREAD_LIMITS, "1"))
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def commit_name(info=None):
    """What was measured: twelve digits of the commit, and ``-dirty`` where tracked files differed from it.

    ``info`` is what a run of pytest-benchmark keeps; without, that of this tree as it is now: to be asked
    before results are written into it.
    """
    if info is None:
        from pytest_benchmark.utils import get_commit_info

        info = get_commit_info()
    return info["id"][:12] + ("-dirty" if info.get("dirty") else "")


def environment():
    """What tells about speed, and nothing that names the machine or its user."""
    import cpuinfo

    return {
        "processor": cpuinfo.get_cpu_info().get("brand_raw", "unknown"),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in PACKAGES},
        "threads": 1,
        "seed": SEED,
    }


def environment_line(content):
    """The same in one line of text."""
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items() if version)
    return (
        f"{content['processor']}, {content['architecture']}, {content['cores']} cores, {content['system']}, "
        f"Python {content['python']}; {versions}; libraries limited to {content['threads']} thread; "
        f"seed {content['seed']}."
    )
