"""Extraction end to end against the peers' way, as a markdown table: the same recordings, the same encoder.

    python benchmarks/extraction.py --run RUN [--recordings 300] [--threads 2] [--rounds 2] [--device cuda]
    python benchmarks/extraction.py --random embedded|w2v-bert-2.0 ...

The peers' way: read a file, transformers' feature extractor, transformers' model on the one utterance in
float32, scikit-learn's k-means on the CPU. It gives units. Ours gives units and, from the same pass, the words'
frames; both are in its time. In turns in one run. The matrix peak is measured on the same threads with one
large product. `--random` needs no run: random weights, recordings of noise and tones of 1 to 12 s.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertForCTC

from unitweave.config.units import SmallEncoder
from unitweave.core.audio import read_audio, write_audio
from unitweave.core.manifest import read_manifest
from unitweave.units.codebook import Codebook
from unitweave.units.encoder import CharacterVocabulary, SpeechEncoder, ctc_config, load_encoder, new_encoder
from unitweave.units.extractor import UnitExtractor
from unitweave.units.front_end import FrontEnd
from unitweave.units.inference import single_threads
from unitweave.units.reading import map_ordered, read_features
from unitweave.units.sampling import Recording, batches_by_length, list_recordings
from unitweave.units.shards import unit_rows


def peers(
    model: Wav2Vec2BertForCTC,
    extractor: SeamlessM4TFeatureExtractor,
    quantizer: KMeans,
    layer: int,
    items: list[Recording],
) -> list[np.ndarray]:
    """One utterance at a time."""
    units = []
    for item in items:
        inputs = extractor(read_audio(item.audio), sampling_rate=16_000, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            hidden = model(**inputs, output_hidden_states=True).hidden_states[layer]
        mask = inputs["attention_mask"][0].bool()
        units.append(quantizer.predict(hidden[0][mask].cpu().numpy()))
    return units


def ours(extractor: UnitExtractor, items: list[Recording], threads: int) -> list[np.ndarray]:
    """As extract_units does it, less the writing of shards."""
    batches = [[items[i] for i in batch] for batch in batches_by_length(np.array([i.seconds for i in items]), 120.0)]
    found, read = {}, partial(read_features, extractor.front_end)
    with single_threads(threads) as pool:
        if extractor.inference.batched:
            done = ((b, unit_rows(extractor, b, features)) for b, features in map_ordered(pool, read, batches))
        else:
            done = map_ordered(pool, lambda batch: unit_rows(extractor, batch, read(batch)), batches)
        for _, rows in done:
            found.update({(row.id, row.side): row.units for row in rows})
    return [found[item.id, item.side] for item in items]


def peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of one large matrix product, the best of several."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(6):
        start = time.perf_counter()
        (a @ b)[0, 0].item()
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def work(model: Wav2Vec2BertForCTC, frames: Sequence[int]) -> float:
    """FLOP of the forward passes: two per weight and frame, and the attention's two products."""
    weights = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    config = model.config
    return float(sum(2 * weights * n + 4 * config.num_hidden_layers * config.hidden_size * n**2 for n in frames))


def random_inputs(
    shape: str, folder: Path, count: int
) -> tuple[Wav2Vec2BertForCTC, CharacterVocabulary, list[Recording]]:
    """An encoder with random weights and recordings of noise."""
    rng = np.random.default_rng(0)
    vocabulary = CharacterVocabulary.from_texts(["abcdefghijklmnopqrstuvwxyz"])
    if shape == "embedded":
        model = new_encoder(SmallEncoder(), vocabulary)
    else:
        model = Wav2Vec2BertForCTC(Wav2Vec2BertConfig(**ctc_config(vocabulary)))
    items = []
    for i in range(count):
        seconds = float(rng.uniform(1, 12))
        axis = np.arange(int(seconds * 16_000)) / 16_000
        tones = sum(np.sin(2 * np.pi * f * axis) for f in rng.uniform(90, 3000, 4))
        path = folder / f"{i}.wav"
        write_audio(path, np.float32(0.1 * tones * np.sin(9 * axis) + rng.normal(0, 0.01, len(axis))))
        items.append(Recording(str(i), "src", "en", str(path), "random words " * int(seconds) + "end", seconds))
    return model.eval(), vocabulary, items


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--random", choices=("embedded", "w2v-bert-2.0"))
    parser.add_argument("--recordings", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2, help="the fastest of each counts")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        if options.random or not options.run:
            model, vocabulary, items = random_inputs(options.random or "embedded", Path(folder), options.recordings)
            size, layer = model.config.hidden_size, max(1, model.config.num_hidden_layers * 5 // 6)
            book = Codebook(torch.randn(2048 if size > 512 else 256, size), layer, "")
        else:
            model, vocabulary, _ = load_encoder(options.run / "encoder/model")
            book = Codebook.load(options.run / "codebook")
            items = list_recordings(read_manifest(options.run / "corpus"))
            items = items[:: max(1, len(items) // options.recordings)][: options.recordings]
        model.to(device)
        extractors = {
            p: UnitExtractor(SpeechEncoder(model, vocabulary, FrontEnd.of(model.config)), book, p)
            for p in ("fp32", "bf16")
        }
        quantizer = KMeans(book.num_units, n_init=1, max_iter=1).fit(book.centroids.numpy())
        quantizer.cluster_centers_ = book.centroids.numpy().copy()
        theirs = SeamlessM4TFeatureExtractor()
        fastest: dict[str, float] = {}
        cpu: dict[str, float] = {}
        units: dict[str, list[np.ndarray]] = {}
        peers(model, theirs, quantizer, book.layer, items[:3])
        for _ in range(options.rounds):
            start, busy = time.perf_counter(), time.process_time()
            units["peers"] = peers(model, theirs, quantizer, book.layer, items)
            fastest["peers"] = min(fastest.get("peers", np.inf), time.perf_counter() - start)
            cpu["peers"] = min(cpu.get("peers", np.inf), time.process_time() - busy)
            for name, extractor in extractors.items():
                start, busy = time.perf_counter(), time.process_time()
                units[name] = ours(extractor, items, options.threads)
                fastest[name] = min(fastest.get(name, np.inf), time.perf_counter() - start)
                cpu[name] = min(cpu.get(name, np.inf), time.process_time() - busy)
    frames = [len(one) for one in units["fp32"]]
    seconds, flop = sum(frames) / 50, work(model, frames)
    peaks = {"fp32": peak(device, torch.float32), "bf16": peak(device, torch.bfloat16)}
    print(
        f"{len(items)} recordings, {seconds:.0f} s; {options.threads} threads, {device.type};"
        f" matrix peak {peaks['fp32'] / 1e9:.0f} GFLOP/s in float32, {peaks['bf16'] / 1e9:.0f} in bf16\n"
    )
    print(
        "| extraction | ms each | hours of audio an hour | share of peak | units that differ | ratio | processor time |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    names = {"peers": "one at a time, scikit-learn", "fp32": "unitweave, fp32", "bf16": "unitweave, bf16"}
    for name, taken in fastest.items():
        same = [float((a != b).mean()) * len(a) for a, b in zip(units[name], units["fp32"], strict=True)]
        share = flop / taken / peaks["bf16" if name == "bf16" else "fp32"]
        print(
            f"| {names[name]} | {1000 * taken / len(items):.1f} | {seconds / taken:.0f} | {share:.0%} "
            f"| {sum(same) / sum(frames):.3%} | {fastest['peers'] / taken:.1f} x | {cpu['peers'] / cpu[name]:.1f} x |"
        )


if __name__ == "__main__":
    main()
