"""Object, Redis and epochs: what is written and published when either was lost, is older, or lies."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotkey_operator.engine.decide import decide, retire
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import (
    CreateTopic,
    EmitEvent,
    EndOffsets,
    Observation,
    PartitionSample,
    Published,
    PublishTable,
    SampledRecord,
    StoredTable,
    TopicFacts,
    WriteTable,
)
from hotkey_operator.engine.reasons import ConditionType, Reason
from hotkey_operator.engine.truth import believable
from hotkey_sdk.routing.codec import encode
from hotkey_sdk.routing.report import ClientReport, Role
from hotkey_sdk.routing.table import RecordKey, Route, Shard, Stream, Table
from tests.unit.engine.stream import START, STREAM, spec, table

NIKE = Route(b"nike", "clicks", (), RecordKey.COMPOSITE, (Shard(7, 3), Shard(9, 5)), (0, 0, 0, 1))
NOW = int(START)
ROUTED = table(epoch=NOW - 50, routes=(NIKE,))


def seen(**fields: object) -> Observation:
    """A healthy, quiet stream whose object and Redis hold the same routed table."""
    healthy = Observation(
        at=START,
        topic=TopicFacts(STREAM, 12, False),
        ends=EndOffsets(START, (0,) * 12),
        stored=StoredTable(ROUTED, "v1"),
        published=Published(True, ROUTED),
    )
    return replace(healthy, **fields)  # type: ignore[arg-type]


def done(observation: Observation, memory: Memory | None = None) -> list[WriteTable | PublishTable]:
    decision, _ = decide(spec(), observation, memory or Memory())
    assert not any(isinstance(action, CreateTopic) for action in decision.actions)
    return [action for action in decision.actions if isinstance(action, WriteTable | PublishTable)]


def epoch(number: int) -> Table:
    return msgspec.structs.replace(ROUTED, epoch=number)


def test_where_both_agree_nothing_is_done() -> None:
    assert done(seen()) == []


REPUBLISHED = {
    "nothing stands in Redis": (Published(True), None),
    "an older table does": (Published(True, epoch(5)), None),
    "garbage does": (Published(True, None, "digest of it"), "digest of it"),
}


@pytest.mark.parametrize("case", REPUBLISHED)
def test_the_objects_table_is_published_again_when(case: str) -> None:
    published, over = REPUBLISHED[case]
    assert done(seen(published=published)) == [PublishTable(ROUTED, over)]


def test_it_is_published_every_turn_until_it_stands_there() -> None:
    memory = Memory()
    for second in range(3):
        decision, memory = decide(spec(), seen(at=START + second, published=Published(True)), memory)
        assert PublishTable(ROUTED, None) in decision.actions


def test_it_is_published_again_while_kafka_does_not_answer() -> None:
    gone = seen(topic=None, ends=None, failure="Kafka: timed out", published=Published(True))
    decision, _ = decide(spec(), gone, Memory())
    assert decision.reason is Reason.KAFKA_UNAVAILABLE
    assert PublishTable(ROUTED, None) in decision.actions


def test_nothing_is_published_to_a_redis_that_does_not_answer_and_ready_says_so() -> None:
    decision, _ = decide(spec(), seen(published=Published(False)), Memory())
    assert not any(isinstance(action, PublishTable) for action in decision.actions)
    (ready,) = [c for c in decision.conditions if c.type is ConditionType.READY]
    assert (ready.status, ready.reason) == (False, Reason.REDIS_UNAVAILABLE)


def test_a_lost_object_is_rebuilt_from_the_published_table() -> None:
    write, publish = done(seen(stored=None))
    assert isinstance(write, WriteTable)
    assert (write.resource_version, write.table.routes) == (None, (NIKE,))
    assert write.table.epoch > ROUTED.epoch
    assert publish == PublishTable(write.table, None)


HIGHER: dict[str, dict[str, object]] = {
    "Redis": {"published": Published(True, epoch(NOW + 500))},
    "a client": {"reports": (ClientReport("p", Role.PRODUCER, NOW + 500, START),)},
}


@pytest.mark.parametrize("who", HIGHER)
def test_a_higher_epoch_than_the_objects_is_written_above(who: str) -> None:
    write, _ = done(seen(**HIGHER[who]))
    assert isinstance(write, WriteTable)
    assert (write.table.epoch, write.table.routes) == (NOW + 501, (NIKE,))
    assert write.resource_version == "v1"


def test_another_table_under_the_same_epoch_is_written_above() -> None:
    other = msgspec.structs.replace(ROUTED, routes=())
    write, _ = done(seen(published=Published(True, other)))
    assert write.table.epoch > ROUTED.epoch
    assert write.table.routes == (NIKE,)


def test_an_absurd_reported_epoch_is_not_believed() -> None:
    assert done(seen(reports=(ClientReport("p", Role.PRODUCER, 2**53 - 1, START),))) == []


def test_a_lost_object_and_a_lost_redis_start_above_the_clock() -> None:
    write, _ = done(seen(stored=None, published=Published(True)))
    assert write.table.routes == ()
    assert write.table.epoch == NOW + 1


def test_a_tombstone_is_taken_over_by_the_new_policy() -> None:
    grave = msgspec.structs.replace(ROUTED, routes=())
    observation = seen(stored=StoredTable(grave, "v1", tombstone=True), published=Published(True, grave))
    (write, _) = done(observation)
    assert isinstance(write, WriteTable)


def test_another_cluster_under_the_same_name_starts_with_no_routes() -> None:
    moved = TopicFacts(Stream("another", "clicks"), 12, False)
    write, _ = done(seen(topic=moved, published=Published(True)))
    assert (write.table.stream, write.table.routes) == (moved.stream, ())


def test_a_route_to_another_topic_is_taken_back_and_the_topic_is_read_on() -> None:
    elsewhere = msgspec.structs.replace(NIKE, topic="elsewhere")
    edited = msgspec.structs.replace(ROUTED, routes=(elsewhere,), read_set=("clicks", "elsewhere"))

    written = done(seen(stored=StoredTable(edited, "v2"), published=Published(True, edited)))

    assert [action.table.routes for action in written] == [(), ()]
    assert {action.table.read_set for action in written} == {("clicks", "elsewhere")}


def test_changed_dimensions_are_published_to_the_clients() -> None:
    changed = spec(dimensions=[{"name": "country", "from": {"header": "x-country"}}])
    decision, _ = decide(changed, seen(), Memory())
    (write,) = [action for action in decision.actions if isinstance(action, WriteTable)]
    assert [dimension.header for dimension in write.table.dimensions] == ["x-country"]


def test_the_younger_of_two_policies_does_nothing_and_is_told() -> None:
    decision, _ = decide(spec(), seen(rival="ads/older", ends=None, published=Published(True)), Memory())
    assert decision.reason is Reason.ANOTHER_POLICY
    assert "ads/older" in decision.message
    (hot,) = [c for c in decision.conditions if c.type is ConditionType.HOT]
    assert (hot.status, decision.summary.epoch) == (False, 0)  # whatever its own object once held
    assert [action for action in decision.actions if not isinstance(action, EmitEvent)] == []


def test_a_topic_that_does_not_exist_is_told_and_heals_when_it_appears() -> None:
    missing = Observation(at=START, topic=None)
    decision, memory = decide(spec(), missing, Memory())
    assert decision.reason is Reason.TOPIC_NOT_FOUND
    appeared = seen(at=START + 1, stored=None, published=Published(True))
    decision, _ = decide(spec(), appeared, memory)
    assert any(isinstance(action, WriteTable) for action in decision.actions)


def test_applied_by_counts_the_clients_that_report_the_epoch() -> None:
    reports = (
        ClientReport("p1", Role.PRODUCER, ROUTED.epoch, START),
        ClientReport("p2", Role.PRODUCER, ROUTED.epoch - 1, START),
        ClientReport("dead", Role.PRODUCER, ROUTED.epoch, START - 10_000),
        ClientReport("dead, of a clock ahead", Role.PRODUCER, ROUTED.epoch, START + 10_000),
        ClientReport("c1", Role.CONSUMER, ROUTED.epoch, START, "g"),
    )
    decision, _ = decide(spec(), seen(reports=reports), Memory())
    figures = decision.summary
    assert (figures.producers_applied, figures.producers) == (1, 2)
    assert (figures.consumers_applied, figures.consumers) == (1, 1)


def test_retiring_returns_to_plain_keys_under_a_higher_epoch_with_the_same_read_set() -> None:
    held = msgspec.structs.replace(ROUTED, read_set=("clicks", "clicks.hot.12345678.g5"))
    decision = retire(seen(stored=StoredTable(held, "v3")))
    write, publish = decision.actions
    assert isinstance(write, WriteTable)
    assert (write.table.routes, write.table.read_set) == ((), held.read_set)
    assert write.table.epoch > held.epoch
    assert write.resource_version == "v3"
    assert publish == PublishTable(write.table, None)


def test_retiring_works_while_kafka_and_redis_are_gone() -> None:
    decision = retire(seen(topic=None, ends=None, published=Published(False)))
    assert any(isinstance(action, WriteTable) for action in decision.actions)


def test_retiring_what_never_governed_does_nothing() -> None:
    assert retire(Observation(at=START, topic=None)).actions == ()
    assert retire(seen(rival="ads/older")).actions == ()


OFFSETS = st.lists(st.integers(-(2**62), 2**62), max_size=5).map(tuple)
RECORDS = st.builds(SampledRecord, st.none() | st.binary(max_size=4), st.integers(0, 2**40))
RUNS = st.lists(st.lists(RECORDS, max_size=4).map(tuple), max_size=3).map(tuple)
SAMPLES = st.lists(st.builds(PartitionSample, st.integers(0, 6), RUNS), max_size=3).map(tuple)
TABLES = st.none() | st.builds(epoch, st.integers(0, 2**53 - 1))


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(st.floats(0, 4e9), st.integers(1, 6), OFFSETS, SAMPLES, TABLES, TABLES, st.booleans()),
        max_size=5,
    )
)
def test_whatever_is_seen_every_table_is_valid_and_every_epoch_higher(
    turns: list[
        tuple[float, int, tuple[int, ...], tuple[PartitionSample, ...], Table | None, Table | None, bool]
    ],
) -> None:
    memory = Memory()
    for at, partitions, offsets, samples, stored, published, reachable in turns:
        observation = Observation(
            at=at,
            topic=TopicFacts(STREAM, partitions, False),
            ends=EndOffsets(at, offsets) if len(offsets) == partitions else None,
            samples=samples,
            stored=StoredTable(stored, "v") if stored else None,
            published=Published(reachable, published if reachable else None),
        )
        decision, memory = decide(spec(trigger={"recordsPerSecond": 1, "for": "0s"}), observation, memory)
        for action in decision.actions:
            if isinstance(action, WriteTable):
                encode(action.table)
                assert action.anew == (stored is not None and not believable(stored.epoch, at))
                assert stored is None or action.table.epoch > stored.epoch or action.anew
