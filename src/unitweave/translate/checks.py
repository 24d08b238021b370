"""What keeps a model from translating and can be seen before torch is imported, which takes a second and more.

Loading finds all of it as well; here it is looked for first, in the records and the headers of the files.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unitweave.config.vocoder import BUILT_IN_GENERATORS
from unitweave.core.audio import SAMPLE_RATE, is_silent, lasts_longer, read_audio
from unitweave.core.errors import InputError
from unitweave.core.files import read_json_object
from unitweave.training.model_files import check_model_folder, check_safetensors
from unitweave.translate.package import INT8_WEIGHTS_FILE, Parts
from unitweave.translate.tasks import FileTask

if TYPE_CHECKING:
    import torch

ENGINES = ("int8",)
MIN_SAMPLES = 800  # at 16 kHz: every encoder makes a frame of 50 ms
_READ_SECONDS = 60.0  # longer recordings are not read twice


def check_engine(engine: str | None, device: "str | torch.device", dtype: "str | torch.dtype") -> None:
    """Raise InputError for an engine that does not exist or does not fit the device or the precision."""
    if engine is None:
        return
    if engine not in ENGINES:
        raise InputError(f"engine must be one of {', '.join(ENGINES)} (got {engine!r})")
    if str(device).partition(":")[0] != "cpu":
        raise InputError(f"engine {engine} runs on the CPU; remove the device {device} or the engine")
    if str(dtype) != "torch.float32":
        raise InputError(f"engine {engine} sets the precision itself; remove bfloat16 or the engine")


def check_service(parts: Parts, engine: str | None = None, device: str = "cpu", bf16: bool = False) -> None:
    """Raise InputError for an engine that does not fit, and for parts that are missing, damaged or of other units."""
    check_engine(engine, device, "torch.bfloat16" if bf16 else "torch.float32")
    parts.check()
    _check_language_model(parts.language_model)
    if parts.units.tokenizer is None:
        check_safetensors(parts.codebook / "codebook.safetensors")
        _check_encoder(parts.encoder)
    record = parts.vocoder / "config.json"
    if record.exists() and read_json_object(record).get("generator") in BUILT_IN_GENERATORS:
        check_safetensors(parts.vocoder / "model.safetensors")


def check_languages(parts: Parts, language: str | None, target_language: str | None) -> None:
    """Raise InputError for languages that the model does not translate from or into, or that are missing."""
    from unitweave.lm.model.vocabulary import Vocabulary

    vocabulary = Vocabulary.load(parts.language_model)
    target = vocabulary.language_code(target_language or parts.settings.target_language)
    vocabulary.target_code(vocabulary.language_code(language), target)


def check_audible(waveform: np.ndarray, name: str) -> None:
    """Raise InputError when a waveform at 16 kHz is too short for a frame of any encoder, or only silence."""
    if len(waveform) < MIN_SAMPLES:
        raise InputError(f"{name}: too short to translate; it lasts {len(waveform) / SAMPLE_RATE:.3f} s")
    if is_silent(waveform):
        raise InputError(f"{name}: the recording is silent")


def check_recordings(tasks: Sequence[FileTask]) -> list[str]:
    """Why none of the recordings can be translated; empty as soon as one of them seems to be a recording."""
    errors = []
    for task in tasks:
        try:
            if lasts_longer(task.source, _READ_SECONDS):
                return []
            check_audible(read_audio(task.source), str(task.source))
        except (InputError, IsADirectoryError) as error:
            errors.append(str(error))
        except OSError:
            return []  # what it means, the translation says
        else:
            return []
    return errors


def _check_language_model(folder: Path) -> None:
    check_model_folder(folder, weights=not (folder / INT8_WEIGHTS_FILE).exists())
    # Not parsed, since there are tokenizers of 30 MB.
    if (path := folder / "tokenizer.json").exists() and path.read_bytes().rstrip()[-1:] != b"}":
        raise InputError(f"{path}: damaged or cut off; copy the model folder again")


def _check_encoder(folder: Path) -> None:
    for name, missing in (
        ("config.json", f"{folder}: no encoder here; train one with 'unitweave units train-encoder'"),
        ("vocab.json", f"{folder / 'vocab.json'}: the encoder folder has no CTC vocabulary"),
    ):
        if not (folder / name).exists():
            raise InputError(missing)
        read_json_object(folder / name)
    check_model_folder(folder)
