"""What a partition carries without its hot key, where the sample alone cannot say.

A hot key is many times a mean partition, so one percent of error in its share can be most of what else its
home partition carries. The other partitions tell what to expect there.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence

OTHERS_AT_LEAST = 3


def believed(loads: Sequence[float], partition: int, error: float, unsure: Collection[int]) -> float:
    """The load of `partition`, whose own estimate has the standard error `error`, weighed against the others.

    The mean of two estimates by their inverse variances: its own, and the mean of the other partitions with
    their standard deviation (empirical Bayes with a normal prior; Efron and Morris 1975). `unsure`: those
    that carry hot keys themselves and so tell nothing of the others.
    """
    others = [load for other, load in enumerate(loads) if other != partition and other not in unsure]
    if len(others) < OTHERS_AT_LEAST or error <= 0:
        return loads[partition]
    expected, spread = statistics.fmean(others), statistics.stdev(others)
    trust = spread**2 / (spread**2 + error**2)
    return trust * loads[partition] + (1 - trust) * expected
