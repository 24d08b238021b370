"""A second table whose rows belong to those of the first: texts of another language, a split, a translation."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from unitweave.core.errors import InputError
from unitweave.core.progress import echo
from unitweave.corpus.readers.records import Record, with_fields

PREFIX = "joined"  # a column NAME of the second table is joined.NAME
_KEYS = ("sentence", "id", "path")


class Join:
    """The rows of the second table by their key.

    A key that stands in several rows of both tables is matched in order, the last ones by the first again: FLEURS has
    two or three recordings of a sentence in each language.

    Args:
        records: The rows of the second table.
        columns: Names of its columns.
        others: Names of the first table's columns.
        on: The column by which rows belong together, or COLUMN=COLUMN where their names differ; None for the first
            of sentence, id and path that both have.
        where: Name of the second table, for messages.

    Raises:
        InputError: A table has no such column.
    """

    def __init__(
        self, records: Iterable[Record], columns: Sequence[str], others: Sequence[str], on: str | None, where: str
    ) -> None:
        on = on or next((name for name in _KEYS if name in columns and name in others), None)
        if not on:
            raise InputError(f"{where}: name the column to join by with --on; it has {', '.join(columns)}")
        self.left, _, right = on.partition("=")
        self.right, self.where = right or self.left, where
        for name, names, table in ((self.left, others, "the table"), (self.right, columns, where)):
            if name not in names:
                raise InputError(f"--on {on}: {table} has no column {name!r}; it has {', '.join(names)}")
        self.columns = [*(f"{PREFIX}.{name}" for name in columns)]
        self.rows: dict[str, list[Mapping[str, Any]]] = {}
        for record in records:
            values = with_fields(record.values)
            if (key := _key(values.get(self.right))) is not None:
                self.rows.setdefault(key, []).append(record.values)

    def __call__(self, records: Iterable[Record], name: str) -> Iterator[Record]:
        """The rows of the first table with those that belong to them; the others are left out and counted."""
        seen: dict[str, int] = {}
        total = 0
        for record in records:
            total += 1
            key = None if record.problem else _key(with_fields(record.values).get(self.left))
            rows = self.rows.get(key) if key is not None else None
            if rows and key is not None:
                place = seen.get(key, 0)
                seen[key] = place + 1
                yield Record(record.number, {**record.values, PREFIX: rows[place % len(rows)]})
            elif record.problem:
                yield record
        matched = sum(seen.values())
        if total and not matched:
            raise InputError(
                f"{self.where}: none of its {self.right}, such as {next(iter(self.rows), None)!r}, is a {self.left} of "
                f"{name}; name the columns with --on"
            )
        if matched < total:
            echo(f"corpus: {total - matched:,} of {total:,} rows of {name} have no row in {self.where}")


def joined_defaults(columns: Sequence[str]) -> dict[str, str]:
    """The target's columns where the second table has a manifest's names for its source, as FLEURS and Kaldi have."""
    names = {f"tgt_{what}": f"{PREFIX}.src_{what}" for what in ("audio", "text", "start", "end", "duration")}
    return {ours: theirs for ours, theirs in names.items() if theirs in columns}


def _key(value: Any) -> str | None:
    text = "" if value is None or value != value else str(value).strip()
    return text or None
