"""Discriminators: small networks that learn to tell generated speech from recorded speech.

Multi-period after HiFi-GAN (arXiv 2010.05646, MIT) and multi-resolution spectrogram after
UnivNet (arXiv 2106.07889), both implemented anew.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

_SLOPE = 0.1
Judgment = tuple[Tensor, list[Tensor]]  # scores, and the layers' outputs for feature matching


class PeriodDiscriminator(nn.Module):
    """Sees every `period`-th sample: the waveform folded to [batch, 1, samples / period, period]."""

    def __init__(self, period: int, channels: int) -> None:
        super().__init__()
        self.period = period
        widths = [1, channels, channels * 4, channels * 8, channels * 8]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), (3, 1), padding=(2, 0))) for a, b in itertools.pairwise(widths)
        )
        self.out = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, waveform: Tensor) -> Judgment:
        x = F.pad(waveform, (0, -waveform.shape[1] % self.period))
        return _run(self.layers, self.out, x.reshape(len(x), 1, -1, self.period))


class ResolutionDiscriminator(nn.Module):
    """Sees the STFT magnitude: [batch, 1, bins, frames]."""

    window: Tensor

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        widths, strides = [1, channels, channels, channels, channels], [1, 2, 2, 2]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 3), (stride, 1), padding=(2, 1)))
            for a, b, stride in zip(widths[:-1], widths[1:], strides, strict=True)
        )
        self.out = weight_norm(nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, waveform: Tensor) -> Judgment:
        spectrum = torch.stft(waveform.float(), self.size, self.size // 4, window=self.window, return_complex=True)
        magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()
        return _run(self.layers, self.out, (magnitude + 1e-3).log()[:, None])


class Discriminators(nn.Module):
    """All of them: waveform [batch, samples] -> one judgment each."""

    def __init__(
        self, channels: int = 32, periods: tuple[int, ...] = (2, 3, 5, 7, 11), sizes: tuple[int, ...] = (256, 512, 1024)
    ) -> None:
        super().__init__()
        self.all = nn.ModuleList(
            [PeriodDiscriminator(period, channels) for period in periods]
            + [ResolutionDiscriminator(size, channels) for size in sizes]
        )

    def forward(self, waveform: Tensor) -> list[Judgment]:
        return [discriminator(waveform) for discriminator in self.all]


def _run(layers: nn.ModuleList, out: nn.Module, x: Tensor) -> Judgment:
    features = []
    for layer in layers:
        x = F.leaky_relu(layer(x), _SLOPE)
        features.append(x)
    return out(x), features


def discriminator_loss(real: list[Judgment], generated: list[Judgment]) -> Tensor:
    """Hinge loss of the discriminators: recordings above 1, generated speech below -1."""
    losses = [
        F.relu(1 - a.float()).mean() + F.relu(1 + b.float()).mean()
        for (a, _), (b, _) in zip(real, generated, strict=True)
    ]
    return torch.stack(losses).mean()


def generator_losses(real: list[Judgment], generated: list[Judgment]) -> tuple[Tensor, Tensor]:
    """(adversarial hinge loss, feature-matching loss) of the generator."""
    adversarial = torch.stack([F.relu(1 - score.float()).mean() for score, _ in generated]).mean()
    distances = [
        F.l1_loss(b.float(), a.detach().float()) / a.detach().float().abs().mean().clamp(min=1e-3)
        for (_, first), (_, second) in zip(real, generated, strict=True)
        for a, b in zip(first, second, strict=True)
    ]
    return adversarial, torch.stack(distances).mean()
