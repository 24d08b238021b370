"""Word and character error rates of the encoder's greedy CTC output, per language."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from transformers import Wav2Vec2BertForCTC

from unitweave.core.audio import read_audio
from unitweave.core.manifest import Pair
from unitweave.core.sequences import evenly_spaced
from unitweave.metrics.error_rates import character_error_rate, word_error_rate
from unitweave.units.encoder import CharacterVocabulary, load_encoder
from unitweave.units.features import extract_features
from unitweave.units.inference import EncoderInference, single_threads
from unitweave.units.reading import best_device, in_order

_BATCH = 32  # recordings


@dataclass(frozen=True)
class Recording:
    """One side of a pair as the encoder sees it."""

    id: str
    language: str
    audio: str
    text: str
    seconds: float


class Heard(NamedTuple):
    """What was said and what the encoder made of it."""

    language: str
    said: str
    heard: str


def recordings(pairs: Sequence[Pair], max_seconds: float) -> list[Recording]:
    """Every transcribed recording of the pairs, both sides."""
    found = []
    for pair in pairs:
        for side, language, audio, text, seconds in (
            ("src", pair.src_lang, pair.src_audio, pair.src_text, pair.src_seconds),
            ("tgt", pair.tgt_lang, pair.tgt_audio, pair.tgt_text, pair.tgt_seconds),
        ):
            if audio and text and seconds <= max_seconds:
                found.append(Recording(f"{pair.id}/{side}", language, audio, text, seconds))
    return found


def a_few(items: Sequence[Recording], per_language: int) -> list[Recording]:
    """At most `per_language` recordings of each language, spread over the order they stand in."""
    chosen = []
    for language in sorted({item.language for item in items}):
        chosen += evenly_spaced([item for item in items if item.language == language], per_language)
    return chosen


def transcripts(model: Wav2Vec2BertForCTC, vocabulary: CharacterVocabulary, items: Sequence[Recording]) -> list[Heard]:
    """Greedy CTC transcripts of recordings, in float32 and in evaluation mode."""
    inference = EncoderInference(model)
    ordered = sorted(items, key=lambda item: item.seconds)
    batches = [ordered[first : first + _BATCH] for first in range(0, len(ordered), _BATCH)]

    def run(batch: Sequence[Recording]) -> list[Heard]:
        features = extract_features([read_audio(item.audio) for item in batch])
        usable = [i for i, one in enumerate(features) if len(one)]
        heard = [""] * len(batch)
        for i, (_, log_probs) in zip(usable, inference([features[i] for i in usable], []), strict=True):
            heard[i] = vocabulary.decode(log_probs.argmax(-1).tolist())
        return [Heard(item.language, item.text, text) for item, text in zip(batch, heard, strict=True)]

    was_training = model.training
    model.eval()
    try:
        with single_threads(1 if inference.batched else 0) as pool:
            return [one for _, part in in_order(pool, run, batches) for one in part]
    finally:
        model.train(was_training)


def rates_of(heard: Sequence[Heard]) -> dict[str, float]:
    """wer_LANGUAGE and cer_LANGUAGE in percent."""
    rates = {}
    for language in sorted({one.language for one in heard}):
        own = [one for one in heard if one.language == language]
        said, recognized = [one.said for one in own], [one.heard for one in own]
        rates[f"wer_{language}"] = round(word_error_rate(recognized, said, samples=0).score, 2)
        rates[f"cer_{language}"] = round(character_error_rate(recognized, said, samples=0).score, 2)
    return rates


def error_rates(model_folder: Path, items: Sequence[Recording]) -> dict[str, float]:
    """WER and CER per language of a saved encoder, in percent."""
    model, vocabulary = load_encoder(model_folder, best_device())
    return rates_of(transcripts(model, vocabulary, items))
