"""CPU per record of `hotkey_sdk.Producer` against `confluent_kafka.Producer`, and the batches of each, on one
broker in one process.

A run of a way stands between two runs of its peer, which sends the same records without hotkey: what else the
machine does falls on both. Each run begins when the broker has answered all of the one before, so that a way
pays for what its own client's threads do, and only for that.

The estimator was fixed on clients that do the same, before any way of the SDK was measured: the sum of
a way's costs over the sum of its peer's, of all runs, none left out.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence

import confluent_kafka
import msgspec

from bench import senders
from bench.figures import Cost, Paired, Ratio, Sandwich
from bench.part import Goal, Plot, Run
from bench.senders import SDK_PEERS, Record, Way, Ways
from bench.svg import COLORS, Bar, bars
from devstack import Stack
from examples.demo.errors import DemoError
from hotkey_sdk._producer import PATHS

PART = 500  # records that are made at once, and sent
SPARSE = 4  # of so many rounds, the salt and the pure path are measured in one
SAY_EVERY = 20
FLUSH_SECONDS = 60.0
COMPILED, PURE = "compiled", "pure"

# Of the compiled path against the original, by the thread that calls produce().
GOALS = {senders.EMPTY: 1.00, senders.UNROUTED: 1.07, senders.ROUTED: 1.12, senders.ROUTED_BY: 1.3}

# Each way to send, and the way that sends the same records without hotkey.
PEERS = {
    **{f"{name} ({path})": peer for path in (COMPILED, PURE) for name, peer in SDK_PEERS.items()},
    senders.SALTED: senders.PLAIN_ONE,
    senders.CHOSEN: senders.PLAIN_ONE,
    senders.AGAIN_MANY: senders.PLAIN_MANY,
    senders.AGAIN_ONE: senders.PLAIN_ONE,
}

BATCH_SECONDS = 2.0
PACES = (5_000, 50_000)  # records of the hot key per second
SPOKEN_SECONDS = 30.0


class Batch(msgspec.Struct, frozen=True):
    """What one way put on the wire at a pace: means over its batches, which are of one partition each."""

    way: str
    records_per_second: int
    batches: int
    records: float
    size_bytes: float


class Overhead(msgspec.Struct, frozen=True):
    """What each way cost beside its peer, and the batches."""

    paired: list[Paired]
    batches: list[Batch] = []


def measure(run: Run) -> Overhead:
    """All rounds, then the batches."""
    with Stack(run.root, kubernetes=False) as stack:
        ways = Ways(stack, "cost")
        made = [*ways.original(), *(way for path in PATHS for way in ways.sdk(path.name))]
        if COMPILED not in (path.name for path in PATHS):
            run.say("hotkey_sdk._fast is not built: only the pure path is measured")
        found: dict[str, list[Sandwich]] = {}
        for number, sandwiches in enumerate(rounds(made, PEERS, run.rounds, run.records, run.seed), 1):
            for sandwich in sandwiches:
                found.setdefault(sandwich[1].case, []).append(sandwich)
            if number % SAY_EVERY == 0 or number == run.rounds:
                run.say(f"round {number} of {run.rounds}")
        batches = list(_batches(stack, 0.2 if run.quick else BATCH_SECONDS))
    return Overhead([Paired.of(found[way]) for way in PEERS if way in found], batches)


def section(result: Overhead) -> str:
    """The ratios of each way, and its batches."""
    text = [
        "## CPU per record\n",
        "Against `confluent_kafka.Producer`, the peer: each run of a way between two of its peer; the sum of "
        "all runs' CPU over that of the peer's runs beside them, with its 95 % interval (bootstrap of the "
        "runs). *Compiled*: `hotkey_sdk.Producer` with its extension; *pure*: without. *Once more*: the peer "
        "itself by another client to another topic, so 1 but for what the measurement cannot tell. "
        "docs/sdk-performance.md says what is measured.\n",
        "| way | peer | runs | `produce()` thread | whole process | us thread | us process |",
        "|---|---|---|---|---|---|---|",
        *map(row, result.paired),
    ]
    if result.batches:
        text += ["\n### Batches on the wire\n", *_batch_table(result.batches)]
    return "\n".join(text)


def goals(result: Overhead) -> Sequence[Goal]:
    """CPU of the thread that calls produce(), to the second decimal; the point estimate, not its interval."""
    found = {each.case: each for each in result.paired}
    return [
        Goal(f"CPU of {name} against the original", round(_thread(found[way]).value, 2), most, "times")
        for name, most in GOALS.items()
        if (way := f"{name} ({COMPILED})") in found
    ]


def plots(result: Overhead) -> Sequence[Plot]:
    """The CPU of every way against its peer."""
    colors = {COMPILED: COLORS[0], PURE: COLORS[5]}
    ratios = {each.case: _thread(each).value for each in result.paired}
    shown = [
        Bar(case, ratio, f"{ratio:.2f}", next((c for n, c in colors.items() if n in case), COLORS[4]))
        for case, ratio in ratios.items()
    ]
    title = "CPU of the thread that calls produce(), against confluent_kafka.Producer (1 is the same)"
    return [Plot("overhead", title, bars(title, [("all runs", shown)]))] if shown else []


def _thread(paired: Paired) -> Ratio:
    return Ratio.of(paired.thread, paired.peer_thread)


def row(paired: Paired) -> str:
    """Ratios with their intervals, and means per record."""
    ratios = (_thread(paired), Ratio.of(paired.process, paired.peer_process))
    thread, process = (f"{each.value:.3f} ({each.low:.2f}-{each.high:.2f})" for each in ratios)
    means = (statistics.mean(costs) for costs in (paired.thread, paired.process))
    own_thread, own_process = (f"{mean:.2f}" for mean in means)
    return (
        f"| {paired.case} | {paired.peer} | {len(paired.thread)} | {thread} | {process} | {own_thread} | "
        f"{own_process} |"
    )


def _batch_table(batches: Sequence[Batch]) -> list[str]:
    shown = [
        f"| {each.way} | {each.records_per_second:,} | {each.records:.1f} | {each.size_bytes / 1000:.1f} | "
        f"{each.batches:,} |"
        for each in batches
    ]
    columns = "| way | records/s of the key | records per batch | kB per batch | batches |"
    return [columns, "|---|---|---|---|---|", *shown]


def rounds(
    ways: Sequence[Way], peers: Mapping[str, str], count: int, records: int, seed: int
) -> Iterator[list[Sandwich]]:
    """`count` rounds, some of the frequent ways alone; in each the ways in an order drawn anew."""
    order = random.Random(seed)
    of = {many: senders.records(records, many) for many in (True, False)}
    named = {way.name: way for way in ways}
    for way in ways:  # connections, topics' metadata and code are warm before the first round
        _cost(way, of[way.many])
    for number in range(count):
        sandwiches: list[Sandwich] = []
        for peer in [way for way in ways if way.name in peers.values()]:
            own = [named[name] for name in peers if peers[name] == peer.name and name in named]
            due = [way for way in own if number % SPARSE == 0 or _is_frequent(way.name)]
            sandwiches += _between(peer, order.sample(due, len(due)), of[peer.many])
        yield sandwiches
    for way in ways:
        way.client.close()


def _is_frequent(way: str) -> bool:
    return PURE not in way and way != senders.SALTED


def _between(peer: Way, ways: Sequence[Way], records: Sequence[Record]) -> Iterator[Sandwich]:
    """Peer, way, peer, way, peer: a run of the peer stands beside two ways."""
    before = _cost(peer, records)
    for way in ways:
        cost, after = _cost(way, records), _cost(peer, records)
        yield before, cost, after
        before = after


def _cost(way: Way, records: Sequence[Record]) -> Cost:
    """Of one run. The thread's: in its calls of produce(), neither making records nor serving answers."""
    send, client, topic, clock = way.send, way.client, way.topic, time.thread_time
    making = sending = 0.0
    process = time.process_time()
    for at in range(0, len(records), PART):
        started = clock()
        part = senders.as_new(records[at : at + PART])
        made = clock()
        send(client, topic, part)
        sent = clock()
        making, sending = making + made - started, sending + sent - made
        client.poll(0)
    _flush(way.name, client)
    process = time.process_time() - process - making
    return Cost(way.name, sending * 1e6 / len(records), process * 1e6 / len(records))


def _flush(name: str, client: confluent_kafka.Producer) -> None:
    if left := client.flush(FLUSH_SECONDS):
        raise DemoError(f"{name}: {left} records were not answered within {FLUSH_SECONDS:.0f} s")


def _batches(stack: Stack, seconds: float) -> Iterator[Batch]:
    """librdkafka's own count of its batches, for ways that send one hot key at a pace."""
    said: list[str] = []
    ways = Ways(stack, "batches", **{"statistics.interval.ms": 100, "stats_cb": said.append})
    path = PATHS.in_use.name
    original = ways.original((senders.PLAIN_ONE, senders.SALTED))
    for way in (*original, *ways.sdk(path, (senders.ROUTED, senders.ROUTED_BY))):
        for pace in PACES:
            said.clear()
            count = int(pace * seconds)
            _send_paced(way, senders.records(count, many=False), pace)
            yield _batch(way, pace, count, said)
        way.client.close()


def _send_paced(way: Way, records: Sequence[Record], pace: int) -> None:
    """A few records every millisecond, as a service sends them."""
    began, sent = time.monotonic(), 0
    while sent < len(records):
        due = min(len(records), int((time.monotonic() - began) * pace) + 1)
        way.send(way.client, way.topic, records[sent:due])
        sent = due
        way.client.poll(0.001)
    _flush(way.name, way.client)


def _batch(way: Way, pace: int, count: int, said: list[str]) -> Batch:
    """The statistics once they tell of every record that was sent."""
    deadline = time.monotonic() + SPOKEN_SECONDS
    while True:
        topics = [json.loads(text)["topics"].get(way.topic, {}) for text in said]
        numbers, sizes = ([topic.get(name, {}) for topic in topics] for name in ("batchcnt", "batchsize"))
        records, batches = (sum(each.get(what, 0) for each in numbers) for what in ("sum", "cnt"))
        if records >= count:
            size = sum(each.get("sum", 0) for each in sizes)
            return Batch(way.name, pace, batches, records / batches, size / batches)
        if time.monotonic() > deadline:
            raise DemoError(f"{way.name}: the statistics tell of {records} records, {count} were sent")
        way.client.poll(0.1)
