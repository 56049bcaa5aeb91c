"""Clients of one stream's table, many in a process, for the part `propagation`: the SDK's own, and the plain
ones that people write. Each tells the moment at which it has taken up an epoch. It knows no figure.

`python -m bench.table_clients SETTINGS` is one such process; it ends with its standard input.
"""

from __future__ import annotations

import functools
import os
import random
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from enum import StrEnum
from types import TracebackType
from typing import Any, Self, cast

import msgspec
import redis

from bench.machine import ROOT
from examples.demo.errors import DemoError
from hotkey_sdk._lanes import Batch, lanes_of
from hotkey_sdk._producer import PATHS
from hotkey_sdk._settings import Settings
from hotkey_sdk._source import TableSource
from hotkey_sdk._store import RedisStore
from hotkey_sdk.routing import names
from hotkey_sdk.routing.envelope import PublicKeys
from hotkey_sdk.routing.report import Role
from hotkey_sdk.routing.router import Router
from hotkey_sdk.routing.table import Stream

JITTER = (0.75, 1.25)  # of the pause between two polls, as the SDK's
STOP_SECONDS = 20.0

Tell = Callable[[int], None]  # of the epoch that was taken up just now


class Kind(StrEnum):
    """What a client is."""

    SDK = "sdk"  # what runs in a producer: follows, verifies, builds its lanes, reports
    POLLER = "poller"  # asks for the epoch at the same interval, and fetches what is new
    SUBSCRIBER = "subscriber"  # waits for the hint alone, and fetches then


class Clients(msgspec.Struct, frozen=True):
    """`count` clients of one kind in a process; they are named from `first` on."""

    kind: Kind
    first: int
    count: int
    redis_url: str
    public_keys: str
    cluster_id: str
    topic: str
    poll_seconds: float = 1.0

    @property
    def stream(self) -> Stream:
        """What they follow."""
        return Stream(self.cluster_id, self.topic)


class Fleet:
    """Clients over several processes, and when each took up which epoch; a context."""

    def __init__(self, clients: Clients, processes: int) -> None:
        self._clients, self._number = clients, processes
        self._processes: list[subprocess.Popen[bytes]] = []
        self._readers: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._taken: dict[int, dict[int, float]] = defaultdict(dict)

    def __enter__(self) -> Self:
        for number in range(self._number):
            told = msgspec.structs.replace(self._clients, first=number * self._clients.count)
            command = [sys.executable, "-m", "bench.table_clients", msgspec.json.encode(told).decode()]
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
            self._processes.append(process)
            self._readers.append(threading.Thread(target=self._read, args=(process,), daemon=True))
            self._readers[-1].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for reader in self._readers:
            reader.join()

    @property
    def size(self) -> int:
        """Clients of all processes."""
        return self._number * self._clients.count

    def moments(self, epoch: int, wait_seconds: float) -> list[float]:
        """When each client took up this epoch or a later one, by `time.monotonic`, once all have.

        Raises `DemoError` when some do not within the time.
        """
        deadline = time.monotonic() + wait_seconds
        with self._changed:
            while len(taken := self._first(epoch)) < self.size:
                if (left := deadline - time.monotonic()) <= 0:
                    missing = sorted(set(range(self.size)) - taken.keys())
                    raise DemoError(
                        f"epoch {epoch}: {len(missing)} of {self.size} clients ({self._clients.kind}) do not "
                        f"have it after {wait_seconds:.0f} s: {missing[:10]}"
                    )
                self._changed.wait(left)
        return [at for _, at in sorted(taken.items())]

    def _first(self, epoch: int) -> dict[int, float]:
        found: dict[int, float] = {}
        for taken in (clients for number, clients in self._taken.items() if number >= epoch):
            for client, at in taken.items():
                found[client] = min(at, found.get(client, at))
        return found

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            client, epoch, nanoseconds = map(int, line.split())
            with self._changed:
                self._taken[epoch].setdefault(client, nanoseconds / 1e9)
                self._changed.notify_all()


def _sdk(told: Clients, tell: Tell) -> Callable[[], None]:
    """The table source of a producer, which makes of each table what a producer makes of it."""
    settings = Settings(
        redis_url=told.redis_url,
        client_id=f"bench-{os.getpid()}-{id(tell)}",
        public_keys=PublicKeys.parse(told.public_keys),
        cluster_id=told.cluster_id,
        poll_interval_seconds=told.poll_seconds,
    )
    path, batch = PATHS.in_use, Batch()

    def adopt(_: str, router: Router) -> None:
        lanes_of(router, batch, path.counts(), path)
        tell(router.table.epoch)

    source = TableSource(
        settings, Role.PRODUCER, lambda: RedisStore(told.redis_url), lambda: told.cluster_id, adopt
    )
    source.follow((told.topic,))
    return source.stop


def _poller(told: Clients, tell: Tell) -> Callable[[], None]:
    client, key, seen = redis.Redis.from_url(told.redis_url), names.table_key(told.stream), 0

    def run() -> None:
        nonlocal seen
        while True:
            epoch = int(cast("Any", client.hget(key, names.TABLE_EPOCH)) or 0)
            if epoch > seen:
                client.hget(key, names.TABLE_ENVELOPE)
                seen = epoch
                tell(epoch)
            time.sleep(told.poll_seconds * random.uniform(*JITTER))

    threading.Thread(target=run, daemon=True).start()
    return lambda: None


def _subscriber(told: Clients, tell: Tell) -> Callable[[], None]:
    client, key = redis.Redis.from_url(told.redis_url), names.table_key(told.stream)

    def run() -> None:
        hints = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        hints.subscribe(names.hint_channel(told.stream))
        tell(int(cast("Any", client.hget(key, names.TABLE_EPOCH)) or 0))
        for message in hints.listen():
            client.hget(key, names.TABLE_ENVELOPE)
            tell(int(message["data"]))

    threading.Thread(target=run, daemon=True).start()
    return lambda: None


_START = {Kind.SDK: _sdk, Kind.POLLER: _poller, Kind.SUBSCRIBER: _subscriber}


def _tell(client: int, epoch: int) -> None:
    at = time.monotonic_ns()  # the same clock in all processes of a machine
    os.write(1, b"%d %d %d\n" % (client, epoch, at))


def main() -> int:
    """One process, until its standard input ends."""
    told = msgspec.json.decode(sys.argv[1], type=Clients)
    stops = [
        _START[told.kind](told, functools.partial(_tell, told.first + number)) for number in range(told.count)
    ]
    sys.stdin.read()
    for stop in stops:
        stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
