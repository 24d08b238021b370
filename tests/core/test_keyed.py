"""Rows that are looked up by id, none of them an object before it is looked at."""

import pyarrow as pa
import pytest

from unitweave.core.keyed import Keyed, Lazy


def test_a_row_is_made_when_it_is_looked_at_and_only_then() -> None:
    made: list[int] = []
    ids = [f"utterance {i}" for i in range(3000)]
    rows = Keyed(pa.chunked_array([ids[:10], ids[10:]]), lambda place: made.append(place) or place * 2)
    assert list(rows) == ids and len(rows) == 3000 and "utterance 7" in rows and "nobody" not in rows and not made
    assert rows["utterance 2999"] == 5998 and rows.get("utterance 0") == 0 and made == [2999, 0]
    with pytest.raises(KeyError):
        rows["nobody"]
    assert dict(Keyed(pa.array([], pa.string()), str)) == {}


def test_of_rows_with_one_id_the_first_counts() -> None:
    assert Keyed(pa.array(["b", "a", "b"]), int)["b"] == 0


def test_a_lazy_sequence_is_made_anew_at_each_look() -> None:
    lazy = Lazy(["b", "a", "c"], str.upper)
    assert list(lazy) == ["B", "A", "C"] and list(lazy[1:]) == ["A", "C"] and len(lazy[:2]) == 2 and lazy[-1] == "C"
