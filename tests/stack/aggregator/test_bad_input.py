"""What is no click, and what people set up wrongly: told clearly, never in the way of the clicks."""

from __future__ import annotations

import json
from collections import Counter

from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from devstack import Stack
from tests.stack.aggregator.clicks import (
    FIRST_MINUTE,
    KeyAndValue,
    click,
    iso_minute,
    make_topic,
    send,
    send_clicks,
)
from tests.stack.aggregator.conftest import MakeAggregator, MakeTopic

LAST_MILLISECOND = 253_402_300_799_999
LONGEST = 16 * 1024


OPTIONAL = {"country": "DE", "region": "BE", "campaign": "spring", "device": "phone", "cost": 0.25}


def encoded(one: dict[str, object]) -> bytes:
    return json.dumps(one).encode()


def test_bad_records_are_kept_with_place_and_reason_and_stop_nothing(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given clicks, some of them strange, and records that are none, in one partition
    topic = new_topic(1)
    strange = ["a:1", "a.1", "nul\x00inside", "\u202ertl", "x" * 10_240, 'quo"te\\', "new\nline"]
    good: list[KeyAndValue] = [
        *((one.encode(), encoded(click(one, advertiser=one, ad=one))) for one in strange),
        (None, encoded(click("null-key"))),
        (b"", encoded(click("empty-key"))),
        (b"\xff\xfe", encoded(click("key-not-utf8"))),
        (b"k" * 10_240, encoded(click("key-of-10-kb"))),
        (b"nike:7", encoded({**click("all fields"), **OPTIONAL})),
        (b"nike:7", encoded({**click("null fields"), **dict.fromkeys(OPTIONAL)})),
        (b"nike:7", encoded(click("y" * LONGEST))),
    ]
    bad: list[tuple[str, bytes | None]] = [
        ("Empty", None),
        ("Empty", b""),
        ("NotJson", b"click!"),
        ("NotJson", encoded(click("cut"))[:-1]),
        ("NotJson", b'{"x": ' + b"[" * 100_000),
        ("NotJson", b'{"event_id": "\\ud800"}'),
        ("NotUtf8", b'{"event_id": "\xff"}'),
        ("NotAClick", b"[]"),
        ("NotAClick", encoded({"event_id": "few fields"})),
        ("NotAClick", encoded({**click("wrong type"), "click_time": "yesterday"})),
        ("NotAClick", encoded({**click("wrong type"), "user_id": 7})),
        ("NotAClick", encoded(click("before 1970", time_ms=-1))),
        ("NotAClick", encoded(click("year 10000", time_ms=LAST_MILLISECOND + 1))),
        ("NotAClick", encoded(click(""))),
        ("NotAClick", encoded(click("z" * (LONGEST + 1)))),
        ("NotAClick", encoded({**click("negative cost"), "cost": -0.01})),
        ("NotAClick", encoded({**click("too dear"), "cost": 1e10})),
        ("NotAClick", encoded({**click("wrong type"), "country": 49})),
        ("OutOfRetention", encoded(click("year 1970", time_ms=0))),
        ("FromTheFuture", encoded(click("year 9999", time_ms=LAST_MILLISECOND))),
    ]
    records = [*((b"nike", value) for _, value in bad), *good]
    expected_ids = [*strange, *(json.loads(value or b"")["event_id"] for _, value in good[len(strange) :])]

    # when
    reading = aggregator(topic)
    reading.start()
    send(stack.kafka.bootstrap, topic, records)
    reading.wait_until(lambda: reading.stored(topic) == {0: len(records)}, "all records read")

    # then every click is counted, under the names of its payload
    assert reading.ids() == Counter(expected_ids)
    windows = reading.counts()
    minute = iso_minute(FIRST_MINUTE)
    for one in strange:
        assert windows[one, one, minute] == 1
    assert not [advertiser for advertiser, _, _ in windows if advertiser == "nike:7"]

    # and every other record is kept, with its place and why it is none
    kept = reading.dead()
    found = sorted((row["offset"], row["reason"]) for row in kept)
    assert found == [(offset, reason) for offset, (reason, _) in enumerate(bad)]
    assert all(row["detail"] and row["topic"] == topic for row in kept)
    for reason, records_of_it in Counter(reason for reason, _ in bad).items():
        reading.wait_for_metric(
            f'hotkey_aggregator_records_rejected_total{{reason="{reason}"}}', records_of_it
        )


def test_a_flood_of_bad_records_writes_one_line_a_flush(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    topic = new_topic(1)
    flooded = aggregator(topic, flush_seconds=3600, max_pending=2000)
    flooded.start()
    send(stack.kafka.bootstrap, topic, [(None, b"bad")] * 20_000)
    flooded.wait_until(lambda: flooded.totals()["dead"] >= 18_000, "the bad records are kept")
    assert flooded.log_text().count("event=records_rejected") <= 10


def test_a_second_aggregator_on_the_same_file_is_told_so_and_the_first_goes_on(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given
    topic = new_topic(1)
    first = aggregator(topic)
    first.start()

    # when
    second = aggregator(topic)
    second.launch()

    # then
    assert second.process.wait(timeout=120) == 1
    assert second.log_text().startswith("hotkey-aggregator: the store ")
    assert f"is in use by process {first.process.pid}" in second.log_text()
    send_clicks(stack.kafka.bootstrap, topic, ["e1"])
    first.wait_until(lambda: first.totals()["clicks"] == 1, "the first counts on")


def test_a_store_of_another_stream_is_refused(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given a store that counts one topic
    topic, other = new_topic(1), new_topic(1)
    first = aggregator(topic)
    first.start()
    send_clicks(stack.kafka.bootstrap, topic, ["e1"])
    first.wait_until(lambda: first.totals()["clicks"] == 1, "1 click")
    assert first.terminate() == 0

    # when it is given to an aggregator of another
    second = aggregator(other, db=first.db)
    second.launch()

    # then
    assert second.process.wait(timeout=120) == 1
    assert f"counts the stream '{stack.kafka.cluster_id}/{topic}'" in second.log_text()


def test_a_topic_that_does_not_exist_yet_is_read_when_it_appears(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given an aggregator of a topic that is not there
    topic = "clicks-that-come-later"
    early = aggregator(topic)
    early.start()
    early.wait_until(lambda: "UNKNOWN_TOPIC" in early.log_text(), "it says that the topic is missing")

    # when
    make_topic(stack.kafka.bootstrap, topic, 1)
    send_clicks(stack.kafka.bootstrap, topic, ["e1"])

    # then
    early.wait_until(lambda: early.totals()["clicks"] == 1, "the click is counted")


def test_partitions_that_are_added_are_read(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    topic = new_topic(1)
    growing = aggregator(topic)
    growing.start()
    growing.wait_until(lambda: growing.metric("hotkey_aggregator_assigned_partitions") == 1, "1 partition")

    admin = AdminClient({"bootstrap.servers": stack.kafka.bootstrap, "log_level": 0})
    admin.create_partitions([NewPartitions(topic, 3)])[topic].result(120)
    send_clicks(stack.kafka.bootstrap, topic, ["e1"], partition=2)

    growing.wait_until(lambda: growing.totals()["clicks"] == 1, "the click of the new partition")


def test_kafka_that_does_not_answer_at_the_start_is_waited_for(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator
) -> None:
    # given a broker that is away when the aggregator starts
    topic = new_topic(1)
    send_clicks(stack.kafka.bootstrap, topic, ["e1"])
    patient = aggregator(topic)
    stack.kafka.nodes[0].kill()
    try:
        patient.start()
        patient.wait_until(lambda: "event=kafka_error" in patient.log_text(), "it says so")
    finally:
        stack.kafka.nodes[0].restart()

    # then
    patient.wait_until(lambda: patient.totals()["clicks"] == 1, "the click is counted")
