"""A transactional producer: its markers have offsets and are no load."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from confluent_kafka import Producer

from hotkey_sdk.routing.partitioner import partition_for
from tests.stack.operator.scene import Scene
from tests.stack.operator.waiting import eventually

PARTITIONS = 4
TRIGGER, COMMITS = 30, 20  # a second: records of 20 commits are under the trigger, their offsets are over it
MANY = 100  # records in a transaction: one each three seconds is over the trigger


class Committer:
    """Sends `nike` in transactions of `records` each, at most so many a second."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.records = 1
        self.commits = 0
        self._topic = topic
        self._closing = threading.Event()
        self._sending: Future[None] = Future()
        self._producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": topic, "log_level": 0})

    @contextmanager
    def running(self) -> Iterator[None]:
        self._producer.init_transactions(60)
        with ThreadPoolExecutor(1) as thread:
            self._sending = thread.submit(self._send)
            try:
                yield
            finally:
                self._closing.set()
                self._sending.result()

    def check(self) -> None:
        """Raise what ended the sending, where something did."""
        if self._sending.done():
            self._sending.result()

    def _send(self) -> None:
        next_at = time.monotonic()
        while not self._closing.wait(max(0.0, next_at - time.monotonic())):
            next_at = max(next_at, time.monotonic()) + 1 / COMMITS
            self._producer.begin_transaction()
            for _ in range(self.records):
                self._producer.produce(
                    self._topic, b"{}", b"nike", partition=partition_for(b"nike", PARTITIONS)
                )
            self._producer.commit_transaction(30)
            self.commits += 1


@pytest.mark.timeout(600)
def test_a_producer_that_commits_each_record_is_not_taken_for_twice_its_load(
    scene: Scene, topic: str
) -> None:
    # given a policy, and a producer that commits each record of one key
    scene.operator()
    name = scene.topic(f"{topic}-committed", PARTITIONS)
    scene.apply("clicks", {"topic": name, "trigger": {"recordsPerSecond": TRIGGER}})
    scene.wait_for_condition("clicks", "Governing")
    committer = Committer(scene.stack.kafka.bootstrap, name)
    with committer.running():
        # then status tells that half of the offsets are records
        def told() -> bool:
            committer.check()
            sampling = scene.status("clicks").get("sampling", {})
            assert 0.45 <= float(sampling.get("recordsPerOffset", "nan")) <= 0.55, sampling
            assert committer.commits > 5 * COMMITS, committer.commits
            return True

        eventually("status tells which part of the offsets are records", told, 120)

        # and the key was not spread, as its records are under the trigger
        commits = committer.commits
        eventually(
            "each commit has a marker", lambda: sum(scene.ends(name).values()) >= 2 * commits
        )  # which may come after the commit's answer
        assert "Spread" not in scene.events("clicks")
        table = scene.table("clicks")
        assert table is not None
        assert table.routes == ()

        # when it sends more records in each transaction
        committer.records = MANY

        # then it is over the trigger and is spread
        scene.wait_for_routes("clicks", {b"nike"})
