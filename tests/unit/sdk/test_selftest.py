"""The start-up self-test asks librdkafka itself, once, and notices a partitioner that disagrees."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from hotkey_sdk import _selftest
from hotkey_sdk.routing.partitioner import partition_for


def test_librdkafka_agrees_with_our_partitioner() -> None:
    partitions, places = _selftest.librdkafka_places(_selftest.KEYS)

    assert set(places) == set(_selftest.KEYS)
    assert partitions > 1
    assert _selftest.disagreements(partitions, places) == []


def test_a_key_on_another_partition_is_named_with_both() -> None:
    right = partition_for(b"nike", 4)

    (told,) = _selftest.disagreements(4, {b"nike": right ^ 1, b"": partition_for(b"", 4)})

    assert "b'nike'" in told
    assert f"on partition {right ^ 1}, expected {right} of 4" in told


def test_it_runs_once_however_many_clients_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []

    def places(keys: object) -> tuple[int, dict[bytes, int]]:
        runs.append(1)
        return 4, {b"nike": partition_for(b"nike", 4) ^ 1}

    monkeypatch.setattr(_selftest, "librdkafka_places", places)
    once = _selftest._Once()
    assert once.known() is None

    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            pool.submit(once.once)

    assert len(runs) == 1
    assert once.known() is False


def test_a_test_that_cannot_be_made_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(keys: object) -> tuple[int, dict[bytes, int]]:
        raise _selftest.SelfTestError("no answer")

    monkeypatch.setattr(_selftest, "librdkafka_places", fail)
    once = _selftest._Once()

    once.once()

    assert once.known() is None
    assert "partitioner_unchecked" in caplog.text
