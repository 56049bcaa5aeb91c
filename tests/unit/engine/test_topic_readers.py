"""For how long a group does not read a topic that is written, by what it commits there and on base."""

from __future__ import annotations

from dataclasses import replace

from hotkey_operator.engine.model import Committed, DedicatedSeen
from hotkey_operator.engine.topic_readers import Readers, seen, unread
from hotkey_sdk.routing.table import DedicatedTopic, Phase

AT = 1_790_000_000.0
NAME = "clicks.hot.0a1b2c3d.g7"
TOPIC = DedicatedTopic(NAME, 2, Phase.ACTIVE, "id-1", b"nike")


def told(on_topic: Committed, base: int, total: int) -> DedicatedSeen:
    return DedicatedSeen(
        totals={NAME: total},
        groups={NAME: (on_topic,)},
        on_base=(),
        listed_on_base=(Committed("billing", {0: base}),),
    )


def after(
    seconds: int, on_topic: tuple[int, int] | None, base: int, grows: int = 100, reads: int = 0, by: int = 0
) -> str:
    """What is said after so many seconds in which the topic, the commits on it and on base grow."""
    readers = Readers()
    for second in range(0, seconds + 1, 5):
        offsets = {} if on_topic is None else {p: o + reads * second for p, o in enumerate(on_topic)}
        found = told(Committed("billing", offsets), base + by * second, 10_000 + grows * second)
        readers = seen(readers, [TOPIC], found, AT + second)
    return unread(readers, TOPIC, ("billing",), AT + seconds)


def test_a_group_without_offsets_on_the_topic_does_not_read_it_ten_seconds_later() -> None:
    assert after(5, None, 1) == ""
    assert "group billing has no committed offset" in after(10, None, 1)


def test_a_group_that_reads_on_in_the_base_topic_alone_is_told_after_a_minute() -> None:
    assert after(55, (10, 10), 1, by=5) == ""
    assert "while 15,980 records wait" in after(60, (10, 10), 1, by=5)


def test_a_group_that_stands_still_everywhere_is_not_to_blame() -> None:
    assert after(300, (10, 10), 1) == ""


def test_a_group_that_is_far_behind_and_gets_on_reads_the_topic() -> None:
    assert after(300, (10, 10), 1, reads=1, by=5) == ""


def test_a_group_that_has_nothing_to_read_stands_still_rightly() -> None:
    assert after(300, (5_000, 5_000), 1, grows=0, by=5) == ""


def test_who_is_no_listed_group_ends_nothing() -> None:
    readers = seen(Readers(), [TOPIC], told(Committed("tool", {}), 1, 1), AT)
    readers = seen(readers, [TOPIC], told(Committed("tool", {}), 1, 1), AT + 60)

    assert unread(readers, TOPIC, ("billing",), AT + 60) == ""


def test_what_could_not_be_asked_changes_nothing() -> None:
    readers = seen(Readers(), [TOPIC], told(Committed("billing", {}), 1, 1), AT)
    failed = told(Committed("billing", {}, "late"), 1, 1)
    assert seen(readers, [TOPIC], failed, AT + 5).following == readers.following
    gone = replace(failed, groups={}, on_base=(Committed("", {}, "late"),), listed_on_base=None)

    after = seen(readers, [TOPIC], gone, AT + 5)

    assert after.following == readers.following
    assert (after.rests(AT + 6), after.rests(AT + 10), after.failed) == (True, False, gone.on_base)
