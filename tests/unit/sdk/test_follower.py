"""Which table is current: epochs only grow, and nothing wrong is adopted."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotkey_sdk.routing import codec
from hotkey_sdk.routing.envelope import MAX_ENVELOPE_BYTES, PublicKeys, SigningKey, seal
from hotkey_sdk.routing.follower import Follower, Outcome
from hotkey_sdk.routing.table import Stream, Table
from tests.unit.sdk.tables import STREAM, route, table

KEY = SigningKey.from_bytes(bytes(range(32)))
KEYS = PublicKeys.of([KEY])


def sealed(of: Table) -> bytes:
    return seal(codec.encode(of), KEY)


def follower() -> Follower:
    return Follower(STREAM, KEYS)


def document(**changes: object) -> bytes:
    return seal(json.dumps(codec.to_document(table(epoch=9)) | changes).encode(), KEY)


def test_before_the_first_table_there_is_none() -> None:
    assert (follower().table, follower().router, follower().epoch) == (None, None, 0)


@given(st.lists(st.integers(0, 20), max_size=30))
def test_epochs_only_grow_in_whatever_order_tables_come(epochs: list[int]) -> None:
    following = follower()
    highest = -1

    for epoch in epochs:
        outcome = following.offer(sealed(table(epoch=epoch)))
        expected = Outcome.ADOPTED if epoch > highest else Outcome.SAME if epoch == highest else Outcome.OLDER
        highest = max(highest, epoch)
        assert outcome is expected
        assert following.table == table(epoch=highest)


def test_another_table_under_the_same_epoch_is_not_adopted() -> None:
    following = follower()
    following.offer(sealed(table(epoch=5)))

    assert following.offer(sealed(table(route(), epoch=5))) is Outcome.OLDER
    assert following.table == table(epoch=5)


def test_the_same_table_signed_by_another_trusted_key_is_the_same() -> None:
    other = SigningKey.generate()
    following = Follower(STREAM, PublicKeys.of([KEY, other]))
    following.offer(sealed(table()))

    assert following.offer(seal(codec.encode(table()), other)) is Outcome.SAME


WRONG = {
    "no envelope": (b"nonsense", Outcome.MALFORMED),
    "nothing": (b"", Outcome.MALFORMED),
    "no table in it": (seal(b"{}", KEY), Outcome.MALFORMED),
    "a wrong type in it": (document(partitions="12"), Outcome.MALFORMED),
    "truncated": (sealed(table(epoch=9))[:-9], Outcome.MALFORMED),
    "10 MB": (b"x" * 10_000_000, Outcome.TOO_BIG),
    "just over the limit": (b"x" * (MAX_ENVELOPE_BYTES + 1), Outcome.TOO_BIG),
    "a foreign key": (
        seal(codec.encode(table(epoch=9)), SigningKey.from_bytes(bytes(32))),
        Outcome.BAD_SIGNATURE,
    ),
    "unsigned": (seal(codec.encode(table(epoch=9)), None), Outcome.BAD_SIGNATURE),
    "another topic": (sealed(table(epoch=9, stream=Stream("cluster-1", "views"))), Outcome.WRONG_STREAM),
    "another cluster": (sealed(table(epoch=9, stream=Stream("cluster-2", "clicks"))), Outcome.WRONG_STREAM),
    "a new feature": (document(required=["fences"]), Outcome.UNKNOWN_FEATURE),
    "a new schema": (document(schema=2), Outcome.UNKNOWN_FEATURE),
    "older": (sealed(table(epoch=6)), Outcome.OLDER),
}


@pytest.mark.parametrize(("envelope", "outcome"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_changes_nothing_and_is_told_in_words(envelope: bytes, outcome: Outcome) -> None:
    following = follower()
    good = table(route(), epoch=7)
    following.offer(sealed(good))

    assert following.offer(envelope) is outcome
    assert following.table == good
    assert following.refusal
    assert following.offer(sealed(good)) is Outcome.SAME
    assert not following.refusal
    assert following.offer(sealed(table(epoch=8))) is Outcome.ADOPTED


@given(st.binary(max_size=300))
def test_no_bytes_make_it_raise(data: bytes) -> None:
    assert follower().offer(data) is Outcome.MALFORMED


def test_unsigned_tables_are_adopted_only_where_that_is_allowed() -> None:
    unsigned = seal(codec.encode(table()), None)

    assert Follower(STREAM, PublicKeys(), allow_unsigned=True).offer(unsigned) is Outcome.ADOPTED
    assert Follower(STREAM, KEYS).offer(unsigned) is Outcome.BAD_SIGNATURE
