"""Word and character error rates of the encoder's greedy CTC output, per language."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc

from unitweave.core.errors import InputError
from unitweave.core.layout import RunLayout
from unitweave.core.manifest import Manifest, read_manifest
from unitweave.core.markdown import markdown_table
from unitweave.core.sequences import evenly_spaced
from unitweave.metrics.error_rates import character_error_rate, word_error_rate
from unitweave.training.devices import resolve_device
from unitweave.units.encoder import SpeechEncoder, load_encoder
from unitweave.units.inference import EncoderInference, single_threads
from unitweave.units.reading import map_ordered, read_features
from unitweave.units.sampling import Recording, Recordings, group_rows, list_recordings

_BATCH = 32  # recordings


class Transcript(NamedTuple):
    """A recording's text and the encoder's greedy CTC transcript of it."""

    language: str
    reference: str
    hypothesis: str


def transcribed_recordings(pairs: Manifest, max_seconds: float) -> Recordings:
    """Every transcribed recording of the pairs, both sides, of at most `max_seconds`."""
    recordings = list_recordings(pairs)
    with_text = pc.not_equal(pc.fill_null(recordings.column("text"), ""), "").to_numpy(zero_copy_only=False)
    return recordings.take(with_text & (recordings.seconds <= max_seconds))


def subsample(items: Recordings, per_language: int) -> Recordings:
    """At most `per_language` recordings of each language, spread over their order."""
    groups = sorted(group_rows(items.column("language")), key=lambda group: group[0])
    chosen = [np.array(evenly_spaced(group.tolist(), per_language), np.int64) for _, group in groups]
    return items.take(np.concatenate([np.empty(0, np.int64), *chosen]))


def transcribe(encoder: SpeechEncoder, items: Recordings) -> list[Transcript]:
    """Greedy CTC transcripts of recordings, in float32 and in evaluation mode."""
    model, vocabulary, front_end = encoder
    inference = EncoderInference(model, front_end)
    ordered = items.take(np.argsort(items.seconds, kind="stable"))
    batches = (list(ordered[first : first + _BATCH]) for first in range(0, len(ordered), _BATCH))

    def run(batch: list[Recording]) -> list[Transcript]:
        features = read_features(front_end, batch)
        usable = [i for i, feature in enumerate(features) if len(feature)]
        texts = [""] * len(batch)
        for i, (_, log_probs) in zip(usable, inference([features[i] for i in usable], []), strict=True):
            texts[i] = vocabulary.decode(log_probs.argmax(-1).tolist())
        return [Transcript(item.language, item.text or "", text) for item, text in zip(batch, texts, strict=True)]

    was_training = model.training
    model.eval()
    try:
        with single_threads(1 if inference.batched else 0) as pool:
            return [text for _, part in map_ordered(pool, run, batches) for text in part]
    finally:
        model.train(was_training)


def error_rates_by_language(transcripts: Sequence[Transcript]) -> dict[str, float]:
    """wer_LANGUAGE and cer_LANGUAGE in percent."""
    rates = {}
    for language in sorted({transcript.language for transcript in transcripts}):
        in_language = [transcript for transcript in transcripts if transcript.language == language]
        references, hypotheses = (
            [transcript.reference for transcript in in_language],
            [transcript.hypothesis for transcript in in_language],
        )
        rates[f"wer_{language}"] = round(word_error_rate(hypotheses, references, samples=0).score, 2)
        rates[f"cer_{language}"] = round(character_error_rate(hypotheses, references, samples=0).score, 2)
    return rates


def error_rates(model_folder: Path, items: Recordings) -> dict[str, float]:
    """WER and CER per language of a saved encoder, in percent."""
    return error_rates_by_language(transcribe(load_encoder(model_folder, resolve_device("auto")), items))


def compare(
    encoders: Sequence[Path], corpus: Path, split: str = "test", fold_accents: bool = False, max_seconds: float = 60.0
) -> str:
    """Error rates of several encoders on the same recordings, as a markdown table.

    Args:
        encoders: Model folders, or runs that have one.
        corpus: A corpus folder.
        split: The split that is transcribed, both sides.
        fold_accents: Compare without acute accents and diaereses, for transcripts that lack them.
        max_seconds: Longer recordings are left out.

    Raises:
        InputError: There is no transcribed recording in the split, or a folder holds no encoder.
    """
    items = transcribed_recordings(read_manifest(corpus, split), max_seconds)
    if not len(items):
        raise InputError(f"{corpus}: no recording with a transcript in the {split} split")
    groups = dict(sorted(group_rows(items.column("language"))))
    languages, numbers = list(groups), ", ".join(f"{language} {len(own)}" for language, own in groups.items())
    names = [f"{rate}_{language}" for language in languages for rate in ("cer", "wer")]
    rows = []
    for folder in encoders:
        model = folder if (folder / "config.json").exists() else RunLayout(folder).encoder_model
        transcripts = transcribe(load_encoder(model, resolve_device("auto")), items)
        if fold_accents:
            transcripts = [
                Transcript(transcript.language, folded(transcript.reference), folded(transcript.hypothesis))
                for transcript in transcripts
            ]
        rates = error_rates_by_language(transcripts)
        rows.append([folder, *(f"{rates[name]:.1f}" for name in names)])
    heads = ["encoder", *(name.upper().replace("_", " ") for name in names)]
    return f"Recordings: {numbers}\n\n{markdown_table(heads, rows, 'lr')}"


def folded(text: str) -> str:
    """The text without acute accents and diaereses; ñ, ç and grave accents stay."""
    kept = (c for c in unicodedata.normalize("NFD", text) if c not in "\u0301\u0308")
    return unicodedata.normalize("NFC", "".join(kept))
