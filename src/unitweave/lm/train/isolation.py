"""Whether a model keeps the sequences of a packed row apart: looked at once, before it is trained on such rows.

Not every causal LM goes through transformers' attention interface: some take another attention without a word
and use their own, and convolutions and recurrent states run on from one sequence into the next.
"""

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from unitweave.core.errors import InputError
from unitweave.interleave.sequence import TrainingSequence
from unitweave.lm.data.packing import pack
from unitweave.lm.train.attention import LAID_OUT, PACKED
from unitweave.lm.train.loss import original_forward

_LENGTHS = (5, 9)
# Most that a token's loss may differ. Gemma 3 270M and SmolLM2 135M differ by 4e-5 in float32 and 0.3 in bfloat16,
# and by 3 to 5 where a sequence hears the one before it.
_TOLERANCE, _TOLERANCE_BF16 = 1e-3, 1.0


def enable_packed_attention(model: PreTrainedModel) -> str:
    """Give `model` the attention for packed rows; returns the name of its own, to be set again afterwards.

    Compares the losses of two short sequences in a row with those of each alone, under the model's own attention;
    nothing random is drawn. Raises InputError when they differ, and for an architecture that refuses.
    """
    own = str(model.config._attn_implementation)
    ids = torch.arange(1, 1 + sum(_LENGTHS)) * 7919 % model.config.get_text_config().vocab_size
    sequences = ids.split(_LENGTHS)
    with torch.no_grad(), original_forward(model):
        model.eval()
        alone = torch.cat([_losses_alone(model, one) for one in sequences])
        try:
            model.set_attn_implementation(PACKED)
            packed = _losses_packed(model, sequences)
        except (TypeError, ValueError) as error:
            model.set_attn_implementation(own)
            raise _refusal(model, str(error).splitlines()[0]) from None
    exact = all(p.dtype == torch.float32 for p in model.parameters())
    most = float((packed - alone).abs().max())
    if not most <= (_TOLERANCE if exact else _TOLERANCE_BF16):
        model.set_attn_implementation(own)
        raise _refusal(model, f"a token's loss differs by {most:.2g} from that in its sequence alone")
    return own


def _refusal(model: PreTrainedModel, reason: str) -> InputError:
    return InputError(
        f"{type(model).__name__} cannot be trained: several sequences are packed into a row, and this architecture "
        f"does not keep them apart ({reason}); take one like Llama, Qwen, Gemma or GPT-2"
    )


def _losses_alone(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Cross-entropy [tokens - 1] of one sequence's tokens, under the model's own attention."""
    ids = ids.to(model.device)
    logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
    return functional.cross_entropy(logits.float(), ids[1:], reduction="none")


def _losses_packed(model: PreTrainedModel, sequences: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The same of all sequences in one row, one after the other."""
    interleaved = [
        TrainingSequence(ids.numpy().astype("int32"), torch.ones(len(ids), dtype=torch.uint8).numpy())
        for ids in sequences
    ]
    batch = pack(interleaved, [0.0, 1.0, 1.0, 1.0, 1.0])
    used = batch["used"]  # without what fills up the row: a large model is slow on a CPU
    inputs = {name: batch[name].to(model.device) if name != "shapes" else batch[name] for name in LAID_OUT}
    rows = {name: batch[name][:, :used].to(model.device) for name in ("input_ids", "position_ids")}
    logits = model(**rows, **inputs, use_cache=False).logits[0]
    labels = batch["labels"][:used].to(model.device)
    return functional.cross_entropy(logits.float(), labels, reduction="none")[labels >= 0]
