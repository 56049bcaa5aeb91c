"""One turn over in-memory ports: what is done in which order, and what a lost race or a fault leads to."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest

from hotkey_operator.act.executor import apply
from hotkey_operator.adapters.signer import EnvelopeSigner, new_secret_data
from hotkey_operator.engine.model import Decision, EmitEvent, PublishTable, StoredTable, WriteTable
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.spec import PolicySpec, parse_spec
from hotkey_operator.loop import CONFLICT_PAUSE_SECONDS, Turn, bury
from hotkey_operator.ports import Conflict, PolicyRef, Ports, Unavailable
from hotkey_operator.sense.gather import read_published
from hotkey_sdk.routing.names import TABLE_EPOCH
from hotkey_sdk.routing.table import Stream, Table
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

    async def read(self, ref: PolicyRef) -> StoredTable | None:
        if self.always:
            raise self.always
        return await super().read(ref)

    async def write(
        self, ref: PolicyRef, table: Table, resource_version: str | None, *, tombstone: bool = False
    ) -> StoredTable:
        fault, self.next_write = self.next_write, None
        if fault or self.always:
            raise fault or self.always  # type: ignore[misc]
        return await super().write(ref, table, resource_version, tombstone=tombstone)


class Distribution(MemoryDistribution):
    """The distribution, which may be gone; it keeps the order of what reached it."""

    gone = False

    async def publish(self, stream: Stream, epoch: int, envelope: bytes, over: str | None = None) -> bool:
        if self.gone:
            raise Unavailable("Redis: gone")
        return await super().publish(stream, epoch, envelope, over)


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
        assert found is not None
        return found

    async def published(self) -> Table | None:
        return (await read_published(self.ports, STREAM)).table


def table(epoch: int) -> Table:
    return Table.empty(STREAM, partitions=3, epoch=epoch, seed=1)


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
        assert (await read_published(world.ports, STREAM)).garbage is not None
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
        assert await world.published() == before.table
        with_redis_gone = await bury(world.ports, REF, grave)
        assert not with_redis_gone
        world.distribution.gone = False
        assert not await bury(world.ports, REF, grave)
        assert await world.published() == grave.table
        assert await bury(world.ports, REF, grave)
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
            await bury(world.ports, REF, grave)
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
