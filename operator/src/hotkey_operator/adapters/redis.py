"""`Distribution` on Redis (or Valkey). What stands there may be anything: it is bounded before it is read.

Scripts do what must be one step. It must not know what a table says; the operator verifies that elsewhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

import msgspec
import redis.asyncio as redis_async
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from hotkey_operator import logs
from hotkey_operator.adapters.producer_reports import CLIENTS_AT_MOST
from hotkey_operator.adapters.reporters import LOOK_SECONDS, STEP, Reporters
from hotkey_operator.ports import PublishedEnvelope, Unavailable
from hotkey_sdk.routing.envelope import MAX_ENVELOPE_BYTES
from hotkey_sdk.routing.names import (
    TABLE_DIGEST,
    TABLE_ENVELOPE,
    TABLE_EPOCH,
    hint_channel,
    key_reports_key,
    reports_key,
    table_key,
)
from hotkey_sdk.routing.report import (
    CLIENT_ID_AT_MOST,
    KEY_REPORT_BYTES_AT_MOST,
    ClientReport,
    KeyReport,
    decode_key_report,
    decode_report,
)
from hotkey_sdk.routing.table import Stream

_T = TypeVar("_T")
KeyOf = Callable[[Stream, str], str]
_MAX_REPORTS = 10_000
_MAX_REPORT_BYTES = 4_096
_MAX_FIELD_BYTES = 4 * CLIENT_ID_AT_MOST  # UTF-8
_MAX_REPORTS_BYTES = _MAX_REPORTS * _MAX_REPORT_BYTES
_MAX_KEY_REPORTS_BYTES = 8 * 1024 * 1024  # read every second, where a policy wants them

# -> false | {epoch, digest, envelope} | {fingerprint}. KEYS[1] table, ARGV[1] the largest envelope.
_READ = f"""
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' then return false end
if kind == 'hash' and redis.call('HEXISTS', KEYS[1], '{TABLE_ENVELOPE}') == 1
   and redis.call('HSTRLEN', KEYS[1], '{TABLE_ENVELOPE}') <= tonumber(ARGV[1])
   and redis.call('HSTRLEN', KEYS[1], '{TABLE_EPOCH}') <= 32
   and redis.call('HSTRLEN', KEYS[1], '{TABLE_DIGEST}') <= 64 then
  return redis.call('HMGET', KEYS[1], '{TABLE_EPOCH}', '{TABLE_DIGEST}', '{TABLE_ENVELOPE}')
end
return {{redis.sha1hex(redis.call('DUMP', KEYS[1]))}}
"""

# The state as one short text, to compare and set against. KEYS[1] table.
_FINGERPRINT = """
if redis.call('EXISTS', KEYS[1]) == 0 then return '' end
return redis.sha1hex(redis.call('DUMP', KEYS[1]))
"""

# -> 1 when the envelope is what stands there afterwards. KEYS[1] table;
# ARGV: epoch, digest, envelope, hint channel, fingerprint of what may be overwritten or ''.
_PUBLISH = f"""
local kind = redis.call('TYPE', KEYS[1]).ok
if ARGV[5] ~= '' and kind ~= 'none' then
  if redis.sha1hex(redis.call('DUMP', KEYS[1])) ~= ARGV[5] then return 0 end
  redis.call('DEL', KEYS[1])
elseif kind == 'hash' then
  local epoch = tonumber(redis.call('HGET', KEYS[1], '{TABLE_EPOCH}') or '')
  if not epoch or epoch > tonumber(ARGV[1]) then return 0 end
  if epoch == tonumber(ARGV[1])
     and redis.call('HGET', KEYS[1], '{TABLE_ENVELOPE}') ~= ARGV[3] then return 0 end
elseif kind ~= 'none' then
  return 0
end
redis.call('HSET', KEYS[1], '{TABLE_EPOCH}', ARGV[1], '{TABLE_DIGEST}', ARGV[2], '{TABLE_ENVELOPE}', ARGV[3])
redis.call('PUBLISH', ARGV[4], ARGV[1])
return 1
"""

# -> how many are left out, and of at most ARGV[1] fields of at most ARGV[2] bytes each, and ARGV[3] in all,
# three each: which of the keys, field, value. KEYS: the reports of each reporter; what is no hash goes, for
# clients could not report into it. Who has few comes first, and nobody takes more than an equal part of what
# is left, so that no reporter leaves another's unread. Of very many fields some are taken at random: Redis
# answers nobody else while it walks through them.
_REPORTS = f"""
local found, left_out, hashes = {{}}, 0, {{}}
for index, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind == 'hash' then
    hashes[#hashes + 1] = {{index, redis.call('HLEN', key)}}
  elseif kind ~= 'none' then
    redis.call('DEL', key)
  end
end
table.sort(hashes, function(one, other) return one[2] < other[2] end)
local reports, bytes = tonumber(ARGV[1]), tonumber(ARGV[3])
for place, hash in ipairs(hashes) do
  local key, held, fields = KEYS[hash[1]], hash[2], nil
  local most = math.floor(reports / (#hashes - place + 1))
  local room = math.floor(bytes / (#hashes - place + 1))
  local taken, took = 0, 0
  if held > 4 * most then
    fields = redis.call('HRANDFIELD', key, 2 * most)
  else
    fields = redis.call('HKEYS', key)
  end
  for _, field in ipairs(fields) do
    if taken == most then break end
    local size = redis.call('HSTRLEN', key, field)
    if size <= tonumber(ARGV[2]) and took + size <= room and #field <= {_MAX_FIELD_BYTES} then
      taken, took = taken + 1, took + size
      found[#found + 1] = hash[1] - 1
      found[#found + 1] = field
      found[#found + 1] = redis.call('HGET', key, field)
    end
  end
  reports, bytes, left_out = reports - taken, bytes - took, left_out + held - taken
end
return {{left_out, found}}
"""

_FORGET = """
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then return 0 end
return redis.call('HDEL', KEYS[1], unpack(ARGV))
"""


class RedisDistribution:
    """Redis at `url`. Every question to it is answered, or `Unavailable`, within twice `timeout_seconds`.

    A client is told as `<reporter>:<client id>`, from where its report stands and not from what is in it: so
    no user can speak for another one's client. `look_seconds`: how often new reporters are looked for.

    Raises `ValueError` where `url` is not understood; whether anybody answers shows later.
    """

    def __init__(self, url: str, *, timeout_seconds: float = 1.0, look_seconds: float = LOOK_SECONDS) -> None:
        self._timeout = timeout_seconds
        self.key_reports_left_out = 0  # of all reads, since one may take only so much
        self._reporters = Reporters(self._step, look_seconds=look_seconds)
        self._overfull: set[Stream] = set()  # streams of which the last read left some out
        try:
            self._client = redis_async.Redis.from_url(
                url,
                socket_timeout=timeout_seconds,
                socket_connect_timeout=timeout_seconds,
                retry=Retry(NoBackoff(), 1),  # a connection that died while idle is made anew at once
                client_name="hotkey-operator",
            )
        except ValueError as error:
            raise ValueError(
                f"the Redis URL is not understood ({error}): expected redis://[user:password@]host:port/db"
            ) from None

    async def close(self) -> None:
        await self._client.aclose()

    async def read(self, stream: Stream) -> PublishedEnvelope | None:
        answer = await self._script(_READ, table_key(stream), MAX_ENVELOPE_BYTES)
        if answer is None:
            return None
        if len(answer) == 1:
            return PublishedEnvelope(epoch=None, digest=_text(answer[0]), envelope=None)
        epoch, told, envelope = answer
        digest = hashlib.sha256(envelope).hexdigest()
        # Clients go by the digest field: where it is wrong they would take a new envelope for their own.
        return PublishedEnvelope(_epoch(epoch), digest, envelope if told == digest.encode() else None)

    async def publish(self, stream: Stream, epoch: int, envelope: bytes, over: str | None = None) -> bool:
        fingerprint = ""
        if over is not None:
            # Redis knows no SHA-256, so what is to be overwritten is named by a fingerprint that it can make.
            fingerprint = _text(await self._script(_FINGERPRINT, table_key(stream)))
            held = await self.read(stream)
            if held is not None and held.digest != over:
                return False
        digest = hashlib.sha256(envelope).hexdigest()
        channel = hint_channel(stream)
        accepted = await self._script(
            _PUBLISH, table_key(stream), epoch, digest, envelope, channel, fingerprint
        )
        return bool(accepted == 1)

    async def reports(self, stream: Stream) -> tuple[ClientReport, ...]:
        bounds = (_MAX_REPORTS, _MAX_REPORT_BYTES, _MAX_REPORTS_BYTES)
        _, found = await self._reports(stream, reports_key, bounds)
        return tuple(
            msgspec.structs.replace(report, client_id=client_id)
            for client_id, data in found
            if (report := _report(data)) is not None
        )

    async def key_reports(self, stream: Stream) -> tuple[KeyReport, ...]:
        bounds = (CLIENTS_AT_MOST, KEY_REPORT_BYTES_AT_MOST, _MAX_KEY_REPORTS_BYTES)
        left_out, found = await self._reports(stream, key_reports_key, bounds)
        self._leave_out(stream, left_out)
        return tuple(
            msgspec.structs.replace(report, client_id=client_id)
            for client_id, data in found
            if (report := _key_report(data)) is not None
        )

    async def forget(self, stream: Stream, client_ids: Sequence[str]) -> None:
        await self._remove(stream, reports_key, client_ids)
        await self.forget_key_reports(stream, client_ids)

    async def forget_key_reports(self, stream: Stream, client_ids: Sequence[str]) -> None:
        await self._remove(stream, key_reports_key, client_ids)

    async def _reports(
        self, stream: Stream, key_of: KeyOf, bounds: tuple[int, int, int]
    ) -> tuple[int, list[tuple[str, bytes]]]:
        """How many are left out, and the others with the names of their clients."""
        reporters = await self._reporters.of(stream)
        if not reporters:
            return 0, []
        keys = [key_of(stream, each) for each in reporters]
        left_out, found = await self._bounded(
            self._client.eval(_REPORTS, len(keys), *keys, *map(str, bounds))
        )
        triples = zip(found[0::3], found[1::3], found[2::3], strict=True)
        return left_out, [
            (f"{reporters[index]}:{field.decode('utf-8', 'replace')}", data) for index, field, data in triples
        ]

    async def _step(self, *arguments: str | int) -> list[Any]:
        return cast(list[Any], await self._bounded(self._client.eval(STEP, 0, *map(str, arguments))))

    async def _remove(self, stream: Stream, key_of: KeyOf, client_ids: Sequence[str]) -> None:
        fields: dict[str, list[str]] = {}
        for client_id in client_ids:
            reporter, _, field = client_id.partition(":")
            fields.setdefault(reporter, []).append(field)
        for reporter, clients in fields.items():
            for start in range(0, len(clients), 1_000):
                await self._script(_FORGET, key_of(stream, reporter), *clients[start : start + 1_000])

    def _leave_out(self, stream: Stream, reports: int) -> None:
        """Count them, and say so when it begins: the load that they tell of is not seen."""
        self.key_reports_left_out += reports
        if reports and stream not in self._overfull:
            logs.say(
                "key reports left out",
                level=logging.WARNING,
                stream=str(stream),
                reports=reports,
                read_at_most=f"{CLIENTS_AT_MOST} reports, {_MAX_KEY_REPORTS_BYTES >> 20} MiB",
                remedy="let fewer producers of this topic report their keys, or take its rates from Kafka",
            )
        (self._overfull.add if reports else self._overfull.discard)(stream)

    async def _script(self, script: str, key: str, *arguments: str | bytes | int) -> Any:
        call = self._client.eval(script, 1, key, *cast(Sequence[str], arguments))
        return await self._bounded(call)

    async def _bounded(self, call: Awaitable[_T]) -> _T:
        try:
            async with asyncio.timeout(2 * self._timeout):
                return await call
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(f"Redis: {error or type(error).__name__}") from error


def _epoch(text: bytes | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None


def _report(data: bytes) -> ClientReport | None:
    try:
        return decode_report(data)
    except (msgspec.DecodeError, ValueError):
        return None


def _key_report(data: bytes) -> KeyReport | None:
    try:
        return decode_key_report(data)
    except (msgspec.DecodeError, ValueError):
        return None


def _text(data: bytes | str) -> str:
    return data.decode() if isinstance(data, bytes) else data
