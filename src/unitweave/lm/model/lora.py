"""LoRA through peft: low-rank updates of the linear layers, and the rows of the new tokens in full."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from unitweave.config.lm import LoraSettings
from unitweave.core.errors import InputError, first_line
from unitweave.lm.model.vocabulary import Vocabulary


def add_lora(model: PreTrainedModel, vocabulary: Vocabulary, settings: LoraSettings, bf16: bool) -> Any:
    """Wrap a causal LM for LoRA: the low-rank matrices and the embedding rows from `text_size` on are trained.

    Args:
        model: The causal LM, already extended; changed in place.
        vocabulary: Its vocabulary.
        settings: Rank and layers.
        bf16: Whether to keep the frozen weights in bfloat16, half of their memory.

    Returns:
        The model in peft's wrapper.

    Raises:
        InputError: `target_modules` names no layer of the model.
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
        target_modules=settings.target_modules or "all-linear",
        trainable_token_indices={names[id(table)]: rows for table in tables},
        task_type="CAUSAL_LM",
    )
    try:
        wrapped = get_peft_model(model, config)
    except ValueError as error:
        raise InputError(f"lora.target_modules: {first_line(error)}") from None
    for parameter in wrapped.parameters():
        if parameter.requires_grad:  # small updates would vanish in bfloat16
            parameter.data = parameter.data.float()
    _look_rows_up_apart(wrapped)
    # What is trained, and no more: since the tables have grown, peft would put all of them into every checkpoint.
    wrapped.save_pretrained = partial(wrapped.save_pretrained, save_embedding_layers=False)  # type: ignore[method-assign]
    return wrapped


def _look_rows_up_apart(wrapped: nn.Module) -> None:
    """Have the embeddings look trained rows up by themselves.

    peft puts them into a copy of the whole table in each forward pass, and its backward pass gives the whole table a
    gradient: of a 1B model half a gigabyte each in bfloat16, of an 8B model a whole one.
    """
    from peft.tuners.trainable_tokens.layer import TrainableTokensLayer

    for layer in wrapped.modules():
        if isinstance(layer, TrainableTokensLayer) and isinstance(layer.base_layer, nn.Embedding):
            layer.forward_adapters = MethodType(_embedded, layer)  # type: ignore[method-assign]


def _embedded(layer: Any, ids: torch.Tensor, active: Sequence[str]) -> torch.Tensor:
    """The embeddings [..., width] of token ids [...], as `TrainableTokensLayer` gives them."""
    if layer.merged or layer.disable_adapters or not active:
        return type(layer).forward_adapters(layer, ids, active)
    (name,) = active
    first = layer.token_indices[name][0]
    trained = ids >= first
    frozen: torch.Tensor = layer.base_layer(ids.masked_fill(trained, 0))  # scaled, where the model scales
    rows = functional.embedding((ids - first).clamp(min=0), layer.trainable_tokens_delta[name]).to(frozen.dtype)
    scale = layer._get_embed_scale()
    return torch.where(trained[..., None], rows if scale is None else rows * scale.to(rows.dtype), frozen)


def inputs_cast(model: nn.Module, cast: bool) -> None:
    """Whether LoRA's layers cast what comes into them to the type of their own weights.

    Under autocast there is no need to: it casts the weights, and a float32 copy of each layer's input would be kept for
    the backward pass.
    """
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = cast  # type: ignore[assignment]


def trained_rows(head: nn.Module) -> tuple[torch.Tensor, ...]:
    """The frozen rows of an output layer that `add_lora` changed, and its trained ones, which come after them.

    Returns:
        Two weights, [rows, width] each; nothing for any other layer.
    """
    if "peft" not in sys.modules:  # without it there is no such layer
        return ()
    from peft.utils.other import TrainableTokensWrapper

    if not isinstance(head, TrainableTokensWrapper):
        return ()
    layer: Any = head.token_adapter
    base, active = layer.base_layer, layer.active_adapters
    if not isinstance(base, nn.Linear) or base.bias is not None or len(active) != 1 or layer.merged:
        return ()
    rows = layer.token_indices[active[0]]
    if rows != list(range(rows[0], len(base.weight))):
        return ()
    return base.weight[: rows[0]], layer.trainable_tokens_delta[active[0]]


@contextlib.contextmanager
def rows_in_tables(model: nn.Module) -> Iterator[None]:
    """While the block runs, trained rows stand in the frozen tables; afterwards these are as they were.

    Otherwise peft copies a whole table for each forward pass, which in decoding is for each token: a gigabyte of a 1B
    model in float32. Tables that are spread over processes (FSDP) are left alone.
    """
    merged = _put_rows_into_tables(model)
    try:
        yield
    finally:
        for layer in merged:
            layer.unmerge()


def _put_rows_into_tables(model: nn.Module) -> list[Any]:
    """Write trained rows into the frozen tables; returns peft's layers where that was possible."""
    merged = []
    if "peft" in sys.modules:
        from peft.tuners.trainable_tokens.layer import TrainableTokensLayer

        for layer in [module for module in model.modules() if isinstance(module, TrainableTokensLayer)]:
            table: torch.Tensor = layer.base_layer.weight.data  # type: ignore[assignment]
            active = layer.active_adapters
            whole = getattr(layer.base_layer, "num_embeddings", None) or getattr(layer.base_layer, "out_features", None)
            if len(active) == 1 and not layer.merged and len(table) == whole:
                rows = torch.tensor(layer.token_indices[active[0]], device=table.device)
                table.index_copy_(0, rows, layer.trainable_tokens_delta[active[0]].data.to(table))
                layer.merged_adapters.append(active[0])
                merged.append(layer)
    return merged


def merge_lora(wrapped: Any) -> PreTrainedModel:
    """Add the updates to the weights, summed in float32; returns an ordinary causal LM."""
    _put_rows_into_tables(wrapped)  # peft would copy each table for it
    return wrapped.merge_and_unload()
