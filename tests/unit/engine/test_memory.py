"""What is learned of a topic: whether it is still the same, which offsets are records, what samples took."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hotkey_operator.engine import rates
from hotkey_operator.engine.heavy import Evidence
from hotkey_operator.engine.memory import SAMPLING_SECONDS, Memory, counted_by, learned, sampling
from hotkey_operator.engine.model import (
    EndOffsets,
    Observation,
    PartitionSample,
    SampledRecord,
    Sizes,
    TopicFacts,
)
from hotkey_operator.engine.pressure import Load, warm
from hotkey_operator.engine.sizes import SLOW_SECONDS
from hotkey_operator.engine.spec import Trigger
from tests.unit.engine.stream import START, STREAM, spec


def seen(
    at: float, offsets: tuple[int, ...], *samples: PartitionSample, topic_id: str = "one"
) -> Observation:
    return Observation(
        START + at,
        TopicFacts(STREAM, len(offsets), False, topic_id),
        ends=EndOffsets(START + at, offsets),
        samples=samples,
    )


def after(*observations: Observation) -> Memory:
    memory = Memory()
    for observation in observations:
        memory = learned(memory, spec(), observation)
    return memory


def sampled(partition: int, records: int, offsets: int, bytes_read: int = 0) -> PartitionSample:
    run = (SampledRecord(b"nike", 100),) * records
    return PartitionSample(partition, (run,), ((0, offsets),), bytes_read)


def test_a_topic_that_was_made_anew_is_measured_anew_though_its_offsets_are_higher() -> None:
    before = after(seen(0, (100, 100)), seen(1, (200, 200)))
    anew = learned(before, spec(), seen(2, (90_000, 300), topic_id="two"))
    assert rates.fast(before.history) == (100.0, 100.0)
    assert rates.fast(anew.history) is None
    assert anew.evidence == {}
    assert rates.fast(learned(anew, spec(), seen(3, (90_010, 310), topic_id="two")).history) == (10.0, 10.0)


def test_a_cluster_that_tells_no_topic_ids_is_measured_all_the_same() -> None:
    found = after(seen(0, (0, 0), topic_id=""), seen(1, (50, 60), topic_id=""))
    assert rates.fast(found.history) == (50.0, 60.0)


def test_an_id_that_is_told_late_begins_nothing_anew() -> None:
    found = after(seen(0, (0, 0), topic_id=""), seen(1, (50, 60)))
    assert rates.fast(found.history) == (50.0, 60.0)


def test_counters_of_another_source_or_query_are_no_continuation_of_those_known() -> None:
    producers, kafka = spec(metrics={"source": "Producers"}), spec()
    unread = spec(metrics={"source": "Producers", "sampling": False})
    memory = counted_by(Memory(), producers.metrics)
    for second in range(3):
        memory = learned(memory, producers, seen(second, (100 * second, 0)))

    same = counted_by(memory, unread.metrics)
    other = counted_by(memory, kafka.metrics)

    assert same.history == memory.history
    after_switch = learned(other, kafka, seen(3, (90_000_000, 7_000_000_000)))
    assert rates.fast(after_switch.history) is None
    after_switch = learned(after_switch, kafka, seen(4, (90_000_100, 7_000_000_000)))
    assert rates.fast(after_switch.history) == (100.0, 0.0)


def test_markers_are_taken_out_of_the_rates_from_the_turn_on_that_saw_them() -> None:
    found = after(seen(0, (0, 0)), seen(1, (2_000, 100), sampled(0, 500, 1_000)))
    assert rates.fast(found.history) == (1_000.0, 50.0)
    assert sampling(found, START + 1).real == 0.5


def test_a_small_sample_moves_what_is_known_of_markers_only_a_little() -> None:
    sure = seen(1, (2_000, 100), sampled(0, 500, 1_000))
    found = after(seen(0, (0, 0)), sure, seen(2, (4_000, 200), sampled(0, 50, 50)))
    assert found.history.real[0] == pytest.approx(0.55)


@pytest.mark.parametrize("spans", [(), ((0, 5),)], ids=["not told", "fewer offsets than records"])
def test_a_sample_that_says_nothing_sensible_of_offsets_changes_no_rate(
    spans: tuple[tuple[int, int], ...],
) -> None:
    sample = replace(sampled(0, 10, 10), spans=spans)
    found = after(seen(0, (0, 0)), seen(1, (2_000, 100), sample))
    assert rates.fast(found.history) == (2_000.0, 100.0)


def test_what_samples_took_is_told_over_the_last_minute() -> None:
    found = after(seen(0, (0, 0)), seen(1, (9, 9), sampled(0, 5, 5, 3_000), sampled(1, 5, 5, 3_000)))
    assert sampling(found, START + 1).bytes_per_second == 6_000 / SAMPLING_SECONDS
    assert sampling(found, START + 1).partitions == 2
    later = learned(found, spec(), seen(1 + SAMPLING_SECONDS, (9, 9)))
    assert sampling(later, START + 1 + SAMPLING_SECONDS) == replace(
        sampling(found, START + 1), bytes_per_second=0.0, partitions=0
    )


def test_log_sizes_that_nobody_tells_any_more_are_forgotten() -> None:
    def told(at: float, *sizes: int) -> Observation:
        return replace(seen(at, (9, 9)), log_sizes=EndOffsets(START + at, sizes))

    found = after(told(0, 0, 0), told(15, 90_000_000, 15), seen(16, (9, 9), sampled(0, 5, 5)))
    assert found.sizes_from is Sizes.LOG_SIZE
    shortly = learned(found, spec(), seen(30, (9, 9)))
    assert shortly.log_sizes == found.log_sizes
    later = learned(shortly, spec(), seen(15 + SLOW_SECONDS, (9, 9)))
    assert later.sizes_from is Sizes.SAMPLED
    again = learned(later, spec(), told(200, 90_000_015, 30))
    assert again.sizes_from is not Sizes.LOG_SIZE, "one size is no growth"


def evidence(mean_bytes: float) -> Evidence:
    return Evidence(START, 100, mean_bytes, {})


@pytest.mark.parametrize(
    ("known", "measured", "expected", "sizes"),
    [
        ({}, {}, None, Sizes.NONE),
        ({0: 50.0}, {}, (500.0, 1_000.0), Sizes.SAMPLED),
        ({0: 50.0, 1: 100.0}, {}, (500.0, 2_000.0), Sizes.SAMPLED),
        ({0: 50.0}, {1: 7.0}, (500.0, 7.0), Sizes.LOG_SIZE),
        ({}, {0: 3.0, 1: 7.0, 5: 1.0}, (3.0, 7.0), Sizes.LOG_SIZE),
    ],
    ids=["nothing known", "one sampled", "both sampled", "one log", "logs alone"],
)
def test_bytes_per_second_are_measured_or_made_of_sampled_sizes(
    known: dict[int, float], measured: dict[int, float], expected: tuple[float, ...] | None, sizes: Sizes
) -> None:
    load = Load.of((10.0, 20.0), {p: evidence(size) for p, size in known.items()}, measured)
    assert (load.bytes, load.sizes) == (expected, sizes)


def test_a_partition_is_warm_above_half_the_trigger_in_records_or_in_bytes() -> None:
    load = Load.of((400.0, 501.0, 10.0), {0: evidence(10.0)}, {2: 600.0})
    assert warm(Trigger(1_000.0, None), load) == {1}
    assert warm(Trigger(None, 1_000.0), load) == {0, 1, 2}
    assert warm(Trigger(1_000.0, 1_000_000.0), load) == {1}
