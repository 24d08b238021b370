"""How long the translation of a test set takes on GPUs, by engine: an estimate, with its terms written out.

    hours = utterances x tokens / (batch x filled) x step / GPUs / 3600
    step  = layers x overhead + (bytes of the weights + batch x bytes of an utterance's keys and values) / bandwidth

A step gives one token to every utterance of the batch. Both engines replay it as a CUDA graph and wait for the CPU,
which applies the constraints of the phases or schedules the next step; vLLM fills a place in the batch as soon as it
is free. Prompts, vocoder and recognition are left out: they are a few percent. The overhead of the local engine comes
from benchmarks/gpu.py on an H200 (docs/performance.md); vLLM's was not measured.
"""

from dataclasses import dataclass

from transformers import PretrainedConfig

from unitweave.training.hardware import Gpu

PAPER_UTTERANCES = 73_000  # the test set of CVSS-C's seven languages
PAPER_SECONDS = 5.0  # of an utterance, each side: an assumption
_TEXT_TOKENS = 40  # transcript, translation and markers of an utterance
GPU_COUNTS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Engine:
    """What decodes, as far as the estimate knows it.

    Attributes:
        overhead: Seconds a layer and step in which the GPU waits for the CPU.
        width: Bytes of a weight, and of a number in the cache.
        filled: Fraction of the places of a batch that are in use, since utterances end at different steps.
        batch: Utterances in a batch; None for `translate.batch_size`.
    """

    overhead: float
    width: int
    filled: float
    batch: int | None


ENGINES = {"local": Engine(4e-4, 4, 0.7, None), "vllm": Engine(3e-4, 2, 0.95, 256)}


def translation_hours(
    config: PretrainedConfig,
    parameters: int,
    gpu: Gpu,
    batch_size: int,
    utterances: int = PAPER_UTTERANCES,
    seconds: float = PAPER_SECONDS,
    frame_rate: float = 50.0,
) -> dict[str, list[float]]:
    """Estimate the hours of a translation.

    Args:
        config: Of the language model.
        parameters: Its weights.
        gpu: The kind of GPU.
        batch_size: `translate.batch_size`.
        utterances: How many there are.
        seconds: Mean length of an utterance, on each side.
        frame_rate: Units a second.

    Returns:
        Engine -> hours on each of `GPU_COUNTS` GPUs.
    """
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    tokens = seconds * frame_rate + _TEXT_TOKENS
    in_cache = seconds * frame_rate + tokens / 2  # the prompt, and on average half of what is decoded
    hours = {}
    for name, engine in ENGINES.items():
        batch = engine.batch or batch_size
        per_utterance = 2 * text.num_hidden_layers * heads * head * in_cache * engine.width
        moved = parameters * engine.width + batch * engine.filled * per_utterance
        step = text.num_hidden_layers * engine.overhead + moved / (gpu.bandwidth * 1e9)
        alone = utterances * tokens / (batch * engine.filled) * step / 3600
        hours[name] = [alone / count for count in GPU_COUNTS]
    return hours


def _short(hours: float) -> str:
    return "under 0.01" if hours < 0.01 else f"{hours:.2g}" if hours < 10 else f"{hours:.0f}"


def as_lines(hours: dict[str, list[float]], gpu: str, utterances: int, seconds: float) -> list[str]:
    """The estimate for the terminal."""
    heading = f"hours to translate {utterances:,} utterances of {seconds:.1f} s, estimated"
    rows = [
        ", ".join(f"{n} {gpu}: {_short(h)}" for n, h in zip(GPU_COUNTS, row, strict=True)) for row in hours.values()
    ]
    return [f"  {heading}", *(f"    {name:<8}{row}" for name, row in zip(hours, rows, strict=True))]
