"""What people read: numbers and sentences of verdicts and decisions, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hotkey_operator.engine.model import Basis, Cost, KeyVerdict, Read, Rejected
from hotkey_sdk.routing.table import Dimension, Route

if TYPE_CHECKING:
    from hotkey_operator.engine.lag import Slow
    from hotkey_operator.engine.memory import Memory
    from hotkey_operator.engine.situation import Situation

KEY_CHARACTERS = 64
WHY_CHARACTERS = 300  # of what another system said


def name(key: bytes) -> str:
    """A key as text: what is not UTF-8 escaped, cut where it is long."""
    text = key.decode("utf-8", "backslashreplace").replace("\n", "\\n") or "(empty)"
    return text if len(text) <= KEY_CHARACTERS else f"{text[: KEY_CHARACTERS - 1]}…"


def names(keys: list[bytes]) -> str:
    """`a, b and 3 more`."""
    shown = [name(key) for key in keys[:3]]
    return ", ".join(shown) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def value_name(values: Sequence[str]) -> str:
    """`u0/no`, the values of a rung; cut where they are long."""
    text = "/".join(values).replace("\n", "\\n")
    shown = text if len(text) <= KEY_CHARACTERS else f"{text[: KEY_CHARACTERS - 1]}…"
    return shown if any(values) else "the missing value"


def count(number: int, thing: str, things: str | None = None) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {things or thing + 's'}"


def percent(part: float) -> str:
    return f"{100 * part:.0f} %" if part >= 0.095 else f"{100 * part:.1f} %"


def heat(s: Situation, partition: int) -> str:
    """`partition 3 takes 4,012 records/s of 1,000 allowed, 9.6 times the mean`."""
    if s.now is None:
        return f"partition {partition} is not measured yet"
    trigger = s.spec.trigger
    rate, mean = s.now.records[partition], s.now.mean_records
    much = f"{rate:,.0f} records/s" + _allowed(trigger.records_per_second)
    if s.by_bytes and s.now.bytes:
        limit = trigger.bytes_per_second
        megabytes = limit / 1e6 if limit is not None else None
        much += f" ({s.now.bytes[partition] / 1e6:,.2f} MB/s{_allowed(megabytes)})"
    if mean > 0:
        much += f", {rate / mean:.1f} times the mean"
        much += f" ({trigger.skew.ratio:g} allowed)" if trigger.skew else ""
    lagging = s.memory.lagging(s.at).get(partition)
    if lagging:
        much += f"; group {lagging.group} is {lagging.seconds:,.0f} s behind on it"
        much += f" ({trigger.lag_seconds:g} s allowed)" if trigger.lag_seconds is not None else ""
    return f"partition {partition} takes {much}"


def _allowed(limit: float | None) -> str:
    """` of 1,000 allowed`; nothing where the trigger does not look at it."""
    return "" if limit is None else f" of {f'{limit:,.6f}'.rstrip('0').rstrip('.')} allowed"


def behind(s: Situation, slow: Slow) -> str:
    """`group billing is 31 s behind on partition 3 and ...`, of a group that no key is to blame for."""
    records = count(slow.records, "record")
    late = f"group {slow.group} is {slow.seconds:,.0f} s behind"
    if slow.alike and s.topic.partitions > 1:
        return f"{late} ({records} on partition {slow.partition}) and no less elsewhere: no key is to blame"
    what = "commits nothing there" if slow.still else "does not catch up"
    return (
        f"{late} ({records}) on partition {slow.partition} and {what}; {heat(s, slow.partition)}: "
        "moving a key would not help"
    )


def unread(memory: Memory, what: Read) -> str | None:
    """Why this could not be read of late, in the words of whom was asked; None where it could."""
    why = memory.amiss[what][1].replace("\n", " ") if what in memory.amiss else None
    return why if why is None or len(why) <= WHY_CHARACTERS else f"{why[: WHY_CHARACTERS - 1]}…"


def amiss(memory: Memory) -> str:
    """`; not read: samples (Kafka: ...)`, of all that could not be read of late."""
    found = [f"{what} ({why})" for what in Read if (why := unread(memory, what)) is not None]
    return f"; not read: {', '.join(found)}" if found else ""


def part_of(s: Situation, key: bytes, partition: int) -> str:
    """`key nike is 96 % +- 1 % of it`; of partition `partition`, as sampled."""
    evidence = s.memory.evidence.get(partition)
    seen = evidence.keys.get(key) if evidence else None
    if seen is None:
        return f"key {name(key)} is part of it"
    found = seen.bytes if s.by_bytes else seen.records
    return f"key {name(key)} is {percent(found.value)} +- {percent(found.bound)} of it"


def looked_for(dimensions: Sequence[Dimension], rung: Sequence[str]) -> str:
    """`user_id: looked for at $.user_id of the JSON payload`, for each dimension of a rung."""
    declared = {each.name: each for each in dimensions}
    return "; ".join(f"{one}: {_place(declared[one])}" for one in rung if one in declared)


def _place(dimension: Dimension) -> str:
    if dimension.json_path is not None:
        return f"looked for at {dimension.json_path} of the JSON payload"
    if dimension.header is not None:
        return f"looked for in the header {dimension.header}"
    if dimension.time_bucket_seconds is not None:
        return "from the record's time"
    return "the policy names no place of it"


def evidence(basis: Basis) -> str:
    """`partition 3 took 412 records/s, 96 % +- 1 % of it this key's: 400 records in 20 batches, 2 s old`."""
    part = f"{percent(basis.partition_share)} +- {percent(basis.partition_share_error)} of it this key's"
    rate = f"partition {basis.partition} took {basis.partition_records_per_second:,.0f} records/s"
    return f"{rate}, {part}: {sample(basis)}"


def sample(basis: Basis) -> str:
    """`400 records in 20 batches, 2 s old`."""
    places = f"{count(basis.records, 'record')} in {count(basis.batches, 'batch', 'batches')}"
    return f"{places}, {basis.age_seconds:.0f} s old"


def price(cost: Cost) -> str:
    """`order per key is given up; 10 partitions; 92 % of its slots moved`."""
    return f"{cost.order}; {count(cost.partitions, 'partition')}; {moved(cost)}"


def moved(cost: Cost) -> str:
    return f"{percent(cost.slots_moved)} of its slots moved" if cost.slots_moved > 0 else "no slot moved"


def rejections(rejected: Sequence[Rejected]) -> str:
    """`rejected: leave it plain (why), spread by user_id (why)`."""
    return "rejected: " + ", ".join(f"{each.option} ({each.why})" for each in rejected)


def grounds(verdict: KeyVerdict) -> str:
    """What a verdict on a change rests on, takes and rejected beyond what its message says already."""
    parts = [f"sampled: {sample(verdict.basis)}"] if verdict.basis else []
    parts += [moved(verdict.cost)] if verdict.cost else []
    parts += [rejections(verdict.rejected)] if verdict.rejected else []
    return "; ".join(parts)


def spread(route: Route) -> str:
    """`spread over 10 shards on 10 partitions; order per key is given up`."""
    partitions = {shard.partition for shard in route.shards}
    over = f"{count(len(route.shards), 'shard')} on {count(len(partitions), 'partition')}"
    if len(route.shards) == 1 and not route.by:
        return f"moved to partition {route.shards[0].partition}; order per key is kept"
    return f"spread over {over}; {order(route.by)}"


def order(by: Sequence[str]) -> str:
    """What a rung leaves of the order of a key."""
    return f"order is kept per {' and '.join(by)}" if by else "order per key is given up"
