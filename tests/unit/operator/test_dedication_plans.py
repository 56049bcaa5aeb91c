"""Dedicated topics and what a person wants: modes, limits, sizes, and topics that are in no table."""

from __future__ import annotations

from typing import Any

import pytest

from hotkey_operator.engine.model import EndOffsets
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.ports import Unavailable
from hotkey_sdk.routing.table import Phase, Route
from tests.simulation.memory import CONFIG
from tests.unit.operator.dedicated_world import LOUD, POLICY, PREFIX, SOFT, World, dedicated, loud, ready, run


def nikes(world: World) -> Route:
    route = world.table.route(b"nike")
    assert route is not None
    return route


# bigger topics


async def grown(world: World, seconds: int = 60) -> list[str]:
    """Seconds until `nike` has left its first topic for another one; the topics that it was written to."""
    first, seen = nikes(world).topic, []
    for _ in range(seconds):
        await world.second()
        seen.append(nikes(world).topic)
        if seen[-1] != first:
            return seen
    raise AssertionError(f"nike stays in {first}: {world.table.topics}")


def test_a_key_that_outgrows_its_topic_is_moved_to_a_bigger_one_and_is_in_one_of_them_all_the_time() -> None:
    async def scenario() -> None:
        # given a key in a topic of its own
        world = World()
        await dedicated(world)
        old = world.only

        # when it carries twice as much
        world.rates[b"nike"] = 2 * LOUD
        seen = await grown(world)

        # then it goes to a bigger one in one step, and the old one is left and free for the next key
        new = world.of_key(b"nike", Phase.ACTIVE)
        assert new is not None
        assert set(seen) == {old.name, new.name}
        assert new.partitions > old.partitions
        assert {shard.partition for shard in nikes(world).shards} == set(range(new.partitions))
        left = world.table.dedicated(old.name)
        assert left is not None
        assert left.phase is Phase.RETURN
        await world.until("the old one is idle", phase=Phase.IDLE)

    run(scenario())


def test_a_key_of_growing_load_has_one_bigger_topic_in_preparation_at_a_time() -> None:
    async def scenario() -> None:
        world = World({**POLICY, "consumers": {"groups": ["billing", "late"]}}, groups=("billing", "late"))
        await dedicated(world)
        world.groups = ("billing",)
        for rate in range(2 * LOUD, 4 * LOUD, 400):
            world.rates[b"nike"] = rate
            await world.seconds(4)
            assert len(world.table.topics) <= 2
        world.groups = ("billing", "late")
        await grown(world)

    run(scenario())


def test_a_key_that_has_cooled_leaves_its_topic_and_the_bigger_one_that_was_prepared() -> None:
    async def scenario() -> None:
        world = World({**POLICY, "consumers": {"groups": ["billing", "late"]}}, groups=("billing", "late"))
        await dedicated(world)
        world.groups, world.rates[b"nike"] = ("billing",), 2 * LOUD
        await world.until("a bigger one is prepared", phase=Phase.PREPARE)
        world.rates[b"nike"] = SOFT
        await world.seconds(40)
        assert {topic.phase for topic in world.table.topics} == {Phase.IDLE}

    run(scenario())


@pytest.mark.parametrize(("partitions", "moves"), [(20, True), (2, False), (12, False)])
def test_another_number_of_partitions_in_the_policy_moves_a_key_only_to_more_of_them(
    partitions: int, moves: bool
) -> None:
    async def scenario() -> None:
        world = World({**POLICY, "dedicatedTopic": {"enabled": True, "partitions": 12}})
        await dedicated(world)
        world.policy["dedicatedTopic"] = {"enabled": True, "partitions": partitions}
        await world.seconds(20)
        own = world.of_key(b"nike", Phase.ACTIVE)
        assert own is not None
        assert own.partitions == (partitions if moves else 12)

    run(scenario())


def test_a_key_keeps_its_topic_where_the_limits_allow_no_bigger_one() -> None:
    async def scenario() -> None:
        world = World({**POLICY, "limits": {"maxDedicatedPartitions": 12}})
        await dedicated(world)
        world.rates[b"nike"] = 3 * LOUD
        await world.seconds(20)
        assert world.only.partitions == 12

    run(scenario())


def test_another_order_in_the_policy_spreads_a_key_anew_over_its_own_topic() -> None:
    async def scenario() -> None:
        world = World()
        await dedicated(world)
        before = world.only
        world.policy["spread"] = {"ordering": "PerKey"}
        await world.second()
        assert (len(nikes(world).shards), nikes(world).record_key, nikes(world).topic) == (
            1,
            "Preserve",
            before.name,
        )
        assert world.only == before
        after = world.table
        await world.seconds(5)
        assert world.table == after

    run(scenario())


# limits and modes


def test_steps_of_topics_count_to_the_changes_of_a_minute_and_wait_for_the_next_one() -> None:
    async def scenario() -> None:
        world = World({**POLICY, "limits": {"changesPerMinute": 2}})
        await loud(world)
        outcome = await world.until("the limit is told", blocked=Reason.RATE_LIMITED)
        assert "changesPerMinute is 2" in ready(outcome).message
        assert world.only.phase is Phase.PREPARE
        began = world.now
        await world.until("the minute is over", phase=Phase.ACTIVE, seconds=90)
        assert world.now - began > 20

    run(scenario())


def test_a_topic_is_left_at_once_however_many_changes_there_were() -> None:
    async def scenario() -> None:
        world = World()
        await dedicated(world)
        world.policy["limits"] = {"changesPerMinute": 1}
        world.brokers.delete(world.only.name)
        await world.second()
        assert all(route.topic == "clicks" for route in world.table.routes)

    run(scenario())


@pytest.mark.parametrize("mode", ["Observe", "Propose"])
def test_a_policy_that_only_watches_tells_of_the_topic_that_it_would_prepare_and_makes_none(
    mode: str,
) -> None:
    async def scenario() -> None:
        world = World({**POLICY, "mode": mode})
        await loud(world)
        outcome = await world.until("it is told", reason=Reason.OBSERVING)
        for _ in range(20):
            outcome = await world.second()
        assert outcome.decision is not None
        verdict = next(each for each in outcome.decision.verdicts if each.key == b"nike")
        assert verdict.reason is Reason.OBSERVING
        assert "a topic of its own with" in verdict.message
        assert verdict.message == outcome.decision.message
        assert verdict.cost is not None
        assert verdict.cost.partitions >= LOUD / 150
        assert (world.table.topics, world.brokers.names) == ((), ("clicks",))
        world.policy["mode"] = "Automatic"
        await world.until("it may act", phase=Phase.ACTIVE)

    run(scenario())


def test_a_frozen_policy_activates_nothing_that_is_ready() -> None:
    async def scenario() -> None:
        world = World({**POLICY, "consumers": {"groups": ["billing", "late"]}})
        await loud(world)
        await world.until("late is missing", blocked=Reason.CONSUMERS_NOT_READING)
        world.policy["suspend"], world.groups = True, ("billing", "late")
        await world.seconds(20)
        assert world.only.phase is Phase.PREPARE
        world.policy["suspend"] = False
        await world.until("it goes on", phase=Phase.ACTIVE)

    run(scenario())


def test_a_frozen_policy_makes_no_topic_whose_name_stands() -> None:
    async def scenario() -> None:
        world = World()
        await loud(world)
        await world.until("the name stands", phase=Phase.PREPARE)
        world.policy["suspend"] = True
        await world.seconds(10)
        assert world.brokers.names == ("clicks",)

    run(scenario())


@pytest.mark.parametrize("harm", ["deleted", "made anew", "weaker"])
def test_a_frozen_policy_leaves_a_topic_that_is_not_safe(harm: str) -> None:
    async def scenario() -> None:
        world = World()
        await dedicated(world)
        name, size = world.only.name, world.only.partitions
        world.policy["suspend"] = True
        await world.seconds(3)
        match harm:
            case "deleted":
                world.brokers.delete(name)
            case "made anew":
                world.brokers.create(name, size)
            case "weaker":
                world.brokers.configure(name, CONFIG.__class__(1, 1, 1, -1, "CreateTime", False, 1_048_588))
        await world.second()
        assert all(route.topic == "clicks" for route in world.table.routes)

    run(scenario())


def test_why_topics_stand_still_is_told_while_the_base_topic_cannot_be_watched_or_a_rival_governs() -> None:
    async def scenario() -> None:
        world = World()
        await dedicated(world)
        end_offsets = world.brokers.end_offsets

        async def unreadable(name: str, partitions: int) -> EndOffsets:
            raise Unavailable("Kafka: no answer")

        world.brokers.end_offsets = unreadable  # type: ignore[method-assign]
        outcome = await world.second()
        assert ready(outcome).reason is Reason.KAFKA_UNAVAILABLE
        assert "no dedicated topic is prepared" in ready(outcome).message
        world.brokers.end_offsets = end_offsets  # type: ignore[method-assign]
        outcome = await world.second()
        assert ready(outcome).status

        outcome = await world.turn.step(world.now + 1, seed=1, rival="ads/older")
        assert ready(outcome).reason is Reason.ANOTHER_POLICY

    run(scenario())


def test_why_topics_stand_still_is_told_while_they_cannot_be_described() -> None:
    async def scenario() -> None:
        world = World()
        await dedicated(world)
        before = world.table

        async def nothing(names: Any) -> Any:
            raise Unavailable("Kafka: cannot describe topics")

        world.topics.describe = nothing  # type: ignore[method-assign]
        outcome = await world.second()
        assert ready(outcome).reason is Reason.KAFKA_UNAVAILABLE
        assert world.table == before

    run(scenario())


# topics that are in no table


async def orphaned(world: World) -> tuple[str, str]:
    """A topic whose id was lost with the operator that made it; its name and id."""
    await loud(world)
    await world.until("the name stands", phase=Phase.PREPARE)
    name = world.only.name
    topic_id = await world.topics.create(name, world.only.partitions, CONFIG)
    world.turn = world.operator()
    await world.until("another one is used", phase=Phase.ACTIVE)
    return name, topic_id


def test_a_topic_whose_id_was_lost_is_read_told_with_its_id_and_counts_to_no_limit() -> None:
    async def scenario() -> None:
        world = World({**POLICY, "limits": {"maxDedicatedTopics": 1}})
        name, topic_id = await orphaned(world)
        outcome = await world.seconds(3)
        assert ready(outcome).reason is Reason.UNLISTED_TOPIC
        assert f"{name}/{topic_id}" in ready(outcome).message
        assert name in world.table.read_set
        assert world.only.name != name

    run(scenario())


def test_a_topic_that_a_person_allows_by_name_and_id_is_the_next_keys() -> None:
    async def scenario() -> None:
        world = World({**POLICY, "limits": {"maxDedicatedTopics": 1}})
        name, topic_id = await orphaned(world)
        world.allowed = frozenset({(name, topic_id)})
        outcome = await world.second()
        assert outcome.decision is not None
        assert outcome.decision.reason is Reason.TOPIC_ALLOWED
        own = world.table.dedicated(name)
        assert own is not None
        assert (own.phase, own.topic_id, own.key) == (Phase.IDLE, topic_id, None)
        world.rates[b"adidas"] = LOUD
        await world.seconds(20)
        used = world.of_key(b"adidas", Phase.ACTIVE)
        assert used is not None
        assert used.name == name

    run(scenario())


@pytest.mark.parametrize("wrong", ["another id", "not named like ours", "no such topic"])
def test_what_is_allowed_by_a_wrong_id_or_is_none_of_ours_stays_out(wrong: str) -> None:
    async def scenario() -> None:
        world = World()
        name, topic_id = await orphaned(world)
        if wrong == "another id":
            world.brokers.create(name, 3)
        elif wrong == "not named like ours":
            name, topic_id = "orders", world.brokers.create("orders", 3)
        else:
            name = f"{PREFIX}1"
        world.allowed = frozenset({(name, topic_id)})
        await world.seconds(5)
        assert world.table.dedicated(name) is None

    run(scenario())


def test_topics_that_are_in_no_table_fill_no_more_than_a_table_can_hold_and_then_none_is_made() -> None:
    async def scenario() -> None:
        world = World()
        for number in range(400):
            world.brokers.create(f"clicks.hot.ffffffff.g{number}", 1)
        await world.seconds(2)
        assert len(world.table.read_set) == 256
        world.rates[b"nike"] = LOUD
        outcome = await world.until("it is told", blocked=Reason.TOO_MANY_DEDICATED_TOPICS)
        assert "400 topics like it are in no table" in ready(outcome).message
        assert world.table.topics == ()

    run(scenario())


def test_topics_that_only_begin_like_ours_are_none_of_the_streams() -> None:
    async def scenario() -> None:
        world = World()
        for name in (
            "clicks.hot.backup",
            "clicks.hot.a.b.g1",
            "clicks.hot.0a1b2c3d.g1.copy",
            "clicks.hot.g1",
        ):
            world.brokers.create(name, 1)
        await world.seconds(3)
        assert world.table.read_set == ("clicks",)

    run(scenario())


def test_a_base_topic_whose_name_leaves_no_room_for_another_one_is_governed_all_the_same() -> None:
    base = "c" * 240

    async def scenario() -> None:
        world = World({**POLICY, "topic": base, "dedicatedTopic": {"enabled": True, "warm": 1}})
        world.brokers.create(base, 4)
        outcome = await world.seconds(3)
        assert world.table.stream.topic == base
        assert outcome.applied.unwritten is None

    run(scenario())


# producers and groups that do not follow any more


def test_a_key_whose_producers_do_not_write_to_its_topic_goes_back_and_is_left_there_for_a_while() -> None:
    async def scenario() -> None:
        # given a key with a topic that none of its producers may write to
        world = World()
        await dedicated(world)
        world.denied = True
        outcomes = [await world.second() for _ in range(60)]

        # then it goes back, for a reason that says so, and is given no other topic
        told = [each.decision for each in outcomes if each.decision is not None]
        back = [each for each in told if "goes back to the base topic" in each.message]
        assert [each.reason for each in back] == [Reason.PARTIAL_ADOPTION]
        assert "may not write" in back[0].message
        assert world.only.phase is not Phase.ACTIVE
        assert all(route.topic == "clicks" for route in world.table.routes)

    run(scenario())


def test_a_topic_is_left_when_a_group_is_listed_that_does_not_read_it() -> None:
    async def scenario() -> None:
        world = World()
        await dedicated(world)
        world.policy["consumers"] = {"groups": ["billing", "late"]}
        outcomes = [await world.second() for _ in range(25)]
        reasons = [each.decision.reason for each in outcomes if each.decision is not None]
        assert Reason.CONSUMERS_NOT_READING in reasons
        assert all(topic.phase is not Phase.ACTIVE for topic in world.table.topics)

    run(scenario())


def test_a_key_that_is_hot_again_takes_the_topic_that_it_leaves() -> None:
    async def scenario() -> None:
        world = World()
        await dedicated(world)
        world.rates[b"nike"] = SOFT
        await world.until("it goes back", phase=Phase.RETURN)
        own, world.straggling = world.only.name, True
        world.rates[b"nike"] = LOUD
        await world.until("it is there again", phase=Phase.ACTIVE)
        assert world.only.name == own

    run(scenario())


def test_a_topic_that_producers_write_to_long_after_it_was_left_is_told() -> None:
    async def scenario() -> None:
        world = World(straggling=True)
        await dedicated(world)
        world.rates[b"nike"] = SOFT
        await world.until("it goes back", phase=Phase.RETURN)
        assert ready(await world.seconds(30)).status
        outcome = await world.until("it is told", blocked=Reason.PARTIAL_ADOPTION)
        assert "still gets 1.0/s from producers that do not follow the table" in ready(outcome).message
        assert world.only.phase is Phase.RETURN

    run(scenario())
