"""Where tables come from: one interface, and Redis behind it.

Nothing here is trusted: an envelope is handed on as it was found, and one that is too big is not even read.
It must not know signatures or epochs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import redis
from redis.backoff import NoBackoff
from redis.client import PubSub
from redis.connection import parse_url
from redis.retry import Retry

from hotkey_sdk.routing import names
from hotkey_sdk.routing.envelope import MAX_ENVELOPE_BYTES
from hotkey_sdk.routing.report import KEY_REPORTS_STAND_SECONDS
from hotkey_sdk.routing.table import Stream

_DIGEST_BYTES = 64
_MOST_HINTS = 1000  # dropped in one wait, lest a flood of them never lets it end


class StoreUnavailableError(Exception):
    """The store did not answer, or not in time; the next turn tries again."""


class ReportRefusedError(Exception):
    """The store works, but takes no report: the client may not write it, or something is in its place."""


@dataclass(frozen=True, slots=True)
class Found:
    """What stands at a stream's table key.

    `envelope` None: nothing new to read, for the reason in `why`: it is `missing`, `unchanged` (its digest is
    the one that the reader named), `too big` or of a `wrong type`.
    """

    envelope: bytes | None
    why: str = ""


MISSING = Found(None, "missing")
UNCHANGED = Found(None, "unchanged")
TOO_BIG = Found(None, "too big")
WRONG_TYPE = Found(None, "wrong type")


class TableStore(Protocol):
    """A place that tables are published in and clients report to. Not for two threads at once.

    Every method raises `StoreUnavailableError` when the store does not answer in time.
    """

    def read(self, known: Mapping[Stream, str]) -> dict[Stream, Found]:
        """What is published for each stream; `known` has the digest of the envelope that the reader holds."""
        ...

    def wait_for_hint(self, streams: Sequence[Stream], seconds: float) -> bool:
        """Wait until one of the streams was hinted at (True) or `seconds` are over (False)."""
        ...

    def report(self, reports: Mapping[Stream, bytes], client_id: str) -> None:
        """Write the client's report of each stream. Raises `ReportRefusedError` too."""
        ...

    def report_keys(self, reports: Mapping[Stream, bytes], client_id: str) -> None:
        """Write what the client counted on each stream.

        What all have written of a stream goes `KEY_REPORTS_STAND_SECONDS` after the last of them wrote.
        Raises `ReportRefusedError` too.
        """
        ...

    def withdraw(self, streams: Sequence[Stream], client_id: str) -> None:
        """Remove the client's reports, of both kinds."""
        ...

    def close(self) -> None:
        """Release the connections; no method may be called afterwards. Never raises."""
        ...


class RedisStore:
    """Redis, or what speaks its protocol (one node or a proxy; no Cluster client).

    Its reports go under the name of the user that `url` logs in as.
    """

    def __init__(self, url: str, timeout_seconds: float = 2.0) -> None:
        self._reporter = names.reporter(parse_url(url).get("username"))  # type: ignore[no-untyped-call]
        self._redis = redis.Redis.from_url(
            url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 1),  # a connection that died while idle is made anew at once
            health_check_interval=0,
            decode_responses=False,
        )
        self._hints: PubSub | None = None
        self._subscribed: set[str] = set()

    def read(self, known: Mapping[Stream, str]) -> dict[Stream, Found]:
        """Two or three round trips for all streams; an envelope travels only when its digest is a new one."""
        streams = list(known)
        sizes = self._ask([("HSTRLEN", names.table_key(s), field) for s in streams for field in _FIELDS])
        found: dict[Stream, Found] = {}
        compare: list[Stream] = []
        fetch: list[Stream] = []
        for stream, size, digest_size in zip(streams, sizes[0::2], sizes[1::2], strict=True):
            verdict = _verdict(size)
            if verdict is not None:
                found[stream] = verdict
            else:
                (compare if known[stream] and digest_size == _DIGEST_BYTES else fetch).append(stream)
        digests = self._ask([("HGET", names.table_key(s), names.TABLE_DIGEST) for s in compare])
        for stream, digest in zip(compare, digests, strict=True):
            if isinstance(digest, bytes) and digest == known[stream].encode():
                found[stream] = UNCHANGED
            else:
                fetch.append(stream)
        envelopes = self._ask([("HGET", names.table_key(s), names.TABLE_ENVELOPE) for s in fetch])
        for stream, envelope in zip(fetch, envelopes, strict=True):
            found[stream] = Found(envelope) if isinstance(envelope, bytes) else MISSING
        return found

    def wait_for_hint(self, streams: Sequence[Stream], seconds: float) -> bool:
        """Subscribes to what is not yet subscribed to; the wait ends at the first message.

        With it go all that have arrived by now: one read of the tables answers them.
        """
        try:
            hints = self._listen({names.hint_channel(stream) for stream in streams})
            message = hints.get_message(ignore_subscribe_messages=True, timeout=seconds)
            arrived = message
            for _ in range(_MOST_HINTS):
                if arrived is None:
                    break
                arrived = hints.get_message(ignore_subscribe_messages=True, timeout=0)
        except Exception as error:  # an odd answer makes the client raise anything, an IndexError too
            self._drop_hints()
            raise StoreUnavailableError(str(error) or type(error).__name__) from None
        return message is not None

    def report(self, reports: Mapping[Stream, bytes], client_id: str) -> None:
        keys = {names.reports_key(s, self._reporter): data for s, data in reports.items()}
        _taken(self._ask([("HSET", key, client_id, data) for key, data in keys.items()]))

    def report_keys(self, reports: Mapping[Stream, bytes], client_id: str) -> None:
        keys = {names.key_reports_key(s, self._reporter): data for s, data in reports.items()}
        written = [("HSET", key, client_id, data) for key, data in keys.items()]
        _taken(self._ask([*written, *(("EXPIRE", key, KEY_REPORTS_STAND_SECONDS) for key in keys)]))

    def withdraw(self, streams: Sequence[Stream], client_id: str) -> None:
        kinds = (names.reports_key, names.key_reports_key)
        keys = [key_of(s, self._reporter) for s in streams for key_of in kinds]
        self._ask([("HDEL", key, client_id) for key in keys])

    def close(self) -> None:
        self._drop_hints()
        try:
            self._redis.close()
        except (redis.RedisError, OSError):
            return

    def _ask(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The answers in order; an error that Redis answers with (a wrong type, say) is an answer too."""
        if not commands:
            return []
        try:
            pipeline: Any = self._redis.pipeline(transaction=False)  # its types know no execute_command
            with pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                answers: list[Any] = pipeline.execute(raise_on_error=False)
                return answers
        except Exception as error:
            raise StoreUnavailableError(str(error) or type(error).__name__) from None

    def _listen(self, channels: set[str]) -> PubSub:
        if self._hints is None:
            self._hints = self._redis.pubsub()  # type: ignore[no-untyped-call]
            self._subscribed = set()
        missing = channels - self._subscribed
        if missing:
            self._hints.subscribe(*missing)
            self._subscribed |= missing
        return self._hints

    def _drop_hints(self) -> None:
        hints, self._hints = self._hints, None
        if hints is not None:
            with contextlib.suppress(Exception):
                hints.close()


_FIELDS = (names.TABLE_ENVELOPE, names.TABLE_DIGEST)


def _taken(answers: Sequence[object]) -> None:
    for answer in answers:
        if isinstance(answer, redis.RedisError):
            raise ReportRefusedError(str(answer))


def _verdict(size: object) -> Found | None:
    """Why there is nothing to read, from what HSTRLEN answered; None when there is."""
    if isinstance(size, redis.ResponseError):
        return WRONG_TYPE if "WRONGTYPE" in str(size) else Found(None, str(size))
    if not isinstance(size, int) or size == 0:
        return MISSING
    return TOO_BIG if size > MAX_ENVELOPE_BYTES else None
