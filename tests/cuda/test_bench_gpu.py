"""The benchmark of the CUDA paths runs from end to end, at sizes that say nothing about speed."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("sklearn")  # the networks that are measured are made beside its digits

from benchmarks.gpu import __main__ as bench
from benchmarks.gpu.card import Card
from benchmarks.gpu.targets import NOT_YET, TARGETS, gpu_text
from benchmarks.gpu.works import WORKS

pytestmark = pytest.mark.usefixtures("small_blocks")
TINY = {
    "binned": {"features": 16, "samples": 40},
    "ksg": {"features": 16, "samples": 40},
    "top-k": {"rows": 160, "width": 8, "tiles": [(16, 32)]},
    "pca": {"rows": 40, "width": 8},
    "riemann": {"steps": 3, "samples": 4, "width": 8},
    "gradients": {"images": 1, "side": 32, "steps": 2, "channels": 4, "blocks": 1, "batches": [2]},
}
RATES = {"copied": 2**12, "side": 64}


def works():
    return {name: (work, TINY[name]) for name, (work, _) in WORKS.items()}


@pytest.mark.parametrize("name", list(WORKS))
def test_every_work_runs_and_has_its_lines(gpu, tmp_path, name):
    path = tmp_path / "gpu.json"
    card = Card(gpu.backend, gpu.simulated)
    failed = bench.run(card, path, works(), names=[name], seconds=0, quick=True, card_name="T", rates=RATES)
    assert failed == []
    content = json.loads(path.read_text(encoding="utf-8"))
    assert set(content["rows"]) <= set(TARGETS)
    for row in content["rows"].values():
        assert row["seconds"] > 0
        assert row["measured"] > 0
        assert row["bytes"] > 0
    text = gpu_text(content)
    assert text.count(NOT_YET) == 2 * (len(TARGETS) - len(content["rows"]))
    assert "at 0.0156 of the size" in text


def test_a_work_that_fails_is_named_and_others_stay(gpu, tmp_path, capsys):
    path = tmp_path / "gpu.json"
    card = Card(gpu.backend, gpu.simulated)

    def broken(card, row, scale, full):
        raise AssertionError("other values than the CPU's")
        yield

    mixed = {"broken": (broken, {}), "riemann": works()["riemann"]}
    failed = bench.run(card, path, mixed, names=list(mixed), seconds=0, quick=True, rates=RATES)
    assert failed == ["broken"]
    assert "other values than the CPU's" in capsys.readouterr().err
    assert set(json.loads(path.read_text())["rows"]) == {"riemann float32", "riemann float16"}
