"""The HTTP answers of a running aggregator, over a real store, and the command that asks for them."""

from __future__ import annotations

import http.client
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from hotkey_aggregator.condition import Condition
from hotkey_aggregator.events import Reason
from hotkey_aggregator.metrics import Metrics
from hotkey_aggregator.query import QueryError, ask
from hotkey_aggregator.server import Answers, CountsServer
from hotkey_aggregator.settings import QuerySettings
from hotkey_aggregator.store import DeadLetter, Flush, OffsetMove, Position
from hotkey_aggregator.windows import Clicks, Source
from tests.contract.aggregator.model_store import ModelStore

P0, FORMER = Source("clicks", 0, "id-2"), Source("clicks", 0, "id-1")
IDS = ["run1-1", "run1-2", "run2-\n\x00\u202e:"]


class Loop:
    """When the loop last turned, as the test has it."""

    age_seconds = 0.0
    condition = Condition(joined=True, partitions=1, lag_records=7, watermark=60_000)


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def server(loop: Loop) -> Iterator[CountsServer]:
    """Three clicks of two advertisers in two minutes, and a dead letter."""
    store = ModelStore()
    clicks = Clicks(
        event_ids=IDS,
        advertiser_ids=["a:1", "nike", "nike"],
        ad_ids=["ad"] * 3,
        click_times=[0, 60_000, 120_000],
        costs=[0, 250_000, 0],
        digests=[1, 2, 3],
        source_of=[0, 0, 0],
        offsets=[0, 1, 2],
        sources=[P0],
    )
    bad = DeadLetter(P0, 3, Reason.NOT_JSON, "found\nnonsense")
    moves = (
        OffsetMove(P0, None, Position(4, event_time=120_000)),
        OffsetMove(FORMER, None, Position(70, event_time=60_000)),
    )
    store.commit(Flush(clicks, (bad,), moves))
    answers = Answers(
        lambda: store,
        Metrics().exposition,
        lambda: loop.age_seconds,
        lambda: loop.condition,
        clock=lambda: 63.5,
        healthy_seconds=60,
    )
    serving = CountsServer("127.0.0.1", 0, answers)
    yield serving
    serving.close()


def test_ids_piped_into_a_reader_that_has_enough_of_it_are_no_error(server: CountsServer) -> None:
    host, port = server.address
    command = [sys.executable, "-m", "hotkey_aggregator", "query", "--url", f"http://{host}:{port}", "ids"]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def get(server: CountsServer, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*server.address, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def get_json(server: CountsServer, path: str) -> Any:
    status, body = get(server, path)
    assert status == 200, body
    return json.loads(body)


def test_counts_name_advertiser_ad_and_minute(server: CountsServer) -> None:
    assert get_json(server, "/counts") == {
        "counts": [
            {
                "advertiser_id": "a:1",
                "ad_id": "ad",
                "minute": "1970-01-01T00:00:00Z",
                "clicks": 1,
                "cost": 0.0,
            },
            {
                "advertiser_id": "nike",
                "ad_id": "ad",
                "minute": "1970-01-01T00:01:00Z",
                "clicks": 1,
                "cost": 0.25,
            },
            {
                "advertiser_id": "nike",
                "ad_id": "ad",
                "minute": "1970-01-01T00:02:00Z",
                "clicks": 1,
                "cost": 0.0,
            },
        ],
        "truncated": False,
    }


@pytest.mark.parametrize(
    ("query", "minutes"),
    [
        ("advertiser_id=nike", ["00:01", "00:02"]),
        ("advertiser_id=a%3A1", ["00:00"]),
        ("advertiser_id=absent", []),
        ("minute_from=1970-01-01T00:01Z", ["00:01", "00:02"]),
        ("minute_from=1970-01-01T00:01&minute_to=1970-01-01T00:02:00Z", ["00:01"]),
        ("minute_to=1970-01-01T02:01:00%2B02:00", ["00:00"]),
        ("limit=2", ["00:00", "00:01"]),
    ],
)
def test_counts_can_be_narrowed(server: CountsServer, query: str, minutes: list[str]) -> None:
    found = get_json(server, f"/counts?{query}")
    assert [row["minute"][11:16] for row in found["counts"]] == minutes
    assert found["truncated"] == query.startswith("limit")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/counts?minute_from=yesterday", "minute_from='yesterday' is no ISO 8601 time"),
        ("/counts?limit=0", "limit='0' is no number from 1 to"),
        ("/counts?limit=9999999", "limit='9999999'"),
        ("/counts?limit=%C2%B2", "limit='²'"),
        ("/counts?advertiser=nike", "unknown parameter 'advertiser'; there are: advertiser_id"),
        ("/counts?limit=1&limit=2", "'limit' is given more than once"),
        ("/totals?x=1", "unknown parameter 'x'; there are: none"),
    ],
)
def test_a_wrong_question_is_answered_with_what_is_wrong(server: CountsServer, path: str, said: str) -> None:
    status, body = get(server, path)
    assert status == 400
    assert said in json.loads(body)["error"]


def test_totals_tell_sums_and_the_stored_offsets_of_the_newest_log(server: CountsServer) -> None:
    assert get_json(server, "/totals") == {
        "clicks": 3,
        "event_ids": 3,
        "windows": 3,
        "dead": 1,
        "forgotten": 0,
        "offsets": {"clicks": {"0": 4}},
    }


def test_ids_come_one_json_string_a_line(server: CountsServer) -> None:
    status, body = get(server, "/ids")
    assert (status, sorted(json.loads(line) for line in body.splitlines())) == (200, sorted(IDS))
    assert get(server, "/ids?prefix=run1")[1].count(b"\n") == 2
    assert get(server, "/ids?prefix=absent") == (200, b"")


def test_dead_letters_are_shown(server: CountsServer) -> None:
    assert get_json(server, "/dead")["dead"] == [
        {
            "topic": "clicks",
            "partition": 0,
            "topic_id": "id-2",
            "offset": 3,
            "reason": "NotJson",
            "detail": "found\nnonsense",
        }
    ]


def test_health_is_the_age_of_the_last_turn_of_the_loop(server: CountsServer, loop: Loop) -> None:
    assert get(server, "/healthz")[0] == 200
    loop.age_seconds = 61.0
    assert get(server, "/healthz")[0] == 503


def test_readiness_tells_how_fresh_the_counts_are(server: CountsServer) -> None:
    assert get_json(server, "/readyz") == {
        "ready": True,
        "reasons": [],
        "partitions": 1,
        "paused": False,
        "lag_records": 7,
        "watermark": "1970-01-01T00:01:00.000Z",
        "freshness_seconds": 3.5,
    }


@pytest.mark.parametrize(
    ("condition", "age", "reason"),
    [
        (
            Condition(joined=True, store_outage="no route to h"),
            0.0,
            "the store does not answer: no route to h",
        ),
        (Condition(), 0.0, "Kafka has given no partitions"),
        (Condition(joined=True, kafka_silent=True), 0.0, "Kafka does not answer"),
        (Condition(joined=True, unplaced=2), 0.0, "of 2 partitions it is not known where to read on"),
        (Condition(joined=True), 61.0, "the loop has not turned for 61 s"),
    ],
)
def test_what_keeps_the_counts_from_getting_newer_is_said(
    server: CountsServer, loop: Loop, condition: Condition, age: float, reason: str
) -> None:
    loop.condition, loop.age_seconds = condition, age
    status, body = get(server, "/readyz")
    assert status == 503
    (said,) = json.loads(body)["reasons"]
    assert said.startswith(reason)


def test_the_watermark_is_told_with_how_far_each_log_was_read(server: CountsServer) -> None:
    told = get_json(server, "/watermark")
    assert (told["watermark"], told["freshness_seconds"]) == ("1970-01-01T00:01:00.000Z", 3.5)
    assert told["sources"][1] == {
        "topic": "clicks",
        "partition": 0,
        "topic_id": "id-2",
        "next_offset": 4,
        "event_time": "1970-01-01T00:02:00.000Z",
    }


def test_metrics_are_in_prometheus_text(server: CountsServer) -> None:
    status, body = get(server, "/metrics")
    assert status == 200
    assert b'hotkey_aggregator_records_rejected_total{reason="NotJson"} 0.0' in body


def test_an_unknown_path_is_told_the_known_ones(server: CountsServer) -> None:
    status, body = get(server, "/nothing")
    assert status == 404
    assert "/counts" in json.loads(body)["paths"]


def asked(server: CountsServer, what: str, **parameters: str) -> list[str]:
    out = io.StringIO()
    host, port = server.address
    ask(QuerySettings(f"http://{host}:{port}", what, parameters), out)
    return out.getvalue().splitlines()


def test_the_query_command_prints_counts_as_a_table(server: CountsServer) -> None:
    assert asked(server, "counts", advertiser_id="nike", limit="1") == [
        "advertiser_id  ad_id  minute                clicks  cost",
        "nike           ad     1970-01-01T00:01:00Z  1       0.25",
        "(the first 1; ask for more with --limit)",
    ]
    assert asked(server, "counts", advertiser_id="absent") == ["none"]


def test_the_query_command_shows_control_characters_escaped(server: CountsServer) -> None:
    lines = asked(server, "dead")
    assert len(lines) == 2
    assert lines[1].endswith("found\\nnonsense")


def test_the_query_command_prints_totals_and_ids(server: CountsServer) -> None:
    assert json.loads("".join(asked(server, "totals")))["clicks"] == 3
    assert json.loads("".join(asked(server, "watermark")))["freshness_seconds"] == 3.5
    assert [json.loads(line) for line in asked(server, "ids", prefix="run1-1")] == ["run1-1"]


def test_the_query_command_hands_on_what_the_aggregator_refused(server: CountsServer) -> None:
    with pytest.raises(QueryError, match=r"answered 400: .*yesterday"):
        asked(server, "counts", minute_from="yesterday")
