"""What a look at the cluster found out, and what is said of that which it did not."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from hotkey_aggregator.cluster import Cluster, Look, TopicFacts, _Asked
from hotkey_aggregator.lookout import LOG_SECONDS, PATIENCE_SECONDS, Lookout, Untold
from hotkey_aggregator.pending import Pending

DENIED = KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
GONE = KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
LEADERLESS = KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))


def answered(answer: object) -> Future[Any]:
    """As the client answers: with something, or with an error."""
    future: Future[Any] = Future()
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
    return future


def described(partitions: int) -> SimpleNamespace:
    parts = [SimpleNamespace(replicas=[1, 2]) for _ in range(partitions)]
    return SimpleNamespace(topic_id="id-1", partitions=parts)


def found(topics: dict[str, object], ends: dict[int, object]) -> Look:
    return _Asked(
        7,
        {name: answered(answer) for name, answer in topics.items()},
        {TopicPartition("clicks", number): answered(answer) for number, answer in ends.items()},
    ).look()


def end(offset: int) -> SimpleNamespace:
    return SimpleNamespace(offset=offset)


def test_a_look_has_what_was_told() -> None:
    look = found({"clicks": described(2), "deleted": GONE}, {0: end(5), 1: end(0)})
    topics, ends = {"clicks": TopicFacts("id-1", 2, 2)}, {("clicks", 0): 5, ("clicks", 1): 0}
    assert look == Look(7, topics, ends, absent=frozenset({"deleted"}))
    assert (look.whole, look.all_ends) == (True, True)


def test_an_answer_without_an_offset_is_no_end_or_a_log_out_of_reach_would_look_quiet() -> None:
    look = found({"clicks": described(3)}, {0: end(-1001), 1: LEADERLESS, 2: end(9)})
    assert look.ends == {("clicks", 2): 9}
    assert look.untold_ends.keys() == {("clicks", 0), ("clicks", 1)}
    assert (look.whole, look.all_ends) == (True, False)


def test_a_topic_that_may_not_be_described_is_neither_there_nor_gone() -> None:
    look = found({"clicks": described(1), "secret": DENIED}, {})
    assert (list(look.topics), look.whole) == (["clicks"], False)
    assert "authorization failed" in look.untold_topics["secret"].lower()


def asking(topics: dict[str, object]) -> Cluster:
    """A cluster whose admin client answers with these."""
    cluster = Cluster({"bootstrap.servers": "127.0.0.1:1", "log_level": 0})
    client: Any = SimpleNamespace(
        describe_topics=lambda *_, **__: {name: answered(answer) for name, answer in topics.items()},
        list_topics=lambda *_, **__: None,
    )
    cluster._admin = client
    return cluster


def test_of_a_topic_that_is_not_told_no_other_has_to_wait_where_that_is_safe() -> None:
    cluster = asking({"clicks": described(1), "secret": DENIED, "deleted": GONE})
    names = ["clicks", "secret", "deleted"]
    assert cluster.topic_ids(names) == {"clicks": "id-1"}
    assert cluster.absent(names) == {"deleted"}
    with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
        cluster.topics(names)


def test_when_nothing_is_told_of_any_topic_that_is_an_error() -> None:
    with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
        asking({"secret": DENIED, "other": DENIED}).topic_ids(["secret", "other"])
    assert asking({}).topic_ids([]) == {}


def test_what_is_not_told_for_long_is_said_once_a_minute_and_what_passes_is_not() -> None:
    untold, said = Untold(), []
    for now in range(200):
        passing = {"clicks/1": "no leader"} if now % 15 else {}
        if lasting := untold.to_say({"secret": "denied", **passing}, float(now)):
            said.append((now, dict(lasting)))
    first = int(PATIENCE_SECONDS)
    assert said == [(first + minute * int(LOG_SECONDS), {"secret": "denied"}) for minute in range(3)]


def test_what_is_told_again_is_not_counted_as_untold_since_then() -> None:
    untold = Untold()
    untold.to_say({"a": "denied"}, 0.0)
    untold.to_say({}, PATIENCE_SECONDS)
    assert untold.to_say({"a": "denied"}, PATIENCE_SECONDS + 1) == {}
    assert untold.to_say({"a": "denied"}, 2 * PATIENCE_SECONDS + 1) == {"a": "denied"}


class Repeating:
    """Answers each look with the same."""

    def __init__(self, look: Look) -> None:
        self._look = look

    def answer(self) -> Look:
        return self._look

    def ask(self, *_: object) -> None:
        """It answers whatever is asked."""


def test_what_stops_the_watermark_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    # given a topic that may not be described, and a log without a leader
    look = found({"clicks": described(1), "secret": DENIED}, {0: end(-1001)})
    cluster: Any = Repeating(look)
    nothing_read: Any = SimpleNamespace(places=(), unplaced=())
    seconds = [0.0]
    lookout = Lookout(cluster, nothing_read, Pending(), 0, lambda: 0, lambda: seconds[0])

    # when
    with caplog.at_level(logging.WARNING):
        for second in range(25):
            seconds[0] = float(second)
            lookout.look(set)

    # then
    (told,) = caplog.messages
    assert told.startswith("event=not_told of=clicks/0,secret more=0 detail=")
    assert 'means="the watermark stands"' in told
