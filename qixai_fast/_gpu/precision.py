"""Products that are rounded as their dtype says, whatever a program has chosen for torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch

_lock = Lock()
_users = 0
_before: list[tuple[str, Any]] = []


def _settings() -> list[tuple[str, Any, Any]]:
    """Name, present value and exact value of what makes products coarser."""
    matmul: Any = torch.backends.cuda.matmul
    found: list[tuple[str, Any, Any]] = []
    try:
        found.append(("allow_tf32", matmul.allow_tf32, False))
    except RuntimeError:
        # torch refuses its older name once a program has used the newer one.
        found.append(("fp32_precision", matmul.fp32_precision, "ieee"))
    name = "allow_fp16_reduced_precision_reduction"
    reduced, split = getattr(matmul, name), getattr(matmul, f"{name}_split_k", None)
    found.append((name, reduced if split is None else (reduced, split), False))
    found.append(("allow_fp16_accumulation", getattr(matmul, "allow_fp16_accumulation", False), False))
    return found


@contextmanager
def exact_products() -> Iterator[None]:
    """Let float32 products have float32's digits, and float16 products sums in float32.

    The settings belong to the process: the first user makes them, the last puts back what was there.
    """
    global _users, _before
    with _lock:
        if _users == 0:
            settings = _settings()
            _before = [(name, now) for name, now, exact in settings if now != exact]
            for name, now, exact in settings:
                if now != exact:
                    setattr(torch.backends.cuda.matmul, name, exact)
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                for name, value in _before:
                    setattr(torch.backends.cuda.matmul, name, value)
