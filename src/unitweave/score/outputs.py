"""What a system gave for the test split: its outputs.jsonl."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from unitweave.core.errors import InputError
from unitweave.core.keyed import Keyed
from unitweave.core.manifest import Pair
from unitweave.core.records import records
from unitweave.core.stage import check_count
from unitweave.units.dataset import list_column

OUTPUTS_FILE = "outputs.jsonl"
_REMEDY = "delete the folder to translate again"
_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("audio", pa.string()),
        pa.field("transcript", pa.string()),
        pa.field("translation", pa.string()),
        pa.field("units", pa.list_(pa.int64())),
        pa.field("deduplicated", pa.bool_()),
        pa.field("texts", pa.string()),
    ]
)


@dataclass(frozen=True)
class SystemOutput:
    """A line of a system's outputs.jsonl, as far as it is scored.

    Attributes:
        id: The utterance.
        audio: File of the speech, relative to outputs.jsonl; None where the system gave no speech.
        deduplicated: Whether the units are without repetitions.
        texts: "natural" or "normalized".
    """

    id: str
    audio: str | None = None
    transcript: str | None = None
    translation: str | None = None
    units: list[int] = field(default_factory=list)
    deduplicated: bool = False
    texts: str = "normalized"


class SystemOutputs(Keyed[SystemOutput]):
    """Utterance id -> output, kept as Arrow columns: an output becomes an object when it is looked at."""

    def __init__(self, outputs: Iterator[SystemOutput]) -> None:
        parts = []
        while batch := list(islice(outputs, 1024)):
            parts.append(pa.RecordBatch.from_pylist([vars(output) for output in batch], schema=_SCHEMA))
        self._table = pa.Table.from_batches(parts, _SCHEMA).combine_chunks()
        self._units = list_column(self.column("units"))
        super().__init__(self._table["id"], self._output)

    def column(self, name: str) -> pa.Array:
        """A field of all outputs."""
        return self._table[name].chunk(0) if len(self._table) else pa.array([], _SCHEMA.field(name).type)

    def units(self, place: int) -> np.ndarray:
        """The units of the output at a place: int64 [units]."""
        values, offsets = self._units
        return values[offsets[place] : offsets[place + 1]]

    def _output(self, place: int) -> SystemOutput:
        return SystemOutput(**self._table.slice(place, 1).to_pylist()[0])


def read_outputs(folder: Path, pairs: Mapping[str, Pair]) -> SystemOutputs:
    """Read a system's outputs.jsonl: utterance id -> output.

    Raises:
        InputError: The file is missing or damaged, names an utterance twice or one that is not in `pairs`, or an
            audio file is missing.
    """
    path = folder / OUTPUTS_FILE

    def checked() -> Iterator[SystemOutput]:
        seen: set[str] = set()
        for number, output in enumerate(records(SystemOutput, path), 1):
            if output.id not in pairs:
                raise InputError(f"{path}, line {number}: utterance {output.id!r} is not in the corpus's test split")
            if output.id in seen:
                raise InputError(f"{path}, line {number}: duplicate utterance {output.id!r}")
            if output.audio and not (folder / output.audio).is_file():
                missing = f"{folder / output.audio}: no such audio file, but {path} names it (line {number})"
                raise InputError(f"{missing}; {_REMEDY}")
            if any(not 0 <= unit < 1 << 31 for unit in output.units):
                raise InputError(f"{path}, line {number}: damaged (units must be integers from 0 on)")
            seen.add(output.id)
            yield output

    outputs = SystemOutputs(checked())
    if not outputs:
        raise InputError(f"{path}: no utterances in it; translate the test split first")
    check_count(folder, "utterances", len(outputs), _REMEDY)
    return outputs
