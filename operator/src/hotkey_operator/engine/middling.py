"""Keys that are no giants: where no key dominates a hot partition, its biggest are moved, one shard each.

They are moved only if that alone brings the partition under the trigger, or near the mean. It chooses keys;
where they go is the planner's matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hotkey_operator.engine.heavy import TWO_SIDED_95, KeyLoad
from hotkey_operator.engine.pressure import BALANCED, HEAVY
from hotkey_operator.engine.situation import Situation

MATTERS = 0.05  # of a mean partition: what a key must surely carry to be worth a route of its own
MARGIN = 0.95  # of the trigger, so that the moved keys' partition does not stand just under it


def chosen(s: Situation, room: int) -> list[KeyLoad]:
    """The fewest keys, at most `room`, without which every hot partition surely has what it should at most.

    Empty where that is out of reach. A partition on which a bigger key stays keeps no
    other one from being relieved.
    """
    keys: list[KeyLoad] = []
    for partition in s.long_hot:
        found = _of(s, partition, goal(s))
        if found is None and _has_heavy(s, partition):
            continue
        if found is None or len(keys) + len(found) > room:
            return []
        keys += [key for key in found if key not in keys]
    return keys


def goal(s: Situation) -> float:
    """What a partition may carry, in the planning unit: under the trigger, or within balance."""
    trigger = s.spec.trigger
    limit = trigger.bytes_per_second if s.by_bytes else trigger.records_per_second
    if trigger.skew is not None:
        limit = max(limit or 0.0, trigger.skew.ratio * s.mean)
    return max(MARGIN * (limit or 0.0), BALANCED * s.mean)


def _of(s: Situation, partition: int, at_most: float) -> list[KeyLoad] | None:
    """The biggest keys of one partition without which it surely carries `at_most`; None: they are too few."""
    taken: list[KeyLoad] = []
    for key in _candidates(s, partition):
        if s.loads[partition] - _surely(taken, partition) <= at_most:
            break
        taken.append(key)
    return taken if s.loads[partition] - _surely(taken, partition) <= at_most else None


def _has_heavy(s: Situation, partition: int) -> bool:
    return any(key.on.get(partition, 0.0) >= HEAVY * s.mean for key in s.keys.values())


def _candidates(s: Situation, partition: int) -> Sequence[KeyLoad]:
    plain = [
        key
        for key in s.keys.values()
        if key.on.get(partition, 0.0) > 0
        and key.key not in s.aside
        and s.table.route(key.key) is None
        and not s.is_settling(key.key)
        and MATTERS * s.mean <= key.surely < HEAVY * s.mean
    ]
    return sorted(plain, key=lambda key: (-key.on[partition], key.key))


def _surely(keys: Sequence[KeyLoad], partition: int) -> float:
    """What the keys carry on the partition together, at least: the lower end of the 95 % interval."""
    found = sum(key.on[partition] for key in keys)
    return found - TWO_SIDED_95 * math.hypot(*(key.error for key in keys))
