"""Train a unit vocoder on recordings and their units; interrupted, it goes on to the digit."""

import math
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

from unitweave.config.vocoder import VocoderSettings, VocoderTraining
from unitweave.core.errors import InputError
from unitweave.core.manifest import read_manifest
from unitweave.core.progress import meter
from unitweave.core.sequences import deduplicate
from unitweave.core.stage import StageResult
from unitweave.training.optimizers import make_optimizer
from unitweave.units.table import read_units_metadata
from unitweave.vocoder.checkpoint import load_checkpoint, save_checkpoint
from unitweave.vocoder.config import UnitVocoderConfig
from unitweave.vocoder.discriminators import Discriminators, discriminator_loss, generator_losses
from unitweave.vocoder.losses import SpectralLoss
from unitweave.vocoder.model import UnitVocoder
from unitweave.vocoder.pitch import track_pitch
from unitweave.vocoder.segments import Batch, Recording, batches, find_recordings, load_segment

CHECKPOINT = "checkpoint.safetensors"
_OUTER_LAYERS = ("head", "pitch", "durations")  # Muon's steps are too long for what writes spectra, pitch and durations
_CHECKED_UTTERANCES = 32


def train_vocoder(folder: Path, settings: VocoderSettings, corpus: Path, units: Path) -> StageResult:
    """Train on the "train" split of the manifest in `corpus` and the units dataset in `units`.

    Leaves config.json and model.safetensors in `folder`; while it runs, `folder`/checkpoint.safetensors holds
    what an interrupted call with the same settings goes on from. Raises InputError when there is
    nothing to train on, a setting is impossible or a recording cannot be read.
    """
    speakers = sorted({pair.speaker for pair in read_manifest(corpus, "train")}) if settings.multi_speaker else []
    recordings, skipped = find_recordings(corpus, units, settings.side, "train", speakers)
    if not recordings:
        raise InputError(f"{corpus}: no training utterance has both audio and units on the side {settings.side!r}")
    metadata = read_units_metadata(units)
    trainer = _Trainer(folder, settings, recordings, speakers, metadata)
    trainer.run()
    counts = {
        "utterances": len(recordings),
        "hours": round(sum(len(recording.units) for recording in recordings) / 50 / 3600, 3),
        "steps": settings.training.steps,
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
    }
    dev, _ = find_recordings(corpus, units, settings.side, "dev", speakers)
    if dev:
        counts["dev_mel_distance"] = round(mel_distance(trainer.model, dev[:_CHECKED_UTTERANCES]), 4)
    return StageResult(counts=counts, skipped=skipped, obsolete=(folder / CHECKPOINT,))


class _Trainer:
    """Everything that a step needs; what changes from step to step is what a checkpoint holds."""

    def __init__(
        self,
        folder: Path,
        settings: VocoderSettings,
        recordings: list[Recording],
        speakers: list[str],
        metadata: dict[str, str],
    ) -> None:
        self.folder, self.settings, self.recordings = Path(folder), settings, recordings
        self.accelerator = Accelerator()
        torch.manual_seed(settings.training.seed)
        config = UnitVocoderConfig(
            num_units=int(metadata["num_units"]),
            codebook=metadata.get("codebook", ""),
            generator=settings.generator,
            excitation=settings.excitation,
            dim=settings.dim,
            hidden=settings.intermediate_dim,
            layers=settings.layers,
            fine_layers=settings.fine_layers,
            hifigan_channels=settings.hifigan_channels,
            f0_mean=_mean_pitch(recordings),
            speakers=speakers,
            durations=settings.duration_predictor,
        )
        self.model = UnitVocoder(config)
        self.optimizer = make_optimizer(
            settings.training.optimizer,
            self.model,
            settings.training.learning_rate,
            settings.training.weight_decay,
            (0.8, 0.99),
            _OUTER_LAYERS,
        )
        for group in self.optimizer.param_groups:
            group["peak"] = group["lr"]
        self.step = 0
        self.modules: dict[str, torch.nn.Module] = {"model": self.model}
        self.optimizers: dict[str, torch.optim.Optimizer] = {"generator": self.optimizer}
        if settings.adversarial_start_step is not None:
            self.judges = Discriminators(settings.discriminator_channels)
            self.modules["judges"] = self.judges
            self.optimizers["judges"] = torch.optim.AdamW(
                self.judges.parameters(), lr=settings.discriminator_learning_rate, betas=(0.8, 0.99)
            )
        self.spectral = SpectralLoss().to(self.accelerator.device)
        for module in self.modules.values():
            module.to(self.accelerator.device)
        self.step = load_checkpoint(self.folder / CHECKPOINT, self.modules, self.optimizers)

    def run(self) -> None:
        settings, accelerator = self.settings, self.accelerator
        processes = accelerator.num_processes
        if settings.training.batch_size % processes:
            raise InputError(
                f"vocoder: batch {settings.training.batch_size} does not divide among {processes} processes"
            )
        stream = batches(
            self.recordings,
            self.step,
            settings.training.steps,
            settings.training.batch_size,
            settings.segment_frames,
            settings.training.seed,
        )
        with meter("training the vocoder", settings.training.steps, done=self.step) as progress:
            for batch in stream:
                share = slice(accelerator.process_index, None, processes)
                losses = self._train_step(batch.part(share, accelerator.device))
                self.step += 1
                progress.advance(note="  ".join(f"{name} {value:.3f}" for name, value in losses.items()))
                if self.step % settings.training.save_steps == 0 and self.step < settings.training.steps:
                    self._save_checkpoint()
        self.model.eval()
        if accelerator.is_main_process:
            self.model.save_pretrained(self.folder)
        accelerator.wait_for_everyone()

    def _autocast(self) -> torch.autocast:
        # accelerate's own precision belongs to the whole process and could not differ between stages.
        return torch.autocast(
            self.accelerator.device.type, torch.bfloat16, enabled=self.settings.training.precision == "bf16"
        )

    def _save_checkpoint(self) -> None:
        if self.accelerator.is_main_process:
            save_checkpoint(self.folder / CHECKPOINT, self.step, self.modules, self.optimizers)

    def _train_step(self, batch: Batch) -> dict[str, float]:
        settings = self.settings
        share = learning_rate_ratio(settings.training, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = share * group["peak"]
        harmonic = settings.generator == "vocos" and settings.excitation == "harmonic"
        f0 = voiced = None
        if harmonic:
            f0, voiced = track_pitch(batch.waveform)
            f0 = torch.where(f0 > 0, f0, self.model.config.f0_mean)
        speaker = batch.speaker if settings.multi_speaker else None
        with self._autocast():
            made, pitch = self.model.generate(batch.units, speaker, batch.lengths, f0)
        judged = batch.judged.repeat_interleave(self.model.config.hop, dim=1)
        made = torch.lerp(batch.waveform, made, judged)  # where it is not judged, it is right
        loss = settings.spectral_weight * self.spectral(made, batch.waveform)
        shown = {"spectral": loss.item()}
        if pitch is not None and f0 is not None and voiced is not None:
            counted = voiced * batch.judged
            off = (pitch.log() - f0.log()).abs() * counted
            pitch_loss = off.sum() / counted.sum().clamp(min=1)
            loss = loss + settings.pitch_weight * pitch_loss
            shown["pitch"] = pitch_loss.item()
        if settings.duration_predictor:
            loss = loss + self._duration_loss(batch)
        if settings.adversarial_start_step is not None and self.step >= settings.adversarial_start_step:
            shown["judges"] = self._train_judges(batch.waveform, made.detach())
            with self._autocast():
                fooled, matching = generator_losses(self.judges(batch.waveform), self.judges(made))
            loss = loss + settings.feature_matching_weight * matching + 0.05 * fooled
            shown["fooled"] = fooled.item()
        self._update(self.optimizer, self.model, loss)
        return shown

    def _train_judges(self, real: Tensor, made: Tensor) -> float:
        with self._autocast():
            loss = discriminator_loss(self.judges(real), self.judges(made))
        self._update(self.optimizers["judges"], self.judges, loss)
        return loss.item()

    def _update(self, optimizer: torch.optim.Optimizer, module: torch.nn.Module, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.accelerator.num_processes > 1:
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter.grad = self.accelerator.reduce(parameter.grad, reduction="mean")
        torch.nn.utils.clip_grad_norm_(module.parameters(), self.settings.training.max_grad_norm)
        optimizer.step()

    def _duration_loss(self, batch: Batch) -> Tensor:
        """Squared error of the logarithm of each whole run's frames; a segment's first and last run are cut."""
        assert self.model.durations is not None
        count = 0
        runs, frames = [], []
        for units, length in zip(batch.units.cpu().numpy(), batch.lengths.tolist(), strict=True):
            run, repeated = deduplicate(units[:length])
            runs.append(torch.from_numpy(run))
            frames.append(torch.from_numpy(repeated))
        device = batch.units.device
        lengths = torch.tensor([len(run) for run in runs], device=device)
        padded = torch.nn.utils.rnn.pad_sequence(runs, batch_first=True).to(device)
        predicted = self.model.durations(padded, lengths)
        total = 0 * predicted.sum()  # so that every process has gradients to exchange, even if all its runs are cut
        for row, lasting in zip(predicted, frames, strict=True):
            if len(lasting) > 2:
                inner = lasting[1:-1].to(device).log()
                total = total + F.mse_loss(row[1 : len(lasting) - 1], inner.float(), reduction="sum")
                count += len(inner)
        return total / max(count, 1)


def learning_rate_ratio(training: VocoderTraining, step: int) -> float:
    """Fraction of the peak learning rate at a step: a linear rise, then half a cosine down to a twentieth."""
    warmup_steps = training.warmup_steps
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, training.steps - warmup_steps)
    return 0.05 + 0.95 * (0.5 + 0.5 * math.cos(math.pi * min(1.0, done)))


@torch.inference_mode()
def mel_distance(model: UnitVocoder, recordings: list[Recording]) -> float:
    """Mean distance of log mel spectra (nepers) between recordings and what the vocoder makes of their units."""
    spectral, total = SpectralLoss(), 0.0
    device = next(model.parameters()).device
    spectral.to(device)
    for recording in recordings:
        units, waveform = load_segment(recording, 0, len(recording.units))
        speaker = torch.tensor([recording.speaker], device=device) if model.speaker is not None else None
        made = model(torch.from_numpy(units.astype("int64"))[None].to(device), speaker)
        total += spectral.mel_distance(made, torch.from_numpy(waveform)[None].to(device)).item()
    return total / len(recordings)


def _mean_pitch(recordings: list[Recording]) -> float:
    """Geometric mean of the pitch of up to 32 recordings, in Hz."""
    logs = []
    for recording in recordings[:: max(1, len(recordings) // 32)][:32]:
        _, waveform = load_segment(recording, 0, len(recording.units))
        f0, voiced = track_pitch(torch.from_numpy(waveform)[None])
        logs.append(f0[voiced].log())
    found = torch.cat(logs)
    return round(float(found.mean().exp()), 1) if len(found) else UnitVocoderConfig.f0_mean
