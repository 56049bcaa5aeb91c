"""Which topics consumers must read: whatever may hold a record of the stream, and a few that never will.

Reading is always safe. A name leaves the read set only when no topic has it and no phase is recorded of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hotkey_sdk.routing.names import dedicated_prefix
from hotkey_sdk.routing.table import DedicatedTopic, Table

_MADE = re.compile(r"[^.]{1,8}\.g[0-9]+")
READ_AT_MOST = 256  # topics: the schema of RoutingTable takes no more


def read_set(
    table: Table, topics: Sequence[DedicatedTopic], named_alike: Sequence[str], gone: set[str]
) -> tuple[str, ...]:
    """All of `topics`, all that `table` lets read, and what is only named like them, as far as that fits.

    `gone`: names that leave it, unless they are of `topics`.
    """
    base, listed = table.stream.topic, [topic.name for topic in topics]
    alike = [each for each in named_alike if is_alike(base, each)]
    names = dict.fromkeys((base, *listed, *table.read_set, *alike))
    kept = [each for each in names if each not in gone or each in listed][:READ_AT_MOST]
    before = [each for each in table.read_set if each in kept]
    return tuple(dict.fromkeys((*before, *kept)))


def gone(stored: Table, listed_alike: Sequence[str]) -> set[str]:
    """Names of the object's read set that are in no phase and, as just listed, of no topic.

    Nobody can ever write to them.
    """
    used = {topic.name for topic in stored.topics}
    before = {each for each in stored.read_set if is_alike(stored.stream.topic, each)}
    return before - used - set(listed_alike)


def is_alike(base: str, topic: str) -> bool:
    """Whether a topic is named like those that are made for single keys of the base topic."""
    return _MADE.fullmatch(topic.removeprefix(dedicated_prefix(base))) is not None and topic.startswith(
        dedicated_prefix(base)
    )
