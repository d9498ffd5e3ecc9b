"""``random_state`` as scikit-learn means it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._validate import as_index


def as_generator(random_state: Any) -> np.random.Generator:
    """A NumPy generator from None (fresh entropy), an integer seed, a Generator or a RandomState."""
    if isinstance(random_state, np.random.Generator):
        return random_state
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(0, 2**31 - 1, size=4))
    if random_state is None:
        return np.random.default_rng()
    seed = as_index(random_state)
    if seed is None:
        raise TypeError(
            "random_state: wanted None, an integer, a numpy Generator or RandomState, "
            f"got {type(random_state).__name__}"
        )
    if seed < 0:
        raise ValueError(f"random_state: wanted a seed of at least 0, got {seed}")
    return np.random.default_rng(seed)
