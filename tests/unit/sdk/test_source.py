"""Following tables: the last good one stays whatever the store does.

What is wrong is counted, and logged once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hotkey_sdk._key_counts import KeyCounts
from hotkey_sdk._settings import Settings
from hotkey_sdk._source import KEY_REPORT_SECONDS, REPORT_SECONDS, TableSource
from hotkey_sdk._stats import TableStats
from hotkey_sdk.routing import codec
from hotkey_sdk.routing.envelope import PublicKeys, SigningKey, seal
from hotkey_sdk.routing.report import ClientReport, KeyReport, Role, decode_key_report, decode_report
from hotkey_sdk.routing.router import Router
from hotkey_sdk.routing.table import Stream, Table
from tests.contract.sdk.memory_store import MemoryStore
from tests.unit.sdk.tables import STREAM, route, table

KEY = SigningKey.from_bytes(bytes(range(32)))


@dataclass
class Followed:
    """A source whose turns the test takes itself, and what it adopted."""

    store: MemoryStore = field(default_factory=MemoryStore)
    adopted: list[tuple[str, int]] = field(default_factory=list)
    cluster_id: str | None = STREAM.cluster_id
    now: float = 1000.0
    applies_itself: bool = False
    key_counts: KeyCounts | None = None
    key_file: Path | None = None

    def __post_init__(self) -> None:
        settings = Settings(
            "redis://unused",
            "client-1",
            PublicKeys.of([KEY]),
            poll_interval_seconds=3600,
            public_keys_file=self.key_file,
        )
        self.source = TableSource(
            settings,
            Role.PRODUCER,
            store=lambda: self.store,
            identify=lambda: self.cluster_id,
            adopt=self._adopt,
            applies_itself=self.applies_itself,
            key_counts=self.key_counts,
        )
        self.source._asked.append(STREAM.topic)  # follow() would start the thread

    def _adopt(self, topic: str, router: Router) -> None:
        self.adopted.append((topic, router.table.epoch))

    def turn(self, seconds: float = 1.0) -> TableStats:
        self.now += seconds
        self.source.turn(self.now)
        return self.source.stats().tables[0]

    def report(self) -> ClientReport:
        return decode_report(self.store.reports_of[STREAM]["client-1"])


def sealed(of: Table) -> bytes:
    return seal(codec.encode(of), KEY)


@pytest.fixture
def followed() -> Followed:
    return Followed()


def test_a_published_table_is_adopted_once(followed: Followed) -> None:
    followed.store.publish(STREAM, sealed(table(route(), epoch=5)))

    states = [followed.turn() for _ in range(3)]

    assert followed.adopted == [("clicks", 5)]
    assert {(each.state, each.epoch) for each in states} == {("Current", 5)}
    assert states[-1].outcomes == {"Adopted": 1}


def test_an_epoch_is_told_only_once_the_client_has_its_table(followed: Followed) -> None:
    followed.turn()
    followed.store.publish(STREAM, sealed(table(route(), epoch=5)))
    told: list[int] = []

    def adopt(topic: str, router: Router) -> None:
        told.append(followed.source.stats().tables[0].epoch)

    followed.source._adopt = adopt

    assert followed.turn().epoch == 5
    assert told == [0]


def test_a_topic_without_a_table_is_nothing_to_talk_about(
    followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    assert followed.turn().state == "Missing"
    assert not caplog.records


def wiped(store: MemoryStore) -> None:
    store.envelopes.clear()


def spoiled(store: MemoryStore) -> None:
    store.wrong_types.add(STREAM)


def putting(envelope: bytes) -> Callable[[MemoryStore], None]:
    return lambda store: store.publish(STREAM, envelope)


BAD: dict[str, tuple[Callable[[MemoryStore], None], str]] = {
    "wiped": (wiped, "Missing"),
    "a wrong type": (spoiled, "WrongType"),
    "10 MB": (putting(b"x" * 10_000_000), "TooBig"),
    "nonsense": (putting(b"nonsense"), "Malformed"),
    "truncated": (putting(sealed(table(epoch=9))[:-3]), "Malformed"),
    "unsigned": (putting(seal(codec.encode(table(epoch=9)), None)), "BadSignature"),
    "a foreign key": (
        putting(seal(codec.encode(table(epoch=9)), SigningKey.from_bytes(bytes(32)))),
        "BadSignature",
    ),
    "another stream": (putting(sealed(table(epoch=9, stream=Stream("x", "clicks")))), "WrongStream"),
    "older": (putting(sealed(table(epoch=4))), "Older"),
}


@pytest.mark.parametrize(("spoil", "state"), BAD.values(), ids=BAD.keys())
def test_the_last_good_table_stays_and_the_trouble_is_logged_once(
    followed: Followed,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[MemoryStore], None],
    state: str,
) -> None:
    caplog.set_level(logging.WARNING)
    followed.store.publish(STREAM, sealed(table(route(), epoch=5)))
    followed.turn()

    spoil(followed.store)
    seen = [followed.turn() for _ in range(5)]

    assert {(each.state, each.epoch) for each in seen} == {(state, 5)}
    assert followed.adopted == [("clicks", 5)]
    assert len(caplog.records) == 1
    assert f"state={state}" in caplog.text
    assert "kept_epoch=5" in caplog.text
    followed.store.publish(STREAM, sealed(table(epoch=6)))
    assert followed.turn().state == "Current"
    assert followed.adopted[-1] == ("clicks", 6)


def test_a_new_key_in_the_file_lets_a_table_in_that_was_refused_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    newer = SigningKey.from_bytes(bytes(32))
    file = tmp_path / "public.keys"
    file.write_text(KEY.public_line)
    followed = Followed(key_file=file)
    followed.store.publish(STREAM, sealed(table(epoch=5)))
    assert followed.turn().state == "Current"
    followed.store.publish(STREAM, seal(codec.encode(table(epoch=6)), newer))
    assert followed.turn().state == "BadSignature"

    file.write_text(f"{KEY.public_line}\n{newer.public_line}")
    assert (followed.turn().state, followed.adopted) == ("Current", [("clicks", 5), ("clicks", 6)])

    file.write_text(newer.public_line)
    followed.store.publish(STREAM, sealed(table(epoch=7)))
    assert (followed.turn().state, followed.turn().epoch) == ("BadSignature", 6)
    file.unlink()
    assert [followed.turn().epoch for _ in range(3)] == [6, 6, 6]
    words = [record.getMessage().split()[0] for record in caplog.records]
    assert words.count("event=public_keys_changed") == 2
    assert words.count("event=public_keys_unreadable") == 1


def test_a_store_that_is_down_is_counted_and_logged_once_each_way(
    followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    followed.store.publish(STREAM, sealed(table(epoch=5)))
    followed.turn()
    caplog.clear()

    followed.store.down = True
    down = [followed.turn() for _ in range(4)]
    followed.store.down = False
    followed.turn()

    assert {each.epoch for each in down} == {5}
    assert followed.source.stats().failures == 4
    events = [record.getMessage().split()[0] for record in caplog.records]
    assert events == ["event=table_store_unreachable", "event=table_store_reachable_again"]


def test_nothing_is_asked_before_the_cluster_is_known(followed: Followed) -> None:
    followed.cluster_id = None
    followed.source.turn(1.0)
    assert followed.source.stats().tables == ()

    followed.cluster_id = "cluster-1"
    followed.store.publish(STREAM, sealed(table(epoch=5)))
    assert followed.turn().epoch == 5


def test_the_client_reports_at_once_at_every_change_and_now_and_then(followed: Followed) -> None:
    followed.turn()
    first = followed.report()
    followed.turn(REPORT_SECONDS / 3)
    assert followed.report() == first, "nothing changed"

    followed.store.publish(STREAM, sealed(table(epoch=5)))
    followed.turn(REPORT_SECONDS / 3)
    changed = followed.report()
    followed.turn(REPORT_SECONDS)

    assert first == ClientReport("client-1", Role.PRODUCER, 0, 1001.0)
    assert (changed.epoch, changed.at) == (5, followed.now - REPORT_SECONDS)
    assert followed.report().at == followed.now


def test_reports_that_are_refused_are_told_once_and_tables_are_followed_all_the_same(
    followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    followed.store.refused.add(STREAM)
    followed.turn()
    followed.store.publish(STREAM, sealed(table(epoch=5)))

    assert followed.turn(REPORT_SECONDS).epoch == 5
    followed.turn(REPORT_SECONDS)
    refused = [record for record in caplog.records if "report_refused" in record.getMessage()]
    assert len(refused) == 1
    followed.store.refused.clear()
    followed.turn(REPORT_SECONDS)
    assert followed.report().epoch == 5
    assert followed.source.stats().reachable


def test_a_clock_that_is_set_back_does_not_silence_the_client(followed: Followed) -> None:
    followed.turn()
    followed.turn(-900)

    assert followed.report().at == followed.now


def test_a_client_that_applies_tables_itself_reports_what_it_applied() -> None:
    followed = Followed(applies_itself=True)
    followed.store.publish(STREAM, sealed(table(epoch=5)))
    followed.turn()
    assert followed.report().epoch == 0

    followed.source.applied["clicks"] = 5
    followed.turn()
    assert followed.report().epoch == 5


def until(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.005)


@pytest.fixture
def running() -> Iterator[Followed]:
    started = Followed()
    started.source.follow(())
    yield started
    started.source.close()


def test_a_hint_brings_a_table_long_before_the_next_poll(running: Followed) -> None:
    until(lambda: STREAM in running.store.listening, running.source.stats)

    running.store.publish(STREAM, sealed(table(epoch=5)))

    until(lambda: running.adopted == [("clicks", 5)], running.source.stats)


def test_a_topic_that_is_asked_for_later_is_followed_at_once(running: Followed) -> None:
    views = Stream("cluster-1", "views")
    running.store.publish(views, sealed(table(epoch=3, stream=views)))

    running.source.follow(["views"])

    until(lambda: running.adopted == [("views", 3)], running.source.stats)


def test_closing_withdraws_the_report_and_ends_the_thread(running: Followed) -> None:
    until(lambda: STREAM in running.store.reports_of, running.source.stats)
    thread = running.source._thread

    running.source.close()

    assert thread is not None
    assert not thread.is_alive()
    assert running.store.reports_of[STREAM] == {}


def test_a_defect_while_waiting_for_a_hint_does_not_end_the_thread(
    running: Followed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = threading.Event()

    def fail(streams: object, seconds: float) -> bool:
        broken.set()
        raise IndexError("an odd answer")

    monkeypatch.setattr(running.store, "wait_for_hint", fail)
    until(broken.is_set, running.source.stats)
    running.store.publish(STREAM, sealed(table(epoch=5)))

    until(lambda: running.adopted[-1:] == [("clicks", 5)], running.source.stats)
    assert "table_source_failed" in caplog.text


def test_a_defect_in_a_turn_does_not_end_the_thread(
    running: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    broken = threading.Event()

    def fail() -> str | None:
        broken.set()
        raise LookupError("a defect")

    running.source._cluster_id = None
    running.source._identify = fail
    running.source.follow(())
    until(broken.is_set, running.source.stats)
    running.source._identify = lambda: STREAM.cluster_id
    running.store.publish(STREAM, sealed(table(epoch=5)))

    until(lambda: running.adopted == [("clicks", 5)], running.source.stats)
    assert "table_source_failed" in caplog.text


def told(store: MemoryStore) -> KeyReport:
    return decode_key_report(store.key_reports_of[STREAM]["client-1"])


def test_what_was_counted_is_told_every_few_seconds_with_a_window_since_the_last_time() -> None:
    counts = KeyCounts(1_000.0)
    followed = Followed(key_counts=counts)
    counts.add(STREAM.topic, b"nike", 3, 100, 1)
    followed.turn(1.0)
    first = told(followed.store)
    counts.add(STREAM.topic, b"nike", 3, 100, 1)
    followed.turn(KEY_REPORT_SECONDS / 2)
    assert told(followed.store) == first
    followed.turn(KEY_REPORT_SECONDS / 2)

    second = told(followed.store)

    assert (second.client_id, second.window_seconds) == ("client-1", KEY_REPORT_SECONDS)
    assert [(count.records, count.window_records) for count in second.partitions] == [(2, 1)]


def test_what_was_counted_while_the_store_was_away_stays_in_the_totals() -> None:
    counts = KeyCounts(1_000.0)
    followed = Followed(key_counts=counts)
    counts.add(STREAM.topic, b"nike", 3, 100, 1)
    followed.turn(1.0)
    followed.store.down = True
    counts.add(STREAM.topic, b"nike", 3, 100, 1)
    followed.turn(5.0)
    followed.store.down = False
    followed.turn(5.0)
    assert [count.records for count in told(followed.store).partitions] == [2]


def test_a_client_that_counts_nothing_tells_nothing() -> None:
    followed = Followed()
    followed.turn(5.0)
    assert followed.store.key_reports_of == {}
