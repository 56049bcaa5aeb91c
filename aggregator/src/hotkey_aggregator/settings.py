"""What `hotkey-aggregator` is told by flags and by HOTKEY_AGGREGATOR_* in the environment.

A flag wins over the environment, the environment over the default. Every setting is checked here, so
that a mistake is one sentence at the start and not an error of a library later.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hotkey_aggregator import __version__
from hotkey_aggregator.events import Reason
from hotkey_aggregator.pipeline import FlushLimits
from hotkey_aggregator.replay import ReplayOrder
from hotkey_aggregator.store import HOUR_MILLISECONDS, Keeping
from hotkey_aggregator.stores import DUCKDB, StoreAddress

ENVIRONMENT_PREFIX = "HOTKEY_AGGREGATOR_"
DEFAULT_URL = "http://127.0.0.1:8087"

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


GROUP_PROTOCOLS = ("auto", "classic", "consumer")
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

    def consumer_config(self, protocol: str = "classic") -> dict[str, Any]:
        """The constructor dict of the consumer; without `redis_url` no routing table is followed."""
        config: dict[str, Any] = {
            "client.id": "hotkey-aggregator",
            "log_level": 2,
            # Bounds what waits in the client: a flush may take seconds while the brokers go on sending.
            "queued.max.messages.kbytes": 32_768,
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


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Settings from the command line and the environment. Raises SettingsError, or SystemExit of argparse."""
    parsed = _parser(environment).parse_args(arguments)
    if parsed.command == "query":
        return _query_settings(parsed)
    if parsed.command == "replay":
        return _replay_settings(parsed)
    return _run_settings(parsed)


def _run_settings(parsed: argparse.Namespace) -> RunSettings:
    redis_url, public_keys = parsed.redis_url or None, parsed.public_keys or None
    store = StoreAddress(parsed.store or f"{DUCKDB}{parsed.db}")
    mistakes = _kafka_mistakes(parsed)
    if redis_url is not None and public_keys is None and not parsed.allow_unsigned:
        mistakes.append(
            "--redis-url is set, but no --public-keys: without them a routing table cannot be trusted. Give "
            "the operator's public keys (text or file:PATH), or --allow-unsigned on a stack for trying out"
        )
    if store.mistake is not None:
        mistakes.append(f"--store is not understood: {store.mistake}")
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    return RunSettings(
        kafka=_kafka_settings(parsed),
        store=store,
        keeping=_keeping(parsed),
        group_protocol=parsed.group_protocol,
        lateness_milliseconds=parsed.lateness,
        redis_url=redis_url,
        public_keys=public_keys,
        allow_unsigned=parsed.allow_unsigned,
        http_host=parsed.http_host,
        http_port=parsed.http_port,
        limits=FlushLimits(seconds=parsed.flush_seconds, events=parsed.max_pending),
        log_level=parsed.log_level,
    )


def _replay_settings(parsed: argparse.Namespace) -> ReplaySettings:
    mistakes = _kafka_mistakes(parsed)
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    kafka = _kafka_settings(parsed)
    order = ReplayOrder(
        base=kafka.topic,
        dead=kafka.dead_letter_topic,
        group=f"{kafka.group}.replay",
        keeping=_keeping(parsed),
        reason=parsed.reason,
        limit=parsed.limit,
        dry_run=parsed.dry_run,
    )
    return ReplaySettings(kafka, order)


def _kafka_mistakes(parsed: argparse.Namespace) -> list[str]:
    return [_missing(name) for name in ("bootstrap_servers", "topic") if not getattr(parsed, name)]


def _kafka_settings(parsed: argparse.Namespace) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=parsed.bootstrap_servers,
        topic=parsed.topic,
        group=parsed.group or f"hotkey-aggregator.{parsed.topic}",
        dead_letter_topic=parsed.dead_letter_topic or f"{parsed.topic}.dead",
        kafka_config=read_kafka_config(Path(parsed.kafka_config)) if parsed.kafka_config else {},
    )


def _keeping(parsed: argparse.Namespace) -> Keeping:
    return Keeping(ids=getattr(parsed, "dedupe_horizon", HOUR_MILLISECONDS), windows=parsed.retention)


def _query_settings(parsed: argparse.Namespace) -> QuerySettings:
    given = {name: getattr(parsed, name, None) for name in _QUERY_PARAMETERS}
    parameters = {name: str(value) for name, value in given.items() if value is not None}
    return QuerySettings(url=parsed.url.rstrip("/"), what=parsed.what, parameters=parameters)


def _missing(name: str) -> str:
    return f"--{name.replace('_', '-')} (or {ENVIRONMENT_PREFIX}{name.upper()}) is missing"


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


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hotkey-aggregator", description="Counts clicks exactly once, following hotkey's routing tables."
    )
    parser.add_argument("--version", action="version", version=f"hotkey-aggregator {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="consume, count and answer over HTTP until told to stop")
    _add_run(run, environment)
    _add_query(commands.add_parser("query", help="ask a running aggregator"), environment)
    replay = commands.add_parser(
        "replay",
        help="put dead letters back that are clicks by now",
        description="Puts records from the dead-letter topic back to where they came from, if they would be "
        "counted by now. The others move to the end of the dead-letter topic. Each letter is handled once; a "
        "click that was counted before is not counted again within the dedupe horizon.",
    )
    _add_replay(replay, environment)
    return parser


class _Flags:
    """Adds flags whose defaults come from the environment."""

    def __init__(self, parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
        self._parser = parser
        self._environment = environment
        parser.epilog = f"Every flag can be given as {ENVIRONMENT_PREFIX}<NAME> in the environment instead."

    def add(self, flag: str, text: str, default: object = None, kind: Callable[[str], object] = str) -> None:
        # argparse runs `kind` over a default that is a string, so the environment is checked like a flag.
        shown = "" if default is None else f" (default: {default})"
        self._parser.add_argument(
            flag, help=text + shown, type=kind, default=self._environment.get(_variable(flag), default)
        )

    def add_switch(self, flag: str, text: str) -> None:
        default = self._environment.get(_variable(flag), "").lower() in ("1", "true", "yes")
        self._parser.add_argument(flag, help=text, action="store_true", default=default)


def _variable(flag: str) -> str:
    return ENVIRONMENT_PREFIX + flag.removeprefix("--").replace("-", "_").upper()


def _add_kafka(flags: _Flags) -> None:
    flags.add("--bootstrap-servers", "Kafka brokers, host:port, separated by commas")
    flags.add("--topic", "the stream's base topic")
    flags.add("--group", "consumer group (default: hotkey-aggregator.TOPIC)")
    flags.add("--dead-letter-topic", "where records go that are not counted (default: TOPIC.dead)")
    flags.add("--kafka-config", "file of name=value lines for the Kafka client (TLS, SASL)")
    flags.add(
        "--retention", "how long windows are kept; clicks older than that are dead letters", "90d", _duration
    )


def _add_run(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    flags = _Flags(parser, environment)
    _add_kafka(flags)
    flags.add(
        "--store",
        "where the counts are: duckdb:PATH for one process, or postgresql://USER@HOST:PORT/DATABASE for any "
        "number of them (default: duckdb:DB)",
    )
    flags.add("--db", "short for --store duckdb:DB", "hotkey-aggregator.duckdb")
    flags.add("--dedupe-horizon", "how long a click that comes again is known by its id", "24h", _duration)
    flags.add(
        "--group-protocol",
        "classic, consumer, or auto: consumer where the brokers have it and the store is shared",
        "auto",
        _one_of(GROUP_PROTOCOLS),
    )
    flags.add("--redis-url", "where routing tables are published; without it the base topic alone is read")
    flags.add("--public-keys", "the operator's public keys, as text or file:PATH")
    flags.add_switch("--allow-unsigned", "accept tables without a signature: only for trying out")
    flags.add("--http-host", "address to answer on", "127.0.0.1")
    flags.add("--http-port", "port to answer on, 0 for a free one", 8087, _port)
    flags.add("--flush-seconds", "seconds from flush to flush", 5.0, _positive_seconds)
    flags.add("--max-pending", "flush earlier at this many events", 200_000, _positive)
    flags.add(
        "--lateness",
        "what a click may take to get into Kafka: a log without news is complete up to that long ago",
        "1s",
        _duration,
    )
    flags.add("--log-level", "debug, info, warning or error", "info", _log_level)


def _add_replay(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    _add_kafka(_Flags(parser, environment))
    reasons = ", ".join(reason.value for reason in Reason)
    parser.add_argument("--reason", type=_reason, help=f"only letters of this reason: {reasons}")
    parser.add_argument("--limit", type=_positive, help="put back at most this many")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be put back")


_QUERY_PARAMETERS = ("advertiser_id", "ad_id", "minute_from", "minute_to", "limit", "prefix")


def _add_query(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    _Flags(parser, environment).add("--url", "where the aggregator answers", DEFAULT_URL)
    kinds = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    counts = kinds.add_parser("counts", help="clicks per advertiser, ad and minute")
    counts.add_argument("--advertiser-id", help="only this advertiser")
    counts.add_argument("--ad-id", help="only this ad")
    counts.add_argument("--minute-from", help="first minute, such as 2024-05-16T10:03Z")
    counts.add_argument("--minute-to", help="minute to end before")
    dead = kinds.add_parser("dead", help="records that were not counted, with place and reason")
    for one in (counts, dead):
        one.add_argument("--limit", type=_positive, help="at most this many rows")
    ids = kinds.add_parser("ids", help="all counted event ids, one JSON string a line")
    ids.add_argument("--prefix", help="only ids that start so")
    kinds.add_parser("totals", help="sums over the whole store, and the stored offsets")
    kinds.add_parser("watermark", help="up to when the counts are complete, and how far each log was read")


def _port(text: str) -> int:
    return _number(text, 0, 65_535)


def _positive(text: str) -> int:
    return _number(text, 1, 10**9)


def _number(text: str, low: int, high: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {low} to {high}")
    return number


def _positive_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds <= 3600.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0 and up to 3600")
    return seconds


_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": HOUR_MILLISECONDS, "d": 24 * HOUR_MILLISECONDS}


def _duration(text: str) -> int:
    """Milliseconds of `90d`, `24h`, `30m`, `5s` or `500ms`."""
    found = re.fullmatch(r"(\d{1,6})(ms|s|m|h|d)", text)
    if found is None or int(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 90d, 24h, 30m, 5s or 500ms")
    return int(found[1]) * _UNITS[found[2]]


def _one_of(words: Sequence[str]) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in words:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(words)}")
        return text

    return check


def _reason(text: str) -> Reason:
    by_name = {reason.value.lower(): reason for reason in Reason}
    if text.lower() not in by_name:
        raise argparse.ArgumentTypeError(
            f"{text!r} is none of {', '.join(reason.value for reason in Reason)}"
        )
    return by_name[text.lower()]


def _log_level(text: str) -> str:
    if text.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise argparse.ArgumentTypeError(f"{text!r} is none of debug, info, warning, error")
    return text.upper()
