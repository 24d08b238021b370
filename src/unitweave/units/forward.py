"""Inference of a Wav2Vec2BertForCTC on a CPU, one recording at a time and without padding.

The same function as transformers' own forward pass with the same weights (a test holds them equal), less
what batches and training need. On a CPU the products of one recording already fill a core, so batches gain
little, and masks and layout copies are saved. A recording's result is that of a computation in which no other
recording takes part.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from transformers import Wav2Vec2BertForCTC
from transformers.activations import ACT2FN

_MULTIPLE = 16  # frames; few different lengths, so that oneDNN compiles and keeps few kernels


class CpuForward:
    """The encoder's layers as plain functions over [frames, hidden].

    Args:
        model: The encoder whose weights it takes.
        dtype: torch.float32, or torch.bfloat16 for the matrix products (twice as fast where the processor multiplies
            bf16; sums, norms and residuals stay float32).
    """

    def __init__(self, model: Wav2Vec2BertForCTC, dtype: torch.dtype = torch.float32) -> None:
        self.config, self.dtype = model.config, dtype
        self.activation = ACT2FN[model.config.hidden_act]
        self.heads = model.config.num_attention_heads
        body = model.wav2vec2_bert
        self.norm_in = _norm(body.feature_projection.layer_norm)
        self.project_in = self._linear(body.feature_projection.projection)
        self.blocks = [self._block(layer) for layer in body.encoder.layers]
        self.head = self._linear(model.lm_head)

    @staticmethod
    def can_run(model: Wav2Vec2BertForCTC) -> bool:
        """Whether the model has only parts that this class knows: no adapter, rotary or relative_key positions."""
        config = model.config
        return (
            not config.add_adapter
            and not config.use_intermediate_ffn_before_adapter
            and config.position_embeddings_type in ("rotary", "relative_key", None)
        )

    def _linear(self, module: torch.nn.Linear) -> tuple[torch.Tensor, torch.Tensor | None]:
        bias = None if module.bias is None else module.bias.detach().to(self.dtype)
        return module.weight.detach().to(self.dtype), bias

    def _block(self, layer: Any) -> dict:
        attention, convolution = layer.self_attn, layer.conv_module
        query, key, value = (self._linear(getattr(attention, f"linear_{n}")) for n in "qkv")
        distance = getattr(attention, "distance_embedding", None)
        return {
            "norm1": _norm(layer.ffn1_layer_norm),
            "up1": self._linear(layer.ffn1.intermediate_dense),
            "down1": self._linear(layer.ffn1.output_dense),
            "norm2": _norm(layer.self_attn_layer_norm),
            "query_key": (torch.cat([query[0], key[0]]), torch.cat([b for b in (query[1], key[1]) if b is not None])),
            "value": value,
            "out": self._linear(attention.linear_out),
            "distance": None if distance is None else distance.weight.detach().to(self.dtype),
            "norm3": _norm(convolution.layer_norm),
            "gate": (convolution.pointwise_conv1.weight.detach()[..., 0].to(self.dtype), None),
            "depth": convolution.depthwise_conv.weight.detach().to(self.dtype),
            "norm4": _norm(convolution.depthwise_layer_norm),
            "mix": (convolution.pointwise_conv2.weight.detach()[..., 0].to(self.dtype), None),
            "norm5": _norm(layer.ffn2_layer_norm),
            "up2": self._linear(layer.ffn2.intermediate_dense),
            "down2": self._linear(layer.ffn2.output_dense),
            "norm6": _norm(layer.final_layer_norm),
        }

    @torch.inference_mode()
    def __call__(self, features: torch.Tensor, layers: Sequence[int]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Features float32 [frames, 160] of one recording -> as `encode`, without the batch dimension:

        float32 hidden states after each of the `layers` (counted from 1) [frames, hidden], in ascending order
        of the layers, and CTC log-probabilities [frames, characters].
        """
        frames = len(features)
        # Frames after the last never reach others: the convolution is causal, and attention leaves them out.
        x = F.pad(features, (0, 0, 0, -frames % _MULTIPLE))  # [padded, 160]
        x = self._apply(self.project_in, F.layer_norm(x, *self.norm_in)).float()  # [padded, hidden]
        rotation = self._rotation(len(x)) if self.config.position_embeddings_type == "rotary" else None
        hidden = []
        for number, block in enumerate(self.blocks, start=1):
            x = x + 0.5 * self._feed_forward(F.layer_norm(x, *block["norm1"]), block["up1"], block["down1"])
            x = x + self._attention(F.layer_norm(x, *block["norm2"]), block, frames, rotation)
            x = x + self._convolution(F.layer_norm(x, *block["norm3"]), block)
            x = x + 0.5 * self._feed_forward(F.layer_norm(x, *block["norm5"]), block["up2"], block["down2"])
            x = F.layer_norm(x, *block["norm6"])
            if number in layers:
                hidden.append(x[:frames])
        log_probs = self._apply(self.head, x).float().log_softmax(-1)
        return hidden, log_probs[:frames]

    def _apply(self, linear: tuple[torch.Tensor, torch.Tensor | None], x: torch.Tensor) -> torch.Tensor:
        return F.linear(x.to(self.dtype), *linear)

    def _feed_forward(self, x: torch.Tensor, up: tuple, down: tuple) -> torch.Tensor:
        return self._apply(down, self.activation(self._apply(up, x)))

    def _rotation(self, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and signed sines [frames, 1, head size] of the rotary positions."""
        size = self.config.hidden_size // self.heads
        frequencies = 1.0 / (self.config.rotary_embedding_base ** (torch.arange(0, size, 2).float() / size))
        angles = torch.arange(frames).float()[:, None] * frequencies  # [frames, head size / 2]
        sine, cosine = angles.sin(), angles.cos()
        return torch.cat([cosine, cosine], -1)[:, None], torch.cat([-sine, sine], -1)[:, None]

    def _attention(
        self, x: torch.Tensor, block: dict, frames: int, rotation: tuple[torch.Tensor, torch.Tensor] | None
    ) -> torch.Tensor:
        positioned = x
        if rotation is not None:
            # The class turns the input by the positions, before the query and key projections.
            by_head = x.view(len(x), self.heads, -1)  # [padded, heads, head size]
            half = by_head.shape[-1] // 2
            swapped = torch.cat([by_head[..., half:], by_head[..., :half]], dim=-1)
            positioned = (by_head * rotation[0] + swapped * rotation[1]).flatten(1)
        query, key = self._heads(self._apply(block["query_key"], positioned), 2)  # [1, heads, padded, head size]
        (value,) = self._heads(self._apply(block["value"], x), 1)
        mask = None if block["distance"] is None else self._distance_bias(query, block["distance"], frames)
        mixed = F.scaled_dot_product_attention(query, key[:, :, :frames], value[:, :, :frames], attn_mask=mask)
        return self._apply(block["out"], mixed[0].transpose(0, 1).flatten(1))

    def _heads(self, x: torch.Tensor, parts: int) -> tuple[torch.Tensor, ...]:
        return x.view(len(x), parts, self.heads, -1).permute(1, 2, 0, 3)[:, None].unbind(0)

    def _distance_bias(self, query: torch.Tensor, distance: torch.Tensor, frames: int) -> torch.Tensor:
        """What the clamped distance of key and query adds to each attention logit [1, heads, padded, frames]."""
        left, right = self.config.left_max_position_embeddings, self.config.right_max_position_embeddings
        apart = torch.arange(frames)[None, :] - torch.arange(query.shape[2])[:, None]  # [padded, frames]
        every = query @ distance.T * query.shape[-1] ** -0.5  # [1, heads, padded, distances]
        index = (apart.clamp(-left, right) + left).expand(*every.shape[:2], -1, -1)
        return every.gather(3, index)

    def _convolution(self, x: torch.Tensor, block: dict) -> torch.Tensor:
        x = F.glu(self._apply(block["gate"], x), dim=-1)  # [padded, hidden]
        width = block["depth"].shape[-1]
        x = F.conv1d(F.pad(x.T[None], (width - 1, 0)), block["depth"], groups=x.shape[1])[0].T  # causal
        x = self.activation(F.layer_norm(x.float(), *block["norm4"]))
        return self._apply(block["mix"], x)


def _norm(module: torch.nn.LayerNorm) -> tuple:
    """Arguments of F.layer_norm after its input."""
    return module.normalized_shape, module.weight.detach(), module.bias.detach(), module.eps
