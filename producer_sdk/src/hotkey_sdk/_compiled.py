"""The compiled path of a record (_fast), where it was built and is wanted.

A distribution without a compiler has no _fast, and `HOTKEY_SDK_PURE=1` leaves it alone: then the path in
Python, which does the same, is all there is.
"""

from __future__ import annotations

import inspect
import os
import random
import time
from collections.abc import Callable, Mapping
from types import MethodDescriptorType, ModuleType
from typing import Any

from confluent_kafka import KafkaException

from hotkey_sdk._lanes import Batch, HashedLane, Lane, Lanes, Path, Shuffle, shares_of
from hotkey_sdk.routing.router import RoutePlan, time_bucket

PURE_VARIABLE = "HOTKEY_SDK_PURE"


def load() -> ModuleType | None:
    """The extension, or None where it is not built or not wanted."""
    if os.environ.get(PURE_VARIABLE, "") not in ("", "0"):
        return None
    try:
        from hotkey_sdk import _fast
    except ImportError:
        return None
    return _fast


class CompiledPath(Path):
    """Lanes and counters of C."""

    name = "compiled"

    def __init__(self, fast: Any) -> None:
        self._fast = fast

    def counts(self) -> Any:
        """Counters at zero."""
        return self._fast.Counts()

    def hashed(self, plan: RoutePlan, counts: Any) -> Lane:
        """A lane for a route with dimensions; it asks the pure one for values that it does not know."""
        pure = HashedLane(plan, counts)
        lane: Lane = self._fast.HashedLane(plan.destinations, plan.seed, plan.by, counts, pure, time_bucket)
        return lane

    def sticky(
        self,
        plan: RoutePlan,
        batch: Batch,
        counts: Any,
        clock: Callable[[], float] = time.monotonic,
        shuffle: Shuffle = random.shuffle,
    ) -> Lane:
        """A lane for a route without an order; `shuffle` makes the order in which equals have their turn."""
        lane: Lane = self._fast.StickyLane(
            plan.destinations,
            counts,
            batch.seconds,
            batch.records,
            batch.size_bytes,
            tuple(shares_of(plan, shuffle)),
            None if clock is time.monotonic else clock,
        )
        return lane

    def lanes(self, lanes: Mapping[bytes | str, Lane]) -> Lanes:
        """The lanes of one topic. A key of text is found by its bytes, under which it always stands too."""
        return Lanes(lanes, self._fast.Keys({key: lane for key, lane in lanes.items() if type(key) is bytes}))

    def recent(self) -> Any:
        """What a producer remembers of the topics it has written to last."""
        return self._fast.Recent()


def produce_of(
    fast: Any, owner: type, original: object, pure: Callable[..., None], is_gone: Callable[[Any], bool]
) -> MethodDescriptorType:
    """The compiled `produce` of `owner`, with the parameters and words of `pure`, which does the rare cases.

    Raises `TypeError` when `pure` has not the parameters that it was compiled for.
    """
    parameters = list(inspect.signature(pure).parameters.values())[1:]
    shown = ", ".join(
        each.name if each.default is each.empty else f"{each.name}={each.default!r}" for each in parameters
    )
    doc = f"{pure.__name__}($self, {shown})\n--\n\n{inspect.getdoc(pure)}".encode()
    names = tuple(each.name for each in parameters)
    defaults = tuple(None if each.default is each.empty else each.default for each in parameters)
    method: MethodDescriptorType = fast.bind(
        owner, original, pure, names, defaults, doc, is_gone, KafkaException, Lanes
    )
    return method
