"""What the API server holds and answers, as the ports speak of it."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from kubernetes import client

from hotkey_operator.adapters.kubernetes import KubernetesTables, stored
from hotkey_operator.engine.model import StoredTable, Unreadable
from hotkey_operator.ports import NamespaceTerminating, PolicyRef, Unavailable
from hotkey_sdk.routing import codec
from hotkey_sdk.routing.table import Stream, Table

REF = PolicyRef("ads", "clicks")
TABLE = Table.empty(Stream("cluster", "clicks"), partitions=3, epoch=5, seed=1)
ROUTE = {"topic": "clicks", "by": [], "recordKey": "Composite", "shards": [{"id": 1, "partition": 0}]}


def item(**changes: Any) -> dict[str, Any]:
    labels = {"hotkeys.dev/tombstone": "true"}
    metadata = {"name": "clicks", "namespace": "ads", "resourceVersion": "7", "labels": labels}
    return {"metadata": metadata, "spec": {**codec.to_document(TABLE), **changes}}


def test_an_object_with_a_table_is_read_with_its_version() -> None:
    assert stored(REF, item()) == StoredTable(TABLE, "7", tombstone=True)


NONSENSE: dict[str, dict[str, Any]] = {
    "slots that are no base64": {"routes": [{**ROUTE, "key": "nike", "slots": "!"}]},
    "a key that is no base64": {"routes": [{**ROUTE, "keyBase64": "\u00e9", "slots": "AA=="}]},
    "a read set without the base topic": {"readSet": ["other"]},
    "a version of tomorrow": {"schema": 9},
    "a type of its own": {"routes": 5},
}


@pytest.mark.parametrize("case", NONSENSE)
def test_an_object_with_nonsense_is_a_value_that_names_what_is_wrong(case: str) -> None:
    found = stored(REF, item(**NONSENSE[case]))
    assert isinstance(found, Unreadable)
    assert (found.resource_version, found.tombstone) == ("7", True)
    assert found.problem.startswith("RoutingTable ads/clicks: ")


def refusal(status: int, **details: Any) -> tuple[int, dict[str, Any]]:
    """A Status as API servers answer it."""
    return status, {
        "kind": "Status",
        "status": "Failure",
        "message": "no",
        "code": status,
        "details": details,
    }


REFUSALS: dict[str, tuple[tuple[int, dict[str, Any]], type[Exception]]] = {
    "the namespace ends": (
        refusal(403, causes=[{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]),
        NamespaceTerminating,
    ),
    "the namespace is gone": (refusal(404, name="ads", kind="namespaces"), NamespaceTerminating),
    "it may not": (refusal(403, name="clicks", kind="routingtables"), Unavailable),
    "the resource is not installed": (refusal(404), Unavailable),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refused_create_tells_whether_it_can_ever_be_done(case: str) -> None:
    (status, answer), expected = REFUSALS[case]

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing on stderr."""

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        api = client.ApiClient(client.Configuration(host=f"http://127.0.0.1:{server.server_port}"))
        try:
            with pytest.raises(Unavailable) as raised:
                asyncio.run(KubernetesTables(api).write(REF, TABLE, None))
        finally:
            server.shutdown()
            api.close()  # type: ignore[no-untyped-call]
    assert type(raised.value) is expected
