"""Kokoro 82M, a small text-to-speech model, out of packages: its ONNX file, its phonemes and its voices."""

import hashlib
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path, read_json_object, write_json
from unitweave.core.stage import versions
from unitweave.pretrained.packages import PackagedModel, assemble, checked_file

SAMPLE_RATE = 24_000  # Hz, of its speech
_VOICES = Path("kokoro-js-1.2.1.tgz")  # as `npm pack` names it, in the folder that the command runs in
_VOICES_SHA256 = "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860"
_VOICE_SHAPE = (510, 256)  # a style for each number of phonemes


def write_kokoro(model: PackagedModel, folder: Path, about: str) -> dict[str, Any]:
    """Write model.onnx, config.json (phonemes and their ids), voices.safetensors and `about`, whole or not at all.

    Raises:
        InputError: A package or the archive of the voices is missing, or not the known one.
    """
    vocabulary = read_json_object(checked_file(model, "vocab.json"))["vocab"]
    voices = read_voices(model, _VOICES)
    described = {
        "model": model.name,
        "install": model.install,
        "sha256": model.sha256,
        "license": model.license,
        "terms": model.terms,
        "class": "Kokoro (ONNX, int8)",
        "parameters": 82_000_000,
        "vocabulary": len(vocabulary),
        "voices": sorted(voices),
        "versions": versions(),
    }
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        assemble(model, temporary / "model.onnx")
        write_json(temporary / "config.json", {"sample_rate": SAMPLE_RATE, "vocab": vocabulary})
        save_file(voices, temporary / "voices.safetensors")
        write_json(temporary / about, described)
    return described


def read_voices(model: PackagedModel, archive: Path) -> dict[str, torch.Tensor]:
    """Voices in npm's archive: name -> float32 [510, 256], the row that has the style for so many phonemes.

    Raises:
        InputError: The archive is not there, or another one.
    """
    if not archive.is_file():
        raise InputError(f"{model.name}: its voices are in {archive}, which is not in this folder: {model.install}")
    if (digest := hashlib.sha256(archive.read_bytes()).hexdigest()) != _VOICES_SHA256:
        raise InputError(f"{archive}: has the SHA-256 {digest}, not {_VOICES_SHA256}; reinstall: {model.install}")
    voices = {}
    with tarfile.open(archive) as files:
        for member in files:
            name, content = Path(member.name), files.extractfile(member)
            if content and name.parent.name == "voices" and name.suffix == ".bin":
                values = np.frombuffer(content.read(), "<f4").reshape(_VOICE_SHAPE)
                voices[name.stem] = torch.from_numpy(values.copy())
    return voices
