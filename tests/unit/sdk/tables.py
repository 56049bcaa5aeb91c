"""Tables to test with: a plain one, and a hypothesis strategy for all that is valid."""

from __future__ import annotations

from hypothesis import strategies as st

from hotkey_sdk.routing.codec import MAX_INTEGER, MAX_SHARD_ID
from hotkey_sdk.routing.table import (
    DedicatedTopic,
    Dimension,
    Phase,
    RecordKey,
    Route,
    Shard,
    Stream,
    Table,
)

STREAM = Stream("cluster-1", "clicks")


def route(
    key: bytes = b"nike",
    *,
    by: tuple[str, ...] = ("user_id",),
    shards: int = 4,
    slots: int = 16,
    topic: str = STREAM.topic,
    record_key: RecordKey = RecordKey.COMPOSITE,
) -> Route:
    """A route whose shard i has the id 10 + i and stands on partition i."""
    return Route(
        key=key,
        topic=topic,
        by=by,
        record_key=record_key,
        shards=tuple(Shard(10 + index, index) for index in range(shards)),
        slots=tuple(index % shards for index in range(slots)),
    )


def dedicated(name: str, *, phase: Phase = Phase.ACTIVE, partitions: int = 12) -> DedicatedTopic:
    """A dedicated topic that the brokers know, of the key `nike`."""
    return DedicatedTopic(name, partitions, phase, topic_id=f"id-of-{name}", key=b"nike")


def table(*routes: Route, epoch: int = 7, partitions: int = 12, stream: Stream = STREAM) -> Table:
    """A table with the dimensions user_id, country_id (a header) and hour.

    Other topics of the routes are dedicated ones with as many partitions as the base topic.
    """
    read_set = tuple(dict.fromkeys((stream.topic, *(each.topic for each in routes))))
    return Table(
        stream=stream,
        partitions=partitions,
        epoch=epoch,
        seed=42,
        read_set=read_set,
        dimensions=(
            Dimension("user_id", json_path="$.user_id"),
            Dimension("country_id", header="x-country"),
            Dimension("hour", time_bucket_seconds=3600),
        ),
        routes=routes,
        topics=tuple(dedicated(name, partitions=partitions) for name in read_set[1:]),
    )


_names = st.text("abcdefgh._-0123456789", min_size=1, max_size=20)
_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@st.composite
def _dimensions(draw: st.DrawFn) -> tuple[Dimension, ...]:
    names = draw(st.lists(_text, max_size=4, unique=True))
    buckets = st.none() | st.integers(1, 1440).map(lambda minutes: minutes * 60)
    return tuple(
        Dimension(name, draw(st.none() | _text), draw(st.none() | _text), draw(buckets)) for name in names
    )


@st.composite
def _dedicated(draw: st.DrawFn, name: str) -> DedicatedTopic:
    return DedicatedTopic(
        name,
        draw(st.integers(1, 1000)),
        draw(st.sampled_from(Phase)),
        draw(st.just("") | st.text("abcXYZ019-_", min_size=22, max_size=22)),
        draw(st.none() | st.binary(max_size=30)),
    )


@st.composite
def _routes(draw: st.DrawFn, topics: dict[str, int], names: list[str]) -> tuple[Route, ...]:
    routes = []
    for key in draw(st.lists(st.binary(max_size=30), max_size=4, unique=True)):
        topic = draw(st.sampled_from(list(topics)))
        size = draw(st.sampled_from([1, 2, 3, 255, 256, 257, 300]))
        last = topics[topic] - 1
        ids = range(draw(st.integers(0, MAX_SHARD_ID - size)), MAX_SHARD_ID)
        place = draw(st.integers(0, last))
        slots = 2 ** draw(st.integers(0, 9))
        routes.append(
            Route(
                key=key,
                topic=topic,
                by=tuple(draw(st.permutations(names)))[: draw(st.integers(0, len(names)))],
                record_key=draw(st.sampled_from(RecordKey)),
                shards=tuple(Shard(ids[index], (place + index) % (last + 1)) for index in range(size)),
                slots=tuple((place + index) % size for index in range(slots)),
            )
        )
    return tuple(routes)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Any valid table, small enough to be quick."""
    topics = draw(st.lists(_names, min_size=1, max_size=4, unique=True))
    dedicated = tuple(draw(_dedicated(name)) for name in topics[1:])
    dimensions = draw(_dimensions())
    partitions = draw(st.integers(1, 1000))
    writable = {topics[0]: partitions} | {
        topic.name: topic.partitions for topic in dedicated if topic.phase is Phase.ACTIVE
    }
    return Table(
        stream=Stream(draw(_text), topics[0]),
        partitions=partitions,
        epoch=draw(st.integers(0, MAX_INTEGER)),
        seed=draw(st.integers(0, MAX_INTEGER)),
        read_set=tuple(topics),
        dimensions=dimensions,
        routes=draw(_routes(writable, [each.name for each in dimensions])),
        topics=dedicated,
    )
