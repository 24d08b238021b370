"""Decoding speed on a run's test split: StageDecoder against transformers' generate, one utterance at a time.

    python benchmarks/decoding.py RUN [--system scheduled] [--batch 32 120] [--utterances 120] [--threads 1]

generate decodes greedily with its dynamic cache and no stage constraint, until it says <|end|> or has said as
many tokens as our limits allow. Prints markdown tables. All ways take turns and the best of --repeats counts. Ratios
are given by the clock and in processor time, in which other processes on the machine matter little. Real-time factors
are seconds of computing for a second of source speech; the stages' own are of the first batch size, in processor time.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from unitweave.core.audio import read_audio
from unitweave.core.manifest import read_manifest
from unitweave.translate.decode import DecodeSettings, StageDecoder
from unitweave.translate.translator import Translator
from unitweave.units.table import read_units


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--system", default="scheduled")
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 120], help="utterances decoded together")
    parser.add_argument("--utterances", type=int, default=120, help="of the test split")
    parser.add_argument("--peers", type=int, default=40, help="utterances that generate decodes, spread evenly")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    units = read_units(options.run / "units")
    pairs = [p for p in read_manifest(options.run / "corpus", "test") if (p.id, "src") in units][: options.utterances]
    sources = [units[p.id, "src"].units for p in pairs]
    some = sources[:: max(1, len(sources) // options.peers)]
    speech = sum(map(len, sources)) / 50
    folder = options.run / "lm" / options.system / "model"
    ways: dict[str, tuple[Callable[[], int], float]] = {}
    for dtype in (torch.float32, torch.bfloat16):
        ours = StageDecoder.load(folder, dtype=dtype)
        plain = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
        heard = sum(map(len, some)) / 50
        ways[f"generate, one at a time, {name_of(dtype)}"] = partial(generate_one_by_one, ours, plain, some), heard
        for batch in (1, *options.batch):
            chosen = some if batch == 1 else sources
            way = partial(decode, ours, chosen, batch)
            ways[f"StageDecoder, batch {batch}, {name_of(dtype)}"] = way, sum(map(len, chosen)) / 50
    best: dict[str, tuple[float, float, int]] = {}  # seconds by the clock, of processor time, tokens
    for _ in range(options.repeats):
        for name, (way, _) in ways.items():
            clock, processor = time.perf_counter(), time.process_time()
            tokens = way()
            spent = time.perf_counter() - clock, time.process_time() - processor, tokens
            best[name] = min(best.get(name, spent), spent)
    print(
        f"{len(sources)} utterances, {speech:.0f} s of speech, {options.threads} threads, torch {torch.__version__}\n"
    )
    print("| decoding | tokens/s | real-time factor | speed, per second of speech | in processor time |")
    print("| --- | ---: | ---: | ---: | ---: |")
    first = next(iter(ways))
    for name, (clock, processor, tokens) in best.items():
        ratios = [b / ways[first][1] * ways[name][1] / s for b, s in zip(best[first], (clock, processor), strict=False)]
        print(
            f"| {name} | {tokens / clock:.0f} | {clock / ways[name][1]:.4f} | {ratios[0]:.1f} x | {ratios[1]:.1f} x |",
            flush=True,
        )
    translator = Translator.from_run(options.run, options.system)
    print_stages(translator, [Path(str(p.src_audio)) for p in pairs], options.batch[0], speech)


def decode(decoder: StageDecoder, sources: list, batch: int) -> int:
    """Decode all sources in batches; returns the number of tokens."""
    said = decoder.translate(sources, DecodeSettings(batch=batch))
    return sum(len(decoder.tokenizer(t.transcript + t.translation)["input_ids"]) + len(t.units) + 4 for t in said)


def name_of(dtype: torch.dtype) -> str:
    """float32 or bfloat16."""
    return str(dtype).removeprefix("torch.")


def generate_one_by_one(decoder: StageDecoder, model: PreTrainedModel, sources: list) -> int:
    """Decode all sources with transformers' generate; returns the number of tokens."""
    settings, end = DecodeSettings(), decoder.vocabulary.markers["end"]
    tokens = 0
    for source in sources:
        prompt = torch.tensor([decoder.prompt(source)])
        text = int(len(source) / 50 * settings.text_per_second) + 16
        limit = 2 * text + int(len(source) * settings.units_per_frame) + 50
        with torch.inference_mode():
            said = model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=limit,
                eos_token_id=end,
                pad_token_id=end,
                use_cache=True,
            )
        tokens += said.shape[1] - prompt.shape[1]
    return tokens


def print_stages(translator: Translator, paths: list[Path], batch: int, speech: float) -> None:
    """The whole way from files to speech, stage by stage."""
    spent = dict.fromkeys(("audio", "units", "transcript", "translation", "speech units", "vocoder"), 0.0)
    for first in range(0, len(paths), batch):
        clock = [time.process_time()]
        waveforms = [read_audio(path) for path in paths[first : first + batch]]
        clock.append(time.process_time())
        sources = [u for u, _ in translator.extractor.extract(waveforms)]
        clock.append(time.process_time())
        said = translator.decoder.translate(sources, DecodeSettings(batch=batch))
        clock.append(time.process_time())
        translator.vocoder.synthesize([t.units for t in said], deduplicated=translator.decoder.vocabulary.deduplicate)
        clock.append(time.process_time())
        for name, index in (("audio", 0), ("units", 1), ("vocoder", 3)):
            spent[name] += clock[index + 1] - clock[index]
        for name, stage in (("transcript", "transcript"), ("translation", "translation"), ("speech units", "units")):
            share = sum(t.seconds.get(stage, 0.0) for t in said) / sum(sum(t.seconds.values()) for t in said)
            spent[name] += share * (clock[3] - clock[2])  # the decoder's own clock is wall time
    print("\n| stage | seconds | real-time factor |")
    print("| --- | ---: | ---: |")
    for name, seconds in spent.items():
        print(f"| {name} | {seconds:.2f} | {seconds / speech:.4f} |")
    print(f"| all | {sum(spent.values()):.2f} | {sum(spent.values()) / speech:.4f} |")


if __name__ == "__main__":
    main()
