"""Decoding speed: PhaseDecoder against transformers' batched `generate`, on random weights.

    python benchmarks/decoding.py [--shape embedded 1b] [--dtype float32 bfloat16] [--batch 1 8 32 120] [--run RUN]

`generate` decodes the same left-padded prompts greedily, with its dynamic and its static cache, under a logits
processor that holds each row to its phase (language, transcript, translation, units) with our own constraints, so
that both have to give the same tokens; how many utterances do is in the table. "embedded" is the shape of the demo's
language model, "1b" that of Llama-3.2-1B with 2,048 units, which decodes texts only. Random weights would go on to
the limits; so tokens are chosen freely, but each phase of an utterance is ended after as many as are usual. All ways
take turns; the best of --repeats counts, in processor time, in which other processes on the machine matter little. A
shape stops at the batch size after which a way took longer than --patience. The last two columns are ours with
transformers' DynamicCache in place of our growing one, and with torch's attention kernel for single queries. With
--run, prints the steps from a recording to speech of a run.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformers import (
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessor,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from unitweave.config.translate import DecodingSettings
from unitweave.core.audio import read_audio
from unitweave.core.manifest import read_manifest
from unitweave.lm.model.vocabulary import extend_model, extend_tokenizer
from unitweave.translate import decode, loops, prefix_cache
from unitweave.translate.cache import growing_cache
from unitweave.translate.constraints import TRANSCRIPT, TRANSLATION, UNITS, DecoderState
from unitweave.translate.decode import PhaseDecoder, Translation
from unitweave.translate.step_attention import use_step_attention
from unitweave.translate.translator import Translator

# hidden size, layers, heads, key-value heads, feed-forward size, text tokens, units
SHAPES = {"embedded": (256, 4, 4, 4, 704, 1024, 256), "1b": (2048, 16, 32, 8, 8192, 128_256, 2048)}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--dtype", nargs="+", default=list(DTYPES), choices=DTYPES)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32, 120], help="utterances decoded together")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--patience", type=float, default=45.0, help="processor seconds of one decoding")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--run", type=Path, help="a run folder, for the table of steps")
    parser.add_argument("--system", default="scheduled")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.threads} threads, torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}\n")
    print(
        "| shape | dtype | batch | tokens | ours, s | generate, dynamic | static | ours faster by | equal outputs "
        "| ours, DynamicCache | ours, torch's attention |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for dtype in options.dtype:
        for shape in options.shape:
            decoder = make_decoder(shape)
            decoder.model.to(DTYPES[dtype])
            for batch in options.batch:
                if compare(decoder, shape, dtype, batch, options.repeats) > options.patience:
                    break
    if options.run:
        print_steps(options.run, options.system, max(options.batch))


def make_decoder(shape: str) -> PhaseDecoder:
    """A decoder of random weights."""
    hidden, layers, heads, kv_heads, feed_forward, words, units = SHAPES[shape]
    vocabulary = {f"w{i}": i for i in range(words - 1)} | {"<|begin_of_text|>": words - 1}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="w0")), bos_token="<|begin_of_text|>"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=words,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=feed_forward,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
    )
    model = LlamaForCausalLM(config)
    extended = extend_tokenizer(tokenizer, units, ["en", "es"], "book")
    extend_model(model, extended, seed=1)
    return PhaseDecoder(model, tokenizer, extended)


def compare(decoder: PhaseDecoder, shape: str, dtype: str, batch: int, repeats: int) -> float:
    """Print a row; returns the seconds of the slowest way."""
    rng = np.random.default_rng(0)
    small = shape == "embedded"
    frames = np.clip(rng.lognormal(np.log(125 if small else 30), 0.3, batch), 20, 400).astype(int)
    sources = [rng.integers(0, decoder.vocabulary.num_units, count) for count in frames]
    settings = DecodingSettings(batch_size=batch, text_only=not small)
    closing = decoder.constraints.closing.tolist()
    ends = []
    for count in frames:  # free choice, and then the marker that ends the phase
        texts = rng.normal(count / (15 if small else 3), 2, 2).clip(2).astype(int).tolist()
        lengths = {TRANSCRIPT: texts[0], TRANSLATION: texts[1], UNITS: int(0.6 * count)}
        ends.append({phase: [-1] * length + [closing[phase]] for phase, length in lengths.items()})
    decoder.constraints.forced = lambda end: end  # type: ignore[method-assign, assignment, return-value]
    decode.in_a_loop = lambda units, frame_rate: False  # which generate does not know
    loops.PHRASE_LOOP = 1_000_000

    def ours(cache: Callable[[PreTrainedConfig], DynamicCache], step_attention: bool) -> list[Translation]:
        prefix_cache.growing_cache = cache
        decoder.model.set_attn_implementation("sdpa")
        if step_attention:
            use_step_attention(decoder.model)
        return decoder.translate(sources, settings, ends)  # type: ignore[arg-type]

    ways: dict[str, Callable[[], list[Translation]]] = {
        "ours": partial(ours, growing_cache, True),
        "dynamic": partial(generate, decoder, sources, ends, settings, "dynamic"),
        "static": partial(generate, decoder, sources, ends, settings, "static"),
    }
    if small:
        ways["ours, DynamicCache"] = partial(ours, lambda config: DynamicCache(config=config), True)
        ways["ours, torch's attention"] = partial(ours, growing_cache, False)
    seconds: dict[str, float] = {}
    outputs: dict[str, list[Translation]] = {}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.process_time()
            outputs[name] = way()
            spent = time.process_time() - start
            seconds[name] = min(seconds.get(name, spent), spent)
        if sum(seconds.values()) > 15:
            break
    tokens = sum(len(f"{t.transcript} {t.translation}".split()) + len(t.units) + 4 for t in outputs["ours"])
    equal = [
        sum(same(a, b) for a, b in zip(outputs["ours"], outputs[name], strict=True)) for name in ("dynamic", "static")
    ]
    best = min(seconds["dynamic"], seconds["static"])
    times = [f"{seconds[name]:.2f}" for name in ("ours", "dynamic", "static")]
    parts = [
        f"{seconds[name]:.2f}" if name in seconds else "" for name in ("ours, DynamicCache", "ours, torch's attention")
    ]
    cells = [shape, dtype, batch, tokens, *times, f"{best / seconds['ours']:.2f} x", f"{min(equal)}/{batch}", *parts]
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    return max(seconds.values())


def same(a: Translation, b: Translation) -> bool:
    """Whether two translations have the same texts and units."""
    texts = (a.language, a.transcript, a.translation) == (b.language, b.transcript, b.translation)
    return texts and np.array_equal(a.units, b.units)


class PhaseProcessor(LogitsProcessor):
    """Holds each row of `generate` to its phase."""

    def __init__(self, state: DecoderState) -> None:
        self.state, self.prompt = state, 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        if self.prompt:
            self.state.advance(input_ids[:, -1], torch.zeros(len(input_ids)))
        self.prompt = self.prompt or input_ids.shape[1]
        log_probs, forced = self.state.constrain(scores)
        bound = (forced >= 0).nonzero().flatten()
        log_probs[bound] = -torch.inf
        log_probs[bound, forced[bound]] = 0.0
        return log_probs


@torch.inference_mode()
def generate(
    decoder: PhaseDecoder,
    sources: Sequence[np.ndarray],
    ends: Sequence[dict[int, list[int]]],
    settings: DecodingSettings,
    cache: str,
) -> list[Translation]:
    """Decode all sources together with transformers' generate."""
    decoder.model.set_attn_implementation("sdpa")
    ids, mask, _ = decoder.begin(sources)
    processor = PhaseProcessor(DecoderState([len(s) for s in sources], ends, settings, decoder.constraints))
    end = decoder.vocabulary.markers["end"]
    said = decoder.model.generate(
        ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=2 * int(processor.state.text_limit.max())
        + (0 if settings.text_only else int(processor.state.unit_limit.max()))
        + 8,
        eos_token_id=end,
        pad_token_id=end,
        cache_implementation=cache,
        logits_processor=[processor],
    )
    return [decoder.read(row) for row in said[:, ids.shape[1] :].tolist()]


def print_steps(run: Path, system: str, batch: int) -> None:
    """The whole way from a run's test recordings to speech, step by step, in processor time."""
    translator = Translator.from_pretrained(run, system)
    paths = [pair.src_audio for pair in read_manifest(run / "corpus", "test") if pair.src_audio]
    spent = dict.fromkeys(("audio", "units", "decoding", "vocoder"), 0.0)
    speech = 0.0
    for first in range(0, len(paths), batch):
        clock = [time.process_time()]
        waveforms = [read_audio(path) for path in paths[first : first + batch]]
        clock.append(time.process_time())
        sources = [units for units, _ in translator.encode(waveforms)]
        clock.append(time.process_time())
        translations = translator.decoder.translate(sources, DecodingSettings(batch_size=batch))
        clock.append(time.process_time())
        units = [t.units for t in translations]
        translator.vocoder.synthesize(units, deduplicated=translator.decoder.vocabulary.deduplicate)
        clock.append(time.process_time())
        for i, name in enumerate(spent):
            spent[name] += clock[i + 1] - clock[i]
        speech += sum(map(len, waveforms)) / 16_000
    print(f"\n{len(paths)} recordings, {speech:.0f} s\n\n| step | seconds | real-time factor |\n| --- | ---: | ---: |")
    for name, seconds in [*spent.items(), ("all", sum(spent.values()))]:
        print(f"| {name} | {seconds:.2f} | {seconds / speech:.4f} |")


if __name__ == "__main__":
    main()
