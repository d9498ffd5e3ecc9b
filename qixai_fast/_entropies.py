"""Renyi entropies of spectra: all of it known, or the leading part and two norms of the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ._validate import Float64

_EPS = float(np.finfo(np.float64).eps)


def check_alpha(alpha: object) -> float:
    """Return the order of an entropy, or raise TypeError/ValueError."""
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float, np.integer, np.floating)):
        raise TypeError(f"alpha: wanted a number, got {type(alpha).__name__}")
    if not (alpha > 0 and math.isfinite(alpha)):
        raise ValueError(f"alpha: wanted a positive finite order, got {alpha}")
    return float(alpha)


def entropy(eigenvalues: Float64, alpha: float = 1.0) -> float:
    """Entropy of order ``alpha``, in nats, of weights that rounding may have left slightly off.

    Weights below 0 count as 0, and for orders below 1, which magnify rounding, those below it do too.
    """
    weights = np.maximum(eigenvalues, 0.0)
    if alpha < 1:
        weights[weights <= len(weights) * _EPS * weights.max()] = 0.0
    weights = weights[weights > 0] / weights.sum()
    logs = np.log(weights)
    if alpha == 1:
        return max(0.0, float(-(weights * logs).sum()))
    if abs(alpha - 1) < 0.1:
        # The logarithm of a sum that is nearly 1.
        power = math.log1p(float((weights * np.expm1((alpha - 1) * logs)).sum()))
    else:
        top = float(logs.max())
        power = alpha * top + math.log(float(np.exp(alpha * (logs - top)).sum()))
    return max(0.0, power / (1 - alpha))


@dataclass(frozen=True)
class PartialSpectrum:
    """What is known of a state of which the leading part was computed.

    Attributes
    ----------
    values : ndarray of shape (r,)
        Ritz values, largest first: eigenvalues of the state within a subspace.
    residuals : ndarray of shape (r,)
        Squared norm of what the state maps each Ritz vector to outside that subspace.
    squared_norm : float
        Sum of the squares of all eigenvalues: the squared Frobenius norm.
    side : int
        The most eigenvalues that are not zero.
    """

    values: Float64
    residuals: Float64
    squared_norm: float
    side: int

    def bounds(self, alpha: float) -> tuple[float, float]:
        """Lowest and highest entropy of order ``alpha`` that the state can have.

        Cut the state after its first j Ritz vectors, and set the blocks between the two parts to zero: that
        can only raise the entropy (Nielsen and Chuang 2010, theorem 11.9, for order 1; it is concave in
        the sense of Schur for all), and by no more than continuity allows (Audenaert 2007, J. Phys. A 40,
        for order 1): sqrt(j) times the norm of the block bounds half the trace norm of the change. Of the
        rest, its trace t and its squared norm f are known exactly. With m values, its entropy lies between
        t ln(t/f) (Jensen) and t ln(m/t); sums of other powers follow from the log-convexity of power
        sums. Every cut gives bounds, none or all values included; the best of each side holds.
        """
        if alpha == 2:
            return (-math.log(self.squared_norm),) * 2
        cuts = np.arange(len(self.values) + 1)
        theta = np.clip(self.values, 0.0, 1.0)
        block = np.concatenate([[0.0], np.cumsum(self.residuals)])
        rest = np.clip(1.0 - np.concatenate([[0.0], np.cumsum(theta)]), _EPS, 1.0)
        squares = self.squared_norm - np.concatenate([[0.0], np.cumsum(theta**2)]) - 2.0 * block
        room = np.maximum(self.side - cuts, 1)
        # Rounding of the sums is not allowed to make the rest flatter than it can be.
        flattest = rest**2 / room
        squares = np.clip(squares + 8 * _EPS * self.squared_norm, flattest, rest**2)
        change = np.minimum(np.sqrt(cuts * block), 1.0)
        logs = np.log(np.where(theta > 0, theta, 1.0))
        if alpha == 1:
            leading = np.concatenate([[0.0], np.cumsum(-theta * logs)])
            low = leading + rest * np.log(rest / squares) - _continuity(change, self.side)
            high = leading + rest * np.log(room / rest)
            return max(0.0, float(low.max())), min(math.log(self.side), float(high.min()))
        # Logarithms of sums of powers, which are far below any float for large orders.
        powers = np.where(theta > 0, alpha * logs, -np.inf)
        leading = np.concatenate([[-np.inf], np.logaddexp.accumulate(powers)])
        flat = alpha * np.log(rest) + (1 - alpha) * np.log(room)
        steep = between = (alpha - 1) * np.log(squares) + (2 - alpha) * np.log(rest)
        if alpha > 2:
            flat, steep = np.maximum(flat, between), alpha / 2 * np.log(squares)
        total = np.logaddexp(leading, steep)
        with np.errstate(divide="ignore"):
            if alpha > 1:
                total = np.logaddexp(total, np.log(2 * alpha * change))
            else:
                less = self.side ** (1 - alpha) * (2 * change) ** alpha
                total = np.log(np.maximum(np.exp(total) - less, 1.0))
        low, high = total / (1 - alpha), np.logaddexp(leading, flat) / (1 - alpha)
        return max(0.0, float(low.max())), min(math.log(self.side), float(high.min()))


def _continuity(change: Float64, side: int) -> Float64:
    """How far apart the entropies of two states can be, by half the trace norm of their difference."""
    inside = np.clip(change, 1e-300, 1 - 1e-16)
    binary = -inside * np.log(inside) - (1 - inside) * np.log1p(-inside)
    bound = change * math.log(max(side - 1, 1)) + np.where(change > 0, binary, 0.0)
    anything: Float64 = np.where(change >= 1 - 1 / side, math.log(side), np.minimum(bound, math.log(side)))
    return anything
