"""The annotation by which a person allows topics that are in no table."""

from __future__ import annotations

import pytest

from hotkey_operator.engine.consent import ALLOW_TOPIC, allowed_topics


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("clicks.hot.a/id1", {("clicks.hot.a", "id1")}),
        (" clicks.hot.a/id1 , clicks.hot.b/id-2_", {("clicks.hot.a", "id1"), ("clicks.hot.b", "id-2_")}),
        ("clicks.hot.a", set()),
        ("clicks.hot.a/", set()),
        ("/id1", set()),
        ("", set()),
        (",,/,", set()),
    ],
)
def test_a_topic_is_allowed_by_its_name_and_id(text: str, allowed: set[tuple[str, str]]) -> None:
    assert allowed_topics({ALLOW_TOPIC: text}) == allowed


def test_without_the_annotation_nothing_is_allowed() -> None:
    assert allowed_topics({"hotkeys.dev/other": "clicks.hot.a/id1"}) == frozenset()
