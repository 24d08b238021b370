"""Useful tokens a second of training, against the usual way, as a markdown table. Needs a run with units.

    python benchmarks/training.py RUN [--text-lm FOLDER | --shape gemma-270m] [--steps 24] [--rounds 2] [--compile]

"grouped" is the strong usual way, transformers' Trainer with sequences interleaved beforehand, batches grouped by
length and padded to a multiple of 64, an attention mask, the model's own loss; "random" is the same with random
batches padded to their longest. "unitweave" is `fit`, interleaving as it goes. All have the same model, optimizer
(AdamW), number of pairs a step, precision and text ratio 0, where sequences are longest. They take turns, and the
fastest turn of each counts, in processor time, which other processes on the machine change little (on a GPU by the
clock). Padding is never counted as useful. MFU is stated against a matrix product measured in the same run.

--compile adds ours with `torch_compile_backend: inductor`; its first turn, or 40 steps, compile, so give it --rounds 2.
--schedule adds what the schedule saves by itself: utterances a second at each text ratio, since text in place of
units makes sequences shorter, and over the whole of the paper's schedule and training against its baseline.
"""

import argparse
import tempfile
import time
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from unitweave.config.interleave import InterleaveSettings, ScheduleSettings
from unitweave.config.lm import SmallLm
from unitweave.config.training import LmTraining
from unitweave.interleaving.schedule import text_ratio
from unitweave.interleaving.sequence import TrainingSequence, interleave
from unitweave.lm.data.dataset import all_languages, codebook_identity, load_pairs
from unitweave.lm.data.examples import load_examples
from unitweave.lm.data.sampler import UtteranceSampler
from unitweave.lm.data.stream import InterleavedDataset
from unitweave.lm.data.tokens import WordTokens
from unitweave.lm.estimate import model_config
from unitweave.lm.model.start import load_causal_lm
from unitweave.lm.model.vocabulary import extend_model, extend_tokenizer
from unitweave.lm.train import fit as fit_module
from unitweave.lm.train.logs import matrix_peak, training_flops
from unitweave.training.devices import use_bf16
from unitweave.training.trainer import quiet_transformers

# Gemma 3 270M, its vocabulary trimmed to what a small corpus has.
GEMMA = Gemma3TextConfig(
    hidden_size=640, num_hidden_layers=18, num_attention_heads=4, num_key_value_heads=1, head_dim=256,
    intermediate_size=2048, sliding_window=512, query_pre_attn_scalar=256, vocab_size=8192,
)  # fmt: skip
WARM_UP = 4  # steps that are not timed


def load(options: argparse.Namespace) -> tuple[Any, PreTrainedModel, InterleavedDataset]:
    """A function that makes the model anew, and the step source."""
    pairs = load_pairs(options.run / "corpus", options.run / "units", "train")
    _, tokenizer = load_causal_lm(str(options.text_lm or options.run / "text_lm/model"))
    codebook, num_units = codebook_identity(options.run / "units")
    vocabulary = extend_tokenizer(tokenizer, num_units, all_languages(pairs), codebook)
    tokens = WordTokens(tokenizer)
    where = Path(tempfile.mkdtemp()) / "examples"
    examples, _ = load_examples(where, pairs, options.run / "units", vocabulary, tokens, InterleaveSettings())

    def model() -> PreTrainedModel:
        torch.manual_seed(0)
        if options.shape == "llama-1b":
            config = model_config("meta-llama/Llama-3.2-1B", SmallLm())
            return LlamaForCausalLM(LlamaConfig(**(config.to_dict() | {"vocab_size": 130_368})))
        if options.shape == "gemma-270m":
            return Gemma3ForCausalLM(GEMMA)
        made, _ = load_causal_lm(str(options.text_lm or options.run / "text_lm/model"))
        extend_model(made, vocabulary, 1)
        return made

    order = UtteranceSampler([range(len(examples))], 1)
    source = InterleavedDataset(
        examples, order, options.batch, lambda step: 0.0, InterleaveSettings(), vocabulary.sequence_markers, seed=1
    )
    return model, source


class Offline(Dataset):
    """Sequences interleaved beforehand."""

    def __init__(self, sequences: list[TrainingSequence]) -> None:
        self.sequences = sequences

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.from_numpy(self.sequences[index].ids).long()}


def pad(batch: list[torch.Tensor], multiple: int) -> dict[str, torch.Tensor]:
    """The usual collator: padded to the longest or to a multiple, masked, labels -100 where padded."""
    ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(x) for x in batch], batch_first=True)
    ids, mask = (torch.nn.functional.pad(x, (0, -x.shape[1] % multiple)) for x in (ids, mask))
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


class Clock(TrainerCallback):
    """Notes the time of every step's end."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(clock_time())


def clock_time() -> float:
    """Seconds of the clock on a GPU, of the processor without one."""
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def by_length(grouped: bool) -> dict[str, Any]:
    """The argument that groups batches by length, which transformers renamed."""
    if "train_sampling_strategy" in TrainingArguments.__dataclass_fields__:
        return {"train_sampling_strategy": "group_by_length" if grouped else "random"}
    return {"group_by_length": grouped}


def usual(model: PreTrainedModel, source: InterleavedDataset, steps: int, precision: str, grouped: bool) -> float:
    """Useful tokens a second of transformers' own Trainer."""
    rng = Random(0)
    markers = source.markers
    sequences = [
        interleave(example, "s2st", 0.0, source.interleave, markers, rng)
        for example in islice(source.examples, steps * source.batch_size)
    ]
    used: list[int] = []

    def collate(batch: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        ids = [one["input_ids"] for one in batch]
        used.append(sum(map(len, ids)))
        return pad(ids, 64 if grouped else 1)

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=source.batch_size, learning_rate=1e-4,
            bf16=use_bf16(precision), use_cpu=not torch.cuda.is_available(), save_strategy="no", report_to=[],
            disable_tqdm=True, logging_strategy="no", dataloader_drop_last=True, remove_unused_columns=False,
            **by_length(grouped),
        )  # fmt: skip
        trainer = Trainer(model=model, args=arguments, train_dataset=Offline(sequences), data_collator=collate)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(clock)
        trainer.train()
    return sum(used[WARM_UP:steps]) / (clock.times[steps - 1] - clock.times[WARM_UP - 1])


def ours(
    model: PreTrainedModel, source: InterleavedDataset, steps: int, precision: str, compiled: bool = False
) -> float:
    """Useful tokens a second of `fit`, without its first steps."""
    settings = LmTraining(
        steps=steps, batch_size=source.batch_size, learning_rate=1e-4, logging_steps=10**6, save_steps=10**6,
        precision=precision, report_to=[], torch_compile_backend="inductor" if compiled else None,
    )  # fmt: skip
    tokens = [sum(len(sequence.ids) for sequence in source.sequences(step)) for step in range(steps)]
    clock, usual_callbacks = Clock(), fit_module.report_callbacks
    fit_module.report_callbacks = lambda *_: [clock]  # type: ignore[assignment]
    try:
        with tempfile.TemporaryDirectory() as folder:
            fit_module.fit(model, source, settings, Path(folder), "unitweave", source.ratio)
    finally:
        fit_module.report_callbacks = usual_callbacks
    return sum(tokens[WARM_UP:steps]) / (clock.times[steps - 1] - clock.times[WARM_UP - 1])


def schedule_rows(model: Any, source: InterleavedDataset, steps: int) -> list[str]:
    """Utterances a second at each text ratio, and over trainings of 10,000 steps with and without the schedule."""
    lines = ["| text ratio | tokens an utterance | utterances/s |", "| ---: | ---: | ---: |"]
    seconds = {}
    for ratio in (0.9, 0.6, 0.3, 0.0):
        source.ratio = lambda step, ratio=ratio: ratio
        mean = sum(len(s.ids) for step in range(steps) for s in source.sequences(step)) / steps / source.batch_size
        speed = ours(model(), source, steps, "bf16") / mean
        seconds[ratio] = 1 / speed
        lines.append(f"| {ratio} | {mean:.0f} | {speed:.1f} |")
    ratio = text_ratio(ScheduleSettings(), 10_000)
    known = sorted(seconds)
    of_run = np.mean([np.interp(ratio(step), known, [seconds[one] for one in known]) for step in range(10_000)])
    while_falling = np.mean([np.interp(ratio(step), known, [seconds[one] for one in known]) for step in range(2_700)])
    return [
        *lines,
        f"\nthe paper's schedule: {seconds[0.0] / while_falling:.2f} times the baseline's utterances a second while "
        f"the ratio falls (2,700 steps), {seconds[0.0] / of_run:.2f} times over 10,000 steps",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder with corpus and units")
    parser.add_argument("--text-lm", type=Path, help="model folder (default: RUN/text_lm/model)")
    parser.add_argument("--shape", choices=["small", "gemma-270m", "llama-1b"], default="small", help="random weights")
    parser.add_argument("--batch", type=int, default=16, help="pairs a step")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", choices=["bf16", "fp32"], nargs="+", default=["bf16"], help="of the usual way")
    parser.add_argument("--compile", action="store_true", help="also with compiled layers")
    parser.add_argument("--schedule", action="store_true", help="also what the schedule saves")
    options = parser.parse_args()
    quiet_transformers()
    model, source = load(options)
    best: dict[str, float] = {}
    for _ in range(options.rounds):
        for precision in options.precision:
            for grouped in (True, False):
                name = f"{'grouped' if grouped else 'random'} ({precision})"
                best[name] = max(best.get(name, 0), usual(model(), source, options.steps, precision, grouped))
        for compiled in (False, True)[: 1 + options.compile]:
            name = "unitweave (bf16)" + ", compiled" * compiled
            best[name] = max(best.get(name, 0), ours(model(), source, options.steps, "bf16", compiled))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    peak = matrix_peak(device, torch.bfloat16 if use_bf16("bf16") else torch.float32)
    per_token, per_square = training_flops(model())
    lengths = [len(s.ids) for step in range(20) for s in source.sequences(step)]
    flops = per_token + per_square * sum(n * n for n in lengths) / sum(lengths)
    print(
        f"{torch.get_num_threads()} threads on {device}, peak {peak / 1e12:.2f} TFLOPS (measured), "
        f"{options.batch} pairs\n"
    )
    print("| training | useful tokens/s | MFU | against grouped |\n| --- | ---: | ---: | ---: |")
    for name, speed in best.items():
        ratio = speed / best[f"grouped ({options.precision[0]})"]
        print(f"| {name} | {speed:,.0f} | {100 * speed * flops / peak:.1f} % | {ratio:.2f} x |")
    if options.schedule:
        print("\n" + "\n".join(schedule_rows(model, source, options.steps)))


if __name__ == "__main__":
    main()
