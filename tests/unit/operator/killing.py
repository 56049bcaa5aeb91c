"""Ports that kill the operator before or after one of its side effects: what was begun stands, no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hotkey_operator.ports import Ports

EFFECTS = {
    "tables": {"write": "object", "delete": "object deleted"},
    "topics": {"create": "topic"},
    "distribution": {"publish": "published"},
}


class KilledError(BaseException):
    """The operator is gone: nothing in it may catch this."""


@dataclass
class Killer:
    """Kills at the `at`-th side effect (1 is the first), before or after it is done; 0: at none."""

    at: int = 0
    before: bool = True
    done: list[str] = field(default_factory=list)

    def around(self, ports: Ports) -> Ports:
        kept: dict[str, Any] = {
            port: _Watched(getattr(ports, port), effects, self.strike) for port, effects in EFFECTS.items()
        }
        return replace(ports, **kept)

    def strike(self, effect: str, *, before: bool) -> None:
        if before:
            self.done.append(effect)
        if len(self.done) == self.at and before == self.before:
            raise KilledError(f"{'before' if before else 'after'} {effect}")


class _Watched:
    """A port whose side effects are told before and after they are done."""

    def __init__(self, port: Any, effects: dict[str, str], strike: Callable[..., None]) -> None:
        self._port = port
        self._effects = effects
        self._strike = strike

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if name not in self._effects:
            return found

        async def call(*values: Any, **named: Any) -> Any:
            self._strike(self._effects[name], before=True)
            given = await found(*values, **named)
            self._strike(self._effects[name], before=False)
            return given

        return call
