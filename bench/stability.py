"""How calm the operator's decisions are: a simulated week of several loads through the pure engine.

The engine decides turn by turn over a model of a topic in virtual time, with counting noise and samples, as
in the engine's own tests. Turns are a second apart, as in the product, while there is something to mend and
for a while after the load or the table changed, else ten.
"""

from __future__ import annotations

import csv
import math
import multiprocessing
import random
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from bench.part import Run
from hotkey_operator.engine.model import PartitionSample, SampledRecord, WriteTable
from hotkey_operator.engine.pressure import BALANCED
from hotkey_operator.engine.rates import imbalance
from hotkey_sdk.routing.partitioner import partition_for
from hotkey_sdk.routing.table import Route
from tests.unit.engine.stream import ModelStream, home, spec

PROCESSES = 2  # loads that are simulated side by side: no time is measured here
PARTITIONS = 12
HOUR, DAY, WEEK = 3_600.0, 86_400.0, 604_800.0
QUIET_RATE = 200.0  # records/s of other keys on each partition
TRIGGER = 1_000.0  # records/s of a partition: the default
CLOSE_SECONDS, FAR_SECONDS = 1.0, 10.0  # between turns
WATCHED_SECONDS = 20.0  # after the load jumped, the table changed or there was something to mend: close turns
JUMP = 0.2  # of a key's rate
SAMPLED, BATCH = 100, 10  # records of a sample and of a run
HOT_SECONDS = 30.0  # of an oscillation
CALM_SECONDS = (65.0, 130.0, 260.0, 520.0, 900.0, 1_030.0, 1_830.0)  # the other half of its period
OSCILLATION_HOURS = 6
RECORDED = Path(__file__).parent / "recorded" / "mentions.csv"
RECORDED_SECONDS, RECORDED_SCALE = 300.0, 20.0  # of one row; records/s for one mention in it

Rates = Mapping[bytes, float]
Load = Callable[[float], Rates]  # of the hot keys, at so many seconds of the week


class Week(msgspec.Struct, frozen=True):
    """One load's week. `hours`: the hour of each change.

    `over`: the part of the time with an imbalance over 1.2; `over_hot`: with a partition over the trigger
    besides, which is what there is to mend. `plain_over_hot`: the same without hotkey.
    """

    name: str
    what: str
    days: float
    turns: int
    changes: int
    reasons: dict[str, int]
    worst_hour: int
    hours: list[int]
    over: float
    over_hot: float
    plain_over_hot: float

    @property
    def per_day(self) -> float:
        """Changes of routes a day."""
        return self.changes / self.days


class Oscillation(msgspec.Struct, frozen=True):
    """A key that is hot for half a minute, then calm for so long: changes of routes in each hour."""

    calm_seconds: float
    changes: list[int]


class Weeks(msgspec.Struct, frozen=True):
    """What was measured."""

    weeks: list[Week]
    oscillations: list[Oscillation]


class _Stream(ModelStream):
    """The tests' model of a topic; where a key's records go is worked out once for each route."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._known: dict[bytes, tuple[Route | None, list[tuple[int, bytes, float]]]] = {}

    def _places(self, key: bytes) -> list[tuple[int, bytes, float]]:
        route = self.stored.table.route(key) if self.stored else None
        known = self._known.get(key)
        if known is None or known[0] is not route:
            known = self._known[key] = (route, super()._places(key))
        return known[1]

    def _sample(self, partition: int) -> PartitionSample | None:
        """Fewer records than the product looks at: more noise, less time."""
        flows = [(SampledRecord(name, self.size_bytes), rate) for _, name, rate in self.mix[partition]]
        weights = [rate for _, rate in flows]
        if sum(weights) <= 0:
            return None
        drawn = self.random.choices([record for record, _ in flows], weights, k=SAMPLED)
        runs = (tuple(drawn[i : i + BATCH]) for i in range(0, SAMPLED, BATCH))
        return PartitionSample(partition, tuple(runs))


def quiet() -> dict[bytes, float]:
    """One key on each partition, too small to matter beside a giant and the same everywhere."""
    names = (b"quiet-%d" % number for number in range(10_000))
    found: dict[int, bytes] = {}
    for each in names:
        found.setdefault(partition_for(each, PARTITIONS), each)
        if len(found) == PARTITIONS:
            break
    return dict.fromkeys(found.values(), QUIET_RATE)


def daily(at: float) -> Rates:
    """One key with the day: nothing at night, 5,000 records/s in the evening."""
    return {b"nike": 5_000.0 * max(0.0, math.sin(2 * math.pi * (at / DAY - 0.3)))}


def sawtooth(at: float) -> Rates:
    """One key that grows for half an hour and drops to nothing."""
    return {b"nike": 6_000.0 * (at % 1_800 // 15 * 15) / 1_800}


def several(at: float) -> Rates:
    """Six keys, each with its own hours of the day, that breathe by a fifth every few minutes."""
    return {
        b"brand-%d" % number: 3_000.0
        * max(0.0, math.sin(2 * math.pi * (at / DAY - number / 6)))
        * (1 + 0.2 * math.sin(at // 30 * 30 / (97.0 + 31 * number)))
        for number in range(6)
    }


def oscillating(calm_seconds: float) -> Load:
    """One key that is hot for half a minute and then calm for so long."""
    return lambda at: {b"nike": 4_000.0 if at % (HOT_SECONDS + calm_seconds) < HOT_SECONDS else 0.0}


def bursts(seed: int) -> Load:
    """About forty bursts a day on eight keys, from seconds to an hour, of 1,500 to 12,000 records/s."""
    chance = random.Random(seed)
    found, at = [], 0.0
    while at < WEEK:
        at += chance.expovariate(40 / DAY)
        length = min(HOUR, chance.lognormvariate(math.log(120), 1.2))
        found.append((at, at + length, b"burst-%d" % chance.randrange(8), chance.uniform(1_500, 12_000)))

    def load(now: float) -> Rates:
        rates: dict[bytes, float] = {}
        for start, end, key, rate in found:
            if start <= now < end:
                rates[key] = rates.get(key, 0.0) + rate
        return rates

    return load


def recorded() -> Load:
    """A week of mentions of ten companies, as they were counted, each taken as a key."""
    lines = [line for line in RECORDED.read_text().splitlines() if not line.startswith("#")]
    names, *rows = list(csv.reader(lines))
    table = [[RECORDED_SCALE * float(cell) for cell in row] for row in rows]

    def load(now: float) -> Rates:
        row = table[min(int(now / RECORDED_SECONDS), len(table) - 1)]
        return {name.encode(): rate for name, rate in zip(names, row, strict=True)}

    return load


def loads(seed: int) -> list[tuple[str, str, Load]]:
    """Each load's name, what it is, and its rates."""
    made: list[tuple[str, Callable[..., object], Load]] = [
        ("daily cycle", daily, daily),
        ("bursts", bursts, bursts(seed)),
        ("sawtooth", sawtooth, sawtooth),
        ("several hot keys", several, several),
        ("recorded", recorded, recorded()),
    ]
    return [(name, (said.__doc__ or "").splitlines()[0], load) for name, said, load in made]


def measure(run: Run) -> Weeks:
    """Simulate every load's week; an hour of each where only the way is shown."""
    seconds = HOUR if run.quick else WEEK
    hours = 1 if run.quick else OSCILLATION_HOURS
    calms = CALM_SECONDS[:1] if run.quick else CALM_SECONDS
    weeks, oscillations = [], []
    with multiprocessing.Pool(PROCESSES, _begun) as pool:
        named = pool.imap(_week, [(name, seconds, run.seed) for name, _, _ in loads(run.seed)])
        calmed = pool.imap(_oscillation, [(calm, hours, run.seed) for calm in calms])
        for week in named:
            run.say(
                f"stability, {week.name}: {week.per_day:.1f} changes a day, "
                f"{week.over_hot:.2%} of the time over"
            )
            weeks.append(week)
        for found in calmed:
            run.say(f"stability, calm for {found.calm_seconds:.0f} s: {found.changes} changes an hour")
            oscillations.append(found)
    return Weeks(weeks, oscillations)


def _begun() -> None:
    """A simulating process ends when it is told to, without a word; Ctrl-C is for the one that began it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _week(what: tuple[str, float, int]) -> Week:
    named, seconds, seed = what
    ((name, said, load),) = (each for each in loads(seed) if each[0] == named)
    return simulated(name, said, load, seconds, seed)


def _oscillation(what: tuple[float, int, int]) -> Oscillation:
    calm_seconds, hours, seed = what
    week = simulated("", "", oscillating(calm_seconds), hours * HOUR, seed)
    return Oscillation(calm_seconds, [week.hours.count(hour) for hour in range(hours)])


def simulated(name: str, what: str, load: Load, seconds: float, seed: int) -> Week:
    """Drive the engine through one load."""
    plain = quiet()
    model = _Stream(spec(), plain, partitions=PARTITIONS, seed=seed)
    began = model.at
    watched_until, changes, turns = began + WATCHED_SECONDS, [], 0
    reasons: Counter[str] = Counter()
    over = over_hot = plain_over_hot = 0.0
    while model.at < began + seconds:
        rates = {**plain, **load(model.at - began)}
        jumped, model.rates = _jumped(model.rates, rates), rates
        found = model.load()
        is_over, is_hot = _is_over(found), max(found) > TRIGGER
        if jumped or (is_over and is_hot):
            watched_until = model.at + WATCHED_SECONDS
        step = CLOSE_SECONDS if model.at < watched_until else FAR_SECONDS
        over += step * is_over
        over_hot += step * (is_over and is_hot)
        bare = _bare(rates)
        plain_over_hot += step * (_is_over(bare) and max(bare) > TRIGGER)
        decision = model.turn(step)
        model.decisions.clear()
        turns += 1
        if turns > 1 and any(isinstance(action, WriteTable) for action in decision.actions):
            changes.append(model.at)
            reasons[str(decision.reason)] += 1
            watched_until = model.at + WATCHED_SECONDS
    return Week(
        name=name,
        what=what,
        days=seconds / DAY,
        turns=turns,
        changes=len(changes),
        reasons=dict(reasons.most_common()),
        worst_hour=_worst_hour(changes),
        hours=[int((at - began) // HOUR) for at in changes],
        over=over / seconds,
        over_hot=over_hot / seconds,
        plain_over_hot=plain_over_hot / seconds,
    )


def _jumped(before: Rates, after: Rates) -> bool:
    """Whether some key's rate is another one than a turn before."""
    keys = before.keys() | after.keys()
    return any(
        abs(after.get(key, 0.0) - before.get(key, 0.0)) > JUMP * max(before.get(key, 0.0), QUIET_RATE)
        for key in keys
    )


def _is_over(found: Sequence[float]) -> bool:
    return (imbalance(found) or 0.0) > BALANCED


def _bare(rates: Rates) -> list[float]:
    """The load of each partition with every key plain."""
    found = [0.0] * PARTITIONS
    for key, rate in rates.items():
        found[home(key, PARTITIONS)] += rate
    return found


def _worst_hour(changes: Sequence[float]) -> int:
    return max((sum(start <= at < start + HOUR for at in changes) for start in changes), default=0)


def section(result: Weeks) -> str:
    """The figures for people."""
    rows = [
        f"| {week.name} | {week.per_day:.1f} | {week.worst_hour} | {week.over_hot:.2%} | "
        f"{week.plain_over_hot:.1%} | {week.over:.1%} | {_reasons(week)} |"
        for week in result.weeks
    ]
    days = result.weeks[0].days
    how = (
        f"`python -m bench stability`: {days:.3g} simulated days of each load on {PARTITIONS} partitions "
        f"with the shipped defaults and {QUIET_RATE:.0f} records/s of other keys on each. Turns are "
        f"{CLOSE_SECONDS:.0f} s apart for {WATCHED_SECONDS:.0f} s after the load or the table changed or a "
        "partition was over the trigger, "
        f"else {FAR_SECONDS:.0f} s; samples hold {SAMPLED} records. To mend is what is over the trigger with "
        "max/mean over 1.2: that is the share of time to go by. What is under the trigger is left as it is."
    )
    return "\n".join(
        [
            "## Stability\n",
            how,
            "\n| load | changes a day | worst hour | to mend | without hotkey | all over 1.2 | changes |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            *(f"- {week.name}: {week.what}" for week in result.weeks),
            "\nA key that is hot for half a minute and then calm, at the periods around each doubling of the "
            "release time: changes of routes in each hour.\n",
            "| calm, s | changes in each hour |\n|---|---|",
            *(
                f"| {each.calm_seconds:.0f} | {', '.join(map(str, each.changes))} |"
                for each in result.oscillations
            ),
        ]
    )


def _reasons(week: Week) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in week.reasons.items()) or "none"
