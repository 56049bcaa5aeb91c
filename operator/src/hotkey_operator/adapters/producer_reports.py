"""What producers report of what they send (`hotkey.report.keys`): a `Meter`, and the keys they told.

Reports are not signed and clocks differ, so a report counts from the moment that it was seen here, and what
it claims is bounded. The worst that a wrong one does is a needless spread within the policy's limits, or one
that comes late: nothing of it is used for safety.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from hotkey_operator.engine.model import CountedKey, EndOffsets, KeyTally
from hotkey_operator.ports import Unavailable
from hotkey_sdk.routing.report import PARTITIONS_AT_MOST, HeavyKey, KeyReport, PartitionCount
from hotkey_sdk.routing.table import Stream

SILENT_SECONDS = 6.0  # a producer that reports every 2 to 3 s is not waited for any longer
WINDOW_SECONDS_AT_MOST = 10.0  # a report over more says nothing of now
POLL_SECONDS = 1.0  # how long a report may have waited before it is seen here
RECORDS_PER_SECOND_AT_MOST = 1e7  # of one producer to one partition; more is not believed
BYTES_PER_SECOND_AT_MOST = 1e11
KEYS_KEPT = 64  # of each partition
CLIENTS_AT_MOST = 5_000  # of a stream
_ANEW_SECONDS = 0.5  # one turn reads the reports once
_IDLE_SECONDS = 300.0  # a stream that nobody asked for is forgotten
_DEAD_SECONDS = 60.0  # a report that stood still for so long is of a producer that is no more

Read = Callable[[Stream], Awaitable[tuple[KeyReport, ...]]]
Forget = Callable[[Stream, Sequence[str]], Awaitable[None]]
Totals = Mapping[int, float]  # records by partition


class ProducerReports:
    """The reports of all streams that are asked for.

    `read` gives those of one; `forget` removes those of dead producers, which would take the place of others.
    """

    def __init__(
        self, read: Read, clock: Callable[[], float] = time.time, forget: Forget | None = None
    ) -> None:
        self._read = read
        self._clock = clock
        self._forget = forget
        self._books: dict[Stream, _Book] = {}

    def meter(self, stream: Stream) -> ProducersMeter:
        """What counts the records of `stream`."""
        return ProducersMeter(self, stream)

    async def ledger(self, stream: Stream, partitions: int) -> Ledger:
        """The stream's ledger with what was reported by now of so many partitions. Raises `Unavailable`."""
        book = self._books.setdefault(stream, _Book())
        book.asked_at = self._clock()
        async with book.reading:
            if not 0 <= self._clock() - book.ledger.seen_at < _ANEW_SECONDS:
                reports = await self._read(stream)
                book.ledger.see((_within(report, partitions) for report in reports), self._clock())
                await self._forget_dead(stream, book.ledger)
                self._forget_idle(self._clock())
        return book.ledger

    async def tallies(self, stream: Stream, partitions: int) -> tuple[KeyTally, ...]:
        """What producers tell of each partition's keys. Raises `Unavailable`."""
        return (await self.ledger(stream, partitions)).tallies(partitions)

    def _forget_idle(self, now: float) -> None:
        idle = [s for s, book in self._books.items() if now - book.asked_at > _IDLE_SECONDS]
        for stream in idle:
            if not self._books[stream].reading.locked():
                del self._books[stream]

    async def _forget_dead(self, stream: Stream, ledger: Ledger) -> None:
        dead = ledger.dead()
        if dead and self._forget is not None:
            with contextlib.suppress(Unavailable):  # the next turn finds them again
                await self._forget(stream, dead)


class ProducersMeter:
    """The sum of what producers counted. It sees nothing of producers that do not report."""

    def __init__(self, reports: ProducerReports, stream: Stream) -> None:
        self._reports = reports
        self._stream = stream

    async def end_offsets(self, name: str, partitions: int) -> EndOffsets:
        ledger = await self._reports.ledger(self._stream, partitions)
        if not ledger.is_fed:
            raise Unavailable(
                f"no producer tells what it sends to {name}: set hotkey.report.keys=true on its producers "
                "(hotkey_sdk), and see that they reach Redis"
            )
        return ledger.reading(partitions)


def _within(report: KeyReport, partitions: int) -> KeyReport:
    """The report of the partitions that there are: what is told of others is nobody's, and may be much."""
    there = tuple(count for count in report.partitions if count.partition < partitions)
    if len(there) == len(report.partitions):
        return report
    return msgspec.structs.replace(report, partitions=there)


@dataclass(slots=True)
class _Client:
    """One producer: its last report, when that was seen, and what it had sent by then.

    No more partitions are kept than a report names.
    """

    report: KeyReport
    seen_at: float
    totals: dict[int, float] = field(default_factory=dict)  # records by partition, since it was first seen
    before_at: float = 0.0  # when the report before was seen, and what had been sent by then
    before: dict[int, float] = field(default_factory=dict)

    def see(self, report: KeyReport, now: float) -> dict[int, float]:
        """Take up a report; what was sent to the partitions that it does not name any more."""
        if report == self.report:
            return {}
        sent = _sent(self.report, report, now - self.seen_at)
        named = {count.partition for count in report.partitions}
        left = {p: total for p, total in self.totals.items() if p not in named}
        self.before_at, self.before = self.seen_at, self.totals
        self.totals = {p: self.totals.get(p, 0.0) + sent.get(p, 0.0) for p in named}
        self.report, self.seen_at = report, now
        return left

    def add_at(self, at: float, to: dict[int, float]) -> None:
        """Add what it sent by `at`: in a straight line between its reports."""
        span = self.seen_at - self.before_at
        part = min(1.0, max(0.0, (at - self.before_at) / span)) if span > 0 else 1.0
        for partition, total in self.totals.items():
            low = self.before.get(partition, 0.0)
            to[partition] += low + (total - low) * part


def _sent(old: KeyReport, new: KeyReport, seconds: float) -> dict[int, float]:
    """Records by partition between two reports; none where the counters began anew."""
    known = {count.partition: count.records for count in old.partitions}
    grown = {c.partition: c.records - known.get(c.partition, _unnamed(old, c)) for c in new.partitions}
    if new.started != old.started or any(records < 0 for records in grown.values()):
        return {}
    most = RECORDS_PER_SECOND_AT_MOST * max(1.0, seconds)
    return {partition: min(float(records), most) for partition, records in grown.items() if records}


def _unnamed(old: KeyReport, count: PartitionCount) -> int:
    """What was sent before to a partition that the last report did not name.

    It may be new, or have been left out: a report has room for so many, and of partitions that were not known
    here yet nothing was kept. Then what was sent in its window is about what was sent since.
    """
    is_full = len(old.partitions) >= PARTITIONS_AT_MOST
    return max(0, count.records - count.window_records) if is_full or count.window_records else 0


class Ledger:
    """The reports of one stream, added up. Times are of the operator's clock: when a report was first seen.

    A producer counts from its second report on, so that one seen for the first time makes no jump.
    """

    def __init__(self) -> None:
        self.seen_at = float("-inf")
        self._clients: dict[str, _Client] = {}
        self._gone: dict[int, float] = defaultdict(float)  # records that no client's totals hold any more
        self._last: EndOffsets | None = None

    @property
    def is_fed(self) -> bool:
        """Whether any producer reported lately."""
        return any(True for _ in self._live())

    def see(self, reports: Iterable[KeyReport], now: float) -> None:
        """Take up what stands there at `now` (unix seconds)."""
        if now < self.seen_at:  # the clock was set back: what is known is of other times
            self.__init__()  # type: ignore[misc]
        found = {report.client_id: report for report in reports}
        for client_id in [client_id for client_id in self._clients if client_id not in found]:
            self._keep(self._clients.pop(client_id).totals)
        for client_id, report in found.items():
            if client_id in self._clients:
                self._keep(self._clients[client_id].see(report, now))
            elif len(self._clients) < CLIENTS_AT_MOST:
                self._clients[client_id] = _Client(report, now, before_at=now)
        self.seen_at = now

    def _keep(self, totals: Totals) -> None:
        for partition, total in totals.items():
            self._gone[partition] += total

    def reading(self, partitions: int) -> EndOffsets:
        """The records of each partition, at the last moment of which all producers have told."""
        at = min(client.seen_at for client in self._live())
        if self._last is not None and len(self._last.offsets) == partitions and at <= self._last.at:
            return self._last
        sums: dict[int, float] = defaultdict(float, self._gone)
        for client in self._clients.values():
            client.add_at(at, sums)
        last = self._last.offsets if self._last else ()
        floor = (last[p] if p < len(last) else 0 for p in range(partitions))
        self._last = EndOffsets(at, tuple(max(int(sums[p]), low) for p, low in enumerate(floor)))
        return self._last

    def tallies(self, partitions: int) -> tuple[KeyTally, ...]:
        """What the last report of each producer says, added up by partition."""
        told: dict[int, list[_Told]] = defaultdict(list)
        for client in self._live():
            seconds = client.report.window_seconds
            if 0 < seconds <= WINDOW_SECONDS_AT_MOST:
                began = client.seen_at - seconds - POLL_SECONDS
                for count in client.report.partitions:
                    if count.partition < partitions and count.window_records and count.samples:
                        told[count.partition].append(_Told(count, began, seconds))
        return tuple(_tally(partition, each) for partition, each in sorted(told.items()))

    def dead(self) -> tuple[str, ...]:
        """The producers whose report has long been the same: one that lives tells a new time in each."""
        return tuple(
            client_id for client_id, c in self._clients.items() if self.seen_at - c.seen_at > _DEAD_SECONDS
        )

    def _live(self) -> Iterable[_Client]:
        return (c for c in self._clients.values() if self.seen_at - c.seen_at < SILENT_SECONDS)


@dataclass(slots=True)
class _Book:
    """A stream's ledger, who reads into it, and when it was last asked for."""

    ledger: Ledger = field(default_factory=Ledger)
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked_at: float = float("-inf")


@dataclass(frozen=True, slots=True)
class _Told:
    """What one producer says of one partition, over a window of `seconds` that began at `began`."""

    count: PartitionCount
    began: float
    seconds: float

    @property
    def records_per_second(self) -> float:
        return min(self.count.window_records / self.seconds, RECORDS_PER_SECOND_AT_MOST)

    @property
    def bytes_per_second(self) -> float:
        return min(self.count.window_bytes / self.seconds, BYTES_PER_SECOND_AT_MOST)

    @property
    def unlisted(self) -> float:
        return min(self.count.unlisted / self.seconds, self.records_per_second)

    def counted(self, key: HeavyKey) -> CountedKey:
        """A key of it, never more than the whole."""
        records = min(key.records / self.seconds, self.records_per_second)
        return CountedKey(
            records,
            min(key.size_bytes / self.seconds, self.bytes_per_second),
            min(key.missed / self.seconds, self.records_per_second - records),
        )


def _tally(partition: int, told: list[_Told]) -> KeyTally:
    keys: dict[bytes, CountedKey] = {}
    listed: dict[bytes, float] = defaultdict(float)  # of `unlisted`, by those who list the key
    for each in told:
        for key in each.count.keys:
            found, known = each.counted(key), keys.get(key.key, CountedKey(0.0, 0.0, 0.0))
            listed[key.key] += each.unlisted
            keys[key.key] = CountedKey(
                known.records_per_second + found.records_per_second,
                known.bytes_per_second + found.bytes_per_second,
                known.missed + found.missed,
            )
    unlisted = sum(each.unlisted for each in told)
    heaviest = sorted(keys, key=lambda key: (-keys[key].records_per_second, key))
    return KeyTally(
        partition,
        since=min(each.began for each in told),
        records_per_second=sum(each.records_per_second for each in told),
        bytes_per_second=sum(each.bytes_per_second for each in told),
        samples=sum(min(each.count.samples, each.count.window_records) for each in told),
        unlisted=max([unlisted, *(keys[key].records_per_second for key in heaviest[KEYS_KEPT:])]),
        keys={
            key: CountedKey(
                keys[key].records_per_second,
                keys[key].bytes_per_second,
                keys[key].missed + unlisted - listed[key],
            )
            for key in heaviest[:KEYS_KEPT]
        },
    )
