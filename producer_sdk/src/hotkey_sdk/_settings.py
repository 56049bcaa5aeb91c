"""The settings under `hotkey.` in a client's constructor dict, taken out and checked.

What is left is what the Kafka client gets. It opens no connection; the one thing it reads is a file
of public keys.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.connection import parse_url

from hotkey_sdk._key_file import read_keys
from hotkey_sdk.routing.envelope import KeyFormatError, PublicKeys
from hotkey_sdk.routing.report import CLIENT_ID_AT_MOST

PREFIX = "hotkey."
_FILE = "file:"
_KNOWN = (
    "hotkey.redis.url",
    "hotkey.public.keys",
    "hotkey.allow.unsigned",
    "hotkey.topics",
    "hotkey.cluster.id",
    "hotkey.client.id",
    "hotkey.poll.interval.ms",
    "hotkey.report.keys",
)
_AGREEING_PARTITIONERS = ("murmur2_random", "murmur2")
_AUTO_CREATE = "allow.auto.create.topics"
_ONLY_ERRORS = "delivery.report.only.error"
_PROPAGATION = "topic.metadata.propagation.max.ms"
_PROPAGATION_MS = 500  # librdkafka's 30,000 lets records for a topic that was deleted wait as long
_REFRESH = "topic.metadata.refresh.interval.ms"
_REFRESH_MS = 10_000  # librdkafka's 300,000 leaves an added partition unused, or unread, for minutes


class SettingsError(ValueError):
    """A setting of the client is wrong; the text names it and says what to write instead."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a client was told of hotkey. `cluster_id` None: ask the Kafka cluster."""

    redis_url: str
    client_id: str
    public_keys: PublicKeys
    allow_unsigned: bool = False
    topics: tuple[str, ...] = ()
    cluster_id: str | None = None
    poll_interval_seconds: float = 1.0
    report_keys: bool = False
    public_keys_file: Path | None = None  # where they stand, and may change


def split(
    config: Mapping[str, Any] | None, keywords: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], Settings | None]:
    """The Kafka client's dict and keywords, and the settings of hotkey; None when there is not one.

    Keywords win over the dict, as they do in confluent_kafka. Raises `SettingsError`.
    """
    merged = {**(config or {}), **keywords}
    own = {name: value for name, value in merged.items() if _is_own(name)}
    kafka = {name: value for name, value in (config or {}).items() if not _is_own(name)}
    rest = {name: value for name, value in keywords.items() if not _is_own(name)}
    if not own:
        return kafka, rest, None
    return kafka, rest, _parse(own, str(merged.get("client.id", "rdkafka")))


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a client hands to the constructor of its original: `arguments` and `keywords`; `kafka` is both."""

    arguments: tuple[dict[str, Any], ...]
    keywords: dict[str, Any]
    kafka: dict[str, Any]
    settings: Settings | None


def prepare(
    config: Mapping[str, Any] | None,
    keywords: Mapping[str, Any],
    defaults: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> Prepared:
    """A client's arguments without hotkey's; with `defaults(kafka)` where there was any of them.

    Raises `SettingsError`.
    """
    kafka, rest, settings = split(config, keywords)
    if settings is not None:
        kafka |= defaults({**kafka, **rest})
    both = {**kafka, **rest}
    if config is None:
        return Prepared((), both, both, settings)
    return Prepared((kafka,), rest, both, settings)


def producer_defaults(kafka: Mapping[str, Any]) -> dict[str, Any]:
    """What a routing producer adds to `kafka`: the partitioner, idempotence with all acks, and both clients'.

    Where the caller chose acks or retries that idempotence forbids, the choice stands and idempotence is left
    alone. Raises `SettingsError` when the caller's partitioner puts keys elsewhere than Java's, or when the
    caller asks for topic auto-creation.
    """
    topic_level = kafka.get("default.topic.config") or {}
    for place, values in (("", kafka), ("default.topic.config: ", topic_level)):
        found = values.get("partitioner")
        if found is not None and found not in _AGREEING_PARTITIONERS:
            raise SettingsError(
                f"{place}partitioner is {found!r}, but hotkey's plans hold for the Java client's: "
                "leave it out, or set murmur2_random"
            )
    given = {**topic_level, **kafka}
    added = client_defaults(kafka)
    if _PROPAGATION not in given:
        added[_PROPAGATION] = _PROPAGATION_MS
    if "partitioner" not in given:
        added["partitioner"] = "murmur2_random"
    if "enable.idempotence" not in given and _allows_idempotence(given):
        added["enable.idempotence"] = True
        if not {"acks", "request.required.acks"} & given.keys():
            added["acks"] = "all"
    return added


def client_defaults(kafka: Mapping[str, Any]) -> dict[str, Any]:
    """What any client that follows tables adds to `kafka`: no topic creation, and a quick look at partitions.

    Raises `SettingsError` when the caller asks for topic auto-creation.
    """
    return _no_topic_creation(kafka) | ({} if _REFRESH in kafka else {_REFRESH: _REFRESH_MS})


def check_key_reports(kafka: Mapping[str, Any]) -> None:
    """Raise `SettingsError` where records could not be counted: they are when the broker has answered."""
    given = {**(kafka.get("default.topic.config") or {}), **kafka}
    if _flag(_ONLY_ERRORS, given.get(_ONLY_ERRORS, False)):
        raise SettingsError(
            f"{_ONLY_ERRORS} is true, but hotkey.report.keys counts records as they are delivered: "
            "leave one of them out"
        )


def is_cooperative(kafka: Mapping[str, Any]) -> bool:
    """Whether a consumer with this configuration rebalances incrementally."""
    return str(kafka.get("group.protocol", "classic")).lower() == "consumer" or "cooperative" in str(
        kafka.get("partition.assignment.strategy", "")
    )


def is_durable(kafka: Mapping[str, Any]) -> bool:
    """Whether a producer with this configuration may write to dedicated topics.

    It is idempotent, waits for all replicas, and hears of every delivery: what is on its way is known.
    """
    given = {**(kafka.get("default.topic.config") or {}), **kafka}
    if _flag(_ONLY_ERRORS, given.get(_ONLY_ERRORS, False)):
        return False
    return _flag("enable.idempotence", given.get("enable.idempotence", False)) or "transactional.id" in given


def _no_topic_creation(kafka: Mapping[str, Any]) -> dict[str, Any]:
    if _flag(_AUTO_CREATE, kafka.get(_AUTO_CREATE, False)):
        raise SettingsError(
            f"{_AUTO_CREATE} is true, but a topic that was deleted would come back empty: leave it out"
        )
    return {_AUTO_CREATE: False}


def _is_own(name: object) -> bool:
    return isinstance(name, str) and name.startswith(PREFIX)


def _redis_url(url: object) -> str:
    try:
        if not isinstance(url, str):
            raise ValueError("it is no text")
        parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise SettingsError(
            f"hotkey.redis.url is not understood ({error}): expected a URL such as redis://host:6379/0 "
            "(or rediss://, unix://)"
        ) from None
    return url


def _parse(own: Mapping[str, Any], client_name: str) -> Settings:
    unknown = sorted(set(own) - set(_KNOWN))
    if unknown:
        raise SettingsError(f"unknown setting {unknown[0]}; there are {', '.join(_KNOWN)}")
    url = _redis_url(own.get("hotkey.redis.url"))
    allow_unsigned = _flag("hotkey.allow.unsigned", own.get("hotkey.allow.unsigned", False))
    file = _public_keys_file(own.get("hotkey.public.keys"))
    keys = _public_keys(own.get("hotkey.public.keys"), file)
    if not keys.by_id and not allow_unsigned:
        raise SettingsError(
            "hotkey.public.keys is missing: set it to the text of `public.keys` in the operator's signing "
            "Secret, "
            "or to file:PATH (or set hotkey.allow.unsigned=true where tables are not signed)"
        )
    return Settings(
        redis_url=url,
        client_id=_checked_client_id(str(own.get("hotkey.client.id") or _client_id(client_name))),
        public_keys=keys,
        allow_unsigned=allow_unsigned,
        topics=_topics(own.get("hotkey.topics", ())),
        cluster_id=str(own["hotkey.cluster.id"]) if own.get("hotkey.cluster.id") else None,
        poll_interval_seconds=_milliseconds(own.get("hotkey.poll.interval.ms", 1000)) / 1000,
        report_keys=_flag("hotkey.report.keys", own.get("hotkey.report.keys", False)),
        public_keys_file=file,
    )


def _public_keys_file(text: object) -> Path | None:
    return Path(text.removeprefix(_FILE)) if isinstance(text, str) and text.startswith(_FILE) else None


def _public_keys(text: object, file: Path | None) -> PublicKeys:
    if text is None:
        return PublicKeys()
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    if not isinstance(text, str):
        raise SettingsError(f"hotkey.public.keys is {text!r}, expected lines `keyId:base64` or file:PATH")
    try:
        return PublicKeys.parse(text) if file is None else read_keys(file)
    except (KeyFormatError, OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"hotkey.public.keys: {error}") from None


def _topics(value: object) -> tuple[str, ...]:
    names: Iterable[object] = value.split(",") if isinstance(value, str) else ()
    if isinstance(value, list | tuple | set | frozenset):
        names = value
    elif not isinstance(value, str):
        raise SettingsError(f"hotkey.topics is {value!r}, expected a list of topic names")
    return tuple(str(name).strip() for name in names if str(name).strip())


def _milliseconds(value: object) -> int:
    try:
        found = int(str(value))
    except ValueError:
        found = 0
    if not 50 <= found <= 3_600_000:
        raise SettingsError(f"hotkey.poll.interval.ms is {value!r}, expected 50 to 3600000")
    return found


def _flag(name: str, value: object) -> bool:
    text = str(value).strip().lower()
    if text in ("true", "t", "1", "yes", "on"):
        return True
    if text in ("false", "f", "0", "no", "off", ""):
        return False
    raise SettingsError(f"{name} is {value!r}, expected true or false")


def _allows_idempotence(given: Mapping[str, Any]) -> bool:
    acks = [str(given[name]) for name in ("acks", "request.required.acks") if name in given]
    retries = [given[name] for name in ("retries", "message.send.max.retries") if name in given]
    in_flight = [
        given[name] for name in ("max.in.flight", "max.in.flight.requests.per.connection") if name in given
    ]
    return (
        all(value in ("all", "-1") for value in acks)
        and all(str(value) != "0" for value in retries)
        and all(str(value).isdecimal() and int(value) <= 5 for value in in_flight)
        and given.get("queuing.strategy", "fifo") == "fifo"
    )


def _checked_client_id(client_id: str) -> str:
    if len(client_id) > CLIENT_ID_AT_MOST:
        raise SettingsError(
            f"hotkey.client.id (or client.id) has {len(client_id)} characters, at most {CLIENT_ID_AT_MOST} "
            "are reported: write a shorter one"
        )
    return client_id


def _client_id(client_name: str) -> str:
    return f"{client_name}@{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
