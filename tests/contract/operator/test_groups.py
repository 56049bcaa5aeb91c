"""`Groups`: real Kafka's coordinators and the simulation's groups answer alike."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devstack import Stack
from hotkey_operator.engine.lag import GROUPS_AT_MOST
from hotkey_operator.engine.model import Committed
from tests.contract.operator.conftest import Run
from tests.contract.operator.group_worlds import GroupsWorld, KafkaGroupsWorld, MemoryGroupsWorld
from tests.contract.operator.worlds import fresh


@pytest.fixture(params=["kafka", "memory"])
def world(request: pytest.FixtureRequest, run: Run) -> Iterator[GroupsWorld]:
    is_real = request.param == "kafka"
    made: GroupsWorld = KafkaGroupsWorld(request.getfixturevalue("stack")) if is_real else MemoryGroupsWorld()
    yield made
    run(made.close())


def test_a_group_tells_what_it_committed_and_leaves_out_partitions_without_a_commit(
    run: Run, world: GroupsWorld
) -> None:
    async def scenario() -> None:
        topic, group = fresh("topic"), fresh("group")
        await world.create(topic, 3)
        await world.append(topic, 2, 9)
        await world.commit(group, topic, {0: 0, 2: 7})
        assert await world.groups.committed(topic, 3, [group]) == (Committed(group, {0: 0, 2: 7}),)

    run(scenario())


def test_an_unknown_group_has_committed_nothing_and_that_is_no_failure(run: Run, world: GroupsWorld) -> None:
    async def scenario() -> None:
        topic, group = fresh("topic"), fresh("nobody")
        await world.create(topic, 2)
        for _ in range(2):
            assert await world.groups.committed(topic, 2, [group]) == (Committed(group, {}),)

    run(scenario())


def test_groups_are_told_in_the_order_in_which_they_are_asked_for(run: Run, world: GroupsWorld) -> None:
    async def scenario() -> None:
        topic, first, second, unknown = fresh("topic"), fresh("b"), fresh("a"), fresh("nobody")
        await world.create(topic, 1)
        await world.append(topic, 0, 5)
        await world.commit(first, topic, {0: 3})
        await world.commit(second, topic, {0: 4})
        found = await world.groups.committed(topic, 1, [first, unknown, second])
        assert found == (Committed(first, {0: 3}), Committed(unknown, {}), Committed(second, {0: 4}))

    run(scenario())


def test_what_a_group_committed_on_another_topic_or_beyond_the_asked_partitions_is_not_told(
    run: Run, world: GroupsWorld
) -> None:
    async def scenario() -> None:
        topic, other, group = fresh("topic"), fresh("other"), fresh("group")
        await world.create(topic, 2)
        await world.create(other, 1)
        await world.append(topic, 1, 5)
        await world.append(other, 0, 5)
        await world.commit(group, topic, {0: 0, 1: 5})
        await world.commit(group, other, {0: 4})
        assert await world.groups.committed(topic, 1, [group]) == (Committed(group, {0: 0}),)

    run(scenario())


def test_a_commit_below_the_start_of_the_log_or_beyond_its_end_is_told_as_it_is(
    run: Run, world: GroupsWorld
) -> None:
    async def scenario() -> None:
        topic, group = fresh("topic"), fresh("group")
        await world.create(topic, 2)
        for partition in (0, 1):
            await world.append(topic, partition, 10)
        await world.commit(group, topic, {0: 2, 1: 1_000})
        await world.delete_before(topic, 0, 6)
        assert await world.groups.committed(topic, 2, [group]) == (Committed(group, {0: 2, 1: 1_000}),)

    run(scenario())


def test_the_first_offset_that_a_log_holds_is_told_of_the_partitions_that_were_asked_for(
    run: Run, world: GroupsWorld
) -> None:
    async def scenario() -> None:
        topic = fresh("topic")
        await world.create(topic, 3)
        for partition in (0, 2):
            await world.append(topic, partition, 10)
        await world.delete_before(topic, 2, 6)
        assert await world.groups.starts(topic, [0, 2]) == {0: 0, 2: 6}
        assert await world.groups.starts(topic, []) == {}

    run(scenario())


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_group_with_members_tells_what_they_committed_whatever_its_protocol(
    run: Run, world: GroupsWorld, protocol: str
) -> None:
    async def scenario() -> None:
        topic, group = fresh("topic"), fresh(protocol)
        await world.create(topic, 2)
        await world.append(topic, 1, 8)
        await world.join(group, topic, {1: 5}, protocol)
        assert await world.groups.committed(topic, 2, [group]) == (Committed(group, {1: 5}),)

    run(scenario())


@pytest.mark.parametrize(
    "odd",
    ["half a \ud800 surrogate", "null\0character", "", "x" * 250],
    ids=["no text", "NUL", "empty", "long"],
)
def test_a_group_whose_name_no_client_takes_says_why_and_hides_no_other(
    run: Run, world: GroupsWorld, odd: str
) -> None:
    async def scenario() -> None:
        topic, group = fresh("topic"), fresh("group")
        await world.create(topic, 1)
        await world.commit(group, topic, {0: 0})
        refused, found = await world.groups.committed(topic, 1, [odd, group])
        assert found == Committed(group, {0: 0})
        assert refused.offsets == {}
        assert refused.failure

    run(scenario())


def test_a_second_round_over_more_groups_than_one_stream_has_makes_no_client_anew(
    run: Run, stack: Stack
) -> None:
    async def scenario() -> None:
        world = KafkaGroupsWorld(stack)
        topic, names = fresh("topic"), [fresh("group") for _ in range(GROUPS_AT_MOST + 8)]
        await world.create(topic, 1)
        clients = world.clients
        await world.groups.committed(topic, 1, names)
        made = clients.made
        second = await world.groups.committed(topic, 1, names)
        assert second == tuple(Committed(name, {}) for name in names)
        assert clients.made == made
        await world.close()

    run(scenario())


def test_the_groups_that_read_a_topic_are_those_that_committed_on_it(run: Run, world: GroupsWorld) -> None:
    async def scenario() -> None:
        topic, other, reader, elsewhere = fresh("topic"), fresh("other"), fresh("reader"), fresh("elsewhere")
        for name in (topic, other):
            await world.create(name, 2)
            await world.append(name, 1, 9)
        await world.commit(reader, topic, {1: 7})
        await world.commit(elsewhere, other, {1: 2})
        assert Committed(reader, {1: 7}) in await world.groups.reading(topic, 2)
        assert elsewhere not in {each.group for each in await world.groups.reading(topic, 2)}
        assert reader not in {each.group for each in await world.groups.reading(topic, 2, {reader})}

    run(scenario())
