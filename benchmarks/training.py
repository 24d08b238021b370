"""Useful tokens a second of training, against the usual way, as a markdown table. Needs a run with units.

    python benchmarks/training.py RUN [--text-lm FOLDER | --shape llama-1b] [--steps 24] [--rounds 2]

"usual" is transformers' Trainer as it comes: sequences interleaved beforehand, random batches padded to their
longest, an attention mask, the model's own loss. "unitweave" is `fit`, interleaving as it goes. Both have the same
model, optimizer (AdamW), number of pairs a step, precision and text ratio 0, where sequences are longest. They
take turns, and the fastest turn of each counts. Padding is never counted as useful. MFU is stated against a
matrix product measured in the same run.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import (
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

from unitweave.config.interleave import InterleaveSettings
from unitweave.config.lm import SmallLm
from unitweave.config.training import LmTraining
from unitweave.interleaving.sequence import TrainingSequence, interleave
from unitweave.lm.data.dataset import WordTokens, all_languages, codebook_identity, load_pairs, make_example
from unitweave.lm.data.sampler import UtteranceSampler
from unitweave.lm.data.stream import InterleavedDataset
from unitweave.lm.estimate import model_config
from unitweave.lm.model.start import load_causal_lm
from unitweave.lm.model.vocabulary import extend_model, extend_tokenizer
from unitweave.lm.train.fit import fit
from unitweave.lm.train.logs import matrix_peak, training_flops
from unitweave.training.trainer import quiet_transformers, use_bf16

WARM_UP = 4  # steps that are not timed


def load(options: argparse.Namespace) -> tuple[Any, PreTrainedModel, InterleavedDataset]:
    """A function that makes the model anew, and the step source."""
    pairs, rows = load_pairs(options.run / "corpus", options.run / "units", "train")
    _, tokenizer = load_causal_lm(str(options.text_lm or options.run / "text_lm/model"))
    codebook, num_units = codebook_identity(options.run / "units")
    vocabulary = extend_tokenizer(tokenizer, num_units, all_languages(pairs), codebook)
    tokens = WordTokens(tokenizer)
    examples = [make_example(pair, rows, vocabulary, tokens, InterleaveSettings()) for pair in pairs]

    def model() -> PreTrainedModel:
        torch.manual_seed(0)
        if options.shape == "llama-1b":
            config = model_config("meta-llama/Llama-3.2-1B", SmallLm())
            return LlamaForCausalLM(LlamaConfig(**(config.to_dict() | {"vocab_size": 130_368})))
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

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self.sequences[index].ids).long()


def pad(batch: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The usual collator: padded to the longest, masked, labels -100 where padded."""
    ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(x) for x in batch], batch_first=True)
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


class Clock(TrainerCallback):
    """Notes the time of every step's end."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())


def usual(model: PreTrainedModel, source: InterleavedDataset, steps: int, precision: str) -> float:
    """Useful tokens a second of transformers' own Trainer."""
    rng = Random(0)
    markers = source.markers
    sequences = [
        interleave(e, "s2st", 0.0, source.interleave, markers, rng) for e in source.examples[: steps * source.batch]
    ]
    used: list[int] = []

    def collate(batch: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        used.append(sum(map(len, batch)))
        return pad(batch)

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=steps, per_device_train_batch_size=source.batch, learning_rate=1e-4,
            bf16=use_bf16(precision), use_cpu=not torch.cuda.is_available(), save_strategy="no", report_to=[],
            disable_tqdm=True, logging_strategy="no", dataloader_drop_last=True,
        )  # fmt: skip
        trainer = Trainer(model=model, args=arguments, train_dataset=Offline(sequences), data_collator=collate)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(clock)
        trainer.train()
    return sum(used[WARM_UP:steps]) / (clock.times[steps - 1] - clock.times[WARM_UP - 1])


def ours(model: PreTrainedModel, source: InterleavedDataset, steps: int, precision: str) -> float:
    """Useful tokens a second of `fit`: all log entries but the first."""
    settings = LmTraining(
        steps=steps, batch_size=source.batch, learning_rate=1e-4, logging_steps=WARM_UP, save_steps=10**6,
        precision=precision, report_to=[],
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        fit(model, source, settings, Path(folder), "unitweave", source.ratio)
        entries = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()][1:]
    return len(entries) / sum(1 / entry["tokens_per_second"] for entry in entries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder with corpus and units")
    parser.add_argument("--text-lm", type=Path, help="model folder (default: RUN/text_lm/model)")
    parser.add_argument("--shape", choices=["small", "llama-1b"], default="small", help="llama-1b: random weights")
    parser.add_argument("--batch", type=int, default=16, help="pairs a step")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", choices=["bf16", "fp32"], nargs="+", default=["bf16"], help="of the usual way")
    options = parser.parse_args()
    quiet_transformers()
    model, source = load(options)
    best: dict[str, float] = {}
    for _ in range(options.rounds):
        for precision in options.precision:
            name = f"usual ({precision})"
            best[name] = max(best.get(name, 0), usual(model(), source, options.steps, precision))
        best["unitweave (bf16)"] = max(best.get("unitweave (bf16)", 0), ours(model(), source, options.steps, "bf16"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    peak = matrix_peak(device, torch.bfloat16 if use_bf16("bf16") else torch.float32)
    per_token, per_square = training_flops(model())
    lengths = [len(s.ids) for step in range(20) for s in source.sequences(step)]
    flops = per_token + per_square * sum(n * n for n in lengths) / sum(lengths)
    print(
        f"{torch.get_num_threads()} threads on {device}, peak {peak / 1e12:.2f} TFLOPS (measured), "
        f"{options.batch} pairs\n"
    )
    print("| training | useful tokens/s | MFU | against usual |\n| --- | ---: | ---: | ---: |")
    for name, speed in best.items():
        ratio = speed / best[f"usual ({options.precision[0]})"]
        print(f"| {name} | {speed:,.0f} | {100 * speed * flops / peak:.1f} % | {ratio:.2f} x |")


if __name__ == "__main__":
    main()
