"""Speech from text, offline: SVOX Pico (`ttspico`), eSpeak NG (`espeakng-loader`) and Kokoro 82M.

The same text in the same voice always gives the same samples. That is not free: all three carry state
from one sentence to the next (phases, noise, a seed taken from the clock).
So every utterance is synthesized by a child process, forked from a worker that has loaded the engine but
never used it; the fork costs about a millisecond. The workers are small processes of their own
(`python -m unitweave.corpus.embedded.engines`), which keeps torch and its threads out of every fork.
"""

import contextlib
import ctypes
import functools
import hashlib
import json
import math
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from unitweave.core.audio import SAMPLE_RATE, read_audio, write_audio
from unitweave.core.errors import InputError
from unitweave.core.functions import is_installed
from unitweave.core.machine import usable_cores
from unitweave.corpus import kokoro

ENGINES = {  # engine -> the packages that it needs
    "pico": ("ttspico",),
    "espeak": ("espeakng-loader",),
    "kokoro": ("onnxruntime", "misaki", "phonemizer-fork", "espeakng-loader"),
}
EDGE_SECONDS = 0.1  # silence kept before and after the speech
PEAK = 0.6  # every utterance is scaled to this highest absolute sample
CPU_SECONDS = 60  # an engine that computes longer than this on one utterance is stuck
KOKORO_SECONDS = 600

_SILENCE = 0.005  # part of the peak below which a sample counts as silence at the edges
_ESPEAK_WORDS_PER_MINUTE = 175  # eSpeak's default rate


@dataclass(frozen=True)
class Voice:
    """One speaker. The same voice and text always give the same samples."""

    name: str  # the speaker's name in manifests
    engine: str  # "pico", "espeak" or "kokoro"
    voice: str  # "es-ES" for Pico, language+variant such as "es+f3" for eSpeak, "es+ef_dora" for Kokoro
    pitch: int = 100  # percent of the engine's default fundamental frequency, 50 to 190; Kokoro keeps its own
    rate: int = 100  # percent of the engine's default speed, 50 to 200
    tract: int = 100  # length of the vocal tract in percent of the engine's: below 100 a smaller speaker, 80 to 125
    model: str = ""  # Kokoro's folder

    def described(self) -> dict[str, Any]:
        """What the samples depend on: the fields, and the content of the model, wherever it is."""
        fields = asdict(self)
        del fields["model"]
        return fields | ({"model": kokoro.model_digest(self.model)} if self.model else {})


@dataclass(frozen=True)
class Utterance:
    """One file to synthesize."""

    path: Path  # the audio file to write (.wav or .flac)
    text: str
    voice: Voice
    noise_db: float | None = None  # signal-to-noise ratio of added background noise in dB; None for none
    level_db: float = 0.0  # level in dB relative to a peak of PEAK


def check_engines(voices: Iterable[Voice]) -> None:
    """Raise InputError when a package that one of `voices` needs is missing, or a voice is invalid."""
    for voice in voices:
        if voice.engine not in ENGINES:
            raise InputError(f"voice {voice.name!r}: engine must be one of {', '.join(ENGINES)} (got {voice.engine!r})")
        for package in ENGINES[voice.engine]:
            if not is_installed(package.removesuffix("-fork").replace("-", "_")):
                extra = "kokoro" if voice.engine == "kokoro" else "demo"
                raise InputError(f"speech synthesis needs the package {package}: pip install 'unitweave[{extra}]'")
        for field, low, high in (("pitch", 50, 190), ("rate", 50, 200), ("tract", 80, 125)):
            if not low <= getattr(voice, field) <= high:
                raise InputError(f"voice {voice.name!r}: {field} must be {low} to {high} (got {getattr(voice, field)})")


def synthesize(text: str, voice: Voice, noise_db: float | None = None) -> np.ndarray:
    """Synthesize one text.

    Returns:
        float32 [samples] at 16 kHz.

    Raises:
        InputError: The engine cannot synthesize it.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        for _, problem in synthesize_all([Utterance(path, text, voice, noise_db)], workers=1):
            if problem:
                raise InputError(f"{text!r} could not be synthesized: {problem}")
        return read_audio(path)


def synthesize_all(utterances: Sequence[Utterance], workers: int = 0) -> Generator[tuple[Utterance, str]]:
    """Synthesize utterances into their files, each written whole or not at all.

    Args:
        utterances: What to synthesize.
        workers: Parallel processes; 0 for one per core. The number changes no sample.

    Yields:
        Each utterance as it is finished, with an empty string or the reason why it failed. However the iteration
        ends (also by Ctrl-C), no process stays behind.

    Raises:
        InputError: An engine's package is missing or a voice is invalid.
    """
    check_engines({utterance.voice for utterance in utterances})
    waiting = iter(utterances)
    number = max(1, min(workers or usable_cores(), len(utterances)))
    with contextlib.ExitStack() as stack:
        running: dict[Any, tuple[_Worker, Utterance]] = {}
        for worker in [stack.enter_context(_Worker()) for _ in range(number if utterances else 0)]:
            utterance = next(waiting)
            worker.ask(utterance)
            running[worker.output] = (worker, utterance)
        while running:
            for output in wait(list(running)):
                worker, utterance = running.pop(output)
                problem = worker.answer()
                following = next(waiting, None)
                if following is not None:
                    worker.ask(following)
                    running[output] = (worker, following)
                yield utterance, problem


class _Worker:
    """The near end of one worker process: one utterance asked for, one line of JSON back."""

    def __enter__(self) -> "_Worker":
        # Phonemizers copy eSpeak's library to a temporary folder, which a worker that is ended cannot remove.
        self._temporary = tempfile.TemporaryDirectory(prefix="unitweave-speech-")
        # Its own process group: Ctrl-C reaches us alone, and we end the worker with its child.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "unitweave.corpus.embedded.engines"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TMPDIR": self._temporary.name},
        )
        assert self._process.stdin and self._process.stdout
        self._input, self.output = self._process.stdin, self._process.stdout
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        self._process.wait()
        self.output.close()
        with contextlib.suppress(BrokenPipeError):
            self._input.close()
        self._temporary.cleanup()

    def ask(self, utterance: Utterance) -> None:
        self._input.write(json.dumps(asdict(utterance) | {"path": str(utterance.path)}).encode() + b"\n")
        self._input.flush()

    def answer(self) -> str:
        line = self.output.readline()
        if not line:
            raise RuntimeError(f"a speech worker ended unexpectedly (exit code {self._process.wait()})")
        answer = json.loads(line)
        if answer["fatal"]:
            raise InputError(answer["fatal"])
        return str(answer["problem"])


# --- in the worker -----------------------------------------------------------------------------


def _serve() -> None:
    """Answer requests until standard input ends, which it also does when the asking process is killed."""
    for line in sys.stdin.buffer:
        request = json.loads(line)
        utterance = Utterance(
            Path(request["path"]),
            request["text"],
            Voice(**request["voice"]),
            noise_db=request["noise_db"],
            level_db=request["level_db"],
        )
        problem = fatal = ""
        try:
            waveform = _finish(_run_engine(utterance), utterance)
        except InputError as error:
            problem = str(error)
        else:
            try:
                write_audio(utterance.path, waveform)
            except (InputError, OSError) as error:  # nothing is wrong with the utterance: the disk is full, or the like
                fatal = str(error)
        sys.stdout.write(json.dumps({"problem": problem, "fatal": fatal}) + "\n")
        sys.stdout.flush()


def _run_engine(utterance: Utterance) -> np.ndarray:
    """Text -> float32 [samples] at 16 kHz as the engine speaks it. Raises InputError when it does not."""
    voice = utterance.voice
    text = re.sub(r"[<>&\[\]\s]+", " ", utterance.text).strip()  # the engines read mark-up; text is text
    if not re.search(r"\w", text):
        raise InputError("the text has no words")
    # A waveform stretched by `tract` moves the formants as a longer vocal tract does, and lowers pitch
    # and speed with them: the engine speaks that much higher and faster beforehand.
    pitch, rate = voice.pitch * voice.tract / 100, voice.rate * voice.tract / 100
    try:
        if voice.engine == "pico":
            engine, sampling_rate = _pico(voice.voice), SAMPLE_RATE
            pcm = _in_child(lambda: _pico_pcm(engine, text, pitch, rate))
        elif voice.engine == "kokoro":
            model = _kokoro(voice.model)
            sampling_rate, ids = model.sample_rate, model.tokens(text, voice.voice)
            pcm = _in_child(lambda: model.pcm(ids, voice.voice, rate / 100), KOKORO_SECONDS)
        else:
            library, data_path, sampling_rate = _espeak()
            pcm = _in_child(lambda: _espeak_pcm(library, data_path, text, voice.voice, pitch, rate))
    except RuntimeError as error:
        raise InputError(f"{voice.engine}: {error}") from None
    waveform = np.frombuffer(pcm, dtype=np.int16).astype(np.float32) / 32768
    if not np.any(waveform):
        raise InputError(f"{voice.engine}: the voice {voice.voice} produced no sound")
    if sampling_rate != SAMPLE_RATE or voice.tract != 100:
        waveform = soxr.resample(waveform, sampling_rate, SAMPLE_RATE * voice.tract / 100, quality="HQ")
    return waveform


def _in_child(work: Callable[[], bytes], seconds: int = CPU_SECONDS) -> bytes:
    """What `work` returns in a forked child; RuntimeError for its error, its crash or its endless loop.

    The child does as little as it can: every page that it touches is copied.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        try:
            answer, code = work(), 0
        except Exception as error:
            answer, code = (str(error) or type(error).__name__).encode(), 1
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(answer)
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        raise RuntimeError(f"the engine was killed by signal {-code}")
    if code:
        raise RuntimeError(answer.decode())
    return answer


def _finish(waveform: np.ndarray, utterance: Utterance) -> np.ndarray:
    """Cut the edges to EDGE_SECONDS of silence, scale to PEAK, add the noise, set the level."""
    loud = np.flatnonzero(np.abs(waveform) > _SILENCE * np.abs(waveform).max())
    edge = int(EDGE_SECONDS * SAMPLE_RATE)
    padded = np.pad(waveform, edge)
    waveform = padded[loud[0] : loud[-1] + 1 + 2 * edge]
    waveform = waveform * (PEAK / np.abs(waveform).max())
    if utterance.noise_db is not None:
        key = json.dumps([utterance.text, utterance.voice.described(), utterance.noise_db])
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]))
        waveform = waveform + _noise(rng, waveform, utterance.noise_db)
    if utterance.level_db:
        waveform = waveform * 10 ** (utterance.level_db / 20)
    return waveform.astype(np.float32)


def _noise(rng: np.random.Generator, waveform: np.ndarray, ratio_db: float) -> np.ndarray:
    """Steady room noise, between white and red, `ratio_db` below the level of the speech."""
    number = 1 << (len(waveform) - 1).bit_length()  # a power of two is the quick length for a Fourier transform
    spectrum = np.fft.rfft(rng.standard_normal(number, dtype=np.float32))
    hertz = np.fft.rfftfreq(number, 1 / SAMPLE_RATE)
    slope = rng.uniform(0, 1)  # 0: white, 1: 6 dB per octave above 300 Hz
    colored = np.fft.irfft(spectrum * (1 + (hertz / 300) ** 2) ** (-slope / 2), number)[: len(waveform)]
    level = np.sqrt(np.mean(waveform**2)) * 10 ** (-ratio_db / 20)
    return colored * (level / np.sqrt(np.mean(colored**2)))


_kokoro = functools.cache(kokoro.Kokoro)


@functools.cache
def _pico(language: str) -> Any:
    import ttspico

    return ttspico.TtsEngine(language)


def _pico_pcm(engine: Any, text: str, pitch: float, rate: float) -> bytes:
    engine.pitch, engine.rate = round(min(max(pitch, 50), 200)), round(min(max(rate, 20), 500))
    return engine.speak(text) or b""


@functools.cache
def _espeak() -> tuple[ctypes.CDLL, str, int]:
    import espeakng_loader

    data_path = str(espeakng_loader.get_data_path())
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    # 2: AUDIO_OUTPUT_SYNCHRONOUS; 0x8000: espeakINITIALIZE_DONT_EXIT
    rate = library.espeak_Initialize(2, 0, data_path.encode(), 0x8000)
    if rate <= 0:
        raise RuntimeError(f"espeak_Initialize returned {rate}")
    return library, data_path, rate


def _espeak_pcm(library: ctypes.CDLL, data_path: str, text: str, name: str, pitch: float, rate: float) -> bytes:
    variant = name.partition("+")[2]
    # eSpeak itself takes an unknown variant without a word and speaks in the plain voice.
    exists = not variant or (Path(data_path) / "voices" / "!v" / variant).is_file()
    if not exists or library.espeak_SetVoiceByName(name.encode()) != 0:
        raise RuntimeError(f"there is no voice {name!r}")
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # some voices add noise, seeded from the clock otherwise
    semitone_scale = 50 + 50 * math.log2(pitch / 100)  # eSpeak's 0..99 runs over two octaves about the default
    library.espeak_SetParameter(3, round(min(max(semitone_scale, 0), 99)), 0)  # 3: espeakPITCH
    library.espeak_SetParameter(1, round(_ESPEAK_WORDS_PER_MINUTE * rate / 100), 0)  # 1: espeakRATE
    pieces: list[bytes] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    def collect(samples: int | None, number: int, _: object) -> int:
        if samples and number > 0:
            pieces.append(ctypes.string_at(samples, number * 2))
        return 0

    library.espeak_SetSynthCallback(collect)
    data = text.encode() + b"\0"
    # position 0, by character, no end, 1: espeakCHARS_UTF8
    if library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 1, 0, 1, None, None) != 0:
        raise RuntimeError("the text was not synthesized")
    return b"".join(pieces)


if __name__ == "__main__":
    # The parent process may be killed while this one writes its answer; there is nobody left to report that to.
    with contextlib.suppress(BrokenPipeError):
        _serve()
    os._exit(0)
