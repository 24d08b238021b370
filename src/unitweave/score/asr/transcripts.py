"""What the recognizer heard: per-utterance records, written as they come so that a killed run goes on."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from unitweave.core.audio import SAMPLE_RATE, is_silent
from unitweave.core.errors import InputError
from unitweave.core.progress import Meter
from unitweave.metrics.scores import silence_share
from unitweave.score.asr.recognizers import Recognizer
from unitweave.score.mos import Predictor

BATCH = 32  # utterances in memory at a time


@dataclass
class Heard:
    """One utterance as it was heard: raw transcript, duration, share of silence, predicted MOS by name."""

    id: str
    text: str
    seconds: float
    silence: float
    mos: dict[str, float] = field(default_factory=dict)


@dataclass
class Speech:
    """Utterances to be heard, in order.

    load  gives the waveforms (float32 [samples] at 16 kHz) of some of the ids; None stands for an
          utterance in which the system said nothing. That, and digital silence, is scored as the empty
          transcript: recognizers invent words for it (Moonshine hears "You").
    """

    ids: Sequence[str]
    load: Callable[[Sequence[str]], list[np.ndarray | None]]


def hear(
    speech: Speech,
    recognizer: Recognizer,
    log: Path | None,
    meter: Meter,
    predictors: Sequence[Predictor] = (),
    rated: Sequence[str] = (),
    keep: Callable[[str, np.ndarray], None] | None = None,
) -> list[Heard]:
    """Transcribe `speech`, appending to the JSON lines file `log`; utterances already in it are not heard again.

    log         None keeps nothing
    predictors  rate the utterances named in `rated`
    keep        is called with (id, waveform) of everything that is heard, for instance to write some of it
    """
    heard = {record.id: record for record in (_read_log(log) if log else ())}
    missing = [id for id in speech.ids if id not in heard]
    meter.advance(len(speech.ids) - len(missing))
    wanted = set(rated)
    for start in range(0, len(missing), BATCH):
        ids = missing[start : start + BATCH]
        waveforms = [None if w is None or not len(w) or is_silent(w) else w for w in speech.load(ids)]
        spoken = [(id, waveform) for id, waveform in zip(ids, waveforms, strict=True) if waveform is not None]
        texts = dict(zip([id for id, _ in spoken], recognizer.transcribe([w for _, w in spoken]), strict=True))
        records = []
        for id, waveform in zip(ids, waveforms, strict=True):
            if waveform is None:
                records.append(Heard(id, "", 0.0, 1.0))
                continue
            record = Heard(id, texts[id], len(waveform) / SAMPLE_RATE, silence_share(waveform))
            if id in wanted:
                for predictor in predictors:
                    record.mos.update(predictor.predict(waveform))
            if keep:
                keep(id, waveform)
            records.append(record)
        if log:
            with log.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records)
        heard |= {record.id: record for record in records}
        meter.advance(len(records))
    return [heard[id] for id in speech.ids]


def read_lines(path: Path) -> list[dict]:
    """Read a JSON lines file. Raises InputError, naming the line, when it is missing or no such file."""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    rows: list[dict] = []
    text = path.read_text(encoding="utf-8").removesuffix("\n")
    # Not splitlines: a text may hold U+2028, which it takes for the end of a line.
    for number, line in enumerate(text.split("\n") if text else [], 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: not a JSON object")
        rows.append(row)
    return rows


def _read_log(path: Path) -> Iterator[Heard]:
    """The whole lines of a log; a half-written last line is cut off the file."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        path.write_bytes(whole)
    for line in whole.decode("utf-8").split("\n")[:-1]:
        yield Heard(**json.loads(line))
