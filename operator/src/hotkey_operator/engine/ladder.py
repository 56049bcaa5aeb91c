"""Which rung a key takes: the coarsest whose dimensions are seen and whose biggest value still fits."""

from __future__ import annotations

from dataclasses import dataclass

from hotkey_operator.engine.guards import Stop
from hotkey_operator.engine.heavy import KeyLoad, Rung, ValuePart, Values, top_values, visibility
from hotkey_operator.engine.model import Rejected
from hotkey_operator.engine.placement import SLOT_LOAD, TARGET
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.shards import KEY_BYTES_AT_MOST
from hotkey_operator.engine.situation import Situation
from hotkey_operator.engine.spec import Ordering
from hotkey_operator.engine.wording import looked_for, name, percent

VISIBLE = 0.5  # of a key's records must carry every dimension of a rung
VALUES_COUNTED = 20  # records of one value, before its slot is believed to be heavier


@dataclass(frozen=True, slots=True)
class Step:
    """The rung to take; `values`: those whose slots are known to be heavier, with their part of the key."""

    by: Rung
    values: tuple[tuple[Values, float], ...] = ()


def choose(s: Situation, load: KeyLoad) -> Step | Stop:
    """The rung for a key, or why there is none: of a routed key its own, or a finer one.

    The reason is `Sampling` while no sample was looked at for a coarser rung than the one that would do.
    """
    if len(load.key) > KEY_BYTES_AT_MOST:
        size = f"it is {len(load.key):,} bytes long, at most {KEY_BYTES_AT_MOST:,} are routed"
        return Stop(Reason.KEY_TOO_LONG, f"key {name(load.key)} is left plain: {size}")
    if s.spec.spread.ordering is Ordering.PER_KEY:
        why = f"key {name(load.key)} is left plain: ordering PerKey allows no shards"
        return Stop(Reason.ORDERING_FORBIDS, why)
    if not s.spec.spread.by:
        return Step(())
    answers = [_try(s, load, rung) for rung in _rungs(s, load)]
    for answer in answers:
        if isinstance(answer, Step) or answer.reason is Reason.SAMPLING:
            return answer
    stops = [answer for answer in answers if isinstance(answer, Stop)]
    return min(stops, key=lambda stop: stop.reason is Reason.DIMENSIONS_NOT_VISIBLE)


def too_coarse(s: Situation, load: KeyLoad, rung: Rung) -> tuple[Rejected, ...]:
    """The rungs before `rung`, and why they would not do."""
    answers = [(each, _try(s, load, each)) for each in _before(s, rung)]
    return tuple(
        Rejected(f"spread it by {' and '.join(each)}", answer.reason, answer.message)
        for each, answer in answers
        if isinstance(answer, Stop) and answer.reason is not Reason.SAMPLING
    )


def coarser(s: Situation, load: KeyLoad) -> Step | None:
    """The coarsest rung before the routed key's own that would do with room to spare, if any.

    Its biggest value, plus two standard errors, must fit into `release.ratio` of what it may carry.
    """
    route = s.table.route(load.key)
    for rung in _before(s, route.by) if route else ():
        if _fits_easily(s, load, rung):
            step = _try(s, load, rung)
            return step if isinstance(step, Step) else None
    return None


def _rungs(s: Situation, load: KeyLoad) -> tuple[Rung, ...]:
    rungs, route = s.spec.spread.by, s.table.route(load.key)
    return rungs[rungs.index(route.by) :] if route and route.by in rungs else rungs


def _before(s: Situation, rung: Rung) -> tuple[Rung, ...]:
    rungs = s.spec.spread.by
    return rungs[: rungs.index(rung)] if rung in rungs else ()


def _fits_easily(s: Situation, load: KeyLoad, rung: Rung) -> bool:
    evidence = s.memory.fresh_evidence(s.at)
    seen, values = visibility(evidence, load.key, rung), top_values(evidence, load, rung)
    if seen is None or not values or seen.value - seen.bound < VISIBLE:
        return False
    room = s.spec.release.ratio * TARGET * s.mean
    return all((value.part.value + value.part.bound) * load.total <= room for value in values)


def _try(s: Situation, load: KeyLoad, rung: Rung) -> Step | Stop:
    evidence = s.memory.fresh_evidence(s.at)
    seen = visibility(evidence, load.key, rung)
    by = " and ".join(rung)
    if seen is None and not s.spec.metrics.sampling:
        return Step(rung)  # producers tell keys and no dimensions: the coarsest rung is taken untried
    if seen is None:
        why = f"key {name(load.key)} is as it was: its records are not yet sampled for {by}"
        return Stop(Reason.SAMPLING, why)
    if seen.value + seen.bound < VISIBLE:
        carried = percent(seen.value) if seen.value > 0 else "none"
        looked = looked_for(s.spec.dimensions, rung)
        why = f"key {name(load.key)} is left plain: {carried} of its sampled records carry {by} ({looked})"
        return Stop(Reason.DIMENSIONS_NOT_VISIBLE, why)
    values = top_values(evidence, load, rung)
    if values and (values[0].part.value - values[0].part.bound) * load.total > TARGET * s.mean:
        biggest = "/".join(values[0].values) or "the missing value"
        part = percent(values[0].part.value)
        why = f"key {name(load.key)} cannot be spread by {by}: {biggest} alone is {part} of it"
        return Stop(Reason.CANNOT_SPREAD, why)
    return Step(rung, tuple((v.values, v.part.value) for v in values if _is_heavy(s, load, v)))


def _is_heavy(s: Situation, load: KeyLoad, value: ValuePart) -> bool:
    return value.records >= VALUES_COUNTED and value.part.value * load.total > SLOT_LOAD * s.mean
