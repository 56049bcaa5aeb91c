"""`Brokers`: real Kafka and the simulation's answer alike."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from hotkey_operator.ports import SampleBudget, Unavailable
from hotkey_sdk.routing.table import Dimension
from tests.contract.operator.conftest import Run
from tests.contract.operator.worlds import BrokersWorld, Put, fresh

MakeBrokers = Callable[[], BrokersWorld]


def test_a_topic_that_does_not_exist_is_none_and_is_not_made_by_asking(
    run: Run, brokers: BrokersWorld
) -> None:
    async def scenario() -> None:
        name = fresh("missing")
        assert await brokers.brokers.topic(name) is None
        assert await brokers.brokers.topic(name) is None

    run(scenario())


def test_a_topic_tells_its_cluster_its_partitions_and_whether_it_is_compacted(
    run: Run, brokers: BrokersWorld
) -> None:
    async def scenario() -> None:
        plain, compacted = fresh("plain"), fresh("compacted")
        await brokers.create(plain, 5)
        await brokers.create(compacted, 2, compacted=True)
        first, second = await brokers.brokers.topic(plain), await brokers.brokers.topic(compacted)
        assert first is not None
        assert second is not None
        assert (first.stream.topic, first.partitions, first.compacted) == (plain, 5, False)
        assert (second.partitions, second.compacted) == (2, True)
        assert first.stream.cluster_id == second.stream.cluster_id != ""

    run(scenario())


def test_end_offsets_stand_in_partition_order_and_count_what_was_appended(
    run: Run, brokers: BrokersWorld
) -> None:
    async def scenario() -> None:
        topic = fresh("ends")
        await brokers.create(topic, 3)
        before = await brokers.brokers.end_offsets(topic, 3)
        await brokers.append(topic, 2, [Put(b"k")] * 7)
        await brokers.append(topic, 0, [Put(b"k")] * 2)
        after = await brokers.brokers.end_offsets(topic, 3)
        assert before.offsets == (0, 0, 0)
        assert after.offsets == (2, 0, 7)
        assert after.at >= before.at

    run(scenario())


def test_a_sample_is_bounded_lies_within_its_window_and_takes_no_record_twice(
    run: Run, brokers: BrokersWorld
) -> None:
    async def scenario() -> None:
        topic = fresh("sample")
        await brokers.create(topic, 2)
        await brokers.append(topic, 1, [Put(b"%d" % i) for i in range(5_000)])
        budget = SampleBudget(records_per_partition=200, runs_per_partition=10, seconds=20)
        found = await brokers.brokers.sample(topic, {1: (1_000, 4_000)}, (), budget, seed=1)
        assert [sample.partition for sample in found] == [1]
        keys = [int(record.key or b"-1") for run_ in found[0].runs for record in run_]
        assert len(found[0].runs) == 10
        assert len(keys) == 200
        assert len(set(keys)) == len(keys)
        assert all(1_000 <= key < 4_000 for key in keys)

    run(scenario())


def test_a_partition_that_is_read_less_closely_has_fewer_runs_as_long_as_those_of_others(
    run: Run, brokers: BrokersWorld
) -> None:
    async def scenario() -> None:
        topic = fresh("fewer")
        await brokers.create(topic, 2)
        for partition in (0, 1):
            await brokers.append(topic, partition, [Put(b"%d" % i) for i in range(3_000)])
        budget = SampleBudget(400, 20, seconds=20, fewer_runs={1: 4})
        found = await brokers.brokers.sample(topic, {0: (0, 3_000), 1: (0, 3_000)}, (), budget, seed=1)
        assert [[len(run_) for run_ in sample.runs] for sample in found] == [[20] * 20, [20] * 4]

    run(scenario())


def test_some_end_offsets_are_those_of_the_partitions_asked_for(run: Run, brokers: BrokersWorld) -> None:
    async def scenario() -> None:
        topic = fresh("some")
        await brokers.create(topic, 4)
        await brokers.append(topic, 3, [Put(b"k")] * 7)
        at, found = await brokers.brokers.some_end_offsets(topic, {1, 3})
        everything = await brokers.brokers.end_offsets(topic, 4)
        assert found == {1: 0, 3: 7}
        assert at <= everything.at
        assert everything.unread == frozenset()

    run(scenario())


def test_a_topic_that_was_made_anew_has_another_id(run: Run, brokers: BrokersWorld) -> None:
    async def scenario() -> None:
        topic = fresh("anew")
        await brokers.create(topic, 2)
        first, again = await brokers.brokers.topic(topic), await brokers.brokers.topic(topic)
        await brokers.recreate(topic, 2)
        second = await brokers.brokers.topic(topic)
        assert first is not None
        assert second is not None
        assert first == again
        assert first.topic_id != ""
        assert second.topic_id not in ("", first.topic_id)

    run(scenario())


def test_a_run_tells_the_offsets_that_it_was_read_through_and_where_the_records_lay(
    run: Run, brokers: BrokersWorld
) -> None:
    async def scenario() -> None:
        topic = fresh("spans")
        await brokers.create(topic, 1)
        await brokers.append(topic, 0, [Put(b"%d" % i) for i in range(3_000)])
        budget = SampleBudget(records_per_partition=100, runs_per_partition=20, seconds=20)
        (found,) = await brokers.brokers.sample(topic, {0: (500, 2_900)}, (), budget, seed=7)
        keys = [[int(record.key or b"-1") for record in run_] for run_ in found.runs]
        assert keys == [list(range(first, end)) for first, end in found.spans]
        assert len(found.spans) == 20
        assert list(found.spans) == sorted(found.spans)
        assert found.bytes_read > 0

    run(scenario())


def test_markers_of_transactions_have_offsets_and_are_no_records(run: Run, brokers: BrokersWorld) -> None:
    async def scenario() -> None:
        topic = fresh("transactions")
        await brokers.create(topic, 1)
        await brokers.commit_each(topic, 0, [Put(b"%d" % i) for i in range(60)])
        ends = await brokers.brokers.end_offsets(topic, 1)
        assert ends.offsets == (120,)
        for first, end in ((0, 120), (31, 88)):
            (found,) = await brokers.brokers.sample(
                topic, {0: (first, end)}, (), SampleBudget(seconds=20), seed=8
            )
            records = [int(record.key or b"-1") for run_ in found.runs for record in run_]
            assert records == list(range((first + 1) // 2, (end + 1) // 2))
            assert sum(b - a for a, b in found.spans) == end - first

    run(scenario())


def test_records_of_a_transaction_that_is_still_open_count(run: Run, brokers: BrokersWorld) -> None:
    async def scenario() -> None:
        topic = fresh("open")
        await brokers.create(topic, 2)
        await brokers.append(topic, 1, [Put(b"k")] * 3)
        await brokers.leave_open(topic, 1, [Put(b"k")] * 40)
        ends = await brokers.brokers.end_offsets(topic, 2)
        assert ends.offsets == (0, 43)

    run(scenario())


def test_what_does_not_exist_has_no_end_offsets_and_is_not_made_by_asking(
    run: Run, brokers: BrokersWorld
) -> None:
    async def scenario() -> None:
        name = fresh("missing")
        with pytest.raises(Unavailable):
            await brokers.brokers.end_offsets(name, 2)
        assert await brokers.brokers.topic(name) is None

    run(scenario())


def test_the_seed_chooses_the_sampled_records(run: Run, brokers: BrokersWorld) -> None:
    async def scenario() -> None:
        topic = fresh("seeded")
        await brokers.create(topic, 1)
        await brokers.append(topic, 0, [Put(b"%d" % i) for i in range(3_000)])
        budget = SampleBudget(records_per_partition=50, runs_per_partition=5, seconds=20)
        window = {0: (0, 3_000)}
        one, same, other = [
            await brokers.brokers.sample(topic, window, (), budget, seed) for seed in (1, 1, 2)
        ]
        assert one == same
        assert one != other

    run(scenario())


def test_a_window_smaller_than_the_budget_is_read_whole(run: Run, brokers: BrokersWorld) -> None:
    async def scenario() -> None:
        topic = fresh("small")
        await brokers.create(topic, 1)
        await brokers.append(topic, 0, [Put(b"%d" % i) for i in range(30)])
        found = await brokers.brokers.sample(topic, {0: (0, 30)}, (), SampleBudget(seconds=20), seed=3)
        keys = sorted(int(record.key or b"-1") for run_ in found[0].runs for record in run_)
        assert keys == list(range(30))

    run(scenario())


def test_an_empty_window_is_left_out_and_the_others_are_sampled(run: Run, brokers: BrokersWorld) -> None:
    async def scenario() -> None:
        topic = fresh("empty")
        await brokers.create(topic, 3)
        for partition in (0, 2):
            await brokers.append(topic, partition, [Put(b"k")] * 40)
        windows = {0: (0, 40), 1: (0, 0), 2: (0, 40)}
        found = await brokers.brokers.sample(topic, windows, (), SampleBudget(seconds=20), seed=4)
        assert [sample.partition for sample in found] == [0, 2]

    run(scenario())


def test_keys_of_every_kind_come_back_as_they_are_with_their_size(run: Run, brokers: BrokersWorld) -> None:
    async def scenario() -> None:
        topic, keys = fresh("keys"), [None, b"", b"\xff\xfe", b"a:1", b"x" * 10_000]
        await brokers.create(topic, 1)
        await brokers.append(topic, 0, [Put(key, b"12345") for key in keys])
        found = await brokers.brokers.sample(topic, {0: (0, 5)}, (), SampleBudget(seconds=20), seed=5)
        records = [record for run_ in found[0].runs for record in run_]
        assert [record.key for record in records] == keys
        assert [record.size_bytes for record in records] == [len(key or b"") + 5 for key in keys]

    run(scenario())


def test_dimensions_are_read_from_json_headers_and_time_and_are_absent_where_they_cannot_be(
    run: Run, brokers: BrokersWorld
) -> None:
    async def scenario() -> None:
        topic = fresh("dimensions")
        dimensions = (
            Dimension("user", json_path="$.user.ids[1]"),
            Dimension("country", header="x-country"),
            Dimension("hour", time_bucket_seconds=3_600),
            Dimension("only_the_caller_knows"),
        )
        payload = json.dumps({"user": {"ids": [1, 42]}}).encode()
        await brokers.create(topic, 1)
        await brokers.append(topic, 0, [Put(b"k", payload, {"x-country": b"de"}), Put(b"k", b"\xffnot json")])
        found = await brokers.brokers.sample(topic, {0: (0, 2)}, dimensions, SampleBudget(seconds=20), seed=6)
        first, second = (record.dimensions for run_ in found[0].runs for record in run_)
        assert dict(first) == {"user": "42", "country": "de", "hour": "2024051610"}
        assert dict(second) == {"hour": "2024051610"}

    run(scenario())
