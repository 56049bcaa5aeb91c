"""What each partition carries now, as well as the readings of end offsets tell, and how sure that is.

One second's count is noise: of counting, and of brokers and clients that are busy and deliver by fits and
starts. So the noise is measured, never assumed. It knows nothing of keys.
"""

from __future__ import annotations

import itertools
import math
import statistics
from bisect import bisect_left
from dataclasses import dataclass, replace

from hotkey_operator.engine.rates import FAST_SECONDS, SLOW_SECONDS, Column, History, Rates, fast, over

SURELY = 3.0  # standard deviations
APART = 5.0  # standard errors: seen in ten seconds, by each partition, every second
CERTAIN = 2.0  # standard errors
CALM_PART = 0.25  # of the partitions is taken not to have changed: what they deviate by is noise
CALM_NORMAL = 0.319  # standard deviations: so many of a normal distribution are nearer to its mean
MEDIAN_ERROR = 1.25  # of the median of normal values, to that of their mean
NORMAL_QUARTILES = 1.349  # standard deviations between the quartiles of a normal distribution
QUARTILES_ERROR = 5.45  # n times the variance of n normal values' variance by their quartiles, to its square
STEPS_AT_LEAST = 5  # of time, before their spread says how sure a part is


def steady(history: History, since: float) -> Rates | None:
    """The best guess of each partition's rate now: slow where it holds, else fast.

    A second's count of a quiet partition has a noise of 1/sqrt(count); a minute's has an eighth of it, but
    is wrong where the rate has just changed. What all partitions changed by alike is taken off first: their
    parts of the load may hold where their rates do not. The slow one is then taken where the fast one is
    within three standard deviations of it. These are of a Poisson count, or more where the quarter of the
    partitions that deviate least deviate by more. `since`: readings before it are left out.
    """
    now_rates = fast(history)
    if now_rates is None:
        return None
    slow_rates = over(after(history, since), SLOW_SECONDS)
    if slow_rates is None:
        return now_rates
    common = _common(slow_rates, now_rates)
    expected = [common * rate for rate in slow_rates]
    off = [_deviation(rate, now) for rate, now in zip(expected, now_rates, strict=True)]
    noise = max(1.0, sorted(map(abs, off))[int(CALM_PART * len(off))] / CALM_NORMAL)
    found = zip(expected, now_rates, off, strict=True)
    return tuple(rate if abs(by) <= SURELY * noise else now for rate, now, by in found)


def _common(slow_rates: Rates, now_rates: Rates) -> float:
    """By which factor all partitions changed; 1 where that may be chance."""
    off = sorted(map(_deviation, slow_rates, now_rates))
    if abs(off[(len(off) - 1) // 2]) * math.sqrt(len(off)) <= SURELY * MEDIAN_ERROR:
        return 1.0
    pairs = zip(slow_rates, now_rates, strict=True)
    factors = sorted(now / rate for rate, now in pairs if rate * FAST_SECONDS >= 1)
    return factors[(len(factors) - 1) // 2] if factors else 1.0


def _deviation(expected: float, measured: float) -> float:
    """In standard deviations of a Poisson count of so many seconds."""
    return (measured - expected) * math.sqrt(FAST_SECONDS / max(expected, 1.0))


def after(history: History, since: float) -> History:
    """The history without its readings from before `since`; the newest one of each partition stays."""
    if all(column.times[0] >= since for column in history.columns):
        return history
    columns = []
    for column in history.columns:
        first = min(bisect_left(column.times, since), len(column.times) - 1)
        columns.append(Column(column.times[first:], column.offsets[first:], column.stalls[first:]))
    return replace(history, columns=tuple(columns))


@dataclass(frozen=True, slots=True)
class Parts:
    """The part of the topic's load that each partition carries, and the standard error of each."""

    values: tuple[float, ...]
    errors: tuple[float, ...]

    def believed(self) -> tuple[float, ...]:
        """The parts as they are where they surely differ, else drawn together by what may be chance.

        A part surely differs where it is five standard errors from the median, its own or those of all,
        whichever are larger: one burst makes its own error as large as the difference. The others are the
        posterior means of equal priors whose variance is that of the parts less that of the errors
        (empirical Bayes; Efron and Morris 1975). The former is by the middle half of the parts, so a few far
        ones do not make the others believed; the latter is taken two standard errors too high: where all
        differences may be chance none is left.
        """
        if len(self.values) < 2:
            return self.values
        low, middle, high = statistics.quantiles(self.values, n=4, method="inclusive")
        error = math.sqrt(statistics.fmean(error**2 for error in self.errors))
        variance = ((high - low) / NORMAL_QUARTILES) ** 2
        chance = error**2 * (1 + CERTAIN * math.sqrt(QUARTILES_ERROR / len(self.values)))
        trust = max(0.0, 1 - chance / variance) if variance > 0 else 0.0
        found = tuple(
            part if abs(part - middle) > APART * max(error, own) else middle + trust * (part - middle)
            for part, own in zip(self.values, self.errors, strict=True)
        )
        whole = sum(found)
        return tuple(part / whole for part in found) if whole > 0 else found


def parts(history: History, since: float) -> Parts | None:
    """What each partition carries of all, counted from `since` on; None while that says too little.

    Every step of time is a cluster of records, and a part is the ratio estimator over them: with x_i of n_i
    records in step i, `var = m/(m-1) * sum((x_i - f*n_i)^2) / (sum n_i)^2` (Cochran, Sampling Techniques,
    chapter 9A). So the error has what makes counts uneven: chance, and batches that come by fits and starts.
    `m` is how many steps of equal size these are worth, `(sum n_i)^2 / sum n_i^2`: a burst after a calm tells
    little of how it may differ from the next one.
    """
    times = history.columns[0].times
    first = bisect_left(times, since)
    if any(column.times != times for column in history.columns) or len(times) - first <= STEPS_AT_LEAST:
        return None
    taken = [
        [history.real_part(p) * (b - a) for a, b in itertools.pairwise(column.offsets[first:])]
        for p, column in enumerate(history.columns)
    ]
    steps = [sum(step) for step in zip(*taken, strict=True)]
    whole = sum(steps)
    count = whole**2 / sum(step * step for step in steps) if whole > 0 else 0.0
    if count < STEPS_AT_LEAST:
        return None
    values = tuple(sum(own) / whole for own in taken)
    scale = count / (count - 1) / whole**2
    errors = tuple(
        math.sqrt(scale * sum((x - value * n) ** 2 for x, n in zip(own, steps, strict=True)))
        for own, value in zip(taken, values, strict=True)
    )
    return Parts(values, errors)
