"""Kopf's side: one daemon per policy that turns its loop once a second, deletion, and liveness.

It decides nothing about keys: it finds out which policies there are, turns their loops and tells the outcome.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import kopf

from hotkey_operator import logs
from hotkey_operator.adapters.dimensions import parse_json_path
from hotkey_operator.adapters.kubernetes import GROUP, POLICIES, VERSION, KubernetesTables
from hotkey_operator.claims import Claim, rival
from hotkey_operator.engine.attention import quiet_seconds
from hotkey_operator.engine.consent import allowed_topics
from hotkey_operator.engine.memory import Memory
from hotkey_operator.engine.model import Condition, EmitEvent, StoredTable, Unreadable
from hotkey_operator.engine.reasons import ConditionType, Reason
from hotkey_operator.engine.spec import PolicySpec, SpecError, parse_spec
from hotkey_operator.liveness import Heartbeats
from hotkey_operator.loop import Outcome, Turn, bury
from hotkey_operator.metrics import Metrics
from hotkey_operator.ports import Conflict, PolicyRef, Ports, Unavailable
from hotkey_operator.resting import TURN_SECONDS, Next, Rest, Told
from hotkey_operator.status import FIGURES_SECONDS, Pace, conditions_of, policy_status, table_status

BURIAL_SECONDS = 2.0
HURRY_SECONDS = 0.05
PREFIX = "hotkeys.dev"
_OWN_EVENTS = frozenset(
    {Reason.INVALID_SPEC, Reason.TABLE_CONFLICT, Reason.KUBERNETES_UNAVAILABLE, Reason.REDIS_UNAVAILABLE}
)


Claims = kopf.Index[str, Claim]  # by topic; Kopf keeps it, complete before the first handler runs


@dataclass(slots=True)
class _Governed:
    """One policy while its daemon runs."""

    ref: PolicyRef
    turn: Turn | None = None
    told: dict[ConditionType, tuple[bool, Reason | None]] = field(default_factory=dict)
    policy_pace: Pace = field(default_factory=Pace)
    table_pace: Pace = field(default_factory=Pace)
    untold: str | None = None  # why status could not be written, once
    rest: Rest = field(default_factory=Rest)


class Governor:
    """Every policy's loop in this process."""

    def __init__(self, ports: Ports, tables: KubernetesTables, metrics: Metrics | None = None) -> None:
        self._ports = ports
        self._tables = tables
        self._metrics = metrics or Metrics()
        self._random = random.Random()
        self._heartbeats = Heartbeats()
        self._turning: dict[str, asyncio.Lock] = {}
        self._unburied: dict[PolicyRef, str] = {}  # why, as it was logged
        self._partitions: dict[PolicyRef, int] = {}

    def registry(self) -> kopf.OperatorRegistry:
        """The handlers, for `kopf.operator`."""
        registry = kopf.OperatorRegistry()
        kopf.on.startup(registry=registry)(_configure)
        kopf.on.login(registry=registry)(kopf.login_via_client)
        kopf.on.probe(registry=registry, id="loops", errors=kopf.ErrorsMode.PERMANENT)(self.probe)
        kopf.index(GROUP, VERSION, POLICIES, registry=registry, id="claims")(_claim)
        kopf.on.delete(GROUP, VERSION, POLICIES, registry=registry, id="retire")(self.retire)
        kopf.daemon(
            GROUP, VERSION, POLICIES, registry=registry, id="govern",
            cancellation_backoff=20.0, cancellation_timeout=5.0,
        )(self.govern)  # fmt: skip
        return registry

    async def govern(
        self, body: kopf.Body, namespace: str | None, name: str, uid: str, stopped: kopf.DaemonStopped,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        """Turn the loop of one policy until it is deleted or the operator ends."""
        claims: Claims = kwargs["claims"]
        governed = _Governed(PolicyRef(namespace or "", name, uid))
        logs.say("policy found", policy=governed.ref, topic=body.spec.get("topic"))
        clock = asyncio.get_running_loop().time
        due = clock()
        self._heartbeats.beat(governed.ref, due)
        self._metrics.expect(governed.ref)
        try:
            while not stopped:
                async with self._lock(uid):
                    step = Next.NOTHING if stopped else await self._due(governed, body, claims)
                    if step in (Next.TURN, Next.LOOK):
                        await self._turn(governed, body, claims, step)
                self._heartbeats.beat(governed.ref, clock())
                hurries = governed.turn is not None and governed.turn.hurries
                due = clock() + HURRY_SECONDS if hurries else max(due + TURN_SECONDS, clock())
                await stopped.wait(due - clock())
        finally:
            self._partitions.pop(governed.ref, None)
            self._heartbeats.forget(governed.ref)
            self._metrics.forget(governed.ref)

    async def retire(
        self,
        body: kopf.Body,
        namespace: str | None,
        name: str,
        uid: str,
        **kwargs: Any,
    ) -> None:
        """Return a deleted policy's stream to plain keys. Raised errors are tried again until it is done."""
        ref = PolicyRef(namespace or "", name, uid)
        topic = str(body.spec.get("topic", ""))
        claims: Claims = kwargs["claims"]
        turn = Turn(self._ports, ref, PolicySpec(topic=topic))
        async with self._lock(uid):
            try:
                older = rival(claims.get(topic, ()), uid)
                cluster = body.status.get("clusterId")
                outcome = await turn.retire(time.time(), self._seed(), rival=older, cluster_id=cluster)
            except (Unavailable, Conflict) as error:
                logs.say("policy cannot be retired yet", level=logging.WARNING, policy=ref, reason=str(error))
                raise kopf.TemporaryError(str(error), delay=1.0) from None
        for event in outcome.applied.events:
            _emit(body, ref, event)
        level = logging.WARNING if outcome.failure else logging.INFO
        logs.say("policy retired", level=level, policy=ref, topic=topic, undone=outcome.failure)
        self._turning.pop(uid, None)
        self._metrics.forget(ref)

    async def probe(self, **_: Any) -> dict[str, Any]:
        """How many loops turn. Raises when one has not for a while: then the process is to be restarted."""
        stale = self._heartbeats.stale(asyncio.get_running_loop().time())
        if stale:
            logs.say("loops stand still", level=logging.ERROR, seconds_by_policy=stale)
            raise kopf.PermanentError(f"loops stand still for seconds: {stale}")
        return {"policies": len(self._heartbeats)}

    async def bury_tombstones(self, namespaces: tuple[str, ...]) -> None:
        """Publish the tables of deleted policies until Redis has them. Runs until it is cancelled."""
        failing: str | None = None
        while True:
            try:
                for namespace in namespaces or (None,):
                    for ref, stored in await self._tables.tombstones(namespace):
                        await self._bury(ref, stored)
                failing = None
            except Unavailable as error:
                if failing is None:
                    logs.say("tombstones cannot be read", level=logging.WARNING, reason=str(error))
                failing = str(error)
            except Exception as error:
                logs.say("burial failed unexpectedly", level=logging.ERROR, error=error)
            await asyncio.sleep(BURIAL_SECONDS)

    async def _bury(self, ref: PolicyRef, stored: StoredTable | Unreadable) -> None:
        """One tombstone; whatever is wrong with it, the others are buried all the same."""
        if isinstance(stored, Unreadable):
            if self._unburied.get(ref) != stored.problem:
                self._unburied[ref] = stored.problem
                logs.say("tombstone cannot be read, delete it", level=logging.WARNING, reason=stored.problem)
            return
        try:
            if await bury(self._ports, ref, stored, time.time()):
                logs.say("tombstone published and removed", policy=ref, epoch=stored.table.epoch)
            self._unburied.pop(ref, None)
        except Conflict:
            return  # a new policy of that name took it over
        except Exception as error:
            if self._unburied.get(ref) != str(error):
                self._unburied[ref] = str(error)
                logs.say("tombstone not buried", level=logging.WARNING, policy=ref, reason=str(error))

    async def _turn(self, governed: _Governed, body: kopf.Body, claims: Claims, step: Next) -> None:
        """One turn and what it tells. Nothing ends the loop: an unexpected error is logged and counted."""
        ref, started = governed.ref, time.monotonic()
        try:
            outcome = await self._step(governed, body, claims, step)
            took, memory = time.monotonic() - started, governed.turn.memory if governed.turn else Memory()
            topic = str(body.spec.get("topic", ""))
            self._metrics.observe(ref, outcome, memory, topic=topic, took_seconds=took, now=time.time())
            await self._tell(governed, body, outcome)
        except Exception as error:
            self._metrics.failed(ref)
            logs.say("turn failed unexpectedly", level=logging.ERROR, error=error, policy=ref)

    @property
    def _pace(self) -> float:
        """How often quiet partitions are read and quiet streams turn, in seconds."""
        return quiet_seconds(sum(self._partitions.values()))

    async def _due(self, governed: _Governed, body: kopf.Body, claims: Claims) -> Next:
        """What to do now. A glance is taken already: where it finds the table lost, a turn is due."""
        older = rival(claims.get(str(body.spec.get("topic", "")), ()), str(body.metadata["uid"]))
        told = Told(int(body.metadata.get("generation", 0)), older, _allowed(body))
        turn = governed.turn
        rests = turn is not None and turn.rests
        step = governed.rest.next(told, rests, time.monotonic(), self._pace, self._random.random())
        if step is not Next.GLANCE or turn is None:
            return step
        try:
            return Next.NOTHING if await turn.glance(time.time()) else Next.TURN
        except Exception:
            return Next.TURN  # it will fail in the same way, and tell

    async def _step(self, governed: _Governed, body: kopf.Body, claims: Claims, step: Next) -> Outcome:
        spec, mistake = _read(body.spec)
        spec = replace(spec, allowed_topics=_allowed(body))
        if not spec.topic:
            return Outcome(mistake=mistake)
        if governed.turn is None:
            governed.turn = Turn(self._ports, governed.ref, spec, thinking=asyncio.to_thread, clock=time.time)
        governed.turn.spec = spec
        older = rival(claims.get(spec.topic, ()), str(body.metadata["uid"]))
        turn = governed.turn.look if step is Next.LOOK else governed.turn.step
        outcome = await turn(time.time(), self._seed(), rival=older, pace_seconds=self._pace)
        if outcome.observation is not None and outcome.observation.topic is not None:
            self._partitions[governed.ref] = outcome.observation.topic.partitions
        return replace(outcome, mistake=mistake)

    async def _tell(self, governed: _Governed, body: kopf.Body, outcome: Outcome) -> None:
        _say_written(governed.ref, outcome)
        for event in outcome.applied.events:
            _emit(body, governed.ref, event)
        for condition in conditions_of(outcome):
            self._tell_change(governed, body, condition)
        status = policy_status(
            outcome,
            generation=int(body.metadata.get("generation", 0)),
            now=time.time(),
            previous=dict(body.status),
            observing=body.spec.get("mode") in ("Observe", "Propose"),
        )
        await self._write_status(governed, status, table_status(outcome))

    def _tell_change(self, governed: _Governed, body: kopf.Body, condition: Condition) -> None:
        """Log each change of a condition; of readiness it is an Event too where the engine gives none."""
        is_ready = condition.type is ConditionType.READY
        told = (condition.status, condition.reason if is_ready else None)
        before = governed.told.get(condition.type)
        if before == told:
            return
        governed.told[condition.type] = told
        logs.say("condition changed", policy=governed.ref, type=condition.type, status=condition.status,
                 reason=condition.reason, message=condition.message)  # fmt: skip
        if is_ready and _is_news(condition, before):
            event = EmitEvent(condition.reason, condition.message, warning=not condition.status)
            _emit(body, governed.ref, event, logged=False)

    async def _write_status(
        self, governed: _Governed, status: Mapping[str, Any], table: Mapping[str, Any] | None
    ) -> None:
        now = time.monotonic()
        rests = governed.turn is not None and governed.turn.rests
        figures = FIGURES_SECONDS * (self._pace if rests else 1.0)
        try:
            if governed.policy_pace.is_due(status, now, figures):
                await self._tables.report_policy(governed.ref, status)
                governed.policy_pace.sent(status, now)
            if table is not None and governed.table_pace.is_due(table, now, figures):
                await self._tables.report(governed.ref, table)
                governed.table_pace.sent(table, now)
            governed.untold = None
        except Unavailable as error:
            if governed.untold is None:
                logs.say(
                    "status cannot be written", level=logging.WARNING, policy=governed.ref, reason=str(error)
                )
            governed.untold = str(error)

    def _lock(self, uid: str) -> asyncio.Lock:
        return self._turning.setdefault(uid, asyncio.Lock())

    def _seed(self) -> int:
        return self._random.getrandbits(53)


def _say_written(ref: PolicyRef, outcome: Outcome) -> None:
    """One line for each table: why, what it was made of, and when each step was done."""
    stored, decision, observation = outcome.applied.stored, outcome.decision, outcome.observation
    if stored is None or decision is None or observation is None:
        return
    logs.say(
        "table written", policy=ref, topic=stored.table.stream.topic, epoch=stored.table.epoch,
        reason=decision.reason, routes=len(stored.table.routes), observed_ms=round(observation.at * 1000),
        **dict[str, Any](outcome.moments),
    )  # fmt: skip


def _is_news(condition: Condition, before: tuple[bool, Reason | None] | None) -> bool:
    """Whether a changed readiness is worth an Event: what only this process knows, and its end."""
    return before is not None if condition.status else condition.reason in _OWN_EVENTS


class _Forever:
    """Pauses between tries, in seconds, without an end: a watch that gives up would end the operator."""

    def __iter__(self) -> Iterator[float]:
        yield from (0.2, 0.5, 1.0)
        yield from itertools.repeat(2.0)


def _configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    """Least privilege, our own names on objects, and quick recovery after the API server was away."""
    settings.scanning.disabled = True
    settings.posting.loggers = False
    settings.posting.reporting_component = "hotkey-operator"
    settings.persistence.finalizer = f"{PREFIX}/return-to-plain-keys"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=PREFIX)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=PREFIX)
    settings.background.cancellation_polling = 0.5
    settings.networking.connect_timeout = 5.0
    settings.networking.request_timeout = 10.0
    settings.networking.error_backoffs = _Forever()
    settings.queueing.error_delays = (0.5, 1, 1, 2, 2, 3)
    settings.watching.connect_timeout = 5.0


def _claim(
    spec: kopf.Spec, meta: kopf.Meta, uid: str, namespace: str | None, name: str, **_: Any
) -> dict[str, Claim]:
    created = str(meta.get("creationTimestamp", ""))
    return {str(spec.get("topic", "")): Claim(created, uid, PolicyRef(namespace or "", name, uid))}


def _read(spec: Mapping[str, Any]) -> tuple[PolicySpec, str | None]:
    """The spec, and what is wrong with it: then nothing but its topic is taken, as if it were suspended."""
    try:
        parsed = parse_spec(spec)
        for index, dimension in enumerate(parsed.dimensions):
            _check_path(dimension.json_path, f"spec.dimensions[{index}].from.jsonPath")
    except SpecError as error:
        topic = spec.get("topic")
        return PolicySpec(topic=topic if isinstance(topic, str) else "", suspend=True), str(error)
    return parsed, None


def _allowed(body: kopf.Body) -> frozenset[tuple[str, str]]:
    return allowed_topics(dict(body.metadata.annotations))


def _check_path(path: str | None, field: str) -> None:
    if path is not None:
        try:
            parse_json_path(path)
        except ValueError as error:
            raise SpecError(f"{field}: {error}") from None


def _emit(body: kopf.Body, ref: PolicyRef, event: EmitEvent, *, logged: bool = True) -> None:
    kind = "Warning" if event.warning else "Normal"
    kopf.event(body, type=kind, reason=event.reason.value, message=event.message[:1_000])
    if logged:
        level = logging.WARNING if event.warning else logging.INFO
        logs.say("event", level=level, policy=ref, reason=event.reason, message=event.message)
