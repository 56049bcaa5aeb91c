"""Waiting for a condition, with a deadline and with what was seen instead when it does not come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import redis
from urllib3.exceptions import HTTPError

WAIT_SECONDS = 60.0  # for what is no recovery, on a machine that is busy
RECOVERY_SECONDS = 30.0  # everything converges within so long of a recovery
REPUBLISH_SECONDS = 5.0  # a Redis that was wiped, or holds an older table, has the right one after so long
LOOK_SECONDS = 0.1
_T = TypeVar("_T")


class Recovery:
    """The time that is left to converge, from the moment of its making: that of the recovery."""

    def __init__(self, seconds: float = RECOVERY_SECONDS) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """In seconds; a condition is looked at once even when there is none."""
        return max(0.0, self._end - time.monotonic())


def eventually(what: str, look: Callable[[], _T], seconds: float = WAIT_SECONDS) -> _T:
    """What `look` gives as soon as it is true; fails with what was seen last. `look` may assert."""
    started = time.monotonic()
    while True:
        seen: object
        try:
            found = look()
            if found:
                return found
            seen = found
        except (AssertionError, OSError, HTTPError, redis.RedisError) as error:
            seen = f"{type(error).__name__}: {error}"
        took = time.monotonic() - started
        assert took < seconds, f"{what}: not within {seconds:.1f} s; seen last: {seen}"
        time.sleep(LOOK_SECONDS)
