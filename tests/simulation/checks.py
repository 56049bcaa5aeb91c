"""What must hold of a run: at its calm moments, and of all its records at the end, by their ids."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise

from hotkey_aggregator.store import CountQuery
from hotkey_operator.engine.dedicated import like, weaker
from hotkey_operator.engine.model import TopicSeen
from hotkey_operator.engine.reasons import Reason
from hotkey_sdk.routing.names import dedicated_prefix
from hotkey_sdk.routing.resend import FIRST_PAUSE_SECONDS
from hotkey_sdk.routing.table import Phase, Table
from tests.simulation.faults import Kind
from tests.simulation.producers import SEQUENCE, WITHIN
from tests.simulation.scenario import TOPIC, Look, Shape
from tests.simulation.weather import described
from tests.simulation.world import Log, World

FRESH_SECONDS = 14.0  # within which a record is counted in calm weather, however much there is to catch up
SETTLING_SECONDS = 15.0  # from a hot key to its topic
EVEN_SECONDS, EVEN = 10.0, 2.5  # max/mean over so many seconds: a few records; unspread it is above 4
FORGOTTEN_SECONDS = 30.0  # after a person deleted a topic, at most


def look(world: World, moment: Look, before: list[int]) -> None:
    """Long after the last fault. `before`: the base topic's ends `EVEN_SECONDS` ago."""
    check_freshness(world, world.now() - FRESH_SECONDS)
    table = check_agreement(world)
    if table is None or world.unadopted:
        return
    if world.scenario.dedicates:
        _check_dedicated(world, moment, table)
    else:
        _check_spread(world, moment, table, before)


def ends(world: World) -> list[int]:
    return [world.brokers.end(TOPIC, partition) for partition in range(world.brokers.partitions(TOPIC))]


def check_agreement(world: World) -> Table | None:
    """Object, Redis and every client hold one table, and consumers read all of its read set."""
    stored = world.tables.peek(world.ref)
    if stored is None:
        world.fail(f"there is no RoutingTable object at {world.now():.0f} s")
        return None
    envelope = world.distribution.envelope(world.stream)
    if envelope is None or world.signer.open(envelope, world.stream) != stored.table:
        world.fail(f"Redis does not hold the object's table, epoch {stored.table.epoch}")
    followers = [producer for producer in world.producers if producer.follows]
    for client in [*followers, *world.members]:
        if client.process.is_frozen:
            continue
        if client.epoch != stored.table.epoch:
            world.fail(f"{client.name} applies epoch {client.epoch}, the object holds {stored.table.epoch}")
    if unread := set(world.hot_topics()) - set(stored.table.read_set):
        world.fail(f"no consumer is told to read {', '.join(sorted(unread))}")
    return stored.table


def _check_spread(world: World, moment: Look, table: Table, before: list[int]) -> None:
    routed = {route.key for route in table.routes}
    if routed - set(moment.hot):
        world.fail(f"{described(table)} at {world.now():.0f} s, although only {moment.hot} are hot")
    if not moment.hot:
        return
    if not routed:
        world.fail(f"nike is not spread at {world.now():.0f} s although it is hot for long")
        return
    appended = [end - start for start, end in zip(before, ends(world), strict=True)]
    imbalance = max(appended) * len(appended) / sum(appended)
    world.tell(f"in the last {EVEN_SECONDS:.0f} s the partitions took {appended}, imbalance {imbalance:.2f}")
    if imbalance > EVEN:
        world.fail(f"imbalance is {imbalance:.2f} although nike is spread: {appended} records")


def _check_dedicated(world: World, moment: Look, table: Table) -> None:
    """The hot keys have topics of their own, no other key has one, and every topic is at rest or in use."""
    if _are_closed(world):
        return
    there = {key: topic for topic in table.topics if topic.phase is Phase.ACTIVE and (key := topic.key)}
    shunned = {key for key in moment.hot if _is_shunned(world, key)}
    if not set(moment.hot) - shunned <= set(there) <= set(moment.hot):
        world.fail(f"{moment.hot} are hot for long at {world.now():.0f} s: {described(table)}")
    for key, topic in there.items():
        route = table.route(key)
        if route is None or route.topic != topic.name:
            world.fail(f"{key!r} has {topic.name} and is not routed there: {described(table)}")
        if world.scenario.shape is Shape.PER_KEY and route is not None and len(route.shards) != 1:
            world.fail(f"{key!r} has {len(route.shards)} shards, and its order allows one")
    if {route.key for route in table.routes} - set(moment.hot):
        world.fail(f"only {moment.hot} are hot: {described(table)}")
    _check_topics(world, table)


def _are_closed(world: World) -> bool:
    """Whether producers may still keep away from a topic that they were denied: then the key goes back."""
    denials = (Kind.DENIED, Kind.TOPIC_DENIED_DELETED)
    calm_at = world.now() - FIRST_PAUSE_SECONDS - SETTLING_SECONDS
    return any(fault.kind in denials and calm_at < fault.ends < world.now() for fault in world.report.faults)


def _is_shunned(world: World, key: bytes) -> bool:
    """Whether the operator said that the key's producers may not write to its topic: for longer than a run
    lasts it gets no other."""
    said = f"operator: {Reason.PARTIAL_ADOPTION}: key {key.decode()} goes back"
    return any(said in line for line in world.report.trace)


def _check_topics(world: World, table: Table) -> None:
    moved = {topic.key for topic in table.topics if topic.phase is Phase.ACTIVE}
    for topic in table.topics:
        seen = world.brokers.seen(topic.name)
        if seen is None and world.now() - world.deleted_at.get(topic.name, float("-inf")) < FORGOTTEN_SECONDS:
            continue  # it is believed to be gone when no broker has told of it for a while
        if seen is None:
            world.fail(f"{topic.name} is {topic.phase.value} and does not exist")
        elif seen.topic_id != topic.topic_id:
            world.fail(f"{topic.name} is {topic.phase.value} and is another topic of that name")
        elif topic.phase is Phase.ACTIVE and (found := _weaker(world, seen)):
            world.fail(f"{topic.name} is written and is weaker than the base topic: {', '.join(found)}")
        elif topic.phase is Phase.RETURN and topic.key in moved:
            continue  # its key has outgrown it just now
        elif topic.phase not in (Phase.ACTIVE, Phase.IDLE):
            world.fail(f"{topic.name} is still in {topic.phase.value} at {world.now():.0f} s")
    idle = sum(topic.phase is Phase.IDLE for topic in table.topics)
    if world.scenario.shape is Shape.WARM and not idle:
        world.fail(f"no topic is ready ahead of need: {described(table)}")


def _weaker(world: World, seen: TopicSeen) -> tuple[str, ...]:
    base = world.brokers.seen(TOPIC)
    return weaker(seen.config, like(base.config, base.partitions, seen.partitions)) if base else ()


def check_freshness(world: World, by: float) -> None:
    """What was acknowledged by then is counted now."""
    counted = {event_id for ids in world.sink.store.event_ids() for event_id in ids}
    late = [one for one, at in world.ledger.acknowledged.items() if at <= by and one not in counted]
    if late:
        world.fail(
            f"{len(late)} records that were acknowledged by {by:.0f} s are not counted at "
            f"{world.now():.0f} s, such as {min(late)}"
        )


def check_records(world: World) -> None:
    """By id: what was acknowledged is counted once, and nothing that was never sent; each under its key."""
    ledger = world.ledger
    counted = _counted(world)
    if lost := ledger.acknowledged.keys() - counted.keys():
        places = _places(world, lost)
        world.fail(f"{len(lost)} acknowledged records are not counted, such as {min(lost)}: {places}")
    if unknown := counted.keys() - ledger.sent.keys():
        world.fail(f"{len(unknown)} records are counted that nobody sent, such as {min(unknown)}")
    if twice := [one for one, times in counted.items() if sum(times.values()) > 1]:
        world.fail(f"{len(twice)} records are counted more than once, such as {min(twice)}")
    wrong = [one for one, times in counted.items() if one in ledger.sent and ledger.sent[one] not in times]
    if wrong:
        one = min(wrong)
        world.fail(f"{len(wrong)} records are counted under another key, such as {one}: {dict(counted[one])}")
    if ledger.told_twice:
        world.fail(
            f"of {len(ledger.told_twice)} records the caller was told twice, such as {ledger.told_twice[0]}"
        )
    for mistake in world.sink.mistakes:
        world.fail(mistake)
    if totals := world.sink.store.totals().dead:
        world.fail(f"{totals} records were taken for no clicks")


def check_ends(world: World) -> None:
    """Of every record that a living producer sent its caller was told something."""
    for producer in world.producers:
        if producer.on_its_way:
            world.fail(f"{producer.name} still has {producer.on_its_way} records on their way")
    living, ledger = tuple(f"{producer.name}-" for producer in world.producers), world.ledger
    ended = ledger.acknowledged.keys() | ledger.failed
    if silent := [one for one in ledger.sent if one not in ended and one.startswith(living)]:
        world.fail(f"of {len(silent)} records their callers were told nothing, such as {min(silent)}")


def _counted(world: World) -> dict[str, dict[str, int]]:
    """Event id to how often it is counted, by key. Each click is an ad of its own, so a window is a click."""
    counted: dict[str, dict[str, int]] = defaultdict(dict)
    for count in world.sink.store.counts(CountQuery(limit=10**9)):
        window = count.window
        of = counted[window.ad_id]
        of[window.advertiser_id] = of.get(window.advertiser_id, 0) + count.clicks
    return counted


def _places(world: World, lost: set[str]) -> str:
    """Where the logs have the first of them."""
    first = min(lost).encode()
    found = [
        f"{log.name}[{partition}] at {offset}"
        for log in world.logs()
        for partition, records in enumerate(log.partitions)
        for offset, record in enumerate(records)
        if b'"%b"' % first in record.value
    ]
    return ", ".join(found) or "in no log"


def check_order(world: World) -> None:
    """What a producer sent by one table of a key (and a dimension's value) stands in one place, in order.

    What a dedicated topic refused stands in the base topic: there by itself in order. Where the base topic
    got more partitions, plain keys moved within one table.
    """
    grown = any(fault.kind is Kind.PARTITIONS_ADDED for fault in world.report.faults)
    found = 0
    for log in world.logs():
        found += _check_log(world, log, may_move=grown and log.name == TOPIC)
    if not found:
        world.fail("no record was sent that an order is promised for")


def _check_log(world: World, log: Log, *, may_move: bool) -> int:
    place_of: dict[bytes, int] = {}
    overtaken, scattered, found = [], [], 0
    for partition, records in enumerate(log.partitions):
        last: dict[bytes, int] = {}
        seen: set[bytes] = set()
        for record in records:
            headers = dict(record.headers)
            within, sequence = headers.get(WITHIN), headers.get(SEQUENCE)
            if within is None or sequence is None or record.value in seen:
                continue  # a copy of one that stands there already: it is counted once
            seen.add(record.value)
            found += 1
            if int(sequence) < last.get(within, 0):
                overtaken.append(f"{sequence.decode()} of {within.decode()}")
            last[within] = int(sequence)
            if place_of.setdefault(within, partition) != partition and not may_move:
                scattered.append(f"{sequence.decode()} of {within.decode()}")
    if overtaken:
        world.fail(f"{len(overtaken)} records of {log.name} stand after a later one, such as {overtaken[0]}")
    if scattered:
        world.fail(f"{len(scattered)} records of {log.name} are not where earlier ones are: {scattered[0]}")
    return found


def check_epochs(world: World) -> None:
    for client, epochs in world.adopted.items():
        for old, new in pairwise(epochs):
            if new <= old:
                world.fail(f"{client} went from epoch {old} back to {new}")


def check_names(world: World) -> None:
    """Every topic that looks like ours was recorded before it was made."""
    strange = [name for name in world.hot_topics() if name not in world.recorded]
    if strange:
        world.fail(f"topics {strange} stand in no table")
    assert all(name.startswith(dedicated_prefix(TOPIC)) for name in world.recorded)
