"""Fitting the codebook: a bounded sample of the train split through the encoder, k-means, and a quality report."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from unitweave.config.units import CodebookSettings
from unitweave.core.errors import InputError
from unitweave.core.manifest import read_manifest
from unitweave.core.progress import meter
from unitweave.core.stage import StageResult
from unitweave.training.devices import resolve_device
from unitweave.units.codebook import Codebook, nearest
from unitweave.units.encoder import CharacterVocabulary, encoder_fingerprint, load_encoder
from unitweave.units.inference import EncoderInference, single_threads
from unitweave.units.kmeans import kmeans
from unitweave.units.quality import Agreement, frame_characters
from unitweave.units.reading import map_ordered, read_features
from unitweave.units.sampling import Recording, Recordings, batches_by_length, list_recordings, sample_recordings

_QUALITY_FRAMES = 50_000  # frames of the sample that character purity is measured on


def train_codebook(folder: Path, settings: CodebookSettings, corpus: Path, encoder: Path) -> StageResult:
    """Fit the codebook on frames of the train split; writes codebook.safetensors and codebook.json to `folder`.

    The counts of the outcome report inertia, dead clusters, the perplexity of the units in use, the purity
    of their characters (see quality.py), and the memory that the sample takes.
    """
    model, vocabulary, front_end = load_encoder(encoder, resolve_device("auto"))
    states = hidden_sample(EncoderInference(model, front_end), vocabulary, corpus, [settings.layer], settings)
    result = kmeans(states.hidden[0], settings.num_units, settings.seed, settings.max_iterations)
    Codebook(result.centroids, settings.layer, encoder_fingerprint(encoder)).save(folder)
    agreement = Agreement.of(nearest(states.hidden[0][:_QUALITY_FRAMES], result.centroids)[0], states.characters)
    return StageResult(
        counts={
            "units": settings.num_units,
            "frames": len(states.hidden[0]),
            "inertia": round(result.inertia, 3),
            "dead": result.dead,
            "perplexity": round(result.perplexity, 1),
            "character_purity": round(agreement.purity, 4),
            "normalized_mutual_information": round(agreement.normalized_mutual_information, 4),
            "sample_mib": round(states.hidden[0].nbytes / 2**20),
        }
    )


@dataclass
class HiddenSample:
    """Frames for k-means: per layer float32 [frames, hidden], and the character of each (-1: none) int64 [frames]."""

    hidden: list[torch.Tensor]
    characters: torch.Tensor


def hidden_sample(
    inference: EncoderInference,
    vocabulary: CharacterVocabulary,
    corpus: Path,
    layers: Sequence[int],
    settings: CodebookSettings,
    split: str = "train",
) -> HiddenSample:
    """Hidden states of at most `settings.max_frames` frames of a split, at each of the `layers` (ascending)."""
    items = list_recordings(read_manifest(corpus, split))
    chosen = sample_recordings(items, settings.max_frames, settings.seed, inference.front_end.frame_rate)
    if not len(chosen):
        raise InputError(f"{corpus}: no recordings in the {split} split")
    size = inference.model.config.hidden_size
    rows = [torch.empty(settings.max_frames, size) for _ in layers]
    characters = torch.empty(settings.max_frames, dtype=torch.long)
    filled = 0
    with meter("codebook: hidden states", len(chosen)) as progress:
        for count, hidden, named in _encoded(inference, vocabulary, chosen, layers):
            take = min(len(named), settings.max_frames - filled)
            for row, new in zip(rows, hidden, strict=True):
                row[filled : filled + take] = new[:take]
            characters[filled : filled + take] = torch.from_numpy(named[:take])
            filled += take
            progress.advance(count)
    return HiddenSample([row[:filled] for row in rows], characters[:filled])


def _encoded(
    inference: EncoderInference, vocabulary: CharacterVocabulary, items: Recordings, layers: Sequence[int]
) -> Iterator[tuple[int, list[torch.Tensor], np.ndarray]]:
    """For each batch of items: their number, hidden states of each layer [frames, hidden], characters [frames]."""
    front_end = inference.front_end
    read = partial(read_features, front_end)

    def run(batch: list[Recording], features: list[torch.Tensor]) -> tuple[int, list[torch.Tensor], np.ndarray]:
        usable = [i for i, feature in enumerate(features) if len(feature)]
        if not usable:  # all of them shorter than a frame
            return len(batch), [torch.empty(0, inference.model.config.hidden_size)] * len(layers), np.empty(0, np.int64)
        encoded = inference([features[i] for i in usable], layers)
        hidden = [torch.cat([states[n].cpu() for states, _ in encoded]) for n in range(len(layers))]
        log_probs = [ctc.cpu().numpy() for _, ctc in encoded]
        named = frame_characters(log_probs, [batch[i].text for i in usable], vocabulary, front_end.squeeze)
        return len(batch), hidden, named

    places = batches_by_length(items.seconds, 60.0)
    # Not by length: where the sample is cut off, no length of recording shall be missing.
    order = np.random.default_rng(0).permutation(len(places))
    batches = (list(items.take(np.array(places[i]))) for i in order)
    with single_threads(0) as pool:
        if inference.batched:
            for batch, features in map_ordered(pool, read, batches):
                yield run(batch, features)
        else:
            for _, result in map_ordered(pool, lambda batch: run(batch, read(batch)), batches):
                if result[0]:
                    yield result
