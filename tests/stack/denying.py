"""A broker that lets nobody make topics of certain names, until it is told otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

Place = tuple[ResourceType, str, ResourcePatternType]


@contextmanager
def denying(bootstrap: str, prefix: str) -> Iterator[None]:
    """Nobody may make topics whose names begin so; all else stays allowed.

    The right to make any topic is one on the cluster, which is looked at first: that is taken for the while,
    and who asks for another name has it on the topic.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    places: list[Place] = [
        (ResourceType.BROKER, "kafka-cluster", ResourcePatternType.LITERAL),
        (ResourceType.TOPIC, prefix, ResourcePatternType.PREFIXED),
    ]
    for future in admin.create_acls([rule for place in places for rule in _rules(place)]).values():
        future.result(120)
    try:
        yield
    finally:
        for future in admin.delete_acls([_all_of(place) for place in places]).values():
            future.result(120)


def _rules(place: Place) -> list[AclBinding]:
    kind, name, pattern = place
    return [
        AclBinding(kind, name, pattern, "User:*", "*", operation, permission)
        for operation, permission in (
            (AclOperation.ALL, AclPermissionType.ALLOW),
            (AclOperation.CREATE, AclPermissionType.DENY),
        )
    ]


def _all_of(place: Place) -> AclBindingFilter:
    kind, name, pattern = place
    whoever, from_wherever = None, None
    return AclBindingFilter(
        kind,
        name,
        pattern,
        whoever,  # type: ignore[arg-type]
        from_wherever,  # type: ignore[arg-type]
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
