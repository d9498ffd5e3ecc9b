"""Audits of what holds nothing, or is damaged: no false finding, no nonsense, no number from bad data."""

import re

import numpy as np
import pytest
import torch

import qixai_fast as qf
from qixai_fast.auditing.context import AuditContext
from qixai_fast.auditing.cosine_null import chance_threshold


def _store(path, layers, labels=None):
    specs = {name: qf.LayerSpec((values.shape[1],), values.dtype.name) for name, values in layers.items()}
    with qf.create_store(path, specs, labels=labels is not None) as writer:
        writer.append(layers, labels=labels)
    return qf.open_store(path)


def _text(report):
    findings = [finding["text"] for finding in report.results["findings"]]
    return " ".join([*report.reading, *findings, *(warning["text"] for warning in report.warnings)])


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("kind", ["gaussian", "sparse", "heavy"])
def test_cosines_of_independent_maps_stay_within_chance(tmp_path, kind, within):
    """Over 150 draws of noise the largest of all pairs passes its threshold in about 5 %, tails or not."""
    n, rounds = 150, 150
    store = _store(tmp_path / "s", {"x": np.random.default_rng(0).normal(size=(n, 2))})
    context = AuditContext(store, qf.AuditPlan(n_permutations=99), None, "")
    rng = np.random.default_rng(7)
    shape = {
        "gaussian": lambda z: z,
        "sparse": lambda z: np.maximum(z - 1.5, 0),
        "heavy": lambda z: np.exp(2 * z),
    }[kind]
    passed = 0
    for _ in range(rounds):
        a = shape(rng.normal(size=(n, 5)))
        b = a if within else shape(rng.normal(size=(n, 4)))
        with np.errstate(invalid="ignore"):
            cosines = np.nan_to_num(np.corrcoef(a.T, b.T)[:5, 5:])
        if within:
            np.fill_diagonal(cosines, 0)
        passed += np.abs(cosines).max() > chance_threshold(context, a, b, within, rng)
    assert passed <= 18  # 7.5 are expected; more than 18 comes once in 4,000 times


def test_the_threshold_lets_a_dependent_pair_through_and_needs_enough_permutations(tmp_path):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(300, 4))
    b = rng.normal(size=(300, 4))
    b[:, 2] += a[:, 1]
    context = AuditContext(
        _store(tmp_path / "s", {"a": a, "b": b}), qf.AuditPlan(n_permutations=99), None, ""
    )
    threshold = chance_threshold(context, a, b, False, rng)
    assert 0.1 < threshold < 0.35
    cosines = np.corrcoef(a.T, b.T)[:4, 4:]
    assert np.argwhere(np.abs(cosines) > threshold).tolist() == [[1, 2]]
    few = AuditContext(context.store, qf.AuditPlan(n_permutations=9), None, "")
    assert chance_threshold(few, a, b, False, rng) == 1.0


def test_the_threshold_of_a_draw_fits_all_samples(tmp_path):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4000, 3)), rng.normal(size=(4000, 3))
    store = _store(tmp_path / "s", {"a": a, "b": b})
    whole, drawn = (
        chance_threshold(
            AuditContext(store, qf.AuditPlan(n_permutations=399, null_samples=rows), None, ""),
            a,
            b,
            False,
            rng,
        )
        for rows in (4000, 500)
    )
    assert drawn == pytest.approx(whole, rel=0.15)


def test_dead_layers_are_described_without_nonsense(tmp_path):
    rng = np.random.default_rng(0)
    layers = {"dead": np.zeros((60, 3)), "alive": rng.normal(size=(60, 3))}
    report = qf.audit(_store(tmp_path / "s", layers), tmp_path / "r", progress=False)
    text = _text(report)
    assert "No two layers vary together" in text
    assert "first with 0.00 nats" not in text
    assert "mislead" not in text
    assert not re.search(r"-0\.0+\b", (tmp_path / "r" / "report.html").read_text(encoding="utf-8"))


def test_a_model_whose_output_never_changes_has_nothing_to_attribute(tmp_path):
    rng = np.random.default_rng(0)
    model = torch.nn.Linear(4, 3)
    for parameter in model.parameters():
        parameter.data.zero_()
    report = qf.audit(
        _store(tmp_path / "s", {"x": rng.normal(size=(50, 4))}),
        model=model,
        inputs=torch.randn(50, 4),
        plan=qf.AuditPlan(n_attributions=5),
        progress=False,
    )
    assert "nothing to attribute" in _text(report)
    assert "hold still" not in _text(report)
    assert "unmoved_output" in [warning["code"] for warning in report.warnings]


def test_a_damaged_store_is_not_audited(tmp_path):
    store = _store(tmp_path / "s", {"x": np.random.default_rng(0).normal(size=(50, 4))})
    file = tmp_path / "s" / store.info["x"].file
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    with pytest.raises(qf.StoreError, match=file.name):
        qf.audit(tmp_path / "s", tmp_path / "r", progress=False)
    assert not (tmp_path / "r" / "results.json").exists()


def test_very_long_layer_names_leave_room_for_the_figures(tmp_path, recwarn):
    rng = np.random.default_rng(0)
    layers = {f"{'encoder.block.' * 12}{i}": rng.normal(size=(60, 3)) for i in range(2)}
    qf.audit(_store(tmp_path / "s", layers), tmp_path / "r", progress=False)
    assert not [warning for warning in recwarn if "layout" in str(warning.message)]
