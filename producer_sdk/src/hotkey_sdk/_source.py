"""Follows the tables of a client's topics in the background, and reports which epoch the client applies.

A thread of its own per client; nothing of it is ever on the path of a record. Whatever the store does, the
last good table stays: what is wrong with it is counted, and logged when it changes. It must not know Kafka.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from hotkey_sdk._key_counts import KeyCounts
from hotkey_sdk._key_file import KeyFile
from hotkey_sdk._settings import Settings
from hotkey_sdk._stats import SourceStats, TableStats
from hotkey_sdk._store import Found, ReportRefusedError, StoreUnavailableError, TableStore
from hotkey_sdk.routing import envelope
from hotkey_sdk.routing.follower import Follower, Outcome
from hotkey_sdk.routing.report import ClientReport, Role, encode_key_report, encode_report
from hotkey_sdk.routing.router import Router
from hotkey_sdk.routing.table import Stream

REPORT_SECONDS = 3.0
KEY_REPORT_SECONDS = 2.0
_SLICE_SECONDS = 0.1  # how long a newly asked topic or a close may wait for the hint listener
_HINT_PAUSE_SECONDS = 0.01  # a flood of hints must not turn into a flood of reads
_IDENTIFY_SECONDS = 0.25  # pause between two questions for the cluster's id, and after a defect
_JITTER = (0.75, 1.25)

WAITING, CURRENT, MISSING = "Waiting", "Current", "Missing"
_STATES = {
    "missing": MISSING,
    "too big": Outcome.TOO_BIG.value,
    "wrong type": "WrongType",
    "unchanged": CURRENT,
}

log = logging.getLogger("hotkey_sdk")


@dataclass(slots=True)
class _Followed:
    follower: Follower
    digest: str = ""  # of the envelope that was offered last
    adopted_epoch: int = 0  # of the table that the client has; the follower's is ahead while it takes one up
    state: str = WAITING
    outcomes: Counter[str] = field(default_factory=Counter)


class TableSource:
    """The tables of one client.

    `identify` gives the Kafka cluster's id, or None while it cannot tell. `adopt` is called in the thread for
    each new table. `applied`, topic to epoch, is what is
    reported: the source sets it after `adopt` unless `applies_itself`, when the client sets it. `key_counts`:
    what the client sends, where it tells that too. `meanwhile` is called now and then, while the store is
    waited for too.
    """

    def __init__(
        self,
        settings: Settings,
        role: Role,
        store: Callable[[], TableStore],
        identify: Callable[[], str | None],
        adopt: Callable[[str, Router], None],
        *,
        group: str | None = None,
        applies_itself: bool = False,
        meanwhile: Callable[[], None] = lambda: None,
        key_counts: KeyCounts | None = None,
    ) -> None:
        self.applied: dict[str, int] = {}
        self._settings = settings
        self._role = role
        self._group = group
        self._make_store = store
        self._store: TableStore | None = None
        self._identify = identify
        self._adopt = adopt
        self._applies_itself = applies_itself
        self._meanwhile = meanwhile
        self._cluster_id = settings.cluster_id
        self._asked: deque[str] = deque()
        self._followed: dict[str, _Followed] = {}
        self._reachable: bool | None = None
        self._failures = 0
        file = settings.public_keys_file
        self._key_file = KeyFile(file, settings.public_keys) if file is not None else None
        self._keys = settings.public_keys
        self._refused: set[str] = set()  # kinds of reports that the store does not take
        self._reported: tuple[float, dict[str, int]] = (float("-inf"), {})
        self._key_counts = key_counts
        self._keys_reported_at = float("-inf")
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def follow(self, topics: Iterable[str]) -> None:
        """Follow these topics too; returns at once, from any thread."""
        self._asked.extend(topics)
        self._wake.set()
        with self._starting:
            if self._thread is None and self._asked and not self._stop.is_set():
                name = f"hotkey-{self._role}-tables"
                self._thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Ask the thread to withdraw its reports and to end; returns at once."""
        self._stop.set()
        self._wake.set()

    def close(self, timeout_seconds: float = 3.0) -> None:
        """Stop and wait for the thread, but no longer than that."""
        self.stop()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_seconds)

    def stats(self) -> SourceStats:
        """What was followed and counted so far."""
        tables = tuple(
            TableStats(
                topic=topic,
                cluster_id=self._cluster_id,
                epoch=followed.adopted_epoch,
                state=followed.state,
                outcomes=dict(followed.outcomes),
            )
            for topic, followed in sorted(self._followed.copy().items())
        )
        return SourceStats(tables=tables, reachable=self._reachable, failures=self._failures)

    def turn(self, now: float) -> None:
        """Read, adopt and report once; `now` in unix seconds. Never raises for what the store does."""
        if self._cluster_id is None:
            self._cluster_id = self._identify()
        self._look_at_keys()
        if self._cluster_id is not None:
            self._accept_asked(self._cluster_id)
            try:
                self._read()
                self._report(now)
                self._report_keys(now)
            except StoreUnavailableError as error:
                self._unreachable(str(error))
            else:
                self._reached()

    def _look_at_keys(self) -> None:
        """Take up keys that changed, and look again at tables that the former ones may have refused."""
        if self._key_file is None:
            return
        before = self._key_file.refusal
        keys = self._key_file.look()
        if (refusal := self._key_file.refusal) and not before:
            log.warning("event=public_keys_unreadable keeping=former_keys why=%r", refusal[:500])
        if keys is None:
            return
        self._keys = keys
        for followed in self._followed.values():
            followed.follower.trust(keys)
            followed.digest = ""
        log.info("event=public_keys_changed trusted=%s", ",".join(sorted(keys.by_id)))

    def _accept_asked(self, cluster_id: str) -> None:
        while self._asked:
            topic = self._asked.popleft()
            if topic not in self._followed:
                settings = self._settings
                stream = Stream(cluster_id, topic)
                follower = Follower(stream, self._keys, settings.allow_unsigned)
                self._followed[topic] = _Followed(follower)

    def _read(self) -> None:
        if self._store is None:
            self._store = self._make_store()
        known = {followed.follower.stream: followed.digest for followed in self._followed.values()}
        for stream, found in self._store.read(known).items():
            self._consider(stream.topic, self._followed[stream.topic], found)

    def _consider(self, topic: str, followed: _Followed, found: Found) -> None:
        if found.envelope is None:
            if found.why != "unchanged":
                followed.digest = ""
                self._now_in(followed, _STATES.get(found.why, "Refused"), found.why)
            return
        outcome = followed.follower.offer(found.envelope)
        followed.digest = envelope.digest(found.envelope)
        followed.outcomes[outcome.value] += 1
        if outcome is Outcome.ADOPTED and followed.follower.router is not None:
            self._install(topic, followed, followed.follower.router)
        good = outcome in (Outcome.ADOPTED, Outcome.SAME)
        self._now_in(followed, CURRENT if good else outcome.value, followed.follower.refusal)

    def _install(self, topic: str, followed: _Followed, router: Router) -> None:
        self._adopt(topic, router)
        followed.adopted_epoch = router.table.epoch
        if not self._applies_itself:
            self.applied[topic] = router.table.epoch
        log.info(
            "event=table_adopted topic=%s epoch=%d routes=%d",
            topic,
            router.table.epoch,
            len(router.table.routes),
        )

    def _now_in(self, followed: _Followed, state: str, why: str) -> None:
        before, followed.state = followed.state, state
        if state == before or (state == MISSING and before == WAITING):
            return  # a topic without a policy has no table, and nobody need act on that
        stream, epoch = followed.follower.stream, followed.follower.epoch
        if state == CURRENT:
            if before not in (WAITING, MISSING):
                log.info("event=table_good_again stream=%s epoch=%d", stream, epoch)
            return
        log.warning(
            "event=table_refused stream=%s state=%s kept_epoch=%d why=%r", stream, state, epoch, why[:500]
        )

    def _report(self, now: float) -> None:
        sent_at, sent = self._reported
        applied = {topic: self.applied.get(topic, 0) for topic in self._followed}
        if applied == sent and 0 <= now - sent_at < REPORT_SECONDS:
            return
        client_id = self._settings.client_id
        reports = {
            self._followed[topic].follower.stream: encode_report(
                ClientReport(client_id, self._role, epoch, now, self._group)
            )
            for topic, epoch in applied.items()
        }
        if self._store is not None:
            store = self._store
            self._tell("epoch", lambda: store.report(reports, client_id))
            self._reported = (now, applied)

    def _report_keys(self, now: float) -> None:
        counts = self._key_counts
        if counts is None or self._store is None or 0 <= now - self._keys_reported_at < KEY_REPORT_SECONDS:
            return
        found = {
            followed.follower.stream: counts.report(topic, self._settings.client_id, now)
            for topic, followed in self._followed.items()
        }
        counts.adjust(now)
        self._keys_reported_at = now
        reports = {stream: encode_key_report(report) for stream, report in found.items() if report}
        store, client_id = self._store, self._settings.client_id
        self._tell("keys", lambda: store.report_keys(reports, client_id))

    def _tell(self, what: str, report: Callable[[], None]) -> None:
        """Report; where that is refused tables are followed all the same, and it is logged when it begins."""
        try:
            report()
        except ReportRefusedError as error:
            if what not in self._refused:
                log.warning("event=report_refused what=%s why=%r", what, str(error)[:500])
            self._refused.add(what)
        else:
            self._refused.discard(what)

    def _unreachable(self, why: str) -> None:
        self._failures += 1
        if self._reachable is not False:
            self._reachable = False
            log.warning("event=table_store_unreachable keeping=last_good_tables why=%r", why[:500])

    def _reached(self) -> None:
        if self._reachable is False:
            log.info("event=table_store_reachable_again failures=%d", self._failures)
        self._reachable = True

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                self.turn(time.time())
                self._rest()
            except Exception:  # a defect here must not end the thread: the next table may be good
                log.exception("event=table_source_failed")
                self._wake.wait(_IDENTIFY_SECONDS)
        self._end()

    def _rest(self) -> None:
        """Wait for a hint, for the next poll, or for something new to follow."""
        pause = self._settings.poll_interval_seconds * random.uniform(*_JITTER)
        deadline = time.monotonic() + (pause if self._cluster_id else min(pause, _IDENTIFY_SECONDS))
        while not self._wake.is_set() and (left := deadline - time.monotonic()) > 0:
            self._meanwhile()
            if self._store is None or not self._followed or not self._reachable:
                self._wake.wait(left)
                continue
            try:
                streams = [followed.follower.stream for followed in self._followed.values()]
                if self._store.wait_for_hint(streams, min(left, _SLICE_SECONDS)):
                    self._stop.wait(_HINT_PAUSE_SECONDS)
                    return
            except StoreUnavailableError:
                self._wake.wait(left)  # the poll will say more

    def _end(self) -> None:
        if self._store is None:
            return
        with contextlib.suppress(StoreUnavailableError):
            if self._reachable and self._reported[1]:
                streams = [followed.follower.stream for followed in self._followed.values()]
                self._store.withdraw(streams, self._settings.client_id)
        self._store.close()
