"""The int8 engine: language models on a CPU with a quarter of the memory and of the bytes that a token needs.

Every linear layer keeps integer weights, one scale for each output, and multiplies them with activations that
are rounded on the fly, one scale for each token (W8A8, as in arXiv 2206.01861); fbgemm, which every x86 build of
torch brings along, does the products. Only modules are replaced: decoding, caches and beams run as they are.
"""

import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from unitweave.core.errors import InputError
from unitweave.translate.package import INT8_WEIGHTS_FILE as WEIGHTS_FILE
from unitweave.translate.weights import StoredWeight, check_complete, empty_model, put_weight, stored_weights

_SCALE = "_scale"  # `X.weight` int8 [out, in] has `X.weight_scale` float32 [out] beside it

# Without VNNI fbgemm adds products of neighbors in 16 bits: 2 x 255 x 64 still fits, 2 x 255 x 127 would saturate.
# Activations take the full range, because theirs is the wider one.
_WEIGHT_LEVELS = 64
_ACTIVATION_LEVELS, _ACTIVATION_ZERO = 127, 128


class Int8Linear(nn.Module):
    """A linear layer of integer weights.

    The product is exact and each token has its own scale, so a token's result does not depend on its batch.
    """

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None = None, shared: bool = False) -> None:
        """Args: weight int8 [out, in], scale and bias float32 [out]; shared: weight and scale have other users too."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._packed, self._table = _pack(weight, scale), (weight, scale) if shared else None
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
        bias = None if self.bias is None else self.bias.data[index]
        if self._table is not None:
            return Int8Linear(self._table[0][index], self._table[1][index], bias)
        weight, _ = torch.ops.quantized.linear_unpack(self._packed)
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
    scale = weight.float().abs().amax(1).clamp_min(1e-12) / _WEIGHT_LEVELS
    return (weight.float() / scale[:, None]).round().to(torch.int8), scale


def is_int8(folder: Path) -> bool:
    """Whether a model folder holds the weights of this engine."""
    return (folder / WEIGHTS_FILE).exists()


def save_int8(source: Path, target: Path) -> None:
    """Write the quantized weights of the causal LM in `source` to `target`, as safetensors.

    Raises InputError when the weights are damaged or do not belong to the model's configuration.
    """
    model, tensors = empty_model(source), {}
    for weight in stored_weights(source):
        if _is_table(model, weight.name):
            tensors[weight.name], tensors[weight.name + _SCALE] = _quantized(weight)
        else:
            tensors[weight.name] = weight.read(torch.float32)
    save_file(tensors, target / WEIGHTS_FILE, metadata={"format": "pt"})


def load_int8(folder: Path) -> PreTrainedModel:
    """A causal LM with integer weights, from what `save_int8` wrote, or quantized while it is read.

    Weights are read one at a time, so that there is never a second copy of the model.
    Raises InputError where torch has no fbgemm, and when the weights are damaged or belong to another model.
    """
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        raise InputError("engine int8 needs torch for x86 processors (fbgemm); leave --engine out on this machine")
    model = empty_model(folder)
    stored = {weight.name: weight for weight in stored_weights(folder, WEIGHTS_FILE if is_int8(folder) else None)}
    for name, weight in stored.items():
        if is_int8(folder) and name.endswith(_SCALE):
            continue
        if name + _SCALE in stored:
            _put_table(model, name, weight.read(torch.int8), stored[name + _SCALE].read(torch.float32))
        elif _is_table(model, name):
            _put_table(model, name, *_quantized(weight))
        else:
            put_weight(model, name, weight.read(torch.float32))
    if model.config.tie_word_embeddings:
        table = model.get_input_embeddings()
        shared = isinstance(table, Int8Embedding)
        weights = (table.weight, table.scale) if shared else quantize(table.weight)
        model.set_output_embeddings(Int8Linear(weights[0], weights[1], shared=shared))
    check_complete(model, folder)
    return model.eval()


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


def _quantized(weight: StoredWeight) -> tuple[Tensor, Tensor]:
    """`quantize` of a weight that is read some rows at a time."""
    integers, scales, first = torch.empty(weight.shape, dtype=torch.int8), torch.empty(weight.shape[0]), 0
    for part in weight.parts():
        rows = slice(first, first + len(part))
        integers[rows], scales[rows] = quantize(part)
        first = rows.stop
    return integers, scales
