"""The int8 engine: language models on a CPU with a quarter of the memory and of the bytes that a token needs.

Every linear layer keeps integer weights, one scale for each output, and multiplies them with activations that
are rounded on the fly, one scale for each token (W8A8, as in arXiv 2206.01861); fbgemm, which every x86 build of
torch brings along, does the products. Only modules are replaced: decoding, caches and beams run as they are.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from unitweave.core.errors import InputError
from unitweave.lm.model.start import load_config
from unitweave.training.model_files import loading_errors, safetensors_errors, weight_files
from unitweave.translate.package import INT8_WEIGHTS_FILE as WEIGHTS_FILE

_SCALE = "_scale"  # `X.weight` int8 [out, in] has `X.weight_scale` float32 [out] beside it

# Without VNNI fbgemm adds products of neighbors in 16 bits: 2 x 255 x 64 still fits, 2 x 255 x 127 would saturate.
# Activations take the full range, because theirs is the wider one.
_WEIGHT_LEVELS = 64
_ACTIVATION_LEVELS, _ACTIVATION_ZERO = 127, 128
_ROWS = 8192  # rows of a weight that are quantized at once, so that no copy of a large table is made


class Int8Linear(nn.Module):
    """A linear layer of integer weights.

    The product is exact and each token has its own scale, so a token's result does not depend on its batch.
    """

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> None:
        """Args: weight int8 [out, in], scale float32 [out], bias float32 [out]."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._packed = _pack(weight, scale)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Float32 [..., in] -> float32 [..., out]."""
        rows = x.reshape(-1, self.in_features)
        largest = rows.abs().amax(1, keepdim=True).clamp_min(1e-12)
        product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            rows / largest, 1 / _ACTIVATION_LEVELS, _ACTIVATION_ZERO, self._packed
        )
        product *= largest
        if self.bias is not None:
            product += self.bias
        return product.view(*x.shape[:-1], self.out_features)

    def rows(self, index: Tensor) -> "Int8Linear":
        """A layer of some of the rows of this one: int64 [rows]."""
        weight, _ = torch.ops.quantized.linear_unpack(self._packed)
        bias = None if self.bias is None else self.bias.data[index]
        return Int8Linear(weight.int_repr()[index], weight.q_per_channel_scales()[index].float(), bias)


def _pack(weight: Tensor, scale: Tensor) -> torch.ScriptObject:
    """The weight as fbgemm's kernel reads it."""
    zeros = torch.zeros(len(weight), dtype=torch.long)
    engine = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        with warnings.catch_warnings():
            # torch 2.13 announces the end of quantized tensors; this one only carries the weight to the packing.
            warnings.simplefilter("ignore", UserWarning)
            quantized = torch._make_per_channel_quantized_tensor(weight, scale.double(), zeros, 0)
            return torch.ops.quantized.linear_prepack(quantized, None)
    finally:
        torch.backends.quantized.engine = engine


class Int8Embedding(nn.Module):
    """An embedding whose rows are integers with a scale each."""

    weight: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        """Args: weight int8 [tokens, dim], scale float32 [tokens]."""
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids [...] -> float32 [..., dim]."""
        return self.weight[ids].float() * self.scale[ids][..., None]


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A weight [out, in] -> the nearest integers int8 [out, in] and the scale of each row, float32 [out]."""
    integers, scales = torch.empty(weight.shape, dtype=torch.int8), torch.empty(len(weight))
    for first in range(0, len(weight), _ROWS):
        part = weight[first : first + _ROWS].float()
        scale = part.abs().amax(1).clamp_min(1e-12) / _WEIGHT_LEVELS
        integers[first : first + _ROWS] = (part / scale[:, None]).round()
        scales[first : first + _ROWS] = scale
    return integers, scales


def is_int8(folder: Path) -> bool:
    """Whether a model folder holds the weights of this engine."""
    return (folder / WEIGHTS_FILE).exists()


def save_int8(source: Path, target: Path) -> None:
    """Write the quantized weights of the causal LM in `source` to `target`, as safetensors.

    Raises InputError when the weights are damaged or do not belong to the model's configuration.
    """
    model, tensors = _empty(source), {}
    for name, weight in _weights(source):
        if _is_table(model, name):
            tensors[name], tensors[name + _SCALE] = quantize(weight)
        else:
            tensors[name] = weight.float().clone()
    save_file(tensors, target / WEIGHTS_FILE, metadata={"format": "pt"})


def load_int8(folder: Path) -> PreTrainedModel:
    """A causal LM with integer weights, from what `save_int8` wrote, or quantized while it is read.

    Weights are read one at a time, so that there is never a second copy of the model.
    Raises InputError where torch has no fbgemm, and when the weights are damaged or belong to another model.
    """
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        raise InputError("engine int8 needs torch for x86 processors (fbgemm); leave --engine out on this machine")
    model = _empty(folder)
    scales: dict[str, Tensor] = {}
    if is_int8(folder):
        with safetensors_errors(folder / WEIGHTS_FILE), safe_open(folder / WEIGHTS_FILE, "pt") as file:
            scales = {name: file.get_tensor(name) for name in list(file.keys()) if name.endswith(_SCALE)}
    for name, weight in _weights(folder):
        if name in scales:
            continue
        if name + _SCALE in scales:
            _put_table(model, name, weight.clone(), scales[name + _SCALE])
        elif _is_table(model, name):
            _put_table(model, name, *quantize(weight))
        else:
            module, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(module), leaf, nn.Parameter(weight.float().clone(), requires_grad=False))
    if model.config.tie_word_embeddings:
        table = model.get_input_embeddings()
        shared = isinstance(table, Int8Embedding)
        model.set_output_embeddings(Int8Linear(*((table.weight, table.scale) if shared else quantize(table.weight))))
    missing = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if missing:
        raise InputError(f"{folder}: weights are missing, the first: {missing[0]}; copy or export the model again")
    return model.eval()


def _empty(folder: Path) -> PreTrainedModel:
    """The model without its weights (buffers that are computed, not loaded, are there)."""
    from accelerate import init_empty_weights  # heavy, and only this engine needs it

    config = load_config(folder, weights=False)
    with loading_errors(folder, "language model"), init_empty_weights():
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)


def _is_table(model: PreTrainedModel, name: str) -> bool:
    """Whether a weight of the checkpoint is to be quantized. Raises InputError when the model has no such weight."""
    module, _, leaf = name.rpartition(".")
    try:
        owner = model.get_submodule(module)
        owner.get_parameter(leaf)
    except AttributeError:
        raise InputError(f"engine int8: the model has no weight {name!r}; export the model again") from None
    # Subclasses compute something of their own with their weight and keep it.
    return leaf == "weight" and type(owner) in (nn.Linear, nn.Embedding)


def _put_table(model: PreTrainedModel, name: str, weight: Tensor, scale: Tensor) -> None:
    module = name.removesuffix(".weight")
    owner = model.get_submodule(module)
    if tuple(owner.weight.shape) != tuple(weight.shape):
        raise InputError(f"engine int8: {name} is {list(weight.shape)}, and not {list(owner.weight.shape)} as the "
                         "model's configuration says; export the model again")  # fmt: skip
    layer = Int8Embedding(weight, scale) if isinstance(owner, nn.Embedding) else Int8Linear(weight, scale, owner.bias)
    model.set_submodule(module, layer)


def _weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Name and weight of every tensor of a model folder, one at a time, each valid until the next one."""
    for path in [folder / WEIGHTS_FILE] if is_int8(folder) else weight_files(folder):
        with safetensors_errors(path), safe_open(path, "pt") as file:
            names = list(file.keys())
        for name in names:
            # Opened anew for each: what was read of a mapped file stays in memory until the file is closed.
            with safe_open(path, "pt") as file:
                yield name, file.get_tensor(name)
