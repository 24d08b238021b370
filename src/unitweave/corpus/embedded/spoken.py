"""A corpus synthesized from the user's parallel text by the embedded engines: a miniature CVSS-C of open vocabulary.

The text is a table as `lm.extra_text` takes it (src_lang, tgt_lang, src_text, tgt_text). All languages share one
split of the English sentences, so nothing that one language trains on is tested in another; dev and test
are English sentences that every language has, and no source sentence of theirs is trained on either.
Speakers, noise and the English voice are those of the embedded corpus.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unitweave.config.corpus import SynthesizedCorpus
from unitweave.core.errors import InputError
from unitweave.core.files import digest_of_file
from unitweave.core.manifest import SPLITS
from unitweave.core.stage import StageResult
from unitweave.core.text import normalize
from unitweave.corpus.embedded.corpus import PlannedPair, digest_of_plan, plan_pair, synthesize_plan
from unitweave.corpus.embedded.engines import check_engines
from unitweave.corpus.embedded.phrasebook import Sentence
from unitweave.corpus.embedded.voices import TARGET, speakers
from unitweave.corpus.readers.text_table import read_parallel_text


def build_spoken(folder: Path, settings: SynthesizedCorpus) -> StageResult:
    """Synthesize the corpus into `folder`/audio and write its manifest; resume where an earlier call stopped.

    Raises InputError for settings that cannot be met and for missing packages.
    """
    folder = Path(folder)
    return synthesize_plan(folder, plan_spoken(folder, settings), settings.workers, "spoken")


def spoken_digest(settings: SynthesizedCorpus) -> str:
    """16 hexadecimal digits that name all that the corpus will hold: sentences, voices, engines' versions."""
    return digest_of_plan(Path(), plan_spoken(Path(), settings))


def spoken_settings(settings: SynthesizedCorpus) -> SynthesizedCorpus:
    """The settings as they count for the result: the text's content, not its place, and no number of workers.

    Raises InputError when there is no such file.
    """
    if not Path(settings.text).is_file():
        raise InputError(f"corpus.synthesized.text {settings.text!r}: no such file; name a table of parallel text")
    return replace(settings, workers=0, text=digest_of_file(Path(settings.text)))


def plan_spoken(folder: Path, settings: SynthesizedCorpus) -> list[PlannedPair]:
    """Every recording that the corpus will have, in the manifest's order."""
    for language in settings.languages:
        speakers(language)
    sentences = _read(settings)
    parts = _split(settings, sentences)
    plan = []
    for language in settings.languages:
        for split in SPLITS:
            # A sentence has one number for all languages, so that its English is spoken once.
            chosen = [(i, s) for i, s in enumerate(parts[split]) if language in s.text]
            if split == "train":
                chosen = _for_training(language, chosen, [*parts["dev"], *parts["test"]])
                chosen = chosen[: settings.train_size(language)]
                if not chosen:
                    raise InputError(
                        f"{settings.text}: no {language} pairs are left for training; dev and test take all"
                    )
            plan += [plan_pair(folder, settings, language, split, i, s) for i, s in chosen]
    check_engines({recording.source.voice for recording in plan} | {TARGET})
    return plan


def _read(settings: SynthesizedCorpus) -> list[Sentence]:
    """One Sentence per English text, with what each language says for it first; in the order of the seed."""
    texts: dict[str, dict[str, str]] = {}
    for row in read_parallel_text(Path(settings.text)):
        if row.tgt_lang != "en" or row.src_lang not in settings.languages:
            continue
        english = normalize(row.tgt_text, "en")
        if english and normalize(row.src_text, row.src_lang):
            known = texts.setdefault(english, {"en": row.tgt_text})
            known.setdefault(row.src_lang, row.src_text)
    for language in settings.languages:
        if not any(language in text for text in texts.values()):
            raise InputError(f"{settings.text}: has no pairs from {language} to en")
    return [
        Sentence(key=english, frame="", topic="", fillers=(), text=texts[english])
        for english in sorted(texts, key=lambda english: hashlib.sha256(f"{settings.seed} {english}".encode()).digest())
    ]


def _split(settings: SynthesizedCorpus, sentences: Sequence[Sentence]) -> dict[str, list[Sentence]]:
    """dev and test from what all languages have, in order; train is the rest."""
    common = [s for s in sentences if all(language in s.text for language in settings.languages)]
    held_out = settings.dev + settings.test
    if len(common) < held_out:
        raise InputError(
            f"{settings.text}: {len(common)} English sentences have all of {', '.join(settings.languages)}, "
            f"dev and test need {held_out}"
        )
    taken = {s.key for s in common[:held_out]}
    return {
        "train": [s for s in sentences if s.key not in taken],
        "dev": common[settings.test : held_out],
        "test": common[: settings.test],
    }


def _for_training(
    language: str, sentences: Sequence[tuple[int, Sentence]], held_out: Sequence[Sentence]
) -> list[tuple[int, Sentence]]:
    """The sentences whose source text occurs neither in dev or test nor earlier in training."""
    seen = {normalize(s.text[language], language) for s in held_out}
    kept = []
    for number, sentence in sentences:
        text = normalize(sentence.text[language], language)
        if text not in seen:
            seen.add(text)
            kept.append((number, sentence))
    return kept
