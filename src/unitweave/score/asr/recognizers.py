"""Speech recognizers for ASR-BLEU, each with the text normalization that its protocol prescribes.

A recognizer is never exchangeable for another: the same speech gets a different score from each. So
each one carries a signature that names it down to its revision, and goes with every number.
"""

import importlib.metadata
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from unitweave.core.audio import SAMPLE_RATE
from unitweave.core.errors import InputError
from unitweave.core.files import digest_of, digest_of_file
from unitweave.core.text import NORMALIZER, normalize
from unitweave.training.devices import device_of

DEFAULT_MODELS = {
    "moonshine": "",  # inside the moonshine-voice package
    "fairseq": "facebook/wav2vec2-large-960h-lv60-self",
    "whisper": "openai/whisper-medium.en",
}
MOONSHINE_VERSION = "0.1.0"  # later versions download their models
MOONSHINE_PADDING = 0.5  # seconds of digital silence at both ends; see docs/scoring.md


class Recognizer(Protocol):
    """English speech to text, with the normalization of both sides before they are compared.

    signature   names the recognizer, its revision and how it is run
    normalizer  names what `clean_hypothesis` and `clean_reference` do
    """

    signature: str
    normalizer: str

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[str]:
        """Raw transcripts of float32 waveforms [samples] at 16 kHz, in their order."""

    def clean_hypothesis(self, text: str) -> str:
        """The transcript as it goes into the score."""

    def clean_reference(self, text: str) -> str:
        """The reference text as it goes into the score."""


def load_recognizer(name: str, model: str = "", device: str = "auto") -> Recognizer:
    """Load the recognizer "moonshine", "fairseq" or "whisper".

    `model` is a local folder or a hub name that takes the place of the protocol's own checkpoint;
    the signature tells. `device` is "auto" (CUDA where there is one), "cpu", "cuda", ... and does
    not concern moonshine, which runs on the CPU. Raises InputError when it cannot be had.
    """
    if name not in DEFAULT_MODELS:
        raise InputError(f"recognizer {name!r} is none of {', '.join(DEFAULT_MODELS)}")
    if name == "moonshine":
        if model:
            raise InputError("the moonshine recognizer has its model inside the package; leave 'model' empty")
        return Moonshine()
    model = model or DEFAULT_MODELS[name]
    return FairseqCtc(model, device_of(device)) if name == "fairseq" else Whisper(model, device_of(device))


def identity(name: str, model: str = "") -> str:
    """Which recognizer `load_recognizer` would load, without loading it; a hub model by its name."""
    if name == "moonshine":
        try:
            return f"moonshine-{importlib.metadata.version('moonshine-voice')}"
        except importlib.metadata.PackageNotFoundError:
            return "moonshine"
    model = model or DEFAULT_MODELS[name]
    return f"{name} {_digest(Path(model)) if Path(model).is_dir() else model}"


# The recognizer writes now the one, now the other; common words only, since a score says what was done.
_AMERICAN = {
    british + ending: american + ending
    for british, american in (
        ("neighbor", "neighbor"),
        ("color", "color"),
        ("flavour", "flavor"),
        ("harbour", "harbor"),
        ("favorite", "favorite"),
        ("theatre", "theater"),
        ("center", "center"),
        ("metre", "meter"),
        ("kilometre", "kilometer"),
        ("litre", "liter"),
        ("traveller", "traveler"),
        ("gray", "gray"),
    )
    for ending in ("", "s")
}


class Moonshine:
    """Moonshine tiny English (27 million parameters, MIT), offline, from the package moonshine-voice.

    Its voice activity detector is switched off: it is one object for the whole process, so that a
    transcript would depend on what was transcribed before it, and it cuts sentences in pieces.
    Each waveform gets half a second of silence at both ends instead. One single-threaded model per
    core works through the list; the transcripts do not depend on how many there are.
    """

    normalizer = f"{NORMALIZER}-en,american-spelling both sides"

    def __init__(self, workers: int | None = None) -> None:
        try:
            from moonshine_voice.moonshine_api import ModelArch
            from moonshine_voice.transcriber import Transcriber
            from moonshine_voice.utils import get_model_path

            version = importlib.metadata.version("moonshine-voice")
        except ImportError as error:
            raise InputError(
                f"the moonshine recognizer is not installed ({error}); do "
                f"'pip install moonshine-voice=={MOONSHINE_VERSION}'"
            ) from None
        folder = Path(get_model_path("tiny-en"))
        if not folder.is_dir():
            raise InputError(
                f"moonshine-voice {version} has no model inside; do 'pip install moonshine-voice=={MOONSHINE_VERSION}'"
            )
        options = {"vad_threshold": "0.0", "vad_max_segment_duration": "600", "return_audio_data": "false"}
        with _environment("MOONSHINE_ORT_SINGLE_THREAD", "1"):
            self._models = [
                Transcriber(folder, ModelArch.TINY, options=options) for _ in range(workers or _usable_cores())
            ]
        self.signature = f"moonshine-tiny-en,moonshine-voice-{version},vad-off,pad-{MOONSHINE_PADDING}s"

    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[str]:
        """Raw transcripts of float32 waveforms [samples] at 16 kHz, in their order."""
        step = len(self._models)
        texts = [""] * len(waveforms)

        def work(k: int) -> None:
            for i in range(k, len(waveforms), step):
                texts[i] = self._one(self._models[k], waveforms[i])

        with ThreadPoolExecutor(step) as pool:
            for done in [pool.submit(work, k) for k in range(step)]:
                done.result()
        return texts

    def clean_hypothesis(self, text: str) -> str:
        """Lower case, numbers in words, no punctuation but the apostrophe within a word, American spelling."""
        return " ".join(_AMERICAN.get(word, word) for word in normalize(text, "en").split())

    clean_reference = clean_hypothesis

    @staticmethod
    def _one(model: Any, waveform: np.ndarray) -> str:
        padded = np.pad(waveform, round(MOONSHINE_PADDING * SAMPLE_RATE))
        lines = model.transcribe_without_streaming(padded.tolist(), SAMPLE_RATE).lines
        return " ".join(line.text.strip() for line in lines).strip()


class FairseqCtc:
    """fairseq's ASR-BLEU: wav2vec 2.0 CTC, greedy; hypothesis lower-cased, reference as it is.

    After examples/speech_to_speech/asr_bleu of fairseq: the waveform is normalized to zero mean and
    unit variance over its whole length, given to the model alone and without a mask; repeated
    tokens are merged, blanks dropped, "|" is the space, nothing else is touched. Where the tool
    means to mix stereo down but does not (it scores the left channel), unitweave mixes.
    """

    normalizer = "fairseq: hypothesis lower-cased, reference as it is"

    def __init__(self, model: str, device: torch.device) -> None:
        from transformers import AutoTokenizer, Wav2Vec2ForCTC

        tokenizer = _load(AutoTokenizer, model)
        network = _load(Wav2Vec2ForCTC, model)
        self._model = network.to(device).eval()
        self._device = device
        self._blank = tokenizer.pad_token_id
        self._tokens = tokenizer.convert_ids_to_tokens(range(network.config.vocab_size))
        self._space = "|" if "|" in self._tokens else " "
        self.signature = f"wav2vec2-ctc-greedy,{_revision(model, network)}"

    @torch.inference_mode()
    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[str]:
        """Raw transcripts of float32 waveforms [samples] at 16 kHz, in their order, one at a time."""
        texts = []
        for waveform in waveforms:
            samples = torch.from_numpy(np.pad(waveform, (0, max(0, 400 - len(waveform))))).float()[None]  # [1, samples]
            samples = torch.nn.functional.layer_norm(samples, samples.shape)
            logits = self._model(samples.to(self._device)).logits[0]  # [frames, tokens]
            texts.append(collapse(logits.argmax(-1).tolist(), self._tokens, self._blank, self._space))
        return texts

    def clean_hypothesis(self, text: str) -> str:
        """Lower case, nothing else."""
        return text.strip().lower()

    def clean_reference(self, text: str) -> str:
        """As it is: fairseq leaves the reference raw, case and punctuation included."""
        return text.strip()


class Whisper:
    """Seamless's ASR-BLEU: Whisper medium.en, greedy, and Whisper's English normalizer on both sides.

    The normalizer folds British into American spelling with a table that comes with the checkpoint
    (normalizer.json); a checkpoint without it says so in its signature.
    """

    batch = 8

    def __init__(self, model: str, device: torch.device) -> None:
        from transformers import WhisperForConditionalGeneration, WhisperProcessor
        from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

        self._processor = _load(WhisperProcessor, model)
        self._model = _load(WhisperForConditionalGeneration, model).to(device).eval()
        self._device = device
        spelling = self._processor.tokenizer.english_spelling_normalizer
        self._normalize: Callable[[str], str] = EnglishTextNormalizer(spelling or {})
        self.normalizer = "whisper-english both sides" + ("" if spelling else " (without its spelling table)")
        self.signature = f"whisper-greedy,{_revision(model, self._model)}"
        # English-only checkpoints take neither language nor task.
        multilingual = getattr(self._model.generation_config, "is_multilingual", False)
        self._options = {"language": "en", "task": "transcribe"} if multilingual else {}

    @torch.inference_mode()
    def transcribe(self, waveforms: Sequence[np.ndarray]) -> list[str]:
        """Raw transcripts of float32 waveforms [samples] at 16 kHz, in their order; 30 s windows."""
        texts: list[str] = []
        for start in range(0, len(waveforms), self.batch):
            batch = [np.asarray(waveform) for waveform in waveforms[start : start + self.batch]]
            if max(len(waveform) for waveform in batch) > 30 * SAMPLE_RATE:
                texts += [self._generate([waveform])[0] for waveform in batch]
            else:
                texts += self._generate(batch)
        return texts

    def clean_hypothesis(self, text: str) -> str:
        """Whisper's English text normalizer."""
        return self._normalize(text).strip()

    clean_reference = clean_hypothesis

    def _generate(self, batch: list[np.ndarray]) -> list[str]:
        long = max(len(waveform) for waveform in batch) > 30 * SAMPLE_RATE
        shape = {"truncation": False, "padding": "longest"} if long else {}
        features = self._processor(
            batch, sampling_rate=SAMPLE_RATE, return_tensors="pt", return_attention_mask=True, **shape
        )
        tokens = self._model.generate(
            features.input_features.to(self._device),
            attention_mask=features.attention_mask.to(self._device),
            return_timestamps=long,
            num_beams=1,
            do_sample=False,
            **self._options,
        )
        return [text.strip() for text in self._processor.batch_decode(tokens, skip_special_tokens=True)]


def collapse(path: Sequence[int], tokens: Sequence[str], blank: int, space: str = "|") -> str:
    """The text of a CTC path [frames]: repeats merged, blanks dropped, tokens joined, `space` a space."""
    kept = [token for i, token in enumerate(path) if token != blank and (i == 0 or token != path[i - 1])]
    return "".join(tokens[token] for token in kept).replace(space, " ").strip()


def _load(kind: Any, model: str) -> Any:
    """A tokenizer, processor or network from a folder, a hub name, or a hub name@revision."""
    from safetensors import SafetensorError
    from transformers import PreTrainedModel

    name, _, revision = (model, "", "") if Path(model).is_dir() else model.partition("@")
    options = {"revision": revision} if revision else {}
    try:
        if not issubclass(kind, PreTrainedModel):
            return kind.from_pretrained(name, **options)
        network, report = kind.from_pretrained(name, output_loading_info=True, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{model}: cannot be loaded as {kind.__name__} ({reason}); give a local folder") from None
    # Others, as the mask's embedding, play no part in recognition and are missing from well-known checkpoints.
    if any(key.startswith("lm_head") for key in report["missing_keys"]):
        raise InputError(f"{model}: has no output layer, so it recognizes nothing; give a checkpoint tuned with CTC")
    return network


def _revision(model: str, network: Any) -> str:
    """`name@revision`: the hub's commit, or a digest of all that a local folder holds."""
    folder = Path(model)
    if folder.is_dir():
        return f"{folder.resolve().name}@{_digest(folder)}"
    return f"{model.partition('@')[0]}@{(getattr(network.config, '_commit_hash', None) or 'unknown')[:8]}"


def _digest(folder: Path) -> str:
    files = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".json", ".txt"))
    return digest_of([[path.name, digest_of_file(path)] for path in files])[:8]


def _usable_cores() -> int:
    return max(1, min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))


class _environment:
    """Set an environment variable while the block runs."""

    def __init__(self, name: str, value: str) -> None:
        self.name, self.value = name, value

    def __enter__(self) -> None:
        self.before = os.environ.get(self.name)
        os.environ[self.name] = self.value

    def __exit__(self, *_: object) -> None:
        if self.before is None:
            del os.environ[self.name]
        else:
            os.environ[self.name] = self.before
