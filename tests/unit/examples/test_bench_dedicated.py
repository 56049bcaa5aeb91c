"""What the part `dedicated` makes of the operator's log and of the first record."""

from __future__ import annotations

from typing import Any

import pytest

from bench import dedicated
from bench.dedicated import Dedicated, Line, Round, figure
from examples.demo.errors import DemoError


def written(at: int, topic: str = "clicks") -> Line:
    return {"event": "table written", "topic": topic, "planned_ms": at, "written_ms": at + 20,
            "published_ms": at + 30}  # fmt: skip


def told(reason: str, policy: str = "ads/clicks") -> dict[str, Any]:
    return {"event": "event", "reason": reason, "policy": policy}


NEW = [
    written(1_000),
    told("Spread"),
    written(5_000),
    told("Preparing"),
    written(5_500, topic="others"),
    told("Dedicated", policy="ads/others"),
    written(6_000),
    written(8_000),
    told("Dedicated"),
]


def test_a_round_begins_with_the_plan_of_the_turn_that_tells_that_a_topic_is_prepared() -> None:
    assert figure(NEW, "clicks", read=7.5, first=8_050, warm=False) == Round(
        warm=False, named=0.02, recorded=1.02, read=2.5, active=3.02, published=3.03, first=3.05
    )


def test_a_warm_topic_was_made_and_read_before() -> None:
    lines = [written(5_000), told("Preparing"), written(6_000), told("Dedicated")]

    assert figure(lines, "clicks", read=5.1, first=6_100, warm=True) == Round(
        warm=True, named=0.02, recorded=None, read=None, active=1.02, published=1.03, first=1.1
    )


@pytest.mark.parametrize("until", [0, 3, 8])
def test_a_log_without_one_of_the_events_gives_no_figure(until: int) -> None:
    with pytest.raises(DemoError, match="Preparing and Dedicated"):
        figure(NEW[:until], "clicks", read=7.5, first=8_050, warm=False)


def rounds(warm: float, new: float, failures: list[str]) -> Dedicated:
    figures = [(True, warm), (True, 1.0), (False, new), (False, 3.0)]
    return Dedicated([Round(kind, 0.1, None, None, 0.5, 0.6, first) for kind, first in figures], failures)


def test_the_goals_are_of_the_slowest_round_of_each_kind() -> None:
    met, missed = rounds(1.9, 5.9, []), rounds(2.1, 6.1, ["no topic"])

    assert {goal.word for goal in dedicated.goals(met)} == {"met"}
    assert {goal.word for goal in dedicated.goals(missed)} == {"NOT met"}


def test_the_section_tells_both_kinds_and_what_failed() -> None:
    told = dedicated.section(rounds(2.0, 4.0, ["the key gets a topic: not within 60 s"]))

    assert "| **first record** | 1.50 | 2.00 | 3.50 | 4.00 |" in told
    assert "| read: both groups have committed an offset on each partition | - | - | - | - |" in told
    assert "Not measured: the key gets a topic: not within 60 s." in told
