"""The paper's generator: HiFi-GAN, from units straight up to the sampling rate.

Written after the design of Kong, Kim and Bae 2020 (arXiv 2010.05646; their code is MIT-licensed):
transposed convolutions, each followed by the mean of residual blocks of several kernel sizes.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from unitweave.vocoder.config import UnitVocoderConfig
from unitweave.vocoder.excitation import Position
from unitweave.vocoder.generators import Generator, frame_mask

_SLOPE = 0.1


class ResidualBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each pair with a shortcut: [batch, channels, samples]."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()

        def convolution(dilation: int) -> nn.Module:
            layer = nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=dilation * (kernel // 2))
            nn.init.normal_(layer.weight, std=0.01)
            return weight_norm(layer)

        self.dilated = nn.ModuleList(convolution(dilation) for dilation in dilations)
        self.plain = nn.ModuleList(convolution(1) for _ in dilations)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for dilated, plain in zip(self.dilated, self.plain, strict=True):
            y = dilated(_masked(F.leaky_relu(x, _SLOPE), mask))
            x = x + plain(_masked(F.leaky_relu(y, _SLOPE), mask))
        return x


class Hifigan(Generator):
    """Hidden units [batch, frames, dim] -> waveform [batch, frames * hop]."""

    def __init__(self, config: UnitVocoderConfig) -> None:
        super().__init__(config)
        channels = config.hifigan_channels
        self.enter = weight_norm(nn.Conv1d(config.dim, channels, 7, padding=3))
        self.up, self.blocks = nn.ModuleList(), nn.ModuleList()
        for rate in config.hifigan_rates:
            kernel = 2 * rate + rate % 2  # 11, 8, 8, 4, 4
            layer = nn.ConvTranspose1d(channels, channels // 2, kernel, rate, padding=(kernel - rate) // 2)
            nn.init.normal_(layer.weight, std=0.01)
            self.up.append(weight_norm(layer))
            channels //= 2
            self.blocks.append(
                nn.ModuleList(
                    ResidualBlock(channels, size, config.hifigan_dilations) for size in config.hifigan_kernels
                )
            )
        self.leave = weight_norm(nn.Conv1d(channels, 1, 7, padding=3))

    @property
    def context_frames(self) -> int:
        """Units on either side of a unit that can change its samples."""
        config = self.config
        reach, step = 3.0, 1.0  # in frames, and frames a sample at the present rate
        widest = max(config.hifigan_kernels) // 2
        for rate in config.hifigan_rates:
            reach += 2 * step
            step /= rate
            reach += widest * (sum(config.hifigan_dilations) + len(config.hifigan_dilations)) * step
        return math.ceil(reach + 3 * step)

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, f0: Tensor | None = None, position: Position | None = None
    ) -> tuple[Tensor, None]:
        """Return the waveform and None, since there is no pitch head; f0 and position are not used."""
        frame = frame_mask(lengths, x.shape[1])
        mask = None if frame is None else frame.transpose(1, 2)  # [batch, 1, frames]
        x = self.enter(_masked(x.transpose(1, 2), mask))
        for up, blocks, rate in zip(self.up, self.blocks, self.config.hifigan_rates, strict=True):
            x = up(_masked(F.leaky_relu(x, _SLOPE), mask))
            mask = None if mask is None else mask.repeat_interleave(rate, dim=2)
            assert isinstance(blocks, nn.ModuleList)
            x = torch.stack([block(x, mask) for block in blocks]).mean(dim=0)
        waveform = torch.tanh(self.leave(_masked(F.leaky_relu(x), mask)).float())
        return _masked(waveform, mask).squeeze(1), None


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask
