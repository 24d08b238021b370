"""The one place where a causal LM is changed for training on packed rows, and changed back."""

import contextlib
from collections.abc import Iterator
from types import MethodType
from typing import Any, Literal

import torch
from torch import nn
from transformers import AttentionInterface, PretrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from unitweave.core.errors import InputError
from unitweave.lm.model.lora import inputs_cast, rows_in_tables
from unitweave.lm.train.attention import PACKED, packed_attention
from unitweave.lm.train.isolation import check_isolation
from unitweave.lm.train.loss import chunked_loss, plain_loss
from unitweave.training.devices import release_freed_memory


class PackedTraining:
    """A causal LM in training: its attention keeps packed sequences apart, and its forward returns their loss.

    Used as a context manager; on exit the model has its own forward and attention again, whatever happened. Inside,
    `model(input_ids, position_ids, labels, weights, ...)` returns the pair of `plain_loss`. The loss has to be
    computed inside the model's forward, where FSDP and LoRA have the weights of the output layer gathered.

        with PackedTraining(model, "chunked") as packed:
            ...  # training steps
            with packed.suspended():
                ...  # decode the dev split with an ordinary causal LM
    """

    def __init__(
        self, model: PreTrainedModel, cross_entropy: Literal["chunked", "plain"], compile_backend: str | None = None
    ) -> None:
        """Check that the model can be trained so; nothing is changed yet.

        Args:
            model: A causal LM (without a LoRA wrapper around it).
            cross_entropy: "chunked" computes logits a few hundred tokens at a time, "plain" all at once.
            compile_backend: Compile the decoder layers with this backend of torch.compile, once for rows of any length.

        Raises:
            InputError: For an architecture that does not keep packed sequences apart, and, with "chunked", for a model
                whose logits are not the plain result of its output layer (softcapping, scaling).
        """
        self.model, self.chunked = model, cross_entropy == "chunked"
        if self.chunked:
            check_logits(model.config)
        with rows_in_tables(model):
            if self.chunked and not _logits_are_the_heads(model):
                raise InputError(
                    f"{type(model).__name__} changes the logits after its output layer; "
                    "set training.cross_entropy: plain"
                )
            check_isolation(model)
        self._attention = str(model.config._attn_implementation)
        self._layers: list[nn.Module] = []
        if compile_backend is not None:
            # The attention depends on the lengths, which the layers around it do not see.
            AttentionInterface.register(PACKED, torch.compiler.disable(packed_attention))
            self._layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
            for layer in self._layers:
                layer.compile(backend=compile_backend, dynamic=True)
        self._compiled = [layer._compiled_call_impl for layer in self._layers]
        for layer in self._layers:
            layer._compiled_call_impl = None  # until training begins
        self._forward: Any = MethodType(_forward_with_loss(type(model), self.chunked), model)

    def __enter__(self) -> "PackedTraining":
        self._install()
        return self

    def __exit__(self, *exception: object) -> None:
        self._remove()

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """While the block runs, the model is an ordinary causal LM, also after an error in it."""
        training = self.model.training
        self._remove()
        try:
            release_freed_memory()  # the activations of the last step
            with rows_in_tables(self.model):
                yield
        finally:
            self._install()
            self.model.train(training)

    def _install(self) -> None:
        self.model.forward = self._forward
        self.model.set_attn_implementation(PACKED)
        for layer, compiled in zip(self._layers, self._compiled, strict=True):
            layer._compiled_call_impl = compiled

    def _remove(self) -> None:
        # Not only ours: accelerate may have wrapped it (for autocast), and its wrapper has to come back with it.
        self._forward = self.model.__dict__.pop("forward", self._forward)
        self.model.set_attn_implementation(self._attention)
        inputs_cast(self.model, True)  # decoding has no autocast
        for layer in self._layers:
            layer._compiled_call_impl = None  # decoding has other shapes, a token at a time


def _forward_with_loss(kind: type[PreTrainedModel], chunked: bool) -> Any:
    """A forward that returns the weighted sum of the cross-entropies, and each token's own."""
    original = kind.forward

    def forward(self: PreTrainedModel, labels: torch.Tensor, weights: torch.Tensor, **inputs: Any) -> Any:
        inputs_cast(self, not torch.is_autocast_enabled(self.device.type))
        if chunked:
            hidden = self.base_model(**inputs, use_cache=False).last_hidden_state[0]  # [tokens, width]
            return chunked_loss(self.get_output_embeddings(), hidden, labels, weights)
        logits = original(self, **inputs, use_cache=False).logits[0]
        return plain_loss(nn.Identity(), logits, labels, weights)

    return forward


def check_logits(config: PretrainedConfig) -> None:
    """Raise InputError where a configuration says that its class caps or scales the logits of its output layer."""
    text = config.get_text_config()
    capped = getattr(text, "final_logit_softcapping", None)  # Gemma 2; small logits would not show it
    scales = (getattr(text, name, None) for name in ("logit_scale", "logits_scaling"))  # Cohere, Granite
    if capped or any(scale not in (None, 1) for scale in scales):
        raise InputError(
            f"{config.model_type} changes the logits after its output layer; set training.cross_entropy: plain"
        )


@torch.no_grad()
def _logits_are_the_heads(model: PreTrainedModel) -> bool:
    """Whether the model's logits are what its output layer makes of the last hidden state, and no more."""
    ids = torch.arange(4, device=model.device)[None]
    training = model.training
    model.eval()
    logits = model(input_ids=ids, use_cache=False).logits
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    same = torch.allclose(logits, model.get_output_embeddings()(hidden).to(logits.dtype), rtol=1e-3, atol=1e-5)
    model.train(training)
    return same
