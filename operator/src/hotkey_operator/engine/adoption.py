"""Which part of a routed key does not follow its route: producers without the table send it as before.

It knows loads per partition and the route's slots, neither samples nor triggers. What strays is background to
a plan: another table would not move it either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

SURELY = 2.0  # standard errors
EXCESS_AT_LEAST = 0.25  # of what the slots put on the home partition: users are not equal either


def stray(
    parts: Mapping[int, float], on: Mapping[int, float], plain: Mapping[int, float]
) -> dict[int, float]:
    """Partition to the load there that does not follow the route, where record keys tell (Composite).

    `parts`: the part of the slots of each partition of the route; `on`: the key's load on each sampled
    partition; `plain`: the part of it, 0..1, that stands under the key itself.
    """
    found = {p: load if p not in parts else load * plain.get(p, 0.0) for p, load in on.items()}
    return {p: load for p, load in found.items() if load > 0}


def stray_by_excess(
    parts: Mapping[int, float], on: Mapping[int, float], errors: Mapping[int, float], home: int
) -> dict[int, float]:
    """The same where every record keeps the caller's key (Preserve): what its home partition has too much.

    `errors`: the standard error of each load. The slots of the other partitions tell what follows; the home's
    excess counts where it is surely there, by two standard errors and a quarter of what its slots should put.
    """
    found = {p: load for p, load in on.items() if p not in parts and load > 0}
    others = [p for p in parts if p != home and p in on]
    weight = sum(parts[p] for p in others)
    if home not in parts or home not in on or weight <= 0:
        return found
    scale = parts[home] / weight
    expected = scale * sum(on[p] for p in others)
    noise = math.hypot(errors[home], scale * math.hypot(*(errors[p] for p in others)))
    excess = on[home] - expected
    if excess > max(SURELY * noise, EXCESS_AT_LEAST * expected):
        found[home] = excess
    return found
