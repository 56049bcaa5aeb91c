"""Gathers what one turn needs to know. It asks and never decides; what it could not learn, it says.

Kafka and Redis may be gone: the observation tells so. Without the RoutingTable object, the truth, there is
nothing to decide on: then `Unavailable` goes to the caller and the turn is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hotkey_operator.engine.attention import fewer_runs, unread, windows_to_sample
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import (
    DedicatedSeen,
    EndOffsets,
    Observation,
    PartitionSample,
    Progress,
    Published,
    Read,
    StoredTable,
    TopicFacts,
    Unreadable,
)
from hotkey_operator.engine.spec import PolicySpec, Source
from hotkey_operator.engine.truth import believable
from hotkey_operator.ports import PolicyRef, Ports, SampleBudget, Unavailable
from hotkey_operator.sense.dedicated import read_dedicated
from hotkey_operator.sense.progress import read_progress
from hotkey_operator.sense.sources import meter, newest, read_beside
from hotkey_sdk.routing.report import ClientReport
from hotkey_sdk.routing.table import Stream

BUDGET = SampleBudget()


@dataclass(frozen=True, slots=True)
class Held:
    """What an earlier turn read of the object and the topic, and another one need not read again."""

    stored: StoredTable | None
    topic: TopicFacts | None


async def gather(
    ports: Ports,
    ref: PolicyRef,
    spec: PolicySpec,
    memory: Memory,
    now: float,
    seed: int,
    *,
    rival: str | None = None,
    known: Stream | None = None,
    pace_seconds: float = 1.0,
    held: Held | None = None,
) -> Observation:
    """Everything at `now` (unix seconds); `seed` chooses the sampled offsets. Raises `Unavailable`.

    `known`: the stream as it was last seen, for when neither Kafka nor the object can name it.
    `pace_seconds`: how often a quiet partition's end offset is read. `held`: taken to stand, so not read.
    """
    (stored, unreadable), (topic, failure) = (
        ((held.stored, None), (held.topic, None))
        if held is not None
        else await asyncio.gather(_object(ports, ref), _topic(ports, spec.topic))
    )
    stream = topic.stream if topic is not None else _stored_stream(stored, spec) or known
    if stream is None:
        return Observation(now, None, stored=stored, rival=rival, failure=failure, unreadable=unreadable)
    (
        (ends, samples, blind, unsampled),
        published,
        (reports, progress, dedicated),
        beside,
    ) = await asyncio.gather(
        _load(ports, spec, memory, stored, topic, now, seed, pace_seconds if rival is None else None),
        read_published(ports, stream, now),
        _clients(ports, spec, memory, stored, stream, topic if rival is None else None, now, held),
        read_beside(ports, spec, topic if rival is None else None),
    )
    return Observation(
        at=now,
        topic=topic,
        ends=ends,
        samples=samples,
        stored=stored,
        published=published,
        reports=reports,
        rival=rival,
        failure=failure or blind,
        amiss={**({Read.SAMPLES: unsampled} if unsampled else {}), **beside.amiss},
        unreadable=unreadable,
        progress=progress,
        log_sizes=beside.log_sizes,
        tallies=beside.tallies,
        dedicated=dedicated,
        policy_uid=ref.uid,
    )


async def read_published(ports: Ports, stream: Stream, now: float) -> Published:
    """What Redis holds for `stream`, verified at `now` (unix seconds).

    A table under an epoch that it is not signed for is garbage, and so is one whose epoch is not believable.
    """
    try:
        held = await ports.distribution.read(stream)
    except Unavailable:
        return Published(reachable=False)
    if held is None:
        return Published(reachable=True)
    if held.envelope is None:
        return Published(reachable=True, garbage=held.digest)
    try:
        table = ports.signer.open(held.envelope, stream)
    except ValueError:
        return Published(reachable=True, garbage=held.digest)
    if table.epoch != held.epoch or not believable(table.epoch, now):
        return Published(reachable=True, garbage=held.digest)
    return Published(reachable=True, table=table, former_key=not ports.signer.is_current(held.envelope))


async def read_reports(ports: Ports, stream: Stream) -> tuple[ClientReport, ...]:
    """The clients' reports; none when Redis does not answer."""
    try:
        return await ports.distribution.reports(stream)
    except Unavailable:
        return ()


async def _clients(
    ports: Ports,
    spec: PolicySpec,
    memory: Memory,
    stored: StoredTable | None,
    stream: Stream,
    topic: TopicFacts | None,
    now: float,
    held: Held | None,
) -> tuple[tuple[ClientReport, ...], Progress | None, DedicatedSeen | None]:
    """The clients' reports, how far their groups are, and the dedicated topics that these must read.

    Groups that report themselves are asked for too. While a stream rests no topic is on its way anywhere.
    """
    reports = await read_reports(ports, stream)
    progress, dedicated = await asyncio.gather(
        read_progress(ports, spec, memory, topic, reports, now),
        read_dedicated(ports, spec, memory, stored, topic if held is None else None, reports, now),
    )
    return reports, progress, dedicated


async def _object(ports: Ports, ref: PolicyRef) -> tuple[StoredTable | None, Unreadable | None]:
    found = await ports.tables.read(ref)
    return (None, found) if isinstance(found, Unreadable) else (found, None)


async def _topic(ports: Ports, name: str) -> tuple[TopicFacts | None, str | None]:
    try:
        return await ports.brokers.topic(name), None
    except Unavailable as error:
        return None, str(error)


def _stored_stream(stored: StoredTable | None, spec: PolicySpec) -> Stream | None:
    """The stream as the object names it, so that its table is republished even while Kafka is away."""
    if stored is None or stored.table.stream.topic != spec.topic:
        return None
    return stored.table.stream


async def _load(
    ports: Ports,
    spec: PolicySpec,
    memory: Memory,
    stored: StoredTable | None,
    topic: TopicFacts | None,
    now: float,
    seed: int,
    pace_seconds: float | None,
) -> tuple[EndOffsets | None, tuple[PartitionSample, ...], str | None, str | None]:
    """The end offsets and samples, why there are no end offsets, and why a sample was not read."""
    if topic is None or pace_seconds is None:
        return None, (), None, None
    try:
        ends = await _ends(ports, spec, memory, stored, topic, now, pace_seconds)
    except Unavailable as error:
        return None, (), str(error), None
    windows = windows_to_sample(spec, memory, stored, ends, now)
    budget = replace(BUDGET, fewer_runs=fewer_runs(spec, memory, stored, ends)) if windows else BUDGET
    try:
        found = await _sample(ports, spec, await newest(ports, spec, windows), budget, seed)
    except Unavailable as error:
        return ends, (), None, str(error)
    read = tuple(sample for sample in found if sample.failure is None)
    return ends, read, None, next((sample.failure for sample in found if sample.failure is not None), None)


async def _ends(
    ports: Ports,
    spec: PolicySpec,
    memory: Memory,
    stored: StoredTable | None,
    topic: TopicFacts,
    now: float,
    pace_seconds: float,
) -> EndOffsets:
    """The end offsets; those of quiet partitions at their own pace, where Kafka itself is asked."""
    if spec.metrics.source is not Source.KAFKA:
        return await meter(ports, spec, topic).end_offsets(spec.topic, topic.partitions)
    idle = unread(spec, memory, topic, stored.table if stored else None, now, pace_seconds)
    if not idle:
        return await ports.brokers.end_offsets(spec.topic, topic.partitions)
    asked = [p for p in range(topic.partitions) if p not in idle]
    at, found = await ports.brokers.some_end_offsets(spec.topic, asked)
    offsets = tuple(found.get(p, known) for p, known in enumerate(memory.history.offsets))
    return EndOffsets(at, offsets, idle)


async def _sample(
    ports: Ports, spec: PolicySpec, windows: Mapping[int, tuple[int, int]], budget: SampleBudget, seed: int
) -> tuple[PartitionSample, ...]:
    if not windows:
        return ()
    return await ports.brokers.sample(spec.topic, windows, spec.dimensions, budget, seed)
