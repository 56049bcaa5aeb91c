"""Where a record goes by a table."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotkey_sdk.routing.agreement import misplaced
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.router import Router, time_bucket
from hotkey_sdk.routing.table import RecordKey, Route, Shard, shard_key
from tests.unit.sdk.tables import route, table

MOMENT = int(datetime(2024, 5, 16, 10, 42, 31, tzinfo=UTC).timestamp() * 1000)


def test_a_key_without_a_route_is_a_plain_key() -> None:
    router = Router(table(route()))

    for key in (None, "", b"", "adidas", b"nike:10", "nike:10", b"\xff"):
        assert router.route(key, {"user_id": "u1"}) is None


@pytest.mark.parametrize("key", [b"nike", b"", b"a:1", "é".encode(), b"x" * 10_000])
def test_a_text_key_and_its_bytes_are_one_key(key: bytes) -> None:
    router = Router(table(route(key)))

    found = router.route(key, {"user_id": "u1"})

    assert found is not None
    assert router.route(key.decode(), {"user_id": "u1"}) == found
    assert found.key == shard_key(key, 10 + found.partition)


def test_a_key_that_is_not_text_is_routed_by_its_bytes() -> None:
    found = Router(table(route(b"\xff"))).route(b"\xff", {"user_id": "u1"})

    assert found is not None
    assert found.key == b"\xff:%d" % (10 + found.partition)


def test_preserve_leaves_the_callers_key() -> None:
    found = Router(table(route(record_key=RecordKey.PRESERVE))).route("nike", {"user_id": "u1"})

    assert found is not None
    assert (found.topic, found.key) == ("clicks", None)


@given(st.text(), st.text(st.characters(exclude_categories=["Cs"])))
def test_the_same_values_go_the_same_way_with_every_key_type(user: str, country: str) -> None:
    router = Router(table(route(by=("user_id", "country_id"), shards=12, slots=64)))

    given_both = router.route("nike", {"user_id": user, "country_id": country})
    from_header = router.route(b"nike", {"user_id": user}, headers=[("x-country", country.encode())])

    assert given_both is not None
    assert given_both == from_header


def test_values_are_spread_over_all_shards_by_their_share_of_slots() -> None:
    weighted = Route(
        b"nike", "clicks", ("user_id",), RecordKey.COMPOSITE, (Shard(1, 1), Shard(2, 2)), (0, 1, 1, 1)
    )
    router = Router(table(weighted))

    found = Counter(
        to.partition for user in range(8_000) if (to := router.route("nike", {"user_id": user})) is not None
    )

    assert found[1] + found[2] == 8_000
    assert 0.2 < found[1] / 8_000 < 0.3


def test_another_seed_spreads_the_values_anew() -> None:
    one, other = table(route(shards=12, slots=64)), table(route(shards=12, slots=64))
    other = type(other)(other.stream, 12, 7, 43, other.read_set, other.dimensions, other.routes)

    ways = [[Router(each).route("nike", {"user_id": user}) for user in range(50)] for each in (one, other)]

    assert ways[0] != ways[1]


@pytest.mark.parametrize("number", [0, 7, -3, 2**70])
def test_an_integer_hashes_as_its_decimal_text(number: int) -> None:
    router = Router(table(route(shards=12, slots=64)))

    assert router.route("nike", {"user_id": number}) == router.route("nike", {"user_id": str(number)})


def test_a_missing_dimension_hashes_as_empty() -> None:
    router = Router(table(route(by=("user_id", "country_id", "hour"), shards=12, slots=64)))
    empty = router.route("nike", {"user_id": "", "country_id": "", "hour": ""})

    assert router.route("nike") == empty
    assert router.route("nike", {}) == empty
    assert router.route("nike", {"user_id": None}, headers=[("other", b"x"), ("x-country", None)]) == empty


def test_the_last_of_several_headers_with_one_name_counts() -> None:
    router = Router(table(route(by=("country_id",), shards=12, slots=64)))

    several = router.route("nike", headers=[("x-country", "se"), ("x-country", b"de"), ("y", b"x")])

    assert several == router.route("nike", {"country_id": "de"})
    assert several == router.route("nike", headers={"x-country": "de"})


@pytest.mark.parametrize("headers", [[("x-country",)], [3], 7, "x-country", [("x-country", "de", "more")]])
def test_headers_that_are_none_are_left_to_the_kafka_client(headers: object) -> None:
    router = Router(table(route(by=("country_id",), shards=12, slots=64)))

    assert router.route("nike", headers=headers) == router.route("nike")  # type: ignore[arg-type]


def test_what_the_caller_says_wins_over_header_and_time() -> None:
    router = Router(table(route(by=("country_id", "hour"), shards=12, slots=64)))

    said = router.route(
        "nike", {"country_id": "de", "hour": "x"}, headers={"x-country": "se"}, timestamp_ms=MOMENT
    )

    assert said == router.route("nike", {"country_id": "de", "hour": "x"})


def test_a_time_bucket_comes_from_the_records_timestamp() -> None:
    router = Router(table(route(by=("hour",), shards=12, slots=64)))

    found = router.route("nike", timestamp_ms=MOMENT)

    assert found == router.route("nike", {"hour": "2024051610"})


@pytest.mark.parametrize("moment", [2**62, -(2**62)])
def test_a_timestamp_beyond_the_calendar_counts_as_missing(moment: int) -> None:
    router = Router(table(route(by=("hour",), shards=12, slots=64)))

    assert router.route("nike", timestamp_ms=moment) == router.route("nike")


@pytest.mark.parametrize(
    ("width", "bucket"),
    [
        (60, "202405161042"),
        (900, "202405161030"),
        (3600, "2024051610"),
        (6 * 3600, "2024051606"),
        (86_400, "20240516"),
        (7 * 86_400, "20240516"),
        (5400, "202405161030"),
    ],
)
def test_a_bucket_is_named_by_its_start_in_utc(width: int, bucket: str) -> None:
    assert time_bucket(MOMENT, width) == bucket


@given(st.integers(0, 4_000_000_000_000), st.sampled_from([60, 300, 3600, 86_400]))
def test_a_bucket_holds_exactly_its_width(moment: int, width: int) -> None:
    start = moment // (width * 1000) * width * 1000
    names = [time_bucket(at, width) for at in (start - 1, start, moment, start + width * 1000 - 1)]

    assert names[0] != names[1] == names[2] == names[3]


def test_without_dimensions_any_integer_picks_a_slot() -> None:
    router = Router(table(route(by=(), shards=4, slots=16)))

    ways = [router.route("nike", {"user_id": "ignored"}, slot=slot) for slot in (0, 1, 2, 3, 4, 19, -1)]

    assert [to.partition for to in ways if to is not None] == [0, 1, 2, 3, 0, 3, 3]


def test_shards_that_the_default_partitioner_puts_elsewhere_are_named() -> None:
    right = next(number for number in range(100) if partition_for(b"nike:%d" % number, 12) == 5)
    shards = (Shard(right, 5), Shard(right + 1000, (partition_for(b"nike:%d" % (right + 1000), 12) + 1) % 12))
    planned = Route(b"nike", "clicks", (), RecordKey.COMPOSITE, shards, (0, 1))

    found = misplaced(table(planned))

    assert [each.shard for each in found] == [shards[1]]
    assert "nike:" in str(found[0])
    preserved = Route(b"nike", "clicks", (), RecordKey.PRESERVE, shards, (0, 1))
    assert misplaced(table(preserved)) == ()
