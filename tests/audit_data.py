"""A store whose audit has a known outcome, and the script that audits it in processes that get killed."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

N = 240
CLASSES = ["left", "right", "up"]


def activations() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Three layers and labels.

    ``conv``: maps 0 and 5 are copies, map 3 is dead, map 0 follows a signal that the classes shift.
    ``dense``: map 0 follows the same signal, map 1 another one of conv. ``noise``: neither.
    """
    rng = np.random.default_rng(7)
    labels = np.arange(N) % 3
    signal_ = rng.standard_normal(N) + 1.5 * labels
    other = rng.standard_normal(N)
    conv = np.maximum(rng.standard_normal((N, 6)) + 0.5, 0)
    conv[:, 0] = np.maximum(signal_, 0)
    conv[:, 1] = np.maximum(other, 0)
    conv[:, 3] = 0
    conv[:, 5] = 2 * conv[:, 0]
    dense = np.maximum(rng.standard_normal((N, 7)), 0)
    dense[:, 0] = np.maximum(signal_ + 0.1 * rng.standard_normal(N), 0)
    dense[:, 1] = np.maximum(other + 0.5 * rng.standard_normal(N), 0)
    noise = np.maximum(rng.standard_normal((N, 5)), 0)
    layers = {"conv": conv, "dense": dense, "noise": noise}
    return {name: data.astype(np.float32) for name, data in layers.items()}, labels


def make_store(path: Path) -> None:
    """Write :func:`activations`."""
    from qixai_fast.store import LayerSpec, create_store

    layers, labels = activations()
    specs = {name: LayerSpec(shape=data.shape[1:], dtype="float32") for name, data in layers.items()}
    with create_store(path, layers=specs, labels=True, metadata={"class_names": CLASSES}) as writer:
        writer.append(layers, labels=labels)


def plan(**changes: Any) -> Any:
    """A quick plan."""
    from qixai_fast.auditing.plan import AuditPlan

    return AuditPlan(**{"n_permutations": 149, "n_attributions": 4, "n_steps": 10, "n_noise": 2, **changes})


def small_model() -> tuple[Any, Any]:
    """A network of three classes, and its inputs, one for each sample of the store."""
    import torch

    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    return model, torch.randn((N, 4), generator=generator)


def run(store: str, out: str, **changes: Any) -> Any:
    """An audit with all sections."""
    from qixai_fast.auditing.run import audit

    model, inputs = small_model()
    return audit(store, out, model=model, inputs=inputs, plan=plan(**changes), progress=False)


def short_report(results: Any, arrays: Any, out: Path, *, progress: bool) -> Path:
    """In place of the real page and its figures, which take seconds to draw."""
    assert not progress
    (out / "figures").mkdir()
    (out / "figures" / "layers.png").write_bytes(b"png")
    (out / "report.html").write_text(json.dumps([results, sorted(arrays)]))
    return out / "report.html"


def simplify(patch: Callable[[str, Any], Any]) -> None:
    """Let this process write :func:`short_report`, and take all code for the same while it is worked on."""
    patch("qixai_fast.auditing.report.writer.write_report", short_report)
    patch("qixai_fast.auditing.runner.code_digest", lambda: "code")


def simplify_for_good() -> None:
    """:func:`simplify` where nothing needs to be restored."""

    def patch(place: str, value: Any) -> None:
        module, name = place.rsplit(".", 1)
        setattr(importlib.import_module(module), name, value)

    simplify(patch)


def run_and_die(store: str, out: str, fatal: int) -> None:
    """The same, killed as it is about to put its ``fatal``-th file in place (or to remove one)."""
    seen = 0
    originals = os.replace, os.unlink

    def deadly(original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        return call

    os.replace, os.unlink = (deadly(original) for original in originals)
    run(store, out)


def contents(out: Path) -> dict[str, bytes]:
    """Every file a reader sees but timings."""
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and ".stages" not in path.parts and path.name != "timings.json"
    }


def pair_of(results: Any, a: str, b: str) -> Any:
    """The result of one pair of layers."""
    return next(pair for pair in results["pairs"] if (pair["layer_a"], pair["layer_b"]) == (a, b))


def main(store: str, out: str, fatal: list[int]) -> None:
    """In one directory, die at each count in turn; print how each child process ended."""
    from qixai_fast.auditing.run import audit

    simplify_for_good()
    small_model()
    audit(store, plan=plan(), progress=False)  # loads all kernels, once for all children
    for count in fatal:
        child = os.fork()
        if child == 0:
            try:
                run_and_die(store, out, count)
            finally:
                os._exit(1 if sys.exc_info()[0] else 0)
        _, status = os.waitpid(child, 0)
        print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], [int(count) for count in sys.argv[3:]])
