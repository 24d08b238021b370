"""The default generator: every layer at frame rate, one inverse STFT at the end.

After Vocos (Siuzdak 2023, arXiv 2306.00814, MIT): ConvNeXt blocks that keep the frame rate, and a
head that writes a spectrum. Ours differs in what the spectrum is for. With the "harmonic"
excitation it is the filter of a source-filter vocoder (as in DDSP, arXiv 2001.04643): the pulse
train knows how voiced speech repeats, which a network otherwise takes hours to learn.
"""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitweave.vocoder.config import UnitVocoderConfig
from unitweave.vocoder.excitation import Position, noise, noise_table, pulse_train
from unitweave.vocoder.generators import Generator, frame_mask

F0_RANGE = (50.0, 600.0)  # Hz
_LOUDEST = 4.0  # log magnitude of a filter at most


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution over frames, then a two-layer network in each frame: [batch, frames, dim]."""

    def __init__(self, dim: int, hidden: int, kernel: int, layers: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.expand = nn.Linear(dim, hidden)
        self.reduce = nn.Linear(hidden, dim)
        self.scale = nn.Parameter(torch.full((dim,), 1.0 / layers))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        y = self.reduce(F.gelu(self.expand(self.norm(y))))
        x = x + self.scale * y
        return x if mask is None else x * mask


class PitchPredictor(nn.Module):
    """Hidden units [batch, frames, dim] -> pitch in Hz [batch, frames].

    In inference it computes in float64. The pulse train adds up the pitch of all frames, so rounding
    that depends on how frames are batched would grow over an utterance into another waveform.
    """

    channels, kernel, dilations = 64, 5, (1, 2, 4)

    def __init__(self, dim: int, f0_mean: float) -> None:
        super().__init__()
        self.f0_mean = f0_mean
        widths = [dim] + [self.channels] * len(self.dilations)
        self.layers = nn.ModuleList(nn.Linear(self.kernel * a, b) for a, b in itertools.pairwise(widths))
        self.out = nn.Linear(self.channels, 1)

    @property
    def context_frames(self) -> int:
        """Units on either side of a unit that can change its pitch."""
        return sum(self.dilations) * (self.kernel // 2)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        frames, half = x.shape[1], self.kernel // 2
        with torch.autocast(x.device.type, enabled=False):
            x = x.float() if self.training else x.double()
            for layer, dilation in zip(self.layers, self.dilations, strict=True):
                x = F.pad(x if mask is None else x * mask, (0, 0, dilation * half, dilation * half))
                taps = [x[:, k * dilation : k * dilation + frames] for k in range(self.kernel)]
                x = F.gelu(_linear(layer, torch.cat(taps, dim=-1)))  # [batch, frames, channels]
            log_f0 = math.log(self.f0_mean) + 0.5 * _linear(self.out, x).squeeze(-1)
        return log_f0.clamp(math.log(F0_RANGE[0]), math.log(F0_RANGE[1])).exp()


class Vocos(Generator):
    """Hidden units [batch, frames, dim] -> waveform [batch, frames * hop]."""

    noise_table: Tensor
    window: Tensor

    def __init__(self, config: UnitVocoderConfig) -> None:
        super().__init__(config)
        total = config.layers + config.fine_layers
        self.enter = nn.Conv1d(config.dim, config.dim, config.kernel, padding=config.kernel // 2)
        self.norm_in = nn.LayerNorm(config.dim, eps=1e-6)

        def block() -> ConvNeXtBlock:
            return ConvNeXtBlock(config.dim, config.hidden, config.kernel, total)

        self.coarse = nn.ModuleList(block() for _ in range(config.layers))
        self.split = nn.Linear(config.dim, config.dim * config.upsample)
        self.fine = nn.ModuleList(block() for _ in range(config.fine_layers))
        self.norm_out = nn.LayerNorm(config.dim, eps=1e-6)
        self.harmonic = config.excitation == "harmonic"
        bins = config.n_fft // 2 + 1
        self.head = nn.Linear(config.dim, bins * (3 if self.harmonic else 2))
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()
            self.head.bias[:bins] = self.head.bias[2 * bins :] = -4.0  # begin quietly
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)
        if self.harmonic:
            self.pitch = PitchPredictor(config.dim, config.f0_mean)
            self.register_buffer("noise_table", noise_table(), persistent=False)

    @property
    def context_frames(self) -> int:
        """Units on either side of a unit that can change its samples."""
        config, half = self.config, self.config.kernel // 2
        fine = config.fine_layers * half + 4  # two windows of the STFT: analysis and synthesis
        coarse = (1 + config.layers) * half + math.ceil(fine / config.upsample)
        return max(coarse, self.pitch.context_frames + math.ceil(4 / config.upsample) if self.harmonic else 0) + 1

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, f0: Tensor | None = None, position: Position | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the waveform and the predicted pitch [batch, frames] in Hz (None without a pitch head).

        f0 [batch, frames] in Hz replaces the predicted pitch in the excitation (training does that).
        """
        batch, frames, _ = x.shape
        config, position = self.config, position or Position()
        mask = frame_mask(lengths, frames)
        predicted = self.pitch(x, mask) if self.harmonic else None  # [batch, frames]
        x = self.enter((x if mask is None else x * mask).transpose(1, 2)).transpose(1, 2)
        x = self.norm_in(x)
        x = x if mask is None else x * mask
        for layer in self.coarse:
            x = layer(x, mask)
        x = self.split(x).reshape(batch, frames * config.upsample, config.dim)  # [batch, fine frames, dim]
        fine_mask = None if mask is None else mask.repeat_interleave(config.upsample, dim=1)
        x = x if fine_mask is None else x * fine_mask
        for layer in self.fine:
            x = layer(x, fine_mask)
        spectra = self.head(self.norm_out(x)).float()  # [batch, fine frames, bins * 3]
        if self.harmonic:
            f0 = predicted if f0 is None else f0
            assert f0 is not None
            spectrum = self._filtered(spectra, f0.detach(), mask, position)
        else:
            magnitude, phase = spectra.chunk(2, dim=-1)
            spectrum = torch.polar(magnitude.clamp(max=_LOUDEST).exp() * math.sqrt(config.n_fft), phase)
        if fine_mask is not None:
            spectrum = spectrum * fine_mask
        return self._inverse(spectrum), predicted

    def _filtered(self, spectra: Tensor, f0: Tensor, mask: Tensor | None, position: Position) -> Tensor:
        """Filter the pulse train and the noise: complex spectrum [batch, fine frames, bins]."""
        hop = self.config.hop
        voiced, phase, unvoiced = spectra.chunk(3, dim=-1)
        if mask is not None:  # beyond an utterance its last pitch goes on, as it does at a batch's end
            last = mask.squeeze(-1).sum(dim=1).long().clamp(min=1) - 1
            f0 = torch.where(mask.squeeze(-1) > 0, f0, f0.gather(1, last[:, None]))
        pulses = pulse_train(f0, hop, self.config.sample_rate, position)
        hiss = noise(self.noise_table, pulses.shape[1], position.frame * hop).expand_as(pulses)
        if mask is not None:
            audible = mask.squeeze(-1).repeat_interleave(hop, dim=1)
            pulses, hiss = pulses * audible, hiss * audible
        filters = torch.polar(voiced.clamp(max=_LOUDEST).exp(), phase)
        return filters * self._forward(pulses) + unvoiced.clamp(max=_LOUDEST).exp() * self._forward(hiss)

    def _forward(self, waveform: Tensor) -> Tensor:
        """STFT with "same" padding: [batch, samples] -> [batch, samples / fine hop, bins]."""
        hop = self.config.hop // self.config.upsample
        side = self.config.n_fft - hop
        framed = F.pad(waveform, (side // 2, side - side // 2)).unfold(1, self.config.n_fft, hop)
        return torch.fft.rfft(framed * self.window)

    def _inverse(self, spectrum: Tensor) -> Tensor:
        """Inverse STFT with "same" padding, added up without dividing by the windows' sum.

        With Hann windows and 4 hops a window that sum is constant (1.5 for squared windows) wherever
        all windows are present; not dividing lets the ends fade, alone and in a batch alike.
        """
        frames, size = spectrum.shape[1], self.config.n_fft
        hop = size // 4
        pieces = torch.fft.irfft(spectrum, n=size) * self.window / 1.5
        pieces = pieces.reshape(len(pieces), frames, 4, hop)
        total = sum(F.pad(pieces[:, :, i], (0, 0, i, 3 - i)) for i in range(4))
        assert isinstance(total, Tensor)
        side = (size - hop) // 2
        return total.reshape(len(pieces), -1)[:, side : side + frames * hop]


def _linear(layer: nn.Module, x: Tensor) -> Tensor:
    """A linear layer computed in the precision of its input."""
    assert isinstance(layer, nn.Linear)
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))
