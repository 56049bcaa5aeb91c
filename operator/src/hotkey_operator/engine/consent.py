"""What a person allows by an annotation on the policy, beside its spec: topics that are in no table.

It names a topic and its id, for a topic of that name that is made anew is another one.
"""

from __future__ import annotations

from collections.abc import Mapping

ALLOW_TOPIC = "hotkeys.dev/allow-topic"


def allowed_topics(annotations: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """Topics by name and id, of `NAME/ID`, several separated by commas. What is no such pair is left out."""
    pairs = [each.strip().partition("/") for each in annotations.get(ALLOW_TOPIC, "").split(",")]
    return frozenset((name, topic_id) for name, _, topic_id in pairs if name and topic_id)
