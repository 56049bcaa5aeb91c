"""The signed wrapping of a table, so that whoever can write to Redis still cannot redirect traffic.

Ed25519 over the exact payload bytes. It must not know what the payload means.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

MAX_ENVELOPE_BYTES = 704 * 1024  # base64 of the largest table, its signature, and some room

_ED25519 = "Ed25519"
_NONE = "none"


class EnvelopeError(ValueError):
    """The envelope is refused; the text says why."""


class MalformedEnvelopeError(EnvelopeError):
    """It is no envelope at all."""


class EnvelopeTooBigError(EnvelopeError):
    """It is larger than any envelope may be; nothing of it was read."""


class BadSignatureError(EnvelopeError):
    """It is not signed by a key that is trusted here."""


class KeyFormatError(ValueError):
    """A key's text is wrong."""


class _Envelope(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    alg: str
    payload: bytes  # base64 in JSON, as is the signature
    key_id: str = ""
    signature: bytes = b""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 private key; `key_id` is made from its public half."""

    private_bytes: bytes = field(repr=False)  # 32 raw bytes

    @classmethod
    def generate(cls) -> SigningKey:
        """A new random key."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def from_bytes(cls, raw: bytes) -> SigningKey:
        """The key of 32 raw bytes. Raises `KeyFormatError`."""
        if len(raw) != 32:
            raise KeyFormatError(f"a signing key of {len(raw)} bytes, expected the 32 raw bytes of Ed25519")
        return cls(raw)

    @property
    def public_bytes(self) -> bytes:
        """The 32 raw bytes of the public key."""
        return self._private().public_key().public_bytes_raw()

    @property
    def key_id(self) -> str:
        """The first 16 hex digits of the public key's SHA-256."""
        return hashlib.sha256(self.public_bytes).hexdigest()[:16]

    @property
    def public_line(self) -> str:
        """`keyId:base64`, one line of what `PublicKeys.parse` reads."""
        return f"{self.key_id}:{base64.b64encode(self.public_bytes).decode()}"

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature over `data`; the same bytes every time."""
        return self._private().sign(data)

    def _private(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.private_bytes)


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """The keys that are trusted, by key id. None at all is legal: then nothing signed is accepted."""

    by_id: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of(cls, keys: Iterable[SigningKey]) -> PublicKeys:
        """The public halves of `keys`."""
        return cls(MappingProxyType({key.key_id: key.public_bytes for key in keys}))

    @classmethod
    def parse(cls, text: str) -> PublicKeys:
        """Keys from lines `keyId:base64`; blank lines and lines that start with # are skipped.

        Raises `KeyFormatError` with the number of the line.
        """
        keys: dict[str, bytes] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                key_id, raw = _parse_line(line, number)
                keys[key_id] = raw
        return cls(MappingProxyType(keys))

    def verify(self, key_id: str, signature: bytes, data: bytes) -> None:
        """Return if `signature` over `data` is by key `key_id`, else raise `BadSignatureError`."""
        raw = self.by_id.get(key_id)
        if raw is None:
            known = ", ".join(sorted(self.by_id)) or "none"
            raise BadSignatureError(
                f"signed by key {key_id[:64]!r}, which is not trusted here (trusted: {known})"
            )
        try:
            Ed25519PublicKey.from_public_bytes(raw).verify(signature, data)
        except InvalidSignature:
            raise BadSignatureError(f"the signature does not fit the payload and key {key_id}") from None


def seal(payload: bytes, key: SigningKey | None) -> bytes:
    """The envelope around `payload`, the same bytes for the same arguments. No key: unsigned, alg `none`."""
    if key is None:
        return msgspec.json.encode(_Envelope(_NONE, payload), order="sorted")
    envelope = _Envelope(_ED25519, payload, key.key_id, key.sign(payload))
    return msgspec.json.encode(envelope, order="sorted")


def open_envelope(data: bytes, keys: PublicKeys, *, allow_unsigned: bool = False) -> bytes:
    """The payload of an envelope that a trusted key signed. Raises an `EnvelopeError`.

    `allow_unsigned`: accept alg `none` too; a signed envelope is verified all the same.
    """
    if len(data) > MAX_ENVELOPE_BYTES:
        raise EnvelopeTooBigError(f"{len(data)} bytes, at most {MAX_ENVELOPE_BYTES} are allowed")
    try:
        envelope = _envelope(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedEnvelopeError(f"not an envelope: {error}") from None
    if envelope.alg == _ED25519:
        keys.verify(envelope.key_id, envelope.signature, envelope.payload)
    elif envelope.alg != _NONE:
        raise MalformedEnvelopeError(f"alg {envelope.alg[:64]!r}, expected {_ED25519} or {_NONE}")
    elif not allow_unsigned:
        raise BadSignatureError("it is unsigned, and unsigned tables are not allowed here")
    return envelope.payload


class _Signer(msgspec.Struct, frozen=True, rename="camel"):
    key_id: str = ""


# Made here, not at the first use: that may be of several threads at once, which msgspec does not bear.
_envelope = msgspec.json.Decoder(_Envelope).decode
_signer = msgspec.json.Decoder(_Signer).decode


def signed_by(data: bytes) -> str:
    """The id of the key that an envelope says it is signed by, unverified; empty for none."""
    try:
        return _signer(data).key_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def digest(data: bytes) -> str:
    """SHA-256 of `data` in hex."""
    return hashlib.sha256(data).hexdigest()


def _parse_line(line: str, number: int) -> tuple[str, bytes]:
    key_id, colon, encoded = line.strip().partition(":")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except ValueError:
        raw = b""
    if not colon or not key_id or len(raw) != 32:
        raise KeyFormatError(
            f"line {number} of the public keys: found {line[:24]!r}..., expected `keyId:base64` (32 bytes)"
        )
    return key_id, raw
