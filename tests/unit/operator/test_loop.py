"""One turn over in-memory ports: what is done in which order, and what a lost race or a fault leads to."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from hotkey_operator.act.executor import apply
from hotkey_operator.adapters.signer import EnvelopeSigner, new_secret_data
from hotkey_operator.engine.model import (
    Decision,
    EmitEvent,
    EndOffsets,
    PublishTable,
    StoredTable,
    TopicFacts,
    Unreadable,
    WriteTable,
)
from hotkey_operator.engine.reasons import ConditionType, Reason
from hotkey_operator.engine.spec import PolicySpec, parse_spec
from hotkey_operator.loop import CONFLICT_PAUSE_SECONDS, Turn, bury
from hotkey_operator.ports import (
    Conflict,
    NamespaceTerminating,
    PolicyRef,
    Ports,
    PublishedEnvelope,
    Unavailable,
)
from hotkey_operator.sense.gather import read_published
from hotkey_operator.status import conditions_of
from hotkey_sdk.routing.codec import MAX_INTEGER
from hotkey_sdk.routing.names import TABLE_EPOCH
from hotkey_sdk.routing.table import RecordKey, Route, Shard, Stream, Table
from tests.simulation.memory import MemoryBrokers, MemoryDistribution, MemoryTables

NOW = 1_000_000.0
REF = PolicyRef("ads", "clicks")
STREAM = Stream("memory-cluster", "clicks")
SPEC = parse_spec({"topic": "clicks"})


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


class Tables(MemoryTables):
    """The tables, with a fault to plant: it is raised by the next write, or by every call."""

    next_write: Exception | None = None
    always: Exception | None = None
    terminating = False
    nonsense: str | None = None  # what is wrong with the object, until it is written anew

    async def read(self, ref: PolicyRef) -> StoredTable | Unreadable | None:  # type: ignore[override]
        if self.always:
            raise self.always
        held = await super().read(ref)
        if held is not None and self.nonsense is not None:
            return Unreadable(self.nonsense, held.resource_version, held.tombstone)
        return held

    async def delete(self, ref: PolicyRef, resource_version: str) -> None:
        await super().delete(ref, resource_version)
        self.nonsense = None

    async def write(
        self, ref: PolicyRef, table: Table, resource_version: str | None, *, tombstone: bool = False
    ) -> StoredTable:
        fault, self.next_write = self.next_write, None
        if fault or self.always:
            raise fault or self.always  # type: ignore[misc]
        if self.terminating and resource_version is None:
            raise NamespaceTerminating(f"namespace {ref.namespace} is being terminated")
        return await super().write(ref, table, resource_version, tombstone=tombstone)


class Distribution(MemoryDistribution):
    """The distribution, which may be gone; it keeps the order of what reached it."""

    gone = False
    publish_fails = False

    async def publish(self, stream: Stream, epoch: int, envelope: bytes, over: str | None = None) -> bool:
        if self.gone or self.publish_fails:
            raise Unavailable("Redis: gone")
        return await super().publish(stream, epoch, envelope, over)

    async def read(self, stream: Stream) -> PublishedEnvelope | None:
        if self.gone:
            raise Unavailable("Redis: gone")
        return await super().read(stream)


class Brokers(MemoryBrokers):
    """A Kafka that does not answer."""

    def __init__(self) -> None:
        super().__init__(lambda: NOW)

    async def topic(self, name: str) -> TopicFacts | None:
        raise Unavailable(f"Kafka: cannot read the facts of topic {name}: timed out")


class World:
    def __init__(self) -> None:
        self.brokers = MemoryBrokers(lambda: NOW)
        self.brokers.create("clicks", 3)
        self.tables, self.distribution = Tables(), Distribution(lambda: NOW)
        self.signer = EnvelopeSigner.from_secret(new_secret_data())
        self.ports = Ports(self.brokers, self.distribution, self.tables, self.signer)

    def turn(self, spec: PolicySpec = SPEC) -> Turn:
        return Turn(self.ports, REF, spec)

    async def stored(self) -> StoredTable:
        found = await self.tables.read(REF)
        assert isinstance(found, StoredTable)
        return found

    async def published(self) -> Table | None:
        return (await read_published(self.ports, STREAM, NOW)).table


def table(epoch: int) -> Table:
    return Table.empty(STREAM, partitions=3, epoch=epoch, seed=1)


ROUTES = (Route(b"nike", "clicks", (), RecordKey.COMPOSITE, (Shard(7, 1),), (0,)),)
EVENT = EmitEvent(Reason.SPREAD, "done")


def test_a_first_turn_writes_the_object_and_publishes_it() -> None:
    async def scenario() -> None:
        world = World()
        outcome = await world.turn().step(NOW, 1)
        stored = await world.stored()
        assert outcome.applied.published_epoch == stored.table.epoch > NOW
        assert await world.published() == stored.table

    run(scenario())


@pytest.mark.parametrize("fault", [Conflict("lost"), Unavailable("gone")])
def test_a_table_that_was_not_written_is_not_published_and_no_event_tells_of_it(fault: Exception) -> None:
    async def scenario() -> None:
        world = World()
        world.tables.next_write = fault
        decision = Decision((WriteTable(table(5), None), PublishTable(table(5)), EVENT), Reason.SPREAD, "")
        applied = await apply(world.ports, REF, decision)
        assert applied.events == ()
        assert applied.published_epoch is None
        assert await world.published() is None

    run(scenario())


def test_a_table_that_was_written_is_told_even_while_redis_is_gone() -> None:
    async def scenario() -> None:
        world = World()
        world.distribution.gone = True
        decision = Decision((WriteTable(table(5), None), PublishTable(table(5)), EVENT), Reason.SPREAD, "")
        applied = await apply(world.ports, REF, decision)
        assert applied.events == (EVENT,)
        assert applied.unpublished == "Redis: gone"
        assert (await world.stored()).table == table(5)

    run(scenario())


def test_after_a_lost_race_it_stands_by_and_then_goes_on_from_what_it_reads() -> None:
    async def scenario() -> None:
        # given an operator that loses against another
        world, turn = World(), World().turn()
        turn = world.turn()
        world.tables.next_write = Conflict("someone else wrote")
        assert (await turn.step(NOW, 1)).standing_by == "someone else wrote"
        # then it does nothing for a while
        await world.tables.write(REF, table(10**9), None)
        standing = await turn.step(NOW + CONFLICT_PAUSE_SECONDS - 0.1, 1)
        assert standing.standing_by == "someone else wrote"
        assert await world.published() is None
        # and then publishes what the other wrote
        after = await turn.step(NOW + CONFLICT_PAUSE_SECONDS, 1)
        assert after.standing_by is None
        assert await world.published() == table(10**9)

    run(scenario())


def test_without_the_truth_nothing_is_decided() -> None:
    async def scenario() -> None:
        world = World()
        world.tables.always = Unavailable("the API server is away")
        outcome = await world.turn().step(NOW, 1)
        assert outcome.decision is None
        assert outcome.failure == "the API server is away"
        assert await world.published() is None

    run(scenario())


def test_a_table_under_an_epoch_that_it_is_not_signed_for_is_garbage() -> None:
    async def scenario() -> None:
        world = World()
        await world.turn().step(NOW, 1)
        held = world.distribution.snapshot()[STREAM].table
        world.distribution.plant(STREAM, {**held, TABLE_EPOCH: 10**12})
        assert (await read_published(world.ports, STREAM, NOW)).garbage is not None
        await world.turn().step(NOW + 1, 1)
        assert await world.published() == (await world.stored()).table

    run(scenario())


def test_a_deleted_policy_leaves_a_tombstone_that_goes_when_redis_has_it() -> None:
    async def scenario() -> None:
        world = World()
        await world.turn().step(NOW, 1)
        before = await world.stored()
        world.distribution.gone = True
        await world.turn(PolicySpec(topic="clicks")).retire(NOW, 1)
        grave = await world.stored()
        assert grave.tombstone
        assert grave.table.epoch > before.table.epoch
        with_redis_gone = await bury(world.ports, REF, grave, NOW)
        assert not with_redis_gone
        world.distribution.gone = False
        assert not await bury(world.ports, REF, grave, NOW)
        assert await world.published() == grave.table
        assert await bury(world.ports, REF, grave, NOW)
        assert await world.tables.read(REF) is None

    run(scenario())


def test_a_tombstone_that_a_new_policy_took_over_is_not_deleted() -> None:
    async def scenario() -> None:
        world = World()
        await world.turn().step(NOW, 1)
        await world.turn().retire(NOW, 1)
        grave = await world.stored()
        await world.tables.write(REF, grave.table, grave.resource_version)
        with pytest.raises(Conflict):
            await bury(world.ports, REF, grave, NOW)
        assert not (await world.stored()).tombstone

    run(scenario())


def test_a_tombstone_of_another_topic_is_left_until_it_is_buried() -> None:
    async def scenario() -> None:
        world = World()
        await world.turn().step(NOW, 1)
        await world.turn().retire(NOW, 1)
        grave = await world.stored()
        world.brokers.create("other", 3)
        outcome = await world.turn(parse_spec({"topic": "other"})).step(NOW + 1, 1)
        assert "clicks" in (outcome.failure or "")
        assert await world.stored() == grave

    run(scenario())


def test_a_deleted_policy_that_did_not_govern_takes_only_its_own_object_away() -> None:
    async def scenario() -> None:
        world = World()
        await world.turn().step(NOW, 1)
        before = await world.published()
        await world.turn().retire(NOW, 1, rival="ads/older")
        assert await world.tables.read(REF) is None
        assert await world.published() == before

    run(scenario())


@pytest.mark.parametrize("fault", [Conflict("lost"), Unavailable("gone")])
def test_a_policy_is_not_let_go_while_its_tombstone_cannot_be_written(fault: Exception) -> None:
    async def scenario() -> None:
        world = World()
        await world.turn().step(NOW, 1)
        world.tables.next_write = fault
        with pytest.raises(type(fault)):
            await world.turn().retire(NOW, 1)

    run(scenario())


def test_a_table_that_no_reader_would_accept_is_neither_written_nor_published_and_told() -> None:
    async def scenario() -> None:
        world = World()
        wrong = msgspec.structs.replace(table(5), read_set=())
        decision = Decision((WriteTable(wrong, None), PublishTable(wrong), EVENT), Reason.SPREAD, "")
        applied = await apply(world.ports, REF, decision)
        assert "readSet" in (applied.unwritten or "")
        assert (applied.stored, applied.published_epoch, applied.events) == (None, None, ())

    run(scenario())


async def routed(world: World) -> Table:
    """The world after a turn of a policy whose key is spread; its table."""
    held = msgspec.structs.replace(table(int(NOW)), routes=ROUTES)
    await world.tables.write(REF, held, None)
    await world.turn(parse_spec({"topic": "clicks", "suspend": True})).step(NOW, 1)
    assert await world.published() == held
    return held


def test_in_a_namespace_that_ends_the_empty_table_is_published_without_an_object() -> None:
    async def scenario() -> None:
        world = World()
        before = await routed(world)
        world.tables.lose(REF)
        world.tables.terminating = True
        outcome = await world.turn().retire(NOW, 1)
        after = await world.published()
        assert after is not None
        assert (after.routes, outcome.failure) == ((), None)
        assert after.epoch > before.epoch

    run(scenario())


def test_a_namespace_ends_even_when_redis_fails_in_the_middle_and_stays_away() -> None:
    async def scenario() -> None:
        world = World()
        await routed(world)
        world.tables.lose(REF)
        world.tables.terminating = True
        world.distribution.publish_fails = True
        with pytest.raises(Unavailable):
            await world.turn().retire(NOW, 1)
        world.distribution.gone = True
        outcome = await world.turn().retire(NOW, 1)
        assert "not taken back" in (outcome.failure or "")

    run(scenario())


def test_a_policy_without_an_object_returns_its_stream_even_while_kafka_is_away() -> None:
    async def scenario() -> None:
        world = World()
        await routed(world)
        world.tables.lose(REF)
        away = Turn(Ports(Brokers(), world.distribution, world.tables, world.signer), REF, SPEC)
        await away.retire(NOW, 1, cluster_id=STREAM.cluster_id)
        after = await world.published()
        assert after is not None
        assert after.routes == ()
        assert (await world.stored()).tombstone

    run(scenario())


def test_an_object_that_holds_nonsense_is_made_anew_from_redis_and_told() -> None:
    async def scenario() -> None:
        world = World()
        before = await routed(world)
        world.tables.nonsense = "routes[0].slots is not base64"
        turn = world.turn(parse_spec({"topic": "clicks", "suspend": True}))
        outcome = await turn.step(NOW + 1, 1)
        after = (await world.stored()).table
        assert after.routes == before.routes
        assert after.epoch > before.epoch
        assert await world.published() == after
        (event,) = outcome.applied.events
        assert (event.reason, event.warning) == (Reason.TABLE_REWRITTEN, True)
        assert "slots is not base64" in event.message
        assert (await turn.step(NOW + 2, 1)).applied.stored is None

    run(scenario())


@pytest.mark.parametrize("redis", ["there", "gone"])
def test_a_policy_whose_object_holds_nonsense_can_be_deleted_while_redis_is(redis: str) -> None:
    async def scenario() -> None:
        world = World()
        await routed(world)
        world.tables.nonsense = "no table"
        world.distribution.gone = redis == "gone"
        await world.turn().retire(NOW, 1)
        held = await world.tables.read(REF)
        if redis == "gone":
            assert held is None
        else:
            assert isinstance(held, StoredTable)
            assert (held.tombstone, held.table.routes) == (True, ())

    run(scenario())


def test_an_epoch_that_a_person_wrote_is_not_published_and_the_object_is_made_anew_below_it() -> None:
    async def scenario() -> None:
        world = World()
        before = await routed(world)
        edited = msgspec.structs.replace(before, epoch=MAX_INTEGER)
        await world.tables.write(REF, edited, (await world.stored()).resource_version)
        turn = world.turn(parse_spec({"topic": "clicks", "suspend": True}))
        outcome = await turn.step(NOW + 1, 1)
        after = (await world.stored()).table
        assert before.epoch < after.epoch < NOW + 100
        assert after.routes == before.routes
        assert await world.published() == after
        assert outcome.decision is not None
        (ready,) = [c for c in outcome.decision.conditions if c.type is ConditionType.READY]
        assert (ready.status, ready.reason) == (False, Reason.TABLE_REWRITTEN)
        assert (await turn.step(NOW + 2, 1)).applied.stored is None

    run(scenario())


def test_an_epoch_that_a_person_wrote_is_no_longer_in_the_way_in_redis() -> None:
    async def scenario() -> None:
        world = World()
        before = await routed(world)
        edited = msgspec.structs.replace(before, epoch=MAX_INTEGER)
        await world.distribution.publish(STREAM, MAX_INTEGER, world.signer.seal(edited))
        await world.turn(parse_spec({"topic": "clicks", "suspend": True})).step(NOW + 1, 1)
        assert await world.published() == before

    run(scenario())


def test_a_tombstone_with_an_epoch_that_a_person_wrote_is_buried_under_a_believable_one() -> None:
    async def scenario() -> None:
        world = World()
        before = await routed(world)
        edited = msgspec.structs.replace(before, routes=(), epoch=MAX_INTEGER)
        version = (await world.stored()).resource_version
        grave = await world.tables.write(REF, edited, version, tombstone=True)
        assert not await bury(world.ports, REF, grave, NOW)
        after = await world.published()
        assert after is not None
        assert (after.routes, after.epoch) == ((), before.epoch + 1)
        assert await bury(world.ports, REF, grave, NOW + 50)
        assert await world.tables.read(REF) is None

    run(scenario())


def test_after_another_query_is_asked_the_rates_are_measured_anew() -> None:
    async def scenario() -> None:
        one, two = (
            parse_spec({"topic": "clicks", "metrics": {"prometheus": {"url": "http://one", "query": query}}})
            for query in ("a", "b")
        )
        turn = World().turn(one)
        await turn.step(NOW, 1)
        measured = turn.memory = replace(turn.memory, log_sizes=(EndOffsets(NOW, (7, 7, 7)),), sized_at=NOW)
        await turn.step(NOW, 1)
        assert turn.memory.log_sizes == measured.log_sizes
        turn.spec = two
        await turn.step(NOW, 1)
        assert turn.memory.log_sizes == ()

    run(scenario())


def test_a_clock_that_is_set_back_ends_the_standing_by() -> None:
    async def scenario() -> None:
        world = World()
        turn = world.turn()
        world.tables.next_write = Conflict("someone else wrote")
        assert (await turn.step(NOW, 1)).standing_by is not None
        assert (await turn.step(NOW - 3_600, 1)).standing_by is None

    run(scenario())


def test_waiting_for_a_former_policys_tombstone_is_no_fault_of_the_api_server() -> None:
    async def scenario() -> None:
        world = World()
        await world.turn().step(NOW, 1)
        await world.turn().retire(NOW, 1)
        world.brokers.create("other", 3)
        outcome = await world.turn(parse_spec({"topic": "other"})).step(NOW + 1, 1)
        (ready,) = conditions_of(outcome)
        assert (ready.status, ready.reason) == (False, Reason.FORMER_POLICY)
        assert "clicks" in ready.message

    run(scenario())
