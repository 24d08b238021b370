"""How long each unit lasts, for units whose repetitions were removed."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitweave.vocoder.vocos import frame_mask

_LONGEST = 50  # frames, one second


class DurationPredictor(nn.Module):
    """Two convolutions over the deduplicated units, after FastSpeech (arXiv 1905.09263)."""

    def __init__(self, num_units: int, dim: int = 128, kernel: int = 3) -> None:
        super().__init__()
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
        """Deduplicated units [runs] -> units at 50 Hz [frames], each repeated for its predicted frames."""
        return np.repeat(units, self._frames(units))

    @property
    def context_runs(self) -> int:
        """Units on either side that can change how long a unit lasts."""
        return sum(layer.kernel_size[0] // 2 for layer in (self.first, self.second))

    def expand_stream(self, units: Iterable[int]) -> Iterator[int]:
        """What `expand` gives, unit by unit, each as soon as the `context_runs` units after it are known."""
        held: list[int] = []  # the context of the unit at `place`, and what follows
        place = 0
        for unit in units:
            held.append(unit)
            if len(held) - place > self.context_runs:
                yield from [held[place]] * int(self._frames(np.asarray(held))[place])
                if place == self.context_runs:
                    del held[0]
                else:
                    place += 1
        if held:
            yield from np.repeat(held[place:], self._frames(np.asarray(held))[place:]).tolist()

    @torch.inference_mode()
    def _frames(self, units: np.ndarray) -> np.ndarray:
        log_frames = self(torch.as_tensor(units.astype(np.int64))[None].to(self.out.weight.device))[0]
        return log_frames.exp().round().clamp(1, _LONGEST).long().cpu().numpy()
