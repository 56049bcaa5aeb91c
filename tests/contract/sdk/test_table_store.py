"""What follows tables may rely on this, whichever store they come from."""

from __future__ import annotations

import threading
import time

import pytest

from hotkey_sdk._store import ReportRefusedError, StoreUnavailableError
from hotkey_sdk.routing.envelope import MAX_ENVELOPE_BYTES, digest
from hotkey_sdk.routing.report import KEY_REPORTS_STAND_SECONDS
from hotkey_sdk.routing.table import Stream
from tests.contract.sdk.conftest import World

CLICKS = Stream("cluster-1", "clicks")
VIEWS = Stream("cluster-1", "views")


def test_nothing_published_is_missing(world: World) -> None:
    found = world.store.read({CLICKS: "", VIEWS: ""})

    assert {stream: each.why for stream, each in found.items()} == {CLICKS: "missing", VIEWS: "missing"}


def test_what_is_published_is_found_byte_by_byte(world: World) -> None:
    world.publish(CLICKS, b"\x00\xff any bytes")

    found = world.store.read({CLICKS: "", VIEWS: ""})

    assert found[CLICKS].envelope == b"\x00\xff any bytes"
    assert found[VIEWS].envelope is None


def test_what_the_reader_holds_does_not_travel_again(world: World) -> None:
    world.publish(CLICKS, b"one")

    assert world.store.read({CLICKS: digest(b"one")})[CLICKS].why == "unchanged"
    world.publish(CLICKS, b"two")
    assert world.store.read({CLICKS: digest(b"one")})[CLICKS].envelope == b"two"


@pytest.mark.parametrize("lie", ["", "f" * 64, "short", "x" * 100_000])
def test_a_wrong_digest_only_makes_the_envelope_travel(world: World, lie: str) -> None:
    world.publish(CLICKS, b"one")
    world.lie(CLICKS, lie)

    assert world.store.read({CLICKS: digest(b"one")})[CLICKS].envelope == b"one"


def test_the_largest_envelope_is_read_and_a_larger_one_is_not(world: World) -> None:
    world.publish(CLICKS, b"x" * MAX_ENVELOPE_BYTES)
    world.publish(VIEWS, b"x" * 10_000_000)

    found = world.store.read({CLICKS: "", VIEWS: ""})

    assert found[CLICKS].envelope == b"x" * MAX_ENVELOPE_BYTES
    assert (found[VIEWS].envelope, found[VIEWS].why) == (None, "too big")


def test_a_wrong_type_hides_no_other_stream(world: World) -> None:
    world.publish(VIEWS, b"good")
    world.spoil(CLICKS)

    found = world.store.read({CLICKS: "", VIEWS: ""})

    assert (found[CLICKS].envelope, found[CLICKS].why) == (None, "wrong type")
    assert found[VIEWS].envelope == b"good"


def wait_for_hint(world: World, seconds: float) -> bool:
    """Slice after slice, as the source does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if world.store.wait_for_hint([CLICKS, VIEWS], 0.1):
            return True
    return False


def test_a_hint_ends_the_wait(world: World) -> None:
    assert not wait_for_hint(world, 0.2), "the first wait subscribes"
    publisher = threading.Timer(0.1, world.publish, (VIEWS, b"new"))
    publisher.start()

    assert wait_for_hint(world, 10.0)
    publisher.join()


def test_hints_that_came_together_end_one_wait(world: World) -> None:
    """Two at the most: the last may still be under way when the first ends its wait."""
    assert not wait_for_hint(world, 0.2), "the first wait subscribes"
    for number in range(20):
        world.publish(CLICKS, b"%d" % number)

    waits = 0
    while wait_for_hint(world, 0.5):
        waits += 1

    assert 1 <= waits <= 2


def test_without_a_hint_the_wait_ends_in_time(world: World) -> None:
    assert not wait_for_hint(world, 0.3)


def test_reports_are_written_and_withdrawn_by_client(world: World) -> None:
    world.store.report({CLICKS: b"a1", VIEWS: b"a2"}, "a")
    world.store.report({CLICKS: b"b"}, "b")
    world.store.report({CLICKS: b"a3"}, "a")

    assert world.reports(CLICKS) == {"a": b"a3", "b": b"b"}
    assert world.reports(VIEWS) == {"a": b"a2"}
    world.store.withdraw([CLICKS, VIEWS], "a")
    assert world.reports(CLICKS) == {"b": b"b"}
    assert world.reports(VIEWS) == {}


def test_counts_are_written_and_withdrawn_with_the_report(world: World) -> None:
    world.store.report({CLICKS: b"a"}, "a")
    world.store.report_keys({CLICKS: b"a1", VIEWS: b"a2"}, "a")
    world.store.report_keys({CLICKS: b"b"}, "b")
    world.store.report_keys({CLICKS: b"a3"}, "a")

    assert world.key_reports(CLICKS) == {"a": b"a3", "b": b"b"}
    assert world.reports(CLICKS) == {"a": b"a"}
    world.store.withdraw([CLICKS, VIEWS], "a")
    assert world.key_reports(CLICKS) == {"b": b"b"}
    assert world.key_reports(VIEWS) == {}
    assert world.reports(CLICKS) == {}


def test_counts_go_some_time_after_the_last_producer_wrote_its_own(world: World) -> None:
    world.store.report_keys({CLICKS: b"a1", VIEWS: b"a2"}, "a")
    for stream in (CLICKS, VIEWS):
        assert 0 < world.key_reports_stand(stream) <= KEY_REPORTS_STAND_SECONDS
        world.shorten(stream, 20.0)
    world.store.report_keys({CLICKS: b"b"}, "b")

    assert world.key_reports_stand(CLICKS) > 20.0, "each that writes puts it off"
    assert world.key_reports_stand(VIEWS) <= 20.0


def test_a_report_that_is_not_taken_is_told(world: World) -> None:
    world.publish(CLICKS, b"one")
    world.refuse_reports(CLICKS)

    with pytest.raises(ReportRefusedError):
        world.store.report({CLICKS: b"x"}, "a")
    with pytest.raises(ReportRefusedError):
        world.store.report_keys({CLICKS: b"x"}, "a")
    world.store.withdraw([CLICKS], "a")
    assert world.store.read({CLICKS: ""})[CLICKS].envelope == b"one"


def test_a_store_that_is_down_says_so_and_works_again_when_it_is_back(world: World) -> None:
    world.store.read({CLICKS: ""})
    world.go_down()

    for call in (
        lambda: world.store.read({CLICKS: ""}),
        lambda: world.store.wait_for_hint([CLICKS], 0.1),
        lambda: world.store.report({CLICKS: b"x"}, "a"),
        lambda: world.store.report_keys({CLICKS: b"x"}, "a"),
        lambda: world.store.withdraw([CLICKS], "a"),
    ):
        with pytest.raises(StoreUnavailableError):
            call()
    world.come_back()
    world.publish(CLICKS, b"after")

    assert world.store.read({CLICKS: ""})[CLICKS].envelope == b"after"
    assert not wait_for_hint(world, 0.2), "the first wait subscribes anew"
    world.publish(CLICKS, b"later")
    assert wait_for_hint(world, 10.0)
