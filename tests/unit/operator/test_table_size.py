"""A table has room for so many bytes: all its routes share them, and one too big is not written."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import TopicFacts
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.routing import _within_size
from hotkey_operator.engine.situation import Situation
from hotkey_sdk.routing.codec import MAX_SLOTS, MAX_TABLE_BYTES, encode
from hotkey_sdk.routing.table import DedicatedTopic, Phase, RecordKey, Route, Shard, Table
from tests.unit.operator.dedicated_world import POLICY, PREFIX, REF, START, STREAM, World, ready, run

OWN = DedicatedTopic(f"{PREFIX}1", 1, Phase.ACTIVE, "id-1", b"own")


def big(key: bytes, topic: str = "clicks") -> Route:
    """A sixth of a table."""
    return Route(key, topic, (), RecordKey.COMPOSITE, (Shard(0, 0),), (0,) * MAX_SLOTS)


def test_routes_to_dedicated_topics_take_their_part_of_a_tables_bytes() -> None:
    table = Table(STREAM, 4, 9, seed=7, read_set=("clicks", OWN.name), topics=(OWN,))
    spec, topic = World(dict(POLICY)).spec, TopicFacts(STREAM, 4, False)
    s = Situation(spec, START, topic, table, Memory(), None, None, (), False, {})
    routes = tuple(big(b"key-%d" % number) for number in range(5))
    assert _within_size(s, routes, set()) == (routes, {})

    s = replace(s, aside=frozenset({b"own"}), elsewhere=(big(b"own", OWN.name),))
    fitting, dropped = _within_size(s, routes, {b"key-4"})

    assert fitting == routes[:4]
    assert dropped[b"key-4"].reason is Reason.TOO_MANY_HOT_KEYS


def test_a_name_that_a_full_table_has_no_room_for_is_not_written_and_all_else_goes_on() -> None:
    async def scenario() -> None:
        # given a table that one more name makes too big
        world = World(dict(POLICY))
        await world.second()
        routes = tuple(big(b"key-%d" % number) for number in range(5))
        full = Table(STREAM, 4, world.table.epoch + 1, seed=7, read_set=("clicks",), routes=routes)
        last = Route(b"z", "clicks", (), RecordKey.COMPOSITE, (Shard(0, 0),), (0,) * (MAX_SLOTS // 2))
        left = MAX_TABLE_BYTES - len(encode(msgspec.structs.replace(full, routes=(*routes, last))))
        last = msgspec.structs.replace(last, key=b"z" * (left - 50))
        full = msgspec.structs.replace(full, routes=(*routes, last))
        stored = world.tables.peek(REF)
        assert stored is not None
        await world.tables.write(REF, full, stored.resource_version)
        world.history = []

        # when the policy asks for one
        world.policy["dedicatedTopic"] = {"enabled": True, "warm": 1}
        outcome = await world.seconds(2)

        # then the table stands as it was, clients have it, and why is told
        assert world.published() == world.table
        assert (world.table.routes, world.table.topics) == (full.routes, ())
        assert outcome.applied.unpublished is None
        assert ready(outcome).reason is Reason.TOO_MANY_HOT_KEYS

    run(scenario())
