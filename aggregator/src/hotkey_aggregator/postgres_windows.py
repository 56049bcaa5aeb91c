"""The clicks of a flush summed up by window, in columns.

Pure: it is given clicks and which of them count, and knows no database.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from hotkey_aggregator.postgres_copy import Integers, Texts
from hotkey_aggregator.windows import WINDOW_MILLISECONDS, Clicks

_LOW_BITS = 32
_LOW = (1 << _LOW_BITS) - 1
_COST_BITS = 62
"""A row's cost stays below 2**62; what is more goes into further rows."""


@dataclass(frozen=True, slots=True)
class Deltas:
    """What a flush adds to windows; entry i of each column is one row.

    A window has more than one if need be.
    """

    minutes: Integers
    """Unix milliseconds; ascending."""
    clicks: Integers
    costs: Integers
    advertiser_ids: Texts
    ad_ids: Texts


def sum_up(clicks: Clicks, counting: Integers) -> Deltas:
    """The windows of the clicks with these indices (at least one), those of an advertiser side by side."""
    advertisers, advertiser_names = _encoded(clicks.advertiser_ids)
    ads, ad_names = _encoded(clicks.ad_ids)
    times = np.asarray(clicks.click_times, np.int64)[counting]
    minutes, minute_of = np.unique(times - times % WINDOW_MILLISECONDS, return_inverse=True)
    window = (minute_of * len(advertiser_names) + advertisers[counting]) * len(ad_names) + ads[counting]
    order = np.argsort(window)
    starts = np.flatnonzero(np.diff(window[order], prepend=-1))
    high, low = _sums(np.asarray(clicks.costs, np.int64)[counting[order]], starts)
    one_of_each = order[starts]
    number = np.diff(starts, append=len(order))
    # A row for each 2**62 that a cost holds: none, but where somebody sends absurd ones.
    rows = np.repeat(np.arange(len(starts)), 1 + (high >> (_COST_BITS - _LOW_BITS)))
    first = np.diff(rows, prepend=-1) != 0
    rest = ((high & ((1 << (_COST_BITS - _LOW_BITS)) - 1)) << _LOW_BITS) + low
    chosen = one_of_each[rows]
    return Deltas(
        minutes=minutes[minute_of[chosen]],
        clicks=np.where(first, number[rows], 0),
        costs=np.where(first, rest[rows], 1 << _COST_BITS),
        advertiser_ids=_texts(advertiser_names, advertisers[counting[chosen]]),
        ad_ids=_texts(ad_names, ads[counting[chosen]]),
    )


def _encoded(names: Sequence[str]) -> tuple[Integers, pa.LargeStringArray]:
    """Each name as an index into the distinct ones."""
    encoded = pa.array(names, pa.large_string()).dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary


def _sums(costs: Integers, starts: Integers) -> tuple[Integers, Integers]:
    """The sum of each group as `high * 2**32 + low`: that of a flush may be more than 64 bits hold."""
    high = np.add.reduceat(costs >> _LOW_BITS, starts)
    low = np.add.reduceat(costs & _LOW, starts)
    return high + (low >> _LOW_BITS), low & _LOW


def _texts(names: pa.LargeStringArray, chosen: Integers) -> Texts:
    taken = Texts.as_they_are(names.take(pa.array(chosen)))
    return Texts.of(names.to_pylist()).take(chosen) if (taken.data <= 1).any() else taken
