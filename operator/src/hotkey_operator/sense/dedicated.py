"""What a turn asks of a stream's dedicated topics: which exist, how they are kept, who reads and who writes.

Nothing is asked where the policy enables none and the table has none. What could not be learned is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hotkey_operator.engine.dedicated import registered
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import Committed, DedicatedSeen, StoredTable, TopicFacts
from hotkey_operator.engine.spec import PolicySpec
from hotkey_operator.engine.told_topics import STRANGERS_TOLD
from hotkey_operator.engine.topic_memory import unlisted
from hotkey_operator.ports import Ports, Topics, Unavailable
from hotkey_sdk.routing.names import dedicated_prefix
from hotkey_sdk.routing.report import ClientReport
from hotkey_sdk.routing.table import DedicatedTopic, Phase

ALLOWED_AT_MOST = 16  # topics that an annotation names


async def read_dedicated(
    ports: Ports,
    spec: PolicySpec,
    memory: Memory,
    stored: StoredTable | None,
    topic: TopicFacts | None,
    reports: Sequence[ClientReport],
    now: float,
) -> DedicatedSeen | None:
    """What is seen at `now` (unix seconds). After the object was lost the names are looked at in any case."""
    if ports.topics is None or topic is None:
        return None
    listed = stored.table.topics if stored is not None else ()
    read = stored.table.read_set[1:] if stored is not None else ()
    if not (spec.dedicated.enabled or listed or read or stored is None):
        return None
    try:
        return await _read(ports, ports.topics, spec, memory, stored, topic, reports, now)
    except Unavailable as error:
        return DedicatedSeen(failure=str(error))


def _asked(spec: PolicySpec, memory: Memory, stored: StoredTable | None) -> list[str]:
    """The names that are described: those that are listed, and those that a person is told of or allows."""
    if stored is None:
        return []
    strangers = unlisted(stored.table, memory.topics.alike)[:STRANGERS_TOLD]
    allowed = sorted(name for name, _ in spec.allowed_topics)[:ALLOWED_AT_MOST]
    listed = [each.name for each in stored.table.topics]
    return list(dict.fromkeys((*listed, *strangers, *allowed)))


async def _read(
    ports: Ports,
    topics: Topics,
    spec: PolicySpec,
    memory: Memory,
    stored: StoredTable | None,
    topic: TopicFacts,
    reports: Sequence[ClientReport],
    now: float,
) -> DedicatedSeen:
    base, listed = topic.stream.topic, stored.table.topics if stored is not None else ()
    waiting = [
        each for each in listed if each.phase is Phase.PREPARE and each.topic_id and each.key is not None
    ]
    written = [each for each in listed if each.phase in (Phase.ACTIVE, Phase.RETURN)]
    looks = stored is None or memory.topics.lists_names(now)
    described, alike, totals, (groups, on_base) = await asyncio.gather(
        topics.describe([base, *_asked(spec, memory, stored)]),
        topics.alike(dedicated_prefix(base)) if looks else _nothing(),
        _totals(ports, written),
        _groups(ports, waiting, topic, registered(spec, reports, now), spec.ignored_groups),
    )
    seen = described.pop(base, None)
    return DedicatedSeen(seen.config if seen else None, described, totals, groups, on_base, alike)


async def _nothing() -> None:
    return None


async def _totals(ports: Ports, written: Sequence[DedicatedTopic]) -> dict[str, int]:
    found: dict[str, int] = {}
    for each in written:
        try:
            ends = await ports.brokers.end_offsets(each.name, each.partitions)
        except Unavailable:
            continue  # without it nothing is cool and nothing is quiet
        found[each.name] = sum(ends.offsets)
    return found


async def _groups(
    ports: Ports,
    waiting: Sequence[DedicatedTopic],
    topic: TopicFacts,
    registered: Sequence[str],
    ignored: Sequence[str],
) -> tuple[dict[str, tuple[Committed, ...]], tuple[Committed, ...] | None]:
    """What registered groups committed on topics in preparation, and all others that read the base topic."""
    if ports.groups is None or not waiting:
        return {}, None
    try:
        on_base = await ports.groups.reading(
            topic.stream.topic, topic.partitions, frozenset((*registered, *ignored))
        )
        found = {
            each.name: await ports.groups.committed(each.name, each.partitions, registered)
            for each in waiting
        }
    except Unavailable as error:
        return {}, (Committed("", {}, str(error)),)
    return found, on_base
