"""`Signer` on Ed25519 keys, and the text form in which a Secret holds them.

It must not know where the keys are kept.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from hotkey_sdk.routing import codec
from hotkey_sdk.routing.envelope import KeyFormatError, PublicKeys, SigningKey, open_envelope, seal, signed_by
from hotkey_sdk.routing.table import Stream, Table

PRIVATE_KEY = "private.key"  # base64 of the 32 raw bytes
PUBLIC_KEYS = "public.keys"  # one `keyId:base64` a line
STREAMS_KEPT = 1_000  # of which the last envelope is known


class EnvelopeSigner:
    """Signs with `key` and trusts `keys` and the key's own public half.

    Without a key nothing is signed and unsigned tables are accepted: only where the operator was told so.
    """

    def __init__(self, key: SigningKey | None, keys: PublicKeys | None = None) -> None:
        trusted = dict(keys.by_id) if keys is not None else {}
        if key is not None:
            trusted[key.key_id] = key.public_bytes
        self._key = key
        self._keys = PublicKeys(trusted)
        self._opened: dict[Stream, tuple[bytes, Table]] = {}  # the last, for it is read again and again

    @property
    def trusted(self) -> PublicKeys:
        """The keys whose tables it opens."""
        return self._keys

    @classmethod
    def from_secret(cls, data: Mapping[str, str]) -> EnvelopeSigner:
        """The signer of a Secret's decoded data. Raises `ValueError` saying what is wrong."""
        missing = [name for name in (PRIVATE_KEY, PUBLIC_KEYS) if not data.get(name)]
        if missing:
            raise KeyFormatError(f"it lacks {' and '.join(missing)}")
        try:
            raw = base64.b64decode(data[PRIVATE_KEY].strip(), validate=True)
        except (binascii.Error, ValueError):
            raise KeyFormatError(f"{PRIVATE_KEY} is not base64 of the 32 raw bytes of Ed25519") from None
        return cls(SigningKey.from_bytes(raw), PublicKeys.parse(data[PUBLIC_KEYS]))

    def seal(self, table: Table) -> bytes:
        return seal(codec.encode(table), self._key)

    def open(self, envelope: bytes, stream: Stream) -> Table:
        known = self._opened.pop(stream, None)
        if known is None or known[0] != envelope:
            known = envelope, self._verified(envelope, stream)
        self._opened[stream] = known
        if len(self._opened) > STREAMS_KEPT:
            del self._opened[next(iter(self._opened))]
        return known[1]

    def is_current(self, envelope: bytes) -> bool:
        return signed_by(envelope) == (self._key.key_id if self._key is not None else "")

    def _verified(self, envelope: bytes, stream: Stream) -> Table:
        table = codec.decode(open_envelope(envelope, self._keys, allow_unsigned=self._key is None))
        if table.stream != stream:
            raise ValueError(f"it is the table of {table.stream}, expected {stream}")
        return table


def new_secret_data() -> dict[str, str]:
    """The data of a Secret with a fresh key."""
    key = SigningKey.generate()
    return {
        PRIVATE_KEY: base64.b64encode(key.private_bytes).decode(),
        PUBLIC_KEYS: key.public_line + "\n",
    }
