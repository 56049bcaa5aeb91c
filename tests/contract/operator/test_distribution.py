"""`Distribution`: real Redis and the simulation's answer alike, whatever stands there."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import redis as redis_client

from devstack import Stack
from hotkey_operator.adapters.redis import RedisDistribution
from hotkey_operator.ports import PublishedEnvelope
from hotkey_sdk.routing.names import reports_key
from hotkey_sdk.routing.report import (
    KEY_REPORT_BYTES_AT_MOST,
    ClientReport,
    KeyReport,
    PartitionCount,
    Role,
    encode_key_report,
    encode_report,
)
from hotkey_sdk.routing.table import Stream
from tests.contract.operator.conftest import Run
from tests.contract.operator.worlds import DistributionWorld, RedisWorld, fresh

GARBAGE: dict[str, Any] = {
    "a string": b"not a hash",
    "a list": ["a", "b"],
    "a hash without an envelope": {"epoch": "5"},
    "10 MB": {"epoch": "5", "digest": "x", "envelope": b"x" * 10_000_000},
    "an envelope without an epoch": {"envelope": b"hello"},
    "an epoch that is no number": {"epoch": "high", "envelope": b"hello"},
}


def stream() -> Stream:
    return Stream("cluster", fresh("topic"))


def held(epoch: int, envelope: bytes) -> PublishedEnvelope:
    return PublishedEnvelope(epoch, hashlib.sha256(envelope).hexdigest(), envelope)


def test_nothing_published_is_none(run: Run, redis: DistributionWorld) -> None:
    assert run(redis.distribution.read(stream())) is None


def test_what_was_published_is_read_back(run: Run, redis: DistributionWorld) -> None:
    async def scenario() -> None:
        where = stream()
        assert await redis.distribution.publish(where, 7, b"seven")
        assert await redis.distribution.read(where) == held(7, b"seven")

    run(scenario())


def test_only_a_higher_epoch_replaces_what_stands_there(run: Run, redis: DistributionWorld) -> None:
    async def scenario() -> None:
        where = stream()
        assert await redis.distribution.publish(where, 7, b"seven")
        assert not await redis.distribution.publish(where, 6, b"six")
        assert await redis.distribution.read(where) == held(7, b"seven")
        assert await redis.distribution.publish(where, 8, b"eight")
        assert await redis.distribution.read(where) == held(8, b"eight")

    run(scenario())


def test_the_same_epoch_is_accepted_again_only_with_the_same_envelope(
    run: Run, redis: DistributionWorld
) -> None:
    async def scenario() -> None:
        where = stream()
        assert await redis.distribution.publish(where, 7, b"seven")
        assert await redis.distribution.publish(where, 7, b"seven")
        assert not await redis.distribution.publish(where, 7, b"another seven")
        assert await redis.distribution.read(where) == held(7, b"seven")

    run(scenario())


def test_epochs_are_compared_as_numbers(run: Run, redis: DistributionWorld) -> None:
    async def scenario() -> None:
        where = stream()
        assert await redis.distribution.publish(where, 9, b"nine")
        assert await redis.distribution.publish(where, 10, b"ten")
        assert await redis.distribution.publish(where, 2**53 - 1, b"highest")
        assert await redis.distribution.read(where) == held(2**53 - 1, b"highest")

    run(scenario())


def test_streams_do_not_disturb_each_other(run: Run, redis: DistributionWorld) -> None:
    async def scenario() -> None:
        one, other = stream(), stream()
        assert await redis.distribution.publish(one, 9, b"nine")
        assert await redis.distribution.publish(other, 1, b"one")
        assert await redis.distribution.read(one) == held(9, b"nine")

    run(scenario())


def test_each_publication_is_hinted_with_its_epoch(run: Run, redis: DistributionWorld) -> None:
    async def scenario() -> None:
        where = stream()
        await redis.listen(where)
        await redis.distribution.publish(where, 7, b"seven")
        await redis.distribution.publish(where, 8, b"eight")
        assert await redis.hints(where, 2) == [7, 8]

    run(scenario())


@pytest.mark.parametrize("what", list(GARBAGE))
def test_garbage_is_told_by_a_stable_digest_and_replaced_only_by_naming_it(
    run: Run, redis: DistributionWorld, what: str
) -> None:
    async def scenario() -> None:
        where = stream()
        await redis.plant(where, GARBAGE[what])
        found = await redis.distribution.read(where)
        assert found is not None
        assert found == await redis.distribution.read(where)
        assert found.epoch is None or found.envelope is None
        assert not await redis.distribution.publish(where, 9, b"nine", over="another digest")
        assert await redis.distribution.read(where) == found
        assert await redis.distribution.publish(where, 3, b"three", over=found.digest)
        assert await redis.distribution.read(where) == held(3, b"three")

    run(scenario())


def test_a_well_formed_lie_can_be_replaced_by_a_lower_epoch_that_names_it(
    run: Run, redis: DistributionWorld
) -> None:
    async def scenario() -> None:
        where = stream()
        await redis.plant(where, {"epoch": "99", "digest": "x", "envelope": b"signed by nobody"})
        found = await redis.distribution.read(where)
        assert found is not None
        assert found.digest == hashlib.sha256(b"signed by nobody").hexdigest()
        assert not await redis.distribution.publish(where, 5, b"five")
        assert await redis.distribution.publish(where, 5, b"five", over=found.digest)
        assert await redis.distribution.read(where) == held(5, b"five")

    run(scenario())


def test_an_envelope_beside_the_digest_of_another_one_is_garbage(run: Run, redis: DistributionWorld) -> None:
    async def scenario() -> None:
        where = stream()
        other = hashlib.sha256(b"the one before").hexdigest()
        await redis.plant(where, {"epoch": "5", "digest": other, "envelope": b"five"})
        found = await redis.distribution.read(where)
        assert found is not None
        assert found.envelope is None, "clients that hold the one before would take it for unchanged"
        assert await redis.distribution.publish(where, 5, b"five", over=found.digest)
        assert await redis.distribution.read(where) == held(5, b"five")

    run(scenario())


def test_garbage_that_is_gone_meanwhile_does_not_stop_the_publication(
    run: Run, redis: DistributionWorld
) -> None:
    assert run(redis.distribution.publish(stream(), 5, b"five", over="what was there"))


def test_reports_are_listed_and_what_cannot_be_decoded_is_left_out(
    run: Run, redis: DistributionWorld
) -> None:
    async def scenario() -> None:
        where = stream()
        report = ClientReport("app:p1", Role.PRODUCER, 7, 1_000.5)
        await redis.plant_report(where, "app:p1", encode_report(report))
        await redis.plant_report(where, "app:broken", b"\xff{")
        await redis.plant_report(where, "app:wrong", b'{"client_id": 5}')
        assert await redis.distribution.reports(where) == (report,)
        assert await redis.distribution.reports(stream()) == ()

    run(scenario())


def test_a_client_is_named_after_the_place_of_its_report_whatever_the_report_says(
    run: Run, redis: DistributionWorld
) -> None:
    async def scenario() -> None:
        where = stream()
        told, counted = ClientReport("p1", Role.PRODUCER, 7, 1.0), KeyReport("p1", 1.0, 5.0, 2.0)
        for reporter in ("app", "liar"):
            await redis.plant_report(where, f"{reporter}:p1", encode_report(told))
            await redis.plant_key_report(where, f"{reporter}:p1", encode_key_report(counted))
        both = ["app:p1", "liar:p1"]
        assert sorted(each.client_id for each in await redis.distribution.reports(where)) == both
        assert sorted(each.client_id for each in await redis.distribution.key_reports(where)) == both
        await redis.distribution.forget(where, ["liar:p1"])
        assert [each.client_id for each in await redis.distribution.reports(where)] == ["app:p1"]

    run(scenario())


def test_reports_are_heard_again_after_something_else_stood_in_their_place(
    run: Run, redis: DistributionWorld
) -> None:
    async def scenario() -> None:
        where = stream()
        report = ClientReport("app:p1", Role.PRODUCER, 7, 1_000.5)
        await redis.block_reports(where)
        assert await redis.distribution.reports(where) == ()
        await redis.plant_report(where, "app:p1", encode_report(report))
        assert await redis.distribution.reports(where) == (report,)

    run(scenario())


def test_forgotten_clients_are_reported_no_more(run: Run, redis: DistributionWorld) -> None:
    async def scenario() -> None:
        where = stream()
        reports = [ClientReport(f"app:c{i}", Role.CONSUMER, 1, 5.0, group="g") for i in range(3)]
        for report in reports:
            await redis.plant_report(where, report.client_id, encode_report(report))
        await redis.distribution.forget(where, ["app:c0", "app:c2", "app:never there"])
        assert await redis.distribution.reports(where) == (reports[1],)

    run(scenario())


def test_what_producers_counted_is_listed_and_what_cannot_be_decoded_is_left_out(
    run: Run, redis: DistributionWorld
) -> None:
    async def scenario() -> None:
        where = stream()
        counted = KeyReport("app:p1", 1.0, 5.0, 2.0, (PartitionCount(3, 70),))
        await redis.plant_key_report(where, "app:p1", encode_key_report(counted))
        await redis.plant_key_report(where, "app:broken", b"\xff{")
        await redis.plant_key_report(where, "app:wrong", b'{"client_id": "p2", "partitions": [[-1, 2]]}')
        assert await redis.distribution.key_reports(where) == (counted,)
        assert await redis.distribution.key_reports(stream()) == ()

    run(scenario())


def test_a_forgotten_client_s_counts_are_gone_too(run: Run, redis: DistributionWorld) -> None:
    async def scenario() -> None:
        where = stream()
        for name in ("app:p1", "app:p2"):
            await redis.plant_key_report(where, name, encode_key_report(KeyReport(name, 1.0, 5.0, 2.0)))
        await redis.distribution.forget(where, ["app:p1"])
        assert [each.client_id for each in await redis.distribution.key_reports(where)] == ["app:p2"]

    run(scenario())


def test_counts_can_be_forgotten_alone(run: Run, redis: DistributionWorld) -> None:
    async def scenario() -> None:
        where = stream()
        told = ClientReport("app:p1", Role.PRODUCER, 1, 5.0)
        await redis.plant_report(where, "app:p1", encode_report(told))
        for name in ("app:p1", "app:p2"):
            await redis.plant_key_report(where, name, encode_key_report(KeyReport(name, 1.0, 5.0, 2.0)))
        await redis.distribution.forget_key_reports(where, ["app:p1", "app:never there"])
        assert [each.client_id for each in await redis.distribution.key_reports(where)] == ["app:p2"]
        assert await redis.distribution.reports(where) == (told,)

    run(scenario())


def test_key_reports_that_one_read_has_no_room_for_are_counted_and_told_once(
    run: Run, stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    """Real Redis alone: the simulation's answer has no bounds."""
    world = RedisWorld(stack)
    where, fits = stream(), 8 * 1024 * 1024 // KEY_REPORT_BYTES_AT_MOST

    async def scenario() -> None:
        assert isinstance(world.distribution, RedisDistribution)
        for number in range(fits):
            await world.plant_key_report(where, f"app:c{number}", b"x" * KEY_REPORT_BYTES_AT_MOST)
        await world.distribution.key_reports(where)
        assert (world.distribution.key_reports_left_out, caplog.records) == (0, [])
        await world.plant_key_report(where, "app:one more", b"x" * KEY_REPORT_BYTES_AT_MOST)
        for _ in range(2):
            await world.distribution.key_reports(where)
        assert world.distribution.key_reports_left_out == 2
        assert [record.getMessage() for record in caplog.records] == ["key reports left out"]
        await world.distribution.forget_key_reports(where, [f"app:c{number}" for number in range(fits)])

    try:
        run(scenario())
    finally:
        run(world.close())


def test_reports_of_very_many_clients_do_not_keep_redis_from_answering_others(run: Run, stack: Stack) -> None:
    """Real Redis alone: the simulation's keeps nobody waiting."""
    world, where, clients = RedisWorld(stack), stream(), 50_000
    report = encode_report(ClientReport("c", Role.PRODUCER, 5, 1.0))

    async def scenario() -> None:
        with redis_client.Redis.from_url(stack.redis.url, socket_timeout=10) as connection:
            key = reports_key(where, "app")
            connection.hset(key, mapping={f"c{number}": report for number in range(clients)})
            connection.config_resetstat()
            assert len(await world.distribution.reports(where)) == 10_000
            calls: Any = connection.info("commandstats")
            connection.delete(key)
        assert "cmdstat_hkeys" not in calls, "it took every field, for a few"
        assert calls["cmdstat_hstrlen"]["calls"] <= 20_000

    try:
        run(scenario())
    finally:
        run(world.close())


def test_a_reporter_that_writes_without_end_leaves_no_other_unread(run: Run, stack: Stack) -> None:
    """Real Redis alone: the simulation's answer has no bounds."""
    world, where = RedisWorld(stack), stream()
    report = encode_report(ClientReport("c", Role.PRODUCER, 5, 1.0))
    keys = [reports_key(where, reporter) for reporter in ("liar", "small", "honest")]
    beside = [
        f"{reports_key(where, 'x')}:reports:liar",  # what `hotkey:*:reports:liar` allows as well
        f"hotkey:{{{where}:reports}}:reports:liar",
        f"hotkey:{{{'x' * 10_000}}}:reports:liar",
    ]

    async def scenario() -> None:
        with redis_client.Redis.from_url(stack.redis.url, socket_timeout=10) as connection:
            connection.hset(keys[0], mapping={f"c{number}": b"x" * 4_096 for number in range(30_000)})
            connection.hset(keys[1], mapping={f"c{number}": report for number in range(5)})
            connection.hset(keys[2], mapping={f"c{number}": report for number in range(4_900)})
            for key in beside:
                connection.hset(key, "c", report)
            found = await world.distribution.reports(where)
            connection.delete(*keys, *beside)
        names = [each.client_id.partition(":")[0] for each in found]
        assert {name: names.count(name) for name in names} == {"small": 5, "honest": 4_900}

    try:
        run(scenario())
    finally:
        run(world.close())
