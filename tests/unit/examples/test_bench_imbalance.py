"""How the imbalance part's rows are counted and told."""

from __future__ import annotations

import pytest

from bench.imbalance import told
from bench.imbalance.draws import Mix
from bench.imbalance.peers import Method
from bench.imbalance.rows import Adoption, Imbalance, Row, Workload
from bench.imbalance.runs import Sizes, trials
from bench.imbalance.trial import HOTKEY, Trial, bound, pairs, policy
from hotkey_operator.engine.spec import Ordering, parse_spec
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.table import RecordKey, Route, Shard, Stream, Table

QUIET = Adoption(12.0, True, 1, 0, 1, 12, 512, "Holding", "Spread: over 12 shards")
MIX = Mix(("nike", "a", "b"), (0.8, 0.1, 0.1))
TRIAL = Trial(Workload.ONE_HOT, 4, MIX, "user_id", 100, 10.0, 1.0, 1)


def row(method: str, counts: tuple[int, ...], by: str = "", adoption: Adoption | None = None) -> Row:
    return Row(Workload.ONE_HOT, len(counts), method, by, counts, 1_011, adoption=adoption)


def imbalance(*rows: Row) -> Imbalance:
    return Imbalance(rows, 0.8, 1_000, 1_000_000, 1.0, 4, 60_000, 20_000, 400.0, 10.0)


def test_imbalance_is_the_most_loaded_partition_over_the_mean() -> None:
    assert row("x", (10, 20, 30)).imbalance == pytest.approx(1.5)


@pytest.mark.parametrize(("worst", "word"), [(104, "met"), (106, "NOT met")])
def test_the_goal_at_12_partitions_is_5_percent_over_the_mean(worst: int, word: str) -> None:
    counts = (worst, *[100] * 10, 200 - worst)

    (goal,) = told.goals(imbalance(row(HOTKEY, counts, adoption=QUIET), row(Method.PLAIN, counts)))

    assert goal.word == word


def test_every_method_stands_in_the_table_at_the_top_with_its_pairs() -> None:
    rows = [row(method, (150, 50)) for method in Method]
    rows += [row(HOTKEY, (101, 99), by, QUIET) for by in ("", "user_id")]

    table = told.headline(imbalance(*rows))

    assert all(f"| {method} | 1.50 (1,011) |" in table for method in Method)
    assert "| **hotkey, any order** | 1.01 (1,011) | none |" in table
    assert "| **hotkey, order by user_id** | 1.01 (1,011) | per user |" in table


@pytest.mark.parametrize(("tables", "word"), [(0, "| no |"), (2, "| 2 |")])
def test_it_is_told_whether_the_operator_planned_anew_meanwhile(tables: int, word: str) -> None:
    adoption = Adoption(12.0, True, 1, tables, 1, 12, 512, "Holding", "")

    assert word in told.section(imbalance(row(HOTKEY, (1, 1), adoption=adoption)))


def test_a_load_that_never_settled_is_told_so() -> None:
    restless = Adoption(60.0, False, 9, 0, 1, 12, 512, "Respread", "")

    assert "not settled" in told.section(imbalance(row(HOTKEY, (1, 1), adoption=restless)))
    assert "not settled" not in told.section(imbalance(row(HOTKEY, (1, 1), adoption=QUIET)))


def test_pairs_count_every_partition_of_every_table_that_was_in_use() -> None:
    homes = {(index, partition_for(key.encode(), 4)) for index, key in enumerate(MIX.keys)}
    cold = {pair for pair in homes if pair[0] != 0}

    assert pairs(TRIAL, {0, 1, 2}, ()) == len(homes)
    assert pairs(TRIAL, {0, 1, 2}, (table(0, 1),)) == len(cold) + 2
    assert pairs(TRIAL, {0, 1, 2}, (table(0, 1), table(1, 2))) == len(cold) + 3
    assert pairs(TRIAL, {0}, (table(0, 1),)) == 2


def table(*partitions: int) -> Table:
    shards = tuple(Shard(number, partition) for number, partition in enumerate(partitions))
    route = Route(b"nike", "t", (), RecordKey.COMPOSITE, shards, tuple(range(len(shards))))
    return Table(Stream("c", "t"), 4, 1, 1, ("t",), routes=(route,))


def test_a_mix_of_even_users_has_no_bound_above_even_and_zipf_users_have() -> None:
    assert bound(MIX, 4) == 1.0
    assert bound(Mix.one_hot(0.8, 1_000, zipf=1.0), 96) > 5.0


def test_the_policies_are_the_defaults_with_the_order_that_is_asked_for() -> None:
    ordered = parse_spec(policy("ads", TRIAL)["spec"])

    assert ordered.spread.by == (("user_id",),)
    assert ordered.spread.ordering is Ordering.PER_DIMENSION
    plain = Trial(Workload.ONE_HOT, 4, MIX, "", 100, 10.0, 1.0, 1)
    assert parse_spec(policy("ads", plain)["spec"]) == parse_spec({"topic": plain.name})


def test_the_full_run_sends_what_is_promised() -> None:
    full = [trial for trial in trials(Sizes(quick=False), 1) if trial.workload is Workload.ONE_HOT]

    assert {(trial.partitions, trial.by) for trial in full} == {
        (n, by) for n in (12, 48, 96) for by in ("", "user_id")
    }
    assert all(trial.count >= 60_000 * trial.partitions for trial in full)
    assert len({trial.name for trial in full}) == len(full)
