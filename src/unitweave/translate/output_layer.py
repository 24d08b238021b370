"""The output layer of a language model that says units.

Nearly all steps of decoding say units, and a phase's constraints leave only their rows of the output layer. A text
LLM has over a hundred thousand others: a fifth of a 1B model's weights, and the step's time is the time to read them.
"""

import threading
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from unitweave.translate.int8 import Int8Linear


class PhaseOutputLayer(nn.Module):
    """An output layer that computes the logits of some tokens only, for the rows of a batch that can say no others.

    Attributes:
        full: The layer in whose place it stands.
    """

    tokens: Tensor

    def __init__(self, full: nn.Linear | Int8Linear, tokens: Tensor) -> None:
        """Args: tokens int64 [some of the rows of `full`]."""
        super().__init__()
        self.full, self.out_features = full, full.out_features
        self.register_buffer("tokens", tokens, persistent=False)
        self._part = full.rows(tokens) if isinstance(full, Int8Linear) else _rows(full, tokens)
        self._of_thread = threading.local()  # several threads may decode with one model

    def narrow(self, rows: Sequence[bool]) -> None:
        """Say which rows of this thread's next batches want only `tokens`; their other logits are -inf. Empty: none."""
        self._of_thread.rows = rows

    def forward(self, hidden: Tensor) -> Tensor:
        """[batch, 1, dim] -> logits [batch, 1, vocabulary]."""
        rows: Sequence[bool] = getattr(self._of_thread, "rows", ())
        if not any(rows):
            return self.full(hidden)
        logits = hidden.new_full((*hidden.shape[:-1], self.out_features), -torch.inf, dtype=_dtype(self.full, hidden))
        if all(rows):
            logits[..., self.tokens] = self._part(hidden)
        else:
            narrow = torch.tensor(rows, device=hidden.device)
            # Each row gets its logits as it would alone, whatever phases the others are in.
            logits[narrow] = logits[narrow].index_copy(-1, self.tokens, self._part(hidden[narrow]))
            logits[~narrow] = self.full(hidden[~narrow])
        return logits


def _dtype(layer: nn.Module, hidden: Tensor) -> torch.dtype:
    """The type of the logits: integer weights give float32."""
    return torch.float32 if isinstance(layer, Int8Linear) else hidden.dtype


def _rows(layer: nn.Linear, tokens: Tensor) -> nn.Linear:
    part = nn.Linear(layer.in_features, len(tokens), layer.bias is not None, device="meta")
    part.weight = nn.Parameter(layer.weight.data[tokens], requires_grad=False)
    if layer.bias is not None:
        part.bias = nn.Parameter(layer.bias.data[tokens], requires_grad=False)
    return part


def use_phase_output_layer(model: PreTrainedModel, tokens: Sequence[int]) -> PhaseOutputLayer | None:
    """Put one in the place of `model`'s output layer; None where that is of a kind of its own and stays.

    Args:
        model: Only decodes from now on: the new layer has copies of its rows.
        tokens: The tokens that rows can be narrowed to.
    """
    full = model.get_output_embeddings()
    if type(full) not in (nn.Linear, Int8Linear):
        return None
    layer = PhaseOutputLayer(full, torch.tensor(tokens, device=model.device))
    model.set_output_embeddings(layer)
    return layer
