"""What the demo concludes from records, counts and status."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest

from examples.demo import summary
from examples.demo.evidence import Evidence, Span
from examples.demo.summary import Course
from examples.load.clicks import Click
from examples.load.proof import prove

ONSET, COOLED, MERGED = 10_000, 40_000, 50_000
PRODUCERS = 2


def click(number: int, producer: int = 0, advertiser: str = "nike") -> bytes:
    return msgspec.json.encode(Click(f"run-{producer}-{number}", advertiser, f"{advertiser}-0", "u1", 90_000))


def evidence_of(records: Iterable[tuple[int, int, bytes, bytes]], partitions: int = 4) -> Evidence:
    evidence = Evidence(partitions)
    for partition, at, key, value in records:
        evidence.add(partition, at, key, value)
    return evidence


def spread_run(routed_until: int = 45_000) -> Evidence:
    """All on partition 0 until the producers route, at 12 s and 13 s; even until they stop, then plain."""
    numbers = iter(range(100_000))
    records = [(0, at, b"nike", click(next(numbers))) for at in range(ONSET, 12_000, 10)]
    records += [
        (at // 10 % 4, at, b"nike:%d" % (at // 10 % 4), click(next(numbers), producer))
        for producer, begin in ((0, 12_000), (1, 13_000))
        for at in range(begin, routed_until, 10)
    ]
    return evidence_of([*records, (0, 60_000, b"nike", click(next(numbers)))])


COURSE = Course(ONSET, COOLED, MERGED, PRODUCERS)


def test_the_spread_is_the_slowest_producers_first_routed_record() -> None:
    verdict = summary.spread(COURSE, spread_run())
    assert verdict.kept
    assert "3.00 s" in verdict.text


def test_a_producer_that_never_routed_fails_the_demo() -> None:
    verdict = summary.spread(Course(ONSET, COOLED, MERGED, producers=3), spread_run())
    assert not verdict.kept
    assert "2 of 3 producers" in verdict.text


def test_the_imbalance_is_told_before_and_after_the_spread() -> None:
    verdict = summary.balance(COURSE, spread_run())
    assert verdict.kept
    assert verdict.text == "4.00 before, 1.00 after"


def test_a_spread_that_leaves_one_partition_hot_fails_the_demo() -> None:
    records = [(0, at, b"nike", click(at)) for at in range(ONSET, 12_000, 10)]
    records += [
        (0, at, b"nike:0", click(at, producer))
        for producer in range(2)
        for at in range(12_000 + producer, COOLED, 10)
    ]
    assert not summary.balance(COURSE, evidence_of(records)).kept


def test_a_key_that_is_routed_to_the_end_is_not_merged_back() -> None:
    assert summary.merge_back(COURSE, spread_run()).kept
    assert not summary.merge_back(COURSE, spread_run(routed_until=61_000)).kept
    assert not summary.merge_back(Course(ONSET, COOLED, None, PRODUCERS), spread_run()).kept


def test_a_lost_click_fails_the_demo_by_its_id() -> None:
    evidence = spread_run()
    proof = prove(evidence.ids | {"run-0-x"}, evidence.ids | {"run-0-x"}, sorted(evidence.ids))
    counts = summary.counts(evidence.windows, evidence.windows)
    verdicts = {v.name: v for v in summary.verdicts(COURSE, evidence, proof, counts)}
    assert "run-0-x" in verdicts["exactly once"].text
    assert [name for name, verdict in verdicts.items() if not verdict.kept] == ["exactly once"]


def test_a_window_that_was_counted_twice_is_named() -> None:
    verdict = summary.counts({("nike", "nike-0", 60_000): 2}, {("nike", "nike-0", 60_000): 4})
    assert not verdict.kept
    assert "('nike', 'nike-0', 60000) holds 4, the records 2" in verdict.text


def test_a_click_that_stands_in_kafka_twice_is_expected_once() -> None:
    evidence = evidence_of([(0, 1, b"nike", click(7)), (1, 2, b"nike:3", click(7))])
    assert evidence.repeats == 1
    assert evidence.windows == {("nike", "nike-0", 60_000): 1}


def test_an_advertiser_with_a_colon_in_its_name_is_not_taken_for_routed() -> None:
    evidence = evidence_of([(0, 1, b"a:1", click(1, advertiser="a:1"))])
    assert evidence.routed == {}


@pytest.mark.parametrize(("every", "found"), [(1, 5_000), (3, None)])
def test_an_onset_is_the_first_second_over_the_trigger(every: int, found: int | None) -> None:
    calm = [(1, at, b"k", click(at)) for at in range(0, 5_000, 10)]
    hot = [(0, at, b"nike", click(10_000 + at)) for at in range(5_000, 9_000, every)]
    assert evidence_of([*calm, *hot]).overload(999) == found


def test_a_stream_without_an_onset_has_nothing_to_spread_and_still_must_count() -> None:
    evidence = evidence_of([(0, 1, b"nike", click(1))])
    proof = prove(evidence.ids, evidence.ids, evidence.ids)
    lost = summary.counts(evidence.windows, {})
    verdicts = summary.verdicts(Course(None, 2, None, PRODUCERS), evidence, proof, lost)
    assert [verdict.kept for verdict in verdicts] == [True, True, False]


def test_no_records_have_no_imbalance_and_no_span() -> None:
    evidence = Evidence(4)
    assert evidence.imbalance(Span(0, 10)) is None
    assert evidence.span is None
