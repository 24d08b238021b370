"""What CTC fine-tuning of an encoder takes on a GPU: memory and time, written out.

An estimate, not a measurement: the terms stand below one by one, and the share of a GPU's peak that
training reaches is an assumption which the table states.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import AutoConfig, PretrainedConfig, Wav2Vec2BertConfig

from unitweave.config.units import EncoderSettings
from unitweave.core.markdown import markdown_table
from unitweave.training.hardware import GIB, GPUS, Gpu
from unitweave.training.model_files import check_model_folder, loading_errors
from unitweave.units.encoder import CharacterVocabulary, ctc_class, new_encoder
from unitweave.units.front_end import FrontEnd, check_model_type

MFU = 0.1  # fraction of the bf16 peak: what extraction reaches on an H200 (docs/performance.md); training was not timed
_MAX_SECONDS = 15.0  # seconds of a recording in a batch: attention grows with its square
_PUBLISHED = "facebook/w2v-bert-2.0"  # whose shape is transformers' default
_RUNTIME = 1.5  # GiB for CUDA context, library workspaces and fragmentation


@dataclass(frozen=True)
class Estimate:
    """Memory of one process in GiB, work in FLOP for the whole training."""

    parameters: int
    states: float  # float32 weights, gradients and both Adam moments, and autocast's bf16 weights: 18 bytes each
    activations: float
    flop: float

    @property
    def memory(self) -> float:
        """GiB in all."""
        return self.states + self.activations + _RUNTIME

    def hours(self, gpu: Gpu) -> float:
        """Hours on one such GPU at MFU of its peak."""
        return gpu.hours(self.flop, MFU)


def estimate(settings: EncoderSettings, max_seconds: float = _MAX_SECONDS) -> Estimate:
    """What a training with these settings takes, on recordings of up to `max_seconds`.

    Memory: 16 bytes a parameter, 18 in bf16; for each frame of a batch either all that a block keeps for its
    backward pass, in every block, or (gradient checkpointing) the inputs of all blocks and one block's whole.
    A block keeps in bf16, per frame: two feed-forwards (input, inner twice, output), attention (input, q, k,
    v, output), convolution (input, gate twice, three more) and, in float32, five norms; and per frame
    and head, logits, probabilities and position bias over the recording's length. A transformer block has one
    feed-forward, no convolution and two norms. Convolutions over the waveform that are trained keep input and output.
    Work: 6 FLOP per parameter and frame, 8 with gradient checkpointing, and as much for the attention products.
    """
    training = settings.training
    config, parameters = _shape(settings)
    front_end = FrontEnd.of(config)
    hidden, blocks = config.hidden_size, config.num_hidden_layers
    inner = config.encoder_ffn_dim if front_end.kind == "mel" else config.intermediate_size
    frames = settings.batch_seconds * front_end.frame_rate
    longest = min(max_seconds, settings.batch_seconds) * front_end.frame_rate
    half = 2 if training.precision == "bf16" else 4
    conformer = config.model_type in ("wav2vec2-bert", "wav2vec2-conformer")
    block = half * ((1 + conformer) * (2 * hidden + 2 * inner) + 5 * hidden + 6 * hidden * conformer)
    block += 4 * (5 if conformer else 2) * hidden
    block += half * 3 * config.num_attention_heads * longest
    kept = block + blocks * 4 * hidden if training.gradient_checkpointing else blocks * block
    passes = 4 if training.gradient_checkpointing else 3
    per_frame = 2 * parameters + blocks * 3 * 2 * hidden * longest
    return Estimate(
        parameters=parameters,
        states=(18 if training.precision == "bf16" else 16) * parameters / GIB,
        activations=(frames * kept + _convolutions(settings, config, half)) / GIB,
        flop=passes * per_frame * frames * training.gradient_accumulation_steps * training.steps,
    )


def _convolutions(settings: EncoderSettings, config: PretrainedConfig, half: int) -> float:
    """Bytes that the convolutions over a batch's waveforms keep, where they are trained."""
    if FrontEnd.of(config).kind != "waveform" or (settings.freeze_convolutions and settings.pretrained):
        return 0.0
    rate, kept = 16_000.0, 0.0
    for channels, stride in zip(config.conv_dim, config.conv_stride, strict=True):
        rate /= stride
        kept += 2 * channels * rate * half
    return settings.batch_seconds * kept


def _shape(settings: EncoderSettings) -> tuple[PretrainedConfig, int]:
    with torch.device("meta"):
        if settings.pretrained is None:
            model = new_encoder(settings.shape, CharacterVocabulary.from_texts(["abcdefghijklmnopqrstuvwxyz"]))
        else:
            config = encoder_config(settings.pretrained)
            model = ctc_class(config)(config)
    return model.config, sum(parameter.numel() for parameter in model.parameters())


def encoder_config(pretrained: str) -> PretrainedConfig:
    """The shape of a pretrained encoder, without its weights.

    Looks on this machine, then, for w2v-BERT 2.0, at its published shape, then on the hub.

    Raises:
        InputError: It is nowhere, damaged, or of a kind that cannot be trained.
    """
    described = check_model_folder(pretrained, weights=False)
    with loading_errors(pretrained, "configuration of the speech encoder"):
        try:
            config = AutoConfig.from_pretrained(pretrained, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError):
            if pretrained == _PUBLISHED:
                return Wav2Vec2BertConfig(vocab_size=64)
            config = AutoConfig.from_pretrained(pretrained, trust_remote_code=False)
    check_model_type(described or config.to_dict(), pretrained)
    config.vocab_size, config.pad_token_id = 64, 0
    return config


def plan(settings: EncoderSettings, gpus: Sequence[Gpu] = tuple(GPUS.values())) -> str:
    """A markdown table: whether each GPU holds the training, and how long it takes."""
    found, training = estimate(settings), settings.training
    hours = training.steps * training.gradient_accumulation_steps * settings.batch_seconds / 3600
    rows = [
        (gpu.name, f"{gpu.memory:g}", "yes" if gpu.holds(found.memory) else "no", f"{found.hours(gpu):.1f}")
        for gpu in gpus
    ]
    lines = [
        f"{found.parameters / 1e6:.0f} M parameters; {training.steps} steps of "
        f"{training.gradient_accumulation_steps * settings.batch_seconds:g} s see {hours:.0f} hours of speech",
        f"states {found.states:.1f} GiB + activations {found.activations:.1f} GiB + runtime {_RUNTIME} GiB"
        f" = {found.memory:.1f} GiB; {found.flop:.2g} FLOP at {MFU:.0%} of the bf16 peak",
        "",
        markdown_table(["GPU", "memory (GiB)", "fits", "hours"], rows, "lrlr"),
    ]
    return "\n".join(lines)
