"""How far the registered consumer groups are: asked every few seconds, and never in the way of a turn.

What cannot be learned is left out: without it nothing is hot by lag, and all else is decided as ever.
"""

from __future__ import annotations

from collections.abc import Sequence

from hotkey_operator.engine.attention import WINDOWS_AT_MOST
from hotkey_operator.engine.backlog import lagging
from hotkey_operator.engine.lag import registered
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import Committed, Progress, TopicFacts
from hotkey_operator.engine.spec import PolicySpec
from hotkey_operator.ports import Groups, Ports, Unavailable
from hotkey_sdk.routing.report import ClientReport


async def read_progress(
    ports: Ports,
    spec: PolicySpec,
    memory: Memory,
    topic: TopicFacts | None,
    reports: Sequence[ClientReport],
    now: float,
) -> Progress | None:
    """What the groups committed by `now` (unix seconds); None where it is not the time to ask, or nobody is.

    The first offsets that the log holds are asked only of partitions over the trigger: they are to be sampled
    from there.
    """
    if ports.groups is None or topic is None or not memory.lags.is_due(now):
        return None
    names = registered(spec, reports, now)
    if not names:
        return None
    try:
        groups = await ports.groups.committed(spec.topic, topic.partitions, names)
    except Unavailable as error:
        return Progress(tuple(Committed(name, {}, str(error)) for name in names))
    return Progress(groups, await _starts(ports.groups, spec, memory, groups))


async def _starts(
    asked: Groups, spec: PolicySpec, memory: Memory, groups: Sequence[Committed]
) -> dict[int, int]:
    seconds = spec.trigger.lag_seconds
    partitions = lagging(groups, memory.history, seconds, WINDOWS_AT_MOST) if seconds is not None else ()
    try:
        return await asked.starts(spec.topic, partitions) if partitions else {}
    except Unavailable:
        return {}
