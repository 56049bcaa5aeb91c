"""When the steps of a turn were done: noted around the ports, so that neither gathering nor applying knows.

It reads no clock of its own: without one, as in the simulation, nothing is noted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any, cast

from hotkey_operator.ports import Ports

Clock = Callable[[], float]  # unix seconds


class Stage(StrEnum):
    """The steps in their order. `SENSED`: since when some partition has been over the trigger."""

    SENSED = "sensed"
    RATES_READ = "rates_read"
    SAMPLED = "sampled"
    PLANNED = "planned"
    WRITTEN = "written"
    PUBLISHED = "published"


_AFTER = {
    "end_offsets": Stage.RATES_READ,
    "some_end_offsets": Stage.RATES_READ,
    "sample": Stage.SAMPLED,
    "write": Stage.WRITTEN,
    "publish": Stage.PUBLISHED,
}


class Stages:
    """The moments of one turn, in unix seconds; a step that was not taken is not there."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock
        self._at: dict[Stage, float] = {}

    def mark(self, stage: Stage) -> None:
        """This step has just been done."""
        if self._clock is not None:
            self._at[stage] = self._clock()

    def sensed(self, since: Iterable[float]) -> None:
        """Since when partitions have been over the trigger, as this turn remembers it."""
        if (first := min(since, default=None)) is not None:
            self._at[Stage.SENSED] = first

    def around(self, ports: Ports) -> Ports:
        """The same ports, with the end of each call that is a step noted."""
        if self._clock is None:
            return ports
        return replace(
            ports,
            brokers=cast("Any", _Noted(ports.brokers, self)),
            tables=cast("Any", _Noted(ports.tables, self)),
            distribution=cast("Any", _Noted(ports.distribution, self)),
        )

    def milliseconds(self) -> Mapping[str, int]:
        """The moments in unix milliseconds, as `<stage>_ms`."""
        return {f"{stage}_ms": round(at * 1000) for stage, at in self._at.items()}


class _Noted:
    def __init__(self, port: object, stages: Stages) -> None:
        self._port, self._stages = port, stages

    def __getattr__(self, name: str) -> Any:
        call, stage = getattr(self._port, name), _AFTER.get(name)
        return call if stage is None else self._then_mark(call, stage)

    def _then_mark(self, call: Callable[..., Awaitable[Any]], stage: Stage) -> Callable[..., Awaitable[Any]]:
        async def noted(*arguments: Any, **options: Any) -> Any:
            answer = await call(*arguments, **options)
            self._stages.mark(stage)
            return answer

        return noted
