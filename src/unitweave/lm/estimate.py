"""How much memory and compute the training of a language model takes, written out term by term."""

from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, PretrainedConfig

from unitweave.config.lm import SmallLm
from unitweave.lm.model.small import new_llama
from unitweave.lm.train.logs import training_flops
from unitweave.training.hardware import GIB
from unitweave.training.model_files import check_model_folder, loading_errors

MFU = 0.32  # fraction of the peak that the hours assume: Llama-3.2-1B's on an H200 (docs/performance.md)
CPU_MFU = 0.4  # the same of a small model on a CPU, 0.29 to 0.45 there

# Shapes of well-known models, for a machine that cannot reach the hub.
_LLAMA_3 = {"vocab_size": 128_256, "max_position_embeddings": 131_072}
_KNOWN = {
    "meta-llama/Llama-3.2-1B": {
        "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 8192, "head_dim": 64, "tie_word_embeddings": True,
    },
    "meta-llama/Llama-3.2-3B": {
        "hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24, "num_key_value_heads": 8,
        "intermediate_size": 8192, "head_dim": 128, "tie_word_embeddings": True,
    },
    "meta-llama/Llama-3.1-8B": {
        "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 14_336, "head_dim": 128, "tie_word_embeddings": False,
    },
}  # fmt: skip


def model_config(name: str | None, small: SmallLm) -> PretrainedConfig:
    """The configuration of a pretrained model, without its weights; of the run's own small one without a name.

    Looks on this machine, then among the well-known shapes, then on the hub.

    Raises:
        InputError: It is nowhere, or damaged.
    """
    if name is None:
        with torch.device("meta"):
            return new_llama(small, small.vocab_size).config
    check_model_folder(name, weights=False)
    with loading_errors(name, "model's config"):
        try:
            return AutoConfig.from_pretrained(name, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError):
            if name in _KNOWN:
                return LlamaConfig(**(_LLAMA_3 | _KNOWN[name]))
        return AutoConfig.from_pretrained(name, trust_remote_code=False)


@dataclass(frozen=True)
class Weights:
    """A model's size and cost, counted on a model without storage."""

    total: int  # parameters
    trained: int
    flops_per_token: float
    flops_per_square: float  # per squared token of a sequence
    layers: int
    hidden: int
    feed_forward: int


def count_weights(config: PretrainedConfig, rows: int, lora_rank: int | None = None) -> Weights:
    """Count the weights of a model, on a copy without storage.

    Args:
        config: The model's configuration.
        rows: Rows of the embeddings, those of units and markers included.
        lora_rank: Rank of low-rank updates of all linear layers but the output layer; None trains all weights.
    """
    text = config.get_text_config()
    old_rows = text.vocab_size
    text.vocab_size = rows
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(text)
    text.vocab_size = old_rows
    total = trained = sum(p.numel() for p in model.parameters())
    if lora_rank is not None:
        head = model.get_output_embeddings()
        linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
        tables = 1 if head.weight is model.get_input_embeddings().weight else 2
        low_rank = sum(lora_rank * (m.in_features + m.out_features) for m in linear)
        trained = low_rank + tables * max(0, rows - old_rows) * text.hidden_size
        model.requires_grad_(False)
        total += low_rank
    per_token, per_square = training_flops(model)
    feed_forward = int(getattr(text, "intermediate_size", 4 * text.hidden_size))
    return Weights(total, trained, per_token, per_square, text.num_hidden_layers, text.hidden_size, feed_forward)


def memory_per_gpu(
    weights: Weights, tokens: float, gpus: int, sharded: bool, checkpointing: bool, lora: bool, bf16: bool = True
) -> dict[str, float]:
    """Estimate the GiB that a GPU needs, part by part.

    Weights, gradients and Adam's two moments are float32, frozen weights bf16; autocast keeps a bf16 copy of float32
    weights. Of each layer and token 8 vectors of the hidden size and 4 of the feed-forward size are kept in bf16 for
    the backward pass, or with gradient checkpointing 1 of the hidden size. In float32 all of this is float32.

    Args:
        weights: The model.
        tokens: Maximum tokens of one forward pass on a GPU.
        gpus: How many GPUs.
        sharded: Whether weights, gradients and moments are spread over them (FSDP, ZeRO 3).
        checkpointing: Whether activations are computed again in the backward pass.
        lora: Whether most weights are frozen.
        bf16: Whether it is computed in bfloat16.
    """
    shards = gpus if sharded else 1
    frozen = weights.total - weights.trained
    width = 2 if bf16 else 4  # bytes
    per_token = width * (8 * weights.hidden + 4 * weights.feed_forward)
    activations = tokens * (per_token * weights.layers)
    if checkpointing:
        activations = tokens * (width * weights.hidden * weights.layers + per_token)
    parts = {
        "weights": (4 * weights.trained + (width if lora else 4) * frozen) / shards,
        "gradients": 4 * weights.trained / shards,
        "optimizer": 8 * weights.trained / shards,
        "bf16 copies": (2.0 * (weights.trained if lora else weights.total) / shards) if bf16 else 0.0,
        "activations": activations,
        "logits": 0.75 * GIB,
        "cuda": 1.25 * GIB,
    }
    return {name: size / GIB for name, size in parts.items()}
