"""A cascade beside the systems: the test split through a recognizer, a translator and a speech engine of any make."""

import json
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unitweave.config.score import CascadeRecognizer, CascadeSettings, CascadeTranslator
from unitweave.config.translate import TranslateSettings
from unitweave.core.audio import SAMPLE_RATE, read_audio, write_audio
from unitweave.core.errors import InputError, error_prefix, first_line
from unitweave.core.functions import function_errors, imported
from unitweave.core.manifest import Pair
from unitweave.core.progress import echo
from unitweave.core.shell import run_shell
from unitweave.core.stage import StageResult
from unitweave.corpus.speech_engines import Text, load_engine, speech_identity
from unitweave.score.asr import checkpoints
from unitweave.score.asr.recognizers import choose_recognizer, identity, load_recognizer
from unitweave.training.devices import resolve_device
from unitweave.training.model_files import SAFE_LOADING, check_model_folder, loading_errors
from unitweave.translate.stage import SHARDS, WriteBatch, write_in_shards

_TIMEOUT = 600  # seconds for one call of a command
# Codes of NLLB and mBART for the languages that the corpora of speech translation have.
_FLORES = {
    "ar": "arb_Arab", "ca": "cat_Latn", "cy": "cym_Latn", "de": "deu_Latn", "en": "eng_Latn", "es": "spa_Latn",
    "et": "est_Latn", "fa": "pes_Arab", "fr": "fra_Latn", "id": "ind_Latn", "it": "ita_Latn", "ja": "jpn_Jpan",
    "lv": "lvs_Latn", "mn": "khk_Cyrl", "nl": "nld_Latn", "pt": "por_Latn", "ru": "rus_Cyrl", "sl": "slv_Latn",
    "sv": "swe_Latn", "ta": "tam_Taml", "tr": "tur_Latn", "zh": "zho_Hans", "pl": "pol_Latn", "uk": "ukr_Cyrl",
    "cs": "ces_Latn", "hi": "hin_Deva", "ko": "kor_Hang", "vi": "vie_Latn", "th": "tha_Thai", "fi": "fin_Latn",
    "da": "dan_Latn", "el": "ell_Grek", "hu": "hun_Latn", "ro": "ron_Latn", "sw": "swh_Latn", "bn": "ben_Beng",
}  # fmt: skip

Transcribe = Callable[[Sequence[np.ndarray], str], list[str]]  # waveforms at 16 kHz, language
TranslateTexts = Callable[[Sequence[str], str, str], list[str]]  # texts, source language, target language


def check_cascade(name: str, settings: CascadeSettings, directions: Iterable[tuple[str, str]]) -> str:
    """What the cascade's results depend on besides its settings.

    Raises:
        InputError: A part is not there, or does not know a language of these directions.
    """
    directions = list(directions)
    try:
        parts = [speech_identity(settings.speech)]
        load_engine(settings.speech).check({target for _, target in directions})
        recognizer, translator = settings.recognizer, settings.translator
        if recognizer.engine not in ("command", "function"):
            sources = {source for source, _ in directions}
            parts.append(identity(*choose_recognizer(recognizer.engine, recognizer.model, sources)))
        for function in (recognizer.function, translator.function):
            if function:
                imported(function, "function")
        if translator.engine == "model":
            parts.append(checkpoints.identity(translator.model))
    except InputError as error:
        raise InputError(f"score.cascades.{name}: {error}") from None
    return " ".join(parts)


def try_cascade(settings: CascadeSettings, directions: Iterable[tuple[str, str]]) -> None:
    """Load the parts of a cascade once. Raises InputError where one is missing or does not know a language."""
    load_engine(settings.speech).check({target for _, target in directions})
    _recognizer(settings.recognizer, {source for source, _ in directions})
    _translator(settings.translator, directions)


def translate_by_cascade(
    folder: Path, settings: CascadeSettings, sizes: TranslateSettings, pairs: Sequence[Pair]
) -> StageResult:
    """Translate utterances; write folder/outputs.jsonl and folder/audio/ID.wav, as the systems' stages do.

    All processes call this; finished shards are kept.

    Args:
        folder: The stage's folder, RUN/translate/NAME.
        settings: The cascade.
        sizes: Sizes of shards and batches.
        pairs: The utterances.

    Raises:
        InputError: An utterance has no recording, or a part of the cascade fails.
    """
    if silent := [pair.id for pair in pairs if not pair.src_audio]:
        raise InputError(f"{folder}: utterance {silent[0]} has no source recording, which a cascade needs")

    def begin() -> WriteBatch:
        directions = {(pair.src_lang, pair.tgt_lang) for pair in pairs}
        transcribe = _recognizer(settings.recognizer, {source for source, _ in directions})
        translate, engine = _translator(settings.translator, directions), load_engine(settings.speech)

        def write(part: Sequence[Pair]) -> list[str]:
            transcripts: dict[str, str] = {}
            translations: dict[str, str] = {}
            for source, target in sorted({(pair.src_lang, pair.tgt_lang) for pair in part}):
                batch = [pair for pair in part if (pair.src_lang, pair.tgt_lang) == (source, target)]
                waveforms = [read_audio(str(p.src_audio), expected_seconds=p.src_seconds) for p in batch]
                texts = [text.strip() for text in transcribe(waveforms, source)]
                transcripts |= zip((pair.id for pair in batch), texts, strict=True)
                transcribed = [pair.id for pair in batch if transcripts[pair.id]]
                found = translate([transcripts[id] for id in transcribed], source, target) if transcribed else []
                translations |= zip(transcribed, (text.strip() for text in found), strict=True)
            spoken = [Text(p.id, text, p.tgt_lang) for p in part if (text := translations.get(p.id))]
            audio = set()
            for speech in engine.speak(spoken):
                if speech.problem:
                    echo(f"{folder.name}: {speech.text.key} could not be synthesized: {speech.problem}")
                    continue
                write_audio(folder / "audio" / f"{speech.text.key}.wav", read_audio(speech.content, speech.text.key))
                audio.add(speech.text.key)
            if spoken and not audio:
                raise InputError(f"score.cascades.{folder.name}.speech: none of {len(spoken)} texts was synthesized")
            return [_line(pair, transcripts[pair.id], translations.get(pair.id, ""), pair.id in audio) for pair in part]

        return write

    write_in_shards(folder, pairs, sizes, begin)
    return StageResult(counts={"utterances": len(pairs)}, obsolete=(folder / SHARDS,))


def _line(pair: Pair, transcript: str, translation: str, spoken: bool) -> str:
    line = {
        "id": pair.id,
        "audio": f"audio/{pair.id}.wav" if spoken else None,
        "language": pair.src_lang,
        "target_language": pair.tgt_lang,
        "transcript": transcript,
        "translation": translation,
        "texts": "natural",
    }
    return json.dumps(line, ensure_ascii=False) + "\n"


def _recognizer(settings: CascadeRecognizer, languages: Iterable[str]) -> Transcribe:
    if settings.engine == "function":
        function = imported(str(settings.function), "recognizer.function")
        name = f"recognizer.function {settings.function}"

        def transcribe(waveforms: Sequence[np.ndarray], language: str) -> list[str]:
            with function_errors(str(settings.function), name):
                texts = [function(waveform, language) for waveform in waveforms]
            return [_text(text, name) for text in texts]

        return transcribe
    if settings.engine == "command":
        return lambda waveforms, language: [_transcribed(str(settings.command), w, language) for w in waveforms]
    return load_recognizer(*choose_recognizer(settings.engine, settings.model, languages)).transcribe


def _transcribed(command: str, waveform: np.ndarray, language: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "source.wav"
        write_audio(path, waveform, SAMPLE_RATE)
        return " ".join(_output(command, "", audio=str(path), language=language).split())


def _translator(settings: CascadeTranslator, directions: Iterable[tuple[str, str]]) -> TranslateTexts:
    if settings.engine == "function":
        function = imported(str(settings.function), "translator.function")
        name = f"translator.function {settings.function}"

        def translate(texts: Sequence[str], source: str, target: str) -> list[str]:
            with function_errors(str(settings.function), name):
                returned = function(list(texts), source, target)
            return _as_many(returned, texts, name)

        return translate
    if settings.engine == "command":
        command = str(settings.command)

        def translate_by_command(texts: Sequence[str], source: str, target: str) -> list[str]:
            lines = "".join(f"{' '.join(text.split())}\n" for text in texts)
            printed = _output(command, lines, source=source, target=target).splitlines()
            return _as_many(printed, texts, "translator: the command")

        return translate_by_command
    model = TranslationModel(settings.model)
    model.check({language for direction in directions for language in direction})
    return model.translate


def _text(returned: Any, name: str) -> str:
    if not isinstance(returned, str):
        raise InputError(f"{name}: must return text (got {returned!r:.80})")
    return returned


def _as_many(returned: Any, texts: Sequence[str], what: str) -> list[str]:
    if not isinstance(returned, Sequence) or isinstance(returned, str) or len(returned) != len(texts):
        number = len(returned) if isinstance(returned, Sequence) and not isinstance(returned, str) else "no list of"
        raise InputError(f"{what} gave {number} translations of {len(texts)} sentences")
    return [_text(text, what) for text in returned]


def _output(command: str, text: str, **values: str) -> str:
    """What a shell command prints, with {names} in their places. Raises InputError where it fails."""
    try:
        filled = command.format(**{name: shlex.quote(value) for name, value in values.items()})
    except (KeyError, IndexError, ValueError, AttributeError):
        names = ", ".join(f"{{{name}}}" for name in values)
        raise InputError(f"command: {command!r} may only contain {names}") from None
    try:
        done = run_shell(filled, text, _TIMEOUT)
    except subprocess.TimeoutExpired:
        raise InputError(f"command {command!r}: took longer than {_TIMEOUT} s") from None
    if done.returncode:
        stderr = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise InputError(f"command {command!r}: " + ": ".join([f"exit code {done.returncode}", *stderr[-1:]]))
    return done.stdout.decode("utf-8", "replace")


class TranslationModel:
    """A translation model of transformers, by greedy decoding."""

    def __init__(self, model: str) -> None:
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        self.name, self._device = model, resolve_device("auto")
        with error_prefix("translator.model"):
            check_model_folder(model)
        try:
            with loading_errors(f"translator.model {model}"):
                self._tokenizer: Any = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
                network = AutoModelForSeq2SeqLM.from_pretrained(model, **SAFE_LOADING)
        except ImportError as error:  # of what its tokenizer needs, such as sentencepiece
            raise InputError(f"translator.model {model}: could not be loaded ({first_line(error)})") from None
        self._model: Any = network.to(self._device).eval()

    def check(self, languages: Iterable[str]) -> None:
        """Raise InputError for a language that a model of many languages does not know."""
        if hasattr(self._tokenizer, "src_lang"):
            for language in sorted(languages):
                self._code(language)

    @torch.inference_mode()
    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """The translation of each text."""
        first: dict[str, int] = {}
        if hasattr(self._tokenizer, "src_lang"):  # a model of many languages
            self._tokenizer.src_lang = self._code(source)
            first = {"forced_bos_token_id": self._tokenizer.convert_tokens_to_ids(self._token(target))}
        inputs = self._tokenizer(list(texts), return_tensors="pt", padding=True, truncation=True)
        tokens = self._model.generate(**inputs.to(self._device), num_beams=1, do_sample=False, **first)
        return list(self._tokenizer.batch_decode(tokens, skip_special_tokens=True))

    def _code(self, language: str) -> str:
        """The tokenizer's own code of a language: es, spa_Latn or es_XX."""
        vocabulary = set(self._tokenizer.get_vocab()) | set(getattr(self._tokenizer, "lang_code_to_token", {}))
        variants = [code for code in vocabulary if code.startswith(f"{language}_") and len(code) == len(language) + 3]
        for code in (_FLORES.get(language, ""), *variants, language):
            if code in vocabulary or f"__{code}__" in vocabulary:
                return code
        raise InputError(f"translator.model {self.name}: does not know the language {language!r}")

    def _token(self, language: str) -> str:
        code = self._code(language)
        return getattr(self._tokenizer, "lang_code_to_token", {}).get(code, code)
