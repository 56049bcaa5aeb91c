"""What a turn decides of dedicated topics, and how the base topic's planner sees a table with some."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from hotkey_operator.engine.model import Action
from hotkey_operator.engine.own_topic import Want
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.topic_memory import TopicMemory
from hotkey_sdk.routing.table import Table


@dataclass(frozen=True, slots=True)
class Note:
    """What is told of dedicated topics; `key` None: of no key. `change`: a phase changed."""

    reason: Reason
    message: str
    key: bytes | None = None
    change: bool = False


@dataclass(frozen=True, slots=True)
class Dedication:
    """The table with its dedicated topics one step on, what is to be made, and what is to be told.

    `blocked`: what keeps keys from topics of their own, for the condition. `planned`: what would be prepared
    if the policy's mode allowed it.
    """

    table: Table
    memory: TopicMemory
    actions: tuple[Action, ...] = ()
    notes: tuple[Note, ...] = ()
    blocked: tuple[Note, ...] = ()
    planned: tuple[Want, ...] = ()


def base_view(table: Table) -> Table:
    """The table as the planner of the base topic sees it: without the routes to other topics."""
    routes = tuple(route for route in table.routes if route.topic == table.stream.topic)
    return table if routes == table.routes else msgspec.structs.replace(table, routes=routes)


def aside(table: Table) -> frozenset[bytes]:
    """The keys that the planner of the base topic leaves alone: their records go elsewhere."""
    return frozenset(route.key for route in table.routes if route.topic != table.stream.topic)
