"""unitweave translate."""

import json
import sys
from pathlib import Path
from typing import Any, Literal

from unitweave.config.translate import SegmentationSettings
from unitweave.config.types import NonNegativeNumber, OneOrMore, PositiveInt, PositiveNumber, Seed
from unitweave.core.errors import InputError
from unitweave.core.imports import quick_imports


def translate(
    model: str,
    audio: list[str],
    *,
    out: Path = Path("translations"),
    system: str | None = None,
    text_only: bool = False,
    num_beams: PositiveInt | None = None,
    temperature: NonNegativeNumber | None = None,
    batch_size: PositiveInt | None = None,
    seed: Seed | None = None,
    transcript: str | None = None,
    translation: str | None = None,
    language: str | None = None,
    target_language: str | None = None,
    speaker: str | None = None,
    cut_above: PositiveNumber | None = None,
    max_speech_seconds: OneOrMore | None = None,
    bf16: bool = False,
    engine: Literal["int8"] | None = None,
    device: str = "cpu",
    trust_functions: bool = False,
) -> None:
    """Translate recordings into speech in another language.

    Args:
        model: A run folder, an exported model, or the name of one on the hub (OWNER/NAME).
        audio: Recordings, folders of recordings, or patterns such as 'talks/*.mp3'; - reads such names from
            standard input, one per line.
        out: Folder for the results.
        system: Which system of a run folder (default: scheduled, or the only one).
        text_only: Stop after the translation; no speech.
        num_beams: Beams of the search over the texts (default: the model's settings).
        temperature: Sampling temperature of the units; 0 takes the most probable one (default: the model's settings).
        batch_size: Utterances decoded together (default: the model's settings).
        seed: Seed of the sampling of units (default: the model's settings).
        transcript: Transcript of the recording, where you know it (one short recording).
        translation: Translation to be synthesized (one short recording).
        language: Language of the recordings; without it the model identifies it.
        target_language: Language to translate into; needed where the model has several.
        speaker: Voice of the translation, where the vocoder has several (default: the model's settings).
        cut_above: Recordings longer than this many seconds are cut into utterances (default: longer than those that
            the model was trained on).
        max_speech_seconds: Maximum seconds of such an utterance (default: as long as those that the model
            was trained on, at most 20).
        bf16: Run the language model in bfloat16: faster, and results differ slightly.
        engine: int8: run the language model with 8-bit integer weights, for large models on a CPU.
        device: cpu, cuda, cuda:1, ...
        trust_functions: Run the Python functions that a run folder names (only for runs that you know).
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"-o {out}: is a file; name a folder")

    from dataclasses import replace

    from unitweave.core.progress import echo
    from unitweave.translate.checks import check_languages, check_recordings, check_service
    from unitweave.translate.package import find_parts
    from unitweave.translate.tasks import find_tasks

    parts = find_parts(model, system, trust_functions).in_voice(speaker)
    tasks = find_tasks(audio, out)
    if len(tasks) == 1 and not tasks[0].source.exists():
        raise InputError(f"{tasks[0].source}: no such audio file")
    if len(tasks) > 1 and (transcript is not None or translation is not None):
        raise InputError(f"--transcript and --translation need a single recording (got {len(tasks)})")
    for flag, text in (("--transcript", transcript), ("--translation", translation)):
        if text is not None and not any(map(str.isalnum, text)):
            raise InputError(f"{flag}: has no words; leave the flag out to let the model write the text")
    check_service(parts, engine, device, bf16)
    check_languages(parts, language, target_language)
    if errors := check_recordings(tasks):
        for error in errors if len(tasks) > 1 else ():
            echo(error)
        raise InputError(_summary(errors, len(tasks)))

    # From here on it is worth seconds of imports.
    with quick_imports(only_decoding=not trust_functions):
        import torch

        from unitweave.training.devices import check_device

        check_device(device, "--device")
        from unitweave.translate.decode import ForcedPrefix
        from unitweave.translate.files import translate_files
        from unitweave.translate.translator import UNSURE, Translator

    forced = None
    if any(given is not None for given in (transcript, translation, language, target_language)):
        forced = ForcedPrefix(transcript, translation, language, target_language)
    dtype = torch.bfloat16 if bf16 else torch.float32
    translator = Translator.from_parts(parts, device, dtype, engine)
    named = {"num_beams": num_beams, "temperature": temperature, "batch_size": batch_size, "seed": seed}
    given: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    settings = replace(translator.settings, text_only=text_only or translator.vocoder is None, **given)
    segmentation = SegmentationSettings(max_speech_seconds=max_speech_seconds) if max_speech_seconds else None
    failed = []
    for done in translate_files(translator, tasks, settings, forced, segmentation, cut_above):
        if done.about is None:
            failed.append(done.error)
            if len(tasks) > 1:
                echo(done.error)
            continue
        shown = {key: done.about[key] for key in ("transcript", "translation", "confidence")}
        if done.about["in_domain"] is False:
            echo(f"{done.task.source}: {UNSURE}")
        wav = done.task.stem.with_name(done.task.stem.name + ".wav")
        print(_one_line(({} if settings.text_only else {"audio": str(wav)}) | shown), flush=True)
    if failed:
        raise InputError(_summary(failed, len(tasks)))


def _summary(failed: list[str], recordings: int) -> str:
    """What is said at the end of the recordings that could not be translated."""
    if recordings == 1:
        return failed[0]
    return f"{len(failed)} of {recordings} recordings could not be translated, the first: {failed[0]}"


def _one_line(about: dict[str, Any]) -> str:
    """As JSON; with escapes where the terminal has no such letters, or a file's name is no UTF-8."""
    line = json.dumps(about, ensure_ascii=False)
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(about)
    return line
