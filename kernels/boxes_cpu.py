"""Points in boxes of several dimensions, for the KSG estimators of vectors. Differences decide, as always."""

import numpy as np

from ._jit import jit


@jit
def inside(points, centre, other, radius):
    """Whether two points are at most ``radius`` apart in every dimension after the first."""
    near = True
    for d in range(1, points.shape[1]):
        near = near and abs(points[other, d] - points[centre, d]) <= radius
    return near


@jit
def count_boxes(points, positions, radius, strict, counts):
    """Count the other points nearer than each query's radius (``strict``), or at most as far (max norm).

    Parameters
    ----------
    points : (n, d) float64
        Sorted by the first dimension.
    positions : (m,) int32
        Position of each query in ``points``.
    radius : (m,) float64
    strict : bool
    counts : (m,) int32, written
    """
    for q in range(len(positions)):
        counts[q] = 0
        if strict and radius[q] <= 0.0:
            continue
        # Below a float means: at most the float before it.
        reach = np.nextafter(radius[q], 0.0) if strict else radius[q]
        centre = positions[q]
        for step in (-1, 1):
            other = centre + step
            while 0 <= other < len(points) and abs(points[other, 0] - points[centre, 0]) <= reach:
                counts[q] += inside(points, centre, other, reach)
                other += step


@jit
def box_radii(points, n_x, first, last, radius, x_radius, y_radius):
    """For KSG-2: the largest distances in x and in y among all points within the joint radius.

    Parameters
    ----------
    points : (n, d) float64
        Sorted by the first dimension; the first ``n_x`` dimensions are x, the others y.
    n_x, first, last : int
        Queries are points ``first`` to ``last - 1``.
    radius : (n,) float64
        Joint distance of each point to its k-th neighbour.
    x_radius, y_radius : (n,) float64, written
    """
    for centre in range(first, last):
        reach = radius[centre]
        x_radius[centre] = 0.0
        y_radius[centre] = 0.0
        for step in (-1, 1):
            other = centre + step
            while 0 <= other < len(points) and abs(points[other, 0] - points[centre, 0]) <= reach:
                if inside(points, centre, other, reach):
                    for d in range(points.shape[1]):
                        gap = abs(points[other, d] - points[centre, d])
                        if d < n_x:
                            x_radius[centre] = max(x_radius[centre], gap)
                        else:
                            y_radius[centre] = max(y_radius[centre], gap)
                other += step
