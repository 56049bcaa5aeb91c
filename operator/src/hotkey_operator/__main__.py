"""The command `hotkey-operator`: reads the settings, connects the adapters and runs Kopf."""

from __future__ import annotations

import argparse
import asyncio
import logging
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

import kopf
from kopf._cogs.structs.references import Insights
from prometheus_client import disable_created_metrics, start_http_server

from hotkey_operator import __version__, logs
from hotkey_operator.adapters.groups import KafkaGroups
from hotkey_operator.adapters.kafka import KafkaBrokers
from hotkey_operator.adapters.kubernetes import Connection, KubernetesSecrets, KubernetesTables, connect
from hotkey_operator.adapters.producer_reports import ProducerReports
from hotkey_operator.adapters.prometheus import Http
from hotkey_operator.adapters.redis import RedisDistribution
from hotkey_operator.adapters.resources import end_where_unserved, wait_until_served
from hotkey_operator.adapters.signer import EnvelopeSigner, new_secret_data
from hotkey_operator.adapters.sources import PolicySources
from hotkey_operator.adapters.topics import KafkaTopics
from hotkey_operator.gauges import Exposure
from hotkey_operator.handlers import Governor
from hotkey_operator.metrics import Metrics
from hotkey_operator.ports import Ports, Unavailable
from hotkey_operator.settings import Settings, SettingsError, add_flags, read_settings

_THREADS = 32  # each blocking call of a client takes one; a hung server must not starve the others
_RETRY_SECONDS = 2.0


def main() -> None:
    """Entry point. Exits with 2 for a mistake in the settings, 1 when it cannot start."""
    settings = _settings()
    logs.configure(settings.log_level)
    try:
        asyncio.run(_run(settings))
    except (ValueError, OSError) as error:
        sys.exit(f"hotkey-operator: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _settings() -> Settings:
    parser = argparse.ArgumentParser(
        prog="hotkey-operator", description="Finds hot Kafka keys and spreads them."
    )
    parser.add_argument("--version", action="version", version=f"hotkey-operator {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="govern the HotKeyPolicies of a cluster until it is told to end")
    add_flags(run)
    flags = parser.parse_args()
    try:
        return read_settings(flags)
    except SettingsError as error:
        for line in str(error).splitlines():
            print(f"hotkey-operator: {line}", file=sys.stderr)
        print("hotkey-operator: see `hotkey-operator run --help`", file=sys.stderr)
        sys.exit(2)


async def _run(settings: Settings) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="adapter"))
    api = connect()
    tables = KubernetesTables(api)
    brokers = KafkaBrokers(settings.kafka, sampling_bytes_per_second=settings.sampling_bytes_per_second)
    groups, topics = KafkaGroups(settings.kafka), KafkaTopics(settings.kafka)
    distribution = RedisDistribution(settings.redis_url)
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter
    metrics = Metrics(Exposure(settings.metrics_partitions, settings.metrics_keys))
    metrics.sampling(undecodable=lambda: brokers.undecodable, cut=lambda: brokers.samples_cut)
    metrics.reports(left_out=lambda: distribution.key_reports_left_out)
    if settings.metrics_port:
        _serve_metrics(settings, metrics)
    if settings.liveness_port:
        _check_liveness(settings)
    try:
        signer = await _signer(settings, api)
        await wait_until_served(api)
        reports = ProducerReports(distribution.key_reports, forget=distribution.forget_key_reports)
        sources = PolicySources(Http(), reports)
        ports = Ports(brokers, distribution, tables, signer, groups, sources, topics)
        governor = Governor(ports, tables, metrics)
        await _govern(settings, governor, api)
    finally:
        await distribution.close()
        await groups.close()
        await topics.close()
        await brokers.close()
        api.close()  # type: ignore[no-untyped-call]


def _serve_metrics(settings: Settings, metrics: Metrics) -> None:
    try:
        start_http_server(settings.metrics_port, settings.host, registry=metrics.registry)
    except OSError as error:
        raise ValueError(
            f"the metrics port {settings.metrics_port} of {settings.host} cannot be used ({error}): set "
            "HOTKEY_METRICS_PORT (--metrics) or HOTKEY_HOST (--host)"
        ) from None


def _check_liveness(settings: Settings) -> None:
    """Kopf opens the port later, and would only leave a stack trace where it cannot."""
    try:
        socket.create_server((settings.host, settings.liveness_port)).close()
    except OSError as error:
        raise ValueError(
            f"the liveness port {settings.liveness_port} of {settings.host} cannot be used ({error}): set "
            "HOTKEY_LIVENESS_PORT (--liveness) or HOTKEY_HOST (--host)"
        ) from None


async def _signer(settings: Settings, api: Connection) -> EnvelopeSigner:
    if settings.allow_unsigned:
        logs.say("tables are not signed", level=logging.WARNING, setting="HOTKEY_ALLOW_UNSIGNED")
        return EnvelopeSigner(None)
    namespace, name = settings.signing_secret
    secrets, fresh = KubernetesSecrets(api), new_secret_data()
    while True:
        try:
            data = await secrets.read_or_create(namespace, name, lambda: fresh)
            break
        except Unavailable as error:
            logs.say("signing key cannot be read", level=logging.WARNING, reason=str(error))
            await asyncio.sleep(_RETRY_SECONDS)
    if data == fresh:
        logs.say("signing key made", secret=f"{namespace}/{name}", remedy="give clients its public.keys")
    try:
        return EnvelopeSigner.from_secret(data)
    except ValueError as error:
        raise ValueError(
            f"Secret {namespace}/{name}: {error}; correct it, or delete it and a new key is made "
            "(clients then need its new public.keys)"
        ) from None


async def _govern(settings: Settings, governor: Governor, api: Connection) -> None:
    burials = asyncio.create_task(governor.bury_tombstones(settings.namespaces))
    port = settings.liveness_port
    logs.say("operator starts", version=__version__, namespaces=list(settings.namespaces) or "all")
    try:
        while True:
            found, unserved = Insights(), asyncio.Event()
            ending = asyncio.create_task(end_where_unserved(found, unserved))
            try:
                await kopf.operator(
                    registry=governor.registry(),
                    standalone=True,
                    clusterwide=not settings.namespaces,
                    namespaces=settings.namespaces,
                    liveness_endpoint=f"http://{settings.host}:{port}/healthz" if port else None,
                    insights=found,
                    stop_flag=unserved,
                )
            finally:
                ending.cancel()
            if not unserved.is_set():
                break
            await wait_until_served(api)
    finally:
        burials.cancel()
        logs.say("operator ended")


if __name__ == "__main__":
    main()
