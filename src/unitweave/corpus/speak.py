"""`unitweave corpus speak`: the speech that a corpus of recordings and translations lacks, made by an engine."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from unitweave.config.corpus import RowLimits, SpeakSettings
from unitweave.core.errors import InputError
from unitweave.core.files import json_digest, write_json
from unitweave.core.manifest import FILE_NAME, Pair, read_manifest, read_metadata, write_manifest
from unitweave.core.progress import echo, meter
from unitweave.core.scripts import join_words
from unitweave.core.stage import StageResult, versions
from unitweave.corpus.assemble import ABOUT, SKIPPED, Skipped, count, import_manifest, open_corpus, report_skipped
from unitweave.corpus.checks import audio_problem, pace_problem
from unitweave.corpus.recording_store import RecordingStore, RecordingTask
from unitweave.corpus.speech_engines import SpeechEngine, Text, load_engine
from unitweave.corpus.tasks import describe_tasks

_ALL_OF_THE_FIRST = 20  # texts that all fail: the engine, and not the text, is what is wrong
_SLOW_OF_THE_FIRST = 2  # likewise of those that take as long as they may
_IN_A_ROW = 100  # likewise later


def speak_corpus(source: Path, out: Path, settings: SpeakSettings) -> StageResult:
    """Make a corpus folder with the speech that `source` lacks; the recordings of `source` stay where they are.

    What an interrupted call made is kept.

    Raises:
        InputError: Nothing is missing, the engine is not there, or less than half of the texts could be synthesized.
    """
    pairs, metadata, engine = read_manifest(source), read_metadata(source), load_engine(settings)
    _check(source, pairs, settings, engine)
    open_corpus(out, "speak", settings)
    result = _speak(out, pairs, metadata, settings, engine)
    reasons = {item["reason"]: 0 for item in result.skipped}
    for item in result.skipped:
        reasons[item["reason"]] += 1
    record = {"settings": asdict(settings), "counts": result.counts, "skipped": reasons, "versions": versions()}
    write_json(out / ABOUT, {"corpus": "speak", "status": "done", "source": str(source)} | record)
    return result


def import_and_speak(folder: Path, source: Path, settings: SpeakSettings) -> StageResult:
    """Import the manifest of a corpus folder into a run, and make the speech that it lacks; errors as above."""
    engine = load_engine(settings)
    _check(source, read_manifest(source), settings, engine)
    import_manifest(folder, source)
    return _speak(folder, read_manifest(folder), read_metadata(folder), settings, engine)


def _check(source: Path, pairs: Sequence[Pair], settings: SpeakSettings, engine: SpeechEngine) -> None:
    missing = [pair for pair in pairs if not _audio(pair, settings.side)]
    if not missing:
        raise InputError(f"{source}: every pair has its {settings.side} speech; there is nothing to synthesize")
    spoken = {_language(pair, settings.side) for pair in missing if _text(pair, settings.side)}
    if not spoken:
        text = "translation" if settings.side == "target" else "transcript"
        raise InputError(f"{source}: no pair without {settings.side} speech has a {text} to synthesize")
    engine.check(spoken)


def _speak(
    folder: Path, pairs: Sequence[Pair], metadata: dict[str, str], settings: SpeakSettings, engine: SpeechEngine
) -> StageResult:
    side, identity = settings.side, json_digest(engine.identity)
    wanted = {_path(pair, side): pair for pair in pairs if not _audio(pair, side)}
    problems: dict[str, str] = {path: "no text to synthesize" for path, pair in wanted.items() if not _text(pair, side)}
    made: dict[str, float] = {}
    unspoken = len(problems)
    with RecordingStore(folder, 1) as recordings:
        texts = [
            Text(path, _text(pair, side), _language(pair, side))
            for path, pair in wanted.items()
            if path not in problems and not recordings.has(path, json_digest([identity, _text(pair, side)]))
        ]
        nothing_yet = len(texts) == len(wanted) - unspoken
        echo(f"corpus: {len(texts)} texts to be spoken by {settings.engine}")

        def tasks() -> Iterator[RecordingTask]:
            with meter("corpus: speaking", len(texts)) as progress:
                row = slow = 0  # of failures one after the other
                for speech in engine.speak(texts):
                    progress.advance()
                    if not (failure := speech.failure):
                        row = slow = 0
                        yield RecordingTask(speech.text.key, json_digest([identity, speech.text.text]), speech.content)
                        continue
                    row, slow = row + 1, slow + speech.timed_out
                    problems[speech.text.key] = f"could not be synthesized: {failure}"
                    first = nothing_yet and progress.done == row
                    if first and (row == _ALL_OF_THE_FIRST or slow == _SLOW_OF_THE_FIRST):
                        raise InputError(f"{folder}: none of the first {row} texts was synthesized; {failure}")
                    if row == _IN_A_ROW:
                        raise InputError(
                            f"{folder}: {row} texts in a row could not be synthesized; {failure}. What was "
                            "made before is kept; the same command resumes there"
                        )

        recordings.make(tasks())
        for path, pair in wanted.items():
            recording = recordings.get(path)
            if path in problems or recording is None:
                problems.setdefault(path, "no recording")
                continue
            limits = RowLimits()
            problem = (recording.problem, recording.detail) if recording.problem else None
            problem = problem or audio_problem(recording.seconds, limits)
            problem = problem or pace_problem(pair.tgt_text or pair.src_text or "", recording.seconds, limits)
            if problem:
                problems[path] = problem[0]
            else:
                made[path] = recording.seconds
    skipped = [Skipped(wanted[path].id, wanted[path].src_lang, reason) for path, reason in problems.items()]
    kept = [_spoken(folder, pair, side, made) for pair in pairs if _path(pair, side) not in problems]
    report_skipped(folder / SKIPPED, kept, skipped)
    if len(skipped) > len(wanted) / 2:
        raise InputError(
            f"{folder}: only {len(made)} of {len(wanted)} texts could be synthesized; {skipped[0].reason}; "
            f"see {folder / SKIPPED}"
        )
    spoken = {"speech": json.dumps(engine.identity | {"side": side}, sort_keys=True)}
    spoken["recordings"] = json_digest([metadata.get("recordings", ""), identity, sorted(made)])
    write_manifest(folder, kept, metadata | spoken)
    echo(f"corpus: {len(kept)} pairs in {folder / FILE_NAME}, {len(made)} of them spoken")
    echo(f"corpus: {describe_tasks(kept)}")
    return StageResult(count(kept) | {"spoken": len(made)}, [{"id": s.id, "reason": s.reason} for s in skipped])


def _audio(pair: Pair, side: str) -> str | None:
    return pair.tgt_audio if side == "target" else pair.src_audio


def _text(pair: Pair, side: str) -> str:
    raw, normalized = (pair.tgt_text_raw, pair.tgt_text) if side == "target" else (pair.src_text_raw, pair.src_text)
    return raw or join_words(normalized or "")


def _language(pair: Pair, side: str) -> str:
    return pair.tgt_lang if side == "target" else pair.src_lang


def _path(pair: Pair, side: str) -> str:
    """Where the speech goes below the corpus folder, as the readers of corpora name it."""
    folder = f"{pair.src_lang}-{pair.tgt_lang}" if side == "target" else pair.src_lang
    return f"audio/{folder}/{pair.id}.flac"


def _spoken(folder: Path, pair: Pair, side: str, made: dict[str, float]) -> Pair:
    """The pair with its new recording; as it is where it had one."""
    path = _path(pair, side)
    if path not in made:
        return pair
    audio, seconds = str(folder / path), made[path]
    if side == "target":
        return replace(pair, tgt_audio=audio, tgt_seconds=seconds)
    return replace(pair, src_audio=audio, src_seconds=seconds)
