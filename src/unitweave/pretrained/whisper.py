"""Whisper as transformers has it: from the hub, or out of a file of CTranslate2 (version 6, float16)."""

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizerFast,
)
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from unitweave.core.errors import InputError
from unitweave.core.files import read_json_object
from unitweave.pretrained.packages import PackagedModel, assemble, checked_file
from unitweave.training.model_files import SAFE_LOADING, loading_errors

_VERSION, _FLOAT16 = 6, 4  # of the file; the type number of its weights
_WITHIN_A_LAYER = {
    "self_attention/layer_norm": "self_attn_layer_norm",
    "attention/layer_norm": "encoder_attn_layer_norm",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
    "self_attention/linear_1": "self_attn.out_proj",
    "attention/linear_2": "encoder_attn.out_proj",
}
# Projections that the file stacks on top of each other.
_STACKED = {
    "self_attention/linear_0": ("self_attn", "qkv"),
    "attention/linear_0": ("encoder_attn", "q"),
    "attention/linear_1": ("encoder_attn", "kv"),
}
_OUTSIDE = {
    "position_encodings/encodings": "embed_positions.weight",
    "embeddings/weight": "embed_tokens.weight",
    "layer_norm": "layer_norm",
}
_PARTS = {"gamma": "weight", "beta": "bias"}


def from_hub(name: str, revision: str) -> tuple[WhisperForConditionalGeneration, WhisperProcessor]:
    """The official checkpoint in float32, at one commit of its repository."""
    with loading_errors(name):
        model = WhisperForConditionalGeneration.from_pretrained(
            name, revision=revision, dtype=torch.float32, **SAFE_LOADING
        )
        return model.eval(), WhisperProcessor.from_pretrained(name, revision=revision)


def from_packages(model: PackagedModel, work: Path) -> tuple[WhisperForConditionalGeneration, WhisperProcessor]:
    """The checkpoint that the installed packages hold, in float32. Writes its file to the folder `work`.

    Raises:
        InputError: A package is missing, or its files are not the known ones.
    """
    tokenizer, settings = checked_file(model, "tokenizer.json"), checked_file(model, "config.json")
    assemble(model, work / "model.bin")
    state = dict(_renamed(read_ctranslate2(work / "model.bin")))
    processor = WhisperProcessor(WhisperFeatureExtractor(), WhisperTokenizerFast(tokenizer_file=str(tokenizer)))
    whisper = WhisperForConditionalGeneration(_config(state, processor.tokenizer))
    missing, unexpected = whisper.load_state_dict(state, strict=False)
    if unexpected or set(missing) - {"proj_out.weight"}:  # tied to the token embeddings
        raise InputError(f"{model.name}: tensors do not match transformers' Whisper: {(missing + unexpected)[0]}")
    whisper.tie_weights()
    whisper.generation_config = _generation_config(read_json_object(settings), processor.tokenizer)
    return whisper.eval(), processor


def read_ctranslate2(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors of a CTranslate2 file: float32 for the weights; its numbers and flags are left out.

    Layout, little-endian: version u32, model name, revision u32, count u32; then each variable: name, rank u8,
    dimensions u32, type u8, bytes u32, data. A string is its length u16 and its bytes with a zero at the end.

    Raises:
        InputError: The file has another version or is cut off.
    """
    content, at = path.read_bytes(), 0

    def take(layout: str) -> tuple[Any, ...]:
        nonlocal at
        values = struct.unpack_from(f"<{layout}", content, at)
        at += struct.calcsize(f"<{layout}")
        return values

    def string() -> str:
        return take(f"{take('H')[0]}s")[0].rstrip(b"\0").decode()

    try:
        version, _name, _revision, count = take("I")[0], string(), take("I")[0], take("I")[0]
        if version != _VERSION:
            raise InputError(f"{path}: a CTranslate2 file of version {version}, not {_VERSION}")
        for _ in range(count):
            name = string()
            shape = take(f"{take('B')[0]}I")
            kind, size = take("BI")
            data = bytearray(take(f"{size}s")[0])
            if kind == _FLOAT16 and shape:
                yield name, torch.frombuffer(data, dtype=torch.float16).view(shape).float()
    except struct.error:
        raise InputError(f"{path}: cut off") from None


def _renamed(tensors: Iterator[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors under transformers' names, stacked projections taken apart."""
    for name, tensor in tensors:
        side, rest = name.split("/", 1)
        if rest.startswith(("num_", "alignment_", "scale_")):
            continue
        layer, prefix = re.match(r"layer_(\d+)/(.+)", rest), f"model.{side}."
        if layer:
            prefix, rest = f"{prefix}layers.{layer[1]}.", layer[2]
        if rest in _OUTSIDE:
            yield prefix + _OUTSIDE[rest], tensor
            continue
        module, part = rest.rsplit("/", 1)
        part = _PARTS.get(part, part)
        if module in _STACKED:
            attention, letters = _STACKED[module]
            for letter, piece in zip(letters, tensor.chunk(len(letters)), strict=True):
                if (letter, part) != ("k", "bias"):  # the class has none: it does not change the attention
                    yield f"{prefix}{attention}.{letter}_proj.{part}", piece.clone()
        else:
            yield f"{prefix}{(_WITHIN_A_LAYER if layer else _OUTSIDE).get(module, module)}.{part}", tensor


def _ends(tokenizer: WhisperTokenizerFast) -> dict[str, int]:
    """Where a transcript begins and ends, as both configurations name it."""
    start, end = tokenizer.convert_tokens_to_ids(["<|startoftranscript|>", "<|endoftext|>"])
    return {"decoder_start_token_id": start, "bos_token_id": end, "eos_token_id": end, "pad_token_id": end}


def _config(state: dict[str, torch.Tensor], tokenizer: WhisperTokenizerFast) -> WhisperConfig:
    """Sizes from the shapes of the weights; heads have 64 dimensions in all Whisper models."""
    vocabulary, width = state["model.decoder.embed_tokens.weight"].shape
    sizes: dict[str, Any] = {}
    for side in ("encoder", "decoder"):
        sizes |= {
            f"{side}_layers": sum(f"model.{side}.layers." in n and n.endswith("fc1.weight") for n in state),
            f"{side}_attention_heads": width // 64,
            f"{side}_ffn_dim": len(state[f"model.{side}.layers.0.fc1.bias"]),
        }
    return WhisperConfig(
        vocab_size=vocabulary,
        d_model=width,
        num_mel_bins=state["model.encoder.conv1.weight"].shape[1],
        **_ends(tokenizer),
        **sizes,
    )


def _generation_config(settings: dict[str, Any], tokenizer: WhisperTokenizerFast) -> GenerationConfig:
    """What `generate` needs: languages, tasks, suppressed tokens, and the heads that word times come from."""
    number = tokenizer.convert_tokens_to_ids
    languages = {f"<|{code}|>": number(f"<|{code}|>") for code in LANGUAGES}
    return GenerationConfig(
        **_ends(tokenizer),
        max_length=448,
        max_initial_timestamp_index=50,
        is_multilingual=True,
        lang_to_id={token: id for token, id in languages.items() if id in set(settings["lang_ids"])},
        task_to_id={task: number(f"<|{task}|>") for task in ("transcribe", "translate")},
        no_timestamps_token_id=number("<|notimestamps|>"),
        prev_sot_token_id=number("<|startofprev|>"),
        return_timestamps=False,
        suppress_tokens=settings["suppress_ids"],
        begin_suppress_tokens=settings["suppress_ids_begin"],
        alignment_heads=settings["alignment_heads"],
    )
