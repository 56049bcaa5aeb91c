"""The aggregator reads what the published table says, without a restart."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import redis

from devstack import Stack
from hotkey_sdk.routing import names
from hotkey_sdk.routing.codec import encode
from hotkey_sdk.routing.envelope import SigningKey, digest, seal
from hotkey_sdk.routing.table import Stream, Table
from tests.stack.aggregator.clicks import Load, ends, make_topic, recount, send_clicks
from tests.stack.aggregator.conftest import MakeAggregator, MakeTopic


def publish(
    stack: Stack, topic: str, read_set: tuple[str, ...], epoch: int, key: SigningKey, partitions: int = 3
) -> None:
    stream = Stream(stack.kafka.cluster_id, topic)
    table = Table(stream=stream, partitions=partitions, epoch=epoch, seed=1, read_set=read_set)
    envelope = seal(encode(table), key)
    client = redis.Redis.from_url(stack.redis.url)
    fields: dict[Any, Any] = {
        names.TABLE_EPOCH: str(epoch),
        names.TABLE_DIGEST: digest(envelope),
        names.TABLE_ENVELOPE: envelope,
    }
    client.hset(names.table_key(stream), mapping=fields)
    client.publish(names.hint_channel(stream), str(epoch))
    client.close()


def test_a_topic_that_a_table_adds_is_read_from_its_start_without_a_restart(
    stack: Stack, new_topic: MakeTopic, aggregator: MakeAggregator, tmp_path: Path
) -> None:
    # given an aggregator that follows the tables of a stream under load
    key, topic = SigningKey.generate(), new_topic(3)
    keys = tmp_path / "public.keys"
    keys.write_text(key.public_line)
    publish(stack, topic, (topic,), 1, key)
    following = aggregator(
        topic, redis_url=stack.redis.url_for("hotkey-consumer"), public_keys=f"file:{keys}"
    )
    with Load(stack.kafka.bootstrap, topic, partitions=3, seed=9, per_second=1000) as load:
        following.start()
        following.wait_until(lambda: following.totals()["clicks"] > 0, "it counts")
        running = following.process.pid

        # when a table adds a topic that holds clicks already, one of them counted before
        hot = f"{topic}.hot.0123abcd.g2"
        make_topic(stack.kafka.bootstrap, hot, 2)
        early = [f"hot-{number}" for number in range(200)]
        send_clicks(stack.kafka.bootstrap, hot, [*early, next(iter(load.acknowledged))], partition=1)
        publish(stack, topic, (topic, hot), 2, key)
        following.wait_until(lambda: following.stored(hot) == {1: 201}, "the added topic is read")
        send_clicks(stack.kafka.bootstrap, hot, ["late"], partition=0)
        load.stop()

    # then all of both topics is counted once
    reached = ends(stack.kafka.bootstrap, topic)
    following.wait_until(lambda: following.stored(topic) == reached, f"stored offsets {reached}")
    following.wait_until(lambda: following.stored(hot) == {0: 1, 1: 201}, "the late click is read")
    ids, windows = recount(stack.kafka.bootstrap, topic, hot)
    assert ids == {*load.acknowledged, *early, "late"}
    assert following.ids() == Counter(list(ids))
    assert following.counts() == windows
    assert following.process.pid == running

    # and the added topic is read after a restart too, though Redis has forgotten the table
    assert following.terminate() == 0
    stack.redis.wipe()
    following.start()
    send_clicks(stack.kafka.bootstrap, hot, ["after the restart"])
    following.wait_until(lambda: following.stored(hot) == {0: 2, 1: 201}, "the added topic is read again")
    assert following.totals()["clicks"] == len(ids) + 1
