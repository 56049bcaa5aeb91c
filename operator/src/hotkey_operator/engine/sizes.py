"""Bytes per second of partitions from the sizes of their logs, as brokers store them (compressed).

A log also shrinks, when old segments are deleted: such a step says nothing of what was appended, so neither
it nor its time counts. A step in which less was deleted than appended cannot be told and is taken as it is.
"""

from __future__ import annotations

import math

from hotkey_operator.engine.model import EndOffsets

FAST_SECONDS = 1.0  # at least the last step, which is as long as the time between two scrapes
SLOW_SECONDS = 60.0
_KEPT_SECONDS = (
    2 * SLOW_SECONDS
)  # where the last minute was all deletions, there is growth to go by before it

Sizes = tuple[EndOffsets, ...]  # bytes of each partition's log, oldest first


def extended(sizes: Sizes, reading: EndOffsets) -> Sizes:
    """The sizes with one more reading; begun anew where it is of another partition count or clock."""
    if not math.isfinite(reading.at):
        return sizes
    if sizes and (len(sizes[-1].offsets) != len(reading.offsets) or reading.at < sizes[-1].at):
        return (reading,)
    if sizes and reading.at == sizes[-1].at:
        return sizes
    return (*(each for each in sizes if each.at >= reading.at - _KEPT_SECONDS), reading)


def growth(sizes: Sizes, seconds: float) -> dict[int, float]:
    """Bytes/s appended to each partition over the last `seconds`; empty while nothing is measured yet."""
    if len(sizes) < 2:
        return {}
    return {partition: _growth(sizes, partition, seconds) for partition in range(len(sizes[-1].offsets))}


def _growth(sizes: Sizes, partition: int, seconds: float) -> float:
    """Over the newest steps that are no deletions, until they make up `seconds`."""
    grown = took = 0.0
    for index in range(len(sizes) - 1, 0, -1):
        before, after = sizes[index - 1], sizes[index]
        step = after.offsets[partition] - before.offsets[partition]
        if step >= 0:
            grown, took = grown + step, took + after.at - before.at
        if took >= seconds:
            break
    return grown / took if took > 0 else 0.0
