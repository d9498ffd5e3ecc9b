"""``qixai-fast bench``: which estimator is fast, and which is right, on this machine and on these data."""

from .run import run_bench

__all__ = ["run_bench"]
