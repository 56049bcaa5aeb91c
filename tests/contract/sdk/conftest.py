"""Both table stores, behind one way to put things into them."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any, Protocol

import pytest
import redis

from devstack.part import Place
from devstack.ports import free_ports
from devstack.valkey import Valkey
from hotkey_sdk._store import RedisStore, TableStore
from hotkey_sdk.routing import names
from hotkey_sdk.routing.envelope import digest
from hotkey_sdk.routing.table import Stream
from tests.contract.sdk.memory_store import MemoryStore


class World(Protocol):
    """A store, and the hands of whoever writes to it."""

    store: TableStore

    def publish(self, stream: Stream, envelope: bytes) -> None: ...
    def lie(self, stream: Stream, digest: str) -> None: ...
    def spoil(self, stream: Stream) -> None: ...
    def reports(self, stream: Stream) -> dict[str, bytes]: ...
    def key_reports(self, stream: Stream) -> dict[str, bytes]: ...
    def refuse_reports(self, stream: Stream) -> None:
        """Put something in the place of the stream's reports, of both kinds, that nobody can report into."""
        ...

    def key_reports_stand(self, stream: Stream) -> float:
        """Seconds until they go; infinite where they stay for ever."""
        ...

    def shorten(self, stream: Stream, seconds: float) -> None:
        """Let the key reports go in so many seconds."""
        ...

    def go_down(self) -> None: ...
    def come_back(self) -> None: ...


class MemoryWorld:
    def __init__(self) -> None:
        self.memory = MemoryStore()
        self.store: TableStore = self.memory

    def publish(self, stream: Stream, envelope: bytes) -> None:
        self.memory.publish(stream, envelope)

    def lie(self, stream: Stream, digest: str) -> None:
        self.memory.digests[stream] = digest

    def spoil(self, stream: Stream) -> None:
        self.memory.wrong_types.add(stream)

    def reports(self, stream: Stream) -> dict[str, bytes]:
        return self.memory.reports_of.get(stream, {})

    def key_reports(self, stream: Stream) -> dict[str, bytes]:
        if self.key_reports_stand(stream) <= 0:
            return {}
        return self.memory.key_reports_of.get(stream, {})

    def refuse_reports(self, stream: Stream) -> None:
        self.memory.refused.add(stream)

    def key_reports_stand(self, stream: Stream) -> float:
        return self.memory.key_reports_until.get(stream, float("inf")) - time.monotonic()

    def shorten(self, stream: Stream, seconds: float) -> None:
        self.memory.key_reports_until[stream] = time.monotonic() + seconds

    def go_down(self) -> None:
        self.memory.down = True

    def come_back(self) -> None:
        self.memory.down = False


class ValkeyWorld:
    def __init__(self, valkey: Valkey, user: str | None = None) -> None:
        self._valkey = valkey
        self._reporter = names.reporter(user)
        self._redis = redis.Redis.from_url(valkey.url)
        self.store: TableStore = RedisStore(valkey.url if user is None else valkey.url_for(user))

    def publish(self, stream: Stream, envelope: bytes) -> None:
        key = names.table_key(stream)
        for field, value in (("epoch", b"1"), ("digest", digest(envelope).encode()), ("envelope", envelope)):
            self._redis.hset(key, field, value)
        self._redis.publish(names.hint_channel(stream), 1)

    def lie(self, stream: Stream, digest: str) -> None:
        self._redis.hset(names.table_key(stream), names.TABLE_DIGEST, digest)

    def spoil(self, stream: Stream) -> None:
        self._redis.set(names.table_key(stream), "a text")

    def reports(self, stream: Stream) -> dict[str, bytes]:
        return self._hash(names.reports_key(stream, self._reporter))

    def key_reports(self, stream: Stream) -> dict[str, bytes]:
        return self._hash(names.key_reports_key(stream, self._reporter))

    def refuse_reports(self, stream: Stream) -> None:
        for key_of in (names.reports_key, names.key_reports_key):
            self._redis.set(key_of(stream, self._reporter), "a text")

    def key_reports_stand(self, stream: Stream) -> float:
        left: Any = self._redis.pttl(names.key_reports_key(stream, self._reporter))
        return left / 1_000 if left >= 0 else float("inf")

    def shorten(self, stream: Stream, seconds: float) -> None:
        self._redis.pexpire(names.key_reports_key(stream, self._reporter), int(seconds * 1_000))

    def _hash(self, key: str) -> dict[str, bytes]:
        found: dict[Any, Any] = self._redis.hgetall(key)
        return {client.decode(): report for client, report in found.items()}

    def go_down(self) -> None:
        self._valkey.kill()

    def come_back(self) -> None:
        self._valkey.restart()

    def close(self) -> None:
        self.store.close()
        self._redis.close()


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    place = Place(tmp_path_factory.mktemp("valkey"), tied=True)
    place.make()
    part = Valkey(place, free_ports(1, random.Random())[0], persistent=False)
    part.start()
    yield part
    part.stop()


@pytest.fixture(params=["memory", "valkey"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        yield MemoryWorld()
        return
    part: Valkey = request.getfixturevalue("valkey")
    part.wipe()
    real = ValkeyWorld(part)
    yield real
    real.close()
