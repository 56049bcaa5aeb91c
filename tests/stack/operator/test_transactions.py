"""A transactional producer: its markers have offsets and are no load."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Producer

from hotkey_sdk.routing.partitioner import partition_for
from tests.stack.operator.scene import Scene
from tests.stack.operator.waiting import eventually

PARTITIONS = 4
TRIGGER, COMMITS = 90, 60  # a second: records of 60 commits are under the trigger, their offsets are over it


class Committer:
    """Sends `nike` in transactions of `records` each, at most so many a second."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.records = 1
        self.commits = 0
        self._topic = topic
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self._producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": topic, "log_level": 0})

    @contextmanager
    def running(self) -> Iterator[None]:
        self._producer.init_transactions(30)
        self._thread.start()
        try:
            yield
        finally:
            self._closing.set()
            self._thread.join()

    def _send(self) -> None:
        while not self._closing.wait(1 / COMMITS):
            self._producer.begin_transaction()
            for _ in range(self.records):
                self._producer.produce(
                    self._topic, b"{}", b"nike", partition=partition_for(b"nike", PARTITIONS)
                )
            self._producer.commit_transaction(30)
            self.commits += 1


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
            sampling = scene.status("clicks").get("sampling", {})
            assert sampling.get("recordsPerOffset") == "0.50", (sampling, committer.commits)
            return bool(committer.commits > 5 * COMMITS)

        eventually("status tells which part of the offsets are records", told)

        # and the key was not spread, as its records are under the trigger
        assert sum(scene.ends(name).values()) >= 2 * committer.commits
        assert "Spread" not in scene.events("clicks")
        table = scene.table("clicks")
        assert table is not None
        assert table.routes == ()

        # when it sends more records in each transaction
        committer.records = 5

        # then it is over the trigger and is spread
        scene.wait_for_routes("clicks", {b"nike"})
