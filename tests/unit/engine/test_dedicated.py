"""What becomes of a dedicated topic: each row of the table, and the rules above it for all that is seen."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotkey_operator.engine.dedicated import (
    TRANSITIONS,
    Effect,
    Event,
    Known,
    Move,
    event,
    like,
    move,
    readers,
    registered,
    weaker,
)
from hotkey_operator.engine.model import Committed, DedicatedSeen, TopicConfig, TopicSeen
from hotkey_operator.engine.reasons import Reason
from hotkey_sdk.routing.report import ClientReport, Role
from hotkey_sdk.routing.table import DedicatedTopic, Phase
from tests.unit.engine.stream import spec

CONFIG = TopicConfig(3, 2, 86_400_000, -1, "CreateTime", False, 1_048_588)
NAME = "clicks.hot.0a1b2c3d.g7"
SEEN = TopicSeen("id-1", 4, CONFIG)
FINE = Known(answered=True, seen=SEEN, wanted=True)


def topic(phase: Phase, topic_id: str = "id-1", key: bytes | None = b"nike") -> DedicatedTopic:
    return DedicatedTopic(NAME, 4, phase, topic_id, key)


CASES: list[tuple[str, DedicatedTopic, Known, Event, Move]] = [
    ("nothing is learned of a name", topic(Phase.PREPARE, ""), Known(wanted=True), Event.UNSEEN,
     Move(Phase.PREPARE)),
    ("a recorded name has no topic", topic(Phase.PREPARE, ""), Known(answered=True, wanted=True),
     Event.ABSENT, Move(Phase.PREPARE, Effect.CREATE)),
    ("this operator made it", topic(Phase.PREPARE, ""), replace(FINE, made="id-1"), Event.MADE,
     Move(Phase.PREPARE, Effect.RECORD)),
    ("somebody else made it", topic(Phase.PREPARE, ""), FINE, Event.STRANGE, Move(None)),
    ("what was made was replaced", topic(Phase.PREPARE, ""), replace(FINE, made="id-0"), Event.STRANGE,
     Move(None)),
    ("what was made is gone", topic(Phase.PREPARE, ""), Known(answered=True, made="id-1", wanted=True),
     Event.GONE, Move(None)),
    ("nobody needs the name", topic(Phase.PREPARE, ""), Known(answered=True), Event.WITHDRAWN, Move(None)),
    ("nobody needs the topic", topic(Phase.PREPARE), replace(FINE, wanted=False), Event.UNWANTED,
     Move(Phase.IDLE)),
    ("a group does not read it", topic(Phase.PREPARE), FINE, Event.OURS, Move(Phase.PREPARE)),
    ("every group reads it", topic(Phase.PREPARE), replace(FINE, read=True), Event.READY, Move(Phase.ACTIVE)),
    ("it is of no key", topic(Phase.PREPARE, key=None), FINE, Event.STOCKED, Move(Phase.IDLE)),
    ("it is weaker", topic(Phase.PREPARE), replace(FINE, weaker=("x",), read=True), Event.WEAKER,
     Move(Phase.IDLE)),
    ("it was deleted before use", topic(Phase.PREPARE), Known(answered=True, wanted=True), Event.GONE,
     Move(None)),
    ("nothing is learned of one in use", topic(Phase.ACTIVE), Known(wanted=True), Event.UNSEEN,
     Move(Phase.ACTIVE)),
    ("it is in use", topic(Phase.ACTIVE), FINE, Event.OURS, Move(Phase.ACTIVE)),
    ("its key is cool", topic(Phase.ACTIVE), replace(FINE, wanted=False), Event.UNWANTED, Move(Phase.RETURN)),
    ("its key is cool and Kafka away", topic(Phase.ACTIVE), Known(), Event.UNWANTED, Move(Phase.RETURN)),
    ("a listed group does not read it", topic(Phase.ACTIVE), replace(FINE, unread="late"), Event.UNREAD,
     Move(Phase.RETURN)),
    ("it was deleted in use", topic(Phase.ACTIVE), Known(answered=True, wanted=True), Event.GONE,
     Move(Phase.RETURN)),
    ("it was made anew in use", topic(Phase.ACTIVE, "id-0"), FINE, Event.STRANGE, Move(Phase.RETURN)),
    ("it became weaker in use", topic(Phase.ACTIVE), replace(FINE, weaker=("x",)), Event.WEAKER,
     Move(Phase.RETURN)),
    ("it has fewer partitions", topic(Phase.ACTIVE), replace(FINE, seen=TopicSeen("id-1", 3, CONFIG)),
     Event.STRANGE, Move(Phase.RETURN)),
    ("nothing is learned of one left", topic(Phase.RETURN), Known(), Event.UNSEEN, Move(Phase.RETURN)),
    ("stragglers write to it", topic(Phase.RETURN), FINE, Event.OURS, Move(Phase.RETURN)),
    ("nobody writes to it", topic(Phase.RETURN), replace(FINE, quiet=True), Event.QUIET, Move(Phase.IDLE)),
    ("its key is hot again", topic(Phase.RETURN), replace(FINE, claimed=True), Event.CLAIMED,
     Move(Phase.PREPARE)),
    ("it was deleted when left", topic(Phase.RETURN), Known(answered=True), Event.GONE, Move(None)),
    ("it was made anew when left", topic(Phase.RETURN, "id-0"), FINE, Event.STRANGE, Move(None)),
    ("it is idle", topic(Phase.IDLE), FINE, Event.OURS, Move(Phase.IDLE)),
    ("nothing is learned of an idle one", topic(Phase.IDLE), Known(), Event.UNSEEN, Move(Phase.IDLE)),
    ("an idle one is too weak", topic(Phase.IDLE), replace(FINE, weaker=("x",), claimed=True), Event.WEAKER,
     Move(Phase.IDLE)),
    ("a key takes an idle one", topic(Phase.IDLE), replace(FINE, claimed=True), Event.CLAIMED,
     Move(Phase.PREPARE)),
    ("an idle one was deleted", topic(Phase.IDLE), Known(answered=True), Event.GONE, Move(None)),
    ("an idle one was made anew", topic(Phase.IDLE, "id-0"), FINE, Event.STRANGE, Move(None)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "of", "known", "seen", "becomes"), CASES, ids=[case[0] for case in CASES])
def test_each_row(name: str, of: DedicatedTopic, known: Known, seen: Event, becomes: Move) -> None:
    assert move(of, known) == (seen, becomes)


def test_every_row_of_the_table_has_a_case() -> None:
    assert {(of.phase, seen) for _, of, _, seen, _ in CASES} == set(TRANSITIONS)


topics = st.builds(
    topic,
    st.sampled_from(Phase),
    st.sampled_from(["", "id-1", "id-2"]),
    st.sampled_from([None, b"nike"]),
)
knowns = st.builds(
    Known,
    answered=st.booleans(),
    seen=st.sampled_from([None, SEEN, TopicSeen("id-2", 4, CONFIG), TopicSeen("id-1", 2, CONFIG)]),
    made=st.sampled_from(["", "id-1", "id-2"]),
    weaker=st.sampled_from([(), ("retention.ms is 1, 2 needed",)]),
    wanted=st.booleans(),
    claimed=st.booleans(),
    read=st.booleans(),
    quiet=st.booleans(),
    unread=st.sampled_from(["", "group a has no committed offset"]),
)


@given(topics, knowns)
def test_whatever_is_seen_there_is_a_row(of: DedicatedTopic, known: Known) -> None:
    if of.phase is not Phase.PREPARE and not of.topic_id:
        return  # no table has that
    assert (of.phase, event(of, known)) in TRANSITIONS


@given(topics, knowns)
def test_a_topic_is_written_first_when_every_group_reads_what_is_surely_ours(
    of: DedicatedTopic, known: Known
) -> None:
    """Invariants 1 to 4: the one way into ACTIVE."""
    if of.phase is Phase.ACTIVE or (of.phase is not Phase.PREPARE and not of.topic_id):
        return
    if move(of, known)[1].to is not Phase.ACTIVE:
        return
    assert of.phase is Phase.PREPARE
    assert known.read
    assert known.seen is not None
    assert known.seen.topic_id == of.topic_id != ""
    assert known.seen.partitions >= of.partitions
    assert not known.weaker


@given(topics, knowns)
def test_only_what_this_operator_made_is_recorded_as_ours(of: DedicatedTopic, known: Known) -> None:
    """Invariant 3."""
    if move_effect(of, known) is Effect.RECORD:
        assert known.seen is not None
        assert known.seen.topic_id == known.made != ""


@given(topics, knowns)
def test_a_topic_is_only_made_under_a_recorded_name_that_never_had_an_id(
    of: DedicatedTopic, known: Known
) -> None:
    """Invariant 3."""
    if move_effect(of, known) is Effect.CREATE:
        assert (of.phase, of.topic_id, known.made, known.seen) == (Phase.PREPARE, "", "", None)


def move_effect(of: DedicatedTopic, known: Known) -> Effect | None:
    return None if of.phase is not Phase.PREPARE else move(of, known)[1].effect


@given(knowns)
def test_whatever_speaks_against_a_topic_in_use_ends_that(known: Known) -> None:
    """Invariant 1: in doubt, base."""
    found = known.answered and (
        known.seen is None or known.seen != SEEN or bool(known.weaker) or bool(known.unread)
    )
    if found or not known.wanted:
        assert move(topic(Phase.ACTIVE), known)[1].to is Phase.RETURN


# invariant 4: no weaker than the base topic


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"replication": 2}, "replication factor is 2, 3 needed"),
        ({"min_insync": 1}, "min.insync.replicas is 1, 2 needed"),
        ({"retention_ms": 1_000}, "retention.ms is 1000"),
        ({"retention_bytes": 5}, "retention.bytes is 5, inf needed"),
        ({"max_message_bytes": 10}, "max.message.bytes is 10"),
        ({"timestamp_type": "LogAppendTime"}, "message.timestamp.type is LogAppendTime, not CreateTime"),
        ({"unclean_election": True}, "unclean.leader.election.enable is true"),
    ],
)
def test_what_is_weaker_than_the_base_topic_is_named(change: dict[str, int | str | bool], words: str) -> None:
    (found,) = weaker(replace(CONFIG, **change), CONFIG)  # type: ignore[arg-type]

    assert words in found


def test_a_topic_may_be_stronger_than_the_base_topic() -> None:
    base = replace(CONFIG, retention_bytes=100, unclean_election=True)
    stronger = TopicConfig(4, 3, -1, -1, "CreateTime", False, 2_000_000)

    assert weaker(stronger, base) == ()


@pytest.mark.parametrize(("partitions", "each"), [(1, 1_200), (5, 240), (7, 172), (12, 100), (24, 100)])
def test_a_new_topic_keeps_at_least_as_many_bytes_as_the_base_topic(partitions: int, each: int) -> None:
    base = replace(CONFIG, retention_bytes=100)

    made = like(base, 12, partitions)

    assert made == replace(base, retention_bytes=each)
    assert made.retention_bytes * partitions >= 12 * 100


def test_a_new_topic_keeps_bytes_without_a_bound_as_the_base_topic() -> None:
    assert like(CONFIG, 12, 1) == CONFIG


# invariant 2: who must read it


def committed(group: str, *partitions: int, failure: str | None = None) -> Committed:
    return Committed(group, dict.fromkeys(partitions, 0), failure)


def seen(*on_topic: Committed, on_base: tuple[Committed, ...] | None = ()) -> DedicatedSeen:
    return DedicatedSeen(groups={NAME: on_topic}, on_base=on_base, ends={NAME: 0})


ALL = (0, 1, 2, 3)


def test_a_topic_that_every_registered_group_reads_is_not_held_up() -> None:
    found = seen(committed("a", *ALL), committed("b", *ALL), on_base=(committed("a", 0), committed("old", 5)))

    assert readers(topic(Phase.PREPARE), found, ("a", "b"), ("old",)) is None


@pytest.mark.parametrize(
    ("found", "registered_groups", "reason", "words"),
    [
        (seen(committed("a", 0, 1, 3)), ("a",), Reason.CONSUMERS_NOT_READING, "a on partitions 2"),
        (seen(committed("a")), ("a",), Reason.CONSUMERS_NOT_READING, "a on all 4 partitions"),
        (seen(), ("a",), Reason.CONSUMERS_NOT_READING, "a on all 4 partitions"),
        (seen(committed("a", *ALL, failure="x")), ("a",), Reason.CONSUMERS_NOT_READING, "a on all"),
        (seen(committed("a", *ALL), committed("b", 1)), ("a", "b"), Reason.CONSUMERS_NOT_READING, "b on"),
        (seen(committed("a", *ALL), on_base=(committed("c", 3),)), ("a",), Reason.UNREGISTERED_GROUP, "c"),
        (seen(), (), Reason.UNREGISTERED_GROUP, "no consumer group is registered"),
        (seen(committed("a", *ALL), on_base=None), ("a",), Reason.GROUPS_NOT_KNOWN, "were not asked yet"),
        (seen(committed("a", *ALL), on_base=(committed("c", failure="late"),)), ("a",),
         Reason.GROUPS_NOT_KNOWN, "late"),
    ],
)  # fmt: skip
def test_what_holds_a_topic_up_names_the_groups(
    found: DedicatedSeen, registered_groups: tuple[str, ...], reason: Reason, words: str
) -> None:
    blocked = readers(topic(Phase.PREPARE), found, registered_groups, ())

    assert blocked is not None
    assert blocked.reason is reason
    assert words in blocked.message


@pytest.mark.parametrize(
    ("end", "reason", "words"),
    [
        (5_000, Reason.CONSUMERS_NOT_READING, "still to read: a: 4,600 records"),
        (None, Reason.KAFKA_UNAVAILABLE, "cannot be read"),
    ],
)
def test_a_topic_that_was_used_before_waits_until_what_it_holds_was_read(
    end: int | None, reason: Reason, words: str
) -> None:
    read = Committed("a", dict.fromkeys(ALL, 100))
    found = replace(seen(read), ends={} if end is None else {NAME: end})

    blocked = readers(topic(Phase.PREPARE), found, ("a",), ())

    assert blocked is not None
    assert blocked.reason is reason
    assert words in blocked.message
    assert readers(topic(Phase.PREPARE), replace(found, ends={NAME: 1_400}), ("a",), ()) is None


def test_a_group_that_may_miss_records_need_not_be_asked() -> None:
    found = seen(committed("a", *ALL), on_base=(committed("tool", failure="late"),))

    assert readers(topic(Phase.PREPARE), found, ("a",), ("tool",)) is None


def test_a_group_that_committed_nothing_on_the_base_topic_is_nobody() -> None:
    found = seen(committed("a", *ALL), on_base=(committed("a", 0), committed("c")))

    assert readers(topic(Phase.PREPARE), found, ("a",), ()) is None


def test_reports_add_groups_and_never_replace_those_that_are_listed() -> None:
    policy = spec(consumers={"groups": ["listed"], "ignore": ["tool"]})
    reports = [ClientReport(group, Role.CONSUMER, 1, 100.0, group) for group in ("sdk", "tool", "listed")]
    stale = ClientReport("gone", Role.CONSUMER, 1, -900.0, "gone")

    assert registered(policy, [*reports, stale], 100.0) == ("listed", "sdk")
    assert registered(spec(), reports, 100.0) == ()


def test_between_two_keys_a_topic_is_left_and_idle() -> None:

    ways = {(phase, row.to) for (phase, _), row in TRANSITIONS.items() if row.to not in (None, phase)}

    assert ways == {
        (Phase.PREPARE, Phase.ACTIVE),
        (Phase.PREPARE, Phase.IDLE),
        (Phase.ACTIVE, Phase.RETURN),
        (Phase.RETURN, Phase.IDLE),
        (Phase.RETURN, Phase.PREPARE),
        (Phase.IDLE, Phase.PREPARE),
    }
