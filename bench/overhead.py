"""CPU per record of `hotkey_sdk.Producer` against `confluent_kafka.Producer`, and the batches of each, on one
broker in one process.

Every round sends the same records in every way, in an order drawn anew; a way is compared with its peer of
the same round only, so what else the machine does falls on both.
"""

from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise

import confluent_kafka
import msgspec

from bench import senders
from bench.figures import Cost, Ratio, ratio
from bench.part import Goal, Plot, Run
from bench.senders import SDK_PEERS, Record, Way, Ways
from bench.svg import COLORS, Bar, bars
from devstack import Stack
from examples.demo.errors import DemoError
from hotkey_sdk._producer import PATHS

POLL_EVERY = 500
FLUSH_SECONDS = 60.0
COMPILED, PURE = "compiled", "pure"

# Of the compiled path against the original, by the thread that calls produce().
GOALS = {senders.EMPTY: 1.00, senders.UNROUTED: 1.07, senders.ROUTED: 1.12, senders.ROUTED_BY: 1.3}

# Each way to send, and the way that sends the same records without hotkey.
PEERS = {
    **{f"{name} ({path})": peer for path in (COMPILED, PURE) for name, peer in SDK_PEERS.items()},
    senders.SALTED: senders.PLAIN_ONE,
    senders.CHOSEN: senders.PLAIN_ONE,
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
    """All costs, one list a round, and the batches."""

    rounds: list[list[Cost]]
    batches: list[Batch] = []

    def ratios(self) -> list[Ratio]:
        """Each way that was measured against its peer."""
        there = {cost.case for costs in self.rounds for cost in costs}
        return [ratio(way, peer, self.rounds) for way, peer in PEERS.items() if way in there]


def measure(run: Run) -> Overhead:
    """All rounds, with each shown as it is done; then the batches."""
    rounds = []
    with Stack(run.root, kubernetes=False) as stack:
        ways = Ways(stack, "cost")
        made = [*ways.original(), *(way for path in PATHS for way in ways.sdk(path.name))]
        if COMPILED not in (path.name for path in PATHS):
            run.say("hotkey_sdk._fast is not built: only the pure path is measured")
        for costs in _rounds(made, run.rounds, run.records, run.seed):
            rounds.append(costs)
            shown = ", ".join(f"{cost.case} {cost.thread:.2f}" for cost in costs)
            run.say(f"round {len(rounds)} of {run.rounds}, CPU us per record: {shown}")
        batches = list(_batches(stack, 0.2 if run.quick else BATCH_SECONDS))
    return Overhead(rounds, batches)


def section(result: Overhead) -> str:
    """The ratios of each way, and its batches."""
    rows = [
        f"| {r.case} | {r.peer} | {_middle(result, r.case, r.peer, 'thread')} | "
        f"{_middle(result, r.case, r.peer, 'process')} | "
        f"{r.thread_microseconds:.2f} | {r.process_microseconds:.2f} |"
        for r in result.ratios()
    ]
    text = [
        "## CPU per record\n",
        f"Against `confluent_kafka.Producer` in {len(result.rounds)} paired rounds: median of the ratios, "
        "and the range of their middle half. *Compiled*: `hotkey_sdk.Producer` with its extension; *pure*: "
        "without. docs/sdk-performance.md says what is measured.\n",
        "| way | peer | `produce()` thread | whole process | us thread | us process |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    if result.batches:
        text += ["\n### Batches on the wire\n", *_batch_table(result.batches)]
    return "\n".join(text)


def goals(result: Overhead) -> Sequence[Goal]:
    """CPU of the thread that calls produce(), to the second decimal."""
    found = {each.case: each.thread for each in result.ratios()}
    return [
        Goal(f"CPU of {name} against the original", round(found[way], 2), most, "times")
        for name, most in GOALS.items()
        if (way := f"{name} ({COMPILED})") in found
    ]


def plots(result: Overhead) -> Sequence[Plot]:
    """The CPU of every way against its peer."""
    colors = {COMPILED: COLORS[0], PURE: COLORS[5]}
    shown = [
        Bar(
            r.case,
            r.thread,
            f"{r.thread:.2f}",
            next((c for n, c in colors.items() if n in r.case), COLORS[4]),
        )
        for r in result.ratios()
    ]
    title = "CPU of the thread that calls produce(), against confluent_kafka.Producer (1 is the same)"
    return [Plot("overhead", title, bars(title, [("median of paired ratios", shown)]))] if shown else []


def _middle(result: Overhead, way: str, peer: str, figure: str) -> str:
    """The median of the paired ratios and their quartiles."""
    pairs = [{cost.case: getattr(cost, figure) for cost in costs} for costs in result.rounds]
    ratios = [costs[way] / costs[peer] for costs in pairs]
    low, median, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return f"{median:.3f} ({low:.2f}-{high:.2f})"


def _batch_table(batches: Sequence[Batch]) -> list[str]:
    shown = [
        f"| {each.way} | {each.records_per_second:,} | {each.records:.1f} | {each.size_bytes / 1000:.1f} | "
        f"{each.batches:,} |"
        for each in batches
    ]
    columns = "| way | records/s of the key | records per batch | kB per batch | batches |"
    return [columns, "|---|---|---|---|---|", *shown]


def _rounds(ways: Sequence[Way], rounds: int, count: int, seed: int) -> Iterator[list[Cost]]:
    order = random.Random(seed)
    of = {many: senders.records(count, many) for many in (True, False)}
    for way in ways:  # connections, topics' metadata and code are warm before the first round
        _cost(way, of[way.many])
    for _ in range(rounds):
        yield [_cost(way, of[way.many]) for way in order.sample(ways, len(ways))]
    for way in ways:
        way.client.close()


def _cost(way: Way, records: Sequence[Record]) -> Cost:
    new = senders.as_new(records)
    parts = [new[at : at + POLL_EVERY] for at in range(0, len(new), POLL_EVERY)]
    send, client, topic, poll = way.send, way.client, way.topic, way.client.poll
    process, threads = time.process_time(), [time.thread_time()]
    for part in parts:
        send(client, topic, part)
        poll(0)
        threads.append(time.thread_time())
    _flush(way.name, client)
    process = time.process_time() - process
    # The middle part: those that another process displaced from their core pay for its caches, too.
    thread = statistics.median(after - before for before, after in pairwise(threads))
    return Cost(way.name, thread * 1e6 / len(parts[0]), process * 1e6 / len(records))


def _flush(name: str, client: confluent_kafka.Producer) -> None:
    if left := client.flush(FLUSH_SECONDS):
        raise DemoError(f"{name}: {left} records were not answered within {FLUSH_SECONDS:.0f} s")


def _batches(stack: Stack, seconds: float) -> Iterator[Batch]:
    """librdkafka's own count of its batches, for ways that send one hot key at a pace."""
    said: list[str] = []
    ways = Ways(stack, "batches", **{"statistics.interval.ms": 100, "stats_cb": said.append})
    path = PATHS.in_use.name
    for way in (*ways.original()[1:3], *ways.sdk(path, (senders.ROUTED, senders.ROUTED_BY))):
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
