"""One key for people: where it is, what was decided and why, what it costs and what was rejected. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from hotkey_operator.engine import wording
from hotkey_operator.engine.wording import count, evidence, name, order, price, spread
from hotkey_operator.plugin.columns import NONE, age, fields, percent, table
from hotkey_operator.plugin.destination import pieces
from hotkey_operator.plugin.policies import Found, Object, Policy
from hotkey_sdk.routing.table import DedicatedTopic, Phase

NO_FIGURES = "no figures yet"
_EVENTS = 8
_COLUMNS = ("AGE", "TYPE", "REASON", "MESSAGE")


def explanation(found: Found, events: Sequence[Object], now: datetime) -> list[str]:
    """Everything known of one key of one policy."""
    lines = fields(_facts(found, now))
    lines += _rejected(found)
    lines += _shards(found)
    lines += _conditions(found.policy, now)
    return lines + _events(events, found.text, now)


def value(found: Found) -> dict[str, object]:
    """The same for programs: the entry of status as it stands there, with the policy and the route."""
    policy = found.policy
    whose = {"namespace": policy.namespace, "policy": policy.name, "topic": policy.topic}
    route = found.route
    shards = [
        {"recordKey": piece.record_key, "partition": piece.partition, "part": round(piece.part, 4)}
        for piece in (pieces(route) if route is not None else ())
    ]
    own = [
        {"name": topic.name, "phase": str(topic.phase), "partitions": topic.partitions}
        for topic in own_topics(found)
    ]
    return {**whose, "key": found.text, **found.entry, "route": shards, "ownTopics": own}


def remembered(read: Sequence[Policy], events: Iterable[Object], text: str, now: datetime) -> list[str]:
    """What the latest Events on these policies say of a key that nothing else tells of; empty: nothing."""
    whose = {(each.namespace, each.name) for each in read}
    about = [each for each in _naming_it(events, text) if _policy_of(each) in whose]
    rows = [("/".join(_policy_of(each)), *_row(each, now)) for each in about]
    return table(("POLICY", *_COLUMNS), rows) if rows else []


def _facts(found: Found, now: datetime) -> list[tuple[str, str]]:
    policy, verdict, known = found.policy, found.verdict, bool(found.entry)
    facts = [
        ("Key", found.text or name(b"")),
        ("Policy", f"{policy.namespace}/{policy.name}"),
        ("Topic", policy.topic),
        ("Table", _table(policy)),
    ]
    if known:
        rate = f"{verdict.records_per_second:,.0f} records/s"
        share = f"{wording.percent(verdict.share)} +- {wording.percent(verdict.share_error)} of the topic"
        facts.append(("Carries", f"{rate}, {share}" if policy.is_measured else NO_FIGURES))
    facts.append(("Now", _routed(found) if found.route is not None else _unrouted(found)))
    facts += [("Own topic", _own(topic)) for topic in own_topics(found)]
    if known:
        facts += [("Decision", str(verdict.reason)), ("Why", verdict.message)]
        facts.append(("Since", _since(found.entry, now)))
        facts.append(("Evidence", evidence(verdict.basis) if verdict.basis else NONE))
        facts.append(("Cost", price(verdict.cost) if verdict.cost else NONE))
    else:
        facts.append(("Decision", "status tells nothing of it yet: only the routing table knows it"))
    return facts


def _table(policy: Policy) -> str:
    if policy.table is None:
        return policy.unreadable or NONE
    applied = f"applied by {policy.status.get('producers', '0/0')} producers"
    return f"epoch {policy.table.epoch}, {policy.table.partitions} partitions, {applied}"


def _routed(found: Found) -> str:
    """How the route spreads the key, and in which topic where that is its own."""
    route, held = found.route, found.policy.table
    assert route is not None
    if held is None or route.topic == held.stream.topic:
        return spread(route)
    kept = order(route.by) if len(route.shards) > 1 else "order per key is kept"
    return f"in a topic of its own, over {count(len(route.shards), 'shard')}; {kept}"


def own_topics(found: Found) -> list[DedicatedTopic]:
    """The dedicated topics that the key has, waits for or leaves."""
    key, held = found.text.encode("utf-8", "surrogatepass"), found.policy.table
    topics = held.topics if held is not None else ()
    return [topic for topic in topics if topic.key == key and topic.phase is not Phase.IDLE]


def _own(topic: DedicatedTopic) -> str:
    return f"{topic.name}, {topic.phase}, {count(topic.partitions, 'partition')}"


def _unrouted(found: Found) -> str:
    """Where a key is that no readable table routes: by status, if that says more."""
    shards, by = found.verdict.shards, found.verdict.by
    if shards:
        return f"spread over {count(shards, 'shard')} by status, the table is not seen; {order(by)}"
    return "a plain key" if found.policy.unreadable is None else "not known: its table cannot be read"


def _since(entry: Object, now: datetime) -> str:
    since = entry.get("since")
    return f"{since} ({age(since, now)})" if since else "<unknown>"


def _rejected(found: Found) -> list[str]:
    rejected = found.verdict.rejected
    if not rejected:
        return ["Rejected:  " + NONE]
    rows = [(each.option, str(each.reason), each.why) for each in rejected]
    return ["Rejected:", *table(("OPTION", "REASON", "WHY"), rows, "  ")]


def _shards(found: Found) -> list[str]:
    if found.route is None:
        return []
    rows = [(each.record_key, str(each.partition), percent(each.part)) for each in pieces(found.route)]
    return ["Shards:", *table(("RECORD KEY", "PARTITION", "SLOTS"), rows, "  ")]


def _conditions(policy: Policy, now: datetime) -> list[str]:
    rows = [
        (
            str(each.get("type", "")),
            str(each.get("status", "")),
            str(each.get("reason", "")),
            age(each.get("lastTransitionTime"), now),
            str(each.get("message", "")),
        )
        for each in policy.conditions
    ]
    if not rows:
        return ["Conditions:  " + NONE]
    return ["Conditions:", *table(("TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"), rows, "  ")]


def _events(events: Iterable[Object], text: str, now: datetime) -> list[str]:
    rows = [_row(each, now) for each in _naming_it(events, text)]
    return ["Events:", *table(_COLUMNS, rows, "  ")] if rows else ["Events:  " + NONE]


def _naming_it(events: Iterable[Object], text: str) -> list[Object]:
    """The latest Events that name the key, the newest last."""
    naming = _naming(name(text.encode("utf-8", "surrogatepass")))
    about = [each for each in events if naming.search(str(each.get("message", "")))]
    about.sort(key=lambda each: (_when(each), str(each.get("reason", "")), str(each.get("message", ""))))
    return about[-_EVENTS:]


def _row(event: Object, now: datetime) -> tuple[str, ...]:
    told = (str(event.get(field, "")) for field in ("type", "reason", "message"))
    return age(_when(event), now), *told


def _policy_of(event: Object) -> tuple[str, str]:
    about = event.get("involvedObject") or {}
    return str(about.get("namespace", "")), str(about.get("name", ""))


def _when(event: Object) -> str:
    metadata = event.get("metadata")
    created = metadata.get("creationTimestamp") if isinstance(metadata, Mapping) else None
    return str(event.get("lastTimestamp") or event.get("eventTime") or created or "")


def _naming(shown: str) -> re.Pattern[str]:
    """What finds a key in a sentence, and not one that only begins or ends like it."""
    return re.compile(rf"(?:^|[\s(]){re.escape(shown)}(?=$|[\s,;)]|[.:](?:\s|$))")
