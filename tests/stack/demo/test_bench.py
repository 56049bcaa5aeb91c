"""The benchmarks run and report; what they measure is nobody's to assert."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from bench import dedicated, freshness, members, onset, overhead, propagation, resend, senders, sink
from bench.imbalance import rows as imbalance
from bench.imbalance.peers import Method
from bench.imbalance.rows import Workload
from bench.report import Results
from hotkey_sdk._producer import PATHS

R = TypeVar("R", bound=msgspec.Struct)


def bench(out: Path, part: str, result: type[R], *arguments: str) -> R:
    command = [sys.executable, "-m", "bench", part, "--quick", *arguments, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "report.md").read_text() in done.stdout
    (measured,) = msgspec.json.decode((out / "results.json").read_bytes(), type=Results).measured
    return msgspec.json.decode(measured.answer.result, type=result)


def test_the_cost_of_every_way_to_send_is_measured_and_reported(tmp_path: Path) -> None:
    result = bench(tmp_path / "out", "overhead", overhead.Overhead)
    paths = {path.name for path in PATHS}  # one of them where there is no compiler
    assert {each.case for each in result.paired} == {
        way for way in overhead.PEERS if not way.endswith(")") or way.rpartition("(")[2].rstrip(")") in paths
    }
    assert {batch.way for batch in result.batches} >= {senders.PLAIN_ONE, senders.SALTED}
    assert all(cost > 0 for each in result.paired for cost in (*each.thread, *each.peer_thread))
    assert all(cost > 0 for each in result.paired for cost in (*each.process, *each.peer_process))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_imbalance_is_measured_for_hotkey_and_every_peer(tmp_path: Path) -> None:
    rows = bench(tmp_path / "out", "imbalance", imbalance.Imbalance).rows
    for row in rows:
        assert len(row.records) == row.partitions
        assert (row.adoption is not None) == (row.method == "hotkey")
    assert {row.workload for row in rows} == set(Workload)
    methods = {row.method for row in rows if row.workload is Workload.ONE_HOT}
    assert methods == {"hotkey", *Method}
    assert {row.by for row in rows if row.method == "hotkey"} == {"", "user_id"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_onset_is_measured_stage_by_stage(tmp_path: Path) -> None:
    (first,) = bench(tmp_path / "out", "onset", onset.Onsets).onsets
    assert (
        0 < first.sensed <= first.waited <= first.sampled <= first.planned <= first.written <= first.published
    )
    assert first.published <= first.first_record <= first.spread
    assert first.published <= first.adopted
    assert first.imbalance_after < first.imbalance_before


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_members_are_measured_with_the_hot_key_on_one_partition_and_spread(tmp_path: Path) -> None:
    found = bench(tmp_path / "out", "members", members.Members)

    assert found.plain.imbalance > 2 > found.spread.imbalance
    assert found.plain.rate == found.spread.rate
    for way in (found.plain, found.spread):
        assert way.seconds > 0
        assert way.lags


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_freshness_of_every_click_is_measured_in_each_store(tmp_path: Path) -> None:
    found = bench(tmp_path / "out", "freshness", freshness.Measured)

    assert [each.store for each in found.stores] == [
        freshness.DUCKDB, freshness.CLASSIC, freshness.CONSUMER
    ]  # fmt: skip
    for each in found.stores:
        assert 0 < each.freshness.p50 <= each.freshness.p99 <= each.freshness.worst
        assert each.ids >= each.freshness.clicks > 0
        assert len(each.kills) == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_cost_of_counting_a_click_is_measured_on_both_stores_and_for_the_peers(tmp_path: Path) -> None:
    found = bench(tmp_path / "out", "sink", sink.Sinks)

    assert {*found.rows, *found.missing} == set(found.plan.rows)
    assert set(found.missing) <= {"quix"}  # where its packages are not installed
    assert all(found.cost(row) > 0 and found.peak(row) > 0 for row in found.rows)
    assert all(each.steady.events >= found.plan.least for each in found.measures)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_propagation_to_every_client_is_measured_for_each_way(tmp_path: Path) -> None:
    found = bench(tmp_path / "out", "propagation", propagation.Propagation)

    assert set(found.epochs) == {way.name for way in propagation.WAYS}
    clients = propagation.PROCESSES * propagation.CLIENTS
    for epoch in (epoch for epochs in found.epochs.values() for epoch in epochs):
        assert epoch.began < 0 < epoch.published
        assert len(epoch.applied) == clients
        assert min(epoch.applied) > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_first_record_in_a_warm_and_in_a_new_topic_is_measured(tmp_path: Path) -> None:
    found = bench(tmp_path / "out", "dedicated", dedicated.Dedicated)

    assert found.failures == []
    assert {each.warm for each in found.rounds} == {True, False}
    for each in found.rounds:
        assert 0 < each.named < each.active <= each.published
        assert each.active < each.first


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_tail_is_measured_for_each_way_that_a_topic_can_refuse(tmp_path: Path) -> None:
    found = bench(tmp_path / "out", "resend", resend.Resend)

    assert len(found.raw) == 1
    assert [tail.refusal for tail in found.tails] == list(resend.Refusal)
    assert all(tail.seconds > 0 for tail in found.tails)
    assert {each.case for each in found.costs} == set(resend.peers_of(found.path))
