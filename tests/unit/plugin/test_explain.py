"""`kubectl hotkeys explain`: what is printed of one key, how it is found, and where a record of it goes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from hotkey_operator.plugin.destination import DimensionError, placed
from hotkey_operator.plugin.explain import explanation, remembered, value
from hotkey_operator.plugin.policies import Found, find, nearest, policies, whose_shard
from hotkey_operator.plugin.top import key_table
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.router import Router
from hotkey_sdk.routing.table import DedicatedTopic, Phase, RecordKey
from tests.unit.plugin.objects import NIKE, NOW, event, policy, policy_object, route, table, table_object

GOLDEN = """\
Key:       nike
Policy:    ads/clicks
Topic:     clicks
Table:     epoch 1790000001, 6 partitions, applied by 4/4 producers
Carries:   4,012 records/s, 80 % +- 1.2 % of the topic
Now:       spread over 3 shards on 3 partitions; order is kept per user_id
Decision:  Holding
Why:       key nike is spread over 3 shards on 3 partitions; order is kept per user_id; still hot
Since:     2026-01-31T11:54:50Z (5m10s)
Evidence:  partition 3 took 2,006 records/s, 96 % +- 1.1 % of it this key's: 412 records in 20 batches, 2 s old
Cost:      order is kept per user_id; 3 partitions; 75 % of its slots moved
Rejected:
  OPTION                       REASON                WHY
  leave it plain               Holding               partition 1 would take 4,012 records/s
  give it a topic of its own   FieldsNotCarriedOut   not there yet
Shards:
  RECORD KEY   PARTITION   SLOTS
  nike:4       0           25.0%
  nike:7       3           50.0%
  nike:9       5           25.0%
Conditions:
  TYPE    STATUS   REASON      SINCE   MESSAGE
  Ready   True     Governing   3h      topic clicks with 6 partitions
Events:
  AGE    TYPE     REASON   MESSAGE
  5m9s   Normal   Spread   partition 3 takes 2,006 records/s; key nike is 96 % of it
"""  # noqa: E501


def found(*keys: dict[str, Any], key: bytes = b"nike", **options: Any) -> Found:
    (one,) = find([policy(*keys, **options)], key)
    return one


def test_a_routed_key_is_explained_from_evidence_to_what_was_rejected() -> None:
    events = [
        event("partition 3 takes 2,006 records/s; key nike is 96 % of it"),
        event("key nike-eu cooled and went back"),
        event("1 route planned anew", "Respread"),
    ]
    lines = explanation(found(NIKE, routes=(route(),)), events, NOW)
    assert "\n".join(lines) + "\n" == GOLDEN


def test_a_key_that_status_of_another_version_tells_of_is_explained_all_the_same() -> None:
    lines = explanation(found({"key": "nike", "reason": "FromTheFuture"}), [], NOW)
    assert "Decision:  FromTheFuture" in lines
    assert "Now:       a plain key" in lines
    assert {"Evidence:  <none>", "Cost:      <none>", "Rejected:  <none>", "Events:  <none>"} <= set(lines)


def test_a_spread_key_whose_table_may_not_be_read_is_not_taken_for_a_plain_one() -> None:
    (hidden,) = find(policies([policy_object(NIKE)], []), b"nike")
    (line,) = [line for line in explanation(hidden, [], NOW) if line.startswith("Now:")]
    assert line.endswith("spread over 3 shards by status, the table is not seen; order is kept per user_id")


def test_a_key_that_the_table_alone_knows_shows_its_shards() -> None:
    lines = explanation(found(routes=(route(),)), [], NOW)
    assert "Decision:  status tells nothing of it yet: only the routing table knows it" in lines
    assert "  nike:7       3           50.0%" in lines


def test_for_programs_the_entry_is_given_as_it_stands_in_status() -> None:
    document = value(found(NIKE, routes=(route(),)))
    assert {name: document[name] for name in NIKE} == NIKE
    assert (document["namespace"], document["policy"], document["topic"]) == ("ads", "clicks", "clicks")
    assert document["route"] == [
        {"recordKey": "nike:4", "partition": 0, "part": 0.25},
        {"recordKey": "nike:7", "partition": 3, "part": 0.5},
        {"recordKey": "nike:9", "partition": 5, "part": 0.25},
    ]


@pytest.mark.parametrize(
    ("key", "typed"),
    [
        pytest.param(b"\xff\xfe", b"\xff\xfe", id="its bytes"),
        pytest.param(b"\xff\xfe", rb"\xff\xfe", id="as status writes it"),
        pytest.param(b"x" * 10_000, b"x" * 10_000, id="whole, where status cuts it"),
        pytest.param(b"", b"", id="empty"),
        pytest.param("brûlée".encode(), "brûlée".encode(), id="beyond ASCII"),
    ],
)
def test_a_key_of_any_bytes_is_found(key: bytes, typed: bytes) -> None:
    known = policy(routes=(route(key),))
    (one,) = find([known], typed)
    assert one.route is not None
    assert one.route.key == key


def test_a_key_that_would_steer_the_terminal_is_printed_escaped() -> None:
    lines = explanation(found({**NIKE, "key": "\x1b[31mred"}, key=b"\x1b[31mred"), [], NOW)
    assert lines[0] == r"Key:       \x1b[31mred"


def test_a_key_of_two_policies_is_found_in_both() -> None:
    two = policies([policy_object(NIKE), policy_object(NIKE, name="views")], [])
    assert [one.policy.name for one in find(two, b"nike")] == ["clicks", "views"]


def test_an_unknown_key_has_its_like_named() -> None:
    known = [policy(NIKE, {**NIKE, "key": "adidas"})]
    assert find(known, b"nikee") == []
    assert nearest(known, b"nikee") == ["nike"]


def test_the_latest_events_tell_of_a_key_that_was_just_taken_back() -> None:
    back = event("nike cooled and went back to plain keys", "MergedBack", "2026-01-31T11:59:58Z")
    whose = {"involvedObject": {"namespace": "ads", "name": "clicks"}}
    other = {"involvedObject": {"namespace": "shop", "name": "clicks"}}
    events = [back | whose, back | other, event("nike2 cooled and went back to plain keys") | whose]
    assert remembered([policy()], events, "nike", NOW) == [
        "POLICY       AGE   TYPE     REASON       MESSAGE",
        "ads/clicks   2s    Normal   MergedBack   nike cooled and went back to plain keys",
    ]
    assert remembered([policy()], events, "puma", NOW) == []


def test_a_shards_record_key_is_told_to_be_one() -> None:
    assert whose_shard([policy(routes=(route(),))], b"nike:7") == "nike:7 is shard 7 of key nike"
    assert whose_shard([policy(routes=(route(),))], b"nike:8") is None


def test_a_table_of_another_topic_or_without_sense_is_said_and_not_used() -> None:
    strange = table_object(table(route()))
    strange["spec"]["slots"] = strange["spec"]["routes"][0]["slots"] = "!"
    (unreadable,) = policies([policy_object(NIKE)], [strange])
    other = policy_object(NIKE)
    other["spec"]["topic"] = "views"
    (elsewhere,) = policies([other], [table_object(table(route()))])
    assert unreadable.table is None
    assert str(unreadable.unreadable).startswith("RoutingTable ads/clicks: ")
    assert elsewhere.unreadable == "RoutingTable ads/clicks is of topic clicks"


# Where a record goes ----------------------------------------------------------------------------------------


def test_a_records_shard_is_the_one_that_the_sdk_takes() -> None:
    one = found(NIKE, routes=(route(),))
    for user in range(50):
        taken = Router(table(route())).route(b"nike", {"user_id": user})
        assert taken is not None
        place = placed(one, b"nike", {"user_id": str(user)}, 0)
        assert (place.record_key.encode(), place.partition) == (taken.key, taken.partition)


def test_a_time_bucket_comes_from_the_records_time() -> None:
    one = found(NIKE, routes=(route(by=("user_id", "hour")),))
    place = placed(one, b"nike", {"user_id": "42"}, 1_769_860_800_000)
    assert place.by == {"user_id": "42", "hour": "2026013112"}
    taken = Router(table(route(by=("user_id", "hour")))).route(
        b"nike", {"user_id": 42}, timestamp_ms=1_769_860_800_000
    )
    assert taken is not None
    assert place.partition == taken.partition


def test_the_place_is_told_in_one_line() -> None:
    one = found(NIKE, routes=(route(slots=(1,)),))
    assert str(placed(one, b"nike", {"user_id": "42"}, 0)) == "nike:7 on partition 3 of clicks (user_id=42)"
    kept = found(NIKE, routes=(route(slots=(1,), record_key=RecordKey.PRESERVE),))
    assert placed(kept, b"nike", {"user_id": "42"}, 0).record_key == "nike"


def test_a_plain_key_goes_where_the_default_partitioner_puts_it() -> None:
    place = placed(found({**NIKE, "shards": 0}), b"nike", {"user_id": "42"}, 0)
    assert place.partition == partition_for(b"nike", 6)
    assert str(place).endswith(" of clicks (a plain key)")


@pytest.mark.parametrize(
    ("by", "given", "said"),
    [
        (("user_id",), {}, "spread by user_id: give --dimension user_id=VALUE"),
        (("user_id",), {"country": "no"}, "spread by user_id, not by country"),
        ((), {"user_id": "1"}, "spread by no dimension"),
    ],
)
def test_dimensions_that_do_not_choose_a_shard_are_refused_in_words(
    by: tuple[str, ...], given: dict[str, str], said: str
) -> None:
    with pytest.raises(DimensionError, match=said):
        placed(found(NIKE, routes=(route(by=by),)), b"nike", given, 0)


def test_a_key_with_a_topic_of_its_own_is_told_which() -> None:
    one = found(NIKE, routes=(route(),))
    assert one.policy.table is not None
    own = DedicatedTopic("clicks.hot.0a1b2c3d.g2", 6, Phase.ACTIVE, "id", b"nike")
    moved = msgspec.structs.replace(
        one.policy.table,
        read_set=("clicks", own.name),
        topics=(own,),
        routes=(msgspec.structs.replace(route(), topic=own.name),),
    )

    given = replace(one, policy=replace(one.policy, table=moved), route=moved.routes[0])
    lines = explanation(given, [], NOW)

    told = dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith(" "))
    assert told["Now"].strip() == "in a topic of its own, over 3 shards; order is kept per user_id"
    assert told["Own topic"].strip() == "clicks.hot.0a1b2c3d.g2, Active, 6 partitions"
    assert "clicks.hot.0a1b2c3d.g2 (Active)" in key_table([given])[1]
    assert value(given)["ownTopics"] == [
        {"name": "clicks.hot.0a1b2c3d.g2", "phase": "Active", "partitions": 6}
    ]
