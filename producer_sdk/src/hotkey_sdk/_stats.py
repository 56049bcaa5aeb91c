"""What a client counted, as values to look at. Counters only grow; they are exact under a GIL."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class TableStats(msgspec.Struct, frozen=True):
    """One followed stream.

    `epoch`: of the current table, 0 before the first. `state`: Waiting, Current, Missing, WrongType, Refused
    (by the store), or the `Outcome` for which the last envelope was not adopted. `outcomes`: how often each
    came.
    """

    topic: str
    cluster_id: str | None
    epoch: int
    state: str
    outcomes: Mapping[str, int]


class SourceStats(msgspec.Struct, frozen=True):
    """The tables that a client follows, and how the place they come from behaves."""

    tables: tuple[TableStats, ...] = ()
    reachable: bool | None = None  # None: not yet asked
    failures: int = 0  # turns in which the store did not answer


class ProducerStats(msgspec.Struct, frozen=True):
    """What a producer did. Records that were sent unchanged are not counted: nothing was done to them."""

    routed: int = 0  # records sent to a shard
    missing_dimension: int = 0  # of them, records that lacked a dimension of the route (hashed as empty)
    fell_back: int = 0  # records whose shard's partition or topic cannot be used, sent under the plain key
    not_durable: int = 0  # routes not taken: acks, idempotence or reports too weak for a topic of their own
    sent_again: int = 0  # records that a dedicated topic refused, and those that waited behind them
    waiting: int = 0  # of such records, those that are still to be sent to the base topic
    refused_topics: Mapping[str, str] = {}  # dedicated topics that are not written to, and why
    source: SourceStats = SourceStats()
    path: str = "pure"  # of a record: in Python, or "compiled"
    partitioner_agrees: bool | None = None  # of the start-up self-test; None: not yet run


class ConsumerStats(msgspec.Struct, frozen=True):
    """What a consumer reads beside the topics that it was told to subscribe to."""

    added_topics: tuple[str, ...] = ()
    start_positions_pending: int = 0  # partitions of added topics whose start position is not yet committed
    source: SourceStats = SourceStats()
