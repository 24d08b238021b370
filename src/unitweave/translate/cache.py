"""A key-value cache that grows in place: adding a token copies that token, not everything before it."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

_RESERVE = 256  # positions that are reserved ahead


class GrowingLayer(DynamicLayer):
    """A DynamicLayer whose keys and values [rows, heads, tokens, size] are views of larger buffers."""

    _buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add keys and values of new tokens; returns those of all tokens."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before = self.get_seq_length()
        after = before + key_states.shape[-2]
        if self._buffers is None or after > self._buffers[0].shape[-2]:
            self._reserve(key_states, value_states, before, after + _RESERVE)
        assert self._buffers is not None
        keys, values = self._buffers
        keys[:, :, before:after] = key_states
        values[:, :, before:after] = value_states
        self.keys, self.values = keys[:, :, :after], values[:, :, :after]
        return self.keys, self.values

    def _reserve(self, key_states: torch.Tensor, value_states: torch.Tensor, filled: int, size: int) -> None:
        keys, values = (
            new.new_empty(new.shape[0], new.shape[1], size, new.shape[3]) for new in (key_states, value_states)
        )
        if filled:
            keys[:, :, :filled] = self.keys
            values[:, :, :filled] = self.values
        self._buffers = keys, values

    def _take(self, rows: torch.Tensor) -> None:
        if self._buffers is None:
            return
        filled, size = self.get_seq_length(), len(rows)
        moved = (rows != torch.arange(size, device=rows.device)).nonzero().flatten()
        if size < self._buffers[0].shape[0] and bool((rows[moved] >= size).all()):
            # Rows from the end fill the places of those that left (`compact`): only they have to be copied.
            for buffer in self._buffers:
                buffer[moved, :, :filled] = buffer[rows[moved], :, :filled]
            keys, values = (buffer[:size] for buffer in self._buffers)
        else:
            keys, values = (buffer.index_select(0, rows) for buffer in self._buffers)
        self._buffers = keys, values
        self.keys, self.values = keys[:, :, :filled], values[:, :, :filled]

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows, in this order; a row may be named several times."""
        self._take(indices)

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Rows in another order, as beam search needs it."""
        self._take(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row `repeats` times."""
        self._take(torch.arange(self.keys.shape[0], device=self.keys.device).repeat_interleave(repeats))


def growing_cache(config: PretrainedConfig) -> DynamicCache:
    """An empty cache for a model of `config`; layers of other kinds (sliding windows) stay transformers' own."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer(config=config) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def compact(keep: Sequence[bool]) -> list[int]:
    """Indices of the rows to keep, ordered so that few have to move: gaps are filled from the end."""
    size = sum(keep)
    movable = [i for i in range(size, len(keep)) if keep[i]]
    return [i if keep[i] else movable.pop() for i in range(size)]
