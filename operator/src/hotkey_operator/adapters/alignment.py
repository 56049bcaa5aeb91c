"""Counters that were read at times of their own, put at one time between their readings.

Partitions of one topic are scraped on several brokers, and producers report when they like: a rate is only
right where both ends of it are the same moment for all. It knows neither Prometheus nor producers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import itemgetter

Points = Sequence[tuple[float, float]]  # (unix seconds, counter), the oldest first, at least one

_TIME = itemgetter(0)


def value_at(points: Points, at: float) -> float:
    """The counter at `at`, on the straight line between its neighbours; outside them, the nearest reading."""
    after = bisect_right(points, at, key=_TIME)
    if after == 0:
        return points[0][1]
    if after == len(points):
        return points[-1][1]
    (start, low), (end, high) = points[after - 1], points[after]
    return low + (high - low) * (at - start) / (end - start)
