"""Training of the unit vocoder on recordings and their units; an interrupted training resumes to the digit."""

import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor
from torch.nn import functional as F

from unitweave.config.vocoder import VocoderSettings, VocoderTraining
from unitweave.core.errors import InputError
from unitweave.core.manifest import read_manifest
from unitweave.core.progress import meter
from unitweave.core.sequences import deduplicate
from unitweave.core.signals import deferred, stop_after_training
from unitweave.core.stage import StageResult
from unitweave.training.checkpoints import last_checkpoint, whole_checkpoint
from unitweave.training.devices import use_bf16
from unitweave.training.module_checkpoints import load_modules, save_modules
from unitweave.training.optimizers import make_optimizer
from unitweave.units.dataset import read_units_metadata, units_per_second
from unitweave.vocoder.config import UnitVocoderConfig, check_shared_batch, check_trainable, timing
from unitweave.vocoder.crops import Batch, RecordingTable, Timing, UnitRecording, batches, find_recordings, load_crop
from unitweave.vocoder.discriminators import Discriminators, discriminator_loss, generator_losses
from unitweave.vocoder.losses import SpectralLoss
from unitweave.vocoder.model import UnitVocoder
from unitweave.vocoder.pitch import track_pitch

CHECKPOINTS = "checkpoints"
_OUTER_LAYERS = ("head", "pitch", "durations")  # Muon's steps are too long for what writes spectra, pitch and durations
ADVERSARIAL_WEIGHT = 0.05  # of the adversarial loss; feature matching does most of the work
_CHECKED_UTTERANCES = 32


def train_vocoder(folder: Path, settings: VocoderSettings, corpus: Path, units: Path) -> StageResult:
    """Train on the train split of a corpus and its units.

    Args:
        folder: Where config.json and model.safetensors are written. While training, checkpoints/ there holds
            what an interrupted call with the same settings resumes from.
        settings: How to train.
        corpus: Folder with the manifest.
        units: Folder with the units dataset.

    Raises:
        InputError: There is nothing to train on, a setting is invalid or a recording cannot be read.
    """
    speakers = _speakers(corpus) if settings.multi_speaker else []
    recordings, skipped = find_recordings(corpus, units, settings.side, "train", speakers)
    if not recordings:
        raise InputError(f"{corpus}: no training utterance has both audio and units on the side {settings.side!r}")
    check_trainable(settings, units)
    check_shared_batch(settings)
    metadata = read_units_metadata(units)
    trainer = _Trainer(folder, settings, recordings, speakers, metadata)
    trainer.run()
    counts = {
        "utterances": len(recordings),
        "hours": round(int(recordings.frames.sum()) / units_per_second(metadata) / 3600, 3),
        "steps": settings.training.steps,
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
    }
    dev, _ = find_recordings(corpus, units, settings.side, "dev", speakers)
    if dev:
        counts["dev_mel_distance"] = round(mel_distance(trainer.model, dev[:_CHECKED_UTTERANCES]), 4)
    return StageResult(counts=counts, skipped=skipped, obsolete=(folder / CHECKPOINTS,))


def _speakers(corpus: Path) -> list[str]:
    """The speakers of the train split, sorted."""
    speakers: list[str] = read_manifest(corpus, "train").column("speaker").unique().to_pylist()
    return sorted(speakers)


class _Generator(torch.nn.Module):
    """`UnitVocoder.generate` as a forward pass: gradients are exchanged for what goes through `forward` only."""

    def __init__(self, model: UnitVocoder) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, units: Tensor, speaker: Tensor | None, lengths: Tensor, f0: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        return self.model.generate(units, speaker, lengths, f0)


def _model_config(
    settings: VocoderSettings, recordings: RecordingTable, speakers: list[str], metadata: dict[str, str]
) -> UnitVocoderConfig:
    """The shape of the model: what settings and model have in common, and what the data say."""
    rates = timing(units_per_second(metadata), settings.sample_rate)
    common = {field.name for field in fields(UnitVocoderConfig)} & {field.name for field in fields(VocoderSettings)}
    others = {
        "hidden": settings.intermediate_dim,
        "durations": settings.duration_predictor,
        "num_units": int(metadata["num_units"]),
        "codebook": metadata.get("codebook", ""),
        "f0_mean": _mean_pitch(recordings, Timing(rates["sample_rate"], rates["hop"])),
        "speakers": speakers,
        **rates,
    }
    return UnitVocoderConfig(**({name: getattr(settings, name) for name in common} | others))


class _Trainer:
    """Everything that a step needs; what changes from step to step is what a checkpoint holds."""

    def __init__(
        self,
        folder: Path,
        settings: VocoderSettings,
        recordings: RecordingTable,
        speakers: list[str],
        metadata: dict[str, str],
    ) -> None:
        self.folder, self.settings, self.recordings = Path(folder), settings, recordings
        # Both waveforms go through the discriminators before one backward pass: no buffer may change in between.
        # A language model that this process trained before leaves its precision behind, with which accelerate would
        # wrap these modules too: a vocoder trained after a restart would end in other bytes.
        AcceleratorState._reset_state()
        self.accelerator = Accelerator(
            mixed_precision="no", kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)]
        )
        torch.manual_seed(settings.training.seed)
        self.model = UnitVocoder(_model_config(settings, recordings, speakers, metadata))
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
            self.discriminators = Discriminators(settings.discriminator_channels)
            self.modules["discriminators"] = self.discriminators
            self.optimizers["discriminators"] = torch.optim.AdamW(
                self.discriminators.parameters(), lr=settings.discriminator_learning_rate, betas=(0.8, 0.99)
            )
        self.timing = Timing(self.model.config.sample_rate, self.model.config.hop)
        self.spectral = SpectralLoss(self.timing.sample_rate).to(self.accelerator.device)
        for module in self.modules.values():
            module.to(self.accelerator.device)
        checkpoint, self.step = last_checkpoint(self.folder / CHECKPOINTS)
        if checkpoint is not None:
            load_modules(checkpoint, self.modules, self.optimizers)
        # With several processes these exchange gradients; alone they are the modules themselves.
        self.generate = self.accelerator.prepare(_Generator(self.model))
        if settings.adversarial_start_step is not None:
            self.discriminate = self.accelerator.prepare(self.discriminators)

    def run(self) -> None:
        settings, accelerator = self.settings, self.accelerator
        processes = accelerator.num_processes
        batch_size = settings.training.batch_size
        stream = batches(
            self.recordings,
            self.step,
            settings.training.steps,
            batch_size,
            min(settings.segment_frames, int(self.recordings.frames.max())),  # more would be padding alone
            settings.training.seed,
            self.timing,
        )
        steps, number = settings.training.steps, 0
        with meter("training the vocoder", steps, done=self.step) as progress, deferred() as arrived:
            for batch in stream:
                assigned = slice(accelerator.process_index, None, processes)
                losses = self._train_step(batch.part(assigned, accelerator.device))
                self.step += 1
                progress.advance(note="  ".join(f"{name} {value:.3f}" for name, value in losses.items()))
                number = arrived()
                if (number or self.step % settings.training.save_steps == 0) and self.step < steps:
                    self._save_checkpoint()
                if number:
                    break
        stop_after_training(number, self.step == steps)
        self.model.eval()
        if accelerator.is_main_process:
            self.model.save_pretrained(self.folder)
        accelerator.wait_for_everyone()

    def _autocast(self) -> torch.autocast:
        # Not accelerate's own precision: what goes through its modules would come back in float32.
        return torch.autocast(
            self.accelerator.device.type, torch.bfloat16, enabled=use_bf16(self.settings.training.precision)
        )

    def _save_checkpoint(self) -> None:
        main, barrier = self.accelerator.is_main_process, self.accelerator.wait_for_everyone
        with whole_checkpoint(self.folder / CHECKPOINTS, self.step, main, barrier) as checkpoint:
            if main:
                save_modules(checkpoint, self.modules, self.optimizers)

    def _train_step(self, batch: Batch) -> dict[str, float]:
        settings = self.settings
        factor = learning_rate_ratio(settings.training, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = factor * group["peak"]
        f0 = voiced = None
        if self.model.generator.harmonic:
            f0, voiced = track_pitch(batch.waveform, self.timing.hop, self.timing.sample_rate)
            f0 = torch.where(f0 > 0, f0, self.model.config.f0_mean)
        speaker = batch.speaker if settings.multi_speaker else None
        with self._autocast():
            generated, pitch = self.generate(batch.units, speaker, batch.lengths, f0)
        loss_mask = batch.loss_mask.repeat_interleave(self.model.config.hop, dim=1)
        generated = torch.lerp(batch.waveform, generated, loss_mask)  # outside of the mask it counts as right
        loss = settings.spectral_weight * self.spectral(generated, batch.waveform)
        shown = {"spectral": loss.item()}
        if pitch is not None and f0 is not None and voiced is not None:
            counted = voiced * batch.loss_mask
            off = (pitch.log() - f0.log()).abs() * counted
            pitch_loss = off.sum() / counted.sum().clamp(min=1)
            loss = loss + settings.pitch_weight * pitch_loss
            shown["pitch"] = pitch_loss.item()
        if settings.duration_predictor:
            loss = loss + self._duration_loss(batch)
        if settings.adversarial_start_step is not None and self.step >= settings.adversarial_start_step:
            shown["discriminators"] = self._train_discriminators(batch.waveform, generated.detach())
            # The generator's loss leaves the discriminators alone: no gradients for them, and none to exchange.
            self.discriminators.requires_grad_(False)
            with self._autocast():
                adversarial, matching = generator_losses(
                    self.discriminators(batch.waveform), self.discriminators(generated)
                )
            loss = loss + settings.feature_matching_weight * matching + ADVERSARIAL_WEIGHT * adversarial
            shown["adversarial"] = adversarial.item()
        self._update(self.optimizer, self.model, loss)
        if settings.adversarial_start_step is not None:
            self.discriminators.requires_grad_(True)
        return shown

    def _train_discriminators(self, real: Tensor, generated: Tensor) -> float:
        with self._autocast():
            loss = discriminator_loss(self.discriminate(real), self.discriminate(generated))
        self._update(self.optimizers["discriminators"], self.discriminators, loss)
        return loss.item()

    def _update(self, optimizer: torch.optim.Optimizer, module: torch.nn.Module, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(module.parameters(), self.settings.training.max_grad_norm)
        optimizer.step()

    def _duration_loss(self, batch: Batch) -> Tensor:
        """Squared error of the logarithm of each whole run's frames; a crop's first and last run may be cut."""
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
def mel_distance(model: UnitVocoder, recordings: Sequence[UnitRecording]) -> float:
    """Mean distance of log mel spectra (nepers) between recordings and their resynthesis."""
    timing = Timing(model.config.sample_rate, model.config.hop)
    spectral, total = SpectralLoss(timing.sample_rate), 0.0
    device = next(model.parameters()).device
    spectral.to(device)
    for recording in recordings:
        units, waveform = load_crop(recording, 0, len(recording.units), timing)
        speaker = torch.tensor([recording.speaker], device=device) if model.speaker is not None else None
        generated = model(torch.from_numpy(units.astype("int64"))[None].to(device), speaker)
        total += spectral.mel_distance(generated, torch.from_numpy(waveform)[None].to(device)).item()
    return total / len(recordings)


def _mean_pitch(recordings: RecordingTable, timing: Timing) -> float:
    """Geometric mean of the pitch of up to 32 recordings, in Hz."""
    logs = []
    for recording in recordings[:: max(1, len(recordings) // 32)][:32]:
        _, waveform = load_crop(recording, 0, len(recording.units), timing)
        f0, voiced = track_pitch(torch.from_numpy(waveform)[None], timing.hop, timing.sample_rate)
        logs.append(f0[voiced].log())
    log_f0 = torch.cat(logs)
    return round(float(log_f0.mean().exp()), 1) if len(log_f0) else UnitVocoderConfig.f0_mean
