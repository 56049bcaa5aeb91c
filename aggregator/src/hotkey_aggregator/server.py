"""What people and monitors ask a running aggregator over HTTP.

Only this process can open its DuckDB file, so whoever wants its counts asks here. It reads through
the store's port and knows neither Kafka nor SQL.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from hotkey_aggregator.condition import Condition
from hotkey_aggregator.events import MILLIONTHS
from hotkey_aggregator.logfmt import line
from hotkey_aggregator.store import CountQuery, Position, Store, StoreError
from hotkey_aggregator.windows import Source

log = logging.getLogger("hotkey_aggregator.http")

MAX_LIMIT = 1_000_000
STOP_LOOK_SECONDS = 0.05


class BadQueryError(ValueError):
    """A request that cannot be answered; the message tells the caller what to change."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Where the answers come from."""

    store: Callable[[], Store]
    """The store; raises StoreUnavailableError while it is not open."""
    metrics: Callable[[], bytes]
    loop_age_seconds: Callable[[], float]
    """Seconds since the consuming loop last turned."""
    condition: Callable[[], Condition]
    clock: Callable[[], float] = time.time
    """Unix seconds."""
    healthy_seconds: float = 60.0
    """Older than this, the loop is stuck and `/healthz` says 503."""


class CountsServer:
    """Serves in threads of its own from construction until `close`. Port 0 takes a free one."""

    def __init__(self, host: str, port: int, answers: Answers) -> None:
        handler = type("Handler", (_Handler,), {"answers": answers})
        self._server = ThreadingHTTPServer((host, port), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(STOP_LOOK_SECONDS,), name="http", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on."""
        host, port = self._server.server_address[:2]
        return str(host), port

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    answers: Answers
    protocol_version = "HTTP/1.1"
    # A client that opens a connection and says nothing must not keep a thread for ever.
    timeout = 30

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        handler = _PATHS.get(url.path)
        if handler is None:
            self._json(404, {"error": f"no such path: {url.path}", "paths": sorted(_PATHS)})
            return
        try:
            handler(self, _parameters(url.query))
        except BadQueryError as error:
            self._json(400, {"error": str(error)})
        except StoreError as error:
            self._json(503, {"error": str(error)})
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def healthz(self, parameters: Mapping[str, str]) -> None:
        _only(parameters)
        age, limit = self.answers.loop_age_seconds(), self.answers.healthy_seconds
        self._json(200 if age <= limit else 503, {"loop_age_seconds": round(age, 3), "limit_seconds": limit})

    def readyz(self, parameters: Mapping[str, str]) -> None:
        """200 while the counts get newer, 503 with the reasons while they do not."""
        _only(parameters)
        condition = self.answers.condition()
        reasons = list(condition.not_ready_because)
        age, limit = self.answers.loop_age_seconds(), self.answers.healthy_seconds
        if age > limit:
            reasons.append(f"the loop has not turned for {age:.0f} s")
        state = {
            "ready": not reasons,
            "reasons": reasons,
            "partitions": condition.partitions,
            "paused": condition.paused,
            "lag_records": condition.lag_records,
            **self._freshness(condition),
        }
        self._json(503 if reasons else 200, state)

    def watermark(self, parameters: Mapping[str, str]) -> None:
        """Up to when the counts are complete, and how far each log was read."""
        _only(parameters)
        sources = [
            {
                **source._asdict(),
                "next_offset": position.next_offset,
                "event_time": None if position.event_time < 0 else iso_millisecond(position.event_time),
            }
            for source, position in sorted(self.answers.store().positions().items())
        ]
        self._json(200, {**self._freshness(self.answers.condition()), "sources": sources})

    def _freshness(self, condition: Condition) -> dict[str, object]:
        mark = condition.watermark
        age = None if mark is None else round(self.answers.clock() - mark / 1000, 3)
        return {"watermark": None if mark is None else iso_millisecond(mark), "freshness_seconds": age}

    def metrics(self, parameters: Mapping[str, str]) -> None:
        _only(parameters)
        self._send(200, "text/plain; version=0.0.4; charset=utf-8", self.answers.metrics())

    def counts(self, parameters: Mapping[str, str]) -> None:
        query = _count_query(parameters)
        found = self.answers.store().counts(query)
        rows = [
            {
                **count.window._asdict(),
                "minute": iso_minute(count.window.minute),
                "clicks": count.clicks,
                "cost": count.cost / MILLIONTHS,
            }
            for count in found
        ]
        self._json(200, {"counts": rows, "truncated": len(rows) == query.limit})

    def totals(self, parameters: Mapping[str, str]) -> None:
        _only(parameters)
        totals = msgspec.to_builtins(self.answers.store().totals())
        offsets: dict[str, dict[str, int]] = {}
        for source, position in sorted(self.answers.store().positions().items(), key=_newer_log_last):
            offsets.setdefault(source.topic, {})[str(source.partition)] = position.next_offset
        self._json(200, {**totals, "offsets": offsets})

    def dead(self, parameters: Mapping[str, str]) -> None:
        _only(parameters, "limit")
        limit = _limit(parameters, default=100)
        rows = [
            {
                **letter.source._asdict(),
                "offset": letter.offset,
                "reason": letter.reason,
                "detail": letter.detail,
            }
            for letter in self.answers.store().dead(limit)
        ]
        self._json(200, {"dead": rows, "truncated": len(rows) == limit})

    def ids(self, parameters: Mapping[str, str]) -> None:
        """All counted ids as newline-delimited JSON strings; chunked, so that a cut shows."""
        _only(parameters, "prefix")
        chunks = self.answers.store().event_ids(parameters.get("prefix", ""))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for chunk in chunks:
                body = msgspec.json.Encoder().encode_lines(chunk)
                self.wfile.write(b"%x\r\n%b\r\n" % (len(body), body))
            self.wfile.write(b"0\r\n\r\n")
        except StoreError as error:
            # The status is sent: without the last chunk the client knows that the list is not whole.
            self.close_connection = True
            log.error(line("ids_broken_off", detail=error))

    def _json(self, status: int, document: Any) -> None:
        self._send(status, "application/json", msgspec.json.encode(document) + b"\n")

    def _send(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        log.debug(line("request", client=self.client_address[0], detail=format % args))


_PATHS: dict[str, Callable[[_Handler, Mapping[str, str]], None]] = {
    "/healthz": _Handler.healthz,
    "/readyz": _Handler.readyz,
    "/watermark": _Handler.watermark,
    "/metrics": _Handler.metrics,
    "/counts": _Handler.counts,
    "/totals": _Handler.totals,
    "/dead": _Handler.dead,
    "/ids": _Handler.ids,
}


def iso_minute(minute: int) -> str:
    """`2024-05-16T10:03:00Z` for a minute in unix milliseconds."""
    return datetime.fromtimestamp(minute / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def iso_millisecond(time_ms: int) -> str:
    """`2024-05-16T10:03:21.042Z` for a time in unix milliseconds."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")[:23] + "Z"


def _newer_log_last(entry: tuple[Source, Position]) -> tuple[str, int, int]:
    source, position = entry
    return source.topic, source.partition, position.event_time


def parse_minute(name: str, text: str) -> int:
    """Unix milliseconds of an ISO 8601 time; without an offset it is UTC."""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise BadQueryError(f"{name}={text!r} is no ISO 8601 time such as 2024-05-16T10:03Z") from None
    return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() * 1000)


def _parameters(query: str) -> dict[str, str]:
    # Strict on purpose: of a repeated or misspelt parameter the caller should hear.
    given = parse_qs(query, keep_blank_values=True)
    repeated = [name for name, values in given.items() if len(values) > 1]
    if repeated:
        raise BadQueryError(f"{repeated[0]!r} is given more than once")
    return {name: values[0] for name, values in given.items()}


def _only(parameters: Mapping[str, str], *names: str) -> None:
    for name in parameters:
        if name not in names:
            raise BadQueryError(f"unknown parameter {name!r}; there are: {', '.join(names) or 'none'}")


def _limit(parameters: Mapping[str, str], default: int) -> int:
    text = parameters.get("limit", str(default))
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 7 and 1 <= int(text) <= MAX_LIMIT):
        raise BadQueryError(f"limit={text!r} is no number from 1 to {MAX_LIMIT}")
    return int(text)


def _count_query(parameters: Mapping[str, str]) -> CountQuery:
    _only(parameters, "advertiser_id", "ad_id", "minute_from", "minute_to", "limit")
    minutes = {
        name: parse_minute(name, parameters[name])
        for name in ("minute_from", "minute_to")
        if name in parameters
    }
    return CountQuery(
        advertiser_id=parameters.get("advertiser_id"),
        ad_id=parameters.get("ad_id"),
        minute_from=minutes.get("minute_from"),
        minute_to=minutes.get("minute_to"),
        limit=_limit(parameters, default=CountQuery().limit),
    )
