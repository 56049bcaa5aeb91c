"""A leader that was not in sync takes over: what we read is cut off, what it wrote instead is counted."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from devstack import Stack
from tests.stack.aggregator.clicks import click, producer
from tests.stack.aggregator.counted import assert_ids
from tests.stack.aggregator.process import AggregatorProcess, wait_until

TOPIC = "clicks"


@pytest.fixture
def three_brokers(make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(brokers=3, kubernetes=False, redis=False)


@pytest.fixture
def counting(three_brokers: Stack, tmp_path: Path) -> Iterator[AggregatorProcess]:
    made = AggregatorProcess(tmp_path, "counting", three_brokers.kafka.bootstrap, TOPIC)
    yield made
    made.ensure_gone()


def send(stack: Stack, ids: list[str]) -> None:
    """Returns when the leader, alone if need be, has acknowledged all."""
    sender, failures = producer(stack.kafka.bootstrap), list[object]()
    for one in ids:
        value = json.dumps(click(one)).encode()
        sender.produce(
            TOPIC, value, b"nike", partition=0, on_delivery=lambda error, _: failures.append(error)
        )
    assert sender.flush(60) == 0
    assert not any(failures), failures


@pytest.mark.parametrize("meanwhile", ["ended", pytest.param("frozen", marks=pytest.mark.slow)])
def test_records_that_a_new_leader_wrote_within_what_was_read_are_counted(
    three_brokers: Stack, counting: AggregatorProcess, meanwhile: str
) -> None:
    # given a partition on two brokers, and clicks that both have
    kafka = three_brokers.kafka
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    settings = {"unclean.leader.election.enable": "true", "min.insync.replicas": "1"}
    nodes = sorted(admin.list_topics(timeout=10).brokers)
    first, second = nodes[1], nodes[2]
    new = NewTopic(TOPIC, 1, replica_assignment=[[first, second]], config=settings)
    admin.create_topics([new])[TOPIC].result(30)

    def partition() -> tuple[int, list[int]]:
        found = admin.list_topics(TOPIC, timeout=10).topics[TOPIC].partitions.get(0)
        return (-1, []) if found is None else (found.leader, sorted(found.isrs))

    def has_leader(leader: int, in_sync: list[int]) -> None:
        wait_until(lambda: partition() == (leader, sorted(in_sync)), f"leader {leader}, {in_sync}", partition)

    has_leader(first, [first, second])
    both, lost, instead = ([f"{name}-{n}" for n in range(40)] for name in ("both", "lost", "instead"))
    counting.start()
    send(three_brokers, both)
    counting.wait_until(lambda: counting.totals()["clicks"] == 40, "the clicks that both have")

    # and some that the leader alone has, counted too
    kafka.nodes[nodes.index(second)].kill()
    has_leader(first, [first])
    send(three_brokers, lost)
    counting.wait_until(lambda: counting.totals()["clicks"] == 80, "the clicks that one has")
    if meanwhile == "ended":
        assert counting.terminate() == 0
    else:
        counting.process.send_signal(signal.SIGSTOP)

    # when that one dies, and the other leads and writes on, beyond the offset where we were
    kafka.nodes[nodes.index(first)].kill()
    kafka.nodes[nodes.index(second)].start()
    has_leader(second, [second])
    send(three_brokers, [*instead, *(f"more-{n}" for n in range(20))])
    if meanwhile == "ended":
        counting.start()
    else:
        counting.process.send_signal(signal.SIGCONT)

    # then it is noticed by the leader's epoch, and all of it is counted
    expected = [*both, *lost, *instead, *(f"more-{n}" for n in range(20))]
    counting.wait_until(lambda: counting.totals()["clicks"] >= len(expected), "all are counted")
    assert_ids(counting, expected)
    assert counting.metric("hotkey_aggregator_logs_truncated_total") == 1
    assert "event=log_truncated" in counting.log_text()
    assert counting.stored(TOPIC) == {0: 100}
