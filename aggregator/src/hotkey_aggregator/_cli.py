"""The `hotkey-aggregator` command: `run` counts, `query` asks, `replay` puts dead letters back."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from types import FrameType
from typing import Any

from confluent_kafka import KafkaException

from hotkey_aggregator.cluster import Cluster
from hotkey_aggregator.command_line import parse
from hotkey_aggregator.condition import Told
from hotkey_aggregator.dead_letters import DeadLetterCarrier
from hotkey_aggregator.logfmt import line, log_to
from hotkey_aggregator.metrics import Metrics
from hotkey_aggregator.opening import Opening
from hotkey_aggregator.outage import Outages
from hotkey_aggregator.pipeline import Pipeline, PipelineError
from hotkey_aggregator.query import QueryError, ask
from hotkey_aggregator.replay import ReplayError, replay
from hotkey_aggregator.reports import Reports
from hotkey_aggregator.rules import Rules
from hotkey_aggregator.server import Answers, CountsServer
from hotkey_aggregator.settings import (
    QuerySettings,
    ReplaySettings,
    RunSettings,
    SettingsError,
    in_flags,
)
from hotkey_aggregator.store import Store, StoreError
from hotkey_aggregator.writer import Writer
from hotkey_sdk import Consumer
from hotkey_sdk import SettingsError as ClientSettingsError

log = logging.getLogger("hotkey_aggregator")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 1 with one sentence on stderr, or 2 for wrong usage."""
    try:
        settings = parse(sys.argv[1:] if arguments is None else arguments, os.environ)
        if isinstance(settings, QuerySettings):
            ask(settings)
            sys.stdout.flush()
        elif isinstance(settings, ReplaySettings):
            _replay(settings)
        else:
            run(settings)
    except SettingsError as error:
        return _failed(error, 2)
    except (StoreError, PipelineError, QueryError, ReplayError) as error:
        return _failed(error, 1)
    except BrokenPipeError:
        # Whoever read our output has enough of it; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def run(settings: RunSettings) -> None:
    """Count until SIGTERM or Ctrl-C, then flush; a second signal ends at once."""
    log_to(sys.stderr, settings.log_level)
    stop = _stop_on_signals()
    with ExitStack() as closing:
        metrics, told, outages = Metrics(), Told(), Outages()
        opening = Opening(lambda: settings.store.open(settings.keeping), outages)
        closing.callback(opening.close)
        # Before the address is taken: who starts a second one on a file is to hear of the file.
        opening.try_once()
        server = _serve(settings, opening, metrics, told)
        closing.callback(server.close)
        store = _opened(opening, outages, Reports(metrics, told), server, stop)
        if store is None:
            log.info(line("stopped"))
            return
        writer = Writer(store, on_retry=metrics.store_retries.inc, outages=outages)
        closing.callback(writer.close)
        cluster = _cluster(settings)
        protocol = _group_protocol(settings, cluster, told, stop)
        letters = DeadLetterCarrier(
            store,
            writer.do,
            cluster,
            settings.kafka.client_config(),
            base=settings.kafka.topic,
            topic=settings.kafka.dead_letter_topic,
            metrics=metrics,
        )
        closing.callback(letters.close)
        pipeline = Pipeline(
            lambda callbacks: _consumer({**settings.consumer_config(protocol), **callbacks}),
            store,
            writer,
            cluster,
            Rules(settings.kafka.topic, settings.limits, settings.keeping, settings.lateness_milliseconds),
            metrics=metrics,
            told=told,
            serve_dead_letters=letters.serve,
        )
        _collect_garbage_seldom()
        closing.callback(_collect_garbage)
        _log_start(settings, server, protocol)
        pipeline.run(stop)
    log.info(line("stopped"))


def _opened(
    opening: Opening, outages: Outages, reports: Reports, server: CountsServer, stop: threading.Event
) -> Store | None:
    """The store, however long it takes to answer; None when told to stop before."""
    host, port = server.address
    if outages.current is not None:
        log.warning(line("waiting_for_store", http=f"http://{host}:{port}", ready=503))
    reports.condition(outages.current)
    store = opening.wait(stop, lambda: reports.turn(outages.current))
    reports.condition(outages.current)
    return store


def _collect_garbage_seldom() -> None:
    """A batch is ten thousand objects without cycles: looking for some took a tenth of the loop's time."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def _collect_garbage() -> None:
    """At the end: DuckDB complains on stderr of what is left of it."""
    gc.unfreeze()
    gc.collect()


def _replay(settings: ReplaySettings) -> None:
    log_to(sys.stderr, "WARNING")
    config = settings.kafka.client_config()
    try:
        replay(settings.order, config)
    except (KafkaException, ValueError) as error:
        raise SettingsError(f"the Kafka client refuses its settings: {error}") from None


def _group_protocol(settings: RunSettings, cluster: Cluster, told: Told, stop: threading.Event) -> str:
    """What `auto` means here; the brokers are asked where that decides."""
    if settings.group_protocol != "auto" or not settings.store.is_shared:
        return settings.group_protocol_by(None)
    while not stop.is_set():
        told.beat()
        try:
            return settings.group_protocol_by(cluster.consumer_session_milliseconds())
        except KafkaException as error:
            log.warning(line("kafka_error", code=error.args[0].name(), detail=error.args[0].str()))
            stop.wait(1.0)
    return "classic"


def _log_start(settings: RunSettings, server: CountsServer, protocol: str) -> None:
    host, port = server.address
    log.info(
        line(
            "started",
            topic=settings.kafka.topic,
            group=settings.kafka.group,
            group_protocol=protocol,
            store=settings.store.shown,
            http=f"http://{host}:{port}",
            follows=settings.redis_url is not None,
        )
    )


def _cluster(settings: RunSettings) -> Cluster:
    try:
        return Cluster(settings.kafka.client_config())
    except (KafkaException, ValueError) as error:
        raise SettingsError(f"the Kafka client refuses its settings: {error}") from None


def _consumer(config: dict[str, Any]) -> Consumer:
    try:
        return Consumer(config)
    except ClientSettingsError as error:
        raise SettingsError(in_flags(str(error))) from None
    except (KafkaException, ValueError) as error:
        raise SettingsError(f"the Kafka client refuses its settings: {error}") from None


def _serve(settings: RunSettings, opening: Opening, metrics: Metrics, told: Told) -> CountsServer:
    answers = Answers(opening.store, metrics.exposition, lambda: told.age_seconds, lambda: told.condition)
    try:
        return CountsServer(settings.http_host, settings.http_port, answers)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {settings.http_host}:{settings.http_port}: {error.strerror}: name another "
            "--http-port (0 takes a free one)"
        ) from None


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        log.info(line("stopping", signal=signal.Signals(number).name))
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return stop


def _failed(error: Exception, code: int) -> int:
    for each in str(error).splitlines():
        print(f"hotkey-aggregator: {each}", file=sys.stderr)
    return code
