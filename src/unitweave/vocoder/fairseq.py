"""fairseq's unit HiFi-GAN: reads its public checkpoints and synthesizes with transformers' HiFi-GAN.

A checkpoint of fairseq's speech-to-speech vocoders is a pickle with the state dict "generator" and, beside it, a
config.json: an embedding of the units (`dict`), HiFi-GAN's convolutions under weight norm, and where the units have no
repetitions a duration predictor (`dur_predictor`). It is read with `weights_only` and kept as safetensors.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

from unitweave.core.errors import InputError, first_line
from unitweave.core.files import atomic_path, read_json_object, write_json
from unitweave.core.sequences import deduplicate
from unitweave.training.model_files import loading_errors, safetensors_errors
from unitweave.vocoder.base import CONFIG_FILE, Vocoder

WEIGHTS_FILE = "model.safetensors"
_PARAMETRIZED = re.compile(r"parametrizations\.weight\.original([01])$")  # torch's newer names of weight_g, weight_v
# The keys of the checkpoint's config.json that shape the model, with fairseq's names.
_SHAPE = ("upsample_rates", "upsample_kernel_sizes", "upsample_initial_channel", "resblock_kernel_sizes",
          "resblock_dilation_sizes")  # fmt: skip


class _Durations(nn.Module):
    """Two convolutions with layer norms, as fairseq's FastSpeech 2 has them."""

    def __init__(self, dim: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv1d(dim, hidden, kernel, padding=(kernel - 1) // 2), nn.ReLU())
        self.ln1 = nn.LayerNorm(hidden)
        self.conv2 = nn.Sequential(nn.Conv1d(hidden, hidden, kernel, padding=1), nn.ReLU())
        self.ln2 = nn.LayerNorm(hidden)
        self.proj = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, units, dim] -> frames of each unit, int64 [batch, units]."""
        x = self.ln1(self.conv1(x.transpose(1, 2)).transpose(1, 2))
        x = self.ln2(self.conv2(x.transpose(1, 2)).transpose(1, 2))
        return (self.proj(x).squeeze(2).exp() - 1).round().long().clamp(min=1)


class CodeHifiGan(nn.Module):
    """Units and a speaker in, waveform out."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.dict = nn.Embedding(config["num_embeddings"], config["embedding_dim"])
        speakers = config.get("num_speakers", 200) if config.get("multispkr") else 0
        self.spkr = nn.Embedding(speakers, config["embedding_dim"]) if speakers else None
        shape = {name: config[name] for name in _SHAPE}
        self.generator = SpeechT5HifiGan(
            SpeechT5HifiGanConfig(
                model_in_dim=config["embedding_dim"] * (2 if speakers else 1), normalize_before=False, **shape
            )
        )
        sizes = config.get("dur_predictor_params")
        self.dur_predictor = (
            _Durations(sizes["encoder_embed_dim"], sizes["var_pred_hidden_dim"], sizes["var_pred_kernel_size"])
            if sizes
            else None
        )

    def forward(self, units: Tensor, speaker: Tensor | None = None) -> Tensor:
        """Units int64 [frames] -> float32 [samples]."""
        x = self.dict(units)
        if self.spkr is not None:
            x = torch.cat([x, self.spkr(speaker).expand_as(x)], dim=1)
        return self.generator(x)

    def expand(self, units: Tensor) -> Tensor:
        """Units without repetitions, int64 [runs] -> units, each repeated for its predicted frames."""
        assert self.dur_predictor is not None
        return units.repeat_interleave(self.dur_predictor(self.dict(units)[None])[0])


class FairseqVocoder(Vocoder):
    """A unit HiFi-GAN of fairseq. `config` is its config.json, and `codebook` and `frame_rate` what `adopt` added."""

    def __init__(self, model: CodeHifiGan, config: dict[str, Any], device: str | torch.device = "cpu") -> None:
        speakers = [str(i) for i in range(model.spkr.num_embeddings)] if model.spkr is not None else []
        self.hop = int(np.prod(config["upsample_rates"]))
        rate = int(config.get("sampling_rate", 16_000))
        super().__init__(
            config["num_embeddings"], config["codebook"], rate / self.hop, rate, speakers,
            model.dur_predictor is not None,
        )  # fmt: skip
        self.model, self.config, self.device = model.eval().to(device), config, torch.device(device)

    @classmethod
    def convert(cls, checkpoint: Path, codebook: str) -> Self:
        """Read fairseq's checkpoint, with its config.json in the same folder, for the units of a codebook.

        Raises:
            InputError: It is no such checkpoint, its parts do not fit together, or it needs pitch or speaker vectors.
        """
        config = read_json_object(checkpoint.with_name(CONFIG_FILE))
        try:
            content = torch.load(checkpoint, map_location="cpu", weights_only=True)
            if not isinstance(content, dict) or "generator" not in content:
                raise TypeError("it has no weights under the name generator")
            weights = _converted(content["generator"])
        except (OSError, RuntimeError, UnpicklingError, KeyError, TypeError, AttributeError, EOFError) as error:
            pickled = "it holds more than tensors, which could run code, or no tensors at all"
            reason = pickled if isinstance(error, UnpicklingError) else first_line(error)
            raise InputError(f"{checkpoint}: not a checkpoint of fairseq's unit HiFi-GAN ({reason})") from None
        for key in ("f0", "embedder_params"):
            if config.get(key):
                raise InputError(f"{checkpoint}: its config has {key}, which units alone do not give")
        return cls._built(config | {"generator": "fairseq", "codebook": codebook}, weights, checkpoint)

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> Self:
        """Load from the folder that `save_pretrained` wrote. Raises InputError where a file is missing or damaged."""
        with safetensors_errors(folder / WEIGHTS_FILE, "import the vocoder again"):
            weights = load_file(folder / WEIGHTS_FILE)
        return cls._built(read_json_object(folder / CONFIG_FILE), weights, folder / WEIGHTS_FILE, device)

    @classmethod
    def _built(
        cls, config: dict[str, Any], weights: dict[str, Tensor], name: Path, device: str | torch.device = "cpu"
    ) -> Self:
        table = weights.get("dict.weight")
        with loading_errors(name, f"vocoder, which does not fit its {CONFIG_FILE}"):
            # Before the model is built: a damaged config.json could ask for more memory than there is.
            if table is None or list(table.shape) != [config["num_embeddings"], config["embedding_dim"]]:
                raise ValueError("the table of units has another size")
            _check_shape(config)
            model = CodeHifiGan(config)
            missing, unexpected = model.load_state_dict(weights, strict=False)
            wrong = [*(key for key in missing if key not in ("generator.mean", "generator.scale")), *unexpected]
            if wrong:
                raise ValueError(f"no weights for or of {wrong[0]}")
            return cls(model, config, device)

    def save_pretrained(self, folder: Path) -> None:
        """Write config.json and model.safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / WEIGHTS_FILE) as temporary:
            save_file({name: value.contiguous() for name, value in self.model.state_dict().items()}, temporary)
        write_json(folder / CONFIG_FILE, self.config)

    @property
    def context_frames(self) -> int:
        """Units on either side of a unit that can change its samples."""
        reach, step = 3.0, 1.0  # in frames, and frames a sample at the present rate
        kernels, dilations = self.config["resblock_kernel_sizes"], self.config["resblock_dilation_sizes"]
        for rate, kernel in zip(self.config["upsample_rates"], self.config["upsample_kernel_sizes"], strict=True):
            reach += step * (kernel / rate + 1)
            step /= rate
            reach += step * max(k // 2 * (sum(d) + len(d)) for k, d in zip(kernels, dilations, strict=True))
        return int(reach + 3 * step) + 1

    @torch.inference_mode()
    def synthesize(
        self, units: Sequence[np.ndarray], speaker: str | None = None, deduplicated: bool = False
    ) -> list[np.ndarray]:
        """As `Vocoder.synthesize`, each utterance alone."""
        index = self._speaker(speaker)
        waveforms = []
        for number, row in enumerate(units):
            frames = torch.from_numpy(self.checked(row, f"utterance {number}")).to(self.device)
            if len(frames) and deduplicated:
                frames = self._expanded(frames)
            waveforms.append(self.model(frames, index).cpu().numpy() if len(frames) else np.zeros(0, np.float32))
        return waveforms

    @torch.inference_mode()
    def stream(
        self, units: Iterable[int], chunk_frames: int = 50, speaker: str | None = None, deduplicated: bool = False
    ) -> Iterator[np.ndarray]:
        """As `Vocoder.stream`: each chunk once the units are known that can change it; whole without repetitions."""
        if deduplicated:
            yield from super().stream(units, chunk_frames, speaker, deduplicated)
            return
        index, context = self._speaker(speaker), self.context_frames
        held: list[int] = []  # units from frame `first` on
        first = done = 0
        ended = False
        source = iter(units)
        while True:
            while not ended and first + len(held) < done + chunk_frames + context:
                unit = next(source, None)
                ended = unit is None
                if unit is not None:
                    held.append(int(self.checked(np.asarray([unit]), "the stream")[0]))
            stop = min(done + chunk_frames, first + len(held))
            if stop == done:
                return
            waveform = self.model(torch.tensor(held, device=self.device), index).cpu().numpy()
            yield waveform[(done - first) * self.hop : (stop - first) * self.hop]
            drop = max(0, stop - context - first)
            held, first, done = held[drop:], first + drop, stop

    def _speaker(self, name: str | None) -> Tensor | None:
        index = self.speaker_index(name)
        return None if index is None else torch.tensor(index, device=self.device)

    def _expanded(self, units: Tensor) -> Tensor:
        if self.model.dur_predictor is None:
            raise InputError("the vocoder has no duration predictor; keep repeated units")
        return self.model.expand(torch.from_numpy(deduplicate(units.cpu().numpy())[0]).to(self.device))


def _check_shape(config: dict[str, Any]) -> None:
    """Raise ValueError for what no HiFi-GAN has, and what would be noticed only when it speaks."""
    rates, kernels, dilations = (config[name] for name in ("upsample_rates", "resblock_kernel_sizes", _SHAPE[-1]))
    if min(rates) < 1 or int(config.get("sampling_rate", 16_000)) < 1:
        raise ValueError("upsample_rates and sampling_rate must be 1 or more")
    if len(kernels) != len(dilations):
        raise ValueError(f"resblock_kernel_sizes and {_SHAPE[-1]} must be of the same length")


def _converted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names of `CodeHifiGan`, with the weight norm multiplied out."""
    weights: dict[str, Tensor] = {}
    state = {
        _PARAMETRIZED.sub(lambda found: "weight_" + "gv"[int(found[1])], name): part for name, part in state.items()
    }
    for name, value in state.items():
        if name.endswith(".weight_g"):
            continue
        if name.endswith(".weight_v"):
            name = name.removesuffix("_v")
            value = torch._weight_norm(value, state[f"{name}_g"], 0)
        if not name.startswith(("dict.", "spkr.", "dur_predictor.")):
            name = "generator." + ("upsampler." + name.removeprefix("ups.") if name.startswith("ups.") else name)
        weights[name] = value.float().contiguous()
    return weights
