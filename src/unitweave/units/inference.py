"""Running the encoder so that a recording's result does not depend on what else is computed with it.

On a CPU every recording is computed on its own, by one thread; several threads take several recordings.
On a GPU recordings go through transformers' model in batches whose shape depends on the recording's own
length alone: lengths are rounded up to a few sizes, and a batch of a size has always the same number of
rows, empty ones if need be. So the same kernels run whatever stands beside a recording.
"""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from transformers import Wav2Vec2BertForCTC

from unitweave.config.training import Precision
from unitweave.core.errors import InputError
from unitweave.units.encoder import encode
from unitweave.units.features import FEATURE_SIZE
from unitweave.units.forward import CpuForward

_SIZES = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)  # frames; longer ones are rounded up to 1,024s
_BATCH_FRAMES = 16_384  # padded frames in a GPU batch

Encoded = tuple[list[torch.Tensor], torch.Tensor]  # hidden states of each layer, CTC log-probabilities


class EncoderInference:
    """An encoder ready to run on its device. `precision` "fp32" or "bf16" (matrix products only).

    batched  whether recordings go through in batches (as on a GPU) or one by one (as on a CPU)
    """

    def __init__(self, model: Wav2Vec2BertForCTC, precision: Precision = "fp32", batched: bool | None = None) -> None:
        self.model = model
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.batched = model.device.type != "cpu" if batched is None else batched
        self._alone = CpuForward(model, self.dtype) if not self.batched and CpuForward.can_run(model) else None

    def __call__(self, features: Sequence[torch.Tensor], layers: Sequence[int]) -> list[Encoded]:
        """Hidden states after each of the `layers` (ascending, from 1) and CTC log-probabilities of each recording.

        features  float32 [frames, 160] of each recording, at least one frame
        Returns for each a list of float32 [frames, hidden] and float32 [frames, characters], on the
        encoder's device. Raises InputError when there is no such layer.
        """
        blocks = self.model.config.num_hidden_layers
        for layer in layers:
            if not 1 <= layer <= blocks:
                raise InputError(f"the encoder has layers 1 to {blocks} (got {layer})")
        layers = sorted(set(layers))
        if self._alone is not None:
            return [self._alone(one, layers) for one in features]
        results: list[Encoded | None] = [None] * len(features)
        for group, size in self._groups([len(one) for one in features]):
            rows = max(1, _BATCH_FRAMES // size) if self.batched else 1
            for i, result in zip(group, self._batch([features[i] for i in group], size, rows, layers), strict=True):
                results[i] = result
        return [result for result in results if result is not None]

    def _groups(self, lengths: Sequence[int]) -> Iterator[tuple[list[int], int]]:
        """Recordings of the same padded length, as many as a batch of that length has rows."""
        by_size: dict[int, list[int]] = {}
        for i, length in enumerate(lengths):
            by_size.setdefault(padded_length(length), []).append(i)
        for size, group in sorted(by_size.items()):
            rows = max(1, _BATCH_FRAMES // size) if self.batched else 1
            for first in range(0, len(group), rows):
                yield group[first : first + rows], size

    def _batch(self, features: Sequence[torch.Tensor], size: int, rows: int, layers: Sequence[int]) -> list[Encoded]:
        batch = torch.zeros(rows, size, FEATURE_SIZE)
        mask = torch.zeros(rows, size, dtype=torch.long)
        mask[:, 0] = 1  # an empty row still needs something to attend to
        for i, one in enumerate(features):
            batch[i, : len(one)] = one
            mask[i, : len(one)] = 1
        device = self.model.device
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            hidden, log_probs = encode(self.model, batch.to(device), mask.to(device), layers)
        return [([h[i, : len(one)] for h in hidden], log_probs[i, : len(one)]) for i, one in enumerate(features)]


def padded_length(frames: int) -> int:
    """The length that a recording of `frames` is computed at in a batch."""
    return next((size for size in _SIZES if frames <= size), -(-frames // 1024) * 1024)


@contextlib.contextmanager
def single_threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads in each of which torch computes on one core, so that results do not depend on their number.

    `workers` 0 stands for as many as torch would use for one operation.
    """
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers or before, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)
