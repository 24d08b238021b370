"""Word and character error rates of the encoder's CTC output, per language: of the best path, or of a beam search."""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow.compute as pc

from unitweave.core.errors import InputError
from unitweave.core.layout import RunLayout
from unitweave.core.manifest import Manifest, read_manifest
from unitweave.core.markdown import markdown_table
from unitweave.core.sequences import evenly_spaced
from unitweave.core.text import normalize
from unitweave.corpus.readers.text_table import read_parallel_text
from unitweave.metrics.error_rates import character_error_rate, word_error_rate
from unitweave.training.devices import resolve_device
from unitweave.units.ctc_beam import BeamSearch, CharacterLM, choose_search, sample_characters
from unitweave.units.encoder import CharacterVocabulary, SpeechEncoder, check_encoder_folder, load_encoder
from unitweave.units.inference import EncoderInference, single_threads
from unitweave.units.reading import map_ordered, read_features
from unitweave.units.sampling import Recording, Recordings, group_rows, list_recordings

_BATCH = 32  # recordings
_CHOOSING = 50  # recordings per language that a search is chosen on
Result = TypeVar("Result")


class Transcript(NamedTuple):
    """A recording's text and a transcript of it."""

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
    return map_outputs(
        encoder,
        items,
        lambda item, log_probs: Transcript(item.language, item.text or "", greedy(encoder.vocabulary, log_probs)),
    )


def greedy(vocabulary: CharacterVocabulary, log_probs: np.ndarray) -> str:
    """The text of the best path through CTC log-probabilities [frames, characters]."""
    return vocabulary.decode(log_probs.argmax(-1).tolist())


def map_outputs(
    encoder: SpeechEncoder, items: Recordings, function: Callable[[Recording, np.ndarray], Result]
) -> list[Result]:
    """What `function` makes of each recording and its CTC log-probabilities, float32 [frames, characters].

    Recordings come by length; one without a frame has none.
    """
    model, vocabulary, front_end = encoder
    inference = EncoderInference(model, front_end)
    ordered = items.take(np.argsort(items.seconds, kind="stable"))
    batches = (list(ordered[first : first + _BATCH]) for first in range(0, len(ordered), _BATCH))

    def run(batch: list[Recording]) -> list[Result]:
        features = read_features(front_end, batch)
        usable = [i for i, feature in enumerate(features) if len(feature)]
        found = [np.empty((0, len(vocabulary.tokens)), np.float32)] * len(batch)
        for i, (_, log_probs) in zip(usable, inference([features[i] for i in usable], []), strict=True):
            found[i] = log_probs.numpy(force=True)
        return [function(item, log_probs) for item, log_probs in zip(batch, found, strict=True)]

    was_training = model.training
    model.eval()
    try:
        with single_threads(1 if inference.batched else 0) as pool:
            return [result for _, part in map_ordered(pool, run, batches) for result in part]
    finally:
        model.train(was_training)


def error_rates_by_language(transcripts: Sequence[Transcript], plain: Callable[[str], str] = str) -> dict[str, float]:
    """wer_LANGUAGE and cer_LANGUAGE in percent, of what `plain` makes of both texts."""
    rates = {}
    for language in sorted({transcript.language for transcript in transcripts}):
        in_language = [transcript for transcript in transcripts if transcript.language == language]
        references, hypotheses = (
            [plain(transcript.reference) for transcript in in_language],
            [plain(transcript.hypothesis) for transcript in in_language],
        )
        rates[f"wer_{language}"] = round(word_error_rate(hypotheses, references, samples=0).score, 2)
        rates[f"cer_{language}"] = round(character_error_rate(hypotheses, references, samples=0).score, 2)
    return rates


def error_rates(model_folder: Path, items: Recordings, plain: Callable[[str], str] = str) -> dict[str, float]:
    """WER and CER per language of a saved encoder, in percent, of what `plain` makes of both texts."""
    return error_rates_by_language(transcribe(load_encoder(model_folder, resolve_device("auto")), items), plain)


def compare(
    encoders: Sequence[Path],
    corpus: Path,
    split: str = "test",
    fold_accents: bool = False,
    max_seconds: float = 60.0,
    beam: int = 0,
    lm_texts: Sequence[Path] = (),
) -> str:
    """Error rates of several encoders on the same recordings, as a markdown table.

    Args:
        encoders: Model folders, or runs that have one.
        corpus: A corpus folder.
        split: The split that is transcribed, both sides.
        fold_accents: Compare without acute accents and diaereses, for transcripts that lack them.
        max_seconds: Longer recordings are left out.
        beam: Width of a beam search whose rates stand below those of the best path; 0: none.
        lm_texts: Further corpora and tables of parallel text for its language models.

    Raises:
        InputError: There is no transcribed recording in the split, or a folder holds no encoder.
    """
    items = transcribed_recordings(read_manifest(corpus, split), max_seconds)
    if not len(items):
        raise InputError(f"{corpus}: no recording with a transcript in the {split} split")
    groups = dict(sorted(group_rows(items.column("language"))))
    languages, numbers = list(groups), ", ".join(f"{language} {len(own)}" for language, own in groups.items())
    plain = folded if fold_accents else str
    trial = SearchTrial(corpus, languages, beam, lm_texts, plain, max_seconds) if beam else None
    models = [f if (f / "config.json").exists() else RunLayout(f).encoder_model for f in encoders]
    for model in models:  # before the first one has transcribed everything
        check_encoder_folder(model)
    rows = []
    for folder, model in zip(encoders, models, strict=True):
        encoder = load_encoder(model, resolve_device("auto"))
        for name, rates in _rates(encoder, items, plain, trial.searches(encoder) if trial else {}):
            cells = (f"{rates[f'{rate}_{language}']:.1f}" for language in languages for rate in ("cer", "wer"))
            rows.append([f"{folder}{name}", *cells])
    heads = ["encoder", *(f"{rate} {language.upper()}" for language in languages for rate in ("CER", "WER"))]
    return f"Recordings: {numbers}\n\n{markdown_table(heads, rows, 'lr')}"


def _rates(
    encoder: SpeechEncoder, items: Recordings, plain: Callable[[str], str], searches: Mapping[str, BeamSearch]
) -> list[tuple[str, dict[str, float]]]:
    """Error rates of the best path, and of the searches (one a language) if there are any, with their names."""
    vocabulary = encoder.vocabulary

    def texts(item: Recording, log_probs: np.ndarray) -> list[Transcript]:
        found = [greedy(vocabulary, log_probs)]
        found += [searches[item.language](log_probs, vocabulary)] if searches else []
        return [Transcript(item.language, item.text or "", text) for text in found]

    shown = "; ".join(f"{language} LM {s.lm_weight:g}, blank -{s.blank_bias:g}" for language, s in searches.items())
    width = next((search.width for search in searches.values()), 0)
    names = ["", f", beam of {width} ({shown})"] if searches else [""]
    own = zip(*map_outputs(encoder, items, texts), strict=True)
    return [(name, error_rates_by_language(part, plain)) for name, part in zip(names, own, strict=True)]


class SearchTrial:
    """Chooses the beam search of each language and encoder, on recordings that no error rate is reported of.

    Args:
        corpus: Its train split's transcripts make the language models, its dev split chooses.
        languages: Of the recordings that will be transcribed.
        width: Of the search.
        lm_texts: Further corpora (their train split) and tables of parallel text for the language models.
        plain: What is done to texts before they are compared.
        max_seconds: Longer recordings are left out.

    Raises:
        InputError: A language has no text in the train split or no transcribed recording in the dev split.
    """

    def __init__(
        self,
        corpus: Path,
        languages: Sequence[str],
        width: int,
        lm_texts: Sequence[Path],
        plain: Callable[[str], str],
        max_seconds: float,
    ) -> None:
        self.width, self.plain, self.texts = width, plain, language_texts([corpus, *lm_texts])
        self.dev = subsample(transcribed_recordings(read_manifest(corpus, "dev"), max_seconds), _CHOOSING)
        there = set(self.dev.column("language").tolist())
        for language in languages:
            if not self.texts.get(language) or language not in there:
                lacks = "transcribed recording in the dev" if self.texts.get(language) else "text in the train"
                raise InputError(f"--beam: {corpus} has no {lacks} split in {language}; a beam search needs both")
        self.languages = languages

    def searches(self, encoder: SpeechEncoder) -> dict[str, BeamSearch]:
        """The search of each language for this encoder, whose weight and bias have the lowest CER on the dev split."""
        outputs = map_outputs(encoder, self.dev, lambda item, log_probs: (item.language, item.text or "", log_probs))
        found = {}
        for language in self.languages:
            lm = CharacterLM(map(encoder.vocabulary.spell, sample_characters(self.texts[language])))
            own = [(text, log_probs) for own, text, log_probs in outputs if own == language]
            found[language] = choose_search(own, encoder.vocabulary, lm, self.width, self.plain)
        return found


def language_texts(sources: Sequence[Path]) -> dict[str, list[str]]:
    """Normalized texts of corpora's train splits and of tables of parallel text, by language.

    Raises:
        InputError: A source is neither.
    """
    found: dict[str, list[str]] = {}
    for source in sources:
        if not source.is_file():
            pairs = read_manifest(source, "train")
            sides = [(p.src_lang, p.src_text) for p in pairs] + [(p.tgt_lang, p.tgt_text) for p in pairs]
        else:
            rows = read_parallel_text(source)
            raw = [(row.src_lang, row.src_text) for row in rows] + [(row.tgt_lang, row.tgt_text) for row in rows]
            sides = [(language, normalize(text, language)) for language, text in raw]
        for language, text in sides:
            if text:
                found.setdefault(language, []).append(text)
    return found


def folded(text: str) -> str:
    """The text without acute accents and diaereses; ñ, ç and grave accents stay."""
    kept = (c for c in unicodedata.normalize("NFD", text) if c not in "\u0301\u0308")
    return unicodedata.normalize("NFC", "".join(kept))
