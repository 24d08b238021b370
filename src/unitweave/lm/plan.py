"""Plan a training before an hour is spent on it: sizes, lengths, text ratios, memory, hours, warnings."""

import itertools
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from transformers import PreTrainedTokenizerBase

from unitweave.config.lm import LmSettings, SmallLm
from unitweave.core.errors import InputError
from unitweave.core.manifest import Manifest, read_manifest
from unitweave.interleaving.schedule import text_ratio
from unitweave.lm.checks import check_repetitions
from unitweave.lm.data.coverage import Coverage, check_coverage, coverage_line, interleaved_coverage
from unitweave.lm.data.dataset import all_languages, codebook_identity, load_pairs
from unitweave.lm.data.examples import prepare_examples
from unitweave.lm.data.subset import train_subset
from unitweave.lm.data.tokens import WordTokens
from unitweave.lm.estimate import CPU_MFU, MFU, Weights, count_weights, memory_per_gpu, model_config
from unitweave.lm.model.start import load_tokenizer
from unitweave.lm.model.vocabulary import ROW_MULTIPLE, extend_tokenizer
from unitweave.lm.train import logs
from unitweave.lm.train.finetune import token_limit
from unitweave.training.devices import resolve_device, use_bf16
from unitweave.training.hardware import GPUS
from unitweave.units.dataset import FRAME_RATE, SIDES, read_units_metadata, units_per_second

_TOKENS_PER_WORD = 1.5  # where the tokenizer is not on this machine
_MARKERS = 6


@dataclass
class TrainingPlan:
    """The plan of one system; lengths are of sequences with all speech as units."""

    system: str
    facts: dict[str, Any] = field(default_factory=dict)
    stages: list[tuple[float, int, int]] = field(default_factory=list)  # (ratio, first step, steps)
    memory: dict[str, float] = field(default_factory=dict)  # GiB of one GPU
    hours: dict[str, float] = field(default_factory=dict)  # GPU -> hours; "cpu": this machine's, where it has no GPU
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Lengths:
    """How long the training sequences are."""

    tokens: np.ndarray  # int64 [pairs]
    languages: list[str]
    source: str  # where the numbers come from
    coverage: dict[str, Coverage] = field(default_factory=dict)  # of each language, where there are units


def measure(settings: LmSettings, corpus: Path | None, units: Path | None, tokenizer: str | None) -> Lengths | None:
    """Measure the lengths of the training sequences.

    Args:
        settings: The system's settings.
        corpus: Folder of a manifest.
        units: Folder of the units, for exact lengths; without it they are estimated from the manifest's durations.
        tokenizer: Folder or hub name; None, or one that is not on this machine, counts 1.5 tokens per word.

    Returns:
        The lengths, None without a corpus.

    Raises:
        InputError: The units have no repetitions, and the system wants them.
    """
    local = None if tokenizer is None else _local_tokenizer(tokenizer)
    tasks = [task for task, weight in settings.tasks.items() if weight > 0]
    coverage: dict[str, Coverage] = {}
    if corpus is not None and units is not None:
        check_repetitions(settings, read_units_metadata(units))
        pairs = train_subset(load_pairs(corpus, units, "train"), settings.train_pairs)
        languages = all_languages(pairs)
        tokens = vocabulary = None
        if local is not None:
            codebook, num_units = codebook_identity(units)
            vocabulary = replace(extend_tokenizer(local, num_units, languages, codebook), texts=settings.texts)
            tokens = WordTokens(local)
        sizes = prepare_examples(pairs, units, tokens, vocabulary, settings.interleave, settings.deduplicate)
        coverage = interleaved_coverage(pairs, sizes, settings)
        if vocabulary is not None:
            lengths = sizes.max_lengths(tasks, vocabulary.sequence_markers)
            return Lengths(lengths[lengths >= 0], languages, "the units", coverage)
    if corpus is not None:
        pairs = train_subset(read_manifest(corpus, "train"), settings.train_pairs)
        rate = FRAME_RATE if units is None else units_per_second(read_units_metadata(units))
        return Lengths(_estimated(pairs, rate), all_languages(pairs), "the manifest's durations", coverage)
    return None


def _local_tokenizer(name: str) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a model folder, or of a hub name whose files are on this machine already."""
    if Path(name).is_dir():
        return load_tokenizer(name)
    try:
        return load_tokenizer(name, local_files_only=True)
    except InputError:
        return None


def _estimated(pairs: Manifest, frame_rate: float) -> np.ndarray:
    """Lengths of the sequences by durations and words: int64 [pairs]."""
    words = sum(
        pc.list_value_length(pc.utf8_split_whitespace(pc.fill_null(pairs.column(f"{side}_text"), ""))).to_numpy()
        - pc.equal(pc.fill_null(pairs.column(f"{side}_text"), ""), "").to_numpy()  # "" is split into [""]
        for side in SIDES
    )
    seconds = sum(pairs.column(f"{side}_seconds").to_numpy().astype(float) for side in SIDES)
    return np.round(frame_rate * seconds + _TOKENS_PER_WORD * words).astype(np.int64) + 8


def make_plan(
    name: str,
    settings: LmSettings,
    num_units: int,
    small: SmallLm,
    lengths: Lengths | None,
    gpu: str = "h100",
    gpus: int = 1,
) -> TrainingPlan:
    """Plan the training of one system.

    Args:
        name: The system.
        settings: Its settings.
        num_units: Size of the codebook.
        small: Shape of the run's own text LM, for a system without a pretrained one.
        lengths: Of the training sequences, where they are known.
        gpu: A kind of GPU, one of GPUS.
        gpus: How many of them.

    Raises:
        InputError: An unknown GPU, a model whose config cannot be loaded, or units without words that could be
            replaced under a schedule that asks for it.
    """
    if gpu not in GPUS:
        raise InputError(f"--gpu must be one of {', '.join(GPUS)} (got {gpu!r})")
    if gpus < 1:
        raise InputError(f"--gpus must be above 0 (got {gpus})")
    training = settings.training
    plan = TrainingPlan(name, stages=ratio_stages(settings))
    config = model_config(settings.pretrained, small)
    text = config.get_text_config()
    tags = len(lengths.languages) if lengths else 2
    rows = -(-(text.vocab_size + num_units + _MARKERS + tags) // ROW_MULTIPLE) * ROW_MULTIPLE
    weights = count_weights(config, rows, settings.lora.rank if settings.lora else None)
    plan.facts |= {
        "model": settings.pretrained or "the run's own small text LM",
        "parameters": weights.total,
        "trained parameters": weights.trained,
        "rows of the vocabulary": rows,
        "optimizer steps": training.steps,
        "pairs per step": training.batch_size,
    }
    plan.warnings += schedule_warnings(settings)
    if lengths is None or not len(lengths.tokens):
        plan.warnings.append("lengths, memory and hours are unknown without a corpus; give --units RUN")
        return plan
    if lengths.coverage:
        plan.facts["words that can be replaced by text"] = coverage_line(lengths.coverage)
        plan.warnings += check_coverage(lengths.coverage, settings)
    limit = token_limit(settings.max_tokens, config)
    _lengths_into(plan, settings, lengths, limit)
    tokens = (
        np.minimum(lengths.tokens, limit)
        if settings.overlong == "truncate"
        else lengths.tokens[lengths.tokens <= limit]
    )
    if not len(tokens):
        plan.warnings.append(f"every sequence is longer than max_tokens {limit}: nothing is left to train on")
        return plan
    _cost_into(plan, settings, weights, tokens, gpu, gpus)
    return plan


def _cost_into(
    plan: TrainingPlan, settings: LmSettings, weights: Weights, tokens: np.ndarray, gpu: str, gpus: int
) -> None:
    """Memory and hours of a training on sequences of these lengths, int64 [pairs]."""
    training = settings.training
    per_step = training.batch_size * float(tokens.mean())
    squares = training.batch_size * float((tokens.astype(float) ** 2).mean())
    flops = training.steps * (per_step * weights.flops_per_token + squares * weights.flops_per_square)
    in_pass = max(per_step / gpus / training.gradient_accumulation_steps, float(tokens.max()))
    if training.max_tokens_per_forward:
        in_pass = max(min(in_pass, training.max_tokens_per_forward), float(tokens.max()))
    plan.memory = memory_per_gpu(
        weights, in_pass, gpus, training.fsdp or bool(training.deepspeed), training.gradient_checkpointing,
        settings.lora is not None, training.precision == "bf16",
    )  # fmt: skip
    plan.hours = {kind: card.hours(flops, MFU, gpus) for kind, card in GPUS.items()}
    peak = _cpu_peak(use_bf16(training.precision))
    if peak:
        plan.hours["cpu"] = flops / (CPU_MFU * peak) / 3600
    plan.facts |= {"tokens per step, at most": round(per_step), "tokens in a forward pass": round(in_pass)}
    plan.facts |= {
        "floating-point operations": f"{flops:.2e}",
        "epochs": training.steps * training.batch_size / len(tokens),
    }
    need = sum(plan.memory.values())
    if not GPUS[gpu].holds(need):
        plan.warnings.append(
            f"{need:.0f} GiB do not fit on a {gpu}: raise gradient_accumulation_steps, or set max_tokens_per_forward, "
            "gradient_checkpointing, fsdp over more GPUs, or lora"
        )


@cache
def _cpu_peak(bf16: bool) -> float | None:
    """Operations a second of this machine's CPU, as measured; None where there is a GPU to train on."""
    device = resolve_device("auto")
    return logs.matrix_peak(device, torch.bfloat16 if bf16 else torch.float32) if device.type == "cpu" else None


def _lengths_into(plan: TrainingPlan, settings: LmSettings, lengths: Lengths, limit: int) -> None:
    tokens = lengths.tokens
    too_long = int((tokens > limit).sum())
    what = "cut at the end" if settings.overlong == "truncate" else "dropped"
    percentiles = {f"{p} %": int(np.percentile(tokens, p)) for p in (1, 50, 90, 99, 100)}
    plan.facts |= {
        "pairs": len(tokens),
        "languages": ", ".join(lengths.languages),
        "tokens per epoch": int(tokens.sum()),
        "lengths from": lengths.source,
        "length percentiles": percentiles,
        f"longer than {limit} tokens, {what}": f"{too_long} ({100 * too_long / len(tokens):.1f} %)",
    }
    if too_long > 0.01 * len(tokens):
        plan.warnings.append(
            f"{100 * too_long / len(tokens):.1f} % of the pairs are longer than {limit} tokens and will be {what}"
        )


def ratio_stages(settings: LmSettings) -> list[tuple[float, int, int]]:
    """Text ratio, first step and steps of each stage of the schedule; smooth ratios are rounded to tenths."""
    ratio = text_ratio(settings.schedule, settings.training.steps)
    values = [ratio(step) for step in range(settings.training.steps)]
    if not ratio.stepwise:
        values = [round(value, 1) for value in values]
    stages, first = [], 0
    for value, run in itertools.groupby(values):
        count = len(list(run))
        stages.append((value, first, count))
        first += count
    return stages


def schedule_warnings(settings: LmSettings) -> list[str]:
    """What is unusual about the schedule and the number of steps."""
    steps = settings.training.steps
    warnings = []
    ratio = text_ratio(settings.schedule, steps)
    if ratio.last_change > steps:
        warnings.append(f"the schedule takes {ratio.last_change:.0f} steps, the run only {steps}: it is cut short")
    if ratio(steps - 1) > 0:
        warnings.append(
            f"the run ends at text ratio {ratio(steps - 1):.2f}: the model never sees the pure units it is used on"
        )
    elif sum(ratio(step) == 0 for step in range(steps)) < 0.1 * steps:
        warnings.append("less than a tenth of the run is on pure units, which is what the model is used on")
    if settings.training.save_steps > steps:
        warnings.append(
            f"the run of {steps} steps ends before its first checkpoint (every {settings.training.save_steps})"
        )
    return warnings


def format_plan(plan: TrainingPlan, gpu: str, gpus: int) -> list[str]:
    """Format a plan for the terminal."""
    lines = [f"system {plan.system}"]
    for name, value in plan.facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key}: {count:,}" for key, count in value.items())
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.1f}" if isinstance(value, float) else str(value)
        lines.append(f"  {name:<34} {shown}")
    stages = ", ".join(f"{ratio:.2g}: {count} (from {first})" for ratio, first, count in plan.stages)
    lines.append(f"  {'steps at each text ratio':<34} {stages}")
    if plan.memory:
        parts = ", ".join(f"{name} {size:.1f}" for name, size in plan.memory.items())
        lines.append(f"  {'memory of each GPU, estimated':<34} {sum(plan.memory.values()):.1f} GiB ({parts})")
        lines.append(f"  {f'time at {MFU:.0%} of the peak':<34} {_time(plan.hours[gpu])} on {gpus} {gpu}")
        others = ", ".join(f"{kind} {_time(plan.hours[kind])}" for kind in GPUS if kind != gpu)
        lines.append(f"  {'':<34} {others}")
    if "cpu" in plan.hours:
        how = f"floating-point operations / ({CPU_MFU:.0%} of the peak just measured here)"
        lines.append(f"  {'time on the CPU of this machine':<34} {_time(plan.hours['cpu'])}, roughly: {how}")
    lines += [f"  warning: {warning}" for warning in plan.warnings]
    return lines


def _time(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
