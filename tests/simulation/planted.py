"""Bugs that a test plants in a run, to see that the run finds them."""

from __future__ import annotations

from hotkey_sdk.routing.envelope import PublicKeys
from hotkey_sdk.routing.follower import Follower, Outcome
from hotkey_sdk.routing.router import Destination, Router
from hotkey_sdk.routing.table import Stream


class ForgetfulFollower:
    """A follower that takes whatever validly signed table it is offered, older ones too."""

    def __init__(self, stream: Stream, keys: PublicKeys) -> None:
        self._stream, self._keys = stream, keys
        self.follower = Follower(stream, keys)

    def offer(self, data: bytes) -> Outcome:
        outcome = self.follower.offer(data)
        if outcome is not Outcome.OLDER:
            return outcome
        self.follower = Follower(self._stream, self._keys)
        return self.follower.offer(data)


def whatever_the_order(router: Router, key: bytes, user: str, slot: int) -> Destination | None:
    """A producer's choice that takes any slot of a route, also where the user chooses it."""
    plan = router.plans.get(key)
    return plan.at(slot) if plan is not None else None
