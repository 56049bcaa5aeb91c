"""Which rung a key takes: the coarsest whose dimensions are seen and whose biggest value still fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hotkey_operator.engine.guards import Stop
from hotkey_operator.engine.heavy import KeyLoad, Rung, ValuePart, Values, top_values, visibility
from hotkey_operator.engine.model import Rejected
from hotkey_operator.engine.placement import SLOT_LOAD, TARGET
from hotkey_operator.engine.reasons import Reason
from hotkey_operator.engine.shards import KEY_BYTES_AT_MOST
from hotkey_operator.engine.situation import Situation
from hotkey_operator.engine.spec import Ordering
from hotkey_operator.engine.wording import looked_for, name, percent, value_name

UNSPLIT_AT_MOST = 0.75  # of a key may be a value that no partition fits, else spreading the rest gains little
CLEARLY_SMALLER = 0.75  # of a coarser rung's biggest value: less is not worth a finer one that does not fit
VISIBLE = 0.5  # of a key's records must carry every dimension of a rung
VALUES_COUNTED = 8  # records of one value, before its slot is believed to be heavier


@dataclass(frozen=True, slots=True)
class Step:
    """The rung to take; `values`: those whose slots are known to be heavier, with their part of the key.

    `unsplit`: no rung fits, and what cannot be split is said there.
    """

    by: Rung
    values: tuple[tuple[Values, float], ...] = ()
    unsplit: Stop | None = None


@dataclass(frozen=True, slots=True)
class _TooBig:
    """A rung whose biggest value is more than a partition may carry; `step` spreads the key nevertheless."""

    step: Step
    stop: Stop
    part: float


def choose(s: Situation, load: KeyLoad) -> Step | Stop:
    """The rung for a key, or why there is none: of a routed key its own, or a finer one.

    Where none fits it is the one whose biggest value is the smallest, unless that is most of a plain key.
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
        if isinstance(answer, Step) or (isinstance(answer, Stop) and answer.reason is Reason.SAMPLING):
            return answer
    best = _smallest([answer for answer in answers if isinstance(answer, _TooBig)])
    if best is None:
        return next(answer for answer in answers if isinstance(answer, Stop))
    if s.table.route(load.key) is None and best.part > UNSPLIT_AT_MOST:
        return best.stop
    return best.step


def _smallest(found: Sequence[_TooBig]) -> _TooBig | None:
    """The rung with the smallest biggest value; a finer one only where that is clearly smaller."""
    best = None
    for each in found:
        if best is None or each.part < CLEARLY_SMALLER * best.part:
            best = each
    return best


def unsplit(s: Situation, load: KeyLoad, rung: Rung) -> Stop | None:
    """What keeps a key that is spread by `rung` from being spread evenly: a value that no partition fits."""
    answer = _try(s, load, rung) if rung else None
    return answer.stop if isinstance(answer, _TooBig) else None


def values_of(s: Situation, load: KeyLoad, rung: Rung) -> tuple[tuple[Values, float], ...]:
    """The values of `rung` whose slots are known to be heavier, with their part of the key."""
    values = top_values(s.memory.fresh_evidence(s.at), load, rung) if rung else []
    return tuple((v.values, v.part.value) for v in values if _is_heavy(s, load, v))


def too_coarse(s: Situation, load: KeyLoad, rung: Rung) -> tuple[Rejected, ...]:
    """The rungs before `rung`, and why they would not do."""
    answers = [(each, _try(s, load, each)) for each in _before(s, rung)]
    stops = [(each, answer.stop if isinstance(answer, _TooBig) else answer) for each, answer in answers]
    return tuple(
        Rejected(f"spread it by {' and '.join(each)}", stop.reason, stop.message)
        for each, stop in stops
        if isinstance(stop, Stop) and stop.reason is not Reason.SAMPLING
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


def _try(s: Situation, load: KeyLoad, rung: Rung) -> Step | Stop | _TooBig:
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
    if not values or (values[0].part.value - values[0].part.bound) * load.total <= TARGET * s.mean:
        return Step(rung, values_of(s, load, rung))
    biggest = values[0]
    stop = Stop(
        Reason.CANNOT_SPREAD,
        f"key {name(load.key)} cannot be spread evenly by {by}: {value_name(biggest.values)} alone is "
        f"{percent(biggest.part.value)} of it",
    )
    heavy = tuple((v.values, v.part.value) for v in values if v is biggest or _is_heavy(s, load, v))
    return _TooBig(Step(rung, heavy, stop), stop, biggest.part.value)


def _is_heavy(s: Situation, load: KeyLoad, value: ValuePart) -> bool:
    return value.records >= VALUES_COUNTED and value.part.value * load.total > SLOT_LOAD * s.mean
