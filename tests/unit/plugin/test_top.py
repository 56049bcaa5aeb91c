"""`kubectl hotkeys top`, and text as kubectl lays it out."""

from __future__ import annotations

from datetime import timedelta

import pytest

from hotkey_operator.plugin.columns import age, table
from hotkey_operator.plugin.policies import Policy, policies
from hotkey_operator.plugin.top import overview, values
from tests.unit.plugin.objects import NIKE, NOW, policy, route

GOLDEN = """\
NAMESPACE   POLICY   TOPIC    KEY      RECORDS/S   SHARE       SHARDS   OWN TOPIC   REASON
ads         clicks   clicks   nike     4012        80.1%       3        <none>      Holding
shop        clicks   clicks   adidas   50          1.0%        0        <none>      NoDominantKey
ads         clicks   clicks   puma     <unknown>   <unknown>   3        <none>      <unknown>

NAMESPACE   POLICY   TOPIC    RECORDS/S   IMBALANCE   HOTTEST   EPOCH        PRODUCERS   CONSUMERS   READY   DECISION
ads         clicks   clicks   5008        1.04        3         1790000001   4/4         1/1         True    Holding
shop        clicks   clicks   5008        <none>      <none>    1790000001   4/4         1/1         True    Holding
"""  # noqa: E501
ADIDAS = {"key": "adidas", "reason": "NoDominantKey", "recordsPerSecond": 50, "share": 0.01, "shards": 0}


def two() -> list[Policy]:
    ads = policy(NIKE, routes=(route(), route(b"puma")))
    quiet = policy(ADIDAS, namespace="shop", imbalance=None, hottestPartition=None)
    return [ads, quiet]


def test_keys_of_all_policies_stand_hottest_first_and_a_line_for_each_policy() -> None:
    assert "\n".join(overview(two())) + "\n" == GOLDEN


def test_a_policy_without_any_key_or_status_has_its_line_too() -> None:
    lines = overview(policies([{"metadata": {"namespace": "a", "name": "new"}, "spec": {"topic": "t"}}], []))
    assert lines[0] == "No key is heavy and none is spread."
    assert lines[-1].split() == ["a", "new", "t", *["<none>"] * 8]


def test_an_operator_that_has_just_started_knows_its_keys_before_it_has_figures() -> None:
    # given a status as it is after a restart: the key is held, and nothing was measured yet
    held = {**NIKE, "recordsPerSecond": 0, "share": 0.0}
    early = policy(held, routes=(route(),), recordsPerSecond=None)

    key, line = [each for each in overview([early]) if each.startswith("ads")]

    # then neither its rate nor its share is told as 0
    assert key.count("no figures yet") == 2
    assert "nike" in key
    assert "no figures yet" not in "".join(overview([policy(held, routes=(route(),))]))
    assert line.split()[:3] == ["ads", "clicks", "clicks"]


def test_for_programs_there_are_the_keys_and_the_policies() -> None:
    found = values(two())
    items, lines = found["items"], found["policies"]
    assert isinstance(items, list)
    assert isinstance(lines, list)
    assert [each["key"] for each in items] == ["nike", "adidas", "puma"]
    assert [(each["namespace"], each["epoch"]) for each in lines] == [
        ("ads", 1_790_000_001),
        ("shop", 1_790_000_001),
    ]


def test_columns_are_as_wide_as_their_widest_cell_and_nothing_trails() -> None:
    assert table(("A", "BC"), [("long", "x"), ("", "y")]) == ["A        BC", "long     x", "<none>   y"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0s"), (59, "59s"), (60, "1m"), (310, "5m10s"), (3_599, "59m"), (3_660, "1h1m"),
     (36_600, "10h"), (86_400 + 7_200, "1d2h"), (86_400 * 30 + 7_200, "30d"), (-5, "0s")],
)  # fmt: skip
def test_ages_are_written_as_kubectl_writes_them(seconds: int, shown: str) -> None:
    assert age((NOW - timedelta(seconds=seconds)).isoformat(), NOW) == shown


def test_a_time_that_is_missing_or_none_is_unknown() -> None:
    assert [age(None, NOW), age("yesterday", NOW)] == ["<unknown>", "<unknown>"]
