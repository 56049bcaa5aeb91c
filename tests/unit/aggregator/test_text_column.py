"""Texts that are kept as Arrow keeps them and read as a sequence of strings."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from hotkey_aggregator.text_column import TextColumn

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
BATCHES = st.lists(st.lists(TEXTS, max_size=5), max_size=5)


def filled(batches: list[list[str]]) -> TextColumn:
    column = TextColumn()
    for batch in batches:
        column.append(batch)
    return column


@given(BATCHES)
def test_a_column_is_the_sequence_of_all_texts_that_were_put_into_it(batches: list[list[str]]) -> None:
    texts = [text for batch in batches for text in batch]
    column = filled(batches)

    assert (len(column), list(column), column[:]) == (len(texts), texts, texts)
    assert [column[index] for index in range(len(texts))] == texts
    assert column.arrow().to_pylist() == texts


@given(BATCHES)
def test_arrow_takes_a_column_in_the_type_it_asks_for(batches: list[list[str]]) -> None:
    texts = [text for batch in batches for text in batch]

    for kind in (pa.string(), pa.large_string()):
        assert pa.array(filled(batches), kind).equals(pa.array(texts, kind))


@given(BATCHES, st.data())
def test_a_filtered_column_has_the_texts_that_were_chosen(
    batches: list[list[str]], data: st.DataObject
) -> None:
    texts = [text for batch in batches for text in batch]
    kept = data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts)))

    left = filled(batches).filter(pa.array(kept, pa.bool_()))

    assert list(left) == [text for text, is_kept in zip(texts, kept, strict=True) if is_kept]
    assert len(left) == sum(kept)


def test_what_is_put_in_after_a_column_was_read_is_read_too() -> None:
    column = filled([["a"]])
    assert list(column) == ["a"]

    column.append(["b"])

    assert list(column) == ["a", "b"]
