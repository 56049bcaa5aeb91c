"""What a Prometheus may answer, as recorded, and what a server that is none or wants harm may."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from hotkey_operator.adapters import prometheus
from hotkey_operator.adapters.prometheus import Http, PrometheusMeter
from hotkey_operator.engine.model import EndOffsets
from hotkey_operator.ports import Unavailable

QUERY = 'kafka_topic_partition_current_offset{topic="clicks"}'
AT = 1_790_000_000.0


class Server:
    """Answers every request with `answer`, and keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Callable[[BaseHTTPRequestHandler], None] = sending({})
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                outer.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def sending(
    document: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Callable[[BaseHTTPRequestHandler], None]:
    """Sends a document as JSON, or bytes as they are."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return send


def matrix(*series: dict[str, Any]) -> dict[str, Any]:
    """The answer to a query of a range, as Prometheus 2.42 and 3.13 give it."""
    return {"status": "success", "data": {"resultType": "matrix", "result": list(series)}}


def series(partition: int | str, *points: tuple[float, float | str], **labels: str) -> dict[str, Any]:
    """One series of kafka_exporter: times in seconds after `AT`, values as text."""
    metric = {
        "__name__": "kafka_topic_partition_current_offset",
        "instance": "kafka-exporter:9308",
        "job": "kafka",
        "partition": str(partition),
        "topic": "clicks",
        **labels,
    }
    return {"metric": metric, "values": [[AT + at, str(value)] for at, value in points]}


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


def ask(url: str, partitions: int = 2, *, label: str = "partition", http: Http | None = None) -> EndOffsets:
    client = http or Http(timeout_seconds=2.0)
    return asyncio.run(PrometheusMeter(client, url, QUERY, label).end_offsets("clicks", partitions))


def refusal(url: str, **more: Any) -> str:
    with pytest.raises(Unavailable) as error:
        ask(url, **more)
    return str(error.value)


def test_a_reading_has_the_values_and_the_time_of_the_last_scrape(server: Server) -> None:
    server.answer = sending(matrix(series(0, (0, 100), (15, 160)), series(1, (0, 7), (15, 9.0))))

    assert ask(server.url + "/") == EndOffsets(AT + 15, (160, 9))

    (asked,) = server.asked
    assert urlsplit(asked).path == "/api/v1/query"
    assert parse_qs(urlsplit(asked).query) == {"query": [QUERY + "[90s]"]}


def test_kminion_s_series_are_read_by_their_own_label(server: Server) -> None:
    labels = {
        "__name__": "kminion_kafka_topic_partition_high_water_mark",
        "instance": "kminion:8080",
        "topic_name": "clicks",
    }
    found: list[dict[str, Any]] = []
    for partition in ("0", "1"):
        point = [AT, f"{partition}e+06"]
        found.append({"metric": {**labels, "partition_id": partition}, "values": [point]})
    server.answer = sending(matrix(*found))
    assert ask(server.url, label="partition_id") == EndOffsets(AT, (0, 1_000_000))


def test_partitions_scraped_at_different_times_are_put_at_the_time_of_the_oldest(server: Server) -> None:
    server.answer = sending(matrix(series(0, (0, 100), (15, 160)), series(1, (5, 0), (20, 300))))
    assert ask(server.url) == EndOffsets(AT + 15, (160, 200))


def test_the_highest_of_several_series_of_a_partition_counts(server: Server) -> None:
    server.answer = sending(
        matrix(
            series(0, (0, 10), (15, 20), instance="a"),
            series(0, (0, 12), (15, 19), instance="b"),
            series(1, (15, 5), instance="a"),
            series(1, (0, 1), instance="gone"),
        )
    )
    assert ask(server.url) == EndOffsets(AT + 15, (20, 5))


def test_what_is_no_count_is_passed_over(server: Server) -> None:
    odd = series(0, (0, 100), (15, "NaN"), (16, "+Inf"), (17, -5), (18, "1e400"), (19, "many"))
    server.answer = sending(matrix(odd, series(1, (0, 7)), series(5, (30, 9))))
    assert ask(server.url) == EndOffsets(AT, (100, 7))


def test_a_counter_that_went_back_is_read_as_it_is(server: Server) -> None:
    server.answer = sending(matrix(series(0, (0, 5_000), (15, 3)), series(1, (0, 9), (15, 2))))
    assert ask(server.url) == EndOffsets(AT + 15, (3, 2))


ERROR = {
    "status": "error",
    "errorType": "bad_data",
    "error": "1:1: parse error: ranges only allowed for vector selectors",
}
VECTOR = {"status": "success", "data": {"resultType": "vector", "result": []}}
ANSWERS: dict[str, tuple[Callable[[BaseHTTPRequestHandler], None], str]] = {
    "nothing": (sending(matrix()), "no sample of the last 90 s: is the exporter up"),
    "a partition missing": (sending(matrix(series(0, (0, 1)))), "for 1 of 2 partitions (1)"),
    "only NaN": (sending(matrix(series(0, (0, "NaN")), series(1, (0, "NaN")))), "no sample of the last 90 s"),
    "an expression": (sending(ERROR, 400), "spec.metrics.prometheus.query is to be a plain selector"),
    "no range": (sending(VECTOR), "it answers a vector"),
    "another topic too": (sending(matrix(series(0, (0, 1), topic="views"))), "it also selects topic views"),
    "no such label": (
        sending(matrix({"metric": {"shard": "0"}, "values": [[AT, "1"]]})),
        "spec.metrics.prometheus.partitionLabel",
    ),
    "a label that is no number": (sending(matrix(series("zero", (0, 1)))), "label partition is 'zero'"),
    "a number that is too long": (sending(matrix(series("9" * 5_000, (0, 1)))), "label partition is '999"),
    "another JSON": (sending([1, 2]), "its answer is not that of a Prometheus"),
    "no JSON": (sending(b"<html>hello</html>"), "its answer is not that of a Prometheus"),
    "half of it": (
        sending(b'{"status": "success", "data": {"resultType": "mat'),
        "is not that of a Prometheus",
    ),
    "no UTF-8": (sending(b'{"status": "\xff"}'), "is not that of a Prometheus"),
    "very deep": (sending(b'{"status": "success", "data": ' + b"[" * 100_000), "is not that of a Prometheus"),
    "values of another form": (
        sending(matrix({"metric": {"partition": "0"}, "values": [["now", 1]]})),
        "is not that of a Prometheus",
    ),
    "not found": (sending(b"404 page not found", 404), "HTTP 404"),
    "forbidden": (sending({"status": "error", "error": "no\nentry"}, 403), "HTTP 403: no entry"),
    "busy": (sending(b"", 503), "HTTP 503"),
    "a redirect": (sending(b"", 302, {"Location": "http://127.0.0.1:1/"}), "it redirects (HTTP 302)"),
    "too much": (sending(b" " * (prometheus.ANSWER_BYTES_AT_MOST + 1)), "more than 16 MiB"),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_what_is_no_reading_is_told_with_the_server_and_the_query(server: Server, what: str) -> None:
    server.answer, expected = ANSWERS[what]

    message = refusal(server.url)

    assert expected in message
    assert server.url in message
    assert QUERY in message
    assert len(message) < 1_000
    assert len(server.asked) == 1


def test_a_server_that_is_not_there_is_told(server: Server) -> None:
    server.close()
    message = refusal(server.url)
    assert server.url in message
    assert "refused" in message
    assert "0x" not in message


def test_an_answer_that_never_ends_is_given_up(server: Server) -> None:
    ended = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not ended.wait(0.05):
            try:
                handler.wfile.write(b" ")
            except OSError:
                return

    server.answer = drip
    try:
        assert "did not end within 0.5 s" in refusal(server.url, http=Http(timeout_seconds=0.5))
    finally:
        ended.set()


def test_a_server_that_says_nothing_is_given_up(server: Server) -> None:
    ended = threading.Event()

    def say_nothing(_: BaseHTTPRequestHandler) -> None:
        ended.wait(20)

    server.answer = say_nothing
    try:
        assert "did not end within 0.3 s" in refusal(server.url, http=Http(timeout_seconds=0.3))
    finally:
        ended.set()


# What a server may do for ever before its headers are complete.
HEADERS = {"a header by the byte": b"X", "only 100 Continue": b"\r\nHTTP/1.1 100 Continue\r\n"}


@pytest.mark.parametrize("what", HEADERS)
def test_servers_whose_headers_never_end_hold_up_no_other_policy(server: Server, what: str) -> None:
    ended = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        if "odd" not in handler.path:
            sending(matrix(series(0, (0, 5))))(handler)
            return
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n")
        while not ended.wait(0.01):
            try:
                handler.wfile.write(HEADERS[what])
            except OSError:
                return

    async def reading() -> EndOffsets:
        http = Http(timeout_seconds=2.0)
        odd = PrometheusMeter(http, f"{server.url}/odd", QUERY, "partition")
        refused = await asyncio.gather(
            *(odd.end_offsets("clicks", 1) for _ in range(8)), return_exceptions=True
        )
        assert all("did not end within 2 s" in str(each) for each in refused), refused
        return await PrometheusMeter(http, server.url, QUERY, "partition").end_offsets("clicks", 1)

    server.answer = drip
    try:
        assert asyncio.run(reading()) == EndOffsets(AT, (5,))
    finally:
        ended.set()


@pytest.mark.parametrize("url", ["http://", "http://[::1", "http://a:99999", "http://\x00", "//a", "a", ""])
def test_a_url_that_is_none_is_told(url: str) -> None:
    assert "Prometheus at" in refusal(url)


@pytest.mark.parametrize("url", ["ftp://me:geheim@a", "file:///etc/hosts", "unix:///run/x", "//me:geheim@a"])
def test_what_is_not_asked_over_http_is_not_understood(url: str) -> None:
    message = refusal(url)
    assert "the URL is not understood" in message
    assert "geheim" not in message


def test_a_path_and_a_query_arrive_as_they_were_written(server: Server) -> None:
    query = 'kafka_topic_partition_current_offset{topic="a+b%20c&d=e#f",x=~"\\\\d"}'
    meter = PrometheusMeter(Http(), server.url + "/p 1/q%2Fr", query, "partition")
    with pytest.raises(Unavailable):
        asyncio.run(meter.end_offsets("clicks", 1))
    (asked,) = map(urlsplit, server.asked)
    assert asked.path == "/p%201/q%2Fr/api/v1/query"
    assert parse_qs(asked.query) == {"query": [f"{query}[90s]"]}


def test_a_password_in_the_url_is_not_told() -> None:
    assert "geheim" not in refusal("http://me:geheim@127.0.0.1:1")
