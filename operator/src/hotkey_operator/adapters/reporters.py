"""Which users of Redis report on which stream, from Redis' own list of keys.

There is no index that clients would write: whoever may add to one can bury the others in it. Instead the
names of all keys are walked through, a bounded part at a time. Whatever a user piles up under names of its
own makes that slower, and hides nobody who was found once.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

from hotkey_sdk.routing.names import KEY_REPORTS, REPORTS
from hotkey_sdk.routing.table import Stream

REPORTERS_AT_MOST = 1_000  # of one stream
LOOK_SECONDS = 2.0
_STEPS_AT_MOST = 10  # in one look
_KEYS_A_STEP = 1_000
_NAME_BYTES_AT_MOST = 1_024

# -> the next cursor, and the keys of reports among those passed. No KEYS: it reads names alone.
# ARGV: cursor, keys to pass, the longest name.
STEP = f"""
local passed = redis.call('SCAN', ARGV[1], 'MATCH', 'hotkey:{{*}}:*:*', 'COUNT', ARGV[2])
local found = {{passed[1]}}
for _, key in ipairs(passed[2]) do
  if #key <= tonumber(ARGV[3]) and (string.find(key, '^hotkey:{{[^:]*}}:{REPORTS}:[^:]+$')
     or string.find(key, '^hotkey:{{[^:]*}}:{KEY_REPORTS}:[^:]+$')) then
    found[#found + 1] = key
  end
end
return found
"""
_KEY = re.compile(rf"hotkey:\{{([^:]*)\}}:(?:{REPORTS}|{KEY_REPORTS}):([^:]+)")


class Reporters:
    """Those of the streams that were asked for. `step` runs STEP with its arguments."""

    def __init__(
        self,
        step: Callable[..., Awaitable[list[Any]]],
        *,
        look_seconds: float = LOOK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._step = step
        self._look_seconds = look_seconds
        self._clock = clock
        self._cursor = "0"
        self._looked_at = float("-inf")
        self._known: dict[str, set[str]] = {}  # by stream, of the last round
        self._found: dict[str, set[str]] = {}  # of this one

    async def of(self, stream: Stream) -> list[str]:
        """Names of its reporters, as they stand in keys; a new one shows a little later."""
        name = str(stream)
        if name not in self._known:
            self._known[name] = set()
            self._cursor, self._looked_at = "0", float("-inf")
        if self._clock() - self._looked_at >= self._look_seconds:
            await self._look()
            self._looked_at = self._clock()
        both = self._known[name] | self._found.get(name, set())
        return sorted(both)[:REPORTERS_AT_MOST]

    async def _look(self) -> None:
        for _ in range(_STEPS_AT_MOST):
            self._cursor, *keys = [
                _text(each) for each in await self._step(self._cursor, _KEYS_A_STEP, _NAME_BYTES_AT_MOST)
            ]
            for key in keys:
                self._note(key)
            if self._cursor == "0":
                self._known = {name: self._found.get(name, set()) for name in self._known}
                self._found = {}
                return

    def _note(self, key: str) -> None:
        found = _KEY.fullmatch(key)
        if found is not None and found[1] in self._known:
            names = self._found.setdefault(found[1], set())
            if len(names) < REPORTERS_AT_MOST:
                names.add(found[2])


def _text(data: bytes | str) -> str:
    return data.decode("utf-8", "replace") if isinstance(data, bytes) else data
