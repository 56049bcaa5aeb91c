"""How long the planner takes: pure CPU time, from loads and hot keys to routes.

A plan is made once a second while a partition is hot, so both are measured: the first plan of keys that were
never seen (their shard ids are searched), and the plan after it (ids are remembered, routes stand).
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence

import msgspec

from bench.part import Goal, Run
from hotkey_operator.engine import shards
from hotkey_operator.engine.placement import Ground, HotKey, Plan, plan
from hotkey_sdk.routing.partitioner import partition_for

ROUNDS, QUICK_ROUNDS = 15, 2
SHARE = 0.8  # of the load, on the hot keys


class Case(msgspec.Struct, frozen=True):
    """A stream to plan: `hot` of its `keys` are hot; `at_most`: the goal in milliseconds, 0 for none."""

    name: str
    partitions: int
    keys: int
    hot: int
    at_most: float = 0.0


class Timing(msgspec.Struct, frozen=True):
    """CPU milliseconds of each round, and what came out: imbalance and (key, partition) pairs."""

    case: Case
    first: list[float]
    again: list[float]
    imbalance: float
    pairs: int


class Timings(msgspec.Struct, frozen=True):
    """What was measured."""

    timings: list[Timing]


CASES = (
    Case("one hot key of 1,000", 96, 1_000, 1, 20),
    Case("32 hot keys of 1,000 (maxHotKeys)", 96, 1_000, 32, 20),
    Case("100 hot keys", 1_000, 100, 100, 500),
    Case("256 hot keys (the most that a policy may allow)", 1_000, 2_000, 256),
)


def measure(run: Run) -> Timings:
    """Time every case."""
    timings = []
    for case in CASES:
        timing = _timed(case, QUICK_ROUNDS if run.quick else ROUNDS, run.seed)
        run.say(f"planner, {case.partitions} partitions, {case.name}: {max(timing.first):.1f} ms at worst")
        timings.append(timing)
    return Timings(timings)


def stream(case: Case, seed: int) -> tuple[Ground, list[HotKey]]:
    """Loads and hot keys: the hot ones share 0.8 of all by 1/rank, the others are equal."""
    chance = random.Random(seed)
    names = [b"advertiser-%d" % chance.randrange(10**9) for _ in range(case.keys)]
    total = 1_000.0 * case.partitions
    loads = [0.0] * case.partitions
    quiet = case.keys - case.hot
    for name in names[case.hot :]:
        loads[partition_for(name, case.partitions)] += total * (1 - SHARE) / quiet
    if not quiet:
        loads = [total * (1 - SHARE) / case.partitions * chance.uniform(0.8, 1.2) for _ in loads]
    weight = sum(1 / rank for rank in range(1, case.hot + 1))
    hot = [HotKey(name, total * SHARE / weight / rank) for rank, name in enumerate(names[: case.hot], 1)]
    return Ground(tuple(loads), "clicks", seed), hot


def _timed(case: Case, rounds: int, seed: int) -> Timing:
    first, again, worst, pairs = [], [], 0.0, 0
    for number in range(rounds):
        ground, hot = stream(case, seed + number)
        shards.forget()
        began = time.thread_time()
        planned = plan(ground, hot)
        first.append(1_000 * (time.thread_time() - began))
        routes = {route.key: route for route in planned.routes}
        warmer = _warmer(ground, seed + number)
        settled = [HotKey(each.key, each.load, previous=routes.get(each.key)) for each in hot]
        began = time.thread_time()
        second = plan(warmer, settled)
        again.append(1_000 * (time.thread_time() - began))
        worst, pairs = max(worst, planned.imbalance, second.imbalance), max(pairs, _pairs(planned))
    return Timing(case, first, again, worst, pairs)


def _warmer(ground: Ground, seed: int) -> Ground:
    """The same with a tenth more or less on each partition."""
    chance = random.Random(seed)
    return Ground(
        tuple(load * chance.uniform(0.9, 1.1) for load in ground.background), ground.topic, ground.seed
    )


def _pairs(planned: Plan) -> int:
    return sum(len(route.shards) for route in planned.routes)


def goals(result: Timings) -> Sequence[Goal]:
    """The worst round of each case that has a goal."""
    return [
        Goal(
            f"planner, {each.case.partitions:,} partitions, {each.case.name}, worst",
            max(*each.first, *each.again),
            each.case.at_most,
            "ms",
        )
        for each in result.timings
        if each.case.at_most
    ]


def section(result: Timings) -> str:
    """The figures for people."""
    rows = [
        f"| {each.case.partitions:,} | {each.case.name} | {_of(each.first)} | {_of(each.again)} "
        f"| {each.imbalance:.2f} | {each.pairs:,} |"
        for each in result.timings
    ]
    return "\n".join(
        [
            "## Planner\n",
            f"`python -m bench planner`: CPU milliseconds of one plan, median (worst) of "
            f"{len(result.timings[0].first)} streams. The hot keys share {SHARE:.0%} of the load by 1/rank. "
            "First: nothing is remembered, every shard id is searched. Again: the routes stand and every "
            "partition's other load moved by up to a tenth.\n",
            "| partitions | keys | first, ms | again, ms | planned imbalance | (key, partition) pairs |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )


def _of(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} ({max(values):.1f})"
