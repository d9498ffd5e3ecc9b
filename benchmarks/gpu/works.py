"""The works that are measured: each takes a card and a share of the full size, and gives rows of the table.

Every work compares some of its values with the CPU's first: fast and wrong does not count.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch

import qixai_fast as qf


def _side(full, scale):
    """A length of which the square takes that share: a multiple of 8 where it is as long."""
    side = int(full * math.sqrt(scale))
    return side // 8 * 8 if side >= 8 else max(side, 2)


def _agree(found, wanted, tolerance, what):
    found, wanted = (
        one.double().cpu().numpy() if torch.is_tensor(one) else np.asarray(one) for one in (found, wanted)
    )
    if not np.allclose(found, wanted, rtol=tolerance, atol=tolerance):
        worst = np.abs(found - wanted).max()
        raise AssertionError(f"{what}: other values than the CPU's, by {worst:.3g}")


def _host_seconds(call):
    """Time of a call on the CPU, after one to warm up."""
    call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def binned(card, row, scale, full):
    """Binned mutual information of all pairs of columns that lie on the device."""
    n, d = full["samples"], _side(full["features"], scale)
    X = card.normal((n, d), torch.float32)
    few = X[:, :8].cpu().numpy()
    wanted = qf.pairwise_mutual_info_binned(few, n_bins=16)
    _agree(qf.pairwise_mutual_info_binned(few, n_bins=16, device="cuda"), wanted, 1e-9, "binned")
    seconds = card.seconds(lambda: qf.pairwise_mutual_info_binned(X, n_bins=16, device="cuda"), rounds=3)
    pairs = d * (d - 1) // 2
    moved = X.nbytes + 8 * d * d
    yield "binned", row(card, scale, seconds, n * pairs / seconds, moved=moved, features=d, samples=n)


def ksg(card, row, scale, full):
    """KSG-1 of all pairs, beside the CPU's kernel on fewer of the same columns."""
    n, d = full["samples"], _side(full["features"], scale)
    X = card.normal((n, d), torch.float64)
    here = X.cpu().numpy()
    wanted = qf.pairwise_mutual_info_ksg(here[:, :8])
    _agree(qf.pairwise_mutual_info_ksg(here[:, :8], device="cuda"), wanted, 1e-9, "ksg")
    seconds = card.seconds(lambda: qf.pairwise_mutual_info_ksg(X, device="cuda"), rounds=3)
    pairs = d * (d - 1) // 2
    for name, columns, n_jobs in (("one core", 64, 1), ("all cores", 256, None)):
        some = np.ascontiguousarray(here[:, : min(d, columns)])
        count = some.shape[1] * (some.shape[1] - 1) // 2
        host = _host_seconds(
            lambda some=some, n_jobs=n_jobs: qf.pairwise_mutual_info_ksg(some, n_jobs=n_jobs)
        )
        yield (
            f"ksg beside {name}",
            row(
                card,
                scale,
                seconds,
                host / count / (seconds / pairs),
                moved=X.nbytes + 8 * d * d,
                features=d,
                samples=n,
                cpu_seconds_a_pair=host / count,
            ),
        )


def top_k(card, row, scale, full):
    """The nearest rows by cosine, beside the same products and nothing else."""
    n, d = _side(full["rows"], scale), full["width"]
    X, Y = card.normal((n, d), torch.float16, 0), card.normal((n, d), torch.float16, 1)
    few = X[: min(n, 200)].float().cpu().numpy(), Y[: min(n, 1000)].float().cpu().numpy()
    wanted = qf.cosine_top_k(*few, k=5)[0]
    _agree(qf.cosine_top_k(*few, k=5, device="cuda")[0], wanted, 1e-5, "top-k")
    seconds = card.seconds(lambda: qf.cosine_top_k(X, Y, k=10, device="cuda"), rounds=3)
    bare = min(_bare_products(card, X, Y, tile) for tile in full["tiles"])
    yield (
        "cosine top-k",
        row(
            card,
            scale,
            seconds,
            bare / seconds,
            moved=X.nbytes + Y.nbytes,
            operations=2 * n * n * d,
            unit="float16 product",
            rows=n,
            width=d,
            bare_seconds=bare,
        ),
    )


def _bare_products(card, X, Y, tile):
    """Seconds of all products in tiles of that shape, each over the last."""
    high, wide = (min(one, len(X)) for one in tile)
    out = torch.empty((high, wide), dtype=X.dtype, device=card.device)

    def all_tiles():
        for i in range(0, len(X), high):
            for j in range(0, len(Y), wide):
                a, b = X[i : i + high], Y[j : j + wide]
                torch.mm(a, b.T, out=out[: len(a), : len(b)] if out.shape != (len(a), len(b)) else out)

    return card.seconds(all_tiles, rounds=2)


def pca(card, row, scale, full):
    """Principal components of rows in the host's memory, beside copying them to the device."""
    d = full["width"]
    for name, rows, make in (
        ("pca", full["rows"], card.backend.pinned),
        ("pca, pageable", full["rows"] // 5, lambda shape, dtype: torch.empty(shape, dtype=dtype)),
    ):
        n = max(4 * d, int(rows * scale))
        X = make((n, d), torch.float16)
        block = card.normal((min(n, 2**17), d), torch.float16) + 3
        for part in torch.split(X, len(block)):
            part.copy_(block[: len(part)])
        del block
        few = X[: min(n, 8 * d)].numpy()
        wanted = qf.pca(few, 2).singular_values
        _agree(qf.pca(few, 2, device="cuda").singular_values, wanted, 1e-5, name)
        seconds = card.seconds(lambda X=X: qf.pca(X.numpy(), min(16, d), device="cuda"), rounds=3)
        bare = _bare_copy(card, X)
        yield (
            name,
            row(
                card,
                scale,
                seconds,
                seconds / bare,
                moved=X.nbytes,
                operations=2 * n * d * d,
                unit="float16 product",
                samples=n,
                features=d,
                copy_seconds=bare,
            ),
        )
        del X
        card.clear()


def _bare_copy(card, X):
    """Seconds that the rows take to the device in blocks of 64 MiB, with nothing else done."""
    rows = max(1, 2**26 // X[0].nbytes)
    into = torch.empty((rows, X.shape[1]), dtype=X.dtype, device=card.device)

    def copy():
        for part in torch.split(X, rows):
            into[: len(part)].copy_(part, non_blocking=True)

    return card.seconds(copy, rounds=3)


def riemann(card, row, scale, full):
    """Weighted sums of recorded gradients that lie on the device, beside a copy."""
    steps, width = full["steps"], full["width"]
    weights = np.full(steps, 1 / steps)
    for name, dtype in (("riemann float32", torch.float32), ("riemann float16", torch.float16)):
        n = max(2, int(full["samples"] * scale))
        gradients = card.normal((steps, n, width), dtype)
        few = gradients[:, :2].cpu().numpy()
        wanted = qf.riemann_accumulate(few, weights)
        _agree(qf.riemann_accumulate(few, weights, device="cuda"), wanted, 1e-5, name)
        seconds = card.seconds(
            lambda gradients=gradients: qf.riemann_accumulate(gradients, weights, device="cuda"), rounds=10
        )
        moved = gradients.nbytes + 4 * n * width
        share = moved / seconds / card.rates["copy"][0]
        shape = list(gradients.shape)
        yield (
            name,
            row(card, scale, seconds, share, moved=moved, operations=2 * gradients.numel(), shape=shape),
        )
        del gradients
        card.clear()


def attributions(card, row, scale, full):
    """Integrated gradients of a residual network, beside as many passes in the batches that suit them."""
    from benchmarks.networks import residual

    n, side, steps = max(1, int(full["images"] * scale)), full["side"], full["steps"]
    model = residual(full["channels"], full["blocks"]).to(card.device)
    images = card.normal((n, 3, side, side), torch.float32)
    seconds = card.seconds(
        lambda: qf.integrated_gradients(model, images, target=3, n_steps=steps, method="riemann_middle"),
        rounds=3,
    )
    bare = min(_bare_passes(card, model, images, steps * n, batch) for batch in full["batches"])
    yield (
        "integrated gradients",
        row(
            card,
            scale,
            seconds,
            seconds / bare,
            moved=images.nbytes,
            images=n,
            steps=steps,
            side=side,
            bare_seconds=bare,
        ),
    )


def _bare_passes(card, model, images, count, batch):
    """Seconds of that many gradients and nothing else."""
    points = images.repeat(-(-batch // len(images)), 1, 1, 1)[:batch].clone().requires_grad_()

    def passes():
        for first in range(0, count, batch):
            some = points[: min(batch, count - first)]
            torch.autograd.grad(model(some)[:, 3].sum(), some)

    return card.seconds(passes, rounds=2)


# On an H200; what a work's function takes as ``full``.
WORKS = {
    "binned": (binned, {"features": 4096, "samples": 1_000_000}),
    "ksg": (ksg, {"features": 1024, "samples": 10_000}),
    "top-k": (
        top_k,
        {"rows": 1_000_000, "width": 512, "tiles": [(8192, 8192), (8192, 32768), (32768, 32768)]},
    ),
    "pca": (pca, {"rows": 10_000_000, "width": 1024}),
    "riemann": (riemann, {"steps": 50, "samples": 400_000, "width": 1000}),
    "gradients": (
        attributions,
        {
            "images": 32,
            "side": 224,
            "steps": 50,
            "channels": 64,
            "blocks": 2,
            "batches": [64, 128, 256, 512],
        },
    ),
}
