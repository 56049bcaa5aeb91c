"""The `hotkey-aggregator` command: `run` counts until it is told to stop, `query` asks a running one."""

from __future__ import annotations

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

from hotkey_aggregator.duckdb_store import DuckDBStore
from hotkey_aggregator.logfmt import line, log_to
from hotkey_aggregator.metrics import Metrics
from hotkey_aggregator.pipeline import Heartbeat, Pipeline, PipelineError
from hotkey_aggregator.query import QueryError, ask
from hotkey_aggregator.server import Answers, CountsServer
from hotkey_aggregator.settings import QuerySettings, RunSettings, SettingsError, in_flags, parse
from hotkey_aggregator.store import Store, StoreError
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
        else:
            run(settings)
    except SettingsError as error:
        return _failed(error, 2)
    except (StoreError, PipelineError, QueryError) as error:
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
        store = DuckDBStore(settings.db)
        closing.callback(store.close)
        metrics, heartbeat = Metrics(), Heartbeat()
        pipeline = Pipeline(
            lambda callbacks: _consumer({**settings.consumer_config(), **callbacks}),
            store,
            settings.topic,
            limits=settings.limits,
            metrics=metrics,
            heartbeat=heartbeat,
        )
        server = _serve(settings, store, metrics, heartbeat)
        closing.callback(server.close)
        _log_start(settings, server)
        pipeline.run(stop)
    log.info(line("stopped"))


def _log_start(settings: RunSettings, server: CountsServer) -> None:
    host, port = server.address
    log.info(
        line(
            "started",
            topic=settings.topic,
            group=settings.group,
            db=settings.db,
            http=f"http://{host}:{port}",
            follows=settings.redis_url is not None,
        )
    )


def _consumer(config: dict[str, Any]) -> Consumer:
    try:
        return Consumer(config)
    except ClientSettingsError as error:
        raise SettingsError(in_flags(str(error))) from None
    except (KafkaException, ValueError) as error:
        raise SettingsError(f"the Kafka client refuses its settings: {error}") from None


def _serve(settings: RunSettings, store: Store, metrics: Metrics, heartbeat: Heartbeat) -> CountsServer:
    answers = Answers(store, metrics.exposition, lambda: heartbeat.age_seconds)
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
