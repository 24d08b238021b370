"""Spectral losses: what regenerated speech has to share with the recording."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

_FLOOR = 1e-5


class SpectralLoss(nn.Module):
    """Mel and multi-resolution STFT distance of magnitudes, blind to phase.

    The mel term is that of HiFi-GAN (arXiv 2010.05646), the other that of Parallel WaveGAN
    (arXiv 1910.11480), with the same weight for both.
    """

    mel: Tensor

    def __init__(self, rate: int = 16_000, sizes: tuple[int, ...] = (256, 512, 1024), mels: int = 80) -> None:
        super().__init__()
        self.sizes = sizes
        self.register_buffer("mel", mel_filters(1024, mels, rate), persistent=False)
        for size in {*sizes, 1024}:
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)

    def magnitude(self, waveform: Tensor, size: int) -> Tensor:
        """[batch, samples] -> STFT magnitude [batch, bins, frames], a quarter window between frames."""
        window = self.get_buffer(f"window_{size}")
        spectrum = torch.stft(waveform, size, size // 4, window=window, return_complex=True, pad_mode="constant")
        return (spectrum.real.square() + spectrum.imag.square() + _FLOOR**2).sqrt()

    def log_mel(self, waveform: Tensor) -> Tensor:
        """[batch, samples] -> natural logarithm of the mel spectrum [batch, 80, frames]."""
        return (self.mel @ self.magnitude(waveform, 1024)).clamp(min=_FLOOR).log()

    def forward(self, generated: Tensor, real: Tensor) -> Tensor:
        """Distance of two batches of waveforms [batch, samples]; a scalar."""
        total = generated.new_zeros(())
        for size in self.sizes:
            a, b = self.magnitude(generated, size), self.magnitude(real, size)
            total = total + (a - b).norm() / b.norm().clamp(min=_FLOOR) + F.l1_loss((a + 1e-3).log(), (b + 1e-3).log())
        return total / len(self.sizes) + self.mel_distance(generated, real)

    def mel_distance(self, generated: Tensor, real: Tensor) -> Tensor:
        """Mean absolute difference of the log mel spectra (nepers); a scalar."""
        return F.l1_loss(self.log_mel(generated), self.log_mel(real))


def mel_filters(n_fft: int, mels: int, rate: int) -> Tensor:
    """Triangular filters of equal area [mels, n_fft / 2 + 1] on the mel scale 2595 log10(1 + f / 700)."""
    frequencies = np.linspace(0, rate / 2, n_fft // 2 + 1)
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, mels + 2) / 2595) - 1)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None] * 20
    return torch.tensor(filters, dtype=torch.float32)
