"""What a turn asks of a stream's dedicated topics: which exist, how they are kept, who reads and who writes.

Nothing is asked where the policy enables none and the table has none. What could not be learned is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hotkey_operator.engine.dedicated import registered
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import Committed, DedicatedSeen, StoredTable, TopicFacts
from hotkey_operator.engine.read_set import is_alike
from hotkey_operator.engine.spec import PolicySpec
from hotkey_operator.engine.told_topics import STRANGERS_TOLD
from hotkey_operator.engine.topic_memory import unlisted
from hotkey_operator.ports import Ports, Topics, Unavailable
from hotkey_sdk.routing.names import dedicated_prefix
from hotkey_sdk.routing.report import ClientReport
from hotkey_sdk.routing.table import DedicatedTopic, Phase

PATIENCE_SECONDS = 3.0  # for the end offsets of one topic
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
    never_looked = memory.topics.listed_at == float("-inf")
    if not (spec.dedicated.enabled or listed or read or stored is None or never_looked):
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
    waiting = [each for each in listed if _waits(each)]
    written = [each for each in listed if each.phase in (Phase.ACTIVE, Phase.RETURN)]
    looks = stored is None or memory.topics.lists_names(now)
    slow: set[str] = set()
    described, alike, totals, ends, (groups, on_base, listed_on_base) = await asyncio.gather(
        topics.describe([base, *_asked(spec, memory, stored)]),
        topics.alike(dedicated_prefix(base)) if looks else _nothing(),
        _totals(ports, _measurable(memory, written, now), slow),
        _totals(ports, _measurable(memory, waiting, now), slow),
        _groups(ports, memory, listed, topic, registered(spec, reports, now), spec.ignored_groups, now),
    )
    seen = described.pop(base, None)
    return DedicatedSeen(
        base=seen.config if seen else None,
        topics=described,
        totals=totals,
        ends=ends,
        unmeasured=tuple(slow),
        groups=groups,
        on_base=on_base,
        listed_on_base=listed_on_base,
        alike=tuple(each for each in alike if is_alike(base, each)) if alike is not None else None,
    )


async def _nothing() -> None:
    return None


def _measurable(memory: Memory, topics: Sequence[DedicatedTopic], now: float) -> list[DedicatedTopic]:
    return [each for each in topics if not memory.topics.is_unmeasured(each.name, now)]


async def _totals(ports: Ports, topics: Sequence[DedicatedTopic], slow: set[str]) -> dict[str, int]:
    """By name the sum of the end offsets where they can be read; `slow` gets those that took too long."""
    found: dict[str, int] = {}

    async def read(each: DedicatedTopic) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                ends = await ports.brokers.end_offsets(each.name, each.partitions)
        except Unavailable:
            return  # without it nothing is cool, nothing is quiet and nothing is written
        except TimeoutError:
            slow.add(each.name)
            return
        found[each.name] = sum(ends.offsets)

    await asyncio.gather(*(read(each) for each in topics))
    return found


async def _groups(
    ports: Ports,
    memory: Memory,
    listed: Sequence[DedicatedTopic],
    topic: TopicFacts,
    registered: Sequence[str],
    ignored: Sequence[str],
    now: float,
) -> tuple[dict[str, tuple[Committed, ...]], tuple[Committed, ...] | None, tuple[Committed, ...] | None]:
    """What registered groups committed on the topics, all others that read the base topic, and the registered
    on it where also topics that are written were asked for."""
    readers = memory.topics.readers
    waiting = [each for each in listed if _waits(each)]
    written = [each for each in listed if each.phase is Phase.ACTIVE and readers.is_due(now)]
    if ports.groups is None or not (waiting or written):
        return {}, None, None
    if readers.rests(now):
        return {}, readers.failed, None
    asked, base = (*waiting, *written), (topic.stream.topic, topic.partitions)
    try:
        on_base, on_base_too, *found = await asyncio.gather(
            ports.groups.reading(*base, frozenset((*registered, *ignored))),
            ports.groups.committed(*base, registered if written else ()),
            *(ports.groups.committed(each.name, each.partitions, registered) for each in asked),
        )
    except Unavailable as error:
        return {}, (Committed("", {}, str(error)),), None
    groups = dict(zip([each.name for each in asked], found, strict=True))
    return groups, on_base, on_base_too if written else None


def _waits(topic: DedicatedTopic) -> bool:
    """Whether the topic is ours and is written once every group reads it."""
    return topic.phase is Phase.PREPARE and bool(topic.topic_id) and topic.key is not None
