"""What the part `resend` makes of its rounds, and that it takes no tail for good that is not."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from bench import overhead, resend, senders
from bench.figures import Paired
from bench.resend import Ends, Refusal, Resend, Tail
from examples.demo.errors import DemoError

RECORDS = [(b"a", "u0"), (b"b", "u1"), (b"c", "u0")]


def ends(*values: bytes, elsewhere: int = 0, failures: tuple[KafkaError, ...] = ()) -> Ends:
    """What the caller was told: of the values the first few were taken by another topic."""
    taken = [(value, "own" if n < elsewhere else "base") for n, value in enumerate(values)]
    return Ends(list(taken), list(failures))


WHOLE = ends(b"a", b"b", b"c")


def found(*seconds: float) -> Resend:
    """Tails that took so long beside a raw producer that took a second each time."""
    tails = [Tail(refusal, each, 0.5, 2.0) for each in seconds for refusal in Refusal]
    raw = [1.0] * len(seconds)
    costs = [Paired(f"{senders.OWN} (pure)", "routed", [3.0], [1.0], [5.0], [2.0])]
    return Resend(100_000, raw, raw, tails, costs, "pure")


def test_half_the_raw_rate_is_enough_and_less_is_not() -> None:
    reached, missed = (resend.goals(found(*seconds)) for seconds in ((1.5, 2.5), (1.5, 2.6)))

    assert [goal.word for goal in reached] == ["met", "met"]
    assert [goal.word for goal in missed] == ["NOT met", "NOT met"]


def test_the_section_tells_rates_and_what_tracking_adds() -> None:
    told = resend.section(found(2.0, 2.0))

    assert "| 100,000 | 1.00 |" in told
    assert "**hotkey_sdk.Producer, topic denied** | 50,000 | 2.00 (2.00-2.00) | 20.0 | 0.50 s |" in told
    assert "2,000 ns more in `produce()`, 3,000 ns more in the whole process" in told


def test_what_is_untracked_has_the_goals_of_the_part_overhead() -> None:
    way = f"{next(iter(overhead.GOALS))} ({overhead.COMPILED})"
    result = found(1.0)
    result = Resend(1, result.raw, result.raw_cpu, result.tails, [Paired(way, "p", [1.1], [1], [1], [1])], "")

    assert resend.goals(result)[-1].at_most == next(iter(overhead.GOALS.values()))


@pytest.mark.parametrize(
    ("told", "base", "why"),
    [
        (WHOLE, [b"a", b"b"], "lacks 1"),
        (WHOLE, [b"a", b"b", b"c", b"c"], "1 twice"),
        (WHOLE, [b"b", b"c", b"a"], "order"),
        (ends(b"a", b"b"), [b"a", b"b", b"c"], "told"),
        (ends(b"a", b"b", b"c", failures=(KafkaError(KafkaError._TIMED_OUT),)), [b"a", b"b", b"c"], "told"),
        (ends(b"a", b"b", b"c", elsewhere=1), [b"b", b"c"], "no tail"),
    ],
)
def test_a_tail_that_lost_doubled_or_disordered_a_record_is_no_figure(
    told: Ends, base: list[bytes], why: str
) -> None:
    with pytest.raises(DemoError, match=why):
        resend.check(RECORDS, told, "base", base)


def test_records_of_two_users_may_change_places() -> None:
    resend.check(RECORDS, WHOLE, "base", [b"b", b"a", b"c"])


def test_what_a_topic_took_as_it_was_deleted_need_not_be_in_base() -> None:
    values = [b"%d" % number for number in range(100)]
    records = [(value, "u0") for value in values]

    resend.check(records, ends(*values, elsewhere=1), "base", values[1:])


def test_what_is_tracked_is_held_against_the_same_route_untracked() -> None:
    peers = resend.peers_of("pure")

    own = {way: peer for way, peer in peers.items() if "topic of its own" in way}
    assert len(own) == 3
    assert all(peer.startswith("routed key") for peer in own.values())
    assert all(way.endswith(resend.CALLED) == peer.endswith(resend.CALLED) for way, peer in own.items())
