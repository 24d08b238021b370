"""Memory over 2,000 training steps, as a markdown table: it must not grow with ever-new shapes. Needs a run with units.

    python benchmarks/memory.py RUN [--text-lm FOLDER] [--steps 2000]

A very small model on real utterances, so that every step brings new lengths (and, while the text ratio
falls, ever other ones) to the same kernels, in bf16 as in a real training.
"""

import argparse
import tempfile
from pathlib import Path

import psutil
import torch

from unitweave.config.interleave import InterleaveSettings, ScheduleSettings
from unitweave.config.lm import SmallLm
from unitweave.config.training import LmTraining
from unitweave.interleaving.schedule import text_ratio
from unitweave.lm.data.dataset import all_languages, codebook_identity, load_pairs
from unitweave.lm.data.examples import load_examples
from unitweave.lm.data.sampler import UtteranceSampler
from unitweave.lm.data.stream import InterleavedDataset
from unitweave.lm.data.tokens import WordTokens
from unitweave.lm.model.small import new_llama
from unitweave.lm.model.start import load_causal_lm
from unitweave.lm.model.vocabulary import extend_tokenizer
from unitweave.lm.train.fit import DevEvaluation, fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder with corpus and units")
    parser.add_argument("--text-lm", type=Path, help="model folder (default: RUN/text_lm/model)")
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    pairs = load_pairs(options.run / "corpus", options.run / "units", "train")
    _, tokenizer = load_causal_lm(str(options.text_lm or options.run / "text_lm/model"))
    codebook, num_units = codebook_identity(options.run / "units")
    vocabulary = extend_tokenizer(tokenizer, num_units, all_languages(pairs), codebook)
    tokens = WordTokens(tokenizer)
    where = Path(tempfile.mkdtemp()) / "examples"
    examples, _ = load_examples(where, pairs, options.run / "units", vocabulary, tokens, InterleaveSettings())
    ratio = text_ratio(ScheduleSettings(stair_steps=0.05, unit="fraction"), options.steps)
    order = UtteranceSampler([range(len(examples))], 1)
    source = InterleavedDataset(examples, order, 8, ratio, InterleaveSettings(), vocabulary.sequence_markers)
    torch.manual_seed(0)
    model = new_llama(
        SmallLm(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64),
        -(-vocabulary.size // 64) * 64,
    )
    settings = LmTraining(steps=options.steps, batch_size=8, learning_rate=1e-3, save_steps=options.steps, report_to=[])
    points = [options.steps * i // 20 for i in (1, 2, 5, 10, 15, 20)]

    def look(_: object, step: int) -> dict[str, float]:
        if step in points:
            print(f"| {step} | {psutil.Process().memory_info().rss / 2**20:,.0f} |", flush=True)
        return {}

    print("| step | resident memory, MiB |\n| ---: | ---: |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        fit(model, source, settings, Path(folder), "memory", ratio, DevEvaluation(look, options.steps // 20))


if __name__ == "__main__":
    main()
