"""An encoder used for alignment only: the word times of recordings whose units come from elsewhere."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch

from unitweave.core.audio import read_audio
from unitweave.core.manifest import Pair
from unitweave.core.progress import meter
from unitweave.training.devices import resolve_device
from unitweave.units.dataset import UnitRow
from unitweave.units.extractor import UnitExtractor
from unitweave.units.word_times import TimedWord, timed_row

_AT_ONCE = 16  # recordings read and aligned together


class Aligner:
    """A CTC encoder that says when each word of a known text is spoken."""

    def __init__(self, extractor: UnitExtractor) -> None:
        self.extractor = extractor

    @classmethod
    def load(cls, encoder: Path, device: str | torch.device | None = None) -> "Aligner":
        """From the folder of an encoder. Raises InputError where there is none."""
        return cls(UnitExtractor.without_codebook(encoder, device or resolve_device("auto")))

    def align_pairs(self, recordings: Iterable[tuple[Pair, str]], number: int) -> Iterator[UnitRow]:
        """Align the recordings of pairs on a side ("src" or "tgt") with their texts.

        Args:
            recordings: Of pairs, each with the side.
            number: How many there are.

        Yields:
            Words with their seconds (see `TIMES`); recordings without a text are left out.

        Raises:
            InputError: A recording cannot be read.
        """
        recordings = iter(recordings)
        with meter("units: aligning words", number) as progress:
            while part := list(itertools.islice(recordings, _AT_ONCE)):
                with_text = [(pair, side) for pair, side in part if getattr(pair, f"{side}_text")]
                yield from self._align(with_text)
                progress.advance(len(part))

    def _align(self, part: Sequence[tuple[Pair, str]]) -> Iterator[UnitRow]:
        waveforms = [
            read_audio(getattr(pair, f"{side}_audio"), expected_seconds=getattr(pair, f"{side}_seconds"))
            for pair, side in part
        ]
        texts = [str(getattr(pair, f"{side}_text")) for pair, side in part]
        rate = self.extractor.frame_rate
        for (pair, side), text, (_, frames) in zip(part, texts, self.extractor.extract(waveforms, texts), strict=True):
            if frames is None:
                continue
            words = [
                TimedWord(word, start / rate, end / rate, score)
                for word, start, end, score in zip(
                    text.split(), frames.starts.tolist(), frames.ends.tolist(), frames.scores.tolist(), strict=True
                )
                if end > start
            ]
            yield timed_row(pair.id, side, words)
