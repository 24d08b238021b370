"""A training of eight steps of a tiny model, in this process or in others."""

import os
from collections.abc import Callable
from pathlib import Path

import torch

from helpers.examples import MARKERS, random_example
from unitweave.config.interleave import InterleaveSettings, ScheduleSettings
from unitweave.config.lm import SmallLm
from unitweave.config.training import LmTraining
from unitweave.interleaving.schedule import text_ratio
from unitweave.lm.data.sampler import UtteranceSampler
from unitweave.lm.data.stream import InterleavedDataset
from unitweave.lm.model.small import new_llama
from unitweave.lm.train.fit import fit

STEPS = 8


def ratio_of(steps: int) -> Callable[[int], float]:
    return text_ratio(ScheduleSettings(stair_steps=1), steps)


def source_of(steps: int) -> InterleavedDataset:
    examples = [random_example(seed) for seed in range(10)]
    return InterleavedDataset(
        examples, UtteranceSampler([range(10)], 1), 8, ratio_of(steps), InterleaveSettings(), MARKERS
    )


def settings_of(**changes: object) -> LmTraining:
    base = {"steps": STEPS, "batch_size": 8, "learning_rate": 1e-2, "precision": "fp32", "report_to": []}
    return LmTraining(**(base | {"save_steps": 3, "logging_steps": 1} | changes))  # type: ignore[arg-type]


def train(
    folder: Path, optimizer: str = "adam", accumulation: int = 2, dropout: float = 0.0, **changes: object
) -> None:
    """A short training of a tiny model with the paper's kind of schedule."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ratio = ratio_of(STEPS)
    settings = settings_of(gradient_accumulation_steps=accumulation, optimizer=optimizer, **changes)
    folder.mkdir(exist_ok=True)
    model = new_llama(SmallLm(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64), 210)
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = dropout
    state, _ = fit(model, source_of(STEPS), settings, folder, "test", ratio)
    if int(os.environ.get("RANK", "0")) == 0:
        model.save_pretrained(folder / "model", state_dict=state)


def script(folder: Path, arguments: str = "") -> str:
    """The program of such a training."""
    return f"from pathlib import Path; from helpers.training import train; train(Path({str(folder)!r}), {arguments})"
