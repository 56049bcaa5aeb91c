"""What the partitions would carry with every key plain: the measure of what the routes are good for.

It knows rates and routes, and nothing of how the routes came about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hotkey_operator.engine.heavy import weights
from hotkey_operator.engine.rates import Rates
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.table import Route


def unspread(rates: Sequence[float], routes: Sequence[Route], loads: Mapping[bytes, float]) -> Rates:
    """`rates` (records/s of each partition) with every routed key back on its home partition.

    `loads`: records/s of each routed key; one without a load stays where it is. What a key is taken to have
    on a partition is never more than what that partition carries, so that the sum stays the same even while
    records still follow an earlier table.
    """
    left = list(rates)
    for route in routes:
        home = partition_for(route.key, len(left))
        for partition, weight in weights(route).items():
            if partition != home and partition < len(left):
                taken = min(left[partition], max(0.0, loads.get(route.key, 0.0)) * weight)
                left[partition] -= taken
                left[home] += taken
    return tuple(left)
