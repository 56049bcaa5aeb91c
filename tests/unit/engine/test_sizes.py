"""Bytes per second from the sizes of logs, which also fall."""

from __future__ import annotations

import pytest

from hotkey_operator.engine.memory import Memory, learned
from hotkey_operator.engine.model import EndOffsets, Observation, TopicFacts
from hotkey_operator.engine.model import Sizes as SizesFrom
from hotkey_operator.engine.situation import Situation
from hotkey_operator.engine.sizes import FAST_SECONDS, SLOW_SECONDS, Sizes, extended, growth
from hotkey_operator.engine.spec import parse_spec
from hotkey_sdk.routing.table import Stream, Table


def sizes(*readings: tuple[float, tuple[int, ...]]) -> Sizes:
    found: Sizes = ()
    for at, of in readings:
        found = extended(found, EndOffsets(at, of))
    return found


def test_growth_is_what_was_appended_over_the_time_between_scrapes() -> None:
    found = sizes((0.0, (1_000, 5)), (15.0, (4_000, 5)), (30.0, (4_300, 5)))
    assert growth(found, FAST_SECONDS) == {0: 20.0, 1: 0.0}
    assert growth(found, SLOW_SECONDS) == {0: 110.0, 1: 0.0}


def test_a_deleted_segment_is_no_negative_load_and_its_time_does_not_count() -> None:
    found = sizes((0.0, (10_000,)), (15.0, (11_500,)), (30.0, (2_000,)))
    assert growth(found, FAST_SECONDS) == {0: 100.0}
    assert growth(sizes((0.0, (10_000,)), (15.0, (11_500,)), (30.0, (2_000,)), (45.0, (5_000,))), 60) == {
        0: 150.0
    }


def test_one_reading_and_the_same_again_measure_nothing() -> None:
    assert growth(sizes((0.0, (5,))), FAST_SECONDS) == {}
    assert growth(sizes((0.0, (5,)), (0.0, (5,))), FAST_SECONDS) == {}
    assert growth(sizes((0.0, (5,)), (1.0, (3,))), FAST_SECONDS) == {0: 0.0}


@pytest.mark.parametrize(
    "odd", [EndOffsets(20.0, (1, 2)), EndOffsets(5.0, (9,))], ids=["partitions", "clock"]
)
def test_sizes_of_another_partition_count_or_clock_begin_anew(odd: EndOffsets) -> None:
    assert extended(sizes((10.0, (1,)), (15.0, (2,))), odd) == (odd,)


def test_a_time_that_is_no_number_is_passed_over() -> None:
    found = sizes((10.0, (1,)))
    assert extended(found, EndOffsets(float("nan"), (2,))) == found


def test_the_load_is_said_to_be_of_the_logs_where_they_are_known() -> None:
    spec = parse_spec({"topic": "clicks", "trigger": {"bytesPerSecond": 50_000}})
    topic, memory = TopicFacts(Stream("c", "clicks"), 2, compacted=False), Memory()
    for second in range(0, 31, 15):
        at = 1_000.0 + second
        ends, logs = EndOffsets(at, (second * 10, second * 10)), EndOffsets(at, (second * 90_000, second))
        memory = learned(memory, spec, Observation(at, topic, ends, log_sizes=logs))

    table = Table.empty(topic.stream, partitions=2, epoch=1, seed=1)
    s = Situation.of(spec, 1_030.0, topic, table, memory)

    assert s.now is not None
    assert (s.now.bytes, s.now.sizes) == ((90_000.0, 1.0), SizesFrom.LOG_SIZE)
    assert memory.sizes_from is SizesFrom.LOG_SIZE
    assert s.hot == (0,)
    assert s.by_bytes
    assert s.record_bytes() == pytest.approx(90_001 / 20)
