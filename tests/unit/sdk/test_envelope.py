"""The signed envelope: only what a trusted key signed comes out of it."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotkey_sdk.routing.envelope import (
    MAX_ENVELOPE_BYTES,
    BadSignatureError,
    EnvelopeError,
    EnvelopeTooBigError,
    KeyFormatError,
    MalformedEnvelopeError,
    PublicKeys,
    SigningKey,
    digest,
    open_envelope,
    seal,
)

KEY = SigningKey.from_bytes(bytes(range(32)))
OTHER = SigningKey.from_bytes(bytes(32))
TRUSTED = PublicKeys.of([KEY])


@given(st.binary(max_size=1000))
def test_what_was_sealed_comes_out(payload: bytes) -> None:
    assert open_envelope(seal(payload, KEY), TRUSTED) == payload


def test_sealing_twice_gives_the_same_bytes() -> None:
    assert seal(b"table", KEY) == seal(b"table", KEY)


@given(st.data())
def test_a_changed_envelope_never_gives_another_payload(data: st.DataObject) -> None:
    sealed = bytearray(seal(b"the payload", KEY))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))

    with contextlib.suppress(EnvelopeError):
        assert open_envelope(bytes(sealed), TRUSTED) == b"the payload"


def test_a_key_that_is_not_trusted_is_named() -> None:
    with pytest.raises(BadSignatureError, match=f"{OTHER.key_id}.*trusted: {KEY.key_id}"):
        open_envelope(seal(b"x", OTHER), TRUSTED)


def test_a_signature_under_another_keys_name_is_refused() -> None:
    forged = json.loads(seal(b"x", OTHER)) | {"keyId": KEY.key_id}

    with pytest.raises(BadSignatureError, match="does not fit"):
        open_envelope(json.dumps(forged).encode(), TRUSTED)


def test_unsigned_is_refused_unless_it_is_allowed() -> None:
    unsigned = seal(b"x", None)

    with pytest.raises(BadSignatureError, match="unsigned"):
        open_envelope(unsigned, TRUSTED)
    assert open_envelope(unsigned, PublicKeys(), allow_unsigned=True) == b"x"


def test_a_wrong_signature_is_refused_even_where_unsigned_is_allowed() -> None:
    with pytest.raises(BadSignatureError):
        open_envelope(seal(b"x", OTHER), TRUSTED, allow_unsigned=True)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b'{"alg":1,"payload":""}',
        b'{"alg":"RS256","payload":""}',
        b'{"alg":"Ed25519","payload":"%%"}',
        '{"alg":"Ed25519","payload":"é"}'.encode(),
        '{"alg":"Ed25519","payload":"eA==","signature":"é"}'.encode(),
        b"[" * 100_000,
        b'{"x":' + b"[" * 100_000,
    ],
)
def test_what_is_no_envelope_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedEnvelopeError):
        open_envelope(data, TRUSTED)


def test_an_envelope_over_the_limit_is_not_read() -> None:
    with pytest.raises(EnvelopeTooBigError, match=str(MAX_ENVELOPE_BYTES)):
        open_envelope(b" " * (MAX_ENVELOPE_BYTES + 1), TRUSTED)


def test_public_keys_are_read_from_lines() -> None:
    text = f"# current\n{KEY.public_line}\n\n  {OTHER.public_line}  \n"

    assert dict(PublicKeys.parse(text).by_id) == {
        KEY.key_id: KEY.public_bytes,
        OTHER.key_id: OTHER.public_bytes,
    }


@pytest.mark.parametrize("line", ["nonsense", "id:", ":AAAA", "id:AAAA", "id:%%%", f"id:é{'A' * 43}="])
def test_a_wrong_public_key_is_told_with_its_line(line: str) -> None:
    with pytest.raises(KeyFormatError, match="line 2"):
        PublicKeys.parse(f"{KEY.public_line}\n{line}")


def test_a_private_key_of_a_wrong_length_is_refused_and_never_printed() -> None:
    with pytest.raises(KeyFormatError, match="31 bytes"):
        SigningKey.from_bytes(bytes(31))
    assert base64.b64encode(KEY.private_bytes).decode() not in repr(KEY)
    assert repr(KEY.private_bytes) not in repr(KEY)


def test_a_generated_key_is_a_new_one() -> None:
    assert SigningKey.generate().key_id != SigningKey.generate().key_id


def test_the_digest_is_sha256_in_hex() -> None:
    assert digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
