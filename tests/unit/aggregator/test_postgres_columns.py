"""The bytes and sums that the PostgreSQL store sends, against plain and slow ways to make them."""

from __future__ import annotations

import struct
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hotkey_aggregator.postgres_copy import (
    COPY_HEADER,
    COPY_TRAILER,
    Texts,
    copy_rows,
    escaped,
    int8_array,
    unescaped,
)
from hotkey_aggregator.postgres_windows import sum_up
from hotkey_aggregator.windows import minute_of
from tests.contract.aggregator.flushes import Row, clicks

TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\x00\x01\x02a"), max_size=8)
INTEGER = st.integers(-(2**63), 2**63 - 1)


def plain_rows(rows: list[tuple[int, str, str]]) -> bytes:
    """Rows as the manual of COPY describes them."""
    out = COPY_HEADER
    for number, *texts in rows:
        out += struct.pack(">hiq", 3, 8, number)
        for text in texts:
            value = escaped(text).encode()
            out += struct.pack(">i", len(value)) + value
    return out + COPY_TRAILER


@given(st.lists(st.tuples(INTEGER, TEXT, TEXT), min_size=1))
def test_rows_are_laid_out_as_copy_reads_them(rows: list[tuple[int, str, str]]) -> None:
    numbers = np.array([number for number, _, _ in rows], np.int64)
    texts = [Texts.of([one for _, one, _ in rows]), Texts.of([other for _, _, other in rows])]
    assert b"".join(copy_rows([numbers], texts)) == plain_rows(rows)


def test_rows_of_ids_of_one_length_are_laid_out_over_all_chunks() -> None:
    ids = [f"{number:08}" for number in range(20_000)]
    numbers = np.arange(len(ids), dtype=np.int64) - 10_000

    found = b"".join(copy_rows([numbers, numbers], [Texts.of(ids)]))

    rows = [
        struct.pack(">hiqiqi", 3, 8, n, 8, n, 8) + text.encode() for n, text in zip(numbers, ids, strict=True)
    ]
    assert found == COPY_HEADER + b"".join(rows) + COPY_TRAILER


def test_rows_of_long_texts_are_laid_out_over_all_chunks() -> None:
    rows = [(number, "x" * (number * 40_000), "y" * (400_000 - number)) for number in range(40)]
    numbers = np.array([number for number, _, _ in rows], np.int64)
    texts = [Texts.of([one for _, one, _ in rows]), Texts.of([other for _, _, other in rows])]
    assert b"".join(copy_rows([numbers], texts)) == plain_rows(rows)


@given(st.lists(TEXT, min_size=1) | st.lists(st.sampled_from(["ab", "cd"]), min_size=1), st.data())
def test_texts_are_taken_in_any_order(texts: list[str], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.sampled_from(range(len(texts)))))

    found = Texts.of(texts).take(np.array(rows, np.int64))

    expected = Texts.of([texts[row] for row in rows])
    assert found.data.tobytes() == expected.data.tobytes()
    assert found.lengths.tolist() == expected.lengths.tolist()


@given(st.lists(INTEGER))
def test_an_array_of_integers_is_in_the_servers_binary_form(values: list[int]) -> None:
    elements = b"".join(struct.pack(">iq", 8, value) for value in values)
    expected = struct.pack(">iiiii", 1, 0, 20, len(values), 1) + elements
    assert int8_array(np.array(values, np.int64)) == expected


@given(TEXT, TEXT)
def test_escaping_keeps_texts_apart_their_order_and_their_prefixes(one: str, other: str) -> None:
    assert unescaped(escaped(one)) == one
    assert "\x00" not in escaped(one)
    assert (escaped(one) < escaped(other)) == (one < other)
    assert escaped(one).startswith(escaped(other)) == one.startswith(other)


ROW = st.builds(
    Row,
    event_id=st.just("e"),
    advertiser_id=st.sampled_from(["nike", "a\x00", "a\x01\x01", ""]),
    ad_id=st.sampled_from("ab\u202e"),
    time=st.sampled_from([0, 59_999, 60_000, 253_402_300_799_999]),
    cost=st.integers(0, 2**63 - 1),
)


@given(st.lists(ROW, min_size=1, max_size=30), st.data())
def test_windows_are_summed_as_a_plain_loop_does(rows: list[Row], data: st.DataObject) -> None:
    # given some of the clicks of a flush
    chosen = data.draw(st.lists(st.sampled_from(range(len(rows))), min_size=1, unique=True))

    # when
    deltas = sum_up(clicks(*rows), np.array(chosen, np.int64))

    # then
    found, cost, expected, expected_cost = (Counter[tuple[str, str, int]]() for _ in range(4))
    for number, minute in enumerate(deltas.minutes.tolist()):
        window = (text_at(deltas.advertiser_ids, number), text_at(deltas.ad_ids, number), minute)
        found[window] += int(deltas.clicks[number])
        cost[window] += int(deltas.costs[number])
    for index in chosen:
        row = rows[index]
        expected[escaped(row.advertiser_id), row.ad_id, minute_of(row.time)] += 1
        expected_cost[escaped(row.advertiser_id), row.ad_id, minute_of(row.time)] += row.cost
    assert (found, cost) == (expected, expected_cost)
    assert deltas.minutes.tolist() == sorted(deltas.minutes.tolist())
    assert (deltas.clicks > 0).sum() == len(expected)


def text_at(texts: Texts, number: int) -> str:
    end = int(texts.lengths[: number + 1].sum())
    return texts.data[end - int(texts.lengths[number]) : end].tobytes().decode()
