"""From recordings to units and word frames, in one pass of the encoder over each recording."""

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import Wav2Vec2BertForCTC

from unitweave.core.audio import read_audio
from unitweave.core.errors import InputError
from unitweave.core.manifest import Pair, read_manifest
from unitweave.core.progress import meter
from unitweave.core.stage import Outcome
from unitweave.units.align import WordFrames, forced_align, word_frames
from unitweave.units.codebook import Codebook, kmeans
from unitweave.units.encoder import CharacterVocabulary, encode, encoder_fingerprint, load_encoder
from unitweave.units.features import extract_features, num_frames, pad_features
from unitweave.units.table import FRAME_RATE, SIDES, UnitRow, read_units, shard_path, write_shard


@dataclass
class CodebookSettings:
    """Settings of the k-means codebook."""

    num_units: int = 500  # clusters
    layer: int = 3  # hidden layer of the encoder, counted from 1
    max_frames: int = 200_000  # frames sampled from the train split, spread evenly over languages
    iterations: int = 20
    seed: int = 1


@dataclass
class ExtractSettings:
    """Settings of unit extraction."""

    batch_seconds: float = 120.0  # seconds of speech in one pass of the encoder
    shard_pairs: int = 1000  # utterance pairs in one file
    workers: int = 2  # threads that read audio ahead


@dataclass(frozen=True)
class Item:
    """One recording to be turned into units; `text` is None where there is nothing to align."""

    id: str
    side: str
    language: str
    audio: str
    text: str | None
    seconds: float


def items_of(pairs: Sequence[Pair]) -> list[Item]:
    """The recordings of pairs, sides in the order src, tgt."""
    items = []
    for pair in pairs:
        if pair.src_audio:
            items.append(Item(pair.id, "src", pair.src_lang, pair.src_audio, pair.src_text, pair.src_seconds))
        if pair.tgt_audio:
            items.append(Item(pair.id, "tgt", pair.tgt_lang, pair.tgt_audio, pair.tgt_text, pair.tgt_seconds))
    return items


def batches_of(items: Sequence[Item], batch_seconds: float) -> list[list[int]]:
    """Indices of `items` in batches of similar length and at most `batch_seconds` of padded speech."""
    batches: list[list[int]] = []
    for i in sorted(range(len(items)), key=lambda i: (items[i].seconds, i)):
        if batches and items[i].seconds * (len(batches[-1]) + 1) <= batch_seconds:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


class UnitExtractor:
    """An encoder with its codebook: waveforms in, units out; with a transcript, word frames as well."""

    def __init__(self, model: Wav2Vec2BertForCTC, vocabulary: CharacterVocabulary, codebook: Codebook) -> None:
        self.model, self.vocabulary, self.codebook = model, vocabulary, codebook

    @classmethod
    def load(cls, encoder: Path, codebook: Path) -> "UnitExtractor":
        """From an encoder folder and a codebook folder. Raises InputError when they do not belong together."""
        book = Codebook.load(codebook)
        if book.encoder != encoder_fingerprint(encoder):
            raise InputError(f"{codebook}: this codebook was made with another encoder than {encoder}")
        return cls(*load_encoder(encoder), book)

    def extract(
        self, waveforms: Sequence[np.ndarray], texts: Sequence[str | None] | None = None
    ) -> list[tuple[np.ndarray, WordFrames | None]]:
        """Units (uint16 [frames]) of each waveform (16 kHz), and its word frames where a text is given."""
        features = extract_features(waveforms)
        batch, mask = pad_features(features)
        hidden, log_probs = encode(self.model, batch, mask, self.codebook.layer)
        lengths = mask.sum(1)
        flat = self.codebook.assign(hidden[mask.bool()])
        units = [u.numpy().astype(np.uint16) for u in flat.split(lengths.tolist())]
        words = self._align(log_probs, lengths, texts) if texts else [None] * len(units)
        return list(zip(units, words, strict=True))

    def _align(
        self, log_probs: torch.Tensor, lengths: torch.Tensor, texts: Sequence[str | None]
    ) -> list[WordFrames | None]:
        targets = [self.vocabulary.encode(text or "") for text in texts]
        positions, _ = forced_align(log_probs, lengths, targets, self.vocabulary.blank)
        return [
            word_frames(at, target, log_probs[i].numpy(), self.vocabulary.delimiter) if text else None
            for i, (at, target, text) in enumerate(zip(positions, targets, texts, strict=True))
        ]


def train_codebook(folder: Path, settings: CodebookSettings, corpus: Path, encoder: Path) -> Outcome:
    """Fit the codebook on frames of the train split; writes codebook.safetensors and codebook.json to `folder`."""
    items = items_of(read_manifest(corpus, "train"))
    chosen = _sample(items, settings.max_frames, settings.seed)
    model, _ = load_encoder(encoder)
    rows = []
    with meter("codebook: hidden states", len(chosen)) as progress:
        for batch, waveforms in _read_ahead(chosen, batches_of(chosen, 120.0), workers=2):
            features, mask = pad_features(extract_features(waveforms))
            hidden, _ = encode(model, features, mask, settings.layer)
            rows.append(hidden[mask.bool()])
            progress.advance(len(batch))
    result = kmeans(torch.cat(rows), settings.num_units, settings.seed, settings.iterations)
    Codebook(result.centroids, settings.layer, encoder_fingerprint(encoder)).save(folder)
    return Outcome(
        counts={
            "units": settings.num_units,
            "frames": sum(map(len, rows)),
            "inertia": round(result.inertia, 3),
            "dead": result.dead,
            "perplexity": round(result.perplexity, 1),
        }
    )


def extract_units(folder: Path, settings: ExtractSettings, corpus: Path, encoder: Path, codebook: Path) -> Outcome:
    """Extract units and word frames of every pair into Parquet shards in `folder`; finished shards are kept."""
    extractor = UnitExtractor.load(encoder, codebook)
    pairs = read_manifest(corpus)
    metadata = {
        "codebook": extractor.codebook.fingerprint,
        "num_units": str(extractor.codebook.num_units),
        "frame_rate": str(FRAME_RATE),
    }
    starts = range(0, len(pairs), settings.shard_pairs)
    with meter("units: extracting", len(pairs)) as progress:
        for number, first in enumerate(starts):
            part = pairs[first : first + settings.shard_pairs]
            if not shard_path(folder, number).exists():
                write_shard(folder, number, _extract_shard(extractor, items_of(part), settings), metadata)
            progress.advance(len(part))
    return _summary(folder, pairs)


def _extract_shard(extractor: UnitExtractor, items: Sequence[Item], settings: ExtractSettings) -> list[UnitRow]:
    usable = [item for item in items if num_frames(round(item.seconds * 16_000)) > 0]
    rows: list[UnitRow | None] = [None] * len(usable)
    for batch, waveforms in _read_ahead(usable, batches_of(usable, settings.batch_seconds), settings.workers):
        part = [usable[i] for i in batch]
        for i, item, (units, words) in zip(
            batch, part, extractor.extract(waveforms, [x.text for x in part]), strict=True
        ):
            words = words or WordFrames(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))
            spoken = item.text.split(" ") if item.text else []
            rows[i] = UnitRow(item.id, item.side, units, spoken, words.starts, words.ends, words.scores)
    return [row for row in rows if row is not None]


def _read_ahead(
    items: Sequence[Item], batches: Sequence[Sequence[int]], workers: int
) -> Iterator[tuple[Sequence[int], list[np.ndarray]]]:
    """Waveforms of each batch, the next batch being read while the caller works on this one."""
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:

        def submit(batch: Sequence[int]) -> list:
            return [pool.submit(read_audio, items[i].audio) for i in batch]

        ahead = [submit(batch) for batch in batches[:1]]
        for number, batch in enumerate(batches):
            if number + 1 < len(batches):
                ahead.append(submit(batches[number + 1]))
            yield batch, [future.result() for future in ahead.pop(0)]


def _sample(items: Sequence[Item], max_frames: int, seed: int) -> list[Item]:
    """Recordings of about `max_frames` frames in all, the same amount of every language as far as it reaches."""
    by_language: dict[str, list[Item]] = {}
    for item in items:
        by_language.setdefault(item.language, []).append(item)
    rng = random.Random(seed)
    chosen: list[Item] = []
    left = float(max_frames)
    # Smallest language first: what it cannot use goes to the others.
    ordered = sorted(by_language.values(), key=lambda group: sum(i.seconds for i in group))
    for number, group in enumerate(ordered):
        rng.shuffle(group)
        quota, used = left / (len(ordered) - number), 0.0
        for item in group:
            if used >= quota:
                break
            used += item.seconds * FRAME_RATE
            chosen.append(item)
        left -= used
    return chosen


def _summary(folder: Path, pairs: Sequence[Pair]) -> Outcome:
    rows = read_units(folder)
    frames = sum(len(row.units) for row in rows.values())
    scores = np.concatenate([row.scores for row in rows.values()] or [np.empty(0)])
    skipped = [
        {"id": f"{pair.id}/{side}", "reason": "shorter than one frame"}
        for pair in pairs
        for side in SIDES
        if getattr(pair, f"{side}_audio") and (pair.id, side) not in rows
    ]
    counts = {
        "recordings": len(rows),
        "frames": frames,
        "words": len(scores),
        "unsure_words": int((scores < 0.5).sum()),
    }
    return Outcome(counts=counts, skipped=skipped)
