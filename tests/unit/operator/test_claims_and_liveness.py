"""Who governs a topic, and whether the loops turn."""

from __future__ import annotations

from hotkey_operator.claims import Claim, rival
from hotkey_operator.liveness import STALE_SECONDS, Heartbeats
from hotkey_operator.ports import PolicyRef

OLD = Claim("2026-01-01T00:00:00Z", "z", PolicyRef("ads", "old", "z"))
NEW = Claim("2026-01-01T00:00:01Z", "a", PolicyRef("ads", "new", "a"))
TWIN = Claim("2026-01-01T00:00:00Z", "y", PolicyRef("shop", "twin", "y"))


def test_the_older_policy_governs_whatever_its_uid() -> None:
    assert rival([NEW, OLD], NEW.uid) == "ads/old"
    assert rival([NEW, OLD], OLD.uid) is None


def test_of_two_policies_of_one_second_the_lower_uid_governs_in_any_namespace() -> None:
    assert rival([OLD, TWIN], OLD.uid) == "shop/twin"
    assert rival([TWIN, OLD], TWIN.uid) is None


def test_a_policy_alone_has_no_rival() -> None:
    assert rival([OLD], OLD.uid) is None
    assert rival([], OLD.uid) is None


def test_a_loop_that_turns_is_not_stale_and_one_that_stands_still_is_named() -> None:
    beats = Heartbeats()
    beats.beat(OLD.ref, 0.0)
    beats.beat(NEW.ref, STALE_SECONDS)
    assert beats.stale(STALE_SECONDS) == {}
    assert beats.stale(STALE_SECONDS + 1) == {"ads/old": 61}
    assert len(beats) == 2


def test_a_loop_that_ended_in_order_is_not_missed() -> None:
    beats = Heartbeats()
    beats.beat(OLD.ref, 0.0)
    beats.forget(OLD.ref)
    beats.forget(OLD.ref)
    assert beats.stale(10 * STALE_SECONDS) == {}
