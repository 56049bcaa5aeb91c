"""A key spread by a dimension: every record of one value of it stays on one partition, between two epochs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from confluent_kafka import Message

from hotkey_sdk.routing.router import Router
from hotkey_sdk.routing.table import Table, shard_key
from tests.stack.operator.conftest import Proven, StartLoad, StartSender
from tests.stack.operator.scene import Scene
from tests.stack.operator.sender import Record
from tests.stack.operator.waiting import eventually

BY_USER = {"spread": {"by": [["user_id"]], "ordering": "PerDimension"}}
USERS = 1_000  # of the records that carry them in a header


def governed_by_user(scene: Scene, topic: str, where: Mapping[str, str], records_per_second: float) -> None:
    dimension = {"name": "user_id", "from": where}
    trigger = {"recordsPerSecond": records_per_second}
    scene.apply("clicks", {"topic": topic, "dimensions": [dimension], "trigger": trigger, **BY_USER})
    scene.wait_for_condition("clicks", "Governing")


def frozen(scene: Scene, producers: int) -> Table:
    """The table that holds `nike` by user, once all producers follow it and no other can come."""
    scene.wait_for_routes("clicks", {b"nike"})
    scene.kubectl("patch", "hkp", "clicks", "--type=merge", "-p", '{"spec":{"suspend":true}}')

    def followed() -> Table | None:
        status, table = scene.status("clicks"), scene.table("clicks")
        assert status["decision"]["reason"] == "Suspended", status["decision"]
        assert table is not None
        assert (status["epoch"], status["producers"]) == (table.epoch, f"{producers}/{producers}"), status
        return table

    table = eventually("all producers follow the last table", followed)
    assert table is not None
    (route,) = table.routes
    assert route.by == ("user_id",)
    return table


def assert_users_stay(table: Table, records: Sequence[Message], user_of: Callable[[Message], str]) -> None:
    """Each user's records of the routed key are on one partition, which is the one that the table says."""
    (route,) = table.routes
    ours = {shard_key(route.key, shard.id) for shard in route.shards}
    places: dict[str, set[tuple[int | None, Any]]] = defaultdict(set)
    routed = [message for message in records if message.key() in ours]
    for message in routed:
        places[user_of(message)].add((message.partition(), message.key()))
    assert len(routed) > len(places), "no user was seen twice: this shows nothing"
    router = Router(table)
    for user, found in places.items():
        to = router.route(route.key, {"user_id": user})
        assert to is not None
        assert found == {(to.partition, to.key)}, user
    assert {partition for found in places.values() for partition, _ in found} == {
        shard.partition for shard in route.shards
    }


def user_in_payload(message: Message) -> str:
    user: str = msgspec.json.decode(message.value() or b"{}")["user_id"]
    return user


def user_in_header(message: Message) -> str:
    headers: Any = message.headers()
    return str(dict(headers)["x-user"].decode())


def test_a_key_is_spread_by_the_users_in_its_payload_and_each_user_stays_on_one_partition(
    scene: Scene, topic: str, start_load: StartLoad, proven: Proven
) -> None:
    scene.operator()
    governed_by_user(scene, topic, {"jsonPath": "$.user_id"}, 500)
    load = start_load(topic)
    table = frozen(scene, load.settings.producers)
    since = scene.ends(topic)
    load.wait_for_acks(30, each=load.acked_count // 2 + 4_000)
    proven(load, topic)
    assert scene.table("clicks") == table
    assert_users_stay(table, scene.records(topic, since), user_in_payload)
    (key,) = scene.status("clicks")["keys"]
    assert (key["key"], key["by"]) == ("nike", ["user_id"])


def test_a_key_is_spread_by_the_users_in_a_header_which_the_sdk_reads_by_itself(
    scene: Scene, topic: str, start_sender: StartSender
) -> None:
    scene.operator()
    governed_by_user(scene, topic, {"header": "x-user"}, 100)

    def draw(number: int) -> Record:
        key = b"nike" if number % 5 else b"cold%d" % number
        return Record(topic, key, headers=(("x-user", b"u%d" % (number * 7_919 % USERS)),))

    sender = start_sender(draw, 800.0)
    table = frozen(scene, producers=1)
    since, enough = scene.ends(topic), sender.acked_count(topic) + 3 * USERS
    eventually("every user was seen again", lambda: sender.acked_count(topic) > enough)
    sender.assert_all_arrived_once(topic)
    assert scene.table("clicks") == table
    assert sender.producer.hotkey.stats().missing_dimension == 0
    assert_users_stay(table, scene.records(topic, since), user_in_header)
