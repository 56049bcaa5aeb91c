"""A verdict as it stands in status, and read back from there: what the operator writes, the plugin prints.

Bounded, for fifty of them stand in one object. Pure; a document of an older or newer operator may lack fields
or name reasons that are not known here, and is read all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from hotkey_operator.engine.model import Basis, Cost, KeyVerdict, Rejected
from hotkey_operator.engine.reasons import Reason

Document = Mapping[str, Any]

KEY_CHARACTERS = 256
MESSAGE_CHARACTERS = 400
WHY_CHARACTERS = 200
OPTION_CHARACTERS = 64
REJECTED_AT_MOST = 6


def key_text(key: bytes) -> str:
    """A key for people: text as it is, other bytes escaped, cut where it is too long to read."""
    return _cut(key.decode("utf-8", "backslashreplace"), KEY_CHARACTERS)


def document(verdict: KeyVerdict) -> dict[str, Any]:
    """The verdict as an entry of `status.keys`; figures rounded to what they are good for."""
    entry: dict[str, Any] = {
        "key": key_text(verdict.key),
        "reason": str(verdict.reason),
        "message": _cut(verdict.message, MESSAGE_CHARACTERS),
        "recordsPerSecond": round(verdict.records_per_second),
        "share": round(verdict.share, 4),
        "shareError": round(verdict.share_error, 4),
        "shards": verdict.shards,
        "by": list(verdict.by),
    }
    if verdict.basis is not None:
        entry["basis"] = _basis_document(verdict.basis)
    if verdict.cost is not None:
        entry["cost"] = _cost_document(verdict.cost)
    if verdict.rejected:
        entry["rejected"] = [_rejected_document(each) for each in verdict.rejected[:REJECTED_AT_MOST]]
    return entry


def verdict(entry: Document) -> KeyVerdict:
    """An entry of `status.keys` as the verdict that it tells of, its key as text."""
    basis, cost = entry.get("basis"), entry.get("cost")
    return KeyVerdict(
        key=str(entry.get("key", "")).encode("utf-8", "surrogatepass"),
        reason=_reason(entry),
        message=str(entry.get("message", "")),
        records_per_second=_number(entry, "recordsPerSecond"),
        share=_number(entry, "share"),
        share_error=_number(entry, "shareError"),
        shards=int(_number(entry, "shards")),
        by=tuple(str(name) for name in entry.get("by") or ()),
        basis=_basis(basis) if basis else None,
        cost=_cost(cost) if cost else None,
        rejected=tuple(_rejected(each) for each in entry.get("rejected") or ()),
    )


def _basis_document(basis: Basis) -> dict[str, Any]:
    return {
        "partition": basis.partition,
        "partitionRecordsPerSecond": round(basis.partition_records_per_second),
        "partitionShare": round(basis.partition_share, 4),
        "partitionShareError": round(basis.partition_share_error, 4),
        "records": basis.records,
        "batches": basis.batches,
        "ageSeconds": round(max(0.0, basis.age_seconds)),
    }


def _basis(entry: Document) -> Basis:
    return Basis(
        partition=int(_number(entry, "partition")),
        partition_records_per_second=_number(entry, "partitionRecordsPerSecond"),
        partition_share=_number(entry, "partitionShare"),
        partition_share_error=_number(entry, "partitionShareError"),
        records=int(_number(entry, "records")),
        batches=int(_number(entry, "batches")),
        age_seconds=_number(entry, "ageSeconds"),
    )


def _cost_document(cost: Cost) -> dict[str, Any]:
    return {
        "order": _cut(cost.order, WHY_CHARACTERS),
        "partitions": cost.partitions,
        "slotsMoved": round(cost.slots_moved, 4),
    }


def _cost(entry: Document) -> Cost:
    partitions = int(_number(entry, "partitions"))
    return Cost(str(entry.get("order", "")), partitions, _number(entry, "slotsMoved"))


def _rejected_document(rejected: Rejected) -> dict[str, Any]:
    return {
        "option": _cut(rejected.option, OPTION_CHARACTERS),
        "reason": str(rejected.reason),
        "why": _cut(rejected.why, WHY_CHARACTERS),
    }


def _rejected(entry: Document) -> Rejected:
    return Rejected(str(entry.get("option", "")), _reason(entry), str(entry.get("why", "")))


def _reason(entry: Document) -> Reason:
    text = str(entry.get("reason", ""))
    try:
        return Reason(text)
    except ValueError:
        return cast(Reason, text)  # another version's: it is only printed


def _number(entry: Document, name: str) -> float:
    found = entry.get(name)
    return found if isinstance(found, int | float) else 0.0


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[: characters - 3]}..."
