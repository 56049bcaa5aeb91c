"""What is a click and what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotkey_aggregator.events import LATEST_CLICK_TIME, Click, NotAClickError, Reason, decode, encode

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
    assert decode(document(country="DE", nested={"a": [1, None]})) == decode(document())


@pytest.mark.parametrize(
    "identifier",
    ["a:1", "nul\x00inside", "\u202eright to left", "new\nline", "x" * 10_240, "nike:7:8", "\U0001f45f"],
)
def test_an_id_may_hold_any_character_and_be_of_any_length(identifier: str) -> None:
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


def outcome(value: bytes) -> Click | Reason:
    try:
        return decode(value)
    except NotAClickError as refused:
        return refused.reason


@given(st.binary(max_size=200))
def test_any_bytes_are_a_click_or_refused_and_nothing_else(value: bytes) -> None:
    assert isinstance(outcome(value), Click | Reason)


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(st.builds(Click, words.filter(bool), words, words, words, st.integers(0, LATEST_CLICK_TIME)))
def test_a_click_survives_encoding(click: Click) -> None:
    assert decode(encode(click)) == click
