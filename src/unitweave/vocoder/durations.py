"""How long each unit lasts, for units whose repetitions were removed."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitweave.vocoder.generators import frame_mask


class DurationPredictor(nn.Module):
    """Two convolutions over the deduplicated units, after FastSpeech (arXiv 1905.09263)."""

    def __init__(self, num_units: int, max_frames: int = 50, dim: int = 128, kernel: int = 3) -> None:
        super().__init__()
        self.max_frames = max_frames  # of a unit: one second
        self.embedding = nn.Embedding(num_units, dim)
        self.first = nn.Conv1d(dim, dim, kernel, padding=kernel // 2)
        self.first_norm = nn.LayerNorm(dim)
        self.second = nn.Conv1d(dim, dim, kernel, padding=kernel // 2)
        self.second_norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, 1)

    def forward(self, units: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Deduplicated units [batch, runs] -> natural logarithm of their frames [batch, runs]."""
        mask = frame_mask(lengths, units.shape[1])
        x = self.embedding(units)
        for layer, norm in ((self.first, self.first_norm), (self.second, self.second_norm)):
            x = x if mask is None else x * mask
            x = norm(F.relu(layer(x.transpose(1, 2)).transpose(1, 2)))
        return self.out(x).squeeze(-1).float()

    def expand(self, units: np.ndarray) -> np.ndarray:
        """Deduplicated units [runs] -> units [frames], each repeated for its predicted frames."""
        return np.repeat(units, self.frames(units))

    @property
    def context_runs(self) -> int:
        """Units on either side that can change how long a unit lasts."""
        return sum(layer.kernel_size[0] // 2 for layer in (self.first, self.second))

    @torch.inference_mode()
    def frames(self, units: np.ndarray) -> np.ndarray:
        """How many frames each deduplicated unit lasts: int64 [runs]."""
        log_frames = self(torch.as_tensor(units.astype(np.int64))[None].to(self.out.weight.device))[0]
        return log_frames.exp().round().clamp(1, self.max_frames).long().cpu().numpy()


class DurationStream:
    """Repeats units that come one by one for as long as they last."""

    def __init__(self, predictor: DurationPredictor) -> None:
        self._predictor = predictor
        self._held: list[int] = []  # the context of the unit at `_place`, and what follows
        self._place = 0

    def push(self, unit: int) -> list[int]:
        """Take in the next unit; returns the frames whose duration no later unit can change."""
        self._held.append(unit)
        context = self._predictor.context_runs
        if len(self._held) - self._place <= context:
            return []
        frames = [self._held[self._place]] * int(self._predictor.frames(np.asarray(self._held))[self._place])
        if self._place == context:
            del self._held[0]
        else:
            self._place += 1
        return frames

    def flush(self, following: Sequence[int] = ()) -> tuple[list[int], list[int]]:
        """The frames of all units so far, as if no other came or these; those that come after all have them as context.

        Returns:
            These frames, and those of what follows.
        """
        held = len(self._held)
        if self._place == held:
            return [], []
        units = np.asarray([*self._held, *following])
        frames = np.repeat(units, lengths := self._predictor.frames(units))
        begin, end = lengths[: self._place].sum(), lengths[:held].sum()
        del self._held[: max(0, held - self._predictor.context_runs)]
        self._place = len(self._held)
        return frames[begin:end].tolist(), frames[end:].tolist()
