"""Pitch of recorded speech by autocorrelation, for training; good enough for clean speech."""

import torch
from torch import Tensor

_WINDOW_SECONDS = 0.064
_RANGE = (60, 400)  # Hz


def track_pitch(waveform: Tensor, hop: int = 320, rate: int = 16_000) -> tuple[Tensor, Tensor]:
    """Pitch at each frame of a batch of recordings.

    Args:
        waveform: [batch, frames * hop] at `rate` Hz.
        hop: Samples for each frame.
        rate: In Hz.

    Returns:
        f0 [batch, frames] in Hz, and whether a frame is voiced, bool [batch, frames]. f0 belongs to a frame's first
        sample; where speech is unvoiced it is interpolated (in the logarithm) from the voiced frames around, and 0
        throughout a recording without any.
    """
    size = round(_WINDOW_SECONDS * rate)
    low, high = rate // _RANGE[1], rate // _RANGE[0]  # samples of the shortest and of the longest period
    framed = torch.nn.functional.pad(waveform.float(), (size // 2, size // 2)).unfold(1, size, hop)[
        :, : waveform.shape[1] // hop
    ]
    framed = framed - framed.mean(dim=-1, keepdim=True)
    window = torch.hann_window(size, device=waveform.device)
    correlation = _autocorrelation(framed * window, rate)[..., : high + 2]  # [batch, frames, lags]
    energy = framed.square().mean(dim=-1)
    shape = _autocorrelation(window[None], rate)[0, : high + 2]
    normalized = correlation / (correlation[..., :1] + 1e-9) / (shape / shape[0])
    lags = torch.arange(low, high + 1, device=waveform.device)
    # Twice the period correlates as well as the period: the shorter one wins unless clearly worse.
    scores = normalized[..., low : high + 1] - 0.1 * torch.log2(lags / low)
    peak = scores[..., 1:-1].argmax(dim=-1) + low + 1
    strength = normalized.gather(-1, peak[..., None]).squeeze(-1)
    before, at, after = (correlation.gather(-1, (peak + shift)[..., None]).squeeze(-1) for shift in (-1, 0, 1))
    shift = 0.5 * (before - after) / (before - 2 * at + after + 1e-12)
    f0 = rate / (peak + shift.clamp(-0.5, 0.5))
    loud = energy > 1e-3 * energy.amax(dim=1, keepdim=True).clamp(min=1e-6)
    voiced = (strength > 0.55) & loud
    voiced &= (f0 / _median(f0)).log().abs() < 0.25  # a lonely octave error is no pitch
    return _interpolate(f0, voiced), voiced


def _autocorrelation(framed: Tensor, rate: int) -> Tensor:
    """Autocorrelation of what lies below 2 kHz, where speech is most periodic: [..., lags]."""
    power = torch.fft.rfft(framed, n=2 * framed.shape[-1]).abs().square()
    power[..., int(power.shape[-1] * 4000 / rate) :] = 0
    return torch.fft.irfft(power)


def _median(f0: Tensor) -> Tensor:
    """Median over 5 frames."""
    padded = torch.nn.functional.pad(f0[:, None], (2, 2), mode="replicate")[:, 0]
    return padded.unfold(1, 5, 1).median(dim=-1).values


def _interpolate(f0: Tensor, voiced: Tensor) -> Tensor:
    frames = f0.shape[1]
    index = torch.arange(frames, device=f0.device).expand_as(f0)
    before = torch.where(voiced, index, -1).cummax(dim=1).values
    after = torch.where(voiced, index, frames).flip(1).cummin(dim=1).values.flip(1)
    none = before.amax(dim=1, keepdim=True) < 0
    left = torch.where(before < 0, after, before).clamp(0, frames - 1)
    right = torch.where(after >= frames, before, after).clamp(0, frames - 1)
    span = (right - left).clamp(min=1)
    weight = ((index - left) / span).clamp(0, 1)
    log_f0 = f0.log()
    mixed = torch.lerp(log_f0.gather(1, left), log_f0.gather(1, right), weight).exp()
    return torch.where(none, torch.zeros_like(mixed), mixed)
