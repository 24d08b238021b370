"""Generators of the unit vocoder, each a file of its own: `vocos.py` has the class `Vocos`."""

import torch
from torch import Tensor, nn

from unitweave.vocoder.config import UnitVocoderConfig
from unitweave.vocoder.excitation import Position


class Generator(nn.Module):
    """Hidden units [batch, frames, dim] -> waveform [batch, frames * hop].

    Attributes:
        config: The shape of the vocoder.
        harmonic: Whether it predicts the pitch, which training then tracks in the recordings.
    """

    harmonic = False

    def __init__(self, config: UnitVocoderConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def context_frames(self) -> int:
        """Units on either side of a unit that can change its samples."""
        raise NotImplementedError

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, f0: Tensor | None = None, position: Position | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Generate a batch.

        Args:
            x: [batch, frames, dim].
            lengths: [batch] frames of each utterance; all `frames` when None.
            f0: [batch, frames] in Hz, in place of the predicted pitch in the excitation (training does that).
            position: Where in its utterance a chunk begins.

        Returns:
            The waveform, and the predicted pitch [batch, frames] in Hz (None without a pitch head).
        """
        raise NotImplementedError


def frame_mask(lengths: Tensor | None, frames: int) -> Tensor | None:
    """float [batch, frames, 1]: 1 within each utterance, 0 beyond it; None when there are no lengths."""
    if lengths is None:
        return None
    return (torch.arange(frames, device=lengths.device) < lengths[:, None]).float().unsqueeze(-1)
