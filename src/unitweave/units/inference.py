"""Running the encoder so that a recording's result does not depend on what else is computed with it.

On a CPU every recording is computed on its own, by one thread; several threads take several recordings.
On a GPU recordings go through transformers' model in batches whose shape depends on the recording's own
length alone: lengths are rounded up to a few sizes, and a batch of a size has always the same number of
rows, empty ones if need be. So the same kernels run whatever stands beside a recording. Encoders whose results
padding would change (a norm over time, convolutions that look ahead) take each recording alone at its own length.
"""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from transformers import PreTrainedModel, Wav2Vec2BertForCTC

from unitweave.config.training import Precision
from unitweave.core.errors import InputError
from unitweave.units.encoder import encode
from unitweave.units.forward import CpuForward
from unitweave.units.front_end import FrontEnd

_SIZES = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)  # frames; longer ones are rounded up to 1,024s
_BATCH_FRAMES = 16_384  # padded frames in a GPU batch

Encoded = tuple[list[torch.Tensor], torch.Tensor]  # hidden states of each layer, CTC log-probabilities


class EncoderInference:
    """An encoder ready to run on its device.

    Args:
        model: The encoder, on its device.
        front_end: What makes its features.
        precision: "fp32", or "bf16" for the matrix products.
        batched: Whether recordings go through in batches or one by one; by default in batches on a GPU alone.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        front_end: FrontEnd,
        precision: Precision = "fp32",
        batched: bool | None = None,
    ) -> None:
        self.model, self.front_end = model, front_end
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.batched = model.device.type != "cpu" if batched is None else batched
        self._alone = None
        if not self.batched and isinstance(model, Wav2Vec2BertForCTC) and CpuForward.can_run(model):
            self._alone = CpuForward(model, self.dtype)

    def __call__(self, features: Sequence[torch.Tensor], layers: Sequence[int]) -> list[Encoded]:
        """Hidden states after each of the `layers` (ascending, from 1) and CTC log-probabilities of each recording.

        Args:
            features: float32 [length, width] of each recording, at least one frame; see front_end.py.
            layers: Layers to return.

        Returns:
            For each recording a list of float32 [frames, hidden] and float32 [CTC frames, characters], on the
            encoder's device.

        Raises:
            InputError: There is no such layer.
        """
        blocks = self.model.config.num_hidden_layers
        for layer in layers:
            if not 1 <= layer <= blocks:
                raise InputError(f"the encoder has layers 1 to {blocks} (got {layer})")
        layers = sorted(set(layers))
        if self._alone is not None:
            return [self._alone(feature, layers) for feature in features]
        windows = [(i, window) for i, feature in enumerate(features) for window in self.front_end.windows(len(feature))]
        parts = self._encode([features[i][w.start : w.stop] for i, w in windows], layers)
        joined: list[list[Encoded]] = [[] for _ in features]
        for (i, w), (hidden, log_probs) in zip(windows, parts, strict=True):
            joined[i].append(([h[w.first : w.last] for h in hidden], log_probs[w.first : w.last]))
        return [
            ([torch.cat(pieces) for pieces in zip(*(hidden for hidden, _ in own), strict=True)],
             torch.cat([log_probs for _, log_probs in own]))
            if len(own) > 1 else own[0]
            for own in joined
        ]  # fmt: skip

    def _encode(self, features: Sequence[torch.Tensor], layers: Sequence[int]) -> list[Encoded]:
        results: list[Encoded | None] = [None] * len(features)
        for group, size, rows in self._groups([self.front_end.encoder_frames(len(feature)) for feature in features]):
            for i, result in zip(group, self._batch([features[i] for i in group], size, rows, layers), strict=True):
                results[i] = result
        return [result for result in results if result is not None]

    def _groups(self, lengths: Sequence[int]) -> Iterator[tuple[list[int], int, int]]:
        """Recordings of the same padded length (frames), as many as a batch of that length has rows.

        An encoder that padding would disturb takes each recording alone, at its own length (0).
        """
        if not self.front_end.masked:
            yield from (([i], 0, 1) for i in range(len(lengths)))
            return
        by_size: dict[int, list[int]] = {}
        for i, length in enumerate(lengths):
            by_size.setdefault(padded_length(length), []).append(i)
        for size, group in sorted(by_size.items()):
            rows = max(1, _BATCH_FRAMES // size) if self.batched else 1
            for first in range(0, len(group), rows):
                yield group[first : first + rows], size, rows

    def _batch(self, features: Sequence[torch.Tensor], size: int, rows: int, layers: Sequence[int]) -> list[Encoded]:
        front_end, device = self.front_end, self.model.device
        length = front_end.padded(size) if size else len(features[0])
        inputs = {
            name: value.to(device) for name, value in front_end.batch(features, length, rows, mask=size > 0).items()
        }
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            hidden, log_probs = encode(self.model, inputs, layers)
        frames = [front_end.encoder_frames(len(feature)) for feature in features]
        return [([h[i, : n // front_end.squeeze] for h in hidden], log_probs[i, :n]) for i, n in enumerate(frames)]


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
