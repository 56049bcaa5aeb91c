"""`Tables`: RoutingTable objects on a real API server and the simulation's answer alike."""

from __future__ import annotations

import msgspec
import pytest

from hotkey_operator.ports import Conflict, PolicyRef, Tables
from hotkey_sdk.routing.table import (
    DedicatedTopic,
    Dimension,
    Phase,
    RecordKey,
    Route,
    Shard,
    Stream,
    Table,
)
from tests.contract.operator.conftest import Run
from tests.contract.operator.worlds import fresh


def ref() -> PolicyRef:
    return PolicyRef("default", fresh("policy"))


def table(epoch: int) -> Table:
    """One with every field in use, and a key that is no text."""
    shards = (Shard(7, 0), Shard(12, 2))
    routes = (
        Route(b"nike", "clicks", ("user_id",), RecordKey.COMPOSITE, shards, (0, 1)),
        Route(b"\xff\x00", "clicks", (), RecordKey.PRESERVE, shards, (0, 1, 1, 0)),
        Route(b"a:1", "clicks.hot.1", (), RecordKey.PRESERVE, (Shard(0, 1),), (0,)),
    )
    return Table(
        stream=Stream("cluster-1", "clicks"),
        partitions=3,
        epoch=epoch,
        seed=2**53 - 1,
        read_set=("clicks", "clicks.hot.1", "clicks.hot.2"),
        dimensions=(Dimension("user_id", json_path="$.user_id"), Dimension("hour", time_bucket_seconds=3600)),
        routes=routes,
        topics=(
            DedicatedTopic("clicks.hot.1", 2, Phase.ACTIVE, "id-1", b"a:1"),
            DedicatedTopic("clicks.hot.2", 6, Phase.PREPARE, key=b"\xff\x00"),
        ),
    )


def test_a_table_that_was_never_written_is_none(run: Run, tables: Tables) -> None:
    assert run(tables.read(ref())) is None


def test_a_written_table_is_read_back_whole_at_the_version_that_writing_gave(
    run: Run, tables: Tables
) -> None:
    async def scenario() -> None:
        where = ref()
        written = await tables.write(where, table(5), None)
        assert written.table == table(5)
        assert await tables.read(where) == written

    run(scenario())


def test_a_table_is_replaced_at_its_version_and_gets_a_new_one(run: Run, tables: Tables) -> None:
    async def scenario() -> None:
        where = ref()
        first = await tables.write(where, table(5), None)
        second = await tables.write(where, table(6), first.resource_version)
        assert second.resource_version != first.resource_version
        assert await tables.read(where) == second

    run(scenario())


def test_creating_what_is_there_is_a_conflict_and_changes_nothing(run: Run, tables: Tables) -> None:
    async def scenario() -> None:
        where = ref()
        first = await tables.write(where, table(5), None)
        with pytest.raises(Conflict):
            await tables.write(where, table(6), None)
        assert await tables.read(where) == first

    run(scenario())


def test_replacing_an_older_version_is_a_conflict_and_changes_nothing(run: Run, tables: Tables) -> None:
    async def scenario() -> None:
        where = ref()
        first = await tables.write(where, table(5), None)
        second = await tables.write(where, table(6), first.resource_version)
        with pytest.raises(Conflict):
            await tables.write(where, table(7), first.resource_version)
        assert await tables.read(where) == second

    run(scenario())


def test_replacing_what_was_deleted_is_a_conflict(run: Run, tables: Tables) -> None:
    async def scenario() -> None:
        where = ref()
        first = await tables.write(where, table(5), None)
        await tables.delete(where, first.resource_version)
        with pytest.raises(Conflict):
            await tables.write(where, table(6), first.resource_version)
        assert await tables.read(where) is None

    run(scenario())


def test_deleting_an_older_version_is_a_conflict_and_what_is_gone_is_none(run: Run, tables: Tables) -> None:
    async def scenario() -> None:
        where = ref()
        first = await tables.write(where, table(5), None)
        second = await tables.write(where, table(6), first.resource_version)
        with pytest.raises(Conflict):
            await tables.delete(where, first.resource_version)
        assert await tables.read(where) == second
        await tables.delete(where, second.resource_version)
        await tables.delete(where, second.resource_version)
        assert await tables.read(where) is None

    run(scenario())


def test_a_tombstone_is_known_as_one_until_a_new_policy_takes_it_over(run: Run, tables: Tables) -> None:
    async def scenario() -> None:
        where = ref()
        first = await tables.write(where, table(5), None)
        assert not first.tombstone
        bare = msgspec.structs.replace(table(6), routes=())
        grave = await tables.write(where, bare, first.resource_version, tombstone=True)
        assert grave.tombstone
        assert await tables.read(where) == grave
        taken_over = await tables.write(where, table(7), grave.resource_version)
        assert not taken_over.tombstone
        assert await tables.read(where) == taken_over

    run(scenario())


def test_policies_do_not_disturb_each_other(run: Run, tables: Tables) -> None:
    async def scenario() -> None:
        one, other = ref(), ref()
        first = await tables.write(one, table(5), None)
        await tables.write(other, table(9), None)
        assert await tables.read(one) == first

    run(scenario())
