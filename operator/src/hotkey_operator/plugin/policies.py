"""What a cluster's objects tell of keys, as values, and how a key is found in them. Pure.

A key is compared as status writes it: text as it is, other bytes escaped, cut where it is too long.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hotkey_operator.engine.model import KeyVerdict
from hotkey_operator.verdicts import key_text, verdict
from hotkey_sdk.routing.codec import from_document
from hotkey_sdk.routing.table import Route, Table, shard_key

Object = Mapping[str, Any]

_NEAR = 3


@dataclass(frozen=True, slots=True)
class Policy:
    """A HotKeyPolicy and the table under its name. `unreadable`: why there is no table, in words."""

    namespace: str
    name: str
    topic: str
    status: Object
    table: Table | None = None
    unreadable: str | None = None

    @property
    def entries(self) -> list[Object]:
        """The keys of its status, as they stand there."""
        return [each for each in self.status.get("keys") or () if isinstance(each, Mapping)]

    @property
    def conditions(self) -> list[Object]:
        return list(self.status.get("conditions") or ())

    def condition(self, kind: str) -> Object:
        return next((each for each in self.conditions if each.get("type") == kind), {})

    def entry(self, text: str) -> Object | None:
        """The entry of one key."""
        return next((each for each in self.entries if each.get("key") == text), None)

    @property
    def is_measured(self) -> bool:
        """Whether the operator knows rates; one that has just started does not yet."""
        return self.status.get("recordsPerSecond") is not None

    @property
    def routes(self) -> Sequence[Route]:
        return self.table.routes if self.table is not None else ()


@dataclass(frozen=True, slots=True)
class Found:
    """One key of one policy: what status tells of it, if it does, and its route, if it has one."""

    policy: Policy
    text: str
    entry: Object
    route: Route | None

    @property
    def verdict(self) -> KeyVerdict:
        return verdict(self.entry)


def policies(objects: Iterable[Object], tables: Iterable[Object]) -> list[Policy]:
    """The policies with their tables, by namespace and name."""
    by_name = {_name(each): each for each in tables}
    found = [_policy(each, by_name.get(_name(each))) for each in objects]
    return sorted(found, key=lambda policy: (policy.namespace, policy.name))


def _policy(item: Object, table: Object | None) -> Policy:
    namespace, name = _name(item)
    topic = str((item.get("spec") or {}).get("topic", ""))
    status = item.get("status") or {}
    if table is None:
        return Policy(namespace, name, topic, status)
    try:
        held = from_document(table.get("spec") or {})
    except ValueError as error:
        return Policy(namespace, name, topic, status, unreadable=f"RoutingTable {namespace}/{name}: {error}")
    if held.stream.topic != topic:
        why = f"RoutingTable {namespace}/{name} is of topic {held.stream.topic}"
        return Policy(namespace, name, topic, status, unreadable=why)
    return Policy(namespace, name, topic, status, held)


def _name(item: Object) -> tuple[str, str]:
    metadata = item.get("metadata") or {}
    return str(metadata.get("namespace", "")), str(metadata.get("name", ""))


def find(found: Iterable[Policy], key: bytes) -> list[Found]:
    """The policies that know the key, typed as its bytes or as status writes it."""
    written = (key_text(key), key.decode("utf-8", "backslashreplace"))
    return [one for policy in found for one in keys(policy) if one.text in written]


def keys(policy: Policy) -> list[Found]:
    """Every key that the policy's status or table knows, in the order of status."""
    routes = {key_text(route.key): route for route in policy.routes}
    told = {str(entry.get("key", "")): entry for entry in policy.entries}
    return [
        Found(policy, text, told.get(text, {}), routes.get(text))
        for text in (*told, *(text for text in sorted(routes) if text not in told))
    ]


def hottest(found: Iterable[Policy]) -> list[Found]:
    """Every key of these policies, the hottest first."""
    known = [one for policy in found for one in keys(policy)]
    return sorted(
        known,
        key=lambda one: (
            -one.verdict.records_per_second,
            one.policy.namespace,
            one.policy.name,
            one.text,
        ),
    )


def nearest(found: Iterable[Policy], key: bytes) -> list[str]:
    """Known keys that are written like this one."""
    known = sorted({one.text for policy in found for one in keys(policy)})
    return difflib.get_close_matches(key_text(key), known, _NEAR)


def whose_shard(found: Iterable[Policy], key: bytes) -> str | None:
    """The key of which this is a shard's record key, in words; None when it is none."""
    for policy in found:
        for route in policy.routes:
            for shard in route.shards:
                if shard_key(route.key, shard.id) == key:
                    return f"{key_text(key)} is shard {shard.id} of key {key_text(route.key)}"
    return None
