"""The source of the source-filter vocoder: a pulse train at the predicted pitch, and noise.

Both are functions of the absolute position in the utterance, so that a chunk in the middle of a
stream continues exactly where the one before it ended.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

NOISE_SAMPLES = 1 << 16  # the noise repeats after 4 s, far too slowly to be heard


@dataclass(frozen=True)
class Position:
    """Where in an utterance a stretch of frames lies.

    Attributes:
        frame: Index of the stretch's first frame in the utterance.
        anchor: Index, within the stretch, of the frame at whose first sample the pulse train has gone through
            `cycles` periods.
        cycles: [batch] float64, modulo 1; zeros when None.
    """

    frame: int = 0
    anchor: int = 0
    cycles: Tensor | None = None


def frame_cycles(f0: Tensor, hop: int, rate: int) -> Tensor:
    """Periods of the pulse train that pass in each frame: f0 [batch, frames] in Hz -> float64 [batch, frames].

    The pitch moves linearly from its value at the first sample of a frame to that of the next frame.
    """
    f0 = f0.double()
    following = torch.cat([f0[:, 1:], f0[:, -1:]], dim=1)
    return (f0 * (hop + 1) + following * (hop - 1)) / (2 * rate)


def pulse_train(f0: Tensor, hop: int, rate: int, position: Position) -> Tensor:
    """All harmonics of f0 up to half the sampling rate, in phase, with unit power.

    f0 [batch, frames] in Hz -> [batch, frames * hop]. The sum of the cosines has a closed form
    (the Dirichlet kernel), so its cost does not depend on the number of harmonics.
    """
    batch, frames = f0.shape
    passed = torch.cumsum(frame_cycles(f0, hop, rate), dim=1)
    starts = torch.cat([torch.zeros_like(passed[:, :1]), passed], dim=1)  # [batch, frames + 1]
    offset = -starts[:, position.anchor]
    if position.cycles is not None:
        offset = offset + position.cycles
    starts = starts[:, :-1] + offset[:, None]
    step = torch.arange(hop, dtype=torch.float64, device=f0.device)
    exact = f0.double()
    following = torch.cat([exact[:, 1:], exact[:, -1:]], dim=1)
    slope = (following - exact) / hop
    within = (exact[..., None] * step + slope[..., None] * (step * (step - 1) / 2)) / rate  # [batch, frames, hop]
    phase = starts[..., None] + within
    phase = (phase - phase.round()).float()  # in [-0.5, 0.5]: the peak, where precision counts, is at 0
    harmonics = torch.floor(rate / 2 / f0).clamp(min=1.0).float()[..., None]
    angle = phase * math.pi
    small = angle.abs() < 1e-6
    ratio = torch.sin((2 * harmonics + 1) * angle) / torch.where(small, torch.ones_like(angle), torch.sin(angle))
    pulses = 0.5 * (torch.where(small, 2 * harmonics + 1, ratio) - 1)
    return (pulses * torch.sqrt(2 / harmonics)).reshape(batch, frames * hop)


def noise_table(device: torch.device | None = None) -> Tensor:
    """White noise of unit variance [NOISE_SAMPLES], the same on every machine and in every run."""
    generator = torch.Generator().manual_seed(50)
    return torch.randn(NOISE_SAMPLES, generator=generator).to(device)


def noise(table: Tensor, samples: int, start: int) -> Tensor:
    """`samples` values of the noise from absolute position `start` on: [samples]."""
    index = torch.arange(start, start + samples, device=table.device) % NOISE_SAMPLES
    return table[index]
