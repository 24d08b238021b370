"""Position tables of transformers' Conformers that keep nothing from one recording to the next."""

import copy
from functools import partial

import torch
from transformers import PreTrainedModel
from transformers.models.wav2vec2_bert.modeling_wav2vec2_bert import (
    Wav2Vec2BertRelPositionalEmbedding,
    Wav2Vec2BertRotaryPositionalEmbedding,
)
from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import (
    Wav2Vec2ConformerRelPositionalEmbedding,
    Wav2Vec2ConformerRotaryPositionalEmbedding,
)

_CACHING = (
    Wav2Vec2BertRelPositionalEmbedding,
    Wav2Vec2BertRotaryPositionalEmbedding,
    Wav2Vec2ConformerRelPositionalEmbedding,
    Wav2Vec2ConformerRotaryPositionalEmbedding,
)


def without_cached_positions(model: PreTrainedModel) -> None:
    """Let an encoder compute its position table for each batch, in place.

    transformers keeps the last table on the module and takes it again for the next batch of this length. Threads that
    share an encoder would get each other's, of another length; and a training would get that of an evaluation, which
    has no gradients and, under mixed precision, another type.
    """
    for module in model.modules():
        if isinstance(module, _CACHING):
            module.forward = partial(_on_a_copy, module)


def _on_a_copy(module: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """What the module's class computes for hidden states [batch, frames, hidden], with the module left as it is."""
    own = copy.copy(module)
    own._buffers = module._buffers.copy()
    positions: torch.Tensor = type(module).forward(own, hidden)
    return positions
