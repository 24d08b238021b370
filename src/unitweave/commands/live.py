"""unitweave live."""

import json
import sys
from pathlib import Path
from typing import Literal, get_args

from unitweave.config.live import LiveSettings, Policy
from unitweave.config.score import RecognizerName, check_recognizer
from unitweave.config.types import NonNegativeInt, PositiveInt
from unitweave.core.errors import InputError
from unitweave.core.imports import quick_imports
from unitweave.core.lock import locked


def live(
    model: str,
    *,
    audio: Path | None = None,
    fast: bool = False,
    out: Path | None = None,
    json_lines: bool = False,
    system: str | None = None,
    language: str | None = None,
    target_language: str | None = None,
    speaker: str | None = None,
    bf16: bool = False,
    engine: Literal["int8"] | None = None,
    device: str = "cpu",
    threads: PositiveInt | None = None,
    trust_functions: bool = False,
    settings: LiveSettings,
) -> None:
    """Translate while somebody is speaking, into a microphone or in a recording. Ctrl-C ends it.

    Args:
        model: A run folder, an exported model, or the name of one on the hub (OWNER/NAME).
        audio: A recording to read in real time, in place of the microphone.
        fast: Read the recording as fast as the computer can.
        out: Write the speech to OUT.wav and subtitles to OUT.srt and OUT.vtt, instead of playing it.
        json_lines: Print every event as a line of JSON.
        system: Which system of a run folder (default: scheduled, or the only one).
        language: Language of the speech; without it the model identifies it.
        target_language: Language to translate into; needed where the model has several.
        speaker: Voice of the translation, where the vocoder has several (default: the model's settings).
        bf16: Run the language model in bfloat16: faster, and results differ slightly.
        engine: int8: run the language model with 8-bit integer weights, for large models on a CPU.
        device: cpu, cuda, cuda:1, ...
        threads: CPU threads.
        trust_functions: Run the Python functions that a run folder names (only for runs that you know).
    """
    if fast and audio is None:
        raise InputError("--fast: needs a recording (--audio)")
    if out is not None:
        _check_out(out, audio)

    from unitweave.translate.package import find_parts

    # Refuses what is no model before seconds of imports, and before the microphone is looked for.
    parts = find_parts(model, system, trust_functions).in_voice(speaker)
    from unitweave.translate.checks import check_languages, check_service
    from unitweave.translate.live.sources import Loudspeaker, microphone, recording

    source = None if audio is None else recording(audio, fast)
    check_service(parts, engine, device, bf16)
    check_languages(parts, language, target_language)
    source = source or microphone()
    loudspeaker = None if out is not None or settings.text_only else Loudspeaker()

    from unitweave.core.progress import echo

    with quick_imports(only_decoding=not trust_functions):
        import torch

        from unitweave.training.devices import check_device

        check_device(device, "--device")
        from unitweave.translate.live.decoding import LiveDecoder
        from unitweave.translate.live.run import run_live
        from unitweave.translate.live.translator import LiveTranslator
        from unitweave.translate.translator import Translator

    if threads:
        torch.set_num_threads(threads)
    dtype = torch.bfloat16 if bf16 else torch.float32
    translator = Translator.from_parts(parts, device, dtype, engine)
    session = LiveTranslator(translator, settings, language, target_language)
    echo("listening; Ctrl-C ends it" if audio is None else f"listening to {audio}; Ctrl-C ends it")
    text_only = session.session.settings.text_only
    if settings.policy != "utterance" and not text_only and not LiveDecoder(translator).early_speech:
        echo("words come early, but speech at the end of an utterance: without an encoder it cannot be cut at a word")
    written, ended = run_live(session, source, out, loudspeaker, _printer(json_lines), text_only)
    if written is not None:
        echo(written)
    if ended:
        sys.exit(128 + ended)


def evaluate(
    run: Path,
    *,
    out: Path,
    policies: list[Policy] = [],  # noqa: B006
    chunk_seconds: list[float] = [],  # noqa: B006
    utterances: PositiveInt = 40,
    joined: NonNegativeInt = 0,
    split: Literal["dev", "test"] = "test",
    batch_size: PositiveInt = 1,
    system: str | None = None,
    recognizer: RecognizerName | str = "auto",
    recognizer_model: str = "",
    threads: PositiveInt | None = None,
    trust_functions: bool = False,
) -> None:
    """Measure the quality and the delay of live translation on recordings of a run.

    Prints a table, and writes it with a figure, the speech and SimulEval's instances.log of each policy. The same
    command resumes where it was interrupted.

    Args:
        run: A run folder.
        out: Folder for the results.
        policies: Policies to measure (default: all).
        chunk_seconds: Chunk lengths to measure, in seconds (default: 0.3 0.5 1.0).
        utterances: Number of recordings to take from the split.
        joined: Number of longer recordings to measure as well, each of two to four joined with pauses of 0.2 to 0.8 s.
        split: Split that the recordings are taken from.
        batch_size: Sessions computed together: faster, but each is then charged only its share of the computing time.
        system: Which system of the run (default: scheduled, or the only one).
        recognizer: Speech recognizer for ASR-BLEU, as score.recognizer has it: auto, moonshine, fairseq, whisper, or
            MODULE:CLASS of your own. It must support the target language.
        recognizer_model: Folder or hub name of another checkpoint for the recognizer.
        threads: CPU threads.
        trust_functions: Run the Python functions that a run folder names (only for runs that you know).
    """
    from unitweave.core.files import write_text
    from unitweave.core.layout import RunLayout
    from unitweave.core.manifest import read_manifest
    from unitweave.translate.checks import check_service
    from unitweave.translate.package import find_parts

    check_recognizer(recognizer)
    pairs = read_manifest(RunLayout(run).corpus, split)
    model = find_parts(run, system, trust_functions)
    check_service(model)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: must be a folder for the results")

    with quick_imports():
        import torch

        from unitweave.score.asr.recognizers import choose_recognizer, load_recognizer
        from unitweave.score.live import evaluate_live, evaluate_offline, join_sources, read_sources
        from unitweave.score.live_report import caption, draw, table
        from unitweave.translate.translator import Translator

    if threads:
        torch.set_num_threads(threads)
    single = read_sources(pairs, utterances)
    chosen = choose_recognizer(recognizer, recognizer_model, {source.language for source in single})
    translator = Translator.from_parts(model)
    asr = load_recognizer(*chosen)
    with locked(out):
        parts = []
        for name, sources in (("", single), ("joined-", join_sources(single, joined))):
            if not sources:
                continue
            scores = [evaluate_offline(translator, sources, asr, out / f"{name}offline", batch_size)]
            for policy in policies or get_args(Policy):
                for seconds in (chunk_seconds or [0.3, 0.5, 1.0]) if policy != "utterance" else [0.5]:
                    folder = out / (name + (policy if policy == "utterance" else f"{policy}-{seconds:g}"))
                    settings = LiveSettings(policy=policy, chunk_seconds=seconds)
                    scores.append(evaluate_live(translator, settings, sources, asr, folder, batch_size))
            parts.append((caption(sources, bool(name)), scores))
        text = "\n\n".join(f"{title}:\n\n{table(scores)}" for title, scores in parts)
        print(text)
        write_text(out / "table.md", text + "\n")
        draw(parts, out / "latency.png")


def _check_out(out: Path, audio: Path | None) -> None:
    """Raise InputError where no file can be named after `out`, or the recording is one of those that are written."""
    if out.name in ("", ".."):
        raise InputError(f"-o {out}: must be a name to which .wav, .srt and .vtt are added, as in -o {out / 'talk'}")
    written = out.with_name(out.name + ".wav")
    if audio is not None and written.exists() and audio.exists() and written.samefile(audio):
        raise InputError(f"-o {out}: would overwrite the recording; give another name")


def _printer(json_lines: bool):  # type: ignore[no-untyped-def]
    """What prints an event: committed words as they come, a line for each utterance; or all as JSON."""
    from unitweave.translate.live.events import CommittedText, LiveEvent, UtteranceEnd

    def print_json(event: LiveEvent) -> None:
        print(json.dumps(event.plain()), flush=True)

    def print_words(event: LiveEvent) -> None:
        if isinstance(event, CommittedText):
            print(_printable(event.text), end="", flush=True)
        elif isinstance(event, UtteranceEnd):
            print(flush=True)

    return print_json if json_lines else print_words


def _printable(text: str) -> str:
    """With escapes where the terminal has no such letters."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
