"""Cosines and CKA of layers in half precision."""

import functools

import numpy as np

import qixai_fast as qf
from benchmarks.peers import optional
from benchmarks.planes.measuring import Entrant, Plane

pairwise = optional("sklearn.metrics.pairwise")
torch = optional("torch")


def half_layers(rng, n, d):
    """Two layers of float16 after a ReLU, of the size that layers without normalisation have."""
    source = rng.standard_normal((n, 16))
    layers = []
    for _ in range(2):
        mixed = source @ rng.standard_normal((16, d)) + 2 * rng.standard_normal((n, d))
        layers.append(np.maximum(6 * mixed, 0).astype(np.float16))
    return layers


def true_cosines(X, Y):
    X, Y = X.astype(np.float64), Y.astype(np.float64)
    return X.T @ Y / np.outer(np.linalg.norm(X, axis=0), np.linalg.norm(Y, axis=0))


def numpy_cosines(case, dtype):
    X, Y = (layer.astype(dtype) for layer in case)
    return X.T @ Y / np.outer(np.linalg.norm(X, axis=0), np.linalg.norm(Y, axis=0))


def torch_layers(case, dtype):
    return [torch.from_numpy(layer).to(getattr(torch, dtype)) for layer in case]


def torch_normalized(case, dtype):
    X, Y = (torch.nn.functional.normalize(layer, dim=0) for layer in torch_layers(case, dtype))
    return (X.T @ Y).double().numpy()


def torch_cosines(case, dtype):
    """One feature map after the other beside all of the second layer: memory for one outer product less."""
    X, Y = torch_layers(case, dtype)
    rows = [torch.nn.functional.cosine_similarity(column[:, None], Y, dim=0) for column in X.T]
    return torch.stack(rows).double().numpy()


def true_cka(X, Y):
    return numpy_cka((X, Y), np.float64)


def numpy_cka(case, dtype):
    """The recipe with features (Kornblith et al. 2019, equation 3)."""
    X, Y = (layer.astype(dtype) for layer in case)
    X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    return float(np.linalg.norm(X.T @ Y) ** 2 / (np.linalg.norm(X.T @ X) * np.linalg.norm(Y.T @ Y)))


def torch_cka(case, dtype):
    X, Y = torch_layers(case, dtype)
    X, Y = X - X.mean(0), Y - Y.mean(0)
    norm = torch.linalg.matrix_norm
    return float(norm(X.T @ Y) ** 2 / (norm(X.T @ X) * norm(Y.T @ Y)))


def cosine_entrants():
    found = [
        Entrant(
            "qixai-fast", "cosine_similarity", "cosine_similarity, axis=0",
            lambda case: qf.cosine_similarity(*case, axis=0, n_jobs=1), default=True,
        ),
        *(
            Entrant(
                "NumPy recipe", "cosines", f"X.T @ Y / norms in {kind}",
                lambda case, kind=kind: numpy_cosines(case, kind), default=kind == "float16",
            )
            for kind in ("float16", "float32")
        ),
    ]  # fmt: skip
    if pairwise:
        found.append(
            Entrant(
                "scikit-learn", "cosine_similarity", "cosine_similarity of columns",
                lambda case: pairwise.cosine_similarity(case[0].T, case[1].T), default=True,
            )
        )  # fmt: skip
    if torch:
        found += [
            Entrant(
                "torch", name, f"{name} in {kind}", lambda case, kind=kind, call=call: call(case, kind),
                default=kind == "float16",
            )
            for name, call in (
                ("normalize, matmul", torch_normalized),
                ("cosine_similarity", torch_cosines),
            )
            for kind in ("float16", "bfloat16", "float32")
        ]  # fmt: skip
    return found


def cka_entrants():
    found = [
        Entrant(
            "qixai-fast", "linear_cka", "linear_cka", lambda case: qf.linear_cka(*case, n_jobs=1),
            default=True,
        ),
        *(
            Entrant(
                "NumPy recipe", "CKA", f"products of features in {kind}",
                lambda case, kind=kind: numpy_cka(case, kind), default=kind == "float16",
            )
            for kind in ("float16", "float32")
        ),
    ]  # fmt: skip
    if torch:
        found += [
            Entrant(
                "torch", "CKA", f"products of features in {kind}",
                lambda case, kind=kind: torch_cka(case, kind), default=kind == "float16",
            )
            for kind in ("float16", "bfloat16", "float32")
        ]  # fmt: skip
    return found


def worst_cosine(found, case, truth):
    found = np.asarray(found, dtype=np.float64)
    return np.max(np.abs(found - truth)) / np.max(np.abs(truth)) if np.isfinite(found).all() else np.inf


def planes(rng, quick, folder):
    n, d = (300, 8) if quick else (20_000, 64)
    layers = half_layers(rng, n, d)
    work = f"two layers of {n:,} x {d} float16 after a ReLU"
    yield Plane(
        name="cosines",
        group="likeness",
        title="Cosines of feature maps, float16",
        work=f"all cosines of {work}",
        error_is="largest error / the largest cosine",
        cases=[layers],
        entrants=cosine_entrants(),
        error=functools.partial(worst_cosine, truth=true_cosines(*layers)),
    )
    cka = true_cka(*layers)
    yield Plane(
        name="cka",
        group="likeness",
        title="CKA, float16",
        work=f"linear CKA of {work}, {cka:.4f} in truth",
        error_is="error / truth",
        cases=[layers],
        entrants=cka_entrants(),
        error=lambda value, case: abs(value - cka) / cka,
    )
