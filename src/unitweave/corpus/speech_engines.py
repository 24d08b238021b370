"""Engines that read texts aloud: Pico, eSpeak and Kokoro, Piper, any shell command, any Python function."""

import contextlib
import io
import re
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import soundfile

from unitweave.config.corpus import SpeakSettings
from unitweave.core.errors import InputError
from unitweave.core.files import file_digest, json_digest
from unitweave.core.functions import imported
from unitweave.core.machine import usable_cores
from unitweave.core.shell import run_shell
from unitweave.corpus import kokoro
from unitweave.corpus.embedded.engines import Utterance, Voice, check_engines, synthesize_all
from unitweave.corpus.samples import audio_file

_PICO_VOICES = {"en": "en-US", "es": "es-ES", "fr": "fr-FR", "de": "de-DE", "it": "it-IT"}
_PIPER = "piper --model {model} --output_file {out}"
_TIMEOUT = 300  # seconds for one text


@dataclass(frozen=True)
class Text:
    """A text to be read aloud; `key` names it to the caller."""

    key: str
    text: str
    language: str


@dataclass(frozen=True)
class SynthesisResult:
    """What an engine made of a text: the bytes of an audio file, or what went wrong."""

    text: Text
    content: bytes
    problem: str = ""
    timed_out: bool = False

    @property
    def failure(self) -> str:
        """What went wrong; also where the file has no sound in it."""
        if self.problem or not self.content:
            return self.problem or "it wrote an empty file"
        with contextlib.suppress(soundfile.SoundFileError):  # other formats are read later
            return "" if soundfile.info(io.BytesIO(self.content)).frames else "the sound is empty"
        return ""


class SpeechEngine(Protocol):
    """Reads texts aloud.

    Attributes:
        identity: What the speech depends on besides the text; it goes into the manifest.
    """

    identity: dict[str, Any]

    def check(self, languages: Iterable[str]) -> None:
        """Raise InputError where the engine is missing or does not support one of the languages."""

    def speak(self, texts: Sequence[Text]) -> Iterator[SynthesisResult]:
        """The speech of each text, in any order."""


def load_engine(settings: SpeakSettings) -> SpeechEngine:
    """The engine that the settings name. Raises InputError where something that it needs is not given or missing."""
    if settings.engine in ("pico", "espeak", "kokoro"):
        return EmbeddedEngine(settings)
    if settings.engine == "function":
        return FunctionEngine(settings)
    return CommandEngine(settings)


class EmbeddedEngine:
    """Pico or eSpeak NG of the extra `demo`, or Kokoro."""

    def __init__(self, settings: SpeakSettings) -> None:
        self.settings = settings
        self.identity: dict[str, Any] = {"engine": settings.engine, "voice": settings.voice}
        if settings.engine == "kokoro":
            if not settings.model:
                raise InputError("--engine kokoro: name the folder of 'unitweave fetch kokoro' with --model")
            kokoro.voices(settings.model)
            self.identity["model"] = kokoro.model_digest(settings.model)

    def _voice(self, language: str) -> Voice:
        engine, model = self.settings.engine, ""
        if engine == "kokoro":
            model = str(self.settings.model)
            name: str | None = kokoro.engine_name(model, language, self.settings.voice)
        else:
            name = self.settings.voice or (_PICO_VOICES.get(language) if engine == "pico" else language)
        if name is None:
            names = ", ".join(_PICO_VOICES)
            raise InputError(f"pico does not support {language}, only {names}; --engine espeak supports a hundred")
        return Voice(f"{language}_{engine}", engine, name, model=model)

    def check(self, languages: Iterable[str]) -> None:
        """Raise InputError where a package is missing or the engine has no voice for a language."""
        check_engines({self._voice(language) for language in languages})

    def speak(self, texts: Sequence[Text]) -> Iterator[SynthesisResult]:
        """In processes, one per core."""
        with tempfile.TemporaryDirectory() as folder:
            of = {Path(folder) / f"{i}.wav": text for i, text in enumerate(texts)}
            utterances = [Utterance(path, text.text, self._voice(text.language)) for path, text in of.items()]
            with contextlib.closing(synthesize_all(utterances, self.settings.workers)) as spoken:
                for utterance, problem in spoken:
                    yield SynthesisResult(of[utterance.path], b"" if problem else utterance.path.read_bytes(), problem)
                    utterance.path.unlink(missing_ok=True)


class CommandEngine:
    """A shell command: the text comes on its standard input, and it writes the file {out}."""

    def __init__(self, settings: SpeakSettings) -> None:
        self.settings, self._stop = settings, threading.Event()
        if settings.engine == "piper" and not settings.model:
            raise InputError("--engine piper: name the voice's .onnx file with --model")
        if settings.engine == "command" and not settings.command:
            raise InputError("--engine command: give the command with --command, for instance 'espeak-ng -w {out}'")
        self.template = str(settings.command) if settings.engine == "command" else _PIPER
        if "{out}" not in self.template:
            raise InputError(f"--command: must name the file to write as {{out}} (got {self.template!r})")
        model = file_digest(Path(settings.model)) if settings.model and Path(settings.model).is_file() else None
        self.identity: dict[str, Any] = {"engine": settings.engine, "command": self.template, "voice": settings.voice}
        self.identity |= {"model": Path(settings.model).name, "digest": model} if settings.model else {}

    def _command(self, text: Text, out: str) -> str:
        values = {"out": out, "text": text.text, "language": text.language}
        values |= {"voice": self.settings.voice or "", "model": self.settings.model or ""}
        try:
            return self.template.format(**{name: shlex.quote(value) for name, value in values.items()})
        except (KeyError, IndexError, ValueError, AttributeError):
            raise InputError(
                f"--command: {self.template!r} may only have {{out}}, {{text}}, {{language}}, {{voice}}, {{model}}"
            ) from None

    def check(self, languages: Iterable[str]) -> None:
        """Raise InputError where the program is not installed, or the model is no file."""
        try:
            words = shlex.split(self._command(Text("", "", ""), "x.wav"))
        except ValueError as error:
            raise InputError(f"--command: {self.template!r} cannot be read by a shell ({error})") from None
        program = next((word.lstrip("(") for word in words if not re.match(r"\w+=", word)), "")
        # Asked of the shell, which knows words of its own, too.
        if subprocess.run(["sh", "-c", 'command -v "$1"', "sh", program], capture_output=True, check=False).returncode:
            raise InputError(f"--engine {self.settings.engine}: the program {program!r} is not installed")
        if self.settings.engine == "piper" and not Path(str(self.settings.model)).is_file():
            raise InputError(f"--model {self.settings.model}: no such file")

    def speak(self, texts: Sequence[Text]) -> Iterator[SynthesisResult]:
        """In threads, each of which waits for a command."""
        with ThreadPoolExecutor(self.settings.workers or usable_cores()) as pool:
            self._stop.clear()
            try:
                yield from pool.map(self._speak, texts)
            finally:
                self._stop.set()  # of those that still run, where nobody wants the rest

    def _speak(self, text: Text) -> SynthesisResult:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "speech.wav"
            try:
                done = run_shell(self._command(text, str(out)), text.text, _TIMEOUT, self._stop)
            except subprocess.TimeoutExpired:
                return SynthesisResult(text, b"", f"the command took longer than {_TIMEOUT} s", timed_out=True)
            if done.returncode or not out.is_file():
                stderr = done.stderr.decode("utf-8", "replace").strip().splitlines()
                problem = f"exit code {done.returncode}" if done.returncode else "it wrote no file"
                return SynthesisResult(text, b"", ": ".join([problem, *stderr[-1:]]))
            return SynthesisResult(text, out.read_bytes())


class FunctionEngine:
    """A Python function `module:name` of (text, language), which returns samples or (samples, rate)."""

    def __init__(self, settings: SpeakSettings) -> None:
        if not settings.function:
            raise InputError("--engine function: name it with --function MODULE:NAME")
        self.identity: dict[str, Any] = {"engine": "function", "function": settings.function}
        self._function = imported(settings.function, "--function")

    def check(self, languages: Iterable[str]) -> None:
        """Nothing is known of it beforehand."""

    def speak(self, texts: Sequence[Text]) -> Iterator[SynthesisResult]:
        """One after the other, in this process."""
        for text in texts:
            try:
                yield SynthesisResult(text, audio_file(self._function(text.text, text.language)))
            except (Exception, SystemExit) as error:  # whatever the function raises costs this text alone
                problem = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
                yield SynthesisResult(text, b"", str(error) if isinstance(error, InputError) else problem)


def speech_identity(settings: SpeakSettings) -> str:
    """16 hexadecimal digits that name the speech: equal digits and texts, equal speech."""
    return json_digest([load_engine(settings).identity, asdict(settings) | {"workers": 0}])
