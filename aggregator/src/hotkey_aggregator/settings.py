"""What `hotkey-aggregator` was told, and what of it each Kafka client gets.

Values alone: `command_line` makes them and knows flags, environment and help.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hotkey_aggregator.replay import ReplayOrder
from hotkey_aggregator.rules import FlushLimits
from hotkey_aggregator.store import Keeping
from hotkey_aggregator.stores import StoreAddress

OWNED_CLIENT_SETTINGS = {
    "group.id": "use --group",
    "group.instance.id": "it follows from --store",
    "group.protocol": "use --group-protocol",
    "bootstrap.servers": "use --bootstrap-servers",
    "enable.auto.commit": "offsets belong to the store",
    "enable.auto.offset.store": "offsets belong to the store",
    "auto.offset.reset": "what is not in the store yet is read from the beginning",
    "enable.partition.eof": "the watermark rests on it",
    "partition.assignment.strategy": "rebalancing is cooperative",
    "allow.auto.create.topics": "the operator makes topics",
}


_ACCESS = (
    "security.",
    "ssl.",
    "sasl.",
    "enable.ssl.",
    "enable.sasl.",
    "broker.",
    "socket.",
    "client.dns",
    "https.",
)
"""Settings of every client, by the beginnings of their names; the others are the consumer's."""

_FLAGS_OF_SETTINGS = {
    "hotkey.redis.url": "--redis-url",
    "hotkey.public.keys": "--public-keys",
    "hotkey.allow.unsigned": "--allow-unsigned",
    "hotkey.topics": "--topic",
}


class SettingsError(Exception):
    """Settings are missing or wrong; the message names each in a line, and what is expected."""


SESSION_MILLISECONDS = 10_000
"""After how long a dead member's partitions go to the others, by the classic protocol; by the other one the
brokers decide."""


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """How to reach Kafka, and which topics are meant."""

    bootstrap_servers: str
    topic: str
    group: str
    dead_letter_topic: str
    kafka_config: Mapping[str, str]

    def client_config(self) -> dict[str, Any]:
        """Of any client: where the cluster is and how to get in."""
        return {
            "client.id": "hotkey-aggregator",
            # The client's errors come to us by callback and are logged as ours are.
            "log_level": 2,
            **{name: value for name, value in self.kafka_config.items() if name.startswith(_ACCESS)},
            "bootstrap.servers": self.bootstrap_servers,
        }


@dataclass(frozen=True, slots=True)
class RunSettings:
    """All of `hotkey-aggregator run`."""

    kafka: KafkaSettings
    store: StoreAddress
    keeping: Keeping
    group_protocol: str
    lateness_milliseconds: int
    redis_url: str | None
    public_keys: str | None
    allow_unsigned: bool
    http_host: str
    http_port: int
    limits: FlushLimits
    log_level: str

    def group_protocol_by(self, session_milliseconds: int | None) -> str:
        """The group protocol that is used where brokers let a dead member of `consumer` keep its partitions
        for so long; None: they do not have it.

        Only the classic one fences a second process off a store of one process. The other one is better, but
        for the 45 s that brokers wait by default while nobody counts what the dead member had.
        """
        if self.group_protocol != "auto":
            return self.group_protocol
        if not self.store.is_shared or session_milliseconds is None:
            return "classic"
        return "consumer" if session_milliseconds <= SESSION_MILLISECONDS else "classic"

    def consumer_config(self, protocol: str = "classic") -> dict[str, Any]:
        """The constructor dict of the consumer; without `redis_url` no routing table is followed."""
        config: dict[str, Any] = {
            "client.id": "hotkey-aggregator",
            "log_level": 2,
            # Bounds what waits in the client: a flush may take seconds while the brokers go on sending.
            "queued.max.messages.kbytes": 8_192,
            # Where that is reached, fetching must go on soon: it rests for a second by default.
            "fetch.queue.backoff.ms": 20,
            # One answer of a broker, compressed, goes beyond that bound: 50 MB by default.
            "fetch.max.bytes": 4 * 1024 * 1024,
            # A new topic's first record waits for the running fetches, new partitions for a refresh.
            "fetch.wait.max.ms": 100,
            "topic.metadata.refresh.interval.ms": 10_000,
            **self.kafka.kafka_config,
            "bootstrap.servers": self.kafka.bootstrap_servers,
            "group.id": self.kafka.group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # Where to begin is always said. An offset that a log does not have is looked into, never reset.
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "allow.auto.create.topics": False,
            **self._membership(protocol),
        }
        if self.redis_url is not None:
            config["hotkey.redis.url"] = self.redis_url
            config["hotkey.topics"] = self.kafka.topic
            config["hotkey.allow.unsigned"] = self.allow_unsigned
            if self.public_keys is not None:
                config["hotkey.public.keys"] = self.public_keys
        return config

    def _membership(self, protocol: str) -> dict[str, Any]:
        membership: dict[str, Any] = {"group.protocol": protocol}
        if protocol == "classic":
            membership["partition.assignment.strategy"] = "cooperative-sticky"
        if not self.store.is_shared:
            # A DuckDB file takes one aggregator a group: with one fixed name a restart after a crash gets
            # its partitions back at once, and a second one fences the first instead of taking its half.
            membership["group.instance.id"] = "hotkey-aggregator"
        elif protocol == "classic" and "session.timeout.ms" not in self.kafka.kafka_config:
            membership["session.timeout.ms"] = SESSION_MILLISECONDS
        return membership


@dataclass(frozen=True, slots=True)
class ReplaySettings:
    """All of `hotkey-aggregator replay`."""

    kafka: KafkaSettings
    order: ReplayOrder


@dataclass(frozen=True, slots=True)
class QuerySettings:
    """All of `hotkey-aggregator query`."""

    url: str
    what: str
    parameters: Mapping[str, str]


Settings = RunSettings | QuerySettings | ReplaySettings


def in_flags(text: str) -> str:
    """What the consumer says of its settings, by the names of our flags."""
    for setting, flag in _FLAGS_OF_SETTINGS.items():
        text = text.replace(setting, flag)
    return text


def read_kafka_config(path: Path) -> dict[str, str]:
    """`name=value` lines for the Kafka client (TLS, SASL, tuning); blank lines and `#` are skipped."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--kafka-config {path} cannot be read: {error}") from None
    config = {}
    for number, text in enumerate(lines, 1):
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name:
            raise SettingsError(f"--kafka-config {path}, line {number}: {text!r} is not name=value")
        if name in OWNED_CLIENT_SETTINGS:
            raise SettingsError(
                f"--kafka-config {path}, line {number}: {name} cannot be set: {OWNED_CLIENT_SETTINGS[name]}"
            )
        config[name] = value
    return config
