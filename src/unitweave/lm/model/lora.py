"""LoRA through peft: low-rank updates of the linear layers, and the rows of the new tokens in full."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from unitweave.core.errors import InputError
from unitweave.lm.model.vocabulary import Vocabulary


@dataclass
class LoraSettings:
    """Low-rank adaptation (Hu et al. 2021): for models too large to train whole."""

    rank: int = 64  # of each update
    alpha: int = 128  # the update is scaled by alpha / rank
    dropout: float = 0.0  # of the updates' input
    targets: list[str] | None = None  # names of linear layers; null takes all but the output layer


def check_lora(settings: LoraSettings) -> None:
    """Raise InputError when the settings are of no use, or peft is not installed."""
    if settings.rank <= 0 or settings.alpha <= 0 or not 0 <= settings.dropout < 1:
        raise InputError("lora.rank and lora.alpha must be above 0, lora.dropout from 0 to below 1")
    try:
        import peft  # noqa: F401
    except ImportError:
        raise InputError("lora needs the package peft: pip install 'unitweave[lora]'") from None


def add_lora(model: PreTrainedModel, vocabulary: Vocabulary, settings: LoraSettings, bf16: bool) -> Any:
    """Wrap `model` for LoRA; trained are the low-rank matrices and the embedding rows from `text_size` on.

    bf16  whether to hold the frozen weights in bfloat16, half of their memory
    Raises InputError when `targets` names no layer of the model.
    """
    from peft import LoraConfig, get_peft_model

    if bf16:
        model.to(torch.bfloat16)
    rows = list(range(vocabulary.text_size, model.get_input_embeddings().weight.shape[0]))
    tables = [model.get_input_embeddings()]
    if model.get_output_embeddings().weight is not tables[0].weight:
        tables.append(model.get_output_embeddings())
    names = {id(module): path.rsplit(".", 1)[-1] for path, module in model.named_modules()}
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.targets or "all-linear",
        trainable_token_indices={names[id(table)]: rows for table in tables},
        task_type="CAUSAL_LM",
    )
    try:
        wrapped = get_peft_model(model, config)
    except ValueError as error:
        raise InputError(f"lora.targets: {str(error).splitlines()[0]}") from None
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return wrapped


def merge_lora(wrapped: Any) -> PreTrainedModel:
    """The causal LM with the updates added to its weights (summed in float32), an ordinary model again."""
    dtype = next(p.dtype for p in wrapped.parameters() if not p.requires_grad)
    return wrapped.float().merge_and_unload().to(dtype)
