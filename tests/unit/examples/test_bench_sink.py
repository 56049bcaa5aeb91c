"""What the part `sink` sends, and what it makes of what it saw."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import msgspec
import pytest

from bench.processes import cpu_seconds, family, peak_megabytes
from bench.sink import Sinks, goals, section
from bench.sink.events import HOT, HOT_SHARE, LATER_MILLISECONDS, Traffic
from bench.sink.laboratory import Plan
from bench.sink.plain_peer import count, count_once
from bench.sink.steady import NotSteadyError, Sample, Steady, steady
from bench.sink.watching import Measure
from hotkey_aggregator.events import Click, decode_all

START = 1_800_000_000_000


def test_the_clicks_are_clicks_with_ids_of_their_own_and_most_are_of_one_advertiser() -> None:
    events = list(Traffic(partitions=48, count=5_000, start=START))

    decoded = decode_all([event.value for event in events])

    assert not decoded.refused
    assert len({click.event_id for click in decoded.clicks}) == len(events) == 5_000
    hot = sum(click.advertiser_id == HOT for click in decoded.clicks)
    assert hot / len(events) == pytest.approx(HOT_SHARE, abs=0.02)
    assert {event.key.decode() for event in events} == {
        f"{click.advertiser_id}/{click.ad_id}" for click in decoded.clicks
    }


def test_the_hot_advertiser_is_on_all_partitions_and_each_other_one_on_one() -> None:
    events = list(Traffic(partitions=8, count=5_000, start=START))
    places: dict[bytes, set[int]] = {}
    for event in events:
        places.setdefault(event.key.partition(b"/")[0], set()).add(event.partition)

    assert places.pop(HOT.encode()) == set(range(8))
    assert all(len(partitions) == 1 for partitions in places.values())


def test_the_last_click_of_each_partition_is_so_late_that_all_windows_before_it_close() -> None:
    traffic = Traffic(partitions=8, count=2_000, start=START)
    times: dict[int, list[int]] = {}
    for event in traffic:
        times.setdefault(event.partition, []).append(msgspec.json.decode(event.value, type=Click).click_time)

    assert set(times) == set(range(8))
    for found in times.values():
        assert found[-1] - max(found[:-1]) >= LATER_MILLISECONDS - 2_000


def test_the_same_seed_makes_the_same_clicks_but_for_their_ids() -> None:
    one, two = (list(Traffic(partitions=4, count=500, start=START, seed=7)) for _ in range(2))

    assert [event.value[52:] for event in one] == [event.value[52:] for event in two]
    assert [event.value for event in one] != [event.value for event in two]


def test_a_cost_is_taken_from_commit_to_commit_without_the_warm_up_and_the_end() -> None:
    samples = [
        Sample(100, 5.0, 10.0),
        Sample(300, 7.0, 12.0),
        Sample(500, 8.0, 13.0),
        Sample(700, 9.0, 14.0),
        Sample(800, 20.0, 30.0),
    ]

    found = steady(samples, warm=200, until=750, least=400)

    assert found == Steady(400, 2.0, 2.0)
    assert found.cpu_per_million == pytest.approx(5_000)
    assert found.per_wall_second == pytest.approx(200)


def test_too_few_events_between_warm_up_and_end_are_refused() -> None:
    samples = [Sample(100, 5.0, 10.0), Sample(500, 8.0, 13.0), Sample(800, 20.0, 30.0)]

    with pytest.raises(NotSteadyError, match="400 events apart"):
        steady(samples, warm=200, until=750, least=400)


def test_the_cpu_of_a_process_includes_its_children_and_those_that_have_ended() -> None:
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    program = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {busy!r}])\n"
        "print(flush=True)\ninput()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()

        assert cpu_seconds(parent.pid) >= 0.3
        assert parent.pid in set(family(os.getpid()))
        assert peak_megabytes(parent.pid) > 1

        parent.communicate(b"\n")
    assert cpu_seconds(parent.pid) == 0


class Message:
    """As much of a Kafka message as the plain loop looks at."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def value(self) -> bytes:
        return self._value


def test_the_plain_loop_counts_each_message_or_each_id() -> None:
    first, second = (event.value for event in list(Traffic(partitions=1, count=2, start=START)))
    messages = [Message(value) for value in (first, second, first)]
    all_of, once = Counter[tuple[str, str, int]](), Counter[tuple[str, str, int]]()

    count(messages, all_of)
    count_once(messages, once, set())

    assert (all_of.total(), once.total()) == (3, 2)
    assert set(all_of) == set(once)


def measured(row: str, cpu_seconds: float, megabytes: float, upkeep: float | None = None) -> Measure:
    return Measure(row, 3_000_000, Steady(2_000_000, cpu_seconds, 10.0), megabytes, upkeep)


def test_the_goals_are_of_hotkeys_rows_by_the_median_of_rounds_and_the_worst_memory() -> None:
    result = Sinks(
        Plan(rows=("duckdb-0", "postgres-100M", "plain-ids")),
        [
            measured("duckdb-0", 5.0, 700),
            measured("duckdb-0", 9.0, 800),
            measured("duckdb-0", 5.4, 750),
            measured("postgres-100M", 14.0, 1_100),
            measured("plain-ids", 12.0, 400),
        ],
        {},
        173.0,
        None,
    )

    found = [(goal.found, goal.word) for goal in goals(result)]

    assert found == [(2.7, "met"), (800, "met"), (7.0, "NOT met"), (1_100, "NOT met")]


def test_the_section_tells_costs_ratios_what_is_missing_and_what_is_not_in_the_figures() -> None:
    result = Sinks(
        Plan(rows=("duckdb-10M", "postgres-0", "quix", "plain-ids")),
        [
            measured("duckdb-10M", 5.0, 700),
            measured("postgres-0", 10.0, 700, upkeep=1.5),
            measured("plain-ids", 15.0, 400),
        ],
        {"quix": "it is not there"},
        173.0,
        None,
    )

    told = section(result)

    assert "| hotkey, DuckDB, 10,000,000 ids there | 2.50 | 400,000 | 200,000 | 700 | 1 : 3.0 |" in told
    assert "Quix Streams was not measured: it is not there." in told
    assert "0.50 CPU s per million" in told


def test_a_quick_plan_has_a_row_of_every_kind() -> None:
    assert {row.partition("-")[0] for row in Plan.quick().rows} == {"duckdb", "postgres", "quix", "plain"}
