"""The loss of a packed batch, with the output layer and the cross-entropy computed chunk by chunk.

The logits of a long row are by far its largest tensor: 128,000 words times 16,000 tokens in float32 are
8 GB. Chunked, only a few hundred tokens' logits exist at a time, and the gradient is computed at once with
the loss, so nothing is kept for the backward pass (the idea of Liger's fused linear cross-entropy, here with
a weight for each token). Loss and gradients are those of the plain computation.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from unitweave.lm.data.packing import IGNORED
from unitweave.lm.model.lora import trained_rows

_CHUNK_ELEMENTS = {"cpu": 2**20, "cuda": 2**26}  # logits that exist at a time: what fits a CPU's cache, 256 MB on a GPU


def plain_loss(head: nn.Module, hidden: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> Any:
    """Weighted sum of the cross-entropies and each token's own, detached, from all logits at once.

    Args:
        head: The output layer.
        hidden: [tokens, width].
        labels: int64 [tokens], IGNORED where nothing is predicted.
        weights: float [tokens], 0 where nothing is predicted.

    Returns:
        The sum, a scalar, and the losses, float [tokens].
    """
    losses = functional.cross_entropy(head(hidden).float(), labels, ignore_index=IGNORED, reduction="none")
    return (losses * weights).sum(), losses.detach()


def chunked_loss(head: nn.Module, hidden: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> Any:
    """The same as `plain_loss`, a chunk of tokens at a time."""
    if torch.is_autocast_enabled(hidden.device.type):
        hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
    if blocks := _blocks(head):
        return _LinearCrossEntropy.apply(hidden, labels, weights, *blocks)
    size = _chunk_tokens(hidden, getattr(head, "out_features", 2**17))
    total, losses = hidden.new_zeros((), dtype=torch.float32), []
    for part, target, weight in zip(hidden.split(size), labels.split(size), weights.split(size), strict=True):
        # Any other output layer (one with a bias): its logits are recomputed in the backward pass.
        summed, part_losses = checkpoint(plain_loss, head, part, target, weight, use_reentrant=False)
        total = total + summed
        losses.append(part_losses)
    return total, torch.cat(losses)


def _blocks(head: nn.Module) -> tuple[torch.Tensor, ...]:
    """The rows of an output layer's weight, in blocks that are or are not trained; empty for any other layer.

    LoRA's output layer would put its trained rows into a copy of the whole weight for every chunk.
    """
    if type(head) is nn.Linear and head.bias is None:
        return (head.weight,)
    return trained_rows(head)


def _chunk_tokens(hidden: torch.Tensor, vocabulary: int) -> int:
    return max(64, _CHUNK_ELEMENTS.get(hidden.device.type, 2**26) // vocabulary)


class _LinearCrossEntropy(torch.autograd.Function):
    """Weighted sum of cross-entropies over hidden @ weight.T, with the gradients computed in the forward pass.

    The weight is given in blocks of rows.

    A chunk's logits are there only once; their gradient, softmax minus one-hot, is taken at once, so that neither
    logits nor hidden states are kept. The backward pass scales it by the gradient of the sum.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, *blocks: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [len(block) for block in blocks]
        size = _chunk_tokens(hidden, sum(rows))
        matrices = [block.to(hidden.dtype) for block in blocks]
        hidden_gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        block_gradients = [
            torch.zeros_like(block, dtype=torch.float32) if needed else None
            for block, needed in zip(blocks, ctx.needs_input_grad[3:], strict=True)
        ]
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        for first in range(0, len(hidden), size):
            part = slice(first, first + size)
            counted = labels[part] != IGNORED
            target = labels[part].where(counted, 0)[:, None]
            # Summed in float32 like torch's own cross-entropy; the product itself has autocast's dtype.
            products = [hidden[part] @ matrix.T for matrix in matrices]
            logits = (products[0] if len(products) == 1 else torch.cat(products, 1)).float()  # [chunk, vocabulary]
            normalizer = logits.logsumexp(-1, keepdim=True)
            losses[part] = (normalizer - logits.gather(1, target))[:, 0] * counted
            gradient = logits.sub_(normalizer).exp_()  # the softmax, in place: logits are the largest tensor here
            gradient.scatter_add_(1, target, gradient.new_full(target.shape, -1.0))
            gradient = gradient.mul_((weights[part] * counted)[:, None]).to(hidden.dtype)
            split_gradient = gradient.split(rows, 1)
            if hidden_gradient is not None:
                torch.matmul(split_gradient[0], matrices[0], out=hidden_gradient[part])
                for columns, matrix in zip(split_gradient[1:], matrices[1:], strict=True):
                    hidden_gradient[part] += columns @ matrix
            for columns, total in zip(split_gradient, block_gradients, strict=True):
                if total is not None:
                    total += columns.T @ hidden[part]
        ctx.save_for_backward(hidden_gradient, *block_gradients)
        ctx.dtypes = [block.dtype for block in blocks]
        ctx.mark_non_differentiable(losses)
        return (losses * weights).sum(), losses

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, _: torch.Tensor) -> Any:
        hidden, *blocks = ctx.saved_tensors
        found = [
            None if block is None else (block * gradient).to(dtype)
            for block, dtype in zip(blocks, ctx.dtypes, strict=True)
        ]
        return None if hidden is None else hidden * gradient.to(hidden.dtype), None, None, *found
