"""Conditional mutual information of continuous variables by nearest neighbours, right on atoms, too."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._device import resolve_device
from .._memory import parse_memory, require_budget
from .._threads import resolve_n_jobs
from .._validate import Float64, check_choice, check_same_samples
from .conditional_cells import conditional_local
from .ksg import prepare_columns, variable_matrix
from .pairs import digamma_table
from .pairwise import check_options
from .variables import Jitter, seed_of
from .vectors import vector_bytes

# The jitter of z is drawn beside that of any column of x and y.
_Z_DIMENSION = 2**32


def conditional_mutual_info_ksg(
    x: Any,
    y: Any,
    z: Any,
    *,
    n_neighbors: int = 3,
    scale: str | None = "std",
    atoms: str = "auto",
    random_state: Any = None,
    return_local: bool = False,
    n_jobs: int | None = None,
    device: Any = None,
    max_memory: int | float | str | None = None,
) -> Any:
    """Mutual information of two variables given a third, by nearest neighbours.

    What x and y still tell about each other once z is known: 0 where z screens one from the other
    (x - z - y is a Markov chain), and more than I(X;Y) where x and y act together.

    Parameters
    ----------
    x, y, z : array_like, shape (n,) or (n, d)
        Samples of the three variables; finite real numbers. The dimensions may differ.
    n_neighbors : int, default 3
        Neighbours k in the joint space of all three, from 1 to n - 1.
    scale : {"std", None}, default "std"
        "std" divides each column by its standard deviation (of its continuous part); None takes values as
        given.
    atoms : {"auto", "none"}, default "auto"
        "auto" splits each column into atoms and a continuous part, and spreads a continuous part with
        repeated values over the cells of its lattice; "none" takes values as given. As in
        :func:`mutual_info_ksg`.
    random_state : int, Generator, RandomState or None, default None
        Seed of the lattice jitter; None is seed 0. Nothing else is random.
    return_local : bool, default False
        Return a tuple with the samples' parts after the estimate.
    n_jobs, device, max_memory
        Threads, device, and budget in bytes or as "2GB".

    Returns
    -------
    float
        The estimate in nats; may be slightly negative. It is the same when x and y are exchanged.
    local : (n,) float64
        With ``return_local``: each sample's part, whose mean is the estimate. Where x lived.

    Raises
    ------
    TypeError
        For dtypes other than real numbers.
    ValueError
        For wrong shapes, lengths that differ, NaN or inf, and arguments out of range.
    MemoryBudgetError
        Where ``max_memory`` is too small.

    Notes
    -----
    psi(k) - <psi(n_xz + 1) + psi(n_yz + 1) - psi(n_z + 1)>, where n counts the other samples strictly nearer
    in (x, z), (y, z) and z, in the maximum norm, than the k-th neighbour is in (x, y, z). A constant x or y
    gives 0; a constant z is no condition: the estimate is KSG-1 of x and y.

    The estimate leans toward 0 as dimensions are added, because the k-th neighbour is then far in z.
    Keep z small, and compare with an x whose samples are permuted. Where x is z but for noise much finer than
    the distance of neighbours, the estimate is about -1 / (4 k) where the truth is 0.

    With atoms, let b be the labels (continuous, or which atom) of each variable. In each cell of z,

    I(X;Y|Z) = I(b_x;b_y|Z) + I(X;b_y|Z,b_x) + I(b_x;Y|Z,b_y) + I(X;Y|Z,b_x,b_y)

    exactly. Where z is an atom these are the parts of :func:`mutual_info_ksg` in its cell. Elsewhere the
    last one is the estimate above in each cell of b_x and b_y, and in the others labels are at distance 0
    or infinity: the k-th neighbour is sought among samples of the same label, and

    I(X;b|Z) = <psi(k) - psi(m_xz) - psi(n_zb + 1) + psi(n_z + 1)>,
    I(a;b|Z) = <psi(k) - psi(m_za) - psi(m_zb) + psi(m_z)>,

    with m the other samples at most as far, m_za and m_zb those of the same label a or b only. A cell with k
    samples or fewer uses all of them as neighbours; one sample adds 0. Every column with atoms multiplies
    the cells: more than a few leave too few samples in each.

    References
    ----------
    Frenzel and Pompe, "Partial mutual information for coupling analysis of multivariate time series", Phys.
    Rev. Lett. 99, 204101 (2007), equation (6).

    Mesner and Shalizi, "Conditional mutual information estimation for mixed, discrete and continuous data",
    IEEE Trans. Inf. Theory 67, 464 (2021): labels in the same formula.

    Examples
    --------
    >>> import numpy as np, qixai_fast as qf
    >>> x, noise, more_noise = np.random.default_rng(0).standard_normal((3, 4000))
    >>> z = x + noise
    >>> y = z + more_noise                                  # x - z - y
    >>> bool(qf.mutual_info_ksg(x, y) > 0.15 > 0.05 > abs(qf.conditional_mutual_info_ksg(x, y, z)))
    True
    """
    resolve_device(device)
    check_choice(return_local, "return_local", (False, True))
    threads, budget = resolve_n_jobs(n_jobs), parse_memory(max_memory)
    seed = seed_of(random_state)
    first, second, third = (variable_matrix(v, name) for v, name in ((x, "x"), (y, "y"), (z, "z")))
    check_same_samples(first, second)
    check_same_samples(first, third)
    n = first.n_samples
    options = check_options(n, n_neighbors=n_neighbors, algorithm=1, scale=scale, atoms=atoms, seed=seed)
    required = vector_bytes(n, first.n_features, second.n_features, third.n_features)
    require_budget(budget, required, f"conditional_mutual_info_ksg of {n} samples")
    jitter, psi = Jitter(seed, n), digamma_table(n)
    local: Float64 = conditional_local(
        prepare_columns(first, options, jitter),
        prepare_columns(second, options, jitter),
        prepare_columns(third, options, jitter, _Z_DIMENSION),
        options.n_neighbors,
        psi,
        threads,
    )
    value = float(np.mean(local))
    return (value, first.home.bring(local)) if return_local else value
