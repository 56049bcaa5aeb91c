"""What the part `freshness` makes of what it saw."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from bench import freshness
from bench.aggregators import Look
from bench.clicks import Sent
from bench.freshness import Freshness, Kill, Measured, Stored, ages, kill, own_percentile, waits


def sent(*partitions: list[float]) -> Sent:
    """Clicks of each partition, at seconds."""
    return Sent(tuple(np.array([1000 * at for at in times], dtype=np.int64) for times in partitions))


def looks(*seen: tuple[float, tuple[int, ...]]) -> list[Look]:
    return [Look(at, offsets) for at, offsets in seen]


def test_a_click_waits_until_the_first_look_that_is_past_its_offset() -> None:
    clicks = sent([1.0, 2.0, 3.0], [1.5])
    seen = looks((2.5, (1, 0)), (4.0, (2, 1)), (6.0, (3, 1)))

    assert waits(clicks, seen, (0, 10)).tolist() == [1.5, 2.0, 3.0, 2.5]


def test_only_clicks_of_the_period_count() -> None:
    clicks = sent([1.0, 2.0, 3.0])
    seen = looks((4.0, (3,)))

    assert waits(clicks, seen, (2, 3)).tolist() == [2.0]


def test_clicks_that_were_never_seen_are_no_freshness() -> None:
    with pytest.raises(ValueError, match="partition 1 holds clicks that no look shows"):
        waits(sent([1.0], [1.0, 2.0]), looks((3.0, (1, 1))), (0, 10))


def test_the_age_is_that_of_the_oldest_click_that_cannot_be_queried() -> None:
    clicks = sent([1.0, 4.0], [2.0])
    seen = looks((3.0, (0, 0)), (3.5, (1, 0)), (5.0, (1, 1)), (6.0, (2, 1)))

    assert ages(clicks, seen, (0, 10)) == [(3.0, 2.0), (3.5, 1.5), (5.0, 1.0), (6.0, 0.0)]


def steady(dead: tuple[float, float]) -> tuple[Sent, list[Look]]:
    """Two partitions with a click a second, flushed each second, but the first one's not in between."""
    clicks = sent([float(at) for at in range(100)], [at + 0.5 for at in range(100)])
    at_first = 0
    seen = []
    for at in range(1, 101):
        if not dead[0] <= at < dead[1]:
            at_first = at
        seen.append(Look(float(at), (at_first, at)))
    return clicks, seen


@pytest.mark.parametrize(("alive", "again"), [(50.0, 10.0), (41.0, 1.0), (44.0, 4.0)])
def test_all_is_fresh_again_when_the_last_partition_is_flushed_and_nothing_old_waits(
    alive: float, again: float
) -> None:
    clicks, seen = steady((40.0, alive))

    assert kill(clicks, seen, "one", (40.0, 70.0)).seconds == again


def test_a_backlog_that_is_worked_off_late_is_not_fresh_before() -> None:
    clicks, seen = steady((40.0, 50.0))
    behind = [Look(look.at, (min(look.offsets[0], 45), 0)) if 50 <= look.at < 60 else look for look in seen]

    assert kill(clicks, behind, "one", (40.0, 70.0)).seconds == 20.0


def test_what_is_not_fresh_before_the_next_kill_is_told_so() -> None:
    clicks, seen = steady((40.0, 80.0))

    found = kill(clicks, seen, "one", (40.0, 70.0))

    assert found.seconds is None
    assert found.worst == 41.0


def test_the_aggregators_own_quantile_is_a_bound_over_all_members() -> None:
    name = "hotkey_aggregator_freshness_seconds_bucket"
    one = f'{name}{{le="1.0"}} 90\n{name}{{le="2.0"}} 100\n{name}{{le="+Inf"}} 100\n'
    other = f'{name}{{le="1.0"}} 0\n{name}{{le="2.0"}} 0\n{name}{{le="+Inf"}} 10\n'

    assert own_percentile([one]) == 2.0
    assert own_percentile([one, other]) is None
    assert own_percentile([one, other], 0.9) == 2.0
    assert own_percentile([""]) is None


def test_a_store_that_never_was_fresh_again_misses_the_goal() -> None:
    fine = Freshness(10, 2.0, 5.0, 5.5, [0.0, 5.5], 2.0)
    stored = [
        Stored("DuckDB", 1, "classic", fine, [Kill("a", 8.0, 9.0)], 10, [(0.0, 1.0)]),
        Stored("PostgreSQL, classic", 2, "classic", fine, [Kill("a", None, 30.0)], 10, [(0.0, 1.0)]),
    ]
    result = Measured(stored, 10_000.0, 600.0, 48, 25.0)

    words = [goal.word for goal in freshness.goals(result)]

    assert words == ["met", "met", "met", "NOT met"]
    assert "**never**" in freshness.section(result)
    assert msgspec.json.decode(msgspec.json.encode(result), type=Measured) == result
    assert [plot.name for plot in freshness.plots(result)] == ["freshness", "kills"]
