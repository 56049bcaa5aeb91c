"""What is a click and what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotkey_aggregator.events import (
    LATEST_CLICK_TIME,
    MAX_NAME_LENGTH,
    Click,
    NotAClickError,
    Reason,
    cost_in_millionths,
    decode,
    decode_all,
    encode,
)

GOOD: dict[str, Any] = {
    "event_id": "e-1",
    "advertiser_id": "nike",
    "ad_id": "ad-7",
    "user_id": "u-42",
    "click_time": 1_715_853_600_123,
}


def document(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def test_a_click_is_read_from_its_json() -> None:
    assert decode(document()) == Click("e-1", "nike", "ad-7", "u-42", 1_715_853_600_123)


def test_unknown_fields_are_ignored() -> None:
    assert decode(document(colour="red", nested={"a": [1, None]})) == decode(document())


def test_country_region_campaign_device_and_cost_may_be_given_absent_or_null() -> None:
    given_fields = {"country": "DE", "region": "BE", "campaign": "spring", "device": "phone", "cost": 0.25}
    full = decode(document(**given_fields))
    assert {name: getattr(full, name) for name in given_fields} == given_fields
    assert decode(document(**dict.fromkeys(given_fields))) == decode(document())


@pytest.mark.parametrize(
    ("cost", "millionths"),
    [(None, 0), (0, 0), (1, 1_000_000), (0.1, 100_000), (0.0000004, 0), (1e9, 10**15), (1.005, 1_005_000)],
)
def test_a_cost_is_counted_in_millionths(cost: float | None, millionths: int) -> None:
    assert cost_in_millionths(decode(document(cost=cost)).cost) == millionths


@pytest.mark.parametrize(
    "identifier",
    [
        "a:1",
        "nul\x00inside",
        "\u202eright to left",
        "new\nline",
        "x" * MAX_NAME_LENGTH,
        "nike:7:8",
        "\U0001f45f",
    ],
)
def test_an_id_may_hold_any_character_and_be_long(identifier: str) -> None:
    click = decode(document(event_id=identifier, advertiser_id=identifier))
    assert (click.event_id, click.advertiser_id) == (identifier, identifier)


@pytest.mark.parametrize("click_time", [0, 1, LATEST_CLICK_TIME])
def test_times_from_1970_to_9999_are_clicks(click_time: int) -> None:
    assert decode(document(click_time=click_time)).click_time == click_time


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, Reason.EMPTY),
        (b"", Reason.EMPTY),
        (b" ", Reason.NOT_JSON),
        (b"click", Reason.NOT_JSON),
        (document()[:-1], Reason.NOT_JSON),
        (document() + document(), Reason.NOT_JSON),
        (b"\xef\xbb\xbf" + document(), Reason.NOT_JSON),
        (b'{"event_id": "\\ud800"}', Reason.NOT_JSON),
        (b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}", Reason.NOT_JSON),
        (b'{"event_id": "\xff\xfe"}', Reason.NOT_UTF8),
        (b"null", Reason.NOT_A_CLICK),
        (b"[1, 2]", Reason.NOT_A_CLICK),
        (b"{}", Reason.NOT_A_CLICK),
        (document(event_id=""), Reason.NOT_A_CLICK),
        (document(event_id=7), Reason.NOT_A_CLICK),
        (document(advertiser_id=None), Reason.NOT_A_CLICK),
        (document(click_time="1715853600123"), Reason.NOT_A_CLICK),
        (document(click_time=1715853600123.0), Reason.NOT_A_CLICK),
        (document(click_time=True), Reason.NOT_A_CLICK),
        (document(click_time=-1), Reason.NOT_A_CLICK),
        (document(click_time=LATEST_CLICK_TIME + 1), Reason.NOT_A_CLICK),
        (document(click_time=10**30), Reason.NOT_A_CLICK),
        (document(cost=-0.01), Reason.NOT_A_CLICK),
        (document(cost=1_000_000_000.1), Reason.NOT_A_CLICK),
        (document(cost="1"), Reason.NOT_A_CLICK),
        (document(cost=float("nan")), Reason.NOT_JSON),
        (document(cost=float("inf")), Reason.NOT_JSON),
        (document()[:-1] + b', "cost": 1e999}', Reason.NOT_A_CLICK),
        (document(country=49), Reason.NOT_A_CLICK),
        (document(device=["phone"]), Reason.NOT_A_CLICK),
        *(
            (document(**{field: "x" * (MAX_NAME_LENGTH + 1)}), Reason.NOT_A_CLICK)
            for field in ("event_id", "advertiser_id", "ad_id")
        ),
    ],
)
def test_what_is_no_click_is_refused_with_a_reason(value: bytes | None, reason: Reason) -> None:
    with pytest.raises(NotAClickError) as refused:
        decode(value)
    assert refused.value.reason is reason
    assert refused.value.detail


def test_the_detail_of_a_refusal_is_bounded() -> None:
    refusal = NotAClickError(Reason.NOT_JSON, "x" * 100_000)
    assert len(refusal.detail) == 300


def test_of_many_values_each_bad_one_is_told_by_its_place_and_the_others_keep_their_order() -> None:
    good = [document(event_id=f"e{number}") for number in range(4)]
    decoded = decode_all([b"bad", good[0], None, b"[]", good[1], good[2], b"\xff", good[3], b""])
    assert [click.event_id for click in decoded.clicks] == ["e0", "e1", "e2", "e3"]
    assert [(index, error.reason) for index, error in decoded.refused] == [
        (0, Reason.NOT_JSON),
        (2, Reason.EMPTY),
        (3, Reason.NOT_A_CLICK),
        (6, Reason.NOT_JSON),
        (8, Reason.EMPTY),
    ]


@given(st.lists(st.one_of(st.none(), st.binary(max_size=4), st.just(document())), max_size=30))
def test_many_values_are_read_as_each_alone(values: list[bytes | None]) -> None:
    decoded = decode_all(values)
    refused = dict(decoded.refused)
    clicks = iter(decoded.clicks)
    for index, value in enumerate(values):
        alone = outcome(value)
        assert alone == (refused[index].reason if index in refused else next(clicks))
    assert next(clicks, None) is None


def outcome(value: bytes | None) -> Click | Reason:
    try:
        return decode(value)
    except NotAClickError as refused:
        return refused.reason


@given(st.binary(max_size=200))
def test_any_bytes_are_a_click_or_refused_and_nothing_else(value: bytes) -> None:
    assert isinstance(outcome(value), Click | Reason)


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


optional = st.none() | words
costs = st.none() | st.floats(0, 1e9)


@given(
    st.builds(
        Click,
        words.filter(bool),
        words,
        words,
        words,
        st.integers(0, LATEST_CLICK_TIME),
        optional,
        optional,
        optional,
        optional,
        costs,
    )
)
def test_a_click_survives_encoding(click: Click) -> None:
    assert decode(encode(click)) == click
