"""The click load on a real broker: its journals tell the truth, whatever happens to its processes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Message

from devstack import Stack
from devstack.process import ProcessRecord
from examples.demo.stream import Topic
from examples.load import Load, LoadError, prove
from examples.load.settings import SETTINGS_FILE, KeyField

SECONDS = 60.0


@pytest.fixture
def topic(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Topic]:
    made = Topic(stack.kafka.bootstrap, f"load-{abs(hash(request.node.name)) % 10**8}", 6)
    made.create()
    yield made
    made.delete()


def load_on(topic: Topic, directory: Path, **options: object) -> Load:
    return Load(topic.bootstrap, topic.name, None, None, directory, **{"seconds": SECONDS, **options})  # type: ignore[arg-type]


def until(condition: Callable[[], bool], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)


def ids_in(messages: list[Message]) -> list[str]:
    return [json.loads(message.value() or b"")["event_id"] for message in messages]


def test_killed_and_terminated_producers_lose_no_acknowledged_click(topic: Topic, tmp_path: Path) -> None:
    with load_on(topic, tmp_path / "load", producers=3) as load:
        load.wait_for_acks(SECONDS, each=500)
        load.kill(0)
        load.terminate(1)
        added = load.add_producer()
        until(lambda: added in load.pids and load.acked_count > 3_000, lambda: f"{load.acked_count} acked")
    proof = prove(load.sent_ids(), load.acked_ids(), ids_in(list(topic.records())))
    assert proof.holds, proof
    assert proof.acked > 3_000


def test_the_hot_share_and_the_hot_key_turn_while_the_load_runs(topic: Topic, tmp_path: Path) -> None:
    with load_on(topic, tmp_path / "load", producers=2, hot_share=0.0) as load:
        load.wait_for_acks(SECONDS, each=200)
        load.set_hot_share(1.0)
        load.set_hot_key("puma")
        goal = load.acked_count + 2_000
        until(lambda: load.acked_count > goal, lambda: f"{load.acked_count} of {goal} acked")
    last = Counter(message.key() for message in sorted(topic.records(), key=_time)[-500:])
    assert last == {b"puma": 500}


def _time(message: Message) -> int:
    at: int = message.timestamp()[1]
    return at


@pytest.mark.parametrize("field", list(KeyField))
def test_any_field_can_be_the_key(topic: Topic, tmp_path: Path, field: KeyField) -> None:
    load = load_on(topic, tmp_path / "load", producers=1, records=300, key_field=field)
    load.start()
    load.wait_until_done(SECONDS)
    keys = {
        (message.key() or b"").decode(): json.loads(message.value() or b"") for message in topic.records()
    }
    assert "nike" in keys
    assert all(click[field] == key for key, click in keys.items())


def test_a_bounded_load_ends_by_itself_after_exactly_so_many_clicks(topic: Topic, tmp_path: Path) -> None:
    load = load_on(topic, tmp_path / "load", producers=2, records=1_000)
    load.start()
    load.wait_until_done(SECONDS)
    assert (load.sent_count, load.acked_count) == (1_000, 1_000)


def test_a_trace_is_replayed_with_every_row(topic: Topic, tmp_path: Path) -> None:
    rows = [(n / 100, f"key{n % 7}", f"id{n}", f"u{n}") for n in range(300)]
    lines = ["ts,key,id,dimension", *(f"{ts},{key},{name},{user}" for ts, key, name, user in rows)]
    (tmp_path / "trace.csv").write_text("\n".join(lines) + "\n")
    load = load_on(topic, tmp_path / "load", producers=2, trace=str(tmp_path / "trace.csv"), speed=4.0)
    load.start()
    load.wait_until_done(SECONDS)
    clicks = [(message.key(), json.loads(message.value() or b"")) for message in topic.records()]
    seen = {(key.decode(), click["source_id"], click["user_id"]) for key, click in clicks if key is not None}
    assert seen == {(key, name, user) for _, key, name, user in rows}
    assert len(clicks) == len(rows)


def test_producers_end_when_whoever_started_them_is_killed(topic: Topic, tmp_path: Path) -> None:
    arguments = f"{topic.bootstrap!r}, {topic.name!r}, None, None, Path({str(tmp_path / 'load')!r})"
    program = (
        "import sys; from pathlib import Path; from examples.load import Load\n"
        f"load = Load({arguments}, producers=2)\n"
        "load.start(); print(*load.pids.values(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        found = [ProcessRecord.of(int(pid), "producer") for pid in owner.stdout.readline().split()]
        owner.kill()
    producers = [process for process in found if process is not None]
    assert len(producers) == 2
    until(lambda: not any(p.is_running for p in producers), lambda: f"still there: {producers}")


def test_a_load_that_cannot_reach_its_broker_says_so_and_leaves_nothing_running(tmp_path: Path) -> None:
    load = Load("127.0.0.1:1", "clicks", None, None, tmp_path / "load", producers=1)
    with pytest.raises(LoadError, match="no 1 acknowledgements within 1 s for producer 0"):
        load.start(wait_seconds=1)
    assert not load.pids


def test_a_directory_that_holds_a_load_is_not_used_again(tmp_path: Path) -> None:
    (tmp_path / SETTINGS_FILE).touch()
    with pytest.raises(LoadError, match="already holds a load"):
        Load("127.0.0.1:1", "clicks", None, None, tmp_path).start()
