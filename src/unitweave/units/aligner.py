"""An encoder used for alignment only: the word times of recordings whose units come from elsewhere."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from unitweave.core.audio import read_audio
from unitweave.core.manifest import Pair
from unitweave.core.progress import meter
from unitweave.training.devices import device_of
from unitweave.units.extractor import UnitExtractor
from unitweave.units.word_times import TimedWord

_AT_ONCE = 16  # recordings read and aligned together


class Aligner:
    """A CTC encoder that says when each word of a known text is spoken."""

    def __init__(self, extractor: UnitExtractor) -> None:
        self.extractor = extractor

    @classmethod
    def load(cls, encoder: Path, device: str | torch.device | None = None) -> "Aligner":
        """From the folder of an encoder. Raises InputError where there is none."""
        return cls(UnitExtractor.without_codebook(encoder, device or device_of("auto")))

    def align_pairs(self, recordings: Sequence[tuple[Pair, str]]) -> dict[tuple[str, str], list[TimedWord]]:
        """Align the recordings of pairs on a side ("src" or "tgt") with their texts.

        Returns:
            (id, side) -> words with their seconds; recordings without a text are left out.

        Raises:
            InputError: A recording cannot be read.
        """
        known = [(pair, side) for pair, side in recordings if getattr(pair, f"{side}_text")]
        with meter("units: aligning words", len(known)) as progress:
            found: dict[tuple[str, str], list[TimedWord]] = {}
            for first in range(0, len(known), _AT_ONCE):
                part = known[first : first + _AT_ONCE]
                found |= dict(self._align(part))
                progress.advance(len(part))
        return found

    def _align(self, part: Sequence[tuple[Pair, str]]) -> Iterator[tuple[tuple[str, str], list[TimedWord]]]:
        waveforms = [
            read_audio(getattr(pair, f"{side}_audio"), expected_seconds=getattr(pair, f"{side}_seconds"))
            for pair, side in part
        ]
        texts = [str(getattr(pair, f"{side}_text")) for pair, side in part]
        rate = self.extractor.frame_rate
        for (pair, side), text, (_, frames) in zip(part, texts, self.extractor.extract(waveforms, texts), strict=True):
            if frames is None:
                continue
            yield (
                (pair.id, side),
                [
                    TimedWord(word, start / rate, end / rate, score)
                    for word, start, end, score in zip(
                        text.split(), frames.starts.tolist(), frames.ends.tolist(), frames.scores.tolist(), strict=True
                    )
                    if end > start
                ],
            )
