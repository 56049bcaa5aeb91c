"""Which table of a stream is the current one: a state machine in which epochs only grow.

It is offered whatever stands in Redis and keeps the last good table, so that a lying, stale or wiped Redis
changes nothing. It must not know where envelopes come from.
"""

from __future__ import annotations

from enum import StrEnum

from hotkey_sdk.routing import codec, envelope
from hotkey_sdk.routing.envelope import PublicKeys
from hotkey_sdk.routing.router import Router
from hotkey_sdk.routing.table import Stream, Table


class Outcome(StrEnum):
    """What became of an envelope that was offered."""

    ADOPTED = "Adopted"  # it holds a higher epoch and is the current table now
    SAME = "Same"  # it is the current table
    OLDER = "Older"  # its epoch is not higher than the current one's
    BAD_SIGNATURE = "BadSignature"  # no trusted key signed it
    WRONG_STREAM = "WrongStream"  # it is another cluster's or topic's table
    MALFORMED = "Malformed"  # it is no envelope, or its payload is no table
    TOO_BIG = "TooBig"  # nothing of it was read
    UNKNOWN_FEATURE = "UnknownFeature"  # it needs a newer SDK


class Follower:
    """The current table of one stream; not for two threads to offer to at once."""

    def __init__(self, stream: Stream, keys: PublicKeys, allow_unsigned: bool = False) -> None:
        self.stream = stream
        self.router: Router | None = None
        self.refusal = ""  # why the last offer was not adopted, in words; empty after Adopted and Same
        self._keys = keys
        self._allow_unsigned = allow_unsigned
        self._current = b""  # the envelope of the current table, to know it again without verifying it
        self._digest = ""

    @property
    def table(self) -> Table | None:
        """The current table; None before the first."""
        return self.router.table if self.router else None

    @property
    def epoch(self) -> int:
        """The current table's epoch; 0 before the first."""
        return self.router.table.epoch if self.router else 0

    def trust(self, keys: PublicKeys) -> None:
        """Believe these keys from now on; the current table stays."""
        self._keys = keys

    def offer(self, data: bytes) -> Outcome:
        """Adopt the envelope's table if it is valid, of this stream and newer; never raises."""
        if data == self._current and self.router is not None:
            self.refusal = ""
            return Outcome.SAME
        try:
            payload = envelope.open_envelope(data, self._keys, allow_unsigned=self._allow_unsigned)
            table = codec.decode(payload)
        except ValueError as error:
            self.refusal = str(error)
            return _refused(error)
        return self._weigh(table, data, envelope.digest(payload))

    def _weigh(self, table: Table, data: bytes, digest: str) -> Outcome:
        if table.stream != self.stream:
            self.refusal = f"it is the table of {table.stream}, expected {self.stream}"
            return Outcome.WRONG_STREAM
        if self.router is not None and table.epoch <= self.epoch:
            if digest == self._digest:
                self._current, self.refusal = data, ""
                return Outcome.SAME
            self.refusal = f"its epoch is {table.epoch}, the current one is {self.epoch}"
            return Outcome.OLDER
        self.router, self._current, self._digest, self.refusal = Router(table), data, digest, ""
        return Outcome.ADOPTED


def _refused(error: ValueError) -> Outcome:
    match error:
        case envelope.BadSignatureError():
            return Outcome.BAD_SIGNATURE
        case envelope.EnvelopeTooBigError():
            return Outcome.TOO_BIG
        case codec.UnknownFeatureError():
            return Outcome.UNKNOWN_FEATURE
        case _:
            return Outcome.MALFORMED
