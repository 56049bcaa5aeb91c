"""What a turn remembers for the next. Nothing in it is needed for safety: a restart starts timers anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hotkey_operator.engine.heavy import Evidence
from hotkey_operator.engine.model import EndOffsets
from hotkey_operator.engine.reasons import Reason
from hotkey_sdk.routing.table import Table


@dataclass(frozen=True, slots=True)
class Memory:
    """All times are unix seconds of the observation that saw it. `Memory()` is a fresh start.

    `history`: end offsets, oldest first, of one topic with one partition count. `evidence`: the last sample
    of a partition, digested. `over_since`: partitions over the trigger. `cool_since`: routed keys that could be
    merged back. `table`: the last table seen in the object; `previous`: those before it, newest last.
    `changed_at`: when a key's route was seen to change. `changes`: route changes of the last minute.
    `natural_keys`: sampled keys that could be mistaken for a shard's. `told`: when an Event was last given.
    """

    history: tuple[EndOffsets, ...] = ()
    evidence: Mapping[int, Evidence] = field(default_factory=dict)
    over_since: Mapping[int, float] = field(default_factory=dict)
    cool_since: Mapping[bytes, float] = field(default_factory=dict)
    table: Table | None = None
    previous: tuple[Table, ...] = ()
    changed_at: Mapping[bytes, float] = field(default_factory=dict)
    changes: tuple[float, ...] = ()
    natural_keys: frozenset[bytes] = frozenset()
    told: Mapping[Reason, float] = field(default_factory=dict)
