"""Carries out a decision: the object first, then Redis, then what is told.

The order is the safety: what clients read was always in the object before. It decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hotkey_operator.engine.model import (
    CreateTopic,
    Decision,
    EmitEvent,
    PublishTable,
    StoredTable,
    TopicAttempt,
    WriteTable,
)
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.ports import (
    Conflict,
    NamespaceTerminating,
    PolicyRef,
    Ports,
    TopicRefused,
    Unavailable,
)


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a decision's actions.

    `stored`: the table that was written. `published_epoch`: what Redis accepted. `events`: those to tell now.
    `conflict`: someone else wrote the object first. `unwritten`, `unpublished`: what failed, in words for
    people. After a conflict or a failed write nothing more was done; a later turn does it from what it sees.
    `terminating`: there will never be an object, as the namespace is being deleted. `topics`: attempts to
    make topics; what is not told here of one that was made is never taken for ours.
    """

    stored: StoredTable | None = None
    published_epoch: int | None = None
    events: tuple[EmitEvent, ...] = ()
    conflict: str | None = None
    unwritten: str | None = None
    unpublished: str | None = None
    terminating: bool = False
    topics: tuple[TopicAttempt, ...] = ()

    @property
    def stopped(self) -> bool:
        """Whether the object could not be written, so that what follows must not be done."""
        return self.conflict is not None or self.unwritten is not None


NOTHING_DONE = Applied()


async def apply(ports: Ports, ref: PolicyRef, decision: Decision, *, tombstone: bool = False) -> Applied:
    """Do the actions in order. A table that could not be written is not published either.

    `tombstone`: the table is the last one of a policy that is being deleted and must outlive it.
    """
    done = NOTHING_DONE
    for action in decision.actions:
        match action:
            case WriteTable():
                done = await _write(ports, ref, action, done, tombstone=tombstone)
                if done.stopped:
                    return done
            case PublishTable():
                done = await _publish(ports, action, done)
            case CreateTopic():
                done = replace(done, topics=(*done.topics, await _create(ports, action)))
            case EmitEvent():
                done = replace(done, events=(*done.events, action))
    return done


async def _create(ports: Ports, action: CreateTopic) -> TopicAttempt:
    """One attempt. One of that name that was there already is not ours, so no id is told of it."""
    if ports.topics is None:
        return TopicAttempt(action.name, reason=Reason.TOPIC_NOT_MADE, problem="there is nobody to make it")
    try:
        made = await ports.topics.create(action.name, action.partitions, action.config)
    except TopicRefused as error:
        return TopicAttempt(action.name, reason=error.reason, problem=str(error))
    except Unavailable as error:
        return TopicAttempt(action.name, reason=Reason.TOPIC_NOT_MADE, problem=str(error))
    return TopicAttempt(action.name, made)


async def _write(
    ports: Ports, ref: PolicyRef, action: WriteTable, done: Applied, *, tombstone: bool
) -> Applied:
    version = action.resource_version
    try:
        if action.anew and version is not None:
            await ports.tables.delete(ref, version)
            version = None
        stored = await ports.tables.write(ref, action.table, version, tombstone=tombstone)
    except Conflict as error:
        return replace(done, conflict=str(error))
    except Unavailable as error:
        return replace(done, unwritten=str(error), terminating=isinstance(error, NamespaceTerminating))
    except ValueError as error:  # a table that no reader would accept
        return replace(done, unwritten=f"RoutingTable {ref} cannot hold epoch {action.table.epoch}: {error}")
    return replace(done, stored=stored)


async def _publish(ports: Ports, action: PublishTable, done: Applied) -> Applied:
    table = action.table
    try:
        envelope = ports.signer.seal(table)
        accepted = await ports.distribution.publish(table.stream, table.epoch, envelope, over=action.over)
    except (Unavailable, ValueError) as error:  # ValueError: a table that no reader would accept
        return replace(done, unpublished=str(error))
    if accepted:
        return replace(done, published_epoch=table.epoch)
    return replace(
        done, unpublished=f"Redis: epoch {table.epoch} was refused, it holds another or higher one"
    )
