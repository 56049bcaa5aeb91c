"""How far consumer groups are behind, and whether a partition that takes more than its share is why.

It knows nothing of keys: that the lagging partition carries a heavy key is found as for any hot partition.
A group that is behind everywhere alike, or that stands still where the load is ordinary, is slow: no key is
to blame, and moving one would not help.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hotkey_operator.engine.backlog import Readings, read
from hotkey_operator.engine.model import Committed, ConsumerLag, Progress
from hotkey_operator.engine.rates import STEADY_SECONDS, History, fast, over
from hotkey_operator.engine.recency import REPORT_SECONDS, within
from hotkey_operator.engine.spec import PolicySpec, Release, Source, Trigger
from hotkey_sdk.routing.report import ClientReport, Role

LOOK_SECONDS = 3.0  # between two looks at the groups
PAIRS_PER_SECOND = 2_000.0  # (group, partition) pairs that are asked for; more make the looks rarer
GROUPS_AT_MOST = 64  # of one stream
REPORTED_AT_MOST = 16  # of them; reports are not signed, and each group costs a client
READINGS_KEPT = 10  # of a group: a half of them, every 3 s, meets each phase of commits every 5 s once
RECENT_READINGS = 6  # the newest, in which a slow group is behind and a dead one stands still: three commits
STALE_SECONDS = 30.0  # what was seen longer ago says nothing of now
TREND_SECONDS = 9.0  # over which a group must be behind before it is called slow, or seen to stand still
LIMIT_SECONDS = 3_600.0  # for so long a key does not come home to a load that a group could not carry
OUT_OF_LINE = 2.0  # times the lag of the partitions that keep up best
SHARE = 1.25  # of a mean partition's load: less is what hashing gives anyway
SHRINKING = 0.95  # of the backlog before: a group with less is catching up


@dataclass(frozen=True, slots=True)
class Heat:
    """A partition that is hot by lag, and the group that is furthest behind on it."""

    partition: int
    group: str
    seconds: float
    records: int
    first: int


@dataclass(frozen=True, slots=True)
class Slow:
    """A group that is behind without a key to blame. `alike`: about as far on every partition.

    `still`: it commits nothing on `partition`, where it is furthest behind.
    """

    group: str
    partition: int
    seconds: float
    records: int
    alike: bool
    still: bool


@dataclass(frozen=True, slots=True)
class Limit:
    """The records/s that `group` managed on a partition while it fell behind there; seen at `at`."""

    at: float
    records_per_second: float
    group: str = ""


@dataclass(frozen=True, slots=True)
class Lags:
    """What is remembered of the groups. `at`: of the last look; `groups`: readings of each, oldest first;
    `failures`: why some could not be asked then.

    `hot` and `slow` are what the last look told; `limits` outlive it for a while.
    """

    at: float = float("-inf")
    every_seconds: float = LOOK_SECONDS
    groups: Mapping[str, Readings] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    hot: Mapping[int, Heat] = field(default_factory=dict)
    slow: Slow | None = None
    limits: Mapping[int, Limit] = field(default_factory=dict)

    def is_due(self, at: float) -> bool:
        """Whether the groups are to be asked again at `at` (unix seconds)."""
        return not within(at, self.at, self.every_seconds)

    def hot_at(self, at: float, changed_at: float) -> Mapping[int, Heat]:
        """The partitions that are hot by lag; none after routes changed, until it was looked again."""
        return self.hot if self._holds(at, changed_at) else {}

    def slow_at(self, at: float, changed_at: float) -> Slow | None:
        return self.slow if self._holds(at, changed_at) else None

    def _holds(self, at: float, changed_at: float) -> bool:
        return changed_at < self.at and within(at, self.at, STALE_SECONDS + self.every_seconds)


def registered(spec: PolicySpec, reports: Iterable[ClientReport], at: float) -> tuple[str, ...]:
    """The groups to look at: those of `consumers.groups`, then those that SDK consumers report.

    Reports add a few and never replace; `consumers.ignore` keeps one out. None where lag is not asked for,
    and where rates come from producers: then there are no end offsets to be behind of.
    """
    asked = spec.trigger.lag_seconds is not None or bool(spec.consumer_groups)
    if not asked or spec.metrics.source is Source.PRODUCERS:
        return ()
    reported = {
        report.group
        for report in reports
        if report.group and report.role is Role.CONSUMER and abs(at - report.at) <= REPORT_SECONDS
    }
    added = sorted(reported - {*spec.consumer_groups, *spec.ignored_groups})
    return tuple(dict.fromkeys((*spec.consumer_groups, *added[:REPORTED_AT_MOST])))[:GROUPS_AT_MOST]


def seen(
    lags: Lags, trigger: Trigger, progress: Progress, history: History, at: float, changed_at: float
) -> Lags:
    """What is remembered after a look at `at`. `changed_at`: readings from before it say nothing of now."""
    pairs = len(history.columns) * len(progress.groups)
    groups = {each.group: _extended(lags, each, history, progress.starts, at) for each in progress.groups}
    asked = any(each.failure is None for each in progress.groups)
    every = max(LOOK_SECONDS, pairs / PAIRS_PER_SECOND) if asked else STALE_SECONDS / 2
    kept = {p: limit for p, limit in lags.limits.items() if within(at, limit.at, LIMIT_SECONDS)}
    failures = {each.group: each.failure for each in progress.groups if each.failure is not None}
    lags = Lags(at, every, groups, failures, limits=kept)
    steady, quick = over(history, STEADY_SECONDS), fast(history)
    if trigger.lag_seconds is None or steady is None or quick is None:
        return lags
    recent = _recent(lags, changed_at)
    is_big = _more_than_its_share(steady, quick)
    hot = _hot(recent, trigger.lag_seconds, is_big)
    slow = None if hot else _slow(recent, trigger.lag_seconds, is_big)
    limits = {p: _limit(recent[heat.group], heat, at, kept.get(p)) for p, heat in hot.items()}
    managed = {**kept, **{p: limit for p, limit in limits.items() if limit is not None}}
    return replace(lags, hot=hot, slow=slow, limits=managed)


def _extended(
    lags: Lags, committed: Committed, history: History, starts: Mapping[int, int], at: float
) -> Readings:
    known = tuple(
        reading
        for reading in lags.groups.get(committed.group, ())
        if within(at, reading.at, READINGS_KEPT * lags.every_seconds + STALE_SECONDS)
    )
    if committed.failure is not None:
        return known
    reading = read(committed, history, starts, at)
    return (*known, reading)[-READINGS_KEPT:] if reading is not None else ()


def _recent(lags: Lags, changed_at: float) -> dict[str, Readings]:
    """Of each group that was read now, the readings since the routes changed."""
    recent = {
        group: tuple(reading for reading in readings if reading.at > changed_at)
        for group, readings in lags.groups.items()
    }
    return {
        group: readings
        for group, readings in sorted(recent.items())
        if readings and within(lags.at, readings[-1].at, lags.every_seconds)
    }


def _more_than_its_share(*horizons: Sequence[float]) -> Callable[[int], bool]:
    """Over each horizon: the long one is no matter of chance, and the short one forgets soon."""
    limits = [SHARE * sum(rates) / len(rates) for rates in horizons]
    return lambda partition: all(
        rates[partition] > limit for rates, limit in zip(horizons, limits, strict=True)
    )


def _hot(
    recent: Mapping[str, Readings], lag_seconds: float, is_big: Callable[[int], bool]
) -> dict[int, Heat]:
    """Over the trigger twice in a row, out of line, more than its share, and not catching up."""
    found: dict[int, Heat] = {}
    for group, readings in recent.items():
        last = readings[-1]
        for partition, behind in last.behind.items():
            if (
                _is_over(readings[-2:], partition, lag_seconds)
                and behind.seconds >= OUT_OF_LINE * last.usual
                and is_big(partition)
                and not _is_shrinking(readings, partition)
                and not _is_dead(readings, partition, is_big)
                and (partition not in found or found[partition].seconds < behind.seconds)
            ):
                found[partition] = Heat(partition, group, behind.seconds, behind.records, behind.first)
    return found


def _slow(recent: Mapping[str, Readings], lag_seconds: float, is_big: Callable[[int], bool]) -> Slow | None:
    """The group that is furthest behind without a key to blame: over the trigger long, and not catching up.

    A big partition that is hot no more, or not yet, is not held against the group. Nor is a small one while
    all its backlogs together shrink: one consumer works off its partitions one after the other.
    """
    found: list[Slow] = []
    for group, readings in recent.items():
        last = readings[-1]
        late = [p for p in last.behind if _is_over(readings[-RECENT_READINGS:], p, lag_seconds)]
        if last.at - readings[0].at < TREND_SECONDS or _is_shrinking(readings, *late):
            continue
        for partition in late:
            behind = last.behind[partition]
            alike = behind.seconds < OUT_OF_LINE * last.usual
            still = _stands_still(readings, partition)
            blameless = alike or not is_big(partition) or _is_dead(readings, partition, is_big)
            if blameless and not _is_shrinking(readings, partition):
                found.append(Slow(group, partition, behind.seconds, behind.records, alike, still))
    return max(found, key=lambda slow: (slow.seconds, slow.group, -slow.partition), default=None)


def _is_over(readings: Readings, partition: int, lag_seconds: float) -> bool:
    """Whether it is over in each of at least two readings."""
    return len(readings) > 1 and all(reading.seconds(partition) > lag_seconds for reading in readings)


def _is_shrinking(readings: Readings, *partitions: int) -> bool:
    """Whether the backlog is smaller than it was; the lowest of each half, for commits come in steps."""
    backlog = [sum(reading.records(partition) for partition in partitions) for reading in readings]
    half = len(backlog) // 2
    return bool(half) and min(backlog[half:]) < SHRINKING * min(backlog[:half])


def _stands_still(readings: Readings, partition: int) -> bool:
    """Whether nothing was committed on it for long, though there was something to commit."""
    known = [reading for reading in readings[-RECENT_READINGS:] if partition in reading.behind]
    if not known or known[-1].at - known[0].at < TREND_SECONDS:
        return False
    return known[0].behind[partition].first == known[-1].behind[partition].first


def _is_dead(readings: Readings, partition: int, is_big: Callable[[int], bool]) -> bool:
    """Whether it stands still together with a partition of ordinary load: then the consumer is gone."""
    return _stands_still(readings, partition) and any(
        not is_big(other) and _stands_still(readings, other) for other in readings[-1].behind
    )


def _limit(readings: Readings, heat: Heat, at: float, known: Limit | None) -> Limit | None:
    """What the group commits a second there; the least that was seen lately. None: it commits nothing."""
    there = [
        (reading.at, reading.behind[heat.partition].first)
        for reading in readings
        if heat.partition in reading.behind
    ]
    (since, first), (until, last) = there[0], there[-1]
    managed = (last - first) / (until - since) if until > since else 0.0
    if managed <= 0:
        return known
    if known is not None and known.records_per_second <= managed:
        return replace(known, at=at)
    return Limit(at, managed, heat.group)


def in_the_way(
    lags: Lags, trigger: Trigger, release: Release, at: float, home: int, records: float
) -> str | None:
    """Which group keeps a key from its home partition, which would then take `records`/s; None: none does.

    The groups must be close to the end there, and the load under `release.ratio` of what a group could not
    carry when it fell behind there: without the latter, a key that was spread for lag would come home as soon
    as the backlog is gone, and bring it back. A group that is as far behind elsewhere is not counted: it may
    be abandoned, or run once a day, and no key that stays spread makes it faster.
    """
    if trigger.lag_seconds is None:
        return None
    limit = lags.limits.get(home)
    is_known = limit is not None and within(at, limit.at, LIMIT_SECONDS)
    if limit is not None and is_known and records >= release.ratio * limit.records_per_second:
        managed = f"group {limit.group} managed {limit.records_per_second:.0f} there"
        return f"its home, partition {home}, would take {records:.0f} records/s, and {managed}"
    near = release.ratio * trigger.lag_seconds
    for group, readings in sorted(lags.groups.items()):
        if readings and within(at, readings[-1].at, STALE_SECONDS + lags.every_seconds):
            behind = min(reading.seconds(home) for reading in readings)
            if behind > near and readings[-1].seconds(home) >= OUT_OF_LINE * readings[-1].usual:
                return f"group {group} is {behind:.0f} s behind on its home, partition {home}"
    return None


def told(lags: Lags, at: float) -> tuple[ConsumerLag, ...]:
    """Each group that was asked for, with the partition on which it is furthest behind."""
    return tuple(_told(group, lags, at) for group in sorted(lags.groups))


def _told(group: str, lags: Lags, at: float) -> ConsumerLag:
    readings, failure = lags.groups.get(group, ()), lags.failures.get(group)
    if not readings or not within(at, readings[-1].at, STALE_SECONDS + lags.every_seconds):
        return ConsumerLag(group, failure=failure)
    behind = readings[-1].behind
    if not behind:
        return ConsumerLag(group, 0.0, None, 0, failure)
    worst = max(behind, key=lambda p: (behind[p].seconds, behind[p].records, -p))
    return ConsumerLag(group, behind[worst].seconds, worst, behind[worst].records, failure)
