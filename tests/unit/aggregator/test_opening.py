"""The store before it is open: waited for while it is away, never when it refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from hotkey_aggregator.opening import Opening
from hotkey_aggregator.outage import Outages
from hotkey_aggregator.store import Store, StoreError, StoreUnavailableError
from tests.contract.aggregator.model_store import ModelStore

AWAY = StoreUnavailableError("the database is away")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hotkey_aggregator.opening.pause_seconds", lambda *_: 0.0)


def opens_after(*errors: Exception) -> Callable[[], Store]:
    left = list(errors)

    def open_store() -> Store:
        if left:
            raise left.pop(0)
        return ModelStore()

    return open_store


def test_a_store_that_is_away_is_tried_until_it_opens_and_readers_hear_why_meanwhile() -> None:
    outages, turns = Outages(), list[int]()
    opening = Opening(opens_after(AWAY, AWAY, AWAY), outages)

    # when it does not answer
    assert opening.try_once() is None
    assert outages.current is not None
    with pytest.raises(StoreUnavailableError, match="not open yet: the database is away"):
        opening.store()

    # then it is waited for
    store = opening.wait(threading.Event(), lambda: turns.append(1))
    assert store is not None
    assert opening.store() is store
    assert len(turns) == 3
    assert not outages.current


def test_a_store_that_refuses_is_not_tried_again() -> None:
    opening = Opening(opens_after(AWAY, StoreError("wrong password")), Outages())
    assert opening.try_once() is None
    with pytest.raises(StoreError, match="wrong password"):
        opening.wait(threading.Event(), lambda: None)


def test_a_request_to_stop_ends_the_wait() -> None:
    stop, opening = threading.Event(), Opening(opens_after(*[AWAY] * 100), Outages())
    assert opening.wait(stop, stop.set) is None
    opening.close()
