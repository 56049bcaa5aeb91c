"""Each step of a dedicated topic over a real broker, API server and Redis, with the operator killed at it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from hotkey_operator.engine.model import StoredTable
from hotkey_operator.engine.reasons import ConditionType, Reason
from hotkey_operator.loop import Outcome, bury
from hotkey_operator.ports import Conflict
from hotkey_operator.sense.gather import read_published
from hotkey_sdk.routing.names import dedicated_prefix, table_key
from hotkey_sdk.routing.table import DedicatedTopic, Phase
from tests.stack.denying import denying
from tests.stack.operator.real_turns import RealTurns
from tests.stack.operator.scene import Scene
from tests.unit.operator.killing import Killer

LIFE = ["object", "published", "topic", "object", "published", "object", "published"]
TURNS = 30
Scenario = Callable[[RealTurns], Coroutine[Any, Any, None]]
Run = Callable[[Scenario], None]


@pytest.fixture
def run(scene: Scene) -> Run:
    """Runs a scenario with turns of its own."""

    async def with_turns(scenario: Scenario) -> None:
        turns = RealTurns(scene)
        try:
            await scenario(turns)
        finally:
            await turns.close()

    return lambda scenario: asyncio.run(with_turns(scenario))


async def idle(turns: RealTurns) -> DedicatedTopic:
    """The one topic, once it is idle and published."""
    for _ in range(TURNS):
        await turns.second()
        table = await turns.table()
        published = (await read_published(turns.ports, turns.stream, turns.now)).table
        if table is not None and published == table and [each.phase for each in table.topics] == [Phase.IDLE]:
            return table.topics[0]
    raise AssertionError(f"no idle topic within {TURNS} turns: {await turns.table()}")


def condition(outcome: Outcome) -> tuple[Reason, str]:
    assert outcome.decision is not None
    return next(
        (each.reason, each.message)
        for each in outcome.decision.conditions
        if each.type is ConditionType.DEDICATED_TOPICS_READY
    )


def test_the_operator_is_killed_before_and_after_each_side_effect_and_gets_there(run: Run) -> None:
    async def unharmed(turns: RealTurns) -> None:
        await idle(turns)
        assert turns.killer.done == LIFE

    run(unharmed)
    for at in range(1, len(LIFE) + 1):
        for before in (True, False):

            async def killed(turns: RealTurns, at: int = at, before: bool = before) -> None:
                turns.killer = Killer(at, before)
                turns.turn = turns.operator()
                found = await idle(turns)
                made = await turns.made()
                lost = (at, before) in ((3, False), (4, True))  # made, and its id not recorded
                assert len(made) == (2 if lost else 1), (at, before, made)
                assert found.name in made

            run(killed)


def test_what_was_made_and_not_recorded_is_told_with_its_id_and_idle_once_it_is_allowed(run: Run) -> None:
    async def scenario(turns: RealTurns) -> None:
        turns.killer = Killer(3, before=False)
        turns.turn = turns.operator()
        used = await idle(turns)
        (lost,) = await turns.made() - {used.name}
        turns.now += 60.0  # the names of all topics are looked at again
        await turns.second()
        reason, message = condition(await turns.second())
        assert reason is Reason.UNLISTED_TOPIC
        topic_id = message.partition(f"{lost}/")[2].partition(":")[0]
        assert topic_id

        turns.turn.spec = replace(turns.spec, allowed_topics=frozenset({(lost, topic_id)}))
        await turns.second()
        table = await turns.table()
        assert table is not None
        assert {(each.name, each.phase) for each in table.topics} == {
            (lost, Phase.IDLE),
            (used.name, Phase.IDLE),
        }

    run(scenario)


def test_a_broker_that_refuses_is_told_by_its_reason_asked_again_ever_later_and_obeyed_once_it_allows(
    run: Run,
) -> None:
    async def scenario(turns: RealTurns) -> None:
        tried = []
        with denying(turns.scene.stack.kafka.bootstrap, dedicated_prefix(turns.topic)):
            for _ in range(TURNS):
                outcome = await turns.second()
                tried += [turns.now for attempt in outcome.applied.topics]
            reason, message = condition(outcome)
            assert reason is Reason.NOT_AUTHORIZED
            assert "cannot be made" in message
            assert await turns.made() == set()
        pauses = [later - earlier for earlier, later in itertools.pairwise(tried)]
        assert pauses == sorted(pauses)
        assert pauses[-1] >= 8
        turns.now += 60.0
        await idle(turns)

    run(scenario)


def test_of_two_operators_at_once_one_loses_stands_by_and_makes_nothing(run: Run) -> None:
    async def scenario(turns: RealTurns) -> None:
        rivals = [turns.operator(), turns.operator()]
        stood_by = 0
        for _ in range(TURNS):
            turns.now += 1.0
            outcomes = await asyncio.gather(*(each.step(turns.now, seed=1) for each in rivals))
            stood_by += sum(each.standing_by is not None for each in outcomes)
            assert all(not each.applied.topics for each in outcomes if each.standing_by is not None)
            table = await turns.table()
            assert table is not None
            assert await turns.made() <= set(table.read_set)
        assert stood_by
        table = await turns.table()
        assert table is not None
        assert [each.phase for each in table.topics] == [Phase.IDLE]

    run(scenario)


def test_the_object_is_rebuilt_with_its_topics_and_without_redis_they_are_read_and_told(run: Run) -> None:
    async def scenario(turns: RealTurns) -> None:
        topic = await idle(turns)
        before = await turns.table()
        assert before is not None

        await delete_object(turns)
        turns.turn = turns.operator()
        await turns.second()
        rebuilt = await turns.table()
        assert rebuilt is not None
        assert rebuilt.topics == (topic,)
        assert rebuilt.epoch > before.epoch

        await delete_object(turns)
        with turns.scene.redis() as redis:
            redis.delete(table_key(turns.stream))
        turns.turn = turns.operator()
        outcome = await turns.second()
        anew = await turns.table()
        assert anew is not None
        assert topic.name in anew.read_set
        assert topic.name not in [each.name for each in anew.topics]
        assert condition(outcome)[0] is Reason.UNLISTED_TOPIC

    run(scenario)


def test_a_deleted_policys_tombstone_keeps_the_topic_read_until_it_holds_no_record(run: Run) -> None:
    async def scenario(turns: RealTurns) -> None:
        topic = await idle(turns)
        turns.send(topic.name)
        await turns.turn.retire(turns.now, seed=1)
        stored = await turns.ports.tables.read(turns.ref)
        assert isinstance(stored, StoredTable)
        assert stored.tombstone
        assert topic.name in stored.table.read_set
        for _ in range(3):
            assert not await bury(turns.ports, turns.ref, stored, turns.now)
        turns.delete(topic.name)
        while not await bury(turns.ports, turns.ref, stored, turns.now):
            await asyncio.sleep(0.1)
        assert await turns.table() is None

    run(scenario)


async def delete_object(turns: RealTurns) -> None:
    """As a person may, whatever its version."""
    while (stored := await turns.ports.tables.read(turns.ref)) is not None:
        try:
            await turns.ports.tables.delete(turns.ref, stored.resource_version)
        except Conflict:
            continue
