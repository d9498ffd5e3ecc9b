"""Mutual information: bias, RMSE and coverage of every estimator."""

from benchmarks.accuracy.figure import draw
from benchmarks.accuracy.measuring import measure_all
from benchmarks.accuracy.table import lines

__all__ = ["draw", "lines", "measure"]


def measure(quick, processes):
    return {"groups": measure_all(quick, processes)}
