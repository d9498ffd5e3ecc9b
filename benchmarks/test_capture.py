"""Recording a network's layers: beside the network alone, and hooks of one's own that save arrays."""

import numpy as np
import pytest

import qixai_fast as qf

torch = pytest.importorskip("torch")
networks = pytest.importorskip("benchmarks.networks")  # needs scikit-learn's digits

LAYERS = ["1", "3", "6"]  # what follows the convolutions


@pytest.fixture
def case(size):
    model = networks.convolutions(size(32, 4))
    n, side = size(256, 16), size(32, 8)
    return model, torch.rand(n, 3, side, side).split(size(64, 8)), f"{n} images of 3 x {side} x {side}"


def passes(model, batches):
    with torch.no_grad():
        for batch in batches:
            model(batch)


def pooled(output):
    return output.mean(dim=(2, 3))


def by_hand(model, batches, path, keep, save):
    """Forward hooks that fill lists; all of it in memory until the end."""
    kept = {name: [] for name in LAYERS}
    hooks = [
        model.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: kept[name].append(keep(output))
        )
        for name in LAYERS
    ]
    passes(model, batches)
    for hook in hooks:
        hook.remove()
    arrays = {name: torch.cat(parts) for name, parts in kept.items()}
    save(arrays, path)
    return arrays


def save_npz(arrays, path):
    np.savez(path / "layers.npz", **{name: array.numpy() for name, array in arrays.items()})


def save_torch(arrays, path):
    torch.save(arrays, path / "layers.pt")


@pytest.mark.parametrize("reduce", ["gap", "none"])
def test_capture(race, case, tmp_path, reduce):
    model, batches, what = case
    keep = pooled if reduce == "gap" else torch.clone
    counter = iter(range(10**6))

    def ours():
        return qf.capture(
            model, batches, LAYERS, tmp_path / f"store{next(counter)}", reduce=reduce, progress=False
        )

    results = race(
        f"capture of {len(LAYERS)} layers, reduce={reduce!r}, {what}",
        ours,
        {
            "the passes alone": lambda: passes(model, batches),
            "hooks, lists, numpy.savez": lambda: by_hand(model, batches, tmp_path, keep, save_npz),
            "hooks, lists, torch.save": lambda: by_hand(model, batches, tmp_path, keep, save_torch),
        },
        rounds=3,
    )
    store, theirs = results["ours"], results["hooks, lists, numpy.savez"]
    for name in LAYERS:
        np.testing.assert_allclose(np.asarray(store[name]), theirs[name].numpy(), rtol=1e-5, atol=1e-6)
