"""`Meter`: Kafka, the simulation's cluster, a Prometheus that scrapes exporters, and producers alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from hotkey_operator.engine.model import EndOffsets
from hotkey_operator.ports import Meter, Unavailable
from tests.contract.operator.conftest import Run
from tests.contract.operator.meter_worlds import (
    QUERIES,
    BrokersMeterWorld,
    Exporter,
    MeterWorld,
    ProducersWorld,
    PrometheusWorld,
    watching,
)
from tests.contract.operator.worlds import KafkaWorld, MemoryBrokersWorld, fresh

WAIT_SECONDS = 30.0
LATE_SECONDS = 90.0  # what a meter may lag behind
CLOCK_SECONDS = 1.0  # of another process on this machine, rounded


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Exporter, str]]:
    exporter = Exporter()
    with watching(exporter, tmp_path_factory.mktemp("prometheus")) as url:
        yield exporter, url
    exporter.close()


@pytest.fixture(params=["kafka", "memory", *QUERIES, "producers"])
def world(request: pytest.FixtureRequest, run: Run) -> Iterator[MeterWorld]:
    made: MeterWorld
    if request.param == "kafka":
        made = BrokersMeterWorld(KafkaWorld(request.getfixturevalue("stack")))
    elif request.param == "memory":
        made = BrokersMeterWorld(MemoryBrokersWorld())
    elif request.param == "producers":
        made = ProducersWorld(request.getfixturevalue("stack"))
    else:
        exporter, url = request.getfixturevalue("scraped")
        made = PrometheusWorld(exporter, url, request.param)
    yield made
    run(made.close())


async def first(meter: Meter, topic: str, partitions: int) -> EndOffsets:
    """The first reading: what is new is not scraped or reported at once."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            try:
                return await meter.end_offsets(topic, partitions)
            except Unavailable:
                await asyncio.sleep(0.05)


async def counted(meter: Meter, topic: str, since: EndOffsets, records: tuple[int, ...]) -> EndOffsets:
    """The first reading that is `records` above `since`."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        reading = await meter.end_offsets(topic, len(records))
        grown = tuple(new - old for old, new in zip(since.offsets, reading.offsets, strict=True))
        if grown == records:
            return reading
        assert time.monotonic() < deadline, f"counted {grown}, sent {records}"
        await asyncio.sleep(0.05)


def test_what_is_appended_is_counted_by_partition(run: Run, world: MeterWorld) -> None:
    async def scenario() -> None:
        topic = fresh("counted")
        await world.create(topic, 3)
        meter = world.meter(topic)
        before = await first(meter, topic, 3)

        await world.append(topic, 2, 70)
        await world.append(topic, 0, 20)

        after = await counted(meter, topic, before, (20, 0, 70))
        assert after.at > before.at

    run(scenario())


def test_no_counter_and_no_time_ever_falls_and_one_time_has_one_reading(run: Run, world: MeterWorld) -> None:
    async def scenario() -> None:
        topic = fresh("monotone")
        await world.create(topic, 2)
        meter = world.meter(topic)
        last = await first(meter, topic, 2)
        start = last
        for number in range(20):
            await world.append(topic, number % 2, 5)
            reading = await meter.end_offsets(topic, 2)
            assert reading.at >= last.at
            assert all(new >= old for old, new in zip(last.offsets, reading.offsets, strict=True))
            assert reading.at > last.at or reading.offsets == last.offsets
            last = reading
        await counted(meter, topic, start, (50, 50))

    run(scenario())


def test_the_time_of_a_reading_is_lately_and_not_to_come(run: Run, world: MeterWorld) -> None:
    async def scenario() -> None:
        topic = fresh("time")
        await world.create(topic, 2)
        reading = await first(world.meter(topic), topic, 2)
        assert time.time() - LATE_SECONDS < reading.at < time.time() + CLOCK_SECONDS

    run(scenario())


def test_topics_do_not_disturb_each_other(run: Run, world: MeterWorld) -> None:
    async def scenario() -> None:
        one, other = fresh("one"), fresh("other")
        for topic in (one, other):
            await world.create(topic, 2)
        before = {topic: await first(world.meter(topic), topic, 2) for topic in (one, other)}

        await world.append(one, 1, 30)

        await counted(world.meter(one), one, before[one], (0, 30))
        await counted(world.meter(other), other, before[other], (0, 0))

    run(scenario())
