"""A corpus of noise and tones with a tiny random encoder and codebook on it, for the tests of units."""

from pathlib import Path

import numpy as np
import torch
from transformers import Wav2Vec2BertConfig, Wav2Vec2BertForCTC

from unitweave.core.audio import write_audio
from unitweave.core.manifest import Pair, write_manifest
from unitweave.units.codebook import Codebook
from unitweave.units.encoder import CharacterVocabulary, ctc_config, encoder_fingerprint

WORDS = ("una", "casa", "roja", "el", "perro", "duerme", "the", "dog", "sleeps")


def waveform(seed: int, samples: int) -> np.ndarray:
    """Tones that come and go over noise: float32 [samples]."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / 16_000
    tones = sum(
        rng.uniform(0.05, 0.2) * np.sin(2 * np.pi * f * time + rng.uniform(0, 6)) for f in rng.uniform(90, 3000, 4)
    )
    return np.float32(tones * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * time)) + rng.normal(0, 0.01, samples))


def write_corpus(folder: Path, pairs: int, seed: int = 0) -> Path:
    """A manifest with recordings of 0.3 to 1.5 seconds by three speakers; every fourth pair is dev."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(pairs):
        paths, seconds = [], []
        for side in ("src", "tgt"):
            samples = int(rng.integers(4_800, 24_000))
            paths.append(folder / f"audio/{i:03d}_{side}.wav")
            write_audio(paths[-1], waveform(1000 * seed + 2 * i + (side == "tgt"), samples))
            seconds.append(samples / 16_000)
        texts = [" ".join(rng.choice(WORDS, int(rng.integers(1, 3)))) for _ in range(2)]
        rows.append(
            Pair(
                id=f"u{i:03d}",
                split="dev" if i % 4 == 3 else "train",
                src_lang="es",
                tgt_lang="en",
                src_audio=str(paths[0]),
                tgt_audio=str(paths[1]),
                src_text=texts[0],
                tgt_text=texts[1],
                speaker=f"s{i % 3}",
                src_seconds=seconds[0],
                tgt_seconds=seconds[1],
            )
        )
    write_manifest(folder, rows)
    return folder


def tiny_model(positions: str = "rotary", vocab: int | None = None) -> tuple[Wav2Vec2BertForCTC, CharacterVocabulary]:
    """Two blocks of 32 with random weights that spread their outputs."""
    vocabulary = CharacterVocabulary.from_texts(WORDS)
    torch.manual_seed(0)
    config = Wav2Vec2BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        conv_depthwise_kernel_size=5, position_embeddings_type=positions, initializer_range=0.3,
        left_max_position_embeddings=16, right_max_position_embeddings=4, **ctc_config(vocabulary),
    )  # fmt: skip
    return Wav2Vec2BertForCTC(config).eval(), vocabulary


def write_encoder(folder: Path, clusters: int = 64) -> tuple[Path, Path]:
    """Save a tiny encoder and a random codebook for it; returns their folders."""
    model, vocabulary = tiny_model()
    model.save_pretrained(folder / "encoder")
    vocabulary.save(folder / "encoder")
    generator = torch.Generator().manual_seed(1)
    # Hidden states after a block are layer-normed: random normal centroids lie among them.
    centroids = torch.randn(clusters, 32, generator=generator)
    Codebook(centroids, 2, encoder_fingerprint(folder / "encoder")).save(folder / "codebook")
    return folder / "encoder", folder / "codebook"
