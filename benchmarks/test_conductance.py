"""Layer conductance: all layers in one sweep, beside one layer and Captum's one call a layer."""

import pytest

import qixai_fast as qf
from benchmarks.peers import optional

torch = pytest.importorskip("torch")
attr = optional("captum.attr")
networks = pytest.importorskip("benchmarks.networks")  # needs scikit-learn's digits

LAYERS = ["0", "2", "5"]  # the convolutions
N_STEPS = 50


@pytest.fixture
def case(size):
    n, side, width = size(32, 4), size(32, 8), size(32, 4)
    model, x = networks.convolutions(width), torch.rand(n, 3, side, side)
    return model, x, f"3 convolutions, {n} images of 3 x {side} x {side}, {N_STEPS} steps"


def captum_calls(model, x, rows):
    """One call a layer: their values and completeness errors."""
    return [
        attr.LayerConductance(model, model.get_submodule(name)).attribute(
            x, target=3, n_steps=N_STEPS, internal_batch_size=rows, return_convergence_delta=True
        )
        for name in LAYERS
    ]


def test_layers(race, case):
    model, x, what = case
    assert isinstance(model[5], torch.nn.Conv2d)
    captum = {
        f"Captum, one call each, {f'internal_batch_size={rows}' if rows else 'default'}": attr
        and (lambda rows=rows: captum_calls(model, x, rows))
        for rows in (64, 128, 512, None)
    }
    one = {
        "one layer, the first": lambda: qf.layer_conductance(model, x, LAYERS[0], target=3, n_steps=N_STEPS)
    }
    results = race(
        f"layer_conductance, 3 layers, {what}",
        lambda: qf.layer_conductance(model, x, LAYERS, target=3, n_steps=N_STEPS),
        one | captum,
        least={"one layer, the first": 1 / 1.1} | dict.fromkeys(captum, 2.5),
        rounds=3,
    )
    for name, values in results.pop("one layer, the first").items():
        torch.testing.assert_close(results["ours"][name].values, values.values, rtol=1e-3, atol=1e-5)
    if attr is None:
        return
    theirs = results[next(iter(captum))]
    for name, (_, delta) in zip(LAYERS, theirs, strict=True):
        race.bound(
            f"root mean square completeness error of layer {name}, at most Captum's",
            float(results["ours"][name].delta.square().mean().sqrt()),
            most=float(delta.double().square().mean().sqrt()),
        )
