"""The tools that a user would pick instead: the recipes of ``qixai-fast bench``, ready for ``race``."""

import numpy as np

from qixai_fast.benching.peers import (
    ennemi_ksg,
    ksg_peers,
    npeet_ksg,
    optional,
    sklearn_inner_ksg,
    sklearn_ksg,
    tree_ksg,
)

__all__ = [
    "KSG",
    "SKLEARN_INNER",
    "ennemi_ksg",
    "npeet_ksg",
    "on_pairs",
    "optional",
    "sklearn_inner_ksg",
    "sklearn_ksg",
    "tree_ksg",
]

KSG = ksg_peers()
SKLEARN_INNER = sklearn_inner_ksg if hasattr(optional("sklearn.feature_selection"), "_mutual_info") else None


def on_pairs(estimate, X, pairs, **options):
    """A call for ``race``: one estimate after another, for pairs of columns; None for a missing peer."""
    if estimate is None:
        return None
    columns = {j: np.ascontiguousarray(X[:, j]) for pair in pairs for j in pair}
    return (lambda: [estimate(columns[i], columns[j], **options) for i, j in pairs]), len(pairs)
