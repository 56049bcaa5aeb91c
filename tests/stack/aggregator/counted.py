"""What "counted once" means: ids and windows of the store are those of the topic, each id once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from devstack import Stack
from tests.stack.aggregator.clicks import ends, recount
from tests.stack.aggregator.process import AggregatorProcess, wait_until


def count_on(aggregator: AggregatorProcess, more: int = 500) -> None:
    """Wait until that many more clicks are counted than are now."""
    before = aggregator.totals()["clicks"]
    aggregator.wait_until(lambda: aggregator.totals()["clicks"] >= before + more, f"{more} more clicks")


def assert_all_counted_once(
    stack: Stack, aggregators: list[AggregatorProcess], topic: str, sent: set[str]
) -> None:
    """When all of the topic is read: ids and windows are those of the topic, each id once."""
    asked = aggregators[0]
    reached = ends(stack.kafka.bootstrap, topic)
    wait_until(
        lambda: asked.stored(topic) == reached,
        f"stored offsets {reached}",
        lambda: [asked.stored(topic), *(one.log_end() for one in aggregators)],
    )
    ids, windows = recount(stack.kafka.bootstrap, topic)
    assert ids == sent
    assert_ids(asked, sent)
    assert asked.counts() == windows


def assert_ids(aggregator: AggregatorProcess, sent: Collection[str]) -> None:
    """The store holds these ids, each once, and has counted no more."""
    assert aggregator.ids() == Counter(dict.fromkeys(sent, 1))
    assert aggregator.totals()["clicks"] == len(sent)
