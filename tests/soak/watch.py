"""What is seen from outside while a soak runs: each table in its turn, and whether all know the same one."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import redis
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from hotkey_sdk.routing.report import decode_report
from hotkey_sdk.routing.table import Route, Table
from tests.soak.world import POLICY, TOPIC, World

LOOK_SECONDS = 0.25
SPREAD, MERGED, ANEW = "spread", "merged back", "planned anew"
TO_OWN, FROM_OWN = "to a dedicated topic", "back from a dedicated topic"


def route_changes(before: Table, after: Table) -> Iterator[str]:
    """The kind of each change of a key's route from one table to the next."""
    old = {route.key: route for route in before.routes}
    new = {route.key: route for route in after.routes}
    for key in old.keys() | new.keys():
        kind = _kind(old.get(key), new.get(key), after.stream.topic)
        if kind:
            yield kind


def _kind(old: Route | None, new: Route | None, base: str) -> str | None:
    was_own = old is not None and old.topic != base
    is_own = new is not None and new.topic != base
    if was_own != is_own:
        return TO_OWN if is_own else FROM_OWN
    if old is None:
        return SPREAD
    if new is None:
        return MERGED
    return ANEW if old != new else None


@dataclass(frozen=True, slots=True)
class Agreement:
    """Which epoch each has; `clients` by the names under which those that run report."""

    stored: int
    published: int
    clients: dict[str, int]
    ready: tuple[str, str, str]

    @property
    def holds(self) -> bool:
        """Whether all have the same one, and the policy is ready."""
        same = {self.stored, self.published, *self.clients.values()} == {self.stored}
        return same and self.ready[0] == "True"

    def __str__(self) -> str:
        others = {name: epoch for name, epoch in self.clients.items() if epoch != self.stored}
        told = f"object {self.stored}, Redis {self.published}, all clients but {others or 'none'} have it"
        return f"{told}; Ready: {' '.join(self.ready)}"


class Watch:
    """A thread that looks at the RoutingTable object all the time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.changes: Counter[str] = Counter()
        self.keys_of_own: frozenset[str] = frozenset()
        self.went_back: list[str] = []
        self.table: Table | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                found = self._world.scene.table(POLICY)
            except (AssertionError, ApiException, HTTPError, OSError, ValueError):
                continue  # the API server is away
            if found is not None:
                self._see(found)

    def _see(self, found: Table) -> None:
        before, self.table = self.table, found
        if before is None or before.epoch == found.epoch:
            return
        if found.epoch < before.epoch:
            self.went_back.append(f"the object's epoch went from {before.epoch} to {found.epoch}")
        own = (route.key for route in found.routes if route.topic != TOPIC)
        self.keys_of_own = frozenset(key.decode() for key in own)
        self.changes.update(route_changes(before, found))

    def _reports(self) -> dict[str, int]:
        """The epoch that each client reports, under whichever user it logs in."""
        found: dict[str, int] = {}
        with self._world.scene.redis() as connection:
            for key in connection.scan_iter(f"hotkey:{{{self._world.scene.stream(TOPIC)}}}:reports*"):
                held: Any = connection.hgetall(key)
                found |= {name.decode(): decode_report(data).epoch for name, data in held.items()}
        return found

    def agreement(self) -> Agreement | None:
        """Who knows which epoch now; None while somebody who would have to be asked does not answer."""
        world = self._world
        try:
            stored, published = world.scene.table(POLICY), world.scene.published(TOPIC)
            reports = self._reports()
            ready = world.scene.condition(POLICY)
        except (AssertionError, ApiException, HTTPError, OSError, redis.RedisError):
            return None
        clients = [each.client_id for each in world.aggregators]
        clients += [each.client_id for each in world.producers]
        return Agreement(
            stored.epoch if stored else 0,
            published.epoch if published else 0,
            {client: reports.get(client, 0) for client in clients},
            ready,
        )
