"""A language model of 1.2 billion random weights on a CPU, engine by engine: time, real-time factor, memory.

`--make` writes the model first: the shape of Llama-3.2-1B with 2,048 units. Random weights never end an utterance,
so each stage runs into its limit; the time for a token does not depend on what the token is.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from unitweave.config.translate import DecodingSettings
from unitweave.core.manifest import read_manifest
from unitweave.lm.model.vocabulary import ROW_MULTIPLE, extend_tokenizer
from unitweave.translate.decode import PhaseDecoder
from unitweave.translate.int8 import Int8Linear, is_int8, quantize, save_int8
from unitweave.units.dataset import read_units

ENGINES: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"dtype": torch.bfloat16},
    "int8": {"engine": "int8"},  # quantized while it is read
    "int8, exported": {},  # read as integers
}
UNITS, TEXT = 2048, 128_256


def main() -> None:
    """Print a table with a row for each engine, each measured in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument("--make", action="store_true", help="write the model of random weights there first")
    parser.add_argument("--kernels", action="store_true", help="only time one layer of the model in torch's kernels")
    parser.add_argument("--engines", nargs="+", default=[*ENGINES], choices=[*ENGINES])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0, help="source speech; its units are the prompt")
    parser.add_argument("--units", type=int, default=60, help="units that are decoded")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--agreement", metavar="SYSTEM", help="of a run folder: compare with float32 what is decoded")
    parser.add_argument("--utterances", type=int, default=20, help="test utterances that are compared")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options)))
        return
    if options.kernels:
        kernels(options.threads)
        return
    if options.agreement:
        agreement(options)
        return
    if options.make:
        make(options.model)
    if "int8, exported" in options.engines and not is_int8(exported := folder_of(options, "int8, exported")):
        shutil.copytree(options.model, exported, ignore=shutil.ignore_patterns("*.safetensors"))
        save_int8(options.model, exported)
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {options.threads} threads, "
          f"{options.seconds:g} s of speech, batch {options.batch}\n")  # fmt: skip
    print("| engine | load s | first text s | tokens/s | real-time factor | peak MiB | first text, processor s "
          "| tokens per processor s | real-time factor | MiB while loading |")  # fmt: skip
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in options.engines:
        command = [sys.executable, __file__, *sys.argv[1:], "--one", name]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        print(
            f"| {name} | {found['load']:.1f} | {found['text']:.2f} | {found['rate']:.2f} | {50 / found['rate']:.1f} "
            f"| {found['peak']:.0f} | {found['text_processor']:.2f} | {found['rate_processor']:.2f} "
            f"| {50 / found['rate_processor']:.1f} | {found['loading']:.0f} |",
            flush=True,
        )


def folder_of(options: argparse.Namespace, engine: str | None = None) -> Path:
    """The model folder that an engine loads."""
    model: Path = options.model
    return model.with_name(model.name + "-int8") if (engine or options.one) == "int8, exported" else model


def make(folder: Path) -> None:
    """Write the model: random weights, and a tokenizer that has the right number of tokens."""
    words = {f"w{i}": i for i in range(TEXT)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")), bos_token="w1", unk_token="w0"
    )
    vocabulary = extend_tokenizer(tokenizer, UNITS, ["en", "es", "fr", "de"], "random")
    config = LlamaConfig(
        vocab_size=-(-vocabulary.size // ROW_MULTIPLE) * ROW_MULTIPLE,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        tie_word_embeddings=True,
        max_position_embeddings=131_072,
        rms_norm_eps=1e-5,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    vocabulary.save(folder)


def now() -> tuple[float, float]:
    """Seconds by the clock and of processor time; on a machine that does other work only the second says much."""
    return time.perf_counter(), time.process_time()


def kernels(threads: int) -> None:
    """Print milliseconds of a product with an 8,192 x 2,048 weight, for 1, 4, 32 and 300 tokens."""
    torch.set_num_threads(threads)
    weight, group = torch.randn(8192, 2048) * 0.02, 32
    halves, ours = weight.bfloat16(), Int8Linear(*quantize(weight))
    eight = torch.randint(-127, 127, weight.shape, dtype=torch.int8)
    four = torch.ops.aten._convert_weight_to_int4pack_for_cpu(torch.randint(0, 15, weight.shape, dtype=torch.int32), 1)
    scale, scales = torch.rand(8192).bfloat16(), torch.rand(2048 // group, 8192, 2).bfloat16()
    ways: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "float32": lambda x: x @ weight.T,
        "bfloat16": lambda x: x.bfloat16() @ halves.T,
        "int8 weights, bfloat16": lambda x: torch.ops.aten._weight_int8pack_mm(x.bfloat16(), eight, scale),
        "int4 weights, bfloat16": lambda x: torch.ops.aten._weight_int4pack_mm_for_cpu(
            x.bfloat16(), four, group, scales
        ),
        "fbgemm, the engine int8": ours,
    }
    print("| kernel | 1 token | 4 | 32 | 300 |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, way in ways.items():
        best = []
        for tokens in (1, 4, 32, 300):
            x, times = torch.randn(tokens, 2048), []
            for _ in range(3 if tokens == 300 else 10):
                start = time.perf_counter()
                way(x)
                times.append(time.perf_counter() - start)
            best.append(f"{1000 * min(times):.2f}")
        print(f"| {name} | " + " | ".join(best) + " |", flush=True)


def agreement(options: argparse.Namespace) -> None:
    """Print how often each engine decodes what float32 does, on the test split of a run folder."""
    torch.set_num_threads(options.threads)
    rows = read_units(options.model / "units")
    pairs = [p for p in read_manifest(options.model / "corpus", "test") if (p.id, "src") in rows][: options.utterances]
    sources = [rows[p.id, "src"].units for p in pairs]
    folder = options.model / "lm" / options.agreement / "model"
    reference = PhaseDecoder.load(folder).translate(sources, DecodingSettings())
    print("| engine | same transcript | same translation | same units | units edited |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name in options.engines:
        if name in ("float32", "int8, exported"):
            continue
        found = PhaseDecoder.load(folder, **ENGINES[name]).translate(sources, DecodingSettings())
        same = [
            sum(a == b for a, b in zip(map(part, reference), map(part, found), strict=True)) / len(sources)
            for part in (lambda t: t.transcript, lambda t: t.translation, lambda t: t.units.tolist())
        ]
        edits = sum(distance(a.units, b.units) for a, b in zip(reference, found, strict=True))
        shares = [*same, edits / sum(len(t.units) for t in reference)]
        print(f"| {name} | " + " | ".join(f"{100 * share:.1f} %" for share in shares) + " |", flush=True)


def distance(a: np.ndarray, b: np.ndarray) -> int:
    """Edit distance of two unit sequences."""
    row = np.arange(len(b) + 1)
    for i, unit in enumerate(a, 1):
        best = np.minimum(row[1:] + 1, row[:-1] + (b != unit))
        # Insertions: the least of what lies to the left, one more for each place.
        row = np.minimum.accumulate(np.concatenate([[i], best]) - np.arange(len(b) + 1)) + np.arange(len(b) + 1)
    return int(row[-1])


class Clock:
    """Notes when texts are complete and when each unit comes."""

    def __init__(self) -> None:
        self.text_times: list[tuple[float, float]] = []
        self.unit_times: list[tuple[float, float]] = []

    def texts(self, index: int, said: object) -> None:
        """Texts are complete."""
        self.text_times.append(now())

    def unit(self, index: int, unit: int) -> None:
        """A unit."""
        self.unit_times.append(now())


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Times and memory of one engine."""
    torch.set_num_threads(options.threads)
    before, start = memory(), now()
    decoder = PhaseDecoder.load(folder_of(options), **ENGINES[options.one])
    loaded, loading = now(), memory("VmHWM")
    rng = np.random.default_rng(0)
    frames = int(options.seconds * 50)
    sources = [rng.integers(0, UNITS, frames) for _ in range(options.batch)]
    # Texts of 20 tokens each, as a sentence has them.
    limits = {
        "max_text_tokens_per_second": 4 / options.seconds,
        "max_units_per_frame": max(0, options.units - 50) / frames,
    }
    clock, begun = Clock(), now()
    decoder.translate(
        sources, DecodingSettings(batch_size=options.batch, max_unit_repeats=1000, **limits), streamer=clock
    )
    units = clock.unit_times
    spent = [units[-1][i] - units[options.batch - 1][i] for i in (0, 1)]
    return {
        "load": loaded[0] - start[0],
        "loading": loading - before,
        "text": clock.text_times[0][0] - begun[0],
        "text_processor": clock.text_times[0][1] - begun[1],
        "rate": (len(units) - options.batch) / spent[0],
        "rate_processor": (len(units) - options.batch) / spent[1],
        "peak": memory("VmHWM"),
    }


def memory(field: str = "VmRSS") -> float:
    """Resident memory of this process in MiB: now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
