"""docs/redis-users.acl on a real server: each user can do its work, and nothing else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from devstack.valkey import USERS, Valkey
from hotkey_operator.adapters.redis import RedisDistribution
from hotkey_sdk._store import RedisStore, ReportRefusedError
from hotkey_sdk.routing import names
from hotkey_sdk.routing.report import ClientReport, KeyReport, Role, encode_key_report, encode_report
from hotkey_sdk.routing.table import Stream
from tests.contract.sdk.conftest import ValkeyWorld

STREAM = Stream("cluster-1", "clicks")
REPORT = encode_report(ClientReport("me", Role.PRODUCER, 5, 1.0))
KEYS = encode_key_report(KeyReport("me", 1.0, 2.0, 1.0))
TABLE, HINT = names.table_key(STREAM), names.hint_channel(STREAM)
REPORTS, KEY_REPORTS = (
    key_of(STREAM, "hotkey-producer") for key_of in (names.reports_key, names.key_reports_key)
)
OF_CONSUMERS = names.reports_key(STREAM, "hotkey-consumer")

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
    *(("DEL", reports) for reports in (REPORTS, OF_CONSUMERS)),
    *(("EXPIRE", reports, 1) for reports in (REPORTS, OF_CONSUMERS)),
    *(("UNLINK", reports) for reports in (REPORTS, OF_CONSUMERS)),
    *(("HGETALL", reports) for reports in (REPORTS, OF_CONSUMERS)),
    *(("HGET", reports, "another") for reports in (REPORTS, OF_CONSUMERS)),
    ("EXPIRE", TABLE, 1),
    ("HKEYS", KEY_REPORTS),
    ("SCAN", 0),
    ("HSET", f"hotkey:{{{STREAM}}}:reports", "me", "x"),
    ("PUBLISH", HINT, "9"),
    ("EVAL", "return redis.call('HSET', KEYS[1], 'epoch', 1)", 1, TABLE),
)
FORBIDDEN = {
    "hotkey-operator": FORBIDDEN_TO_ALL,
    "hotkey-producer": (*FORBIDDEN_TO_CLIENTS, ("HSET", OF_CONSUMERS, "me", "x")),
    "hotkey-consumer": (
        *FORBIDDEN_TO_CLIENTS,
        ("HSET", REPORTS, "me", "x"),
        ("HSET", KEY_REPORTS, "me", "x"),
        ("HSET", names.key_reports_key(STREAM, "hotkey-consumer"), "me", "x"),
        ("EXPIRE", KEY_REPORTS, 1),
    ),
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
    world = ValkeyWorld(server, user)
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
        await distribution.forget(STREAM, [report.client_id for report in reports])
        left = len(await distribution.reports(STREAM))
        return published, read.epoch if read else None, len(reports), len(key_reports), left
    finally:
        await distribution.close()


def test_the_operator_can_do_its_work(server: Valkey) -> None:
    store = RedisStore(server.url)
    store.report({STREAM: REPORT}, "me")
    store.report_keys({STREAM: KEYS}, "me")

    assert asyncio.run(work_of_the_operator(server.url_for("hotkey-operator"))) == (True, 7, 1, 1, 0)
    store.close()


APPLICATIONS = ("checkout", "liar")


@pytest.fixture
def applications(server: Valkey) -> Iterator[Valkey]:
    """Two producers with users of their own, each made of the file's line as the docs tell."""
    (line,) = (line for line in USERS.read_text().splitlines() if line.startswith("user hotkey-producer "))
    with redis.Redis.from_url(server.url) as client:
        for name in APPLICATIONS:
            _, user, *rules = re.findall(r"\([^)]*\)|\S+", line.replace("hotkey-producer", name))
            client.execute_command("ACL", "SETUSER", user, *rules)
        yield server
        client.execute_command("ACL", "DELUSER", *APPLICATIONS)


TO_ANOTHER: tuple[tuple[Any, ...], ...] = tuple(
    call
    for key_of in (names.reports_key, names.key_reports_key)
    for call in (
        ("HSET", key_of(STREAM, "checkout"), "me", "a lie"),
        ("HDEL", key_of(STREAM, "checkout"), "me"),
        ("DEL", key_of(STREAM, "checkout")),
        ("EXPIRE", key_of(STREAM, "checkout"), 0),
        ("HGETALL", key_of(STREAM, "checkout")),
        ("SET", key_of(STREAM, "checkout"), "no hash"),
        ("RENAME", key_of(STREAM, "liar"), key_of(STREAM, "checkout")),
        ("COPY", key_of(STREAM, "liar"), key_of(STREAM, "checkout"), "REPLACE"),
    )
)


@pytest.mark.parametrize("call", [*TO_ANOTHER, *FORBIDDEN_TO_CLIENTS])
def test_a_producer_can_touch_nothing_but_its_own_reports(
    applications: Valkey, call: tuple[Any, ...]
) -> None:
    own, another = (RedisStore(applications.url_for(name)) for name in ("liar", "checkout"))
    for store in (own, another):
        store.report({STREAM: REPORT}, "me")
        store.report_keys({STREAM: KEYS}, "me")

    with (
        redis.Redis.from_url(applications.url_for("liar")) as client,
        pytest.raises(redis.exceptions.NoPermissionError),
    ):
        client.execute_command(*call)

    world = ValkeyWorld(applications, "checkout")
    assert (world.reports(STREAM), world.key_reports(STREAM)) == ({"me": REPORT}, {"me": KEYS})
    assert world.store.read({STREAM: ""})[STREAM].envelope == b"an envelope"
    for closed in (world, own, another):
        closed.close()


def test_the_operator_hears_of_all_users_and_takes_no_ones_word_for_another(applications: Valkey) -> None:
    stores = {name: RedisStore(applications.url_for(name)) for name in APPLICATIONS}
    stores["checkout"].report({STREAM: REPORT}, "me")
    lie = encode_report(ClientReport("checkout:me", Role.CONSUMER, 9, 2.0))
    stores["liar"].report({STREAM: lie}, "me")
    stores["liar"].report({STREAM: lie}, "checkout:me")

    async def heard() -> dict[str, int]:
        distribution = RedisDistribution(applications.url_for("hotkey-operator"))
        try:
            return {each.client_id: each.epoch for each in await distribution.reports(STREAM)}
        finally:
            await distribution.close()

    assert asyncio.run(heard()) == {"checkout:me": 5, "liar:me": 9, "liar:checkout:me": 9}
    for store in stores.values():
        store.close()


def test_a_report_under_a_name_that_the_rules_do_not_know_is_told(applications: Valkey) -> None:
    with redis.Redis.from_url(applications.url) as client:
        client.execute_command("ACL", "SETUSER", "checkout", "resetkeys", "clearselectors")
    store = RedisStore(applications.url_for("checkout"))

    with pytest.raises(ReportRefusedError, match=r"(?i)permission"):
        store.report({STREAM: REPORT}, "me")
    store.close()


def test_without_a_name_nothing_is_allowed_but_in_the_dev_stack(server: Valkey) -> None:
    assert USERS.read_text().startswith("user default off\n")
    with redis.Redis.from_url(server.url) as client:
        assert client.ping()
