"""Bytes per second of partitions from the sizes of their logs, as brokers store them (compressed).

A log also shrinks, when old segments are deleted: such a step says nothing of what was appended, so neither
it nor its time counts. A step in which less was deleted than appended cannot be told and is taken as it is.
"""

from __future__ import annotations

import math

from hotkey_operator.engine.model import EndOffsets
from hotkey_operator.engine.rates import SLOW_SECONDS, History, Rates, window_start


def extended(history: History, sizes: EndOffsets) -> History:
    """The history with one more reading; begun anew where it is of another partition count or clock."""
    if not math.isfinite(sizes.at):
        return history
    if history and (len(history[-1].offsets) != len(sizes.offsets) or sizes.at < history[-1].at):
        return (sizes,)
    if history and sizes.at == history[-1].at:
        return history
    # Twice the horizon: where it is all deletions, there is growth to go by before it.
    return (*(reading for reading in history if reading.at >= sizes.at - 2 * SLOW_SECONDS), sizes)


def growth(history: History, seconds: float) -> Rates | None:
    """Bytes/s appended to each partition over the last `seconds`; None while nothing is measured yet."""
    start = window_start(history, seconds)
    if start is None:
        return None
    first = history.index(start)
    return tuple(_growth(history, first, partition) for partition in range(len(start.offsets)))


def _growth(history: History, first: int, partition: int) -> float:
    """From reading `first` on; from an earlier one while there were deletions only."""
    grown = took = 0.0
    for index in range(len(history) - 1, 0, -1):
        if index <= first and took > 0:
            break
        before, after = history[index - 1], history[index]
        step = after.offsets[partition] - before.offsets[partition]
        if step >= 0:
            grown, took = grown + step, took + after.at - before.at
    return grown / took if took > 0 else 0.0
