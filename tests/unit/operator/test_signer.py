"""The signer and the Secret that holds its key."""

from __future__ import annotations

import pytest

from hotkey_operator.adapters.signer import PRIVATE_KEY, PUBLIC_KEYS, EnvelopeSigner, new_secret_data
from hotkey_sdk.routing.envelope import PublicKeys
from hotkey_sdk.routing.follower import Follower, Outcome
from hotkey_sdk.routing.table import Stream, Table

STREAM = Stream("cluster", "clicks")
TABLE = Table.empty(STREAM, partitions=3, epoch=5, seed=1)


def test_a_fresh_secret_makes_a_signer_whose_tables_clients_accept() -> None:
    data = new_secret_data()
    signer = EnvelopeSigner.from_secret(data)
    sealed = signer.seal(TABLE)
    assert sealed == signer.seal(TABLE)
    assert signer.open(sealed, STREAM) == TABLE
    assert Follower(STREAM, PublicKeys.parse(data[PUBLIC_KEYS])).offer(sealed) is Outcome.ADOPTED


def test_tables_signed_by_an_earlier_key_are_believed_while_its_public_half_is_listed() -> None:
    old, new = new_secret_data(), new_secret_data()
    sealed = EnvelopeSigner.from_secret(old).seal(TABLE)
    both = {**new, PUBLIC_KEYS: new[PUBLIC_KEYS] + old[PUBLIC_KEYS]}
    assert EnvelopeSigner.from_secret(both).open(sealed, STREAM) == TABLE
    with pytest.raises(ValueError, match="not trusted"):
        EnvelopeSigner.from_secret(new).open(sealed, STREAM)


def test_the_table_of_another_stream_is_refused() -> None:
    signer = EnvelopeSigner.from_secret(new_secret_data())
    with pytest.raises(ValueError, match="expected cluster/other"):
        signer.open(signer.seal(TABLE), Stream("cluster", "other"))


def test_unsigned_tables_are_believed_only_by_a_signer_without_a_key() -> None:
    unsigned = EnvelopeSigner(None)
    assert unsigned.open(unsigned.seal(TABLE), STREAM) == TABLE
    with pytest.raises(ValueError, match="unsigned"):
        EnvelopeSigner.from_secret(new_secret_data()).open(unsigned.seal(TABLE), STREAM)


WRONG_SECRETS = {
    "empty": ({PRIVATE_KEY: "", PUBLIC_KEYS: ""}, "lacks private.key and public.keys"),
    "no public keys": ({PUBLIC_KEYS: ""}, "lacks public.keys"),
    "a key that is no base64": ({PRIVATE_KEY: "§"}, "not base64"),
    "a key that is too short": ({PRIVATE_KEY: "AAAA"}, "3 bytes"),
    "public keys that are none": ({PUBLIC_KEYS: "hello"}, "line 1"),
}


@pytest.mark.parametrize("case", list(WRONG_SECRETS))
def test_a_wrong_secret_is_named(case: str) -> None:
    change, expected = WRONG_SECRETS[case]
    with pytest.raises(ValueError, match=expected):
        EnvelopeSigner.from_secret({**new_secret_data(), **change})
