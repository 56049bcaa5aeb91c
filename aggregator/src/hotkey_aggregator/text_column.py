"""Texts of many clicks as Arrow keeps them: a tenth of the memory of as many Python strings.

What is read of a batch is laid out while its strings are still in the processor's cache. It knows neither
clicks nor stores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import pyarrow as pa


class TextColumn(Sequence[str]):
    """A growing column; as a sequence it makes Python strings of all that it has, once."""

    def __init__(self) -> None:
        self._chunks: list[pa.Array] = []
        self._length = 0
        self._strings: list[str] | None = None

    def append(self, texts: Sequence[str]) -> None:
        """Put texts behind those that are there."""
        self._chunks.append(pa.array(texts, pa.string()))
        self._length += len(texts)
        self._strings = None

    def filter(self, kept: pa.Array) -> TextColumn:
        """A column of those texts where `kept` (booleans, one for each) is true."""
        left = TextColumn()
        left._chunks = self.arrow().filter(kept).chunks
        left._length = sum(map(len, left._chunks))
        return left

    def arrow(self) -> pa.ChunkedArray:
        """The same memory, in the chunks in which it was filled."""
        return pa.chunked_array(self._chunks, pa.string())

    def __arrow_array__(self, type: pa.DataType | None = None) -> pa.Array:
        """What `pa.array(column)` calls: a copy in one piece."""
        whole = self.arrow().combine_chunks()
        return whole if type is None else whole.cast(type)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[str]:
        return iter(self._listed())

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return self._listed()[index]

    def _listed(self) -> list[str]:
        if self._strings is None:
            self._strings = self.arrow().to_pylist()
        return self._strings
