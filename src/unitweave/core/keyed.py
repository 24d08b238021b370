"""Rows that are looked up by their id, of which none is an object before it is looked at."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar, overload

import numpy as np
import pyarrow as pa

Row = TypeVar("Row")


class Keyed(Mapping[str, Row], Generic[Row]):
    """Id -> row: 16 bytes a row next to the ids themselves."""

    def __init__(self, ids: pa.ChunkedArray | pa.Array, row: Callable[[int], Row]) -> None:
        """See the class.

        Args:
            ids: Of the rows, in their order.
            row: Makes the row at a place.
        """
        self.ids, self._row = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids, row
        hashes = np.fromiter((hash(id) for id in self), np.int64, len(ids))
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self.ids), 1024):
            yield from self.ids.slice(first, 1024).to_pylist()

    def place(self, id: object) -> int | None:
        """Where a row is, the first of several; None where there is none."""
        wanted = hash(id)
        at = int(np.searchsorted(self._hashes, wanted))
        while at < len(self) and self._hashes[at] == wanted:
            place = int(self._order[at])
            if self.ids[place].as_py() == id:
                return place
            at += 1
        return None

    def __contains__(self, id: object) -> bool:
        return self.place(id) is not None

    def __getitem__(self, id: str) -> Row:
        place = self.place(id)
        if place is None:
            raise KeyError(id)
        return self._row(place)


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
