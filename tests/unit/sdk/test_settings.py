"""The settings under `hotkey.`: taken out, checked, and refused with words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hotkey_sdk import SettingsError
from hotkey_sdk._settings import client_defaults, is_cooperative, is_durable, producer_defaults, split
from hotkey_sdk.routing.envelope import SigningKey

KEY = SigningKey.from_bytes(bytes(range(32)))
OWN: dict[str, Any] = {"hotkey.redis.url": "redis://localhost", "hotkey.public.keys": KEY.public_line}
KAFKA = {"bootstrap.servers": "localhost:9092", "client.id": "shop"}


def test_without_a_setting_of_its_own_nothing_is_changed() -> None:
    assert split(KAFKA, {"linger.ms": 5}) == (KAFKA, {"linger.ms": 5}, None)


def test_own_settings_are_taken_out_of_dict_and_keywords() -> None:
    given = {**KAFKA, **OWN}

    kafka, keywords, settings = split(given, {"hotkey.topics": "a, b,", "linger.ms": 5})

    assert (kafka, keywords) == (KAFKA, {"linger.ms": 5})
    assert settings is not None
    assert settings.topics == ("a", "b")
    assert dict(settings.public_keys.by_id) == {KEY.key_id: KEY.public_bytes}
    assert given == {**KAFKA, **OWN}, "the caller's dict is the caller's"


def test_every_setting_is_read() -> None:
    _, _, settings = split(
        {
            **OWN,
            "hotkey.allow.unsigned": "true",
            "hotkey.topics": ["a"],
            "hotkey.cluster.id": "c1",
            "hotkey.client.id": "me",
            "hotkey.poll.interval.ms": "250",
        },
        {},
    )

    assert settings is not None
    assert (settings.allow_unsigned, settings.topics, settings.cluster_id) == (True, ("a",), "c1")
    assert (settings.client_id, settings.poll_interval_seconds) == ("me", 0.25)


def test_two_clients_of_one_process_have_different_ids_that_begin_with_the_clients_name() -> None:
    ids = {found.client_id for _ in range(2) if (found := split({**KAFKA, **OWN}, {})[2]) is not None}

    assert len(ids) == 2
    assert all(each.startswith("shop@") for each in ids)


def test_public_keys_may_stand_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "public.keys"
    file.write_text(KEY.public_line)

    _, _, settings = split({**OWN, "hotkey.public.keys": f"file:{file}"}, {})

    assert settings is not None
    assert list(settings.public_keys.by_id) == [KEY.key_id]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"hotkey.redis": "x"}, "unknown setting hotkey.redis"),
    ({"hotkey.redis.url": None}, "hotkey.redis.url"),
    ({"hotkey.redis.url": "localhost:6379"}, "redis://host:6379"),
    ({"hotkey.redis.url": "redis://localhost:port"}, "Port could not be cast"),
    ({"hotkey.redis.url": "redis://localhost?socket_timeout=soon"}, "socket_timeout"),
    ({"hotkey.public.keys": None}, "hotkey.public.keys is missing"),
    ({"hotkey.public.keys": ""}, "hotkey.public.keys is missing"),
    ({"hotkey.public.keys": "nonsense"}, "line 1"),
    ({"hotkey.public.keys": "file:/does/not/exist"}, "does/not/exist"),
    ({"hotkey.public.keys": 7}, "hotkey.public.keys is 7"),
    ({"hotkey.allow.unsigned": "maybe"}, "hotkey.allow.unsigned is 'maybe'"),
    ({"hotkey.topics": 7}, "hotkey.topics is 7"),
    ({"hotkey.poll.interval.ms": 10}, "50 to 3600000"),
    ({"hotkey.poll.interval.ms": "soon"}, "50 to 3600000"),
]


@pytest.mark.parametrize(("change", "words"), WRONG, ids=[str(change) for change, _ in WRONG])
def test_a_wrong_setting_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words.replace("(", r"\(")):
        split({**KAFKA, **OWN, **change}, {})


def test_a_producer_gets_javas_partitioner_and_idempotence_and_creates_no_topics() -> None:
    assert producer_defaults(KAFKA) == {
        "allow.auto.create.topics": False,
        "topic.metadata.refresh.interval.ms": 10_000,
        "topic.metadata.propagation.max.ms": 500,
        "partitioner": "murmur2_random",
        "enable.idempotence": True,
        "acks": "all",
    }


@pytest.mark.parametrize("partitioner", ["murmur2_random", "murmur2"])
def test_a_partitioner_that_agrees_is_kept(partitioner: str) -> None:
    assert "partitioner" not in producer_defaults({"partitioner": partitioner})


@pytest.mark.parametrize(
    "config",
    [
        {"partitioner": "consistent_random"},
        {"partitioner": "random"},
        {"default.topic.config": {"partitioner": "fnv1a"}},
    ],
)
def test_a_partitioner_that_disagrees_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="leave it out, or set murmur2_random"):
        producer_defaults(config)


@pytest.mark.parametrize(
    "config",
    [
        {"acks": 1},
        {"request.required.acks": "0"},
        {"default.topic.config": {"acks": 1}},
        {"retries": 0},
        {"message.send.max.retries": 0},
        {"max.in.flight": 100},
        {"queuing.strategy": "lifo"},
        {"enable.idempotence": False},
    ],
)
def test_what_the_caller_chose_against_idempotence_stands(config: dict[str, Any]) -> None:
    added = producer_defaults(config)

    assert added["partitioner"] == "murmur2_random"
    assert not {"acks", "enable.idempotence"} & added.keys()
    assert not is_durable({**config, **added})


@pytest.mark.parametrize("config", [{"acks": "all"}, {"acks": -1}, {"max.in.flight": 5}, {"retries": 3}])
def test_what_agrees_with_idempotence_leaves_it_on(config: dict[str, Any]) -> None:
    added = producer_defaults(config)

    assert added["enable.idempotence"] is True
    assert is_durable({**config, **added})
    assert ("acks" in added) is ("acks" not in config)


@pytest.mark.parametrize("defaults", [producer_defaults, client_defaults])
def test_a_client_never_creates_topics(defaults: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    assert defaults({})["allow.auto.create.topics"] is False
    assert defaults({"allow.auto.create.topics": "false"})["allow.auto.create.topics"] is False
    with pytest.raises(SettingsError, match=r"allow\.auto\.create\.topics is true"):
        defaults({"allow.auto.create.topics": "true"})


@pytest.mark.parametrize("defaults", [producer_defaults, client_defaults])
def test_a_client_soon_sees_partitions_that_were_added(
    defaults: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    name = "topic.metadata.refresh.interval.ms"

    assert defaults({})[name] == 10_000
    assert name not in defaults({name: 60_000}), "the caller's choice stands"


@pytest.mark.parametrize(
    ("config", "cooperative"),
    [
        ({}, False),
        ({"partition.assignment.strategy": "range,roundrobin"}, False),
        ({"partition.assignment.strategy": "cooperative-sticky"}, True),
        ({"group.protocol": "consumer"}, True),
    ],
)
def test_how_a_consumer_rebalances_is_known(config: dict[str, Any], cooperative: bool) -> None:
    assert is_cooperative(config) is cooperative
