"""The embedded corpus: parallel speech made on the spot from the phrasebook, with no download and no account.

Many speakers (two engines or three, a table of voices, seeded variety in pitch, speed and background noise) speak the
source sentences; one voice of the target language speaks the translations, as in CVSS-C. All directions share one
split of the phrasebook, so no sentence that one of them trains on is tested in another, and a translation that several
share is synthesized once.
"""

import contextlib
import importlib.metadata
import json
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import soundfile

from unitweave.config.corpus import EmbeddedCorpus, SynthesisSettings
from unitweave.core.audio import SAMPLE_RATE
from unitweave.core.errors import InputError
from unitweave.core.files import json_digest, read_json_object, remove_leftovers, write_json
from unitweave.core.manifest import SPLITS, Pair, write_manifest
from unitweave.core.progress import meter
from unitweave.core.stage import StageResult
from unitweave.core.text import NORMALIZER, normalize
from unitweave.corpus.embedded import phrasebook
from unitweave.corpus.embedded.engines import ENGINES, Utterance, check_engines, synthesize_all
from unitweave.corpus.embedded.phrasebook import Sentence
from unitweave.corpus.embedded.voices import check_speakers, speakers, target_voice
from unitweave.corpus.kokoro import model_digest

PLAN_FILE = "speech.json"

_SMALLEST_POOL = 2000  # a split that holds word combinations out needs many sentences to choose from
_PITCH_JITTER = 0.04  # an utterance's pitch differs from its speaker's by at most this part
_RATE_JITTER = 0.06


@dataclass(frozen=True)
class PlannedPair:
    """A pair to synthesize: its manifest row, and the utterances of its two sides; None for a recording that is there.

    The row has no duration for a side that is still to be made.
    """

    pair: Pair
    source: Utterance | None
    target: Utterance | None

    @property
    def utterances(self) -> list[Utterance]:
        """What is to be made."""
        return [utterance for utterance in (self.source, self.target) if utterance is not None]


def build_embedded(folder: Path, settings: EmbeddedCorpus) -> StageResult:
    """Synthesize the corpus into `folder`/audio and write its manifest; resume where an earlier call stopped.

    An interrupted build that is continued leaves the same bytes as one that ran through. Raises
    InputError for settings that cannot be met, for missing packages, and when `folder` holds the
    audio of another corpus.
    """
    folder = Path(folder)
    return synthesize_plan(folder, _plan(folder, settings), settings.workers, "embedded")


def synthesize_plan(folder: Path, plan: Sequence[PlannedPair], workers: int, kind: str) -> StageResult:
    """Synthesize every recording of `plan` into `folder` and write the manifest; resume where an earlier call stopped.

    Args:
        kind: Kind of corpus, as the manifest and the folder's speech.json name it.
    """
    _claim(folder, plan, kind)
    utterances = list({u.path: u for recording in plan for u in recording.utterances}.values())
    for directory in {utterance.path.parent for utterance in utterances}:
        directory.mkdir(parents=True, exist_ok=True)
        remove_leftovers(directory)
    seconds = {utterance.path: _seconds(utterance.path) for utterance in utterances}
    missing = [utterance for utterance in utterances if not seconds[utterance.path]]
    problems: dict[Path, str] = {}
    with (
        meter("corpus: synthesizing", len(utterances), len(utterances) - len(missing)) as progress,
        contextlib.closing(synthesize_all(missing, workers)) as spoken,
    ):
        for utterance, problem in spoken:
            if problem:
                problems[utterance.path] = problem
            else:
                seconds[utterance.path] = _seconds(utterance.path)
            progress.advance()
    return _write(folder, plan, seconds, problems, kind)


def embedded_text(settings: EmbeddedCorpus, number: int, natural: bool = False) -> list[dict[str, str]]:
    """`number` further sentences that are in no split, as language -> text, English among them; normalized or natural.

    For the small text language model. No sentence of train, dev or test is among them, and none
    holds a combination of words that is held out for test. The same arguments give the same list.
    Raises InputError when the phrasebook does not have so many.
    """
    parts = _split(settings)
    taken = {s.text["en"] for part in parts.values() for s in part}
    train_contents = {pair for s in parts["train"] for pair in phrasebook.content_pairs(s)}
    held_out = {pair for s in parts["test"] for pair in phrasebook.content_pairs(s)} - train_contents
    drawn = number + number // 4 + len(taken)
    while True:
        drawn = min(drawn, phrasebook.count(settings.topics))
        pool = phrasebook.draw(drawn, settings.worded, settings.seed + 1, settings.topics)
        further = [s for s in pool if s.text["en"] not in taken and not held_out & phrasebook.content_pairs(s)]
        if len(further) >= number:
            chosen = [s.text for s in further[:number]]
            return chosen if natural else [{code: normalize(text, code) for code, text in s.items()} for s in chosen]
        if drawn == phrasebook.count(settings.topics):
            raise InputError(f"the phrasebook has {len(further)} sentences outside the corpus, not {number}")
        drawn *= 2


def embedded_settings(settings: EmbeddedCorpus) -> EmbeddedCorpus:
    """The settings as they count for the result: Kokoro's content, not its place, and no number of workers."""
    return replace(settings, workers=0, kokoro=settings.kokoro and model_digest(settings.kokoro))


def plan_digest(settings: EmbeddedCorpus) -> str:
    """16 hexadecimal digits that name all that the corpus will hold: sentences, voices, engines' versions."""
    return digest_of_plan(Path(), _plan(Path(), settings))


def _plan(folder: Path, settings: EmbeddedCorpus) -> list[PlannedPair]:
    _check_languages(settings)
    parts = _split(settings)
    plan = [
        plan_pair(folder, settings, direction, split, index, sentence)
        for name, direction in zip(settings.names, settings.pairs, strict=True)
        for split in SPLITS
        for index, sentence in enumerate(parts[split])
        if split != "train" or index < settings.train_size(name)
    ]
    check_engines({utterance.voice for recording in plan for utterance in recording.utterances})
    return plan


def _check_languages(settings: EmbeddedCorpus) -> None:
    """Raise InputError for a language that lacks speakers or a phrasebook."""
    supported = [phrasebook.PIVOT, *phrasebook.languages()]
    check_speakers(settings)
    for language in dict.fromkeys(code for pair in settings.pairs for code in pair):
        if language not in supported:
            raise InputError(f"the phrasebook has no language {language!r}; it has {', '.join(supported)}")


def _split(settings: EmbeddedCorpus) -> dict[str, list[Sentence]]:
    """One split for all directions; train has as many sentences as the largest of them needs."""
    needed = max(settings.train_size(name) for name in settings.names)
    # Holding word combinations out for test costs train some sentences; how many shows only afterwards.
    drawn = max(_SMALLEST_POOL, needed + settings.dev + 2 * settings.test + needed // 20)
    while True:
        drawn = min(drawn, phrasebook.count(settings.topics))
        sentences = phrasebook.draw(drawn, settings.worded, settings.seed, settings.topics)
        parts = phrasebook.split(sentences, settings.dev, settings.test, settings.seed)
        if len(parts["train"]) >= needed:
            return parts | {"train": parts["train"][:needed]}
        if drawn == phrasebook.count(settings.topics):
            raise InputError(f"train: the phrasebook has {len(parts['train'])} training sentences (asked for {needed})")
        drawn += drawn // 4 + 1


def plan_pair(
    folder: Path, settings: SynthesisSettings, direction: tuple[str, str], split: str, index: int, sentence: Sentence
) -> PlannedPair:
    """Plan one pair: speaker, voice, noise and paths; a pure function of its arguments."""
    language, tgt_lang = direction
    name = language if tgt_lang == "en" and language != "en" else f"{language}-{tgt_lang}"
    rng = random.Random(f"{settings.seed} {name} {sentence.key}")
    share = 0.0 if split == "train" else settings.unseen_speaker_ratio
    unseen = int((index + 1) * share) > int(index * share)  # spread evenly, exactly that share
    speaker = rng.choice(speakers(language, settings, unseen))
    voice = replace(
        speaker,
        pitch=round(speaker.pitch * rng.uniform(1 - _PITCH_JITTER, 1 + _PITCH_JITTER)),
        rate=round(speaker.rate * rng.uniform(1 - _RATE_JITTER, 1 + _RATE_JITTER)),
    )
    jitter = rng.uniform(-settings.noise_spread_db, settings.noise_spread_db)
    noise_db = None if settings.noise_db is None else round(settings.noise_db + jitter, 1)
    source = Utterance(
        folder / "audio" / name / f"{name}_{split}_{index:06d}.wav",
        sentence.text[language],
        voice,
        noise_db,
        -round(rng.uniform(0, settings.level_db), 1) if settings.level_db else 0.0,
    )
    spoken = folder / "audio" / tgt_lang / f"{tgt_lang}_{split}_{index:06d}.wav"
    if tgt_lang != "en" and (tgt_lang, "en") in settings.pairs:  # named as that language's own recordings are
        spoken = spoken.parent.with_name(f"to-{tgt_lang}") / spoken.name
    target = Utterance(spoken, sentence.text[tgt_lang], target_voice(tgt_lang, settings))
    pair = Pair(
        id=f"{name}_{split}_{index:06d}",
        split=split,
        src_lang=language,
        tgt_lang=tgt_lang,
        src_audio=str(source.path),
        tgt_audio=str(target.path),
        src_text=normalize(source.text, language),
        tgt_text=normalize(target.text, tgt_lang),
        src_text_raw=source.text,
        tgt_text_raw=target.text,
        speaker=speaker.name,
    )
    return PlannedPair(pair, source, target)


_VERSION_3 = re.compile(r"[%&+=@$£¥€₽₴−°º№²³½¼¾\u2070-\u209f\u2150-\u218b٪ʻ՛՜՞׳״]|\d['’.:-]?[^\W\d]|\b0\d\d|['’]\d")


def _claim(folder: Path, plan: Sequence[PlannedPair], kind: str) -> None:
    """Note in `folder` which corpus its audio belongs to; refuse a folder with the audio of another."""
    path, digest = folder / PLAN_FILE, digest_of_plan(folder, plan)
    if not path.exists():
        write_json(path, {"corpus": kind, "plan": digest})
    elif read_json_object(path).get("plan") != digest:
        raise InputError(f"{folder}: contains the audio of another corpus; delete it or choose another folder")


def digest_of_plan(folder: Path, plan: Sequence[PlannedPair]) -> str:
    """16 hexadecimal digits that name the texts, voices and engines of a plan whose paths are below `folder`."""
    utterances = [utterance for recording in plan for utterance in recording.utterances]
    spoken = [
        asdict(one) | {"path": str(one.path.relative_to(folder)), "voice": one.voice.described()} for one in utterances
    ]
    for one in spoken:
        if not one["level_db"]:  # as before there was such a key
            del one["level_db"]
    used = {one.voice.engine for one in utterances}
    used = used if "kokoro" in used else {"pico", "espeak"}
    packages = dict.fromkeys(package for engine in ENGINES if engine in used for package in ENGINES[engine])
    engines = {package: _version(package) for package in packages}
    # Version 2 of the normalizer leaves texts of Latin letters as version 1 had them, version 3 those without signs.
    latin = all(ord(c) < 0x250 for utterance in utterances for c in utterance.text)
    newer = any(_VERSION_3.search(utterance.text) for utterance in utterances)
    normalizer = NORMALIZER if newer else "unitweave-1" if latin else "unitweave-2"
    return json_digest(json.loads(json.dumps([spoken, engines, normalizer])))


def _version(package: str) -> str:
    """Version of an installed package; "" where another one brings its modules, as onnxruntime-gpu does."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _seconds(path: Path) -> float:
    """Duration of a finished recording; 0 where there is none, or one that a crash of the machine cut off."""
    try:
        return float(soundfile.info(path).frames / SAMPLE_RATE)
    except (soundfile.SoundFileError, OSError):
        return 0.0


def _write(
    folder: Path, plan: Sequence[PlannedPair], seconds: dict[Path, float], problems: dict[Path, str], kind: str
) -> StageResult:
    pairs: list[Pair] = []
    outcome = StageResult()
    for recording in plan:
        made = {"src": recording.source, "tgt": recording.target}
        lasting: dict[str, Any] = {
            f"{side}_seconds": seconds[utterance.path] for side, utterance in made.items() if utterance
        }
        reasons = [
            f"{utterance.path.name}: {problems[utterance.path]}"
            for utterance in recording.utterances
            if utterance.path in problems
        ]
        if reasons:
            outcome.skipped.append({"id": recording.pair.id, "reason": "; ".join(reasons)})
        else:
            pairs.append(replace(recording.pair, **lasting))
    if not pairs:
        raise InputError(f"{folder}: no utterance could be synthesized; the first: {outcome.skipped[0]['reason']}")
    write_manifest(folder, pairs, {"normalizer": NORMALIZER, "corpus": kind})
    outcome.counts = {
        "pairs": len(pairs),
        **{split: sum(pair.split == split for pair in pairs) for split in SPLITS},
        "source hours": round(sum(pair.src_seconds for pair in pairs) / 3600, 2),
        "target hours": round(sum({p.tgt_audio: p.tgt_seconds for p in pairs}.values()) / 3600, 2),
        "skipped": len(outcome.skipped),
    }
    return outcome
