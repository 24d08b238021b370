"""A corpus synthesized from the user's parallel text by the embedded engines: a miniature CVSS-C of open vocabulary.

The text is a table as `lm.extra_text` takes it (src_lang, tgt_lang, src_text, tgt_text). All directions have a
language in common, the pivot, and share one split of its sentences, so nothing that one direction trains on is tested
in another; dev and test are sentences that every direction has, and no source sentence of theirs is trained on either.
Speakers, noise and the voices of the translations are those of the embedded corpus. Recordings of people, from another
corpus folder, may be added.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from unitweave.config.corpus import SynthesizedCorpus
from unitweave.core.errors import InputError
from unitweave.core.files import file_digest
from unitweave.core.languages import language_name
from unitweave.core.manifest import FILE_NAME as MANIFEST
from unitweave.core.manifest import SPLITS, read_manifest
from unitweave.core.stage import StageResult
from unitweave.core.text import normalize
from unitweave.corpus.embedded.corpus import PlannedPair, digest_of_plan, plan_pair, synthesize_plan
from unitweave.corpus.embedded.engines import Utterance, check_engines
from unitweave.corpus.embedded.phrasebook import Sentence
from unitweave.corpus.embedded.voices import check_speakers, target_voice
from unitweave.corpus.kokoro import model_digest
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
    recordings = None
    if settings.recordings is not None:
        if not (Path(settings.recordings) / MANIFEST).is_file():
            raise InputError(
                f"corpus.synthesized.recordings {settings.recordings!r}: no manifest there; make one with 'unitweave "
                "corpus'"
            )
        recordings = file_digest(Path(settings.recordings) / MANIFEST)
    return replace(
        settings,
        workers=0,
        kokoro=settings.kokoro and model_digest(settings.kokoro),
        text=file_digest(Path(settings.text)),
        recordings=recordings,
    )


def plan_spoken(folder: Path, settings: SynthesizedCorpus) -> list[PlannedPair]:
    """Every recording that the corpus will have, in the manifest's order."""
    check_speakers(settings)
    sentences = _read(settings)
    parts = _split(settings, sentences)
    plan = []
    for name, direction in zip(settings.names, settings.pairs, strict=True):
        for split in SPLITS:
            # A sentence has one number for all directions, so that a translation is spoken once.
            chosen = [(i, s) for i, s in enumerate(parts[split]) if set(direction) <= s.text.keys()]
            if split == "train":
                chosen = _for_training(direction[0], chosen, [*parts["dev"], *parts["test"]])
                chosen = chosen[: settings.train_size(name)]
                if not chosen:
                    raise InputError(f"{settings.text}: no {name} pairs are left for training; dev and test take all")
            plan += [plan_pair(folder, settings, direction, split, i, s) for i, s in chosen]
    if settings.recordings is not None:
        plan += _recorded(folder, settings, Path(settings.recordings), {recording.pair.id for recording in plan})
    check_engines({utterance.voice for recording in plan for utterance in recording.utterances})
    return plan


def _recorded(folder: Path, settings: SynthesizedCorpus, source: Path, taken: Collection[str]) -> Iterator[PlannedPair]:
    """The pairs of another corpus; a translation without speech is spoken by the voice of all translations."""
    for pair in read_manifest(source):
        direction = (pair.src_lang, pair.tgt_lang)
        if direction not in settings.pairs:
            raise InputError(
                f"{source}: {pair.id} translates {'-'.join(direction)}, but the corpus has only the directions "
                f"{', '.join('-'.join(one) for one in settings.pairs)}"
            )
        if pair.id in taken:
            raise InputError(f"{source}: {pair.id!r} is also the id of a synthesized pair; rename one of them")
        if not pair.src_audio:
            raise InputError(f"{source}: {pair.id} has no source recording")
        target = None
        text = pair.tgt_text_raw or pair.tgt_text
        if not pair.tgt_audio and text:
            path = folder / "audio" / "recordings" / f"{pair.id}.wav"
            target = Utterance(path, text, target_voice(pair.tgt_lang, settings))
            pair = replace(pair, tgt_audio=str(path))
        yield PlannedPair(pair, None, target)


def _read(settings: SynthesizedCorpus) -> list[Sentence]:
    """One Sentence per text of the pivot, with what each language says for it first; in the order of the seed.

    A row serves both directions between its languages.
    """
    pivot = str(settings.pivot)
    others = {code for pair in settings.pairs for code in pair if code != pivot}
    texts: dict[str, dict[str, str]] = {}
    for row in read_parallel_text(Path(settings.text)):
        by_language = {row.src_lang: row.src_text, row.tgt_lang: row.tgt_text}
        (other,) = set(by_language) - {pivot} if len(by_language) == 2 and pivot in by_language else {""}
        if other not in others:
            continue
        key = normalize(by_language[pivot], pivot)
        if key and normalize(by_language[other], other):
            texts.setdefault(key, {pivot: by_language[pivot]}).setdefault(other, by_language[other])
    for name, direction in zip(settings.names, settings.pairs, strict=True):
        if not any(set(direction) <= text.keys() for text in texts.values()):
            raise InputError(f"{settings.text}: has no pairs from {direction[0]} to {direction[1]} ({name})")
    return [
        Sentence(key=key, frame="", topic="", fillers=(), text=texts[key])
        for key in sorted(texts, key=lambda key: hashlib.sha256(f"{settings.seed} {key}".encode()).digest())
    ]


def _split(settings: SynthesizedCorpus, sentences: Sequence[Sentence]) -> dict[str, list[Sentence]]:
    """dev and test from what all languages have, in order; train is the rest."""
    others = sorted({code for pair in settings.pairs for code in pair} - {str(settings.pivot)})
    common = [s for s in sentences if s.text.keys() >= set(others)]
    held_out = settings.dev + settings.test
    if len(common) < held_out:
        raise InputError(
            f"{settings.text}: {len(common)} {language_name(str(settings.pivot))} sentences have all of "
            f"{', '.join(others)}, but dev and test need {held_out}"
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
