"""Who reports is found by a walk through names that is bounded, whatever stands there."""

from __future__ import annotations

import asyncio

from hotkey_operator.adapters.reporters import REPORTERS_AT_MOST, Reporters
from hotkey_sdk.routing.names import key_reports_key, reporter, reports_key, table_key
from hotkey_sdk.routing.table import Stream

CLICKS, VIEWS = Stream("cluster-1", "clicks"), Stream("cluster-1", "views")


class Names:
    """Redis' names of keys, of which a step passes one; and a clock."""

    def __init__(self, *keys: str) -> None:
        self.keys = list(keys)
        self.steps = 0
        self.now = 0.0
        self.reporters = Reporters(self.step, look_seconds=2.0, clock=lambda: self.now)

    async def step(self, cursor: str, _keys: int, _bytes: int) -> list[bytes]:
        self.steps += 1
        at = int(cursor)
        found = [key.encode() for key in self.keys[at : at + 1]]
        return [b"%d" % (at + 1 if at + 1 < len(self.keys) else 0), *found]

    def of(self, stream: Stream, seconds: float = 2.0) -> list[str]:
        self.now += seconds
        return asyncio.run(self.reporters.of(stream))


def test_users_of_both_kinds_of_reports_are_found_and_other_streams_are_not_theirs() -> None:
    names = Names(
        table_key(CLICKS),
        reports_key(CLICKS, "checkout"),
        key_reports_key(CLICKS, "counter"),
        reports_key(VIEWS, "other"),
        reports_key(Stream("cluster-1", "nobody-asked"), "liar"),
        f"{reports_key(CLICKS, 'victim')}:reports:liar",
        "something:else",
    )

    assert (names.of(CLICKS), names.of(VIEWS)) == (["checkout", "counter"], ["other"])


def test_a_user_s_name_is_one_word_of_a_key() -> None:
    assert [reporter(each) for each in (None, "", "a:b{c}*", "é", "svc@x.y-z_1~")] == [
        "default",
        "default",
        "a%3Ab%7Bc%7D%2A",
        "%C3%A9",
        "svc@x.y-z_1~",
    ]


def test_names_are_not_walked_through_more_often_than_asked_and_never_far_at_once() -> None:
    names = Names(*(f"other-{number}" for number in range(1_000)), reports_key(CLICKS, "checkout"))

    assert names.of(CLICKS) == []
    walked = names.steps
    assert 0 < walked <= 10
    names.of(CLICKS, seconds=0.5)
    assert names.steps == walked
    for _ in range(200):
        if names.of(CLICKS):
            break
    assert names.of(CLICKS) == ["checkout"], "the walk goes on where it was"


def test_whoever_piles_up_names_hides_nobody_who_was_found() -> None:
    names = Names(reports_key(CLICKS, "checkout"))
    assert names.of(CLICKS) == ["checkout"]

    names.keys = [*(f"{reports_key(CLICKS, str(n))}:reports:liar" for n in range(500)), *names.keys]

    assert {tuple(names.of(CLICKS)) for _ in range(120)} == {("checkout",)}


def test_a_user_whose_reports_are_gone_is_forgotten_after_a_round() -> None:
    names = Names(reports_key(CLICKS, "checkout"), reports_key(CLICKS, "gone"))
    assert names.of(CLICKS) == ["checkout", "gone"]

    names.keys.pop()

    assert names.of(CLICKS) == ["checkout"]


def test_no_more_users_are_read_than_allowed() -> None:
    names = Names(*(reports_key(CLICKS, f"u{number}") for number in range(REPORTERS_AT_MOST + 50)))
    for _ in range(300):
        names.of(CLICKS)

    assert len(names.of(CLICKS)) == REPORTERS_AT_MOST
