"""What all groups of a cluster have committed on one topic, where they are too many to be asked at once.

Some are asked at a time, and what one answered stands for a while. It must not know how a group is asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from hotkey_operator.engine.model import Committed

KNOWN_SECONDS = 300.0  # that an answer stands


class Roll:
    """The answers of a topic's groups. `at_most`: so many are asked at a time."""

    def __init__(self, at_most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._at_most = at_most
        self._clock = clock
        self._tried: dict[str, float] = {}
        self._answers: dict[str, tuple[float, Committed]] = {}
        self._failures: dict[str, Committed] = {}

    def due(self, names: Sequence[str]) -> list[str]:
        """Which of all groups, as they were just listed, are to be asked now: first those not known.

        Of others nothing is kept.
        """
        listed = set(names)
        for kept in (self._tried, self._answers, self._failures):
            for gone in kept.keys() - listed:
                del kept[gone]
        before = float("-inf")
        order = sorted(names, key=lambda name: (self._is_known(name), self._tried.get(name, before), name))
        return order[: self._at_most]

    def take(self, answers: Iterable[Committed]) -> None:
        """What groups answered, or why they did not."""
        now = self._clock()
        for each in answers:
            self._tried[each.group] = now
            if each.failure is None:
                self._answers[each.group] = now, each
                self._failures.pop(each.group, None)
            else:
                self._failures[each.group] = each

    def told(self, names: Sequence[str]) -> tuple[Committed, ...]:
        """Those that have committed, and those of which nothing is known; all not asked yet in one."""
        known = [self._answers[name][1] for name in names if self._is_known(name)]
        unknown = [name for name in names if not self._is_known(name)]
        failed = [self._failures[name] for name in unknown if name in self._failures]
        found = [*(each for each in known if each.offsets), *failed]
        if waiting := len(unknown) - len(failed):
            why = f"{waiting} of {len(names)} groups that the policy does not name are still to be asked"
            found.append(Committed("", {}, f"Kafka: {why}"))
        return tuple(sorted(found, key=lambda each: each.group))

    def _is_known(self, name: str) -> bool:
        return name in self._answers and self._clock() - self._answers[name][0] < KNOWN_SECONDS
