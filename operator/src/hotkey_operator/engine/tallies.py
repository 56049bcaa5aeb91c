"""Keys as producers counted them, turned into the same evidence that samples give.

What producers say is unsigned and may be wrong: it is bounded where it is read, and can at most make a key
that is not hot look hot, which costs a needless spread within the policy's limits. It knows no sketches.
"""

from __future__ import annotations

import math

from hotkey_operator.engine.heavy import TWO_SIDED_95, Evidence, Fraction, KeyEvidence
from hotkey_operator.engine.model import CountedKey, KeyTally


def evidence(tally: KeyTally, at: float) -> Evidence | None:
    """What a tally says of its partition; None when nothing was sent to it.

    A key's part lies between what was counted under it and that with all it may have missed: the middle is
    taken, and half the width goes into the bound beside the error of counting `samples` records only. It says
    nothing of dimensions: producers count keys alone. What is no amount at all is as if it was not told.
    """
    totals = (tally.records_per_second, tally.bytes_per_second, tally.unlisted)
    if not all(map(_is_amount, totals)) or tally.records_per_second == 0 or tally.samples <= 0:
        return None
    return Evidence(
        at=at,
        records=_effective(tally),
        mean_bytes=tally.bytes_per_second / tally.records_per_second,
        keys={key: _key(tally, counted) for key, counted in tally.keys.items() if _is_sound(counted)},
    )


def _is_sound(counted: CountedKey) -> bool:
    return all(map(_is_amount, (counted.records_per_second, counted.bytes_per_second, counted.missed)))


def _is_amount(number: float) -> bool:
    return 0 <= number < math.inf


def _effective(tally: KeyTally) -> int:
    """So many records that a key which none of them shows carries at most about `unlisted`."""
    if tally.unlisted <= 0:
        return tally.samples
    return max(1, int(min(tally.samples, tally.records_per_second / tally.unlisted)))


def _key(tally: KeyTally, counted: CountedKey) -> KeyEvidence:
    records = _part(tally, counted, counted.records_per_second / tally.records_per_second)
    if tally.bytes_per_second <= 0:
        return KeyEvidence(records, Fraction(0.0, 1.0))
    return KeyEvidence(records, _part(tally, counted, counted.bytes_per_second / tally.bytes_per_second))


def _part(tally: KeyTally, counted: CountedKey, least: float) -> Fraction:
    missed = max(0.0, min(counted.missed / tally.records_per_second, 1 - least))
    value = min(1.0, least + missed / 2)
    smoothed = (value * tally.samples + 1) / (tally.samples + 2)
    sampling = math.sqrt(smoothed * (1 - smoothed) / tally.samples)
    return Fraction(value, sampling + missed / 2 / TWO_SIDED_95)
