"""A HotKeyPolicy and its RoutingTable as the API server gives them; its key `nike` has three shards."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hotkey_operator.plugin.policies import Policy, policies
from hotkey_sdk.routing.codec import to_document
from hotkey_sdk.routing.table import Dimension, RecordKey, Route, Shard, Stream, Table

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
SHARDS = (Shard(4, 0), Shard(7, 3), Shard(9, 5))


def route(key: bytes = b"nike", by: tuple[str, ...] = ("user_id",), **changes: Any) -> Route:
    fields: dict[str, Any] = {"record_key": RecordKey.COMPOSITE, "shards": SHARDS, "slots": (0, 1, 1, 2)}
    return Route(key, "clicks", by, **{**fields, **changes})


def table(*routes: Route) -> Table:
    dimensions = (Dimension("user_id", json_path="$.user"), Dimension("hour", time_bucket_seconds=3_600))
    return Table(
        Stream("cluster", "clicks"),
        6,
        1_790_000_001,
        seed=7,
        read_set=("clicks",),
        dimensions=dimensions,
        routes=routes,
    )


NIKE: dict[str, Any] = {
    "key": "nike",
    "reason": "Holding",
    "message": "key nike is spread over 3 shards on 3 partitions; order is kept per user_id; still hot",
    "recordsPerSecond": 4012,
    "share": 0.8012,
    "shareError": 0.0123,
    "shards": 3,
    "by": ["user_id"],
    "since": "2026-01-31T11:54:50Z",
    "basis": {
        "partition": 3,
        "partitionRecordsPerSecond": 2006,
        "partitionShare": 0.96,
        "partitionShareError": 0.011,
        "records": 412,
        "batches": 20,
        "ageSeconds": 2,
    },
    "cost": {"order": "order is kept per user_id", "partitions": 3, "slotsMoved": 0.75},
    "rejected": [
        {"option": "leave it plain", "reason": "Holding", "why": "partition 1 would take 4,012 records/s"},
        {
            "option": "give it a topic of its own",
            "reason": "FieldsNotCarriedOut",
            "why": "not there yet",
        },
    ],
}
READY = {
    "type": "Ready",
    "status": "True",
    "reason": "Governing",
    "message": "topic clicks with 6 partitions",
    "lastTransitionTime": "2026-01-31T09:00:00Z",
}


def policy_object(
    *keys: dict[str, Any], namespace: str = "ads", name: str = "clicks", **status: Any
) -> dict[str, Any]:
    told = {"producers": "4/4", "recordsPerSecond": 5008, "imbalance": "1.04", "hottestPartition": 3}
    told |= {"consumers": "1/1", "epoch": 1_790_000_001, "decision": {"reason": "Holding", "message": "held"}}
    return {
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"topic": "clicks"},
        "status": {**told, "keys": list(keys), "conditions": [READY], **status},
    }


def table_object(of: Table, namespace: str = "ads", name: str = "clicks") -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name}, "spec": to_document(of)}


def policy(*keys: dict[str, Any], routes: tuple[Route, ...] = (), **fields: Any) -> Policy:
    """One policy with these keys in status and these routes in its table."""
    item = policy_object(*keys, **fields)
    metadata = item["metadata"]
    (found,) = policies([item], [table_object(table(*routes), metadata["namespace"], metadata["name"])])
    return found


def event(message: str, reason: str = "Spread", at: str = "2026-01-31T11:54:51Z") -> dict[str, Any]:
    return {"type": "Normal", "reason": reason, "message": message, "lastTimestamp": at}
