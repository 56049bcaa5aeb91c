"""Keys that producers counted are evidence like those that were sampled, with bounds that hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotkey_operator.engine.decide import decide
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import CountedKey, EndOffsets, KeyTally, Observation, Published, TopicFacts
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.spec import PolicySpec, parse_spec
from hotkey_operator.engine.tallies import evidence
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.table import Stream

NOW = 1_790_000_000.0
PARTITIONS = 4
HOME = partition_for(b"nike", PARTITIONS)


def tally(records: float, keys: dict[bytes, CountedKey], **more: float) -> KeyTally:
    samples, unlisted = int(more.get("samples", 1_000)), more.get("unlisted", 0.0)
    return KeyTally(HOME, more.get("since", NOW), records, 100 * records, samples, unlisted, keys)


def test_a_part_lies_in_the_middle_of_what_was_counted_and_what_may_be_missed() -> None:
    found = evidence(tally(1_000.0, {b"nike": CountedKey(700.0, 70_000.0, 100.0)}), NOW)
    assert found is not None
    nike = found.keys[b"nike"].records
    assert nike.value == pytest.approx(0.75)
    assert nike.value - nike.bound <= 0.7
    assert nike.value + nike.bound >= 0.8
    assert found.mean_bytes == 100.0


@given(st.integers(0, 100), st.integers(0, 100), st.integers(1, 10_000))
def test_the_bound_always_holds_what_the_sketch_leaves_open(least: int, missed: int, samples: int) -> None:
    missed = min(missed, 100 - least)
    counted = CountedKey(float(least), 100.0 * least, float(missed))
    found = evidence(tally(100.0, {b"nike": counted}, samples=samples), NOW)
    assert found is not None
    part = found.keys[b"nike"].records
    assert part.value - part.bound <= least / 100 + 1e-9
    assert part.value + part.bound >= (least + missed) / 100 - 1e-9
    assert 0 <= part.value <= 1


def test_a_partition_to_which_nothing_was_sent_says_nothing() -> None:
    assert evidence(tally(0.0, {}), NOW) is None
    assert evidence(tally(5.0, {}, samples=0), NOW) is None


def test_a_key_that_is_not_told_may_carry_what_is_unlisted() -> None:
    found = evidence(tally(1_000.0, {}, unlisted=100.0), NOW)
    assert found is not None
    assert found.records == 10


def turns(
    spec: PolicySpec, tallies: tuple[KeyTally, ...], seconds: int = 6
) -> tuple[Reason, tuple[bytes, ...]]:
    """The last decision's reason and the routed keys, of a stream whose home partition of nike is hot."""
    topic = TopicFacts(Stream("cluster", "clicks"), PARTITIONS, compacted=False)
    memory, reason = Memory(), Reason.WAITING
    routed: tuple[bytes, ...] = ()
    for second in range(seconds):
        at = NOW + second
        rates = [4_000 if p == HOME else 100 for p in range(PARTITIONS)]
        ends = EndOffsets(at, tuple(rate * second for rate in rates))
        seen = Observation(at, topic, ends, published=Published(reachable=True), tallies=tallies)
        decision, memory = decide(spec, seen, memory)
        reason = decision.reason
        routed = tuple(verdict.key for verdict in decision.verdicts if verdict.shards)
        if routed:
            break
    return reason, routed


UNREAD = parse_spec({"topic": "clicks", "metrics": {"sampling": False}})
BY_USER = parse_spec(
    {
        "topic": "clicks",
        "metrics": {"sampling": False},
        "dimensions": [{"name": "user_id", "from": {"header": "x-user"}}],
        "spread": {"by": [["user_id"]], "ordering": "PerDimension"},
    }
)


@pytest.mark.parametrize("spec", [UNREAD, BY_USER], ids=["any shard", "by a dimension that nobody saw"])
def test_a_hot_key_that_producers_tell_is_spread_although_no_record_was_read(spec: PolicySpec) -> None:
    nike = CountedKey(3_800.0, 380_000.0, 20.0)
    assert turns(spec, (tally(4_000.0, {b"nike": nike}),)) == (Reason.SPREAD, (b"nike",))


def test_without_samples_and_reports_the_reason_says_so() -> None:
    assert turns(UNREAD, ()) == (Reason.NOT_SAMPLED, ())


def test_a_partition_of_many_small_keys_has_no_dominant_one() -> None:
    small = {b"k%d" % n: CountedKey(40.0, 4_000.0, 4.0) for n in range(8)}
    assert turns(UNREAD, (tally(4_000.0, small, unlisted=40.0),)) == (Reason.NO_DOMINANT_KEY, ())


def test_a_bound_too_wide_to_say_spreads_nothing() -> None:
    unsure = {b"nike": CountedKey(200.0, 20_000.0, 3_800.0)}
    reason, routed = turns(UNREAD, (tally(4_000.0, unsure, samples=20),))
    assert (reason, routed) == (Reason.SAMPLING, ())
