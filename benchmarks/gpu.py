"""All that no CPU can tell, in ten minutes on one GPU: the rows for docs/performance.md.

    python benchmarks/gpu.py [--parts attention training extraction decoding engines] [--small]

attention   loss and gradients of the flash kernel against the buckets, on the same packed batch
training    MFU of the 1.2B model at the paper's batch (128 pairs, 16,384 tokens a pass), against the measured peak
extraction  hours of speech an hour through w2v-BERT 2.0's shape, features already computed
decoding    tokens a second by batch: a step as `PhaseDecoder` takes it, and replayed as a CUDA graph
engines     the whole decoding in phases: `PhaseDecoder` with and without CUDA graphs, and vLLM where it is installed

All weights are random. --small takes narrow models and few tokens, so that it also runs on a CPU, where the rows that
need a GPU say so. Times are the least of three.
"""

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    StaticCache,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
)

from unitweave.config.lm import SmallLm
from unitweave.config.translate import DecodingSettings
from unitweave.interleaving.sequence import SEGMENTS, TrainingSequence
from unitweave.lm.data.packing import pack, split_to_budget
from unitweave.lm.estimate import model_config
from unitweave.lm.model.vocabulary import extend_model, extend_tokenizer
from unitweave.lm.train.attention import BUCKET_INPUTS, FLASH_INPUTS, flash_works
from unitweave.lm.train.logs import matrix_peak, training_flops
from unitweave.lm.train.packed import PackedTraining
from unitweave.training.devices import resolve_device, use_bf16
from unitweave.training.optimizers import make_optimizer
from unitweave.translate.cache import growing_cache
from unitweave.translate.constraints import Translation
from unitweave.translate.decode import PhaseDecoder
from unitweave.translate.vllm import EngineDecoder, start_vllm
from unitweave.units.encoder import CharacterVocabulary, ctc_config
from unitweave.units.front_end import FrontEnd
from unitweave.units.inference import EncoderInference

UNITS, ROWS = 2048, 130_368
DEVICE = resolve_device("auto")
CUDA = DEVICE.type == "cuda"
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "intermediate_size": 128, "head_dim": 16, "vocab_size": 512}  # fmt: skip


def llama(small: bool, rows: int | None = None, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """A Llama of Llama-3.2-1B's shape (`small`: two narrow layers), with `rows` of its vocabulary."""
    config = model_config("meta-llama/Llama-3.2-1B", SmallLm()).to_dict() | (SMALL if small else {})
    config |= {"vocab_size": rows or config["vocab_size"], "dtype": dtype}
    torch.manual_seed(0)
    with torch.device(DEVICE):
        return LlamaForCausalLM(LlamaConfig(**config)).to(dtype)


def sequences(pairs: int, mean: float, rows: int) -> list[TrainingSequence]:
    """Random tokens in sequences about as long as CVSS-C's pairs."""
    rng = np.random.default_rng(0)
    made = []
    for length in np.clip(rng.lognormal(np.log(mean), 0.4, pairs), 16, 2048).astype(int):
        segments = rng.integers(1, len(SEGMENTS) + 1, length).astype(np.int8)
        made.append(TrainingSequence(rng.integers(0, rows, length).astype(np.int32), segments))
    return made


def batches(pairs: int, mean: float, rows: int, budget: int) -> list[dict[str, torch.Tensor]]:
    """The packed forward passes of a step, on the device."""
    whole = sequences(pairs, mean, rows)
    (pieces,) = split_to_budget(whole, 1, budget)
    packed = [pack([whole[i] for i in piece], [0.0, 1.0, 1.0, 1.0, 1.0]) for piece in pieces]
    return [{k: v.to(DEVICE) if isinstance(v, torch.Tensor) else v for k, v in one.items()} for one in packed]


def inputs_of(batch: dict[str, torch.Tensor], flash: bool) -> dict[str, torch.Tensor]:
    """What a model in training takes of a packed batch, for one of the two kernels."""
    left = {"segments", "num_tokens", "sum_squared_lengths", *(BUCKET_INPUTS if flash else FLASH_INPUTS)}
    return {name: value for name, value in batch.items() if name not in left}


def autocast() -> torch.autocast:
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=use_bf16("bf16"))


def least(work: Callable[[], object], times: int = 3) -> float:
    """Seconds of the fastest of several calls, after one that does not count."""
    found = []
    for _ in range(times + 1):
        start = time.perf_counter()
        work()
        if CUDA:
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return min(found[1:])


def attention(small: bool) -> list[str]:
    """Loss and gradients of both kernels."""
    lines = [
        "| attention | loss | gradient, relative difference | ms forward and backward |",
        "| --- | ---: | ---: | ---: |",
    ]
    model = llama(small, 512 if small else ROWS)
    rows = model.config.vocab_size
    (batch, *_) = batches(8, 40 if small else 700, rows, 10**9)
    found: dict[bool, torch.Tensor] = {}
    with PackedTraining(model, "chunked"):
        for flash in (False, True):
            name = "flash" if flash else "buckets"
            if flash and not flash_works(DEVICE):
                lines.append(f"| {name} | not on {DEVICE.type} | | |")
                continue

            def step(flash: bool = flash) -> torch.Tensor:
                model.zero_grad()
                with autocast():
                    loss, _ = model(**inputs_of(batch, flash))
                loss.backward()
                return loss

            seconds, loss = least(step), step()
            found[flash] = torch.cat([p.grad.flatten().float().cpu() for p in model.parameters()])
            off = float((found[flash] - found[False]).norm() / found[False].norm())
            lines.append(f"| {name} | {loss.item() / batch['num_tokens']:.5f} | {off:.2e} | {1000 * seconds:.1f} |")
    return lines


def training(small: bool) -> list[str]:
    """MFU of whole steps, optimizer included."""
    model = llama(small, 512 if small else ROWS)
    optimizer = make_optimizer("adam", model, 5e-5, 0.0)
    pairs, budget = (8, 512) if small else (128, 16_384)
    passes = batches(pairs, 40 if small else 700, model.config.vocab_size, budget)
    flash = flash_works(DEVICE)
    with PackedTraining(model, "chunked"):

        def step() -> None:
            for batch in passes:
                with autocast():
                    loss, _ = model(**inputs_of(batch, flash))
                loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

        seconds = least(step)
    per_token, per_square = training_flops(model)
    tokens = sum(batch["num_tokens"] for batch in passes)
    flops = tokens * per_token + per_square * sum(batch["sum_squared_lengths"] for batch in passes)
    peak = matrix_peak(DEVICE, torch.bfloat16 if use_bf16("bf16") else torch.float32)
    memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if CUDA else "not measured"
    return [
        "| training | tokens a step | passes | s a step | tokens/s | peak TFLOPS | MFU | GiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        f"| {sum(p.numel() for p in model.parameters()) / 1e6:,.0f} M, {pairs} pairs | {tokens:,} | {len(passes)} "
        f"| {seconds:.3f} | {tokens / seconds:,.0f} | {peak / 1e12:.2f} | {flops / seconds / peak:.1%} | {memory} |",
    ]


def extraction(small: bool) -> list[str]:
    """Hours of speech an hour through the encoder."""
    vocabulary = CharacterVocabulary.from_texts(["abcdefghijklmnopqrstuvwxyz"])
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    model = Wav2Vec2BertForCTC(Wav2Vec2BertConfig(**(ctc_config(vocabulary) | (shape if small else {}))))
    model.eval().to(DEVICE)
    rng = np.random.default_rng(0)
    features = [torch.randn(int(n), 160) for n in rng.uniform(50, 600, 8 if small else 400)]
    hours = sum(map(len, features)) / 50 / 3600
    layer = max(1, model.config.num_hidden_layers * 5 // 6)
    lines = ["| extraction | hours of speech an hour |", "| --- | ---: |"]
    for precision in ("fp32", "bf16"):
        inference = EncoderInference(model, FrontEnd.of(model.config), precision, batched=True)  # type: ignore[arg-type]
        seconds = least(lambda inference=inference: inference(features, [layer]), 1 if small else 2)
        lines.append(f"| {precision} | {3600 * hours / seconds:,.0f} |")
    return lines


@torch.inference_mode()
def decoding(small: bool) -> list[str]:
    """Tokens a second of one step at a time, launched and replayed."""
    model = llama(small, 512 if small else ROWS, torch.bfloat16 if CUDA else torch.float32).eval()
    lines = ["| decoding, batch | tokens/s | as a CUDA graph |", "| ---: | ---: | ---: |"]
    context = 32 if small else 400
    for batch in (1, 2) if small else (1, 8, 32, 128):
        ids = torch.randint(0, 512, (batch, context), device=DEVICE)
        cache = growing_cache(model.config)
        model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        seconds = least(lambda cache=cache, ids=ids: model(input_ids=ids[:, :1], past_key_values=cache, use_cache=True))
        replayed = f"{batch / graph_seconds(model, ids):,.0f}" if CUDA else "not on cpu"
        lines.append(f"| {batch} | {batch / seconds:,.0f} | {replayed} |")
    return lines


def graph_seconds(model: LlamaForCausalLM, ids: torch.Tensor) -> float:
    """Seconds of a step with a static cache, captured as a CUDA graph."""
    context = ids.shape[1]
    cache = StaticCache(config=model.config, max_cache_len=context + 64)
    model(input_ids=ids, past_key_values=cache, logits_to_keep=1)
    token = ids[:, :1].clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            model(input_ids=token, past_key_values=cache)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model(input_ids=token, past_key_values=cache)
    return least(graph.replay)


def engines(small: bool) -> list[str]:
    """Utterances an hour of the whole decoding in phases, through both engines."""
    lines = ["| engine | utterances an hour | equal texts |", "| --- | ---: | ---: |"]
    words = 512 if small else 32_000
    entries = {f"w{i}": i for i in range(words - 1)} | {"<|begin_of_text|>": words - 1}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(entries, unk_token="w0")), bos_token="<|begin_of_text|>"
    )
    model = llama(small, words)
    vocabulary = extend_tokenizer(tokenizer, UNITS, ["en", "es"], "book")
    extend_model(model, vocabulary, seed=1)
    rng = np.random.default_rng(0)
    sources = [rng.integers(0, UNITS, int(n)) for n in rng.uniform(20, 60, 2)]
    sources *= 1 if small else 32
    limits = {"max_units_per_frame": 0.1, "max_text_tokens_per_second": 1.0} if small else {}
    settings = DecodingSettings(batch_size=64, **limits)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        vocabulary.save(folder)
        del model
        local = PhaseDecoder.load(folder, DEVICE, torch.bfloat16 if CUDA else torch.float32)
        graphs, local._graphs = local._graphs, None
        local.translate(sources[:2], settings)
        start = time.perf_counter()
        ours = local.translate(sources, settings)
        lines.append(
            f"| local, kernels launched one by one | {3600 * len(sources) / (time.perf_counter() - start):,.0f} | |"
        )
        if graphs is not None:
            local._graphs = graphs
            for name in ("first batch, graphs captured", "later batches"):
                start = time.perf_counter()
                replayed = local.translate(sources, settings)
                seconds = time.perf_counter() - start
                lines.append(
                    f"| local, CUDA graphs, {name} | {3600 * len(sources) / seconds:,.0f} | {equal(replayed, ours)} |"
                )
        del local, graphs
        if not (CUDA and importlib.util.find_spec("vllm")):
            return [*lines, "| vllm | not installed, or no GPU | |"]
        torch.cuda.empty_cache()
        engine = EngineDecoder(folder, start_vllm(folder), settings)
        engine.translate(sources[:2])
        start = time.perf_counter()
        theirs = engine.translate(sources)
        seconds = time.perf_counter() - start
    return [*lines, f"| vllm | {3600 * len(sources) / seconds:,.0f} | {equal(theirs, ours)} |"]


def equal(found: list[Translation], others: list[Translation]) -> str:
    """How many texts are equal."""
    same = sum(
        (a.transcript, a.translation) == (b.transcript, b.translation) for a, b in zip(found, others, strict=True)
    )
    return f"{same} of {len(others)}"


PARTS: dict[str, Callable[[bool], list[str]]] = {
    "attention": attention,
    "training": training,
    "extraction": extraction,
    "decoding": decoding,
    "engines": engines,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--small", action="store_true", help="narrow models and few tokens")
    options = parser.parse_args()
    where = torch.cuda.get_device_name() if CUDA else f"CPU, {torch.get_num_threads()} threads"
    print(f"{where}, torch {torch.__version__}")
    for name in options.parts:
        start = time.perf_counter()
        lines = PARTS[name](options.small)
        print("\n" + "\n".join(lines) + f"\n\n{name} took {time.perf_counter() - start:.0f} s", flush=True)
        if CUDA:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    main()
