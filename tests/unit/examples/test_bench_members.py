"""What the part `members` makes of what it saw, and how it bounds a process."""

from __future__ import annotations

import numpy as np
import pytest

from bench import members
from bench.aggregators import Look
from bench.clicks import Sent
from bench.cpu_limit import PERIOD_SECONDS, Allowance
from bench.members import PLAIN, SPREAD, Lag, Members, Way, growth, lags


def test_lag_is_what_was_sent_and_is_not_in_the_store() -> None:
    clicks = Sent(tuple(np.array(times, dtype=np.int64) for times in ([1_000, 2_000, 4_000], [1_500], [])))
    seen = [Look(0.5, (7, 0, 0)), Look(3.0, (8, 0, 0)), Look(4.0, (9, 2, 0)), Look(9.0, (10, 2, 0))]

    found = lags(clicks, (7, 1, 0), seen, [[0, 2], [1]])

    assert found == [Lag(2.0, 2, 2, 3), Lag(3.0, 1, 1, 1)]


def test_the_worst_member_has_the_sum_of_its_partitions() -> None:
    clicks = Sent(tuple(np.array([1_000, 2_000], dtype=np.int64) for _ in range(3)))

    (found,) = lags(clicks, (0, 0, 0), [Look(2.0, (0, 0, 0))], [[0, 1], [2]])

    assert (found.worst_partition, found.worst_member, found.all) == (2, 4, 6)


def test_growth_is_the_slope_of_the_worst_members_lag() -> None:
    assert growth([Lag(at, 0, int(100 * at), 0) for at in (0.0, 1.0, 2.0)]) == pytest.approx(100)
    assert growth([]) == 0


def test_spread_over_plain_is_told_with_what_can_be_gained_at_most() -> None:
    rising = [Lag(float(at), 900 * at, 1_000 * at, 1_100 * at) for at in range(10)]
    flat = [Lag(float(at), 5, 50, 200) for at in range(10)]
    result = Members(
        Way(SPREAD, 1.05, 400, 10.0, [0.1] * 4, 2_000.0, flat),
        Way(PLAIN, 38.0, 400, 30.0, [0.1, 0.02, 0.02, 0.02], 2_000.0, rising),
        4, 48, 3, 0.1, "classic",
    )  # fmt: skip

    told = members.section(result)

    assert "works off 3.0 times as many" in told
    assert "can be gained is 3.4" in told
    assert "grows by 1,000 clicks/s" in told
    assert "does not grow" in told
    assert [plot.name for plot in members.plots(result)] == ["members"]


def test_a_process_that_took_too_much_waits_until_its_periods_have_made_up_for_it() -> None:
    allowance = Allowance(share=0.1, used=5.0)
    allowance.refill()

    assert allowance.take(5.0 + 0.05 * PERIOD_SECONDS)
    assert not allowance.take(5.0 + 0.25 * PERIOD_SECONDS)
    allowance.refill()
    assert not allowance.take(allowance.used)
    allowance.refill()
    assert allowance.take(allowance.used)


def test_what_was_not_used_is_not_kept() -> None:
    allowance = Allowance(share=0.1, used=0.0)
    for _ in range(10):
        allowance.refill()

    assert not allowance.take(0.1 * PERIOD_SECONDS)
