"""What a letter bears, and which letters would be clicks by now."""

from __future__ import annotations

from hotkey_aggregator.dead_letters import headers_of, producer_config, whose_letters
from hotkey_aggregator.events import Click, Reason, encode
from hotkey_aggregator.pending import why_not_counted
from hotkey_aggregator.replay import Tally
from hotkey_aggregator.store import HOUR_MILLISECONDS, DeadLetter, Keeping
from hotkey_aggregator.windows import Source

NOW = 1_800_000_000_000
DAY = 24 * HOUR_MILLISECONDS


def test_a_letter_bears_its_own_headers_and_where_it_stood_and_why_it_is_there() -> None:
    letter = DeadLetter(
        Source("clicks", 3, "id-1"),
        70,
        Reason.NOT_JSON,
        "found ü",
        headers=(("trace", b"1"), ("trace", None)),
        timestamp=55,
    )
    assert headers_of(letter) == [
        ("trace", b"1"),
        ("trace", None),
        ("hotkey-dead-reason", b"NotJson"),
        ("hotkey-dead-detail", "found ü".encode()),
        ("hotkey-dead-topic", b"clicks"),
        ("hotkey-dead-partition", b"3"),
        ("hotkey-dead-offset", b"70"),
        ("hotkey-dead-topic-id", b"id-1"),
        ("hotkey-dead-timestamp", b"55"),
    ]


def test_a_letter_that_died_before_tells_of_its_last_death_alone() -> None:
    again = DeadLetter(Source("clicks", 0), 1, Reason.EMPTY, "", headers=(("hotkey-dead-offset", b"999"),))
    assert [value for name, value in headers_of(again) if name == "hotkey-dead-offset"] == [b"1"]


def test_letters_of_topics_that_are_gone_are_brought_by_one_member() -> None:
    # given what the store has positions of: logs that are read, one that another replaced, one that is gone
    read = [Source("clicks", 0, "new"), Source("clicks", 1, "new"), Source("clicks.hot", 0, "hot")]
    replaced, gone = Source("clicks", 1, "old"), Source("clicks.hot.gone", 5, "gone")
    stored = [*read, replaced, gone]

    def brings(*mine: Source, deleted: tuple[str, ...] = ("clicks.hot.gone",)) -> set[Source]:
        places = [(source.topic, source.partition) for source in mine]
        return whose_letters(stored, mine, places, deleted, "clicks")

    # then each falls to one of two members
    assert brings(read[0]) == {read[0], gone}
    assert brings(*read[1:]) == {*read[1:], replaced}

    # and what is not known to be gone to its reader alone
    assert brings(read[0], deleted=()) == {read[0]}
    assert brings() == set()


def test_letters_are_sent_with_acks_and_partitioned_as_everywhere() -> None:
    config = producer_config({"bootstrap.servers": "h:1"})
    assert (config["enable.idempotence"], config["partitioner"]) == (True, "murmur2_random")
    assert config["bootstrap.servers"] == "h:1"


def test_whether_a_value_would_be_counted_depends_on_now_and_on_what_is_kept() -> None:
    value = encode(Click("e", "nike", "ad", "u", NOW))
    for now, windows, reason in [
        (NOW, DAY, None),
        (NOW + 2 * DAY, DAY, Reason.OUT_OF_RETENTION),
        (NOW + 2 * DAY, 3 * DAY, None),
        (NOW - 2 * DAY, DAY, Reason.FROM_THE_FUTURE),
    ]:
        refused = why_not_counted(value, now, Keeping(windows=windows))
        assert (refused and refused.reason) == reason
    refused = why_not_counted(b"bad", NOW, Keeping())
    assert refused is not None
    assert refused.reason is Reason.NOT_JSON


def test_what_became_of_letters_is_told_by_reason() -> None:
    tally = Tally()
    assert str(tally) == "0 put back, 0 kept"
    tally.put_back.update(["OutOfRetention"] * 2)
    tally.kept.update(["NotJson", "Empty", "NotJson"])
    assert str(tally) == "2 put back (OutOfRetention 2), 3 kept (Empty 1, NotJson 2)"
