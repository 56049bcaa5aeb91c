"""An aggregator whose clock is wrong by a day, and set right later."""

from __future__ import annotations

from pathlib import Path

from devstack import Stack
from tests.stack.aggregator.clicks import click, send, send_clicks
from tests.stack.aggregator.conftest import MakeAggregator, MakeTopic
from tests.stack.aggregator.counted import assert_ids
from tests.stack.aggregator.process import AggregatorProcess
from tests.stack.aggregator.test_dead_letters import letters, replayed
from tests.stack.aggregator.test_watermark import encoded, now, watermark

DAY_SECONDS = 24 * 3600
CLOCK = "tests.stack.aggregator.wrong_clock"


def with_clock(aggregator: AggregatorProcess, file: Path, seconds: int) -> AggregatorProcess:
    """Let its clock be so wrong, from its start on."""
    file.write_text(str(seconds))
    aggregator.program = ("-m", CLOCK, str(file))
    return aggregator


def test_a_clock_that_jumps_ahead_by_a_day_makes_no_id_forgotten_and_its_marks_are_not_believed_afterwards(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator, tmp_path: Path
) -> None:
    # given ids that were counted just now
    topic, clock, sent = new_topic(2), tmp_path / "clock", [f"e{number}" for number in range(50)]
    jumping = with_clock(aggregator(topic), clock, 0)
    jumping.start()
    send_clicks(stack.kafka.bootstrap, topic, sent)
    jumping.wait_until(lambda: jumping.totals()["clicks"] == 50, "50 clicks")

    # when the clock jumps beyond the dedupe horizon, the store is tidied up, and the clicks come again
    right = now()
    clock.write_text(str(DAY_SECONDS + 2 * 3600))
    jumping.wait_until(lambda: watermark(jumping) > right + DAY_SECONDS * 1000, "the clock shows")
    tidied = jumping.log_text().count("event=tidied")
    jumping.wait_until(lambda: jumping.log_text().count("event=tidied") > tidied + 2, "it tidies up")
    send_clicks(stack.kafka.bootstrap, topic, [*sent, "new"], partition=1)

    # then they are known
    jumping.wait_until(lambda: jumping.stored(topic) == {0: 50, 1: 51}, "all read")
    assert_ids(jumping, [*sent, "new"])
    assert jumping.totals()["forgotten"] == 0

    # and when the clock is right again, the watermark is of now
    clock.write_text("0")
    jumping.wait_until(lambda: "event=clock_put_back" in jumping.log_text(), "it notices")
    jumping.wait_until(lambda: right < watermark(jumping) <= now(), "the watermark is right")
    send_clicks(stack.kafka.bootstrap, topic, ["after"])
    jumping.wait_until(lambda: jumping.totals()["clicks"] >= 52, "it counts on")
    assert_ids(jumping, [*sent, "new", "after"])


def test_clicks_that_a_clock_behind_takes_for_future_ones_are_kept_told_and_put_back(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator, tmp_path: Path
) -> None:
    # given an aggregator that is two days behind
    topic, clock, sent = new_topic(1), tmp_path / "clock", [f"e{number}" for number in range(20)]
    late = with_clock(aggregator(topic), clock, -2 * DAY_SECONDS)
    late.start()

    # when clicks of now come
    send(stack.kafka.bootstrap, topic, [(b"k", encoded(click(one, time_ms=now()))) for one in sent])

    # then they are dead letters, and it says whose fault that is
    assert len(letters(stack, f"{topic}.dead", 20)) == 20
    late.wait_until(lambda: "event=clock_behind seconds=17" in late.log_text(), "it says so")
    assert {row["reason"] for row in late.dead()} == {"FromTheFuture"}

    # and when the clock is right, they are put back and counted
    clock.write_text("0")
    assert replayed(stack, topic).startswith("20 put back")
    late.wait_until(lambda: late.totals()["clicks"] >= 20, "all are counted")
    assert_ids(late, sent)
