"""Which table must stand, before any thought of heat: the object, what Redis holds, and the next epoch.

The RoutingTable object is the truth. Redis is its copy, and what a lost object is rebuilt from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from hotkey_operator.engine.model import Observation, TopicFacts
from hotkey_operator.engine.placement import in_table_order
from hotkey_operator.engine.spec import PolicySpec
from hotkey_sdk.routing.codec import MAX_INTEGER
from hotkey_sdk.routing.table import Dimension, Phase, Route, Table

BELIEVABLE_SECONDS = 10 * 366 * 86_400  # what is further ahead of the clock than this is no table's epoch
MADE_AT = 1_750_000_000  # unix seconds before any table was made: a clock that says less is wrong


@dataclass(frozen=True, slots=True)
class Standing:
    """The table that must stand now. `why` is None where the object holds it already."""

    table: Table
    why: str | None


def standing(spec: PolicySpec, observation: Observation, topic: TopicFacts) -> Standing:
    """What the object must hold, under the next epoch where it does not."""
    content, why = _content(spec, observation, topic)
    why = why or damage(observation)
    stored = observation.stored.table if observation.stored else None
    if why is None and observation.stored is not None and observation.stored.tombstone:
        why = "the tombstone of a deleted policy is taken over"
    if why is None and stored is not None and content != stored:
        why = "the policy or the topic changed"
    if why is None and _epoch_is_behind(observation, content):
        why = "a higher epoch is in use than the object holds"
    if why is None and observation.published.former_key:
        why = "the signing key changed: the table is signed anew, under an epoch that clients take"
    if why is None:
        return Standing(content, None)
    return Standing(at_next_epoch(content, observation), why)


def believable(epoch: int, at: float) -> bool:
    """Whether the operator can have given this epoch by `at` (unix seconds): epochs begin at the clock.

    After an epoch that a person wrote next to the largest integer none could follow.
    """
    return epoch <= max(at, MADE_AT) + BELIEVABLE_SECONDS


def damage(observation: Observation) -> str | None:
    """Why the object cannot stand as the truth, in words for people; None where it can, or is not there."""
    if observation.unreadable is not None:
        return observation.unreadable.problem
    stored = observation.stored
    if stored is None or believable(stored.table.epoch, observation.at):
        return None
    return f"its epoch {stored.table.epoch} is more than ten years ahead of the clock: no operator wrote it"


def at_next_epoch(table: Table, observation: Observation) -> Table:
    return msgspec.structs.replace(table, epoch=next_epoch(observation))


def next_epoch(observation: Observation) -> int:
    """max(object, validly signed Redis, clients' reports, unix seconds) + 1.

    The clock only helps after both stores were lost. An absurd epoch is not believed, whoever names it.
    """
    stored, published = observation.stored, observation.published.table
    epochs = [int(observation.at), *_reported(observation)]
    epochs += [stored.table.epoch] if stored else []
    epochs += [published.epoch] if published else []
    return min(max(epoch for epoch in epochs if believable(epoch, observation.at)) + 1, MAX_INTEGER)


def _reported(observation: Observation) -> list[int]:
    return [report.epoch for report in observation.reports if believable(report.epoch, observation.at)]


def _epoch_is_behind(observation: Observation, table: Table) -> bool:
    published = observation.published.table
    if published is not None and published.epoch >= table.epoch and published != table:
        return True
    return max(_reported(observation), default=0) > table.epoch


def _content(spec: PolicySpec, observation: Observation, topic: TopicFacts) -> tuple[Table, str | None]:
    stored = observation.stored.table if observation.stored else None
    if stored is not None and stored.stream == topic.stream:
        return _adjusted(spec, stored, topic), None
    published = observation.published.table
    if published is not None and published.stream == topic.stream:
        return _adjusted(spec, published, topic), "the object was lost: rebuilt from the published table"
    epoch = next_epoch(observation)
    empty = Table.empty(topic.stream, partitions=topic.partitions, epoch=epoch, seed=epoch)
    return _adjusted(spec, empty, topic), "the stream has no table yet"


def _adjusted(spec: PolicySpec, table: Table, topic: TopicFacts) -> Table:
    """The table with the policy's dimensions, and without routes where there must be none.

    A route by a dimension that the policy has no longer stays until it is planned anew. A suspended policy
    changes nothing. Routes to partitions that are gone go at once; the others keep the partition count that
    they were planned for, until they are planned anew.
    """
    if spec.suspend:
        return table
    written = {each.name for each in table.topics if each.phase is Phase.ACTIVE and spec.acts}
    own = [route for route in table.routes if route.topic in written]
    may = table.routes if spec.acts and not topic.compacted and topic.partitions > 1 else ()
    based = [
        route
        for route in may
        if route.topic == topic.stream.topic
        and all(shard.partition < topic.partitions for shard in route.shards)
    ]
    routes = in_table_order((*based, *own))
    return left_by(
        msgspec.structs.replace(
            table,
            dimensions=declared(spec, table, routes),
            routes=routes,
            partitions=table.partitions if based else topic.partitions,
        )
    )


def left_by(table: Table) -> Table:
    """The table in which a dedicated topic that no route names any more is on its way back."""
    used = {route.topic for route in table.routes}
    topics = tuple(
        msgspec.structs.replace(topic, phase=Phase.RETURN)
        if topic.phase is Phase.ACTIVE and topic.name not in used
        else topic
        for topic in table.topics
    )
    return table if topics == table.topics else msgspec.structs.replace(table, topics=topics)


def declared(spec: PolicySpec, table: Table, routes: Sequence[Route]) -> tuple[Dimension, ...]:
    """The policy's dimensions, and those of the table's that only `routes` still need."""
    known = {dimension.name for dimension in spec.dimensions}
    needed = {name for route in routes for name in route.by} - known
    return (*spec.dimensions, *(dimension for dimension in table.dimensions if dimension.name in needed))
