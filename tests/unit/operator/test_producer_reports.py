"""Producers' reports add up to counters that only grow, whatever they claim and whenever they come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotkey_operator.adapters.producer_reports import (
    RECORDS_PER_SECOND_AT_MOST,
    SILENT_SECONDS,
    Ledger,
    ProducerReports,
)
from hotkey_operator.ports import Unavailable
from hotkey_sdk.routing.report import (
    PARTITIONS_AT_MOST,
    HeavyKey,
    KeyReport,
    PartitionCount,
    decode_key_report,
    encode_key_report,
)
from hotkey_sdk.routing.table import Stream

STREAM = Stream("cluster", "clicks")
NOW = 1_790_000_000.0


def report(client: str, *records: int, at: float = 0.0, started: float = 1.0) -> KeyReport:
    """One of so many records ever on partitions 0, 1 and so on."""
    counts = tuple(PartitionCount(partition, count) for partition, count in enumerate(records))
    return KeyReport(client, started, at, 2.0, counts)


def window(client: str, *keys: HeavyKey, records: int, unlisted: int = 0, seconds: float = 2.0) -> KeyReport:
    """One whose last window had `records` on partition 0, of 100 bytes each."""
    count = PartitionCount(0, records, records, 100 * records, records, unlisted, keys)
    return KeyReport(client, 1.0, 0.0, seconds, (count,))


def heavy(key: bytes, records: int, missed: int = 0) -> HeavyKey:
    return HeavyKey(key, records, missed, 100 * records)


def test_what_a_producer_sent_before_it_was_first_seen_makes_no_jump() -> None:
    ledger = Ledger()
    ledger.see([report("a", 1_000_000, 5)], NOW)
    assert ledger.reading(2).offsets == (0, 0)
    ledger.see([report("a", 1_000_100, 25)], NOW + 2)
    assert (ledger.reading(2).at, ledger.reading(2).offsets) == (NOW + 2, (100, 20))


def test_producers_that_report_in_turns_are_put_at_one_time() -> None:
    ledger = Ledger()
    ledger.see([report("a", 0), report("b", 0)], NOW)
    ledger.see([report("a", 200), report("b", 0)], NOW + 2)
    assert ledger.reading(1).at == NOW, "b has not told of more yet"
    ledger.see([report("a", 200), report("b", 30)], NOW + 3)

    reading = ledger.reading(1)

    assert (reading.at, reading.offsets) == (NOW + 2, (200 + 20,))


def test_a_producer_that_fell_silent_is_waited_for_no_longer() -> None:
    ledger = Ledger()
    ledger.see([report("a", 0), report("b", 0)], NOW)
    ledger.see([report("a", 10), report("b", 10)], NOW + 1)
    late = NOW + 1 + SILENT_SECONDS
    ledger.see([report("a", 50), report("b", 10)], late)
    assert (ledger.reading(1).at, ledger.reading(1).offsets) == (late, (60,))


def test_what_was_sent_to_partitions_that_a_report_does_not_name_any_more_stays_counted() -> None:
    ledger = Ledger()
    ledger.see([report("a", 0, 0)], NOW)
    ledger.see([report("a", 10, 20)], NOW + 2)
    ledger.see([report("a", 15)], NOW + 4)
    assert ledger.reading(2).offsets == (15, 20)


def test_a_producer_that_names_other_partitions_every_time_takes_no_more_memory() -> None:
    def named(first: int) -> KeyReport:
        counts = tuple(PartitionCount(p, 5) for p in range(first, first + 100))
        return KeyReport("a", 1.0, float(first), 2.0, counts)

    ledger = Ledger()
    for turn in range(50):
        ledger.see([named(100 * turn)], NOW + turn)

    (client,) = ledger._clients.values()
    assert max(len(client.totals), len(client.before)) <= 100
    assert sum(ledger.reading(5_000).offsets) == 49 * 500


def test_what_is_told_of_partitions_that_are_not_there_is_not_kept() -> None:
    async def scenario() -> None:
        told = [report("a", *range(2_000), at=0.0)]

        async def read(_: Stream) -> tuple[KeyReport, ...]:
            return tuple(told)

        reports = ProducerReports(read, clock=lambda: NOW + 2 * told[0].at)
        await reports.ledger(STREAM, 12)
        told[0] = report("a", *range(1, 2_001), at=1.0)
        ledger = await reports.ledger(STREAM, 12)
        (client,) = ledger._clients.values()
        assert client.totals == dict.fromkeys(range(12), 1.0)

    asyncio.run(scenario())


def test_partitions_that_were_added_before_they_were_known_here_make_no_jump() -> None:
    def told(at: float) -> KeyReport:
        return KeyReport("a", 1.0, at, 2.0, tuple(PartitionCount(p, int(100 * at), 200) for p in range(2)))

    async def scenario() -> None:
        now = 0.0

        async def read(_: Stream) -> tuple[KeyReport, ...]:
            return (told(now),)

        reports = ProducerReports(read, clock=lambda: NOW + now)
        for partitions, seconds in ((1, range(0, 20, 2)), (2, range(20, 26, 2))):
            for second in seconds:
                now = float(second)
                ledger = await reports.ledger(STREAM, partitions)
        assert ledger.reading(2).offsets == (2_400, 600)

    asyncio.run(scenario())


def test_a_partition_that_a_full_report_had_no_room_for_makes_no_jump() -> None:
    full = tuple(PartitionCount(p, 1_000, 10) for p in range(PARTITIONS_AT_MOST))
    late = (PartitionCount(PARTITIONS_AT_MOST, 1_000_000, 30), *full[1:])
    ledger = Ledger()
    ledger.see([KeyReport("a", 1.0, 1.0, 2.0, full)], NOW)
    ledger.see([KeyReport("a", 1.0, 3.0, 2.0, late)], NOW + 2)
    assert ledger.reading(PARTITIONS_AT_MOST + 1).offsets[-1] == 30


def test_what_a_producer_sent_stays_counted_when_it_is_gone() -> None:
    ledger = Ledger()
    ledger.see([report("a", 0), report("b", 0)], NOW)
    ledger.see([report("a", 10), report("b", 30)], NOW + 1)
    ledger.see([report("b", 35)], NOW + 2)
    assert ledger.reading(1).offsets == (45,)


@pytest.mark.parametrize(
    "anew", [report("a", 7, started=2.0), report("a", 7)], ids=["told so", "counters that went back"]
)
def test_a_producer_that_was_restarted_under_its_name_begins_anew(anew: KeyReport) -> None:
    ledger = Ledger()
    ledger.see([report("a", 100)], NOW)
    ledger.see([report("a", 150)], NOW + 1)
    ledger.see([anew], NOW + 2)
    assert ledger.reading(1).offsets == (50,)
    ledger.see([msgspec.structs.replace(anew, partitions=(PartitionCount(0, 27),))], NOW + 3)
    assert ledger.reading(1).offsets == (70,)


def test_a_producer_s_clock_does_not_matter() -> None:
    ledger = Ledger()
    ledger.see([report("a", 0, at=1e12), report("b", 0, at=0.0)], NOW)
    ledger.see([report("a", 10, at=5.0), report("b", 10, at=1e11)], NOW + 2)
    assert (ledger.reading(1).at, ledger.reading(1).offsets) == (NOW + 2, (20,))


def test_a_claim_beyond_belief_is_cut() -> None:
    ledger = Ledger()
    ledger.see([report("liar", 0)], NOW)
    ledger.see([report("liar", 2**53)], NOW + 2)
    assert ledger.reading(1).offsets == (2 * RECORDS_PER_SECOND_AT_MOST,)


def test_partitions_that_the_topic_does_not_have_are_passed_over() -> None:
    ledger = Ledger()
    ledger.see([report("a", 0, 0, 0)], NOW)
    ledger.see([report("a", 1, 2, 3)], NOW + 2)
    assert ledger.reading(2).offsets == (1, 2)
    assert ledger.reading(4).offsets == (1, 2, 3, 0)


def test_a_clock_that_was_set_back_begins_anew() -> None:
    ledger = Ledger()
    ledger.see([report("a", 0)], NOW)
    ledger.see([report("a", 100)], NOW + 2)
    ledger.see([report("a", 200)], NOW - 100)
    assert (ledger.reading(1).at, ledger.reading(1).offsets) == (NOW - 100, (0,))


_REPORTS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.lists(st.integers(0, 2**53), max_size=3),
        st.sampled_from([1.0, 2.0]),
    ),
    max_size=4,
)


@given(st.lists(st.tuples(st.floats(0.1, 20), _REPORTS), min_size=1, max_size=8))
def test_whatever_is_reported_no_counter_and_no_time_falls(turns: list[tuple[float, Any]]) -> None:
    ledger, now, last = Ledger(), NOW, None
    for seconds, reports in turns:
        now += seconds
        ledger.see([report(c, *records, started=s) for c, records, s in reports], now)
        if not ledger.is_fed:
            continue
        reading = ledger.reading(3)
        if last is not None:
            assert reading.at >= last.at
            assert all(new >= old for old, new in zip(last.offsets, reading.offsets, strict=True))
        last = reading


def test_keys_are_added_up_over_producers_with_what_each_may_have_missed() -> None:
    ledger = Ledger()
    first = window("a", heavy(b"nike", 300, 10), heavy(b"puma", 40), records=400, unlisted=20)
    second = window("b", heavy(b"nike", 100), records=200, unlisted=8)
    ledger.see([first, second], NOW)

    (tally,) = ledger.tallies(12)

    assert (tally.partition, tally.records_per_second, tally.bytes_per_second) == (0, 300.0, 30_000.0)
    assert (tally.samples, tally.unlisted) == (600, 14.0)
    assert tally.since == NOW - 3.0
    nike, puma = tally.keys[b"nike"], tally.keys[b"puma"]
    assert (nike.records_per_second, nike.bytes_per_second, nike.missed) == (200.0, 20_000.0, 5.0)
    assert (puma.records_per_second, puma.missed) == (20.0, 4.0), "b may have sent four a second unlisted"


def test_a_key_is_never_more_than_the_whole() -> None:
    ledger = Ledger()
    ledger.see([window("liar", heavy(b"nike", 2**53, 2**53), records=100, unlisted=2**53)], NOW)
    (tally,) = ledger.tallies(1)
    assert tally.keys[b"nike"].records_per_second == tally.records_per_second == 50.0
    assert tally.keys[b"nike"].missed == 0.0
    assert tally.unlisted == 50.0


@pytest.mark.parametrize("seconds", [0.0, 11.0, 1e12])
def test_a_window_that_says_nothing_of_now_is_passed_over(seconds: float) -> None:
    ledger = Ledger()
    ledger.see([window("a", heavy(b"nike", 5), records=10, seconds=seconds)], NOW)
    assert ledger.tallies(1) == ()


def test_keys_of_a_silent_producer_are_no_longer_told() -> None:
    ledger = Ledger()
    said = window("a", heavy(b"nike", 5), records=10)
    ledger.see([said], NOW)
    ledger.see([said], NOW + SILENT_SECONDS)
    assert ledger.tallies(1) == ()
    assert not ledger.is_fed


WHOLE = {"client_id": "a", "started": 1, "at": 1, "window_seconds": 2}


def changed(**fields: object) -> bytes:
    return msgspec.json.encode({**WHOLE, **fields})


BAD = {
    "negative": changed(partitions=[[0, -1]]),
    "no integer": changed(partitions=[[0, 1.5]]),
    "a partition too high": changed(partitions=[[1_000_000, 1]]),
    "a key that is no base64": changed(partitions=[[0, 1, 1, 1, 1, 0, [["?", 1, 0, 1]]]]),
    "a key that is too long": changed(partitions=[[0, 1, 1, 1, 1, 0, [["A" * 400, 1, 0, 1]]]]),
    "too many partitions": changed(partitions=[[0, 1]] * 2_001),
    "NaN": b'{"client_id":"a","started":1,"at":NaN,"window_seconds":2}',
    "endless": b'{"client_id":"a","started":1,"at":1,"window_seconds":1e400}',
    "no JSON": b"\xff{",
}


@pytest.mark.parametrize("what", BAD)
def test_a_report_that_breaks_a_bound_is_refused(what: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_key_report(BAD[what])


def test_a_report_comes_back_as_it_was_sent() -> None:
    sent = window("a", heavy(b"\xff\x00", 3, 1), records=10, unlisted=2)
    assert decode_key_report(encode_key_report(sent)) == sent


def test_the_reports_of_one_turn_are_read_once_and_without_any_it_is_told_what_to_set() -> None:
    reads: list[Stream] = []
    clock = [NOW]

    async def read(stream: Stream) -> tuple[KeyReport, ...]:
        reads.append(stream)
        return () if len(reads) > 1 else (report("a", 5),)

    async def scenario() -> None:
        reports = ProducerReports(read, lambda: clock[0])
        assert (await reports.meter(STREAM).end_offsets("clicks", 2)).offsets == (0, 0)
        assert await reports.tallies(STREAM, 2) == ()
        assert reads == [STREAM]
        clock[0] += 5
        with pytest.raises(Unavailable, match=r"hotkey\.report\.keys=true"):
            await reports.meter(STREAM).end_offsets("clicks", 2)

    asyncio.run(scenario())


class Reports:
    """What stands in Redis: of each stream one producer that sends 100 records between two reads."""

    def __init__(self) -> None:
        self.now = NOW
        self.reads: list[Stream] = []
        self.away = False
        self.reports = ProducerReports(self.read, lambda: self.now)

    async def read(self, stream: Stream) -> tuple[KeyReport, ...]:
        self.reads.append(stream)
        await asyncio.sleep(0)  # so that the reads of other streams fall between
        if self.away:
            raise Unavailable("Redis is away")
        return (report("a", 100 * self.reads.count(stream)),)

    async def counted(self, *streams: Stream) -> list[int]:
        """What the meters count, asked all at once a second later."""
        self.now += 1.0
        meters = [self.reports.meter(stream) for stream in streams]
        readings = await asyncio.gather(*(meter.end_offsets("any", 1) for meter in meters))
        return [reading.offsets[0] for reading in readings]


def test_streams_that_are_read_in_step_are_all_counted() -> None:
    async def scenario() -> None:
        world, views = Reports(), Stream("cluster", "views")
        assert await world.counted(STREAM, views) == [0, 0]
        assert await world.counted(STREAM, views) == [100, 100]
        assert await world.counted(STREAM, views, views) == [200, 200, 200]

    asyncio.run(scenario())


def test_a_second_who_asks_for_a_stream_in_its_first_read_breaks_no_other_stream() -> None:
    async def scenario() -> None:
        world, views = Reports(), Stream("cluster", "views")
        assert await world.counted(STREAM, views, views) == [0, 0, 0]
        world.now += 1_000
        assert await world.counted(STREAM) == [100]
        assert await world.counted(STREAM, views, views) == [200, 0, 0]

    asyncio.run(scenario())


def test_a_stream_that_nobody_asked_for_is_forgotten() -> None:
    async def scenario() -> None:
        world, views = Reports(), Stream("cluster", "views")
        await world.counted(STREAM, views)
        before = await world.reports.ledger(views, 1)
        world.now += 200
        await world.counted(STREAM)
        assert await world.reports.ledger(views, 1) is before
        world.now += 301
        await world.counted(STREAM)
        assert await world.reports.ledger(views, 1) is not before

    asyncio.run(scenario())


def test_reports_that_stood_still_for_a_minute_are_removed_and_those_of_the_living_are_not() -> None:
    clock, stands = [NOW], {"dead": report("dead", 5), "idle": report("idle", 5)}

    async def read(_: Stream) -> tuple[KeyReport, ...]:
        return tuple(stands.values())

    async def forget(stream: Stream, client_ids: Sequence[str]) -> None:
        if clock[0] < NOW + 66:
            raise Unavailable("Redis is away")
        assert stream == STREAM
        for client_id in client_ids:
            del stands[client_id]

    async def scenario() -> None:
        reports = ProducerReports(read, lambda: clock[0], forget)
        for second in range(66):
            clock[0] = NOW + second
            stands["idle"] = report("idle", 5, at=float(second))
            await reports.ledger(STREAM, 1)
        assert set(stands) == {"dead", "idle"}
        clock[0] += 1
        await reports.ledger(STREAM, 1)
        assert set(stands) == {"idle"}

    asyncio.run(scenario())
