"""Rules for integrals over the straight path from a baseline to an input: nodes in [0, 1] and weights."""

from __future__ import annotations

import numpy as np

from ._validate import Float64, check_choice, check_int

METHODS = ("riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid", "gausslegendre", "simpson")


def path_nodes(method: str, n_steps: int) -> tuple[Float64, Float64]:
    """Nodes and weights of a rule on [0, 1].

    Parameters
    ----------
    method : str
        ``"riemann_left"``, ``"riemann_right"``, ``"riemann_middle"``, ``"riemann_trapezoid"``,
        ``"gausslegendre"`` or ``"simpson"``.
    n_steps : int
        Intervals of equal length; for ``"gausslegendre"`` the number of nodes. ``"simpson"`` takes an
        even number.

    Returns
    -------
    nodes, weights : ndarray of shape (n_nodes,), float64
        The weights sum to 1. ``"riemann_trapezoid"`` and ``"simpson"`` have ``n_steps + 1`` nodes, the
        others ``n_steps``.

    Raises
    ------
    ValueError
        For an unknown rule, fewer than one step, or an odd number of steps for ``"simpson"``.

    References
    ----------
    Davis and Rabinowitz, Methods of Numerical Integration (1984), sections 2.1 (Riemann sums,
    trapezoid), 2.2 (Simpson) and 2.7 (Gauss-Legendre).

    Examples
    --------
    >>> from qixai_fast.quadrature import path_nodes
    >>> path_nodes("riemann_trapezoid", 2)
    (array([0. , 0.5, 1. ]), array([0.25, 0.5 , 0.25]))
    """
    check_choice(method, "method", METHODS)
    n = check_int(n_steps, "n_steps", low=1)
    if method == "gausslegendre":
        nodes, weights = np.polynomial.legendre.leggauss(n)
        return (nodes + 1) / 2, weights / 2
    if method in ("riemann_left", "riemann_right", "riemann_middle"):
        shift = {"riemann_left": 0.0, "riemann_right": 1.0, "riemann_middle": 0.5}[method]
        return (np.arange(n) + shift) / n, np.full(n, 1 / n)
    if method == "simpson":
        if n % 2:
            raise ValueError(f"n_steps: 'simpson' wants an even number of steps, got {n}")
        pattern = np.where(np.arange(n + 1) % 2, 4.0, 2.0)
        pattern[[0, -1]] = 1.0
        return np.arange(n + 1) / n, pattern / (3 * n)
    weights = np.full(n + 1, 1 / n)
    weights[[0, -1]] /= 2
    return np.arange(n + 1) / n, weights
