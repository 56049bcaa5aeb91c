"""The deciding parts of a run that a test may replace, each with the real one as its default.

What decides inside the operator's engine is no part here: whoever breaks that on purpose patches the engine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from hotkey_aggregator.columns import Record
from hotkey_aggregator.store import Committed, Flush
from hotkey_sdk._read_set import ReadSet
from hotkey_sdk.routing.envelope import PublicKeys
from hotkey_sdk.routing.follower import Follower, Outcome
from hotkey_sdk.routing.resend import Resends
from hotkey_sdk.routing.router import Destination, Router
from hotkey_sdk.routing.table import Stream
from tests.contract.aggregator.model_store import ModelStore


class Following(Protocol):
    """What a client follows the tables with; `follower` holds the current one."""

    follower: Follower

    def offer(self, data: bytes) -> Outcome: ...


class RealFollower:
    """The product's follower."""

    def __init__(self, stream: Stream, keys: PublicKeys) -> None:
        self.follower = Follower(stream, keys)

    def offer(self, data: bytes) -> Outcome:
        return self.follower.offer(data)


def as_the_table_says(router: Router, key: bytes, user: str, slot: int) -> Destination | None:
    """The product's choice. `slot`: any integer, the same for a batch."""
    return router.route(key, {"user_id": user}, slot=slot)


def base_and_read_set(base: str, added: frozenset[str]) -> frozenset[str]:
    """The topics that a consumer reads: the base topic always, and what the read set adds to it."""
    return added | {base}


def earliest(first: int, end: int) -> int:
    """Where a consumer begins on a partition of which neither the sink nor the group has a position."""
    return first


Pause = Callable[[], Awaitable[None]]


async def in_one_transaction(store: ModelStore, flush: Flush, pause: Pause) -> Committed:
    """Commit a flush. `pause`: time passes there, and whoever flushes may be killed or frozen in it."""
    return store.commit(flush)


def as_the_payload_says(record: Record) -> Record:
    """The record that is counted: as it was read."""
    return record


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a run.

    Of a producer: `make_follower` (of a consumer too), `choose` (where a record goes; None: to the base
    topic), `make_resends` (arguments as those of `Resends`), `idempotent` (`enable.idempotence`).

    Of a consumer: `make_read_set` (given the clock), `subscribe` (base topic and what the read set adds to
    what it reads), `start` (first and end offset to where it begins without any position), `commits_starts`
    (the start positions of new partitions of dedicated topics), `counted_as` (what is taken of a record).

    Of the sink: `make_store`, `commit`.
    """

    make_follower: Callable[[Stream, PublicKeys], Following] = RealFollower
    choose: Callable[[Router, bytes, str, int], Destination | None] = as_the_table_says
    make_resends: Callable[..., Resends[Any]] = Resends
    idempotent: bool = True
    make_read_set: Callable[[Callable[[], float]], ReadSet] = ReadSet
    subscribe: Callable[[str, frozenset[str]], frozenset[str]] = base_and_read_set
    start: Callable[[int, int], int] = earliest
    commits_starts: bool = True
    counted_as: Callable[[Record], Record] = as_the_payload_says
    make_store: Callable[[], ModelStore] = ModelStore
    commit: Callable[[ModelStore, Flush, Pause], Awaitable[Committed]] = in_one_transaction


REAL = Parts()
