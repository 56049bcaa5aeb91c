"""The clicks of a flush summed up by window, in columns.

Pure: it is given clicks and which of them count, and knows no database.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from hotkey_aggregator.postgres_copy import Hashing, Integers
from hotkey_aggregator.windows import WINDOW_MILLISECONDS, Clicks

_LOW_BITS = 32
_LOW = (1 << _LOW_BITS) - 1


@dataclass(frozen=True, slots=True)
class Deltas:
    """What a flush adds to each window; entry i of each column is one window."""

    minutes: Integers
    """Unix milliseconds."""
    advertiser_keys: Integers
    ad_keys: Integers
    """Digests of the advertiser and of the ad, which an index can hold whatever their length."""
    clicks: Integers
    costs_high: Integers
    costs_low: Integers
    """The cost is `high * 2**32 + low`: the sum of a flush may be more than 64 bits hold."""
    advertiser_ids: Sequence[str]
    ad_ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.minutes)

    @property
    def order(self) -> Integers:
        """In which all members add to windows, so that none waits for another that waits for it."""
        return np.lexsort((self.ad_keys, self.advertiser_keys, self.minutes))

    def take(self, chosen: Integers) -> Deltas:
        """Some of them, in the order asked for."""
        indices = chosen.tolist()
        return Deltas(
            self.minutes[chosen],
            self.advertiser_keys[chosen],
            self.ad_keys[chosen],
            self.clicks[chosen],
            self.costs_high[chosen],
            self.costs_low[chosen],
            [self.advertiser_ids[index] for index in indices],
            [self.ad_ids[index] for index in indices],
        )

    def with_ad_keys(self, ad_keys: Integers) -> Deltas:
        """The same with other keys for the ads."""
        return Deltas(
            self.minutes,
            self.advertiser_keys,
            ad_keys,
            self.clicks,
            self.costs_high,
            self.costs_low,
            self.advertiser_ids,
            self.ad_ids,
        )


def sum_up(clicks: Clicks, counting: Integers, hashing: Hashing) -> Deltas:
    """The windows of the clicks with these indices (at least one), in no order."""
    advertisers, advertiser_names = _encoded(clicks.advertiser_ids)
    ads, ad_names = _encoded(clicks.ad_ids)
    times = np.asarray(clicks.click_times, np.int64)[counting]
    minutes, minute_of = np.unique(times - times % WINDOW_MILLISECONDS, return_inverse=True)
    window = (minute_of * len(advertiser_names) + advertisers[counting]) * len(ad_names) + ads[counting]
    order = np.argsort(window, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(window[order]) != 0]))
    one_of_each = counting[order[starts]]
    costs = np.asarray(clicks.costs, np.int64)[counting][order]
    high = np.add.reduceat(costs >> _LOW_BITS, starts)
    low = np.add.reduceat(costs & _LOW, starts)
    advertiser, ad = advertisers[one_of_each], ads[one_of_each]
    return Deltas(
        minutes=minutes[minute_of[order[starts]]],
        advertiser_keys=hashing(advertiser_names, 0)[advertiser],
        ad_keys=hashing(ad_names, 0)[ad],
        clicks=np.diff(np.append(starts, len(order))),
        costs_high=high + (low >> _LOW_BITS),
        costs_low=low & _LOW,
        advertiser_ids=[advertiser_names[code] for code in advertiser.tolist()],
        ad_ids=[ad_names[code] for code in ad.tolist()],
    )


def _encoded(names: Sequence[str]) -> tuple[Integers, Sequence[str]]:
    """Each name as an index into the distinct ones."""
    encoded = pa.array(names, pa.large_string()).dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()
