"""The one place where a causal LM is changed for training on packed rows, and changed back."""

import contextlib
from collections.abc import Iterator
from types import MethodType
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from unitweave.core.errors import InputError
from unitweave.lm.model.lora import rows_in_tables
from unitweave.lm.train.attention import PACKED
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

    def __init__(self, model: PreTrainedModel, cross_entropy: Literal["chunked", "plain"]) -> None:
        """Check that the model can be trained so; nothing is changed yet.

        Args:
            model: A causal LM (without a LoRA wrapper around it).
            cross_entropy: "chunked" computes logits a few hundred tokens at a time, "plain" all at once.

        Raises:
            InputError: For an architecture that does not keep packed sequences apart, and, with "chunked", for a model
                whose logits are not the plain result of its output layer (softcapping, scaling).
        """
        self.model, self.chunked = model, cross_entropy == "chunked"
        if self.chunked and not _logits_are_the_heads(model):
            raise InputError(
                f"{type(model).__name__} changes the logits after its output layer; set cross_entropy: plain"
            )
        check_isolation(model)
        self._attention = str(model.config._attn_implementation)
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

    def _remove(self) -> None:
        # Not only ours: accelerate may have wrapped it (for autocast), and its wrapper has to come back with it.
        self._forward = self.model.__dict__.pop("forward", self._forward)
        self.model.set_attn_implementation(self._attention)


def _forward_with_loss(kind: type[PreTrainedModel], chunked: bool) -> Any:
    """A forward that returns the weighted sum of the cross-entropies, and each token's own."""
    original = kind.forward

    def forward(self: PreTrainedModel, labels: torch.Tensor, weights: torch.Tensor, **inputs: Any) -> Any:
        if chunked:
            hidden = self.base_model(**inputs, use_cache=False).last_hidden_state[0]  # [tokens, width]
            return chunked_loss(self.get_output_embeddings(), hidden, labels, weights)
        logits = original(self, **inputs, use_cache=False).logits[0]
        return plain_loss(nn.Identity(), logits, labels, weights)

    return forward


@torch.no_grad()
def _logits_are_the_heads(model: PreTrainedModel) -> bool:
    """Whether the model's logits are what its output layer makes of the last hidden state, and no more."""
    if getattr(model.config.get_text_config(), "final_logit_softcapping", None):
        return False  # small logits would not show it
    ids = torch.arange(4, device=model.device)[None]
    training = model.training
    model.eval()
    logits = model(input_ids=ids, use_cache=False).logits
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    same = torch.allclose(logits, model.get_output_embeddings()(hidden).to(logits.dtype), rtol=1e-3, atol=1e-5)
    model.train(training)
    return same
