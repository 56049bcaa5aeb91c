"""docs/redis-users.acl on a real server: each user can do its work, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from devstack.valkey import USERS, Valkey
from hotkey_operator.adapters.redis import RedisDistribution
from hotkey_sdk._store import RedisStore
from hotkey_sdk.routing import names
from hotkey_sdk.routing.report import ClientReport, KeyReport, Role, encode_key_report, encode_report
from hotkey_sdk.routing.table import Stream
from tests.contract.sdk.conftest import ValkeyWorld

STREAM = Stream("cluster-1", "clicks")
REPORT = encode_report(ClientReport("me", Role.PRODUCER, 5, 1.0))
KEYS = encode_key_report(KeyReport("me", 1.0, 2.0, 1.0))
TABLE, REPORTS, KEY_REPORTS = (
    name(STREAM) for name in (names.table_key, names.reports_key, names.key_reports_key)
)
HINT = names.hint_channel(STREAM)

FORBIDDEN_TO_ALL: tuple[tuple[Any, ...], ...] = (
    ("FLUSHALL",),
    ("KEYS", "*"),
    ("CONFIG", "GET", "*"),
    ("ACL", "LIST"),
    ("SET", "other", "x"),
    ("SET", TABLE, "x"),
    ("HSET", "other", "a", "b"),
    ("SHUTDOWN",),
    ("RENAME", TABLE, REPORTS),
    ("PUBLISH", "other", "x"),
)
FORBIDDEN_TO_CLIENTS: tuple[tuple[Any, ...], ...] = (
    *FORBIDDEN_TO_ALL,
    ("HSET", TABLE, "envelope", "x"),
    ("HDEL", TABLE, "envelope"),
    ("DEL", TABLE),
    ("DEL", REPORTS),
    ("EXPIRE", TABLE, 1),
    ("EXPIRE", REPORTS, 1),
    ("UNLINK", REPORTS),
    ("HGETALL", REPORTS),
    ("HGET", REPORTS, "another"),
    ("HKEYS", KEY_REPORTS),
    ("PUBLISH", HINT, "9"),
    ("EVAL", "return redis.call('HSET', KEYS[1], 'epoch', 1)", 1, TABLE),
)
FORBIDDEN = {
    "hotkey-operator": FORBIDDEN_TO_ALL,
    "hotkey-producer": FORBIDDEN_TO_CLIENTS,
    "hotkey-consumer": (*FORBIDDEN_TO_CLIENTS, ("HSET", KEY_REPORTS, "me", "x"), ("EXPIRE", KEY_REPORTS, 1)),
}


@pytest.fixture
def server(valkey: Valkey) -> Iterator[Valkey]:
    valkey.wipe()
    world = ValkeyWorld(valkey)
    world.publish(STREAM, b"an envelope")
    yield valkey
    world.close()


@pytest.mark.parametrize(
    ("user", "call"), [(user, call) for user, calls in FORBIDDEN.items() for call in calls]
)
def test_a_user_may_not_do_what_is_not_its_work(server: Valkey, user: str, call: tuple[Any, ...]) -> None:
    with redis.Redis.from_url(server.url_for(user)) as client, pytest.raises(redis.ResponseError) as refused:
        client.execute_command(*call)

    assert "NOPERM" in str(refused.value) or isinstance(refused.value, redis.exceptions.NoPermissionError)


@pytest.mark.parametrize("user", ["hotkey-producer", "hotkey-consumer"])
def test_a_client_can_do_its_work(server: Valkey, user: str) -> None:
    store = RedisStore(server.url_for(user))
    world = ValkeyWorld(server)
    found = store.read({STREAM: ""})[STREAM]
    hinted = store.wait_for_hint([STREAM], 0.0)
    store.report({STREAM: REPORT}, "me")
    if user == "hotkey-producer":
        store.report_keys({STREAM: KEYS}, "me")

    assert (found.envelope, hinted) == (b"an envelope", False)
    assert world.reports(STREAM) == {"me": REPORT}
    assert world.key_reports(STREAM) == ({"me": KEYS} if user == "hotkey-producer" else {})
    world.publish(STREAM, b"another")
    assert any(store.wait_for_hint([STREAM], 5.0) for _ in range(4)), "a wait may end with the subscription"
    store.withdraw([STREAM], "me")
    assert world.reports(STREAM) == {}
    store.close()
    world.close()


async def work_of_the_operator(url: str) -> tuple[object, ...]:
    distribution = RedisDistribution(url)
    try:
        published = await distribution.publish(STREAM, 7, b"mine")
        read = await distribution.read(STREAM)
        reports = await distribution.reports(STREAM)
        key_reports = await distribution.key_reports(STREAM)
        await distribution.forget(STREAM, ["me"])
        return published, read.epoch if read else None, len(reports), len(key_reports)
    finally:
        await distribution.close()


def test_the_operator_can_do_its_work(server: Valkey) -> None:
    store = RedisStore(server.url)
    store.report({STREAM: REPORT}, "me")
    store.report_keys({STREAM: KEYS}, "me")

    assert asyncio.run(work_of_the_operator(server.url_for("hotkey-operator"))) == (True, 7, 1, 1)
    store.close()


def test_without_a_name_nothing_is_allowed_but_in_the_dev_stack(server: Valkey) -> None:
    assert USERS.read_text().startswith("user default off\n")
    with redis.Redis.from_url(server.url) as client:
        assert client.ping()
