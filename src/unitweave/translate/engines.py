"""What computes the language model: transformers' own modules, or an engine that replaces them below the decoder."""

from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unitweave.lm.model.start import load_causal_lm, load_tokenizer
from unitweave.translate.checks import check_engine
from unitweave.translate.int8 import Int8Linear, is_int8, load_int8
from unitweave.translate.output_layer import PhaseOutputLayer
from unitweave.translate.step_attention import use_step_attention
from unitweave.translate.weights import load_converted


def load_language_model(
    folder: Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    engine: str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The causal LM of a model folder, ready to decode, and its tokenizer.

    Args:
        folder: As `save_pretrained` or `save_int8` wrote it; weights are read without a second copy in memory.
        engine: "int8" computes with integer weights on the CPU, quantized now unless the folder holds them already.
            None takes what the folder holds.

    Raises:
        InputError: If the engine does not exist here or does not fit the device or precision.
    """
    if engine is None and is_int8(folder):
        engine = "int8"
    check_engine(engine, device, dtype)
    if engine == "int8":
        model, tokenizer = load_int8(folder), load_tokenizer(str(folder))
    elif dtype != torch.float32 and (converted := load_converted(folder, dtype)) is not None:
        model, tokenizer = converted, load_tokenizer(str(folder))
    else:
        model, tokenizer = load_causal_lm(folder, dtype)
    use_step_attention(model.to(device))
    return model, tokenizer


def model_precision(model: PreTrainedModel) -> str:
    """What a loaded model computes in: "int8", or torch's name of its type."""
    output = model.get_output_embeddings()
    output = output.full if isinstance(output, PhaseOutputLayer) else output
    return "int8" if isinstance(output, Int8Linear) else str(model.dtype)
