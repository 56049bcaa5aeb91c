"""Rates of partitions from their end offsets, over a fast horizon to see onsets and slow ones for the rest.

It knows nothing of keys. A history is the readings of one topic with one partition count, oldest first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hotkey_operator.engine.model import EndOffsets

FAST_SECONDS = 1.0  # onsets
STEADY_SECONDS = 10.0  # whether a key has cooled
SLOW_SECONDS = 60.0  # imbalance as it is reported, and what a quiet partition carries
SHORTEST_SECONDS = 0.8  # turns are a second apart, more or less; less than this is no measurement
STALL_SECONDS = 10.0  # how far back a partition that stood still is averaged over
SURELY = 3.0  # standard deviations

History = tuple[EndOffsets, ...]
Rates = tuple[float, ...]


def extended(history: History, ends: EndOffsets) -> History:
    """The history with one more reading, and what is older than the slow horizon left out.

    It starts anew where the old readings say nothing of this topic any more: another partition count, an end
    offset that went backwards (the topic was made anew), or a clock that did.
    """
    if not math.isfinite(ends.at):
        return history
    if not history or not _continues(history[-1], ends):
        return (ends,)
    if ends.at == history[-1].at:
        return history
    oldest = ends.at - SLOW_SECONDS - FAST_SECONDS
    return (*(reading for reading in history if reading.at >= oldest), ends)


def _continues(last: EndOffsets, ends: EndOffsets) -> bool:
    return (
        len(last.offsets) == len(ends.offsets)
        and ends.at >= last.at
        and all(new >= old for old, new in zip(last.offsets, ends.offsets, strict=True))
    )


def window_start(history: History, seconds: float) -> EndOffsets | None:
    """The newest reading at least about `seconds` older than the last one; the oldest if none is that old.

    None while there is no reading old enough to measure against.
    """
    if not history:
        return None
    now = history[-1].at
    if now - history[0].at < SHORTEST_SECONDS:
        return None
    latest = now - max(SHORTEST_SECONDS, seconds - 0.2 * FAST_SECONDS)
    old_enough = [reading for reading in history if reading.at <= latest]
    return old_enough[-1] if old_enough else history[0]


def over(history: History, seconds: float) -> Rates | None:
    """Records/s of each partition over the last `seconds`; None while nothing is measured yet."""
    start = window_start(history, seconds)
    if start is None:
        return None
    end = history[-1]
    return tuple(
        (new - old) / (end.at - start.at) for old, new in zip(start.offsets, end.offsets, strict=True)
    )


def fast(history: History) -> Rates | None:
    """Records/s of each partition over the last second or two; None while nothing is measured yet.

    End offsets are high watermarks: a stalled partition stands still, then jumps. Its jump is averaged over
    the time that it stood still, so that a stall is no spike.
    """
    start = window_start(history, FAST_SECONDS)
    if start is None:
        return None
    end, first = history[-1], history.index(start)
    return tuple(
        (end.offsets[p] - start.offsets[p]) / (end.at - _moved_at(history, first, p))
        for p in range(len(end.offsets))
    )


def _moved_at(history: History, index: int, partition: int) -> float:
    """When `partition` last reached the offset of reading `index`, at most the stall's horizon back."""
    earliest = history[-1].at - STALL_SECONDS
    while (
        index > 0
        and history[index - 1].at >= earliest
        and history[index - 1].offsets[partition] == history[index].offsets[partition]
    ):
        index -= 1
    return history[index].at


def steady(history: History, since: float) -> Rates | None:
    """The best guess of each partition's rate now, to plan with: slow where it holds, else fast.

    A second's count of a quiet partition has a noise of 1/sqrt(count); a minute's has an eighth of it, but
    is wrong where the rate has just changed. The slow one is taken where the fast one is within three
    standard deviations of a Poisson count of it. `since`: readings before it are left out.
    """
    now_rates = fast(history)
    if now_rates is None:
        return None
    recent = tuple(reading for reading in history if reading.at >= since)
    slow_rates = over(recent, SLOW_SECONDS)
    return now_rates if slow_rates is None else tuple(map(_holds, slow_rates, now_rates))


def _holds(slow_rate: float, fast_rate: float) -> float:
    noise = math.sqrt(max(slow_rate, 1.0) / FAST_SECONDS)
    return slow_rate if abs(fast_rate - slow_rate) <= SURELY * noise else fast_rate


def imbalance(rates: Sequence[float]) -> float | None:
    """The largest over the mean; None where nothing flows."""
    total = sum(rates)
    return max(rates) * len(rates) / total if total > 0 else None
