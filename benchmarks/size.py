"""Language model training at the paper's size: what it takes until the first batch, as a markdown table.

    python benchmarks/size.py [--pairs 562000] [--units 250] [--words 9] [--folder FOLDER]

Makes a corpus of random units and words (kept in FOLDER for the next call), and starts as `unitweave lm train` does, in
a process of its own: reads manifest and units, prepares the examples, chooses those that fit, and builds batches at
text ratio 0.5. Then two loader workers read ahead. Memory is the peak of the process with the mapped files (RSS) and of
what no file backs (own), imports included, and what a worker does not share. The growth per pair is between a tenth of
the pairs and all.

    python benchmarks/size.py --stages [--pairs 20000] [--folder FOLDER]

What other stages hold of a pair while they look at all of them: the peak of the memory that no file backs.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

STEP = 64  # pairs


def status() -> dict[str, float]:
    """Memory of this process in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {
        line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith(("Rss", "VmRSS", "VmHWM"))
    }


def make_corpus(folder: Path, pairs: int, units: int, words: int) -> None:
    """Write manifest.parquet and units shards of 2,000 pairs."""
    from unitweave.core.manifest import Pair, write_manifest
    from unitweave.units.dataset import SCHEMA, shard_path

    if (folder / "done").exists():
        return
    rng = np.random.default_rng(0)
    vocabulary = np.array(["".join(rng.choice(list("abcdefghilmnoprstu"), rng.integers(2, 9))) for _ in range(30_000)])
    common = rng.zipf(1.3, pairs * words * 2) % len(vocabulary)
    texts = vocabulary[common].reshape(pairs, 2, words)
    write_manifest(folder / "corpus", [Pair("x", "train", "es", "en", "a.wav", "b.wav", "a", "b")])
    schema = pq.read_schema(folder / "corpus/manifest.parquet")
    joined = [[" ".join(row) for row in texts[:, side]] for side in (0, 1)]
    ids = [f"common_voice_es_{i:08d}" for i in range(pairs)]
    table = pa.table(
        {
            "id": ids, "split": ["train"] * pairs, "src_lang": ["es"] * pairs, "tgt_lang": ["en"] * pairs,
            "src_audio": [f"{i}.wav" for i in ids], "tgt_audio": [f"{i}-en.wav" for i in ids],
            "src_text": joined[0], "tgt_text": joined[1], "src_text_raw": joined[0], "tgt_text_raw": joined[1],
            "speaker": [""] * pairs, "src_seconds": np.full(pairs, units / 50, np.float32),
            "tgt_seconds": np.full(pairs, units / 50, np.float32),
        },
        schema=schema,
    )  # fmt: skip
    pq.write_table(table, folder / "corpus/manifest.parquet", compression="zstd")
    (folder / "units").mkdir(exist_ok=True)
    bounds = np.linspace(0, units, words + 1).astype(np.int32)
    metadata = {"codebook": "made-up", "num_units": "2048", "frame_rate": "50"}
    for number, first in enumerate(range(0, pairs, 2_000)):
        count = min(2_000, pairs - first)
        rows = 2 * count

        def lists(values: np.ndarray, each: int, rows: int = rows) -> pa.ListArray:
            return pa.ListArray.from_arrays(np.arange(0, rows * each + 1, each, dtype=np.int32), values)

        table = pa.table(
            {
                "id": np.repeat(ids[first : first + count], 2), "side": ["src", "tgt"] * count,
                "units": lists(rng.integers(0, 2048, rows * units).astype(np.uint16), units),
                "words": lists(texts[first : first + count].reshape(-1), words),
                "starts": lists(np.tile(bounds[:-1], rows), words), "ends": lists(np.tile(bounds[1:], rows), words),
                "scores": lists(np.full(rows * words, 0.9, np.float32), words),
            },
            schema=SCHEMA.with_metadata(metadata),
        )  # fmt: skip
        pq.write_table(table, shard_path(folder / "units", number), compression="zstd")
    (folder / "done").touch()


def measure(folder: Path) -> None:
    """Prepare, and print what it took as JSON."""
    start = time.perf_counter()
    import torch
    from torch.utils.data import DataLoader

    from unitweave.config.interleave import InterleaveSettings
    from unitweave.lm.data.dataset import all_languages, codebook_identity, load_pairs
    from unitweave.lm.data.examples import load_examples
    from unitweave.lm.data.stream import InterleavedDataset, PackedDataset
    from unitweave.lm.data.tokens import WordTokens
    from unitweave.lm.model.small import train_tokenizer
    from unitweave.lm.model.vocabulary import extend_tokenizer
    from unitweave.lm.train.finetune import _sampler, select_examples
    from unitweave.rehearsal.child import PeakMemory

    torch.set_num_threads(1)
    tokenizer = train_tokenizer(["la casa roja está donde el perro duerme, the dog sleeps where the house is"], 400)
    found = {"imports": time.perf_counter() - start, "before": status()}
    memory = PeakMemory()
    memory.start()
    start, used = time.perf_counter(), time.process_time()
    pairs = load_pairs(folder / "corpus", folder / "units", "train")
    codebook, num_units = codebook_identity(folder / "units")
    vocabulary = extend_tokenizer(tokenizer, num_units, all_languages(pairs), codebook)
    settings, tokens, markers = InterleaveSettings(), WordTokens(tokenizer), vocabulary.sequence_markers
    examples, sizes = load_examples(folder / "examples", pairs, folder / "units", vocabulary, tokens, settings)
    kept, _, _ = select_examples(sizes, pairs, ["s2st"], markers, 4096, False)
    pairs = pairs.take(kept)
    source = InterleavedDataset(examples.take(kept), _sampler(pairs, 1, 1.0), STEP, lambda step: 0.5, settings, markers)
    dataset = PackedDataset(source, 1000, [0.0, 1.0, 1.0, 1.0, 1.0])
    dataset[0]
    found |= {"first batch": time.perf_counter() - start, "processor": time.process_time() - used}
    found["own peak"] = memory.peak / 2**20
    del pairs, sizes, kept
    best = float("inf")
    for turn in range(5):
        used = time.process_time()
        for step in range(30):
            source.sequences(30 * turn + step)
        best = min(best, time.process_time() - used)
    found |= {"pairs per second": 30 * STEP / best, "after": status()}
    loader = DataLoader(dataset, batch_size=None, num_workers=2)
    batches = iter(loader)
    for _ in range(100):
        next(batches)
    private = []
    for worker in batches._workers:  # type: ignore[attr-defined]
        rollup = Path(f"/proc/{worker.pid}/smaps_rollup").read_text().splitlines()
        private.append(sum(int(line.split()[1]) for line in rollup if line.startswith("Private_Dirty")) / 1024)
    found["worker"] = max(private)
    print(json.dumps(found))


def alignment(folder: Path) -> None:
    """The worst-aligned recordings."""
    from unitweave.score.alignment import worst_aligned

    worst_aligned(folder, 20)


def exported(folder: Path) -> None:
    """Units as fairseq has them."""
    from unitweave.units.fairseq import export_units

    export_units(folder / "fairseq", "fairseq", folder / "corpus", folder / "units")


def imported(folder: Path) -> None:
    """The same back again."""
    from unitweave.units.importing import UnitSource, import_units

    import_units(folder / "imported", "fairseq", folder / "fairseq", folder / "corpus", UnitSource(2048))


def recordings(folder: Path) -> None:
    """What the encoder is trained on, and the sample for the codebook."""
    from unitweave.core.manifest import read_manifest
    from unitweave.units.error_rates import transcribed_recordings
    from unitweave.units.sampling import list_recordings, sample_recordings

    kept = transcribed_recordings(read_manifest(folder / "corpus", "train"), 30.0)
    sample_recordings(list_recordings(read_manifest(folder / "corpus", "train")), 500_000, 0, 50.0)
    assert len(kept)


def make_outputs(folder: Path) -> None:
    """A test split of the same pairs, and what two systems made of it, text and units."""
    place = folder / "scored"
    if (place / "done").exists():
        return
    table = pq.read_table(folder / "corpus/manifest.parquet")
    splits = pa.array(["test"] * len(table))
    (place / "corpus").mkdir(parents=True)
    table = table.set_column(table.column_names.index("split"), table.schema.field("split"), splits)
    pq.write_table(table, place / "corpus/manifest.parquet")
    rng = np.random.default_rng(0)
    for system in ("baseline", "scheduled"):
        (place / system).mkdir()
        with (place / system / "outputs.jsonl").open("w") as file:
            for batch in table.select(["id", "src_text", "tgt_text"]).to_batches(max_chunksize=1000):
                for row in batch.to_pylist():
                    line = {"id": row["id"], "transcript": row["src_text"], "translation": row["tgt_text"]}
                    file.write(json.dumps(line | {"units": rng.integers(0, 2048, 250).tolist()}) + "\n")
    (place / "done").touch()


def score_inputs(folder: Path) -> None:
    """Outputs, references and units of a scoring, before any metric (sacrebleu and jiwer take memory of their own)."""
    from unitweave.config.score import ScoreSettings
    from unitweave.score import score

    class Read(Exception):
        pass

    def assembled(*_: object) -> None:
        raise Read

    score.assemble = assembled  # type: ignore[assignment]
    settings = ScoreSettings(randomization_trials=0, mos=[], ceilings=False)
    place = folder / "scored"
    outputs = {system: place / system for system in ("baseline", "scheduled")}
    with contextlib.suppress(Read):
        score.score_run(place / "score", settings, place / "corpus", folder / "units", place / "vocoder", outputs)


STAGES = (alignment, exported, imported, recordings, score_inputs)


def stages(folder: Path, pairs: int) -> None:
    """Print the memory of a pair in each stage, each in a fork of this process, so that imports do not count."""
    import unitweave.score.score
    import unitweave.units.error_rates
    import unitweave.units.importing  # noqa: F401
    from unitweave.rehearsal.child import PeakMemory

    make_outputs(folder)
    print("| stage | KiB a pair | processor time (s) |\n| --- | ---: | ---: |", flush=True)
    for stage in STAGES:
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0, stage.__name__
            continue
        memory, used = PeakMemory(), time.process_time()
        memory.start()
        stage(folder)
        taken = 2**20 * memory.gib() / pairs
        print(f"| {stage.__name__} | {taken:.2f} | {time.process_time() - used:.1f} |", flush=True)
        os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=562_000)
    parser.add_argument("--units", type=int, default=250, help="units a side")
    parser.add_argument("--words", type=int, default=9, help="words a side")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--measure", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--stages", action="store_true", help="the memory of other stages")
    options = parser.parse_args()
    if options.measure:
        measure(options.measure)
        return
    folder = options.folder or Path(tempfile.mkdtemp())
    if options.stages:
        place = folder / str(options.pairs)
        place.mkdir(parents=True, exist_ok=True)
        make_corpus(place, options.pairs, options.units, options.words)
        stages(place, options.pairs)
        return
    names = ("pairs", "to the first batch (s)", "processor time (s)", "peak RSS (MiB)", "own peak (MiB)",
             "own after (MiB)", "a worker's own (MiB)", "pairs/s at ratio 0.5")  # fmt: skip
    print(f"| {' | '.join(names)} |")
    print(f"|{' ---: |' * len(names)}")
    grown = []
    for pairs in (max(1, options.pairs // 10), options.pairs):
        place = folder / str(pairs)
        place.mkdir(parents=True, exist_ok=True)
        make_corpus(place, pairs, options.units, options.words)
        command = [sys.executable, __file__, "--measure", str(place)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        after = found["after"]
        grown.append(after["RssAnon"] - found["before"]["RssAnon"])
        print(
            f"| {pairs:,} | {found['first batch']:.1f} | {found['processor']:.1f} | {after['VmHWM']:.0f} | "
            f"{found['own peak']:.0f} | {after['RssAnon']:.0f} | {found['worker']:.0f} | "
            f"{found['pairs per second']:,.0f} |",
            flush=True,
        )
    each = (grown[1] - grown[0]) / (options.pairs - options.pairs // 10)
    print(f"\n{1024 * each:.2f} KiB a pair of memory that no file backs; {found['imports']:.0f} s of imports before.")


if __name__ == "__main__":
    main()
