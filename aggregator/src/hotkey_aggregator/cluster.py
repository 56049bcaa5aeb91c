"""What is asked of the Kafka cluster beside records: topics' ids, ends of logs, what brokers can do.

All by an admin client of its own, so that nothing here waits in the consumer's way unless it is told to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
)

ASK_SECONDS = 10.0
_ABSENT = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID)
_PROTOCOLS, _SESSION = "group.coordinator.rebalance.protocols", "group.consumer.session.timeout.ms"


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What a topic is."""

    id: str
    partitions: int
    replication: int


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the cluster. What could not be learnt is absent."""

    asked_at: int
    """Unix milliseconds before anything was asked."""
    topics: Mapping[str, TopicFacts] = field(default_factory=dict)
    ends: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """High watermarks by topic and partition, as the leaders gave them after `asked_at`."""
    untold_topics: Mapping[str, str] = field(default_factory=dict)
    """Topics of which it is not known whether they are there, and what was said instead."""
    untold_ends: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """Logs whose end was not told, and what was said instead."""
    absent: frozenset[str] = frozenset()
    """Topics that were asked for and are not there."""

    @property
    def whole(self) -> bool:
        """Whether each topic was answered for."""
        return not self.untold_topics

    @property
    def all_ends(self) -> bool:
        """Whether the end of each log that was asked for is known."""
        return not self.untold_ends


class Cluster:
    """The cluster that `config` (an admin client's) leads to."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._admin = AdminClient(dict(config))
        self._asked: _Asked | None = None

    def topics(self, names: Collection[str], timeout: float = ASK_SECONDS) -> dict[str, TopicFacts]:
        """The topics of these names that exist. Raises KafkaException when one of them is not told."""
        found = self._described(names, timeout)
        for untold in found.untold.values():
            raise untold
        return found.told

    def topic_ids(self, names: Collection[str], timeout: float = ASK_SECONDS) -> dict[str, str]:
        """The ids of the topics of these names that exist, as far as the cluster tells.

        Raises KafkaException when it tells of none.
        """
        found = self._described(names, timeout)
        for untold in found.untold.values():
            if len(found.untold) == len(names):
                raise untold
        return {name: facts.id for name, facts in found.told.items()}

    def absent(self, names: Collection[str], timeout: float = ASK_SECONDS) -> set[str]:
        """Those of these topics that do not exist, as far as the cluster tells."""
        return self._described(names, timeout).absent

    def _described(self, names: Collection[str], timeout: float) -> _Described:
        if not names:
            return _Described()
        asked = self._admin.describe_topics(TopicCollection(sorted(names)), request_timeout=timeout)
        found = _Described.of(asked, timeout)
        if found.untold:
            # The client waits for the controller that it knows, though that is gone, unless it looks again.
            self._remind(min(found.untold))
        return found

    def create_topic(self, name: str, partitions: int, replication: int, config: Mapping[str, str]) -> None:
        """Create a topic unless it exists. Raises KafkaException when it may not be made."""
        new = NewTopic(name, partitions, replication, config=dict(config))
        try:
            self._admin.create_topics([new], request_timeout=ASK_SECONDS)[name].result(ASK_SECONDS + 1)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def topic_setting(self, topic: str, name: str) -> str | None:
        """One setting of a topic; None where it is not told."""
        return self._settings(ConfigResource.Type.TOPIC, topic).get(name)

    def consumer_session_milliseconds(self) -> int | None:
        """After how long a dead member of the group protocol `consumer` loses its partitions.

        None where the brokers do not have that protocol, or do not tell.
        """
        brokers = self._admin.list_topics(timeout=ASK_SECONDS).brokers
        told = self._settings(ConfigResource.Type.BROKER, str(min(brokers))) if brokers else {}
        session = told.get(_SESSION)
        if session is None or "consumer" not in (told.get(_PROTOCOLS) or "").split(","):
            return None
        return int(session)

    def _settings(self, kind: Any, resource: str) -> dict[str, str | None]:
        asked = self._admin.describe_configs([ConfigResource(kind, resource)], request_timeout=ASK_SECONDS)
        try:
            (found,) = [future.result(ASK_SECONDS + 1) for future in asked.values()]
        except KafkaException:
            return {}
        return {name: entry.value for name, entry in found.items()}

    def ask(self, topics: Iterable[str], places: Iterable[tuple[str, int]], now: int) -> None:
        """Begin a look, unless one is under way; `now` in unix milliseconds."""
        if self._asked is not None:
            return
        names, partitions = sorted(set(topics)), [TopicPartition(*place) for place in places]
        described: Mapping[str, Future[Any]] = {}
        ends: Mapping[TopicPartition, Future[Any]] = {}
        if names:
            described = self._admin.describe_topics(TopicCollection(names), request_timeout=ASK_SECONDS)
        if partitions:
            latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
            wanted = dict.fromkeys(partitions, latest)
            ends = self._admin.list_offsets(wanted, request_timeout=ASK_SECONDS)
        self._asked = _Asked(now, described, ends)

    def answer(self) -> Look | None:
        """The look that was begun, once it is complete; waits for nothing."""
        asked = self._asked
        if asked is None or not asked.is_done():
            return None
        self._asked = None
        look = asked.look()
        if not look.all_ends:
            # The client remembers for ever that a new partition had no leader, unless it looks at the topic.
            for topic in {topic for topic, _ in look.untold_ends}:
                self._remind(topic)
        elif not look.whole:
            self._remind(min(asked.topics))
        return look

    def _remind(self, topic: str) -> None:
        try:
            self._admin.list_topics(topic, timeout=1.0)
        except KafkaException:
            return


@dataclass(slots=True)
class _Described:
    """What was told of topics: what they are, that they are not there, or nothing."""

    told: dict[str, TopicFacts] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    untold: dict[str, KafkaException] = field(default_factory=dict)

    @classmethod
    def of(cls, asked: Mapping[str, Future[Any]], timeout: float) -> _Described:
        """Wait for the answers."""
        found = cls()
        for name, future in asked.items():
            try:
                description = _existing(future, timeout)
            except KafkaException as error:
                found.untold[name] = error
            else:
                if description is None:
                    found.absent.add(name)
                else:
                    found.told[name] = _facts(description)
        return found


@dataclass(slots=True)
class _Asked:
    at: int
    topics: Mapping[str, Future[Any]]
    ends: Mapping[TopicPartition, Future[Any]]

    def is_done(self) -> bool:
        return all(future.done() for future in (*self.topics.values(), *self.ends.values()))

    def look(self) -> Look:
        ends: dict[tuple[str, int], int] = {}
        untold_ends: dict[tuple[str, int], str] = {}
        for partition, future in self.ends.items():
            place = (partition.topic, partition.partition)
            try:
                end = future.result(0).offset
            except KafkaException as error:
                untold_ends[place] = error.args[0].str()
            else:
                # Of a log whose leader is gone the client may answer with no offset and no error.
                if end >= 0:
                    ends[place] = end
                else:
                    untold_ends[place] = "its leader does not answer"
        topics = _Described.of(self.topics, 0)
        why = {name: error.args[0].str() for name, error in topics.untold.items()}
        return Look(self.at, topics.told, ends, why, untold_ends, frozenset(topics.absent))


def _facts(description: Any) -> TopicFacts:
    partitions = description.partitions
    replication = len(partitions[0].replicas) if partitions else 1
    return TopicFacts(str(description.topic_id), len(partitions), replication)


def _existing(future: Future[Any], timeout: float) -> Any | None:
    """The description of a topic, or None when there is no such topic."""
    try:
        return future.result(timeout + 1)
    except TimeoutError:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None
    except KafkaException as error:
        if error.args[0].code() in _ABSENT:
            return None
        raise
