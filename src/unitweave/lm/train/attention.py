"""Attention for packed batches: several sequences in one row, each seeing only itself.

Registered with transformers as "unitweave_packed", so that any causal LM that goes through its attention
interface can use it. All linear layers work on the packed row, without padding. For the attention alone

- on GPUs the row goes to torch's variable-length flash attention as it is, where that is there;
- elsewhere sequences of similar length are laid out side by side, [sequences, longest], where a causal
  mask needs no padding mask. In bf16 on CPUs this is two batched products and a softmax, which are faster
  than the fused kernel there.
"""

from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig

PACKED = "unitweave_packed"
LAID_OUT, FLASH = ("layout", "place", "shapes"), ("cumulative", "longest")  # what either way needs of a batch
Shapes = tuple[tuple[int, int], ...]


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
    shapes: Shapes = (),
    cumulative: torch.Tensor | None = None,
    longest: int = 0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each sequence of a packed row.

    query       [1, heads, tokens, head]; key and value likewise, with as many or fewer heads
    cumulative  int32 [sequences + 1]: where each sequence begins in the row; takes the flash kernel,
                with `longest`, which no sequence exceeds. Or, without it:
    layout      int64 [places]: the token at each place of all buckets, one bucket after the other
    place       int64 [used]: at which place each token of the row lies; tokens behind get zeros
    shapes      (sequences, longest) of each bucket
    softcap     scores are capped softly at this size (Gemma 2)
    Returns [1, tokens, heads, head]. Without cumulative and layout the row is one sequence. Raises
    RuntimeError for what the flash kernel cannot do, since nothing else then says where sequences begin.
    """
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [tokens, heads, head]
    if torch.is_autocast_enabled(q.device.type):
        # Rotary embeddings leave float32 behind; the fused kernels would cast under autocast, ours have to.
        q, k, v = (x.to(torch.get_autocast_dtype(q.device.type)) for x in (q, k, v))
    tokens = q.shape[0]
    scale = q.shape[-1] ** -0.5 if scaling is None else scaling
    if cumulative is not None:
        if dropout or softcap:
            raise RuntimeError("flash attention has no dropout and no softcap; pass `layout` and `place` instead")
        return _flash(q, k, v, cumulative, longest, scale, sliding_window)[None], None
    if layout is None or place is None:
        layout = place = torch.arange(tokens, device=q.device)
        shapes = ((1, tokens),)
    spread = [_Spread.apply(x, layout, place) for x in (q, k, v)]  # [places, heads, head]
    outs, at = [], 0
    for count, length in shapes:
        rows = slice(at, at + count * length)
        bucket = [x[rows].unflatten(0, (count, length)).transpose(1, 2) for x in spread]  # [count, heads, length, h]
        outs.append(_bucket_attention(bucket[0], bucket[1], bucket[2], scale, dropout, sliding_window, softcap))
        at += count * length
    return _Collect.apply(torch.cat(outs), layout, place, tokens)[None], None


def flash_works(device: torch.device) -> bool:
    """Whether torch's variable-length flash attention is there on this device, and agrees with the laid-out one."""
    if device.type != "cuda":
        return False
    generator = torch.Generator(device).manual_seed(0)
    q, k, v = torch.randn(3, 1, 4, 96, 64, device=device, generator=generator).bfloat16()
    cumulative = torch.tensor([0, 32, 96], dtype=torch.int32, device=device)
    layout = torch.arange(64, device=device)[None] + torch.tensor([0, 32], device=device)[:, None]
    place = torch.cat([torch.arange(32), torch.arange(64, 128)]).to(device)
    none = torch.nn.Identity()
    try:
        flash, _ = packed_attention(none, q, k, v, None, cumulative=cumulative, longest=64)
    except (ImportError, RuntimeError):  # an older torch, or a GPU that the kernel does not know
        return False
    plain, _ = packed_attention(none, q, k, v, None, layout=layout.reshape(-1), place=place, shapes=((2, 64),))
    return torch.allclose(flash.float(), plain.float(), atol=3e-2)


def flash_fits(config: PretrainedConfig) -> bool:
    """Whether the flash kernel does all that a model of this configuration asks of its attention.

    Architectures name the dropout of their attention differently (attention_dropout, attn_pdrop, hidden_dropout_prob),
    so that any dropout counts but that of heads for other tasks.
    """
    settings = config.get_text_config().to_dict()
    dropouts = [v for k, v in settings.items() if "drop" in k and not k.startswith(("summary", "classifier"))]
    return not any(dropouts) and not settings.get("attn_logit_softcapping")


def _bucket_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    dropout: float,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """Causal attention of [count, heads, longest, head]; returns [count * longest, heads, head]."""
    count, heads, longest, head = q.shape
    if k.shape[1] != heads:
        k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (k, v))
    hidden = None
    if window is not None and longest > window:
        hidden = torch.ones(longest, longest, dtype=torch.bool, device=q.device).tril(-window)
    if softcap:
        later = torch.ones(longest, longest, dtype=torch.bool, device=q.device).triu(1)
        scores = softcap * torch.tanh(q @ k.transpose(2, 3) * (scale / softcap))  # [count, heads, longest, longest]
        scores = scores.masked_fill(later if hidden is None else later | hidden, -torch.inf)
        out = functional.dropout(scores.softmax(-1, dtype=torch.float32).to(v.dtype), dropout) @ v
    elif q.dtype == torch.bfloat16 and not q.is_cuda and not dropout:
        mask = torch.full((longest, longest), -torch.inf, dtype=q.dtype, device=q.device).triu(1)
        if hidden is not None:
            mask = mask.masked_fill(hidden, -torch.inf)
        q, k, v = (x.reshape(count * heads, longest, head) for x in (q, k, v))
        scores = torch.baddbmm(mask.expand(count * heads, -1, -1), q, k.transpose(1, 2), alpha=scale)
        out = torch.bmm(scores.softmax(-1), v).unflatten(0, (count, heads))
    else:
        allowed = None if hidden is None else torch.ones_like(hidden).tril() & ~hidden
        out = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=allowed, is_causal=allowed is None, dropout_p=dropout, scale=scale
        )
    return out.transpose(1, 2).flatten(0, 1)


def _flash(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cumulative: torch.Tensor,
    longest: int,
    scale: float,
    window: int | None,
) -> torch.Tensor:
    """torch's variable-length flash attention of [used, heads, head]."""
    from torch.nn.attention.varlen import varlen_attn

    out = varlen_attn(
        q,
        k,
        v,
        cumulative,
        cumulative,
        longest,
        longest,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=k.shape[1] != q.shape[1],
    )
    assert isinstance(out, torch.Tensor)
    return out


class _Spread(torch.autograd.Function):
    """x [tokens, ...] -> x[layout] [places, ...]. Going back is a gather too: places that pad have no gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layout: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(place)
        ctx.tokens = x.shape[0]
        return x.index_select(0, layout)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (place,) = ctx.saved_tensors
        return _padded(gradient.index_select(0, place), ctx.tokens), None, None


class _Collect(torch.autograd.Function):
    """x [places, ...] -> the row [tokens, ...], zeros behind the last sequence."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layout: torch.Tensor, place: torch.Tensor, tokens: int) -> torch.Tensor:
        ctx.save_for_backward(place)
        ctx.places = x.shape[0]
        return _padded(x.index_select(0, place), tokens)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (place,) = ctx.saved_tensors
        spread = gradient.new_zeros(ctx.places, *gradient.shape[1:])
        return spread.index_copy_(0, place, gradient[: len(place)]), None, None, None


def _padded(x: torch.Tensor, length: int) -> torch.Tensor:
    """x with zero rows behind it, up to `length` rows."""
    return torch.cat([x, x.new_zeros(length - x.shape[0], *x.shape[1:])]) if length > x.shape[0] else x


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """The layout says which tokens see each other; transformers need not build a mask."""
    return


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, _no_mask)
