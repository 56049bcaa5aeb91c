"""How far the groups are is asked now and then, and never in the way of a turn."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from hotkey_operator.engine.lag import LOOK_SECONDS, Lags
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import Committed, EndOffsets, Progress, TopicFacts
from hotkey_operator.engine.rates import History
from hotkey_operator.engine.spec import PolicySpec, parse_spec
from hotkey_operator.ports import Groups, Ports, Unavailable
from hotkey_operator.sense.progress import read_progress
from hotkey_sdk.routing.report import ClientReport, Role
from hotkey_sdk.routing.table import Stream
from tests.simulation.groups import MemoryGroups

NOW = 1_790_000_000.0
TOPIC = TopicFacts(Stream("cluster", "clicks"), 2, compacted=False)
SPEC = parse_spec({"topic": "clicks", "trigger": {"lagSeconds": 20}, "consumers": {"groups": ["billing"]}})
NOTHING: Any = None  # in the place of ports that are not asked
HISTORY = History.of(*(EndOffsets(NOW - 60 + second, (100 * second, 0)) for second in range(61)))


class Groupless(MemoryGroups):
    """A cluster whose coordinators do not answer; or, with `starts_only`, the leaders of its logs."""

    def __init__(self, *, starts_only: bool = False) -> None:
        super().__init__()
        self._starts_only = starts_only

    async def committed(self, topic: str, partitions: int, groups: Sequence[str]) -> tuple[Committed, ...]:
        if not self._starts_only:
            raise Unavailable("no coordinator")
        return await super().committed(topic, partitions, groups)

    async def starts(self, topic: str, partitions: Collection[int]) -> dict[int, int]:  # noqa: ARG002
        raise Unavailable(f"no leaders of {topic}")


def asked(
    groups: Groups | None,
    *,
    spec: PolicySpec = SPEC,
    memory: Memory | None = None,
    reports: Sequence[ClientReport] = (),
) -> Progress | None:
    ports = Ports(NOTHING, NOTHING, NOTHING, NOTHING, groups)
    known = memory or Memory(history=HISTORY)
    return asyncio.run(read_progress(ports, spec, known, TOPIC, reports, NOW))


def test_what_groups_committed_is_told_with_the_starts_of_logs_over_the_limit() -> None:
    groups = MemoryGroups()
    groups.commit("billing", "clicks", 0, 3_000)
    groups.commit("billing", "clicks", 1, 0)
    groups.delete_before("clicks", 0, 2_000)
    assert asked(groups) == Progress((Committed("billing", {0: 3_000, 1: 0}),), {0: 2_000})


def test_groups_that_consumers_report_are_asked_for_too() -> None:
    groups = MemoryGroups()
    groups.commit("search", "clicks", 0, 6_000)
    found = asked(groups, reports=[ClientReport("c", Role.CONSUMER, 1, NOW, "search")])
    assert found == Progress((Committed("billing", {}), Committed("search", {0: 6_000})))


def test_nobody_is_asked_twice_within_a_few_seconds() -> None:
    just_now = Memory(history=HISTORY, lags=Lags(at=NOW - LOOK_SECONDS / 2))
    assert asked(MemoryGroups(), memory=just_now) is None
    assert asked(MemoryGroups(), memory=Memory(history=HISTORY, lags=Lags(at=NOW - LOOK_SECONDS))) is not None


def test_nobody_is_asked_where_no_policy_wants_it_or_nobody_could_answer() -> None:
    assert asked(MemoryGroups(), spec=parse_spec({"topic": "clicks"})) is None
    assert asked(None) is None


def test_coordinators_that_do_not_answer_are_told_and_end_no_turn() -> None:
    assert asked(Groupless()) == Progress((Committed("billing", {}, "no coordinator"),))


def test_without_the_starts_of_logs_the_commits_are_told_all_the_same() -> None:
    groups = Groupless(starts_only=True)
    groups.commit("billing", "clicks", 0, 3_000)
    assert asked(groups) == Progress((Committed("billing", {0: 3_000}),))
