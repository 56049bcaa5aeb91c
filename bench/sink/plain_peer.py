"""The least that counts clicks: a Kafka consumer, `json` and a dict, in a process of its own. It stores
nothing.

`python plain_peer.py BOOTSTRAP TOPIC GROUP COMMIT [ids]`: with a set of ids, or without. Offsets are
committed every COMMIT events so that it can be watched. At SIGTERM it prints what it counted, as JSON.
"""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

from confluent_kafka import Consumer

BATCH = 10_000
MINUTE = 60_000


def main() -> None:
    """Count until SIGTERM."""
    bootstrap, topic, group, commit, *what = sys.argv[1:]
    commit_events = int(commit)
    stopping = list[int]()
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    consumer.subscribe([topic])
    counts: dict[tuple[str, str, int], int] = {}
    ids = set[str]()
    seen = committed = 0
    while not stopping:
        messages = consumer.consume(min(BATCH, commit_events), 0.2)
        if what:
            count_once(messages, counts, ids)
        else:
            count(messages, counts)
        seen += len(messages)
        if seen - committed >= commit_events or (not messages and seen > committed):
            consumer.commit(asynchronous=True)
            committed = seen
    consumer.close()
    print(json.dumps({"clicks": sum(counts.values()), "windows": len(counts)}))


def count(messages: list[Any], counts: dict[tuple[str, str, int], int]) -> None:
    """Each message."""
    for message in messages:
        click = json.loads(message.value())
        window = click["advertiser_id"], click["ad_id"], click["click_time"] // MINUTE
        counts[window] = counts.get(window, 0) + 1


def count_once(messages: list[Any], counts: dict[tuple[str, str, int], int], ids: set[str]) -> None:
    """Each id."""
    for message in messages:
        click = json.loads(message.value())
        if click["event_id"] in ids:
            continue
        ids.add(click["event_id"])
        window = click["advertiser_id"], click["ad_id"], click["click_time"] // MINUTE
        counts[window] = counts.get(window, 0) + 1


if __name__ == "__main__":
    main()
