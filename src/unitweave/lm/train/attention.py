"""Attention for packed batches: several sequences in one row, each seeing only itself.

Registered with transformers as "unitweave_packed", so that any causal LM that goes through its attention
interface can use it. All linear layers work on the packed row, without padding. For the attention alone

- on GPUs the row goes to torch's variable-length flash attention as it is, where torch has that;
- elsewhere sequences of similar length are gathered into buckets, [sequences, max_seqlen], where a causal
  mask needs no padding mask. In bf16 on CPUs this is two batched products and a softmax, which are faster
  than the fused kernel there.
"""

import inspect
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig

from unitweave.lm.data.packing import BucketShapes

PACKED = "unitweave_packed"
# The entries of a packed batch that each of the two kernels needs.
BUCKET_INPUTS, FLASH_INPUTS = ("gather_index", "scatter_index", "bucket_shapes"), ("cu_seqlens", "max_seqlen")


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    gather_index: torch.Tensor | None = None,
    scatter_index: torch.Tensor | None = None,
    bucket_shapes: BucketShapes | None = None,
    cu_seqlens: torch.Tensor | None = None,
    max_seqlen: int = 0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each sequence of a packed row.

    With `cu_seqlens` the flash kernel is used, with `gather_index` and `scatter_index` the buckets; without
    either the row is one sequence.

    Args:
        module: The attention layer (unused; part of transformers' interface).
        query: [1, heads, tokens, head].
        key: [1, key-value heads, tokens, head].
        value: [1, key-value heads, tokens, head].
        attention_mask: Unused: the packing says which tokens see each other.
        scaling: Factor of the scores; None is 1 / sqrt(head).
        dropout: Probability of dropping an attention weight.
        gather_index: int64 [slots]: the token in each slot of all buckets, one bucket after the other.
        scatter_index: int64 [used tokens]: the slot of each token; tokens behind the last sequence get zeros.
        bucket_shapes: Of each bucket.
        cu_seqlens: int32 [sequences + 1]: where each sequence begins in the row.
        max_seqlen: No sequence is longer than this.
        sliding_window: How many tokens back, its own included, a token sees; None is all.
        softcap: Scores are capped softly at this size (Gemma 2).
        **kwargs: What transformers passes on to every attention.

    Returns:
        [1, tokens, heads, head], and None in place of attention weights.

    Raises:
        RuntimeError: For what the flash kernel cannot do. Falling back would let the sequences see each other.
    """
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [tokens, heads, head]
    if torch.is_autocast_enabled(q.device.type):
        # Rotary embeddings leave float32 behind; the fused kernels would cast under autocast, ours have to.
        q, k, v = (x.to(torch.get_autocast_dtype(q.device.type)) for x in (q, k, v))
    tokens = q.shape[0]
    scale = q.shape[-1] ** -0.5 if scaling is None else scaling
    if cu_seqlens is not None:
        if dropout or softcap:
            raise RuntimeError(
                "flash attention has no dropout and no softcap; pass `gather_index` and `scatter_index` instead"
            )
        return _flash(q, k, v, cu_seqlens, max_seqlen, scale, sliding_window)[None], None
    if gather_index is None or scatter_index is None or bucket_shapes is None:
        gather_index = scatter_index = torch.arange(tokens, device=q.device)
        bucket_shapes = BucketShapes((1, tokens))
    gathered = [_Gather.apply(x, gather_index, scatter_index) for x in (q, k, v)]  # [slots, heads, head]
    # Split and not sliced: a slice's gradient is as large as all buckets, and they would be summed up one by one.
    parts = [x.split([count * length for count, length in bucket_shapes.shapes]) for x in gathered]
    outs = []
    for shape, *bucket in zip(bucket_shapes.shapes, *parts, strict=True):
        q, k, v = (x.unflatten(0, shape).transpose(1, 2) for x in bucket)  # [count, heads, length, head]
        outs.append(_bucket_attention(q, k, v, scale, dropout, sliding_window, softcap))
    return _Scatter.apply(torch.cat(outs), gather_index, scatter_index, tokens)[None], None


def flash_works(device: torch.device) -> bool:
    """Whether torch has variable-length flash attention for this device, and it agrees with the buckets.

    Compared are outputs and gradients, with fewer key heads than query heads.
    """
    if device.type != "cuda":
        return False
    generator = torch.Generator(device).manual_seed(0)
    inputs = [
        torch.randn(1, heads, 96, 64, device=device, generator=generator).bfloat16().requires_grad_()
        for heads in (4, 2, 2)
    ]
    # One bucket of two sequences, 32 and 64 long: the first one's slots from 32 on are padding.
    gather_index = (torch.arange(64, device=device)[None] + torch.tensor([0, 32], device=device)[:, None]).reshape(-1)
    scatter_index = torch.cat([torch.arange(32), torch.arange(64, 128)]).to(device)
    bucket = {"gather_index": gather_index, "scatter_index": scatter_index, "bucket_shapes": BucketShapes((2, 64))}
    flash = {"cu_seqlens": torch.tensor([0, 32, 96], dtype=torch.int32, device=device), "max_seqlen": 64}

    def outcome(how: dict[str, Any]) -> list[torch.Tensor]:
        out, _ = packed_attention(torch.nn.Identity(), inputs[0], inputs[1], inputs[2], None, **how)
        return [out.detach(), *torch.autograd.grad(out.float().square().sum(), inputs)]

    try:
        result = outcome(flash)
    except (ImportError, RuntimeError, TypeError):  # an older torch, or a GPU that the kernel does not support
        return False
    pairs = zip(result, outcome(bucket), strict=True)
    return all(torch.allclose(a.float(), b.float(), atol=3e-2 * max(1.0, float(b.abs().max()))) for a, b in pairs)


def flash_fits(config: PretrainedConfig) -> bool:
    """Whether the flash kernel does all that a model of this configuration asks of its attention.

    It has neither dropout nor soft caps. Architectures name the dropout of their attention differently
    (attention_dropout, attn_pdrop, hidden_dropout_prob), so any dropout counts except that of heads for other tasks.
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
    """Causal attention of a bucket [count, heads, length, head]; returns [count * length, heads, head].

    The slots behind a sequence hold repeated tokens. They come after all of its own tokens, so that the causal mask
    alone hides them, and `_Scatter` leaves out what they compute themselves.
    """
    count, heads, length, head = q.shape
    if k.shape[1] != heads:
        k, v = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (k, v))
    too_far = None  # pairs further apart than the sliding window
    if window is not None and length > window:
        too_far = torch.ones(length, length, dtype=torch.bool, device=q.device).tril(-window)
    if softcap:
        # torch's scaled_dot_product_attention cannot cap scores, so they are computed in full.
        later = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
        scores = softcap * torch.tanh(q @ k.transpose(2, 3) * (scale / softcap))  # [count, heads, length, length]
        scores = scores.masked_fill(later if too_far is None else later | too_far, -torch.inf)
        out = functional.dropout(scores.softmax(-1, dtype=torch.float32).to(v.dtype), dropout) @ v
    elif q.dtype == torch.bfloat16 and not q.is_cuda and not dropout:
        # Faster than the fused kernel here; baddbmm adds the mask in the same pass.
        mask = torch.full((length, length), -torch.inf, dtype=q.dtype, device=q.device).triu(1)
        if too_far is not None:
            mask = mask.masked_fill(too_far, -torch.inf)
        q, k, v = (x.reshape(count * heads, length, head) for x in (q, k, v))
        scores = torch.baddbmm(mask.expand(count * heads, -1, -1), q, k.transpose(1, 2), alpha=scale)
        out = torch.bmm(scores.softmax(-1), v).unflatten(0, (count, heads))
    else:
        # An explicit mask rules out the fast causal kernels, so one is passed only for a sliding window.
        allowed = None if too_far is None else torch.ones_like(too_far).tril() & ~too_far
        out = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=allowed, is_causal=allowed is None, dropout_p=dropout, scale=scale
        )
    return out.transpose(1, 2).flatten(0, 1)


def _flash(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_seqlen: int,
    scale: float,
    window: int | None,
) -> torch.Tensor:
    """torch's variable-length flash attention of [used, heads, head]."""
    from torch.nn.attention.varlen import varlen_attn

    parameters = inspect.signature(varlen_attn).parameters
    if "window_size" not in parameters:
        raise RuntimeError(f"torch {torch.__version__} has no causal attention of sequences of any length")
    # torch 2.11 takes fewer key heads than query heads without being told to.
    grouped: dict[str, Any] = {"enable_gqa": k.shape[1] != q.shape[1]} if "enable_gqa" in parameters else {}
    out = varlen_attn(
        q,
        k,
        v,
        cu_seqlens,
        cu_seqlens,
        max_seqlen,
        max_seqlen,
        scale=scale,
        window_size=(-1 if window is None else window - 1, 0),
        **grouped,
    )
    assert isinstance(out, torch.Tensor)
    return out


class _Gather(torch.autograd.Function):
    """x [tokens, ...] -> x[gather_index] [slots, ...].

    The backward pass is a gather too, and not the slow scatter-add that autograd would take: slots that pad have no
    gradient, so each token takes that of its own slot.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, gather_index: torch.Tensor, scatter_index: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(scatter_index)
        ctx.tokens = x.shape[0]
        return x.index_select(0, gather_index)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (scatter_index,) = ctx.saved_tensors
        return _padded(gradient.index_select(0, scatter_index), ctx.tokens), None, None


class _Scatter(torch.autograd.Function):
    """x [slots, ...] -> the row [tokens, ...], zeros behind the last sequence."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, gather_index: torch.Tensor, scatter_index: torch.Tensor, tokens: int
    ) -> torch.Tensor:
        ctx.save_for_backward(scatter_index)
        ctx.slots = x.shape[0]
        return _padded(x.index_select(0, scatter_index), tokens)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (scatter_index,) = ctx.saved_tensors
        slots = gradient.new_zeros(ctx.slots, *gradient.shape[1:])
        return slots.index_copy_(0, scatter_index, gradient[: len(scatter_index)]), None, None, None


def _padded(x: torch.Tensor, length: int) -> torch.Tensor:
    """x with zero rows behind it, up to `length` rows."""
    return torch.cat([x, x.new_zeros(length - x.shape[0], *x.shape[1:])]) if length > x.shape[0] else x


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """The packing says which tokens see each other; transformers need not build a mask."""
    return


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, _no_mask)
