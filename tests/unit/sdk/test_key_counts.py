"""What a producer counts of what it sends, looked at in full or in part, and what of it is reported."""

from __future__ import annotations

import random

import pytest

from hotkey_sdk._key_counts import (
    SAMPLES_AT_ONCE,
    SAMPLES_PER_SECOND,
    TOPICS_AT_MOST,
    WEIGHT_AT_MOST,
    KeyCounts,
)
from hotkey_sdk.routing.report import (
    KEY_BYTES_AT_MOST,
    KEY_REPORT_BYTES_AT_MOST,
    KEYS_AT_MOST,
    KEYS_OF_A_PARTITION_AT_MOST,
    PARTITIONS_AT_MOST,
    KeyReport,
    decode_key_report,
    encode_key_report,
)

START = 1_790_000_000.0


def reported(counts: KeyCounts, now: float = START + 2, topic: str = "clicks") -> KeyReport:
    report = counts.report(topic, "client", now)
    assert report is not None
    return report


def test_totals_go_on_and_windows_begin_anew() -> None:
    counts = KeyCounts(START)
    for key, partition in ((b"nike", 3), (b"nike", 3), (b"puma", 3), (None, 5)):
        counts.add("clicks", key, partition, 100, 1)
    first = reported(counts)
    counts.add("clicks", b"nike", 3, 100, 1)
    second = reported(counts, START + 4)

    three, five = first.partitions
    assert (three.partition, three.records, three.window_records, three.window_bytes) == (3, 3, 3, 300)
    assert [(key.key, key.records, key.missed, key.size_bytes) for key in three.keys] == [
        (b"nike", 2, 0, 200),
        (b"puma", 1, 0, 100),
    ]
    assert (five.partition, five.records, five.keys) == (5, 1, ())
    assert [(c.records, c.window_records) for c in second.partitions] == [(4, 1), (1, 0)]
    assert (first.window_seconds, second.window_seconds, second.started) == (2.0, 2.0, START)


def test_a_record_counts_for_those_that_were_not_looked_at() -> None:
    counts = KeyCounts(START)
    counts.add("clicks", b"nike", 0, 50, 16)
    (count,) = reported(counts).partitions
    assert (count.records, count.window_bytes, count.samples, count.keys[0].records) == (16, 800, 1, 16)


@pytest.mark.parametrize("weight", [1, 2, 16, 1_024])
def test_gaps_are_the_weight_on_average_and_not_always_the_same(weight: int) -> None:
    counts = KeyCounts(START, random.Random(3).randint)
    gaps = [counts.gap(weight) for _ in range(20_000)]
    assert sum(gaps) / len(gaps) == pytest.approx(weight, rel=0.03)
    assert min(gaps) >= 1
    assert len(set(gaps)) == 1 or weight > 1


def test_fewer_records_are_looked_at_when_more_are_sent_and_again_more_when_less() -> None:
    counts = KeyCounts(START)
    for _ in range(10 * SAMPLES_PER_SECOND):
        counts.add("clicks", b"k", 0, 1, 1)
    assert counts.weight > 1, "within a window too"
    counts = KeyCounts(START)
    for _ in range(SAMPLES_AT_ONCE - 1):
        counts.add("clicks", b"k", 0, 1, 1)
    counts.adjust(START + 0.5)
    assert counts.weight == 4
    for second, weight in ((1, 2), (2, 1), (3, 1)):
        counts.add("clicks", b"k", 0, 1, 4)
        counts.adjust(START + second)
        assert counts.weight == weight


def test_the_weight_is_bounded_whatever_the_clock_says() -> None:
    counts = KeyCounts(START)
    for _ in range(100):
        for _ in range(100):
            counts.add("clicks", b"k", 0, 1, 1)
        counts.adjust(START + 1e-9)
        counts.adjust(START - 5)
    assert 1 <= counts.weight <= WEIGHT_AT_MOST
    assert reported(counts, START - 100).window_seconds == 0


def test_a_long_key_is_counted_and_not_named() -> None:
    counts = KeyCounts(START)
    counts.add("clicks", b"x" * (KEY_BYTES_AT_MOST + 1), 0, 300, 1)
    counts.add("clicks", b"y" * KEY_BYTES_AT_MOST, 0, 300, 1)
    (count,) = reported(counts).partitions
    assert count.window_records == 2
    assert [key.key[:1] for key in count.keys] == [b"y"]


def test_a_report_is_bounded_and_says_what_it_left_out() -> None:
    counts, chance = KeyCounts(START), random.Random(5)
    for number in range(60_000):
        key = b"%d" % number * 30
        counts.add("clicks", key[:KEY_BYTES_AT_MOST], chance.randrange(PARTITIONS_AT_MOST + 500), 2**40, 1)
    report = reported(counts)

    assert decode_key_report(encode_key_report(report)) == report
    assert len(encode_key_report(report)) <= KEY_REPORT_BYTES_AT_MOST
    assert len(report.partitions) == PARTITIONS_AT_MOST
    assert sum(len(count.keys) for count in report.partitions) <= KEYS_AT_MOST
    assert all(len(count.keys) <= KEYS_OF_A_PARTITION_AT_MOST for count in report.partitions)
    assert all(count.unlisted > 0 for count in report.partitions)


def test_topics_beyond_the_bound_and_unknown_ones_are_not_told() -> None:
    counts = KeyCounts(START)
    for number in range(TOPICS_AT_MOST + 1):
        counts.add(f"topic-{number}", b"k", 0, 1, 1)
    assert counts.report(f"topic-{TOPICS_AT_MOST}", "client", START) is None
    assert counts.report("never", "client", START) is None
    assert counts.report("topic-0", "client", START) is not None
