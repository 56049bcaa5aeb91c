"""Keys that go back and forth between spread and plain: each time, the next return waits twice as long.

It knows tables and times alone. What it remembers does not survive a restart of the operator: then a key that
flaps begins again with the policy's `release.for`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hotkey_operator.engine.recency import within
from hotkey_sdk.routing.table import Route, Table

SOON_SECONDS = 1_800.0  # spread again within so long after it was merged back: it flaps
FORGIVEN_SECONDS = 3_600.0  # without flapping: one doubling is taken back
RELEASE_AT_MOST = 3_600.0  # unless the policy asks for more
TIMES_AT_MOST = 16


@dataclass(frozen=True, slots=True)
class Flap:
    """`times` that a key flapped, the last one at `flapped_at`; `back_at`: when it last went back."""

    back_at: float
    times: int = 0
    flapped_at: float = 0.0

    def still(self, at: float) -> int:
        """How many of its times are not forgiven yet."""
        return max(0, self.times - int(max(0.0, at - self.flapped_at) / FORGIVEN_SECONDS))


def release_seconds(asked: float, flap: Flap | None, at: float) -> float:
    """How long a key must be cool: what the policy asks, doubled for each time that it flapped lately."""
    if flap is None:
        return asked
    return max(asked, min(RELEASE_AT_MOST, asked * 2.0 ** flap.still(at)))


def seen(flaps: Mapping[bytes, Flap], old: Table, new: Table, at: float) -> dict[bytes, Flap]:
    """The flaps with what a change of tables adds: keys that went back, and those that did not stay so."""
    found = {key: flap for key, flap in flaps.items() if _is_worth_keeping(flap, at)}
    before = {route.key: route for route in old.routes}
    after = {route.key: route for route in new.routes}
    for key in sorted(before.keys() | after.keys()):
        was, now = _height(before.get(key)), _height(after.get(key))
        flap = found.get(key)
        if now < was:
            found[key] = replace(flap, back_at=at) if flap else Flap(at)
        elif now > was and flap is not None and within(at, flap.back_at, SOON_SECONDS):
            found[key] = replace(flap, times=min(TIMES_AT_MOST, flap.still(at) + 1), flapped_at=at)
    return found


def _height(route: Route | None) -> int:
    """How high on the ladder: plain, or by how many dimensions."""
    return 0 if route is None else 1 + len(route.by)


def _is_worth_keeping(flap: Flap, at: float) -> bool:
    return flap.still(at) > 0 or within(at, flap.back_at, SOON_SECONDS)
