"""What a consumer has to read beside its topics, without a cluster: only what exists, and for good."""

from __future__ import annotations

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
