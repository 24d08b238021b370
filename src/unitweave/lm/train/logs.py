"""The log of a training: text ratio, losses per segment, tokens per second, FLOPs utilization (MFU), time left."""

import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback, is_tensorboard_available

from unitweave.core.files import write_text
from unitweave.core.progress import echo

LOG_FILE = "log.jsonl"
_SHORT = {"loss_source": "src", "loss_transcript": "asr", "loss_translation": "mt", "loss_target": "tgt"}
# On a shared machine one measurement may fall into a busy moment and make an MFU of more than 100 % later.
_MEASUREMENTS = 5


class Throughput:
    """Tokens per second, padding not counted, and the fraction of the hardware's peak that they use (MFU)."""

    def __init__(self, model: nn.Module, arguments: TrainingArguments) -> None:
        self.per_token, self.per_square = training_flops(model)
        self.device, self.bf16 = arguments.device, arguments.bf16
        self.tokens, self.sum_squared_lengths, self.since = 0, 0, time.monotonic()
        self._peak, self._measured = 0.0, 0

    def count(self, tokens: int, sum_squared_lengths: int) -> None:
        """Add a forward pass: its tokens and the sum of its sequences' squared lengths."""
        self.tokens += tokens
        self.sum_squared_lengths += sum_squared_lengths

    def read(self, accelerator: Any) -> dict[str, float]:
        """Tokens of all processes, those per second, and MFU, since the last call."""
        counts = torch.tensor([self.tokens, self.sum_squared_lengths], dtype=torch.float64, device=self.device)
        tokens, squared = accelerator.reduce(counts, reduction="sum").tolist()
        seconds = time.monotonic() - self.since
        if self._measured < _MEASUREMENTS:
            dtype = torch.bfloat16 if self.bf16 else torch.float32
            self._peak, self._measured = max(self._peak, matrix_peak(self.device, dtype)), self._measured + 1
        flops = tokens * self.per_token + squared * self.per_square
        self.tokens, self.sum_squared_lengths, self.since = 0, 0, time.monotonic()
        return {
            "tokens": tokens,
            "tokens_per_second": tokens / seconds,
            "mfu": flops / seconds / self._peak / accelerator.num_processes,
        }


def training_flops(model: nn.Module) -> tuple[float, float]:
    """Count the floating-point operations of a training step.

    Two per weight of a linear layer in the forward pass, two for the gradient of its input, two for its own gradient
    where it is trained; recomputed activations do not count (as in PaLM's MFU).

    Returns:
        Operations per token, and per squared token of a sequence for causal attention.
    """
    linear = 0.0
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Linear) and isinstance(weight, torch.Tensor):
            linear += weight.numel() * (6 if weight.requires_grad else 4)
    causal = getattr(model, "config", None)
    text = causal.get_text_config() if causal is not None else None
    if text is None:
        return linear, 0.0
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    # Scores and weighted sum: 2 * 2 * head per pair of tokens, half of the pairs, three times with the backward pass.
    return linear, 6.0 * text.num_hidden_layers * text.num_attention_heads * head


@torch.no_grad()
def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the operations per second of a large matrix product (takes about 0.1 s)."""
    size = 8192 if device.type == "cuda" else 1024
    # A generator of its own: drawing from torch's would change the dropout of a resumed training.
    a = torch.randn(size, size, device=device, dtype=dtype, generator=torch.Generator(device).manual_seed(0))
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def log_line(logs: dict[str, float]) -> str:
    """Format a log entry for the progress line."""
    parts = []
    if "ratio" in logs:
        realized = f" (realized {logs['realized_ratio']:.2f})" if logs["ratio"] else ""
        parts.append(f"ratio {logs['ratio']:.2f}{realized}")
    parts.append(f"loss {logs['loss']:.2f}")
    losses = [f"{short} {logs[name]:.2f}" for name, short in _SHORT.items() if name in logs]
    if len(losses) > 1:
        parts.append(f"({' '.join(losses)})")
    parts.append(f"{logs['tokens_per_second'] / 1000:.1f}k tok/s MFU {100 * logs['mfu']:.0f} %")
    return " ".join(parts)


def trim_log(path: Path, step: int) -> None:
    """Drop log lines after `step`: a resumed training writes them again."""
    if path.exists():
        kept = []
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            # The last line may be cut off by a kill.
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                if json.loads(line)["step"] <= step:
                    kept.append(line)
        write_text(path, "".join(line + "\n" for line in kept))


def report_callbacks(report_to: Sequence[str], folder: Path, first_step: int) -> list[TrainerCallback]:
    """TensorBoard, written to folder/tensorboard; other loggers come by their names through transformers."""
    if "tensorboard" not in report_to:
        return []
    if not is_tensorboard_available():
        echo("no TensorBoard logs: the package is not installed (pip install tensorboard)")
        return []
    from torch.utils.tensorboard import SummaryWriter

    return [_TensorBoard(SummaryWriter(str(folder / "tensorboard"), purge_step=first_step or None))]


class _TensorBoard(TensorBoardCallback):
    """transformers' own, without the dump of arguments and configuration."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        return
