"""`Meter` on a Prometheus that watches Kafka, through its documented HTTP API (`/api/v1/query`).

Exporters are scraped every 15 to 30 s, so a query of now answers an old value under a new time. The raw
samples of the last while are asked for instead (`query[90s]`), whose times are those of the scrapes. What
comes back is bounded before it is read. It must not know what a policy is.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Iterable, Mapping
from urllib.parse import urlencode, urlsplit, urlunsplit

import aiohttp
import msgspec
from yarl import URL

from hotkey_operator.adapters.alignment import Points, value_at
from hotkey_operator.engine.model import EndOffsets
from hotkey_operator.ports import Unavailable

LOOK_BACK_SECONDS = 90  # a partition without a sample for so long is missing
ANSWER_BYTES_AT_MOST = 16 * 1024 * 1024  # about 30,000 partitions scraped every 15 s
_COUNTER_AT_MOST = 2.0**53
_CHUNK_BYTES = 64 * 1024
_TOPIC_LABELS = ("topic", "topic_name")  # of kafka_exporter and the JMX exporter, of kminion
_SHOWN = 200  # characters of what the server says


class _Series(msgspec.Struct, frozen=True):
    metric: dict[str, str] = {}
    values: list[tuple[float, str]] = []


class _Data(msgspec.Struct, frozen=True, rename="camel"):
    result_type: str
    result: msgspec.Raw = msgspec.Raw(b"[]")


class _Answer(msgspec.Struct, frozen=True):
    status: str
    data: _Data | None = None
    error: str = ""


# Made here, not at the first answer: msgspec ends the process when threads use a type first, all at once.
_answer = msgspec.json.Decoder(_Answer).decode
_all_series = msgspec.json.Decoder(list[_Series]).decode


class Http:
    """GETs with bounds, for all policies: whatever a server does, it holds up its own call and no other."""

    def __init__(self, *, timeout_seconds: float = 4.0) -> None:
        self._timeout = timeout_seconds

    async def get(self, url: str) -> tuple[int, bytes]:
        """Status and body. Raises `Unavailable` saying why there are none, without naming `url`."""
        try:
            # Around all of it: a server may take its time with every byte of its headers too.
            async with asyncio.timeout(self._timeout):
                return await self._get(_address(url))
        except TimeoutError:
            raise Unavailable(f"its answer did not end within {self._timeout:g} s") from None
        except ValueError:  # of aiohttp and yarl alike
            raise Unavailable("the URL is not understood, expected http(s)://host:port") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(_words(error)) from None

    async def _get(self, url: URL) -> tuple[int, bytes]:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        # A session for each call: what was not read to its end is no use to the next one.
        async with (
            aiohttp.ClientSession(auto_decompress=False, headers=headers) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            body = bytearray()
            async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
                body += chunk
                if len(body) > ANSWER_BYTES_AT_MOST:
                    raise Unavailable(f"it answers more than {ANSWER_BYTES_AT_MOST >> 20} MiB")
            return answer.status, bytes(body)


class PrometheusMeter:
    """The counter that `query` selects, one series or more per partition, told apart by `partition_label`.

    Of several series of one partition (two exporters, or replicas) the highest counts. `field` names the
    policy's field that holds `query`, for what is told.
    """

    def __init__(self, http: Http, url: str, query: str, partition_label: str, field: str = "query") -> None:
        self._http = http
        self._url = url.rstrip("/")
        self._query = query.strip()
        self._label = partition_label
        self._field = f"spec.metrics.prometheus.{field}"

    async def end_offsets(self, name: str, partitions: int) -> EndOffsets:
        """Raises `Unavailable` that names the server and the query."""
        try:
            status, body = await self._http.get(self._asked())
            # An answer may be big, and what reads it must not hold up the loops of all policies.
            return await asyncio.to_thread(self._reading, status, body, name, partitions)
        except Unavailable as error:
            raise Unavailable(f"Prometheus at {_shown(self._url)}, query {self._query}: {error}") from None

    def _asked(self) -> str:
        asked = urlencode({"query": f"{self._query}[{LOOK_BACK_SECONDS}s]"}, errors="replace")
        return f"{self._url}/api/v1/query?{asked}"

    def _reading(self, status: int, body: bytes, name: str, partitions: int) -> EndOffsets:
        found = self._series(self._answered(status, body), name, partitions)
        missing = [p for p in range(partitions) if not found.get(p)]
        if missing:
            raise Unavailable(_missing(missing, partitions))
        at = min(max(points[-1][0] for points in series) for series in found.values())
        counters = (max(value_at(points, at) for points in found[p]) for p in range(partitions))
        return EndOffsets(at, tuple(int(counter) for counter in counters))

    def _answered(self, status: int, body: bytes) -> list[_Series]:
        if 300 <= status < 400:
            raise Unavailable(
                f"it redirects (HTTP {status}): write the final address into spec.metrics.prometheus.url"
            )
        try:
            answer = _answer(body)
            if status != 200 or answer.status != "success" or answer.data is None:
                raise Unavailable(self._refusal(status, answer.error))
            if answer.data.result_type != "matrix":
                raise Unavailable(f"it answers a {answer.data.result_type[:_SHOWN]}; {self._expected()}")
            return _all_series(answer.data.result)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if status != 200:
                raise Unavailable(self._refusal(status, "")) from None
            raise Unavailable("its answer is not that of a Prometheus: see the URL") from None

    def _refusal(self, status: int, why: str) -> str:
        said = f": {' '.join(why.split())[:_SHOWN]}" if why else ""
        wrong_query = status in (400, 422)
        return f"HTTP {status}{said}{f'; {self._expected()}' if wrong_query else ''}"

    def _expected(self) -> str:
        return (
            f"{self._field} is to be a plain selector, whose samples have the times of the scrapes, such as "
            'kafka_topic_partition_current_offset{topic="clicks"}'
        )

    def _series(self, found: list[_Series], name: str, partitions: int) -> dict[int, list[Points]]:
        """The usable points of every series, by partition."""
        by_partition: dict[int, list[Points]] = {}
        for series in found:
            self._check_topic(series.metric, name)
            partition = self._partition(series.metric)
            points = _points(series.values)
            if partition < partitions and points:
                by_partition.setdefault(partition, []).append(points)
        return by_partition

    def _check_topic(self, labels: Mapping[str, str], name: str) -> None:
        for label in _TOPIC_LABELS:
            if labels.get(label, name) != name:
                other = labels[label][:_SHOWN]
                raise Unavailable(f'it also selects topic {other}: add {{{label}="{name}"}} to {self._field}')

    def _partition(self, labels: Mapping[str, str]) -> int:
        text = labels.get(self._label)
        if text is not None and text.isascii() and text.isdecimal() and len(text) < 10:
            return int(text)
        has = ", ".join(sorted(labels))[:_SHOWN] or "none"
        what = f"label {self._label} is {text[:_SHOWN]!r}" if text is not None else f"no label {self._label}"
        raise Unavailable(
            f"a series has {what}, expected the partition's number (its labels: {has}); "
            "see spec.metrics.prometheus.partitionLabel"
        )


def _points(values: Iterable[tuple[float, str]]) -> Points:
    """What is a number and a counter, the oldest first; NaN marks a series that went away."""
    usable: dict[float, float] = {}
    for at, text in values:
        try:
            value = float(text)
        except ValueError:
            continue
        if math.isfinite(at) and math.isfinite(value) and 0 <= value <= _COUNTER_AT_MOST:
            usable[at] = value
    return sorted(usable.items())


def _missing(missing: list[int], partitions: int) -> str:
    lately = f"no sample of the last {LOOK_BACK_SECONDS} s"
    if len(missing) == partitions:
        return f"{lately}: is the exporter up and scraped, and the topic's name right?"
    shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
    return f"{lately} for {len(missing)} of {partitions} partitions ({shown})"


def _shown(url: str) -> str:
    """The URL without what may be a password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.rpartition("@")[2][:_SHOWN]
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _address(url: str) -> URL:
    """The URL with all escaped that a request cannot hold. Raises `ValueError` where it names no server."""
    address = URL(url)
    if address.scheme not in ("http", "https") or not address.host:
        raise ValueError(url)
    return address


def _words(error: Exception) -> str:
    """What went wrong: a refused connection in the system's words, as aiohttp has none for it."""
    cause = getattr(error, "os_error", None)
    if isinstance(cause, ConnectionError) and cause.errno is not None:
        return os.strerror(cause.errno)
    return " ".join(str(error).split())[:_SHOWN] or type(error).__name__
