"""The unit vocoder: units in, waveform out, saved as safetensors next to a config.json."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unitweave.config.vocoder import GENERATORS
from unitweave.core.choices import chosen
from unitweave.core.errors import InputError, first_line
from unitweave.core.files import atomic_path, read_json_object, write_json
from unitweave.training.model_files import check_parameters, safetensors_errors
from unitweave.vocoder.config import FORMAT, UnitVocoderConfig
from unitweave.vocoder.durations import DurationPredictor
from unitweave.vocoder.excitation import Position
from unitweave.vocoder.generators import Generator

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


class UnitVocoder(nn.Module):
    """Units [batch, frames] -> waveform [batch, frames * hop]."""

    def __init__(self, config: UnitVocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.num_units, config.dim)
        self.speaker = nn.Embedding(config.num_speakers, config.dim) if config.num_speakers else None
        self.generator: Generator = chosen(GENERATORS, config.generator)(config)
        self.durations = (
            DurationPredictor(config.num_units, max(1, round(config.frame_rate))) if config.durations else None
        )

    @property
    def context_frames(self) -> int:
        """Units on either side of a unit that can change its samples."""
        return self.generator.context_frames

    def forward(self, units: Tensor, speaker: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
        """Synthesize a batch.

        Args:
            units: [batch, frames] integers in [0, num_units); what stands beyond `lengths` is ignored.
            speaker: [batch] indices into config.speakers; needed when there are any.
            lengths: [batch] frames of each utterance; all `frames` when None.

        Returns:
            float32 [batch, frames * hop]; an utterance's samples are the same alone and in a batch, and zero beyond
            its length.

        Raises:
            InputError: Units outside the codebook.
        """
        self.check(units)
        waveform, _ = self.generate(units, speaker, lengths)
        if lengths is not None:
            inside = torch.arange(waveform.shape[1], device=units.device) < lengths[:, None] * self.config.hop
            waveform = waveform * inside
        return waveform

    def generate(
        self,
        units: Tensor,
        speaker: Tensor | None = None,
        lengths: Tensor | None = None,
        f0: Tensor | None = None,
        position: Position | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """`forward` without its checks, for training and streaming: the waveform and the pitch in Hz.

        f0 [batch, frames] in Hz replaces the predicted pitch; `position` says where in its utterance
        a stretch of units lies.
        """
        x = self.embedding(units)  # [batch, frames, dim]
        if self.speaker is not None:
            if speaker is None:
                raise InputError("the vocoder has several speakers: choose one")
            x = x + self.speaker(speaker)[:, None]
        return self.generator(x, lengths, f0, position)

    def check(self, units: Tensor) -> None:
        """Raise InputError unless there are units and all of them are in the codebook."""
        if units.numel() == 0:
            raise InputError("vocoder: no units to synthesize")
        low, high = int(units.min()), int(units.max())
        if low < 0 or high >= self.config.num_units:
            wrong = low if low < 0 else high
            raise InputError(f"vocoder: unit {wrong} is outside the codebook of {self.config.num_units} units")

    def save_pretrained(self, folder: Path) -> None:
        """Write config.json and model.safetensors into `folder`, each whole or not at all."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / WEIGHTS_FILE) as temporary:
            save_file({name: value.contiguous() for name, value in self.state_dict().items()}, temporary)
        write_json(folder / CONFIG_FILE, asdict(self.config))

    @classmethod
    def from_pretrained(cls, folder: Path) -> Self:
        """Load the folder that `save_pretrained` wrote, on the CPU and in evaluation mode.

        Raises:
            InputError: The folder holds no vocoder of this kind, or a file is missing or damaged.
        """
        folder = Path(folder)
        record = read_json_object(folder / CONFIG_FILE)
        if "num_units" not in record or "generator" not in record:
            raise InputError(f"{folder / CONFIG_FILE}: not the configuration of a unit vocoder")
        keys = {entry.name for entry in fields(UnitVocoderConfig)}
        if record.get("format") != FORMAT or not keys.issuperset(record):
            raise InputError(f"{folder / CONFIG_FILE}: a vocoder of another version; train it again")
        try:
            config = UnitVocoderConfig(**record)
        except (TypeError, ValueError, ArithmeticError) as error:
            raise InputError(f"{folder / CONFIG_FILE}: damaged: invalid values ({error})") from None
        with safetensors_errors(folder / WEIGHTS_FILE, "train the vocoder again"):
            weights = load_file(folder / WEIGHTS_FILE)
        table = weights.get("embedding.weight")
        if table is None or list(table.shape) != [config.num_units, config.dim]:
            raise InputError(f"{folder / WEIGHTS_FILE}: not the weights of the vocoder that {CONFIG_FILE} describes")
        check_parameters(folder, lambda: cls(config))
        try:
            model = cls(config)
            model.load_state_dict(weights)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{folder / WEIGHTS_FILE}: not the weights of the vocoder that {CONFIG_FILE} describes "
                f"({first_line(error)})"
            ) from None
        return model.eval()
