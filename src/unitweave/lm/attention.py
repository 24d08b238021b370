"""Attention for packed batches: several sequences in one row, each seeing only itself.

Registered with transformers as "unitweave_packed", so that any causal LM that goes through its attention
interface can use it. All linear layers work on the packed row, without padding; for the attention alone the
sequences are laid out side by side, [sequences, longest], where a causal mask needs no padding mask.
"""

from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface

PACKED = "unitweave_packed"


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: torch.Tensor | None = None,
    place: torch.Tensor | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each sequence of a packed row.

    query   [1, heads, tokens, head]; key and value likewise, with as many or fewer heads
    layout  int64 [sequences, longest]: the token of the row at each place (any token where padded)
    place   int64 [tokens]: where each token of the row lies in the flattened layout
    Returns [1, tokens, heads, head]. Without `layout` the row is one sequence.
    """
    if layout is None:
        layout = torch.arange(query.shape[2], device=query.device)[None]
        place = layout[0]
    count, longest = layout.shape
    spread = [x[0][:, layout.reshape(-1)].unflatten(1, (count, longest)).transpose(0, 1) for x in (query, key, value)]
    q, k, v = spread  # [sequences, heads, longest, head]
    if k.shape[1] != q.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    mask = None
    if sliding_window is not None and longest > sliding_window:
        at = torch.arange(longest, device=q.device)
        distance = at[:, None] - at[None]
        mask = (distance >= 0) & (distance < sliding_window)
    out = functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, dropout_p=dropout, scale=scaling
    )
    return out.transpose(1, 2).flatten(0, 1)[place][None], None  # [1, tokens, heads, head]


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """The layout says which tokens see each other; transformers need not build a mask."""
    return


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, _no_mask)
