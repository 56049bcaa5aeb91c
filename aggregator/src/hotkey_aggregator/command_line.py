"""The command line of `hotkey-aggregator`: flags, their help, and the settings that they make.

A flag wins over HOTKEY_AGGREGATOR_* in the environment, the environment over the default.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hotkey_aggregator import __version__
from hotkey_aggregator.events import Reason
from hotkey_aggregator.flag_values import (
    duration,
    log_level,
    one_of,
    port,
    positive,
    positive_seconds,
    reason,
    schema,
)
from hotkey_aggregator.replay import ReplayOrder
from hotkey_aggregator.rules import FlushLimits
from hotkey_aggregator.settings import (
    KafkaSettings,
    QuerySettings,
    ReplaySettings,
    RunSettings,
    Settings,
    SettingsError,
    read_kafka_config,
)
from hotkey_aggregator.store import HOUR_MILLISECONDS, Keeping
from hotkey_aggregator.stores import DUCKDB, SCHEMA, StoreAddress

ENVIRONMENT_PREFIX = "HOTKEY_AGGREGATOR_"
DEFAULT_URL = "http://127.0.0.1:8087"
GROUP_PROTOCOLS = ("auto", "classic", "consumer")


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
    store = StoreAddress(parsed.store or f"{DUCKDB}{parsed.db}", parsed.schema)
    mistakes = _kafka_mistakes(parsed)
    if redis_url is not None and public_keys is None and not parsed.allow_unsigned:
        mistakes.append(
            "--redis-url is set, but no --public-keys: without them a routing table cannot be trusted. Give "
            "the operator's public keys (text or file:PATH), or --allow-unsigned on a stack for trying out"
        )
    if store.mistake is not None:
        mistakes.append(f"--store is not understood: {store.mistake}")
    elif parsed.schema != SCHEMA and not store.is_shared:
        mistakes.append(
            f"--schema {parsed.schema} is set, but the store is {store.shown}: schemas are PostgreSQL's. "
            "Leave it out, or name a database by --store postgresql://USER@HOST:PORT/DATABASE"
        )
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


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hotkey-aggregator", description="Counts clicks exactly once, following hotkey's routing tables."
    )
    parser.add_argument("--version", action="version", version=f"hotkey-aggregator {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="consume, count and answer over HTTP until told to stop",
        description="Counts a stream's clicks into a store, each once, and answers over HTTP. SIGTERM and "
        "Ctrl-C flush what waits and end it with exit code 0. Needed: --bootstrap-servers and --topic. A "
        "password of a database belongs into the environment: a command line can be read by others.",
    )
    _add_run(run, environment)
    query = commands.add_parser(
        "query",
        help="ask a running aggregator",
        description="Asks a running aggregator over HTTP, whichever store it has, and prints its answer.",
    )
    _add_query(query, environment)
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
        "--retention", "how long windows are kept; clicks older than that are dead letters", "90d", duration
    )


def _add_run(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    flags = _Flags(parser, environment)
    _add_kafka(flags)
    flags.add(
        "--store",
        "where the counts are: duckdb:PATH for one process, or postgresql://USER@HOST:PORT/DATABASE for any "
        "number of them (default: duckdb:DB)",
    )
    flags.add(
        "--schema",
        "PostgreSQL schema that holds the tables, made if it is missing: one for each stream",
        SCHEMA,
        schema,
    )
    flags.add("--db", "short for --store duckdb:DB", "hotkey-aggregator.duckdb")
    flags.add("--dedupe-horizon", "how long a click that comes again is known by its id", "24h", duration)
    flags.add(
        "--group-protocol",
        "classic, consumer, or auto: consumer where the store is shared and the brokers miss a dead member "
        "within 10 s",
        "auto",
        one_of(GROUP_PROTOCOLS),
    )
    flags.add("--redis-url", "where routing tables are published; without it the base topic alone is read")
    flags.add("--public-keys", "the operator's public keys, as text or file:PATH")
    flags.add_switch("--allow-unsigned", "accept tables without a signature: only for trying out")
    flags.add("--http-host", "address to answer on", "127.0.0.1")
    flags.add("--http-port", "port to answer on, 0 for a free one", 8087, port)
    flags.add("--flush-seconds", "seconds from flush to flush", 5.0, positive_seconds)
    flags.add("--max-pending", "flush earlier at this many events", 200_000, positive)
    flags.add(
        "--lateness",
        "what a click may take to get into Kafka: a log without news is complete up to that long ago",
        "1s",
        duration,
    )
    flags.add("--log-level", "debug, info, warning or error", "info", log_level)


def _add_replay(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    flags = _Flags(parser, environment)
    _add_kafka(flags)
    reasons = ", ".join(one.value for one in Reason)
    flags.add("--reason", f"only letters of this reason: {reasons}", kind=reason)
    flags.add("--limit", "put back at most this many", kind=positive)
    flags.add_switch("--dry-run", "only say what would be put back")


_QUERY_PARAMETERS = ("advertiser_id", "ad_id", "minute_from", "minute_to", "limit", "prefix")


def _add_query(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    _Flags(parser, environment).add("--url", "where the aggregator answers", DEFAULT_URL)
    parser.epilog = f"{ENVIRONMENT_PREFIX}URL in the environment stands for --url."
    kinds = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    counts = kinds.add_parser("counts", help="clicks per advertiser, ad and minute")
    counts.add_argument("--advertiser-id", help="only this advertiser")
    counts.add_argument("--ad-id", help="only this ad")
    counts.add_argument("--minute-from", help="first minute, such as 2024-05-16T10:03Z")
    counts.add_argument("--minute-to", help="minute to end before")
    dead = kinds.add_parser("dead", help="records that were not counted, with place and reason")
    for one in (counts, dead):
        one.add_argument("--limit", type=positive, help="at most this many rows")
    ids = kinds.add_parser("ids", help="all counted event ids, one JSON string a line")
    ids.add_argument("--prefix", help="only ids that start so")
    kinds.add_parser("totals", help="sums over the whole store, and the stored offsets")
    kinds.add_parser("watermark", help="up to when the counts are complete, and how far each log was read")
