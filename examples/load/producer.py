"""One producer process of the load: draws or replays clicks at its rate and journals each id.

It takes commands on its standard input and ends when that is closed, so it never outlives its load.
Run as `python -m examples.load.producer SETTINGS_FILE NUMBER`.
"""

from __future__ import annotations

import functools
import itertools
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message

from examples.load.clicks import Click, ClickMaker, event_id
from examples.load.journal import Journal
from examples.load.settings import FLUSH_SECONDS, Command, KeyField, LoadSettings
from examples.load.trace import Row, read_trace
from hotkey_sdk import Producer

TICK_SECONDS = 0.005
CATCH_UP_SECONDS = 1.0  # a producer that was held up is at most this far behind its schedule
REPLAY_BATCH = 1_000  # rows sent before the answers are served

_encode = msgspec.json.Encoder().encode


def milliseconds() -> int:
    """Now, in unix milliseconds."""
    return time.time_ns() // 1_000_000


class Commands:
    """Reads commands from a pipe without ever waiting for one."""

    def __init__(self, file: int) -> None:
        os.set_blocking(file, False)
        self._file = file
        self._rest = b""

    def take(self) -> Iterator[Command]:
        """The commands that came since the last call; the end of the pipe is the command to stop."""
        try:
            data = os.read(self._file, 65_536)
        except BlockingIOError:
            return
        if not data:
            yield Command(stop=True)
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield msgspec.json.decode(line, type=Command)


class Schedule:
    """How many clicks are due: `rate` a second from `start` on, with changes of the rate in between."""

    def __init__(self, rate: float, start: float) -> None:
        self.rate = rate
        self._at = start
        self._due = 0.0

    def due(self, now: float) -> int:
        """The clicks to send now; what is asked for here is taken as sent."""
        self._due = min(self._due + (now - self._at) * self.rate, self.rate * CATCH_UP_SECONDS + 1)
        self._at = now
        whole = int(self._due)
        self._due -= whole
        return whole


class Sender:
    """Sends clicks under numbers of their own and journals what became of them."""

    def __init__(self, settings: LoadSettings, number: int, directory: Path) -> None:
        self._settings = settings
        self._journal = Journal(directory, number)
        self._producer = Producer(client_config(settings, number))
        self._failures: set[str] = set()
        self.sent = 0

    def send(self, clicks: list[Click]) -> None:
        """Hand clicks to the client; a full queue is waited for, under the same ids."""
        self._journal.will_send(self.sent + len(clicks))
        for click in clicks:
            self._produce(self.sent, click)
            self.sent += 1

    def _produce(self, number: int, click: Click) -> None:
        key, value = click.key(self._settings.key_field), _encode(click)
        answered = functools.partial(self._answered, number)
        while True:
            try:
                self._producer.produce(
                    self._settings.topic, value, key, on_delivery=answered, dimensions=click.dimensions()
                )
                return
            except BufferError:
                self.serve(0.05)
            except KafkaException as error:
                self._failed(str(error))
                return

    def _answered(self, number: int, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self._journal.acked(number)
        else:
            self._failed(str(error))

    def _failed(self, what: str) -> None:
        if what not in self._failures and len(self._failures) < 100:
            self._failures.add(what)
            print(f"a click was not acknowledged: {what}", file=sys.stderr, flush=True)

    def serve(self, seconds: float) -> None:
        """Take the broker's answers for at most this long and write them down."""
        self._producer.poll(seconds)
        self._producer.poll(0)
        self._journal.write()

    def close(self) -> int:
        """Wait for the answers that are still out; returns how many never came."""
        rest: int = self._producer.flush(FLUSH_SECONDS)
        self._journal.write()
        return rest


def client_config(settings: LoadSettings, number: int) -> dict[str, str | int | float | bool]:
    """The constructor dict of the SDK's producer; without a Redis it is a plain Kafka producer's."""
    config: dict[str, str | int | float | bool] = {
        "bootstrap.servers": settings.bootstrap,
        "client.id": f"load-{settings.run}-{number}",
        "acks": "all",
        "enable.idempotence": True,
        "linger.ms": 5,
        "compression.type": "lz4",
        "log_level": 0,
    }
    if settings.redis_url is not None:
        config["hotkey.redis.url"] = settings.redis_url
        config["hotkey.client.id"] = f"load-{settings.run}-{number}"
    if settings.public_keys is not None:
        config["hotkey.public.keys"] = settings.public_keys
    return {**config, **settings.config}


class Worker:
    """One producer's life: commands in, clicks out, until it is told to stop or its bounds are reached."""

    def __init__(self, settings: LoadSettings, number: int, directory: Path) -> None:
        self._settings, self._number = settings, number
        self._maker = ClickMaker(settings, number)
        self._sender = Sender(settings, number, directory)
        self._schedule = Schedule(settings.records_per_second / settings.producers, time.monotonic())
        self._records = -(-settings.records // settings.producers)
        self._commands = Commands(sys.stdin.fileno())
        self._stopped = False

    def stop(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """End after the current tick; also the handler of SIGTERM."""
        self._stopped = True

    def run(self) -> int:
        """Work until stopped; returns how many clicks were never answered."""
        batches = self._replay() if self._settings.trace else self._draw()
        end = time.monotonic() + self._settings.seconds
        for clicks in batches:
            if clicks:
                self._sender.send(clicks)
            self._sender.serve(TICK_SECONDS)
            self._obey()
            if self._stopped or time.monotonic() > end or self._sender.sent >= self._records:
                break
        return self._sender.close()

    def _obey(self) -> None:
        for command in self._commands.take():
            if command.hot_share is not None:
                self._maker.hot_share = command.hot_share
            if command.hot_key is not None:
                self._maker.hot_key = command.hot_key
            if command.records_per_second is not None:
                self._schedule.rate = command.records_per_second
            self._stopped = self._stopped or command.stop

    def _draw(self) -> Iterator[list[Click]]:
        while True:
            due = min(self._schedule.due(time.monotonic()), self._records - self._sender.sent)
            at = milliseconds()
            yield [self._maker.draw(self._sender.sent + i, at) for i in range(due)]

    def _replay(self) -> Iterator[list[Click]]:
        settings, start = self._settings, time.monotonic()
        rows = itertools.islice(
            read_trace(Path(settings.trace or "")), self._number, None, settings.producers
        )
        batch: list[Click] = []
        for row in rows:
            while time.monotonic() < start + row.at / settings.speed or len(batch) >= REPLAY_BATCH:
                yield batch
                batch = []
            batch.append(self._recorded(row, self._sender.sent + len(batch)))
        yield batch

    def _recorded(self, row: Row, number: int) -> Click:
        name = event_id(self._settings.run, self._number, number)
        ad = row.key if self._settings.key_field is KeyField.AD else f"{row.key}-0"
        return Click(name, row.key, ad, row.dimension, milliseconds(), row.key, row.id)


def main() -> int:
    """0 when every click handed to the client was answered."""
    settings_file = Path(sys.argv[1])
    worker = Worker(LoadSettings.read(settings_file), int(sys.argv[2]), settings_file.parent)
    signal.signal(signal.SIGTERM, worker.stop)
    rest = worker.run()
    if rest:
        print(f"{rest} clicks were not answered within {FLUSH_SECONDS:.0f} s", file=sys.stderr)
    return 1 if rest else 0


if __name__ == "__main__":
    sys.exit(main())
