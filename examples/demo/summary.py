"""The demo's last word: what was measured, and whether each promise was kept. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from examples.demo.evidence import Evidence, Span, Window
from examples.load.proof import Proof, wrong_cells

EVEN_ENOUGH = 1.5  # max/mean that counts as spread; 12 partitions with one hot key start near 9.6
SETTLED_MILLISECONDS = 1_000  # records already queued for the hot partition when the spread came


@dataclass(frozen=True, slots=True)
class Verdict:
    """One promise: what was seen, and whether it was kept."""

    name: str
    text: str
    kept: bool

    def __str__(self) -> str:
        return f"{'ok  ' if self.kept else 'FAIL'}  {self.name:<16}{self.text}"


@dataclass(frozen=True, slots=True)
class Course:
    """When the load was told what, in unix milliseconds; None for what did not come to pass."""

    onset: int | None
    cooled: int
    merged_back: int | None
    producers: int


def verdicts(course: Course, evidence: Evidence, proof: Proof, counts: Verdict) -> tuple[Verdict, ...]:
    """Every promise of the demo, judged by the records in Kafka and the counts in the store."""
    if course.onset is None:
        calm = Verdict("no onset", "no partition went over the trigger, so nothing was to be spread", True)
        return (calm, exactly_once(proof, evidence), counts)
    return (
        spread(course, evidence),
        balance(course, evidence),
        merge_back(course, evidence),
        exactly_once(proof, evidence),
        counts,
    )


def spread(course: Course, evidence: Evidence) -> Verdict:
    """From the onset to the first routed record of the slowest producer."""
    at = evidence.spread_at(course.producers)
    if at is None or course.onset is None:
        routed = f"{len(evidence.first_routed)} of {course.producers} producers routed the hot key"
        return Verdict("onset to spread", routed, False)
    first = min(evidence.first_routed.values()) - course.onset
    text = f"{(at - course.onset) / 1000:.2f} s until all producers routed (the first: {first / 1000:.2f} s)"
    return Verdict("onset to spread", text, True)


def balance(course: Course, evidence: Evidence) -> Verdict:
    """max/mean of the partitions between onset and spread, and from the spread until the load cooled."""
    at = evidence.spread_at(course.producers)
    if at is None or course.onset is None:
        return Verdict("imbalance", "there is no after: the key was not spread", False)
    before = evidence.imbalance(Span(course.onset, min(evidence.first_routed.values())))
    after = evidence.imbalance(Span(at + SETTLED_MILLISECONDS, course.cooled))
    if before is None or after is None:
        return Verdict("imbalance", f"too few records to tell: before {before}, after {after}", False)
    return Verdict("imbalance", f"{before:.2f} before, {after:.2f} after", after < min(before, EVEN_ENOUGH))


def merge_back(course: Course, evidence: Evidence) -> Verdict:
    """The hot key is plain again: no route in the table, and no routed record once every producer knew."""
    span = evidence.span
    if course.merged_back is None or span is None:
        return Verdict("merged back", "the key was still routed at the end", False)
    last = max(evidence.last_routed.values(), default=0)
    text = f"{(course.merged_back - course.cooled) / 1000:.1f} s after the load cooled"
    return Verdict("merged back", text, last < span.end - SETTLED_MILLISECONDS or last <= course.merged_back)


def exactly_once(proof: Proof, evidence: Evidence) -> Verdict:
    """Every acknowledged id counted once, none that was never sent."""
    repeats = f" ({evidence.repeats} repeats in Kafka)" if evidence.repeats else ""
    return Verdict("exactly once", f"{proof}{repeats}", proof.holds)


def counts(expected: Mapping[Window, int], counted: Mapping[Window, int]) -> Verdict:
    """The counts per advertiser, ad and minute, against those made from the records anew."""
    wrong = wrong_cells(expected, counted)
    if not wrong:
        return Verdict("counts", f"{len(expected)} windows agree with the records in Kafka", True)
    cell, (should, does) = next(iter(sorted(wrong.items())))
    return Verdict("counts", f"{len(wrong)} windows differ: {cell} holds {does}, the records {should}", False)
