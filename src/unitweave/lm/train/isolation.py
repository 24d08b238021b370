"""Whether a model keeps the sequences of a packed row apart: tested once, before it is trained on such rows.

Not every causal LM goes through transformers' attention interface: some accept another attention without complaint
and use their own, and convolutions and recurrent states run on from one sequence into the next.
"""

import torch
from torch.nn import functional
from transformers import PreTrainedModel

from unitweave.core.errors import InputError, first_line
from unitweave.interleaving.sequence import TrainingSequence
from unitweave.lm.data.packing import pack
from unitweave.lm.train.attention import BUCKET_INPUTS, PACKED

_LENGTHS = (5, 9)
# How much a token's loss may differ. Gemma 3 270M and SmolLM2 135M differ by 4e-5 in float32 and 0.3 in bfloat16,
# and by 3 to 5 where a sequence attends to the one before it.
_TOLERANCE, _TOLERANCE_BF16 = 1e-3, 1.0


@torch.no_grad()
def check_isolation(model: PreTrainedModel) -> None:
    """Compare the losses of two short sequences in one row with those of each alone, under the model's own attention.

    Nothing random is drawn, and the model is left as it was.

    Raises:
        InputError: When the losses differ, and for an architecture that refuses the packed attention.
    """
    attention, training = str(model.config._attn_implementation), model.training
    ids = torch.arange(1, 1 + sum(_LENGTHS)) * 7919 % model.config.get_text_config().vocab_size
    sequences = ids.split(_LENGTHS)
    model.eval()
    try:
        alone = torch.cat([_losses_alone(model, sequence) for sequence in sequences])
        model.set_attn_implementation(PACKED)
        packed = _losses_packed(model, sequences)
    except (TypeError, ValueError) as error:
        raise _refusal(model, first_line(error)) from None
    finally:
        model.set_attn_implementation(attention)
        model.train(training)
    exact = all(p.dtype == torch.float32 for p in model.parameters())
    difference = float((packed - alone).abs().max())
    if not difference <= (_TOLERANCE if exact else _TOLERANCE_BF16):
        raise _refusal(model, f"a token's loss in the row differs by {difference:.2g} from its loss alone")


def _refusal(model: PreTrainedModel, reason: str) -> InputError:
    return InputError(
        f"{type(model).__name__} cannot be trained: training packs several sequences into a row, and this architecture "
        f"does not keep them apart ({reason}); use an architecture such as Llama, Qwen, Gemma or GPT-2"
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
    used = batch["num_tokens"]  # without what fills up the row: a large model is slow on a CPU
    inputs = {k: x.to(model.device) if isinstance(x := batch[k], torch.Tensor) else x for k in BUCKET_INPUTS}
    rows = {name: batch[name][:, :used].to(model.device) for name in ("input_ids", "position_ids")}
    logits = model(**rows, **inputs, use_cache=False).logits[0]
    labels = batch["labels"][:used].to(model.device)
    return functional.cross_entropy(logits.float(), labels, reduction="none")[labels >= 0]
