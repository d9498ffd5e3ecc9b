"""Numbers and lists in plain English, rounded as far as they can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percent(share: float) -> str:
    """A share as a percentage; "under" and "over" where rounding would claim none or all.

    Examples
    --------
    >>> percent(0.314), percent(0.0004), percent(0.9999), percent(1.0)
    ('31 %', 'under 1 %', 'over 99 %', '100 %')
    """
    if 0 < share < 0.005:
        return "under 1 %"
    if 0.995 <= share < 1 and not math.isclose(share, 1.0, rel_tol=1e-9):
        return "over 99 %"
    return f"{100 * share:.0f} %"


def decimal(value: float) -> str:
    """A number to two decimals, never minus zero.

    Examples
    --------
    >>> decimal(0.666), decimal(-0.001)
    ('0.67', '0.00')
    """
    return f"{round(value, 2) + 0.0:.2f}"


def pvalue(value: float) -> str:
    """A p-value to two significant digits.

    Examples
    --------
    >>> pvalue(0.00417), pvalue(0.5)
    ('p = 0.0042', 'p = 0.5')
    """
    return f"p = {value:.2g}"


def count(number: int, noun: str) -> str:
    """A number and its noun, with thousands set apart.

    Examples
    --------
    >>> count(1, "pair"), count(2048, "pair")
    ('1 pair', '2,048 pairs')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def listing(items: Sequence[object], most: int = 8) -> str:
    """Items as a sentence lists them; what is beyond ``most`` is counted.

    Examples
    --------
    >>> listing([1, 2, 3]), listing(["a"]), listing(range(20), most=2)
    ('1, 2 and 3', 'a', '0, 1 and 18 more')
    """
    shown = [str(item) for item in items[:most]]
    if len(items) > most:
        shown.append(f"{len(items) - most} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
