"""A key that does not fit on the base topic: a topic of its own, the aggregator follows, and it goes back."""

from __future__ import annotations

from collections import Counter
from uuid import uuid4

from hotkey_sdk.routing.table import DedicatedTopic, Phase
from tests.stack.operator.conftest import StartAggregator, StartLoad
from tests.stack.operator.scene import Scene
from tests.stack.operator.waiting import eventually

SECONDS = 90.0
PARTITIONS = 3
FITS_NOWHERE = {"recordsPerSecond": 120}  # of one partition; the load is 900 records/s
RELEASE = {"for": "3s"}


def in_phase(scene: Scene, phase: Phase) -> DedicatedTopic:
    """The one dedicated topic, once it is in this phase."""

    def look() -> DedicatedTopic:
        table = scene.table("clicks")
        assert table is not None
        told = scene.status("clicks").get("conditions"), scene.status("clicks").get("decision")
        assert [topic.phase for topic in table.topics] == [phase], (table.topics, told)
        return table.topics[0]

    return eventually(f"the dedicated topic is {phase}", look, SECONDS)


def test_a_key_that_fits_nowhere_gets_a_topic_is_counted_once_goes_back_and_the_next_one_has_it(
    scene: Scene, start_load: StartLoad, start_aggregator: StartAggregator
) -> None:
    # given a small topic, an aggregator that reads it, and a policy that names its group
    topic = scene.topic(f"clicks-{uuid4().hex[:8]}", PARTITIONS)
    operator = scene.operator()
    group = f"aggregator-of-{topic}"
    policy = {
        "topic": topic,
        "trigger": FITS_NOWHERE,
        "release": RELEASE,
        "dedicatedTopic": {"enabled": True, "partitions": 4},
        "consumers": {"groups": [group]},
    }
    scene.apply("clicks", policy)
    scene.wait_for_condition("clicks", "Governing")
    scene.wait_for_published("clicks", topic)
    aggregator = start_aggregator(topic)

    # when one advertiser sends more than all partitions of it may take
    load = start_load(topic, records_per_second=900.0)

    # then it gets a topic of its own, which the group read before anything was written to it
    own = in_phase(scene, Phase.ACTIVE)
    assert own.name.startswith(f"{topic}.hot.")
    uid = scene.policy("clicks")["metadata"]["uid"]
    assert own.name.removeprefix(f"{topic}.hot.").startswith(f"{uid[:8]}.g")
    assert own.key == b"nike"
    scene.wait_for_published("clicks", topic)
    eventually("its records are there", lambda: sum(scene.ends(own.name).values()) > 300, SECONDS)
    eventually("it is told", lambda: {"Preparing", "Dedicated"} <= scene.events("clicks"), SECONDS)

    # and when it has cooled it goes back, and the topic is idle and still read
    load.set_hot_share(0.0)
    idle = in_phase(scene, Phase.IDLE)
    assert (idle.name, idle.topic_id) == (own.name, own.topic_id)
    table = scene.table("clicks")
    assert table is not None
    assert own.name in table.read_set
    assert all(route.topic == topic for route in table.routes)

    # and the next key that is hot takes the same topic
    before = sum(scene.ends(own.name).values())
    load.set_hot_key("adidas")
    load.set_hot_share(0.8)
    again = in_phase(scene, Phase.ACTIVE)
    assert (again.name, again.topic_id, again.key) == (own.name, own.topic_id, b"adidas")
    eventually("it is written again", lambda: sum(scene.ends(own.name).values()) > before, SECONDS)

    # then every click that was acknowledged is counted, each once
    load.stop()
    acked, sent = load.acked_ids(), load.sent_ids()
    aggregator.wait_until(lambda: set(aggregator.ids()) >= acked, "all is counted", SECONDS)
    counted = aggregator.ids()
    assert set(counted) <= sent
    assert counted == Counter(list(counted)), "none twice"
    assert operator.stop() == 0
