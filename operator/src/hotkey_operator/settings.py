"""The operator's settings, from flags and environment; a mistake is told in words, not as a stack trace.

A flag wins over its environment variable. docs/operations.md lists them.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_REDIS_SCHEMES = ("redis", "rediss", "unix")
_YES, _NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


class SettingsError(ValueError):
    """What is missing or malformed, one line each."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`kafka` is librdkafka's configuration. `namespaces` empty: all. A port of 0 is off."""

    kafka: Mapping[str, Any]
    redis_url: str = field(repr=False)  # may hold a password
    signing_secret: tuple[str, str]  # namespace, name
    allow_unsigned: bool = False
    host: str = "127.0.0.1"
    metrics_port: int = 0
    metrics_partitions: int = 1_000
    metrics_keys: bool = True
    sampling_bytes_per_second: int = 4_000_000
    liveness_port: int = 0
    namespaces: tuple[str, ...] = ()
    log_level: str = "INFO"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `hotkey-operator run`."""

    def flag(name: str, variable: str, text: str, **options: Any) -> None:
        parser.add_argument(name, help=f"{text} (environment: {variable})", default=None, **options)

    flag("--kafka-bootstrap-servers", "HOTKEY_KAFKA_BOOTSTRAP_SERVERS", "host:port,... of the Kafka cluster")
    flag(
        "--kafka-config",
        "HOTKEY_KAFKA_CONFIG",
        "file of `name=value` lines for the Kafka client, such as TLS and SASL",
    )
    flag("--redis-url", "HOTKEY_REDIS_URL", "redis://[user:password@]host:port/db, rediss:// for TLS")
    flag("--signing-secret", "HOTKEY_SIGNING_SECRET",
         "[namespace/]name of the Secret with the signing key, made if there is none; default "
         "hotkey-signing-key in the operator's namespace")  # fmt: skip
    flag("--allow-unsigned", "HOTKEY_ALLOW_UNSIGNED",
         "publish unsigned tables and trust such: whoever can write to Redis can then redirect traffic",
         action="store_const", const="true")  # fmt: skip
    flag("--namespace", "HOTKEY_NAMESPACES",
         "govern the policies of this namespace only; may be repeated (environment: separated by commas); "
         "default: all namespaces", action="append", dest="namespaces")  # fmt: skip
    flag("--host", "HOTKEY_HOST", "address of both ports; default 127.0.0.1, in a pod 0.0.0.0")
    flag("--liveness", "HOTKEY_LIVENESS_PORT", "port of GET /healthz; 0 is off; default 8080", metavar="PORT")
    flag(
        "--metrics",
        "HOTKEY_METRICS_PORT",
        "port of the Prometheus metrics; 0 is off; default 9090",
        metavar="PORT",
    )
    flag("--metrics-partitions", "HOTKEY_METRICS_PARTITIONS",
         "export the rate of every partition of streams with at most so many; 0 is off; default 1000",
         metavar="NUMBER")  # fmt: skip
    flag("--metrics-keys", "HOTKEY_METRICS_KEYS",
         "true or false: whether metrics name the keys that are spread; default true",
         metavar="BOOLEAN")  # fmt: skip
    flag("--sampling-bytes", "HOTKEY_SAMPLING_BYTES_PER_SECOND",
         "bytes a second that the samples of all streams may take from the brokers; default 4000000",
         metavar="NUMBER")  # fmt: skip
    flag("--log-level", "HOTKEY_LOG_LEVEL", "DEBUG, INFO, WARNING or ERROR; default INFO")


def read_settings(flags: argparse.Namespace, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of the parsed flags. Raises `SettingsError` that names every mistake at once."""
    source = _Source(flags, os.environ if environment is None else environment)
    settings = Settings(
        kafka=source.kafka(),
        redis_url=source.redis_url(),
        signing_secret=source.secret(),
        allow_unsigned=source.yes_or_no("allow_unsigned", "HOTKEY_ALLOW_UNSIGNED"),
        host=source.text("host", "HOTKEY_HOST") or "127.0.0.1",
        metrics_port=source.port("metrics", "HOTKEY_METRICS_PORT", 9090),
        metrics_partitions=source.number("metrics_partitions", "HOTKEY_METRICS_PARTITIONS", 1_000),
        metrics_keys=source.yes_or_no("metrics_keys", "HOTKEY_METRICS_KEYS", default="true"),
        sampling_bytes_per_second=source.number(
            "sampling_bytes", "HOTKEY_SAMPLING_BYTES_PER_SECOND", 4_000_000, least=1
        ),
        liveness_port=source.port("liveness", "HOTKEY_LIVENESS_PORT", 8080),
        namespaces=source.namespaces(),
        log_level=source.log_level(),
    )
    if source.mistakes:
        raise SettingsError("\n".join(source.mistakes))
    return settings


class _Source:
    """Reads one setting after another and collects what is wrong."""

    def __init__(self, flags: argparse.Namespace, environment: Mapping[str, str]) -> None:
        self.mistakes: list[str] = []
        self._flags = flags
        self._environment = environment

    def text(self, flag: str, variable: str) -> str:
        given = getattr(self._flags, flag, None)
        return str(given) if given is not None else self._environment.get(variable, "").strip()

    def _named(self, flag: str, variable: str) -> str:
        """What a mistake is called: the flag where it was given by one."""
        if getattr(self._flags, flag, None) is not None:
            return f"--{flag.replace('_', '-')}"
        return variable

    def kafka(self) -> dict[str, Any]:
        config: dict[str, Any] = {}
        path = self.text("kafka_config", "HOTKEY_KAFKA_CONFIG")
        if path:
            config = self._properties(Path(path))
        servers = self.text("kafka_bootstrap_servers", "HOTKEY_KAFKA_BOOTSTRAP_SERVERS")
        if servers:
            config["bootstrap.servers"] = servers
        if not config.get("bootstrap.servers"):
            self.mistakes.append(
                "no Kafka: set HOTKEY_KAFKA_BOOTSTRAP_SERVERS or --kafka-bootstrap-servers to host:port,..."
            )
        return config

    def _properties(self, path: Path) -> dict[str, Any]:
        given = self._named("kafka_config", "HOTKEY_KAFKA_CONFIG")
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            self.mistakes.append(f"{given}: cannot read {path}: {error}")
            return {}
        config: dict[str, Any] = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            name, equals, value = line.partition("=")
            if not equals or not name.strip():
                self.mistakes.append(f"{given}: line {number} of {path} is no `name=value`")
            config[name.strip()] = value.strip()
        return config

    def redis_url(self) -> str:
        url = self.text("redis_url", "HOTKEY_REDIS_URL")
        if not url:
            self.mistakes.append("no Redis: set HOTKEY_REDIS_URL or --redis-url, such as redis://host:6379/0")
        elif not url.startswith(tuple(f"{scheme}://" for scheme in _REDIS_SCHEMES)):
            shown = url.rpartition("@")[2]  # what stands before it may be a password
            named = self._named("redis_url", "HOTKEY_REDIS_URL")
            self.mistakes.append(f"{named}: {shown!r}, expected redis://, rediss:// or unix://")
        return url

    def secret(self) -> tuple[str, str]:
        text = self.text("signing_secret", "HOTKEY_SIGNING_SECRET") or "hotkey-signing-key"
        namespace, slash, name = text.rpartition("/")
        if not name or "/" in namespace or (slash and not namespace):
            named = self._named("signing_secret", "HOTKEY_SIGNING_SECRET")
            self.mistakes.append(f"{named}: {text!r}, expected [namespace/]name")
        return namespace or _own_namespace(), name

    def yes_or_no(self, flag: str, variable: str, default: str = "") -> bool:
        text = self.text(flag, variable).lower() or default
        if text not in _YES + _NO:
            self.mistakes.append(f"{self._named(flag, variable)}: {text!r}, expected true or false")
        return text in _YES

    def port(self, flag: str, variable: str, default: int) -> int:
        text = self.text(flag, variable)
        if not text:
            return default
        if not text.isdecimal() or int(text) > 65_535:
            named = self._named(flag, variable)
            self.mistakes.append(f"{named}: {text!r}, expected a port from 0 (off) to 65535")
            return default
        return int(text)

    def number(self, flag: str, variable: str, default: int, least: int = 0) -> int:
        text = self.text(flag, variable)
        if not text:
            return default
        if not text.isdecimal() or int(text) < least:
            self.mistakes.append(f"{self._named(flag, variable)}: {text!r}, expected a number from {least}")
            return default
        return int(text)

    def namespaces(self) -> tuple[str, ...]:
        given: Sequence[str] | None = getattr(self._flags, "namespaces", None)
        listed = given if given is not None else self._environment.get("HOTKEY_NAMESPACES", "").split(",")
        return tuple(name.strip() for name in listed if name.strip())

    def log_level(self) -> str:
        level = (self.text("log_level", "HOTKEY_LOG_LEVEL") or "INFO").upper()
        if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            named = self._named("log_level", "HOTKEY_LOG_LEVEL")
            self.mistakes.append(f"{named}: {level!r}, expected DEBUG, INFO, WARNING or ERROR")
        return level


def _own_namespace() -> str:
    try:
        return _ACCOUNT_NAMESPACE.read_text().strip() or "default"
    except OSError:
        return "default"
