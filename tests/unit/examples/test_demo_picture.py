"""The demo's picture and its lines."""

from __future__ import annotations

import pytest
from rich.console import Console

from examples.demo.picture import line, picture, sparkline, svg
from examples.demo.screen import lines
from examples.demo.view import Happening, HotKey, PolicyView, Scene, View, rates

STATUS = {
    "conditions": [{"type": "Ready", "status": "True", "reason": "Governing", "message": "all is well"}],
    "epoch": 7,
    "imbalance": "9.61",
    "producers": "3/4",
    "decision": {"reason": "Spread", "message": "nike goes to 12 shards"},
    "keys": [
        {"key": "nike", "reason": "Spread", "share": 0.8, "shareError": 0.01, "shards": 12, "message": "hot"}
    ],
}
VIEW = View(
    at=3.0, rates=(4_000.0, 0.0, 0.0, 0.0), policy=PolicyView.of(STATUS), routes=(("nike", 12),), acked=99
)


def shown(scene: Scene) -> str:
    console = Console(width=112, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(picture(scene))
    return console.export_text()


def test_the_picture_shows_what_the_operator_did_and_why() -> None:
    event = Happening(2.5, "Event", "Spread: partition 3 takes 4,000 records/s")
    text = shown(Scene("ONSET", VIEW, (1.0, 4.0), (event,)))
    for expected in (
        "ONSET",
        "4000",
        "nike",
        "12 shards",
        "Spread",
        "nike goes to 12 shards",
        "3/4",
        event.text,
    ):
        assert expected in text


def test_the_picture_of_a_system_without_a_policy_is_drawn_too() -> None:
    assert "not yet" in shown(Scene("starting", View()))


def test_the_line_tells_the_same_where_there_is_no_terminal() -> None:
    assert line(VIEW) == (
        "acknowledged=99 imbalance=4.00 routed=nike x12 epoch=7 applied=3/4 decision=Spread"
    )


def test_a_line_tells_no_decision_where_there_was_nothing_to_decide() -> None:
    steady = PolicyView.of({**STATUS, "decision": {"reason": "Steady"}})
    assert line(View(policy=steady)).endswith("applied=3/4")
    assert line(View()).endswith("applied=-")


def test_the_times_of_lines_never_go_back_though_a_look_began_before_what_was_told_meanwhile() -> None:
    happenings = (Happening(1.0, "demo", "told already"), Happening(3.4, "Event", "Spread: nike"))
    shown = lines(Scene("", VIEW, happenings=happenings), 1, with_view=True)
    assert shown == ["    3.4 s  Event  Spread: nike", f"    3.4 s  {line(VIEW)}"]
    assert lines(Scene("", VIEW, happenings=happenings), 2, with_view=False) == []


def test_the_saved_picture_asks_the_network_for_nothing() -> None:
    saved = svg(Scene("ONSET", VIEW, (1.0, 4.0)))
    assert saved.startswith("<svg")
    assert "url(" not in saved.replace("url(#", "")


def test_a_partition_over_the_trigger_is_drawn_longer_than_the_others() -> None:
    lines = shown(Scene("", View(rates=(4_000.0, 400.0)))).splitlines()
    long, short = (line.count("█") for line in lines if " 4000 " in line or " 400 " in line)
    assert long > 5 * short > 0


def test_what_happened_last_is_on_top_where_a_small_terminal_still_shows_it() -> None:
    happenings = tuple(Happening(float(n), "demo", f"step {n}") for n in range(50))
    text = shown(Scene("", View(), happenings=happenings))
    assert text.index("step 49") < text.index("step 48") < text.index("step 41")
    assert "step 20" not in text


def test_the_sparkline_shows_the_worst_of_what_falls_into_one_cell() -> None:
    assert sparkline((1.0, 5.0, 9.0), 10) == "▁▄█"
    assert sparkline((9.0, 1.0, 1.0, 5.0, 1.0), 2) == "█▄"


def test_a_policy_without_a_status_is_not_ready() -> None:
    assert PolicyView.of({}) == PolicyView()


def test_a_hot_key_is_shown_as_status_tells_it() -> None:
    assert PolicyView.of(STATUS).keys == (HotKey("nike", "Spread", "80% +- 1.0%", 12, "hot"),)


@pytest.mark.parametrize(
    ("told", "all_apply"), [("4/4", True), ("3/4", False), ("0/0", False), ("3/3", False)]
)
def test_all_producers_apply_only_when_there_are_as_many_as_expected(told: str, all_apply: bool) -> None:
    assert PolicyView(producers=told).applied_by(4) is all_apply


def test_rates_are_the_growth_of_the_end_offsets() -> None:
    assert rates((0, 10), (50, 10), 0.5) == (100.0, 0.0)
    assert rates((), (1,), 1.0) == ()
