"""Does what the faults say, each at its time, where no port does it by itself."""

from __future__ import annotations

import asyncio

from hotkey_sdk.routing.names import dedicated_prefix
from tests.simulation.faults import Fault, Kind
from tests.simulation.operators import Operator
from tests.simulation.scenario import TOPIC
from tests.simulation.world import World

BACKUP_SECONDS = 2.5
PERSON_WAITS_SECONDS = 20.0  # for a topic to be read to its end


async def back_up(world: World) -> None:
    """Copies of Redis, to fall back to."""
    while True:
        await asyncio.sleep(BACKUP_SECONDS)
        world.copies.append(world.distribution.snapshot())


async def strike(world: World, operator: Operator) -> None:
    for fault in world.report.faults:
        await asyncio.sleep(max(0.0, fault.at - world.now()))
        world.tell(f"FAULT: {fault.kind}" + (f" for {fault.seconds:.1f} s" if fault.seconds else ""))
        match fault.kind:
            case Kind.CRASH | Kind.CRASH_BETWEEN | Kind.CRASH_AT_CALL | Kind.TWO_OPERATORS:
                _strike_operator(world, operator, fault)
            case Kind.REDIS_WIPED | Kind.REDIS_OLDER | Kind.GARBAGE | Kind.OBJECT_LOST | Kind.CONFLICT:
                _spoil(world, fault.kind)
            case Kind.PARTITIONS_ADDED:
                world.brokers.grow(TOPIC, world.scenario.more_partitions)
            case Kind.PRODUCER_RESTARTS | Kind.PRODUCER_FROZEN:
                _strike_producer(world, fault)
            case Kind.TOPIC_DELETED | Kind.TOPIC_ANEW | Kind.TOPIC_DENIED_DELETED:
                world.spawn(_delete_topic(world, fault))
            case _:
                _strike_member(world, fault)


def _strike_operator(world: World, operator: Operator, fault: Fault) -> None:
    match fault.kind:
        case Kind.CRASH:
            operator.kill()
        case Kind.CRASH_BETWEEN:
            world.weather.kill_after_write = True
        case Kind.CRASH_AT_CALL:
            world.weather.killed_in = world.chance.randint(1, 40)
        case Kind.TWO_OPERATORS:
            task = asyncio.create_task(operator.process())
            asyncio.get_running_loop().call_later(fault.seconds, task.cancel)


def _spoil(world: World, kind: Kind) -> None:
    match kind:
        case Kind.REDIS_WIPED:
            world.distribution.wipe()
        case Kind.REDIS_OLDER:
            world.distribution.restore(world.chance.choice(world.copies))
        case Kind.GARBAGE:
            world.distribution.plant(world.stream, world.chance.choice([b"garbage", {"epoch": "7"}]))
        case Kind.OBJECT_LOST:
            world.tables.lose(world.ref)
            world.last_written = None
        case Kind.CONFLICT:
            world.tables.touch(world.ref)


def _strike_producer(world: World, fault: Fault) -> None:
    awake = [producer for producer in world.producers if not producer.process.is_frozen]
    if not awake:
        return
    struck = awake[0]
    if fault.kind is Kind.PRODUCER_RESTARTS:
        world.producers.remove(struck)
        struck.stop()
        world.start_producer()
        return
    world.tell(f"{struck.name} is frozen")
    struck.process.freeze()
    asyncio.get_running_loop().call_later(fault.seconds, _thaw, world, struck)


def _thaw(world: World, client: object) -> None:
    process = client.process  # type: ignore[attr-defined]
    world.tell(f"{process.name} goes on")
    process.thaw()


def _strike_member(world: World, fault: Fault) -> None:
    awake = [member for member in world.members if not member.process.is_frozen]
    match fault.kind:
        case Kind.MEMBER_KILLED if awake:
            world.kill_member(world.chance.choice(awake))
        case Kind.MEMBER_FROZEN if awake:
            frozen = world.chance.choice(awake)
            world.tell(f"{frozen.name} is frozen")
            frozen.process.freeze()
            asyncio.get_running_loop().call_later(fault.seconds, _thaw, world, frozen)
        case Kind.MEMBER_KILLED_FLUSHING:
            world.sink.kill_next = True
        case Kind.MEMBER_FROZEN_FLUSHING:
            world.sink.freeze_next = fault.seconds
        case Kind.MEMBER_JOINS:
            world.spawn(_visit(world, fault.seconds))


async def _visit(world: World, seconds: float) -> None:
    member = world.start_member(stays=False)
    world.tell(f"{member.name} joins")
    await asyncio.sleep(seconds)
    member.leave()


async def _delete_topic(world: World, fault: Fault) -> None:
    """A person deletes a topic as soon as the sink has counted all that it holds."""
    until = world.now() + (fault.seconds or PERSON_WAITS_SECONDS)
    while world.now() < until:
        read = [name for name in world.hot_topics() if _is_read(world, name)]
        if read:
            name = world.chance.choice(read)
            seen = world.brokers.seen(name)
            assert seen is not None
            world.delete_topic(name)
            world.tell(f"topic {name} is deleted")
            if fault.kind is Kind.TOPIC_ANEW:
                await asyncio.sleep(world.chance.choice([0.0, 0.0, 0.5, 3.0]))
                world.brokers.create(name, world.chance.choice([seen.partitions, 1, seen.partitions + 1]))
                world.tell(f"topic {name} is made anew")
            return
        await asyncio.sleep(0.1)


def _is_read(world: World, name: str) -> bool:
    assert name.startswith(dedicated_prefix(TOPIC))
    seen = world.brokers.seen(name)
    if seen is None:
        return False
    held = {
        (source.partition, source.topic_id): position.next_offset
        for source, position in world.sink.store.positions().items()
        if source.topic == name
    }
    return all(
        held.get((partition, seen.topic_id), 0) == world.brokers.end(name, partition)
        for partition in range(seen.partitions)
    )
