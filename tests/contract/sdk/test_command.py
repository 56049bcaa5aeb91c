"""`python -m hotkey_sdk`: what it says of this client and of a table in Redis."""

from __future__ import annotations

import pytest

from devstack.valkey import Valkey
from hotkey_sdk._cli import main
from hotkey_sdk.routing import codec
from hotkey_sdk.routing.envelope import SigningKey, seal
from tests.contract.sdk.conftest import ValkeyWorld
from tests.contract.sdk.make_vectors import KEY, STREAM, example


def table_command(valkey: Valkey, *more: str) -> int:
    where = ("--redis-url", valkey.url, "--cluster-id", STREAM.cluster_id, "--topic", STREAM.topic)
    return main(["table", *where, *more])


@pytest.fixture
def published(valkey: Valkey) -> Valkey:
    """Valkey with the example table."""
    valkey.wipe()
    world = ValkeyWorld(valkey)
    world.publish(STREAM, seal(codec.encode(example()), KEY))
    world.close()
    return valkey


def test_check_names_the_versions_and_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0

    text = capsys.readouterr().out
    assert "librdkafka" in text
    assert "murmur2_random agrees" in text
    assert "path of a record: " in text


def test_a_table_is_explained(published: Valkey, capsys: pytest.CaptureFixture[str]) -> None:
    assert table_command(published, "--public-keys", KEY.public_line) == 0

    text = capsys.readouterr().out
    assert "table of cluster-1/clicks: epoch 1790000001, 12 partitions" in text
    assert "consumers read: clicks, clicks.hot.0a1b2c3d.g7" in text
    assert (
        "dedicated topic clicks.hot.0a1b2c3d.g7: Active, 24 partitions, of key b'\\xc3\\xa9', id AAAA" in text
    )
    assert "g8: Prepare, 6 partitions, of key b'\\xff\\x00', not seen by the brokers yet" in text
    assert "key b'nike': 3 shards on clicks, by user_id, Composite" in text
    assert "key b'\\xff\\x00': 1 shards on clicks, batch by batch (no order asked for), Composite" in text
    assert "37.5% of the values" in text
    assert "warning: b'\\xff\\x00:" in text, "that shard is not where murmur2 puts it"


def test_a_table_that_clients_refuse_is_told_with_the_reason(
    published: Valkey, capsys: pytest.CaptureFixture[str]
) -> None:
    assert table_command(published, "--public-keys", SigningKey.from_bytes(bytes(32)).public_line) == 1

    assert "clients refuse it: BadSignature" in capsys.readouterr().out


def test_nothing_there_is_told(valkey: Valkey, capsys: pytest.CaptureFixture[str]) -> None:
    valkey.wipe()

    assert table_command(valkey, "--allow-unsigned") == 1
    assert "hotkey:{cluster-1/clicks}:table: missing" in capsys.readouterr().out


def test_a_redis_that_does_not_answer_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--redis-url", "redis://127.0.0.1:1", "--cluster-id", "c", "--topic", "t", "--allow-unsigned"]

    assert main(["table", *where]) == 1
    assert "does not answer" in capsys.readouterr().err


def test_wrong_public_keys_are_told(valkey: Valkey, capsys: pytest.CaptureFixture[str]) -> None:
    assert table_command(valkey, "--public-keys", "nonsense") == 2
    assert "line 1" in capsys.readouterr().err
