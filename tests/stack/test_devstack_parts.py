"""Each part of the running stack can be killed, frozen, thawed and started again where it was."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import redis
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from kubernetes import client, config

from devstack import Stack, StackError
from devstack.kafka import KafkaNode
from devstack.part import Part
from devstack.process import until
from devstack.versions import Versions

DEADLINE_SECONDS = 30.0


def eventually(condition: Callable[[], bool], what: str) -> None:
    assert until(condition, time.monotonic() + DEADLINE_SECONDS), f"{what} after {DEADLINE_SECONDS:.0f} s"


def admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})


def make_topic(bootstrap: str, *, replicas: int = 1) -> str:
    topic = f"clicks-{uuid.uuid4().hex[:8]}"
    connection = admin(bootstrap)
    (made,) = connection.create_topics([NewTopic(topic, 1, replicas)]).values()
    made.result(DEADLINE_SECONDS)
    return topic


def send(bootstrap: str, topic: str, value: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0, "acks": "all"})
    errors: list[Any] = []
    producer.produce(topic, value=value, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(DEADLINE_SECONDS) == 0, f"{value} was not acknowledged"
    assert errors == [None]


def first_value(bootstrap: str, topic: str) -> str | None:
    settings = {"bootstrap.servers": bootstrap, "group.id": "reader", "log_level": 0}
    consumer = Consumer({**settings, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is not None and message.error() is None:
                return str((message.value() or b"").decode())
        return None
    finally:
        consumer.close()


def connected(stack: Stack) -> client.ApiClient:
    kubeconfig = str(stack.kubernetes.kubeconfig)
    return config.new_client_from_config(kubeconfig)  # type: ignore[no-untyped-call, no-any-return]


def core(stack: Stack) -> client.CoreV1Api:
    return client.CoreV1Api(connected(stack))


def config_map(name: str, *, owner: client.V1ConfigMap | None = None) -> client.V1ConfigMap:
    references = None
    if owner is not None:
        meta = owner.metadata
        assert meta is not None
        assert meta.uid is not None
        reference = client.V1OwnerReference(
            api_version="v1", kind="ConfigMap", name=str(meta.name), uid=meta.uid
        )
        references = [reference]
    meta = client.V1ObjectMeta(name=name, owner_references=references)
    return client.V1ConfigMap(metadata=meta, data={"a": "b"})


@pytest.fixture
def healed(stack: Stack) -> Iterator[Stack]:
    """The shared stack, with every part running and thawed again afterwards."""
    yield stack
    for part in stack.parts.processes:
        if part.is_running:
            part.resume()
        else:
            part.restart()


def test_an_acknowledged_record_outlives_a_killed_broker(healed: Stack) -> None:
    # given a record that was acknowledged
    node, bootstrap = healed.kafka.nodes[0], healed.kafka.bootstrap
    topic = make_topic(bootstrap)
    send(bootstrap, topic, "before")
    # when its only broker is killed
    node.kill()
    assert not node.is_running
    with pytest.raises(KafkaException):
        admin(bootstrap).list_topics(timeout=0.5)
    # then it is read from the restarted one, at the same address
    node.restart()
    assert healed.kafka.bootstrap == bootstrap
    assert first_value(bootstrap, topic) == "before"


def test_the_cluster_keeps_its_id_over_a_restart(healed: Stack) -> None:
    healed.kafka.restart()
    metadata = admin(healed.kafka.bootstrap).list_topics(timeout=DEADLINE_SECONDS)
    assert metadata.cluster_id == healed.kafka.cluster_id


def test_no_client_creates_a_topic_by_writing_to_it(stack: Stack) -> None:
    producer = Producer(
        {
            "bootstrap.servers": stack.kafka.bootstrap,
            "log_level": 0,
            "topic.metadata.propagation.max.ms": 500,
            "allow.auto.create.topics": True,
        }
    )
    errors: list[Any] = []
    producer.produce("never-created", value="x", on_delivery=lambda error, _: errors.append(error))
    producer.flush(DEADLINE_SECONDS)
    assert [error.name() for error in errors] in (["_UNKNOWN_TOPIC"], ["UNKNOWN_TOPIC_OR_PART"])


def test_a_frozen_broker_answers_nobody_until_it_is_thawed(healed: Stack) -> None:
    node = healed.kafka.nodes[0]
    node.pause()
    assert node.is_running
    with pytest.raises(KafkaException):
        admin(healed.kafka.bootstrap).list_topics(timeout=0.5)
    node.resume()
    assert admin(healed.kafka.bootstrap).list_topics(timeout=DEADLINE_SECONDS).brokers


@pytest.mark.parametrize("name", ["apiserver", "etcd"])
def test_an_object_outlives_a_kill_of_the_kubernetes_api(healed: Stack, name: str) -> None:
    # given a config map
    part: Part = getattr(healed.kubernetes, name)
    api = core(healed)
    kept = f"kept-{uuid.uuid4().hex[:8]}"
    api.create_namespaced_config_map("default", config_map(kept))
    # when a part is killed and started again
    part.kill()
    assert not part.is_running
    part.restart()
    # then the object is there
    eventually(lambda: reads(api, kept), f"config map {kept} cannot be read")


def reads(api: client.CoreV1Api, name: str) -> bool:
    try:
        found = api.read_namespaced_config_map(name, "default", _request_timeout=5)
    except Exception:
        return False
    return bool(found.data == {"a": "b"})


def test_a_frozen_api_server_answers_nobody_until_it_is_thawed(healed: Stack) -> None:
    healed.kubernetes.apiserver.pause()
    with pytest.raises(Exception, match="timed out"):
        core(healed).list_namespace(_request_timeout=0.5)
    healed.kubernetes.apiserver.resume()
    eventually(lambda: bool(core(healed).list_namespace(_request_timeout=5).items), "no namespace is listed")


def test_the_version_of_the_api_server_is_the_pinned_one(stack: Stack) -> None:
    api = client.VersionApi(connected(stack))
    assert api.get_code().git_version == f"v{Versions.pinned().kubernetes.version}"


def test_redis_starts_empty_after_a_kill_as_a_cache_does(healed: Stack) -> None:
    with redis.Redis.from_url(healed.redis.url, decode_responses=True) as first:
        first.set("table", "7")
    healed.redis.kill()
    assert not healed.redis.is_running
    healed.redis.restart()
    with redis.Redis.from_url(healed.redis.url, decode_responses=True) as second:
        assert second.get("table") is None


def test_a_wiped_redis_is_empty(healed: Stack) -> None:
    with redis.Redis.from_url(healed.redis.url) as connection:
        connection.set("table", "7")
        healed.redis.wipe()
        assert connection.dbsize() == 0


def test_a_frozen_redis_answers_nobody_until_it_is_thawed(healed: Stack) -> None:
    healed.redis.pause()
    frozen = redis.Redis.from_url(healed.redis.url, socket_timeout=0.5, retry=None)
    with frozen as connection, pytest.raises(redis.TimeoutError):
        connection.ping()
    healed.redis.resume()
    with redis.Redis.from_url(healed.redis.url, socket_timeout=DEADLINE_SECONDS) as connection:
        assert connection.ping()


def test_a_part_that_is_down_cannot_be_killed_or_frozen(healed: Stack) -> None:
    healed.redis.kill()
    for action in (healed.redis.kill, healed.redis.pause, healed.redis.resume):
        with pytest.raises(StackError, match="redis is not running"):
            action()


def test_parts_that_were_left_out_are_named(stack: Stack) -> None:
    with pytest.raises(StackError, match="without postgres"):
        _ = stack.postgres


@pytest.mark.slow
def test_three_brokers_go_on_without_the_leader(make_stack: Callable[..., Stack]) -> None:
    # given a topic with three replicas
    kafka = make_stack(brokers=3, kubernetes=False, redis=False).kafka
    topic = make_topic(kafka.bootstrap, replicas=3)
    send(kafka.bootstrap, topic, "before")
    # when its leader is killed
    leader = leader_of(kafka.nodes, topic)
    leader.kill()
    # then another one takes records and has the old ones
    others = ",".join(node.address for node in kafka.nodes if node is not leader)
    send(others, topic, "after")
    assert first_value(others, topic) == "before"
    # and the killed one comes back to its cluster
    leader.restart()
    assert set(admin(leader.address).list_topics(timeout=DEADLINE_SECONDS).brokers) == {1, 2, 3}


def leader_of(nodes: tuple[KafkaNode, ...], topic: str) -> KafkaNode:
    metadata = admin(nodes[0].address).list_topics(topic, timeout=DEADLINE_SECONDS)
    leader = metadata.topics[topic].partitions[0].leader
    return next(node for node in nodes if node.id == leader)


@pytest.mark.slow
def test_three_brokers_come_back_after_all_were_killed(make_stack: Callable[..., Stack]) -> None:
    kafka = make_stack(brokers=3, kubernetes=False, redis=False).kafka
    topic = make_topic(kafka.bootstrap, replicas=3)
    send(kafka.bootstrap, topic, "before")
    kafka.kill()
    assert not kafka.is_running
    kafka.restart()
    assert first_value(kafka.bootstrap, topic) == "before"


@pytest.mark.slow
def test_postgres_keeps_what_was_committed_over_a_kill(make_stack: Callable[..., Stack]) -> None:
    postgres = make_stack(kubernetes=False, redis=False, postgres=True).postgres
    with psycopg.connect(postgres.dsn) as connection:
        connection.execute("create table counts as select 7 as clicks")
    postgres.kill()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres.dsn, connect_timeout=2)
    postgres.restart()
    with psycopg.connect(postgres.dsn) as connection:
        assert connection.execute("select clicks from counts").fetchone() == (7,)


@pytest.mark.slow
def test_a_frozen_postgres_answers_no_connection_until_it_is_thawed(make_stack: Callable[..., Stack]) -> None:
    postgres = make_stack(kubernetes=False, redis=False, postgres=True).postgres
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        postgres.pause()
        connection.pgconn.send_query(b"select 7")
        with pytest.raises(psycopg.OperationalError, match="timeout"):
            psycopg.connect(postgres.dsn, connect_timeout=2)
        connection.pgconn.consume_input()
        assert connection.pgconn.is_busy(), "a frozen server has answered"
        postgres.resume()
        result = connection.pgconn.get_result()
        assert result is not None
        assert result.get_value(0, 0) == b"7"
        assert connection.pgconn.get_result() is None


@pytest.mark.slow
def test_postgres_ends_in_order_although_a_client_is_connected(make_stack: Callable[..., Stack]) -> None:
    postgres = make_stack(kubernetes=False, redis=False, postgres=True).postgres
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute("select 1")
        postgres.stop()
    assert "database system is shut down" in postgres.log.read_text()


@pytest.mark.slow
def test_a_persistent_redis_keeps_its_data_over_a_kill(make_stack: Callable[..., Stack]) -> None:
    server = make_stack(kubernetes=False, redis_persistent=True).redis
    with redis.Redis.from_url(server.url) as connection:
        connection.set("table", "7")
    server.kill()
    server.restart()
    with redis.Redis.from_url(server.url) as connection:
        assert connection.get("table") == b"7"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_controller_manager_collects_what_an_owner_leaves(make_stack: Callable[..., Stack]) -> None:
    """The first time on a machine it is built, which takes minutes."""
    api = core(make_stack(controller_manager=True))
    owner = api.create_namespaced_config_map("default", config_map("owner"))
    api.create_namespaced_config_map("default", config_map("owned", owner=owner))

    api.delete_namespaced_config_map("owner", "default")

    def remaining() -> set[str]:
        maps = api.list_namespaced_config_map("default").items
        return {str(each.metadata.name) for each in maps if each.metadata is not None}

    eventually(lambda: "owned" not in remaining(), "the owned config map is still there")
