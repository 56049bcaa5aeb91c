"""The names under which a stream's table, its hints and its clients' reports stand in Redis.

Each stream's names share one hash tag, so that a script may touch them together on a Redis Cluster.
"""

from __future__ import annotations

from urllib.parse import quote

from hotkey_sdk.routing.table import Stream

TABLE_EPOCH = "epoch"  # fields of the hash at table_key(): decimal text,
TABLE_DIGEST = "digest"  # SHA-256 of the envelope in hex,
TABLE_ENVELOPE = "envelope"  # and the signed envelope's exact bytes

REPORTS, KEY_REPORTS = "reports", "keys"  # what the keys of reports are called, before the reporter's name


def table_key(stream: Stream) -> str:
    """A hash that holds the published table: fields `epoch`, `digest`, `envelope`."""
    return f"hotkey:{{{stream}}}:table"


def hint_channel(stream: Stream) -> str:
    """A pub/sub channel; each message is the decimal epoch that was just published."""
    return f"hotkey:{{{stream}}}:hint"


def reporter(user: str | None) -> str:
    """How clients that log in to Redis as `user` are named in keys; None: without a name, as `default`.

    Letters, digits and `_.-~@` stand for themselves, all else is percent-encoded UTF-8, the colon too.
    """
    return quote(user or "default", safe="@")


def reports_key(stream: Stream, reporter: str) -> str:
    """A hash from client id to that client's report (report.py), rewritten by each client.

    One for each user of Redis, since its rules tell keys apart and no fields: a user can write its own alone.
    """
    return f"hotkey:{{{stream}}}:{REPORTS}:{reporter}"


def key_reports_key(stream: Stream, reporter: str) -> str:
    """A hash from client id to what that producer counted (report.py), where it reports its keys."""
    return f"hotkey:{{{stream}}}:{KEY_REPORTS}:{reporter}"


def dedicated_name(topic: str, policy_uid: str, epoch: int) -> str:
    """The name of a dedicated topic that a policy's table of that epoch is the first to record.

    Of each epoch there is one at most, and epochs only grow, so a name is never used twice.
    """
    return f"{dedicated_prefix(topic)}{policy_uid[:8]}.g{epoch}"


def dedicated_prefix(topic: str) -> str:
    """What the names of all topics start with that were made for single keys of the base topic."""
    return f"{topic}.hot."
