"""What a consumer has to read beside its topics, without a cluster: only what exists, and for good."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec

from hotkey_sdk._read_set import ReadSet
from hotkey_sdk.routing.router import Router
from tests.unit.sdk.tables import route, table


def test_nothing_is_added_before_it_is_known_to_exist() -> None:
    read_set = ReadSet()
    read_set.meet(["clicks"])
    read_set.adopt("clicks", Router(table(route(topic="clicks.hot.x"))))

    assert read_set.added(["clicks"]) == frozenset()
    assert read_set.covered(["clicks"]) == {}


def test_a_table_counts_as_applied_when_all_of_its_read_set_is_subscribed_to() -> None:
    read_set = ReadSet()
    read_set.meet(["clicks"])
    read_set.adopt("clicks", Router(table(route(topic="clicks.hot.x"), epoch=5)))

    assert read_set.covered(["clicks", "clicks.hot.x"]) == {"clicks": 5}


def test_every_new_table_asks_the_consumer_to_look_again() -> None:
    read_set = ReadSet()
    read_set.meet(["clicks"])
    before = read_set.version

    read_set.adopt("clicks", Router(table(epoch=5)))

    assert read_set.version > before
    assert read_set.covered(["clicks"]) == {"clicks": 5}


class Cluster:
    """What a consumer is asked for, with topics that come and go."""

    def __init__(self, *topics: str) -> None:
        self.topics = set(topics)
        self.looks = 0
        self.now = 0.0
        self.read_set = ReadSet(lambda: self.now)

    def list_topics(self, timeout: float) -> Any:  # noqa: ARG002
        self.looks += 1
        return SimpleNamespace(
            topics={name: SimpleNamespace(error=None, partitions={0: None}) for name in self.topics}
        )

    def committed(self, partitions: list[Any], timeout: float) -> list[Any]:  # noqa: ARG002
        return []

    def survey(self, seconds: float) -> int:
        """Poll for so long; how often the cluster was asked."""
        before, until = self.looks, self.now + seconds
        while self.now < until:
            consumer: Any = self
            self.read_set.survey(consumer)
            self.now += 0.5
        return self.looks - before

    def adopt(self, epoch: int, *added: str) -> None:
        new = msgspec.structs.replace(table(epoch=epoch), read_set=("clicks", *added))
        self.read_set.adopt("clicks", Router(new))


def test_a_topic_that_was_deleted_and_left_the_read_set_is_not_looked_for_for_ever() -> None:
    cluster = Cluster("clicks", "clicks.hot.x")
    cluster.read_set.meet(["clicks"])
    cluster.adopt(5, "clicks.hot.x")
    cluster.survey(5)
    assert cluster.read_set.added(["clicks"]) == {"clicks.hot.x"}

    cluster.topics.discard("clicks.hot.x")
    cluster.adopt(6)
    cluster.read_set.suspect()

    assert cluster.survey(250) == 1
    assert cluster.read_set.added(["clicks"]) == frozenset()


def test_a_topic_that_is_yet_to_be_made_is_found_soon_and_looked_for_ever_less_often() -> None:
    cluster = Cluster("clicks")
    cluster.read_set.meet(["clicks"])
    cluster.adopt(5, "clicks.hot.x")

    assert cluster.survey(8) >= 7
    cluster.survey(120)
    assert cluster.survey(300) <= 11
    cluster.topics.add("clicks.hot.x")
    cluster.survey(31)
    assert cluster.read_set.added(["clicks"]) == {"clicks.hot.x"}
    cluster.adopt(6, "clicks.hot.x", "clicks.hot.y")
    assert cluster.survey(8) >= 7, "the next one is looked for as soon as the first was"


def test_a_topic_that_may_not_be_read_is_left_out_for_a_while_and_told_once() -> None:
    cluster = Cluster("clicks", "clicks.hot.x")
    cluster.read_set.meet(["clicks"])
    cluster.adopt(5, "clicks.hot.x")
    cluster.survey(2)
    before = cluster.read_set.version

    assert cluster.read_set.deny("clicks.hot.x")
    assert not cluster.read_set.deny("clicks.hot.x")
    assert cluster.read_set.added(["clicks"]) == frozenset()
    assert cluster.read_set.version == before + 1
    cluster.survey(301)
    assert cluster.read_set.added(["clicks"]) == {"clicks.hot.x"}
    assert cluster.read_set.version > before + 1
