"""The same windows counted by Quix Streams, in a process of its own: bench/.venv has the package, hotkey's
has not.

`python quix_peer.py BOOTSTRAP TOPIC GROUP COMMIT OUTPUT FOLDER`. Exactly once by Kafka transactions every
COMMIT seconds: counts are in its state store (RocksDB, with a changelog topic), closed windows go to the
topic OUTPUT. Ids are not looked at.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

from quixstreams import Application
from quixstreams.dataframe.windows import Count

MINUTE = timedelta(minutes=1)


def click_time(value: Any, _headers: Any, _timestamp: float, _kind: Any) -> int:
    """The event's own time."""
    return int(value["click_time"])


def main() -> None:
    """Count until SIGTERM."""
    bootstrap, topic, group, commit, output, folder = sys.argv[1:]
    application = Application(
        broker_address=bootstrap,
        consumer_group=group,
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_interval=float(commit),
        state_dir=folder,
        loglevel="WARNING",
    )
    clicks = application.topic(topic, value_deserializer="json", timestamp_extractor=click_time)
    counts = application.topic(output, value_serializer="json")
    windows = application.dataframe(clicks).tumbling_window(MINUTE, grace_ms=MINUTE).agg(clicks=Count())
    windows.final(closing_strategy="partition").to_topic(counts)
    application.run()


if __name__ == "__main__":
    main()
