"""A step of decoding as a CUDA graph.

A step of one token is some hundred small kernels, and launching them takes a GPU's host several times as long as the
GPU takes to run them. A graph launches all of them at once, but always with the same shapes and addresses: keys and
values lie in buffers of fixed size, and a mask says which positions are filled.
"""

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from unitweave.translate.cache import growing_cache
from unitweave.translate.step_attention import STEP

_ROWS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)  # batches are filled up to one of these
_FEWEST_TOKENS = 256  # capacities are this times a power of two


class _Buffers:
    """Keys and values of all layers [rows, heads, capacity, size], and what a graph reads beside them."""

    def __init__(self, rows: int, capacity: int, device: torch.device) -> None:
        self.rows, self.capacity = rows, capacity
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.ids = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.positions = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.mask = torch.zeros(rows, 1, 1, capacity, dtype=torch.bool, device=device)
        self.window_mask = self.mask.clone()  # the same for layers with a sliding window
        self.at = torch.zeros(1, dtype=torch.long, device=device)  # where the token's key and value go
        self.owner: weakref.ref[FixedCache] | None = None

    def suits(self, rows: int, tokens: int) -> bool:
        """Whether these are the buffers for so many rows and tokens."""
        return self.rows >= rows and self.capacity == _capacity(tokens)

    def of_layer(self, index: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The buffers of a layer, made for its first keys [rows, heads, tokens, size]."""
        if index not in self.layers:
            keys, values = (like.new_zeros(self.rows, like.shape[1], self.capacity, like.shape[3]) for _ in range(2))
            self.layers[index] = keys, values
        return self.layers[index]


class _FixedLayer(DynamicLayer):
    """The cache of one layer in `_Buffers`."""

    def __init__(self, cache: "FixedCache", index: int) -> None:
        super().__init__()
        self._cache, self._index = weakref.ref(cache), index
        self.filled = 0

    @property
    def buffers(self) -> _Buffers:
        cache = self._cache()
        assert cache is not None
        return cache.buffers

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add keys and values. Of one token of a graph's batch: returns the whole buffers, filled or not."""
        self.is_initialized = True
        both = self.buffers.of_layer(self._index, key_states)
        rows, tokens = key_states.shape[0], key_states.shape[2]
        cache = self._cache()
        if cache is not None and cache.in_graph:
            for buffer, new in zip(both, (key_states, value_states), strict=True):
                buffer[:rows].index_copy_(2, self.buffers.at, new)
            return both[0][:rows], both[1][:rows]
        for buffer, new in zip(both, (key_states, value_states), strict=True):
            buffer[:rows, :, self.filled : self.filled + tokens] = new
        self.filled += tokens
        return both[0][:rows, :, : self.filled], both[1][:rows, :, : self.filled]

    def get_seq_length(self) -> int:
        """Tokens in the cache."""
        return self.filled


class FixedCache(DynamicCache):
    """A key-value cache at fixed addresses, whose steps of one token are graphs."""

    def __init__(self, graphs: "StepGraphs", layers: int, buffers: _Buffers) -> None:
        super().__init__()
        self.graphs, self.buffers, self.in_graph = graphs, buffers, False
        self.layers = [_FixedLayer(self, index) for index in range(layers)]
        self.layer_class_to_replicate = None
        buffers.owner = weakref.ref(self)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows. Rows from the end fill the places of those that left, as `compact` orders them."""
        moved = (indices != torch.arange(len(indices), device=indices.device)).nonzero().flatten()
        filled = self.get_seq_length()
        for both in self.buffers.layers.values():
            for buffer in both:
                buffer[moved, :, :filled] = buffer[indices[moved], :, :filled]

    def make_room(self, rows: int, tokens: int) -> None:
        """Move to larger buffers if `tokens` do not fit."""
        if tokens <= self.buffers.capacity:
            return
        before = self.buffers
        self.buffers = self.graphs.take(before.rows, tokens)
        self.buffers.owner, before.owner = weakref.ref(self), None
        filled = self.get_seq_length()
        for index, both in before.layers.items():
            for new, old in zip(self.buffers.of_layer(index, both[0]), both, strict=True):
                new[:rows, :, :filled] = old[:rows, :, :filled]


class StepGraphs:
    """The graphs of one model."""

    def __init__(self, model: PreTrainedModel, narrow: Callable[[Sequence[bool]], None] | None = None) -> None:
        """Args: narrow: Tells the output layer which rows of the next batch say units (`PhaseOutputLayer`)."""
        self.model, self._narrow = model, narrow or (lambda rows: None)
        config = model.config.get_text_config()
        sliding = [getattr(layer, "is_sliding", False) for layer in _layers(model)]
        self._window: int | None = config.sliding_window if any(sliding) else None
        self._mixed = not all(sliding)  # layers with and without a window: the model takes a mask for each kind
        self._buffers: list[_Buffers] = []
        self._graphs: dict[tuple[int, int, bool], tuple[Any, torch.Tensor]] = {}
        self._pool: Any = None
        self._lock = threading.RLock()  # several threads may decode with one model; one of them has the graphs

    @classmethod
    def that_work(
        cls, model: PreTrainedModel, narrow: Callable[[Sequence[bool]], None] | None = None
    ) -> "StepGraphs | None":
        """The graphs of a model on a GPU, if its architecture gives the logits with them that it gives without.

        State spaces and attention of other kinds do not: they decode step by step, as on a CPU.
        """
        kinds = (DynamicLayer, DynamicSlidingWindowLayer)
        if model.device.type != "cuda" or any(type(layer) not in kinds for layer in _layers(model)):
            return None
        if model.config._attn_implementation == "sdpa":
            model.set_attn_implementation(STEP)  # keys and values are read where they are, not first repeated for GQA
        graphs = cls(model, narrow)
        try:
            return graphs if graphs._agree() else None
        except (RuntimeError, TypeError, ValueError):  # it cannot be captured, or takes no such mask
            torch.cuda.synchronize()
            return None

    def cache(self, rows: int, tokens: int) -> FixedCache | None:
        """An empty cache for a batch of prompts; None while another batch has the buffers, or where memory is short."""
        with self._lock:
            if any(buffers.owner is not None and buffers.owner() is not None for buffers in self._buffers):
                return None
            if not self._has_room(rows, tokens + 1):
                return None
            return FixedCache(self, len(_layers(self.model)), self.take(rows, tokens + 1))

    def _has_room(self, rows: int, tokens: int) -> bool:
        """Whether the keys and values, and once more as many for longer ones, fit into the GPU's free memory."""
        device = self.model.device
        if device.type != "cuda" or any(buffers.suits(rows, tokens) for buffers in self._buffers):
            return True
        free = torch.cuda.mem_get_info(device)[0]
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return 3 * self._bytes(rows, tokens) < free

    def _bytes(self, rows: int, tokens: int) -> int:
        """Of the keys and values in buffers for so many rows and tokens."""
        config = self.model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        places = _filled_up(rows) * _capacity(tokens) * len(_layers(self.model))
        return int(2 * places * heads * size * self.model.dtype.itemsize)

    def take(self, rows: int, tokens: int) -> _Buffers:
        """Buffers for at least so many rows and tokens."""
        capacity = _capacity(tokens)
        with self._lock:
            for buffers in self._buffers:
                if buffers.suits(rows, tokens):
                    return buffers
            # Graphs hold the addresses of their buffers: what is replaced by larger ones goes with its graphs.
            self._buffers = [buffers for buffers in self._buffers if buffers.capacity != capacity]
            self._graphs = {key: graph for key, graph in self._graphs.items() if key[1] != capacity}
            self._pool = self._pool if self._graphs else None  # memory that no graph uses any more is gone
            self._buffers.append(_Buffers(_filled_up(rows), capacity, self.model.device))
            return self._buffers[-1]

    def step(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
        cache: FixedCache,
        units: Sequence[bool],
    ) -> torch.Tensor:
        """One token of each row.

        Args:
            ids: int64 [rows, 1].
            mask: int64 [rows, tokens in the cache and these].
            positions: int64 [rows, 1].
            cache: Holds all tokens before these.
            units: Which rows can only say units; empty: none.

        Returns:
            Logits [rows, vocabulary].
        """
        count, tokens = mask.shape
        cache.make_room(count, tokens)
        buffers, rows = cache.buffers, min(_filled_up(count), cache.buffers.rows)
        buffers.ids[:count], buffers.positions[:count] = ids, positions
        seen = buffers.mask[:rows]
        seen[:count, 0, 0, :tokens] = mask.bool()
        seen[:count, 0, 0, tokens:] = False
        seen[count:, :, :, 0] = True  # rows that fill up see something, so that nothing of theirs is NaN
        if self._window is not None:
            buffers.window_mask[:rows] = seen
            buffers.window_mask[:count, :, :, : max(0, tokens - self._window)] = False
        buffers.at.fill_(tokens - 1)
        narrow = len(units) > 0 and all(units)
        key = (rows, buffers.capacity, narrow)
        cache.in_graph = True
        try:
            if key not in self._graphs:
                self._graphs[key] = self._capture(cache, rows, narrow)
            graph, logits = self._graphs[key]
            if graph is None:
                logits = self._run(cache, rows, narrow)
            else:
                graph.replay()
        finally:
            cache.in_graph = False
        for layer in cache.layers:
            layer.filled = tokens
        return logits[:count]

    def _run(self, cache: FixedCache, rows: int, narrow: bool) -> torch.Tensor:
        """The model's step on the buffers: logits [rows, vocabulary]."""
        buffers = cache.buffers
        self._narrow([narrow] * rows)
        mask: Any = buffers.mask[:rows]
        if self._window is not None:
            windowed = buffers.window_mask[:rows]
            mask = {"full_attention": mask, "sliding_attention": windowed} if self._mixed else windowed
        output = self.model(
            input_ids=buffers.ids[:rows],
            attention_mask=mask,
            position_ids=buffers.positions[:rows],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def _capture(self, cache: FixedCache, rows: int, narrow: bool) -> tuple[Any, torch.Tensor]:
        """A graph and where it leaves the logits; without a GPU no graph."""
        if self.model.device.type != "cuda":
            return None, torch.empty(0)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # a first run may choose algorithms and allocate
                self._run(cache, rows, narrow)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            logits = self._run(cache, rows, narrow)
        self._pool = self._pool or graph.pool()
        return graph, logits

    @torch.inference_mode()
    def _agree(self) -> bool:
        """Whether steps of a small batch, padded on the left, have the logits that they have without graphs."""
        device = self.model.device
        length = 7 + (self._window or 0)  # longer than a window
        ids = (
            torch.arange(2 * length + 4, device=device).reshape(2, -1) % self.model.config.get_text_config().vocab_size
        )
        mask = torch.ones(2, length, dtype=torch.long, device=device)
        mask[0, :2] = 0
        plain, fixed = growing_cache(self.model.config), self.cache(2, length)
        assert fixed is not None
        for cache in (plain, fixed):
            positions = (mask.cumsum(1) - 1).clamp_min(0)
            self._narrow([])
            self.model(ids[:, :length], mask, positions, cache, use_cache=True, logits_to_keep=1)
        for step in (length, length + 1):
            mask = torch.cat([mask, mask.new_ones(2, 1)], 1)
            token, positions = ids[:, step : step + 1], (mask.cumsum(1) - 1)[:, -1:]
            self._narrow([])
            want = self.model(token, mask, positions, plain, use_cache=True, logits_to_keep=1).logits[:, -1].float()
            logits = self.step(token, mask, positions, fixed, ()).float()
            # By the norm: single logits differ by more in bf16, whose sums other kernels add in another order.
            if not float((logits - want).norm() / (want - want.mean()).norm()) < 0.1:
                return False
        return True


def _capacity(tokens: int) -> int:
    capacity = _FEWEST_TOKENS
    while capacity < tokens:
        capacity *= 2
    return capacity


def _filled_up(rows: int) -> int:
    return next((size for size in _ROWS if size >= rows), rows)


def _layers(model: PreTrainedModel) -> list[Any]:
    return DynamicCache(config=model.config).layers
