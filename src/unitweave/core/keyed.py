"""Rows that are looked up by their id, of which none is an object before it is looked at."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar, overload

import numpy as np
import pyarrow as pa

Row = TypeVar("Row")


class HashIndex:
    """Where rows are, by their keys: 16 bytes a row, and no key is kept."""

    def __init__(self, keys: Iterable[Hashable], key: Callable[[int], Hashable]) -> None:
        """See the class.

        Args:
            keys: Of the rows, in their order.
            key: Makes the key of the row at a position.
        """
        hashes = np.fromiter(map(hash, keys), np.int64)
        self._order = np.argsort(hashes, kind="stable")
        self._hashes, self._key = hashes[self._order], key

    def find(self, key: object) -> int | None:
        """The position of a row, the first of several; None where there is none."""
        wanted = hash(key)
        candidate = int(np.searchsorted(self._hashes, wanted))
        while candidate < len(self._hashes) and self._hashes[candidate] == wanted:
            position = int(self._order[candidate])
            if self._key(position) == key:
                return position
            candidate += 1
        return None

    def duplicate(self) -> Hashable | None:
        """A key that two rows have; None where there is none."""
        for candidate in np.flatnonzero(self._hashes[1:] == self._hashes[:-1]).tolist():
            first, second = (self._key(int(self._order[candidate + i])) for i in (0, 1))
            if first == second:
                return first
        return None


class Keyed(Mapping[str, Row], Generic[Row]):
    """Id -> row: 16 bytes a row next to the ids themselves."""

    def __init__(self, ids: pa.ChunkedArray | pa.Array, row: Callable[[int], Row]) -> None:
        """See the class.

        Args:
            ids: Of the rows, in their order.
            row: Makes the row at a position.
        """
        self.ids, self._row = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids, row
        self._index = HashIndex(self, lambda position: self.ids[position].as_py())

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self.ids), 1024):
            yield from self.ids.slice(first, 1024).to_pylist()

    def __contains__(self, id: object) -> bool:
        return self._index.find(id) is not None

    def __getitem__(self, id: str) -> Row:
        position = self._index.find(id)
        if position is None:
            raise KeyError(id)
        return self._row(position)


class Lazy(Sequence[Row], Generic[Row]):
    """What a function gives for each of some keys, in their order, made whenever it is looked at."""

    def __init__(self, keys: Sequence[str] | Sequence[int], row: Callable[..., Row]) -> None:
        self._keys, self._make = keys, row

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, index: int) -> Row: ...

    @overload
    def __getitem__(self, index: slice) -> "Lazy[Row]": ...

    def __getitem__(self, index: int | slice) -> "Row | Lazy[Row]":
        return Lazy(self._keys[index], self._make) if isinstance(index, slice) else self._make(self._keys[index])
