"""Reads what a policy's `metrics` name beside Kafka's end offsets and samples. It asks and never decides."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from hotkey_operator.engine.model import EndOffsets, KeyTally, Read, TopicFacts
from hotkey_operator.engine.spec import PolicySpec, Source
from hotkey_operator.ports import Meter, Ports, Sources, Unavailable

Windows = Mapping[int, tuple[int, int]]  # of offsets [first, end), by partition


@dataclass(frozen=True, slots=True)
class Beside:
    """What is known beside the counters; `amiss`: what of it could not be read, in words for people."""

    log_sizes: EndOffsets | None = None
    tallies: tuple[KeyTally, ...] = ()
    amiss: Mapping[Read, str] = field(default_factory=dict)


def meter(ports: Ports, spec: PolicySpec, topic: TopicFacts) -> Meter:
    """What counts the topic's records instead of Kafka. Raises `Unavailable` where there is none."""
    if ports.sources is None:
        raise Unavailable(f"metrics.source {spec.metrics.source} is not there: this process has Kafka alone")
    return ports.sources.meter(spec.metrics, topic.stream)


async def read_beside(ports: Ports, spec: PolicySpec, topic: TopicFacts | None) -> Beside:
    """The sizes of logs and the producers' tallies, as far as the policy asks for them."""
    if ports.sources is None or topic is None:
        return Beside()
    (sizes, no_sizes), (tallies, no_tallies) = await asyncio.gather(
        _log_sizes(ports.sources, spec, topic), _tallies(ports.sources, spec, topic)
    )
    amiss = {Read.LOG_SIZES: no_sizes, Read.KEY_REPORTS: no_tallies}
    return Beside(sizes, tallies, {what: why for what, why in amiss.items() if why is not None})


async def newest(ports: Ports, spec: PolicySpec, windows: Windows) -> Windows:
    """The windows as offsets of Kafka: of other sources' counters, so many of the newest records.

    Raises `Unavailable`.
    """
    if not windows or spec.metrics.source is Source.KAFKA:
        return windows
    ends = (await ports.brokers.end_offsets(spec.topic, max(windows) + 1)).offsets
    at_the_end = {p: (max(0, ends[p] - (end - first)), ends[p]) for p, (first, end) in windows.items()}
    return {p: (first, end) for p, (first, end) in at_the_end.items() if end > first}


async def _log_sizes(
    sources: Sources, spec: PolicySpec, topic: TopicFacts
) -> tuple[EndOffsets | None, str | None]:
    asked = sources.log_sizes(spec.metrics)
    try:
        return await asked.end_offsets(spec.topic, topic.partitions) if asked else None, None
    except Unavailable as error:
        return None, str(error)


async def _tallies(
    sources: Sources, spec: PolicySpec, topic: TopicFacts
) -> tuple[tuple[KeyTally, ...], str | None]:
    if spec.metrics.sampling:
        return (), None  # samples say the same, and of dimensions too
    try:
        return await sources.tallies(topic.stream, topic.partitions), None
    except Unavailable as error:
        return (), str(error)
