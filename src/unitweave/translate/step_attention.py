"""Attention of one new token over a key-value cache, for decoding on the CPU.

torch's kernel is made for many queries. With one query a product of the cached keys with it is twice as fast in
float32 and several times in bfloat16 (torch 2.13; benchmarks/decoding.py shows what is left of that in all).
"""

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

STEP = "unitweave_step"


def step_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' sdpa attention, computed differently where there is a single query.

    Args:
        module: The attention layer.
        query: [batch, heads, queries, size].
        key: [batch, key heads, tokens, size].
        value: As `key`.
        attention_mask: bool [batch, 1, queries, tokens].
        scaling: Of the scores.
        dropout: Passed on.
        kwargs: Passed on.

    Returns:
        [batch, queries, heads, size], and None in place of the attention weights.
    """
    if query.shape[2] != 1:
        out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
        return out, None
    batch, heads, _, size = query.shape
    groups = heads // key.shape[1]
    scaling = size**-0.5 if scaling is None else scaling
    queries = (query * scaling).view(batch, key.shape[1], groups, size).transpose(2, 3)
    scores = (key @ queries).transpose(2, 3).float()  # [batch, key heads, groups, tokens]
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, -torch.inf)
    out = scores.softmax(-1).to(value.dtype) @ value  # [batch, key heads, groups, size]
    return out.reshape(batch, 1, heads, size), None


def use_step_attention(model: PreTrainedModel) -> None:
    """Let `model` decode with `step_attention` where it is on a CPU and would use torch's kernel."""
    if model.device.type == "cpu" and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(STEP)


AttentionInterface.register(STEP, step_attention)
AttentionMaskInterface.register(STEP, sdpa_mask)
