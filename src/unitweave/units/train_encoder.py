"""CTC fine-tuning of the speech encoder on the source and target recordings of a corpus."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jiwer
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import SeamlessM4TFeatureExtractor, Trainer, TrainingArguments, Wav2Vec2BertForCTC, set_seed

from unitweave.core.audio import read_audio
from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path, remove
from unitweave.core.manifest import Pair, read_manifest
from unitweave.core.optim import make_optimiser
from unitweave.core.progress import meter
from unitweave.core.stage import Outcome
from unitweave.core.training import MeterCallback, last_checkpoint, quiet_transformers, use_bf16
from unitweave.units.encoder import CharacterVocabulary, SmallEncoder, ctc_config, encode, load_encoder, new_encoder
from unitweave.units.features import extract_features, num_frames, pad_features


@dataclass
class EncoderSettings:
    """Settings of the speech encoder's CTC training."""

    pretrained: str | None = None  # folder or hub name of a Wav2Vec2Bert checkpoint; null trains from scratch
    shape: SmallEncoder = field(default_factory=SmallEncoder)  # used only without `pretrained`
    steps: int = 350  # optimiser steps
    batch_seconds: float = 70.0  # seconds of speech in a batch of one process
    accumulation: int = 1  # batches per optimiser step
    optimiser: str = "adam"  # "adam", or "muon", which learns faster from scratch
    learning_rate: float = 2e-3
    warmup: float = 0.1  # share of the steps
    weight_decay: float = 0.01
    max_seconds: float = 30.0  # longer recordings are left out of training
    precision: str = "bf16"  # "bf16" or "fp32"
    gradient_checkpointing: bool = False
    checkpoint_every: int = 100  # steps
    workers: int = 0  # processes that read audio ahead
    seed: int = 1


@dataclass(frozen=True)
class Recording:
    """One side of a pair as the encoder sees it."""

    id: str
    language: str
    audio: str
    text: str
    seconds: float


def recordings(pairs: Sequence[Pair], max_seconds: float) -> list[Recording]:
    """Every transcribed recording of the pairs, both sides."""
    found = []
    for pair in pairs:
        for side, language, audio, text, seconds in (
            ("src", pair.src_lang, pair.src_audio, pair.src_text, pair.src_seconds),
            ("tgt", pair.tgt_lang, pair.tgt_audio, pair.tgt_text, pair.tgt_seconds),
        ):
            if audio and text and seconds <= max_seconds:
                found.append(Recording(f"{pair.id}/{side}", language, audio, text, seconds))
    return found


class SpeechDataset(Dataset):
    """Features and character ids of recordings."""

    def __init__(self, items: Sequence[Recording], vocabulary: CharacterVocabulary) -> None:
        self.items, self.vocabulary = items, vocabulary

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.items[index]
        return {"waveform": read_audio(item.audio), "labels": self.vocabulary.encode(item.text)}


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pad a batch: features [batch, frames, 160], labels [batch, characters] with -100 where padded."""
    features, mask = pad_features(extract_features([s["waveform"] for s in samples]), multiple=16)
    longest = max(len(s["labels"]) for s in samples)
    labels = torch.full((len(samples), -(-longest // 8) * 8), -100)
    for i, sample in enumerate(samples):
        labels[i, : len(sample["labels"])] = torch.tensor(sample["labels"])
    return {"input_features": features, "attention_mask": mask, "labels": labels}


class LengthBatches(Sampler[list[int]]):
    """Batches of recordings of similar length, a bounded number of seconds each, in an order drawn from the seed."""

    def __init__(self, seconds: Sequence[float], batch_seconds: float, seed: int) -> None:
        self.seconds, self.batch_seconds, self.seed, self.epoch = seconds, batch_seconds, seed, 0
        self.batches = self._batches(0)

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        yield from self._batches(self.epoch)

    def _batches(self, epoch: int) -> list[list[int]]:
        rng = random.Random(self.seed * 1_000_003 + epoch)
        # Lengths are sorted with a little noise, so that a recording meets other ones in each epoch.
        order = sorted(range(len(self.seconds)), key=lambda i: self.seconds[i] * rng.uniform(0.9, 1.1))
        batches: list[list[int]] = [[]]
        longest = 0.0
        for i in order:
            longest = max(longest, self.seconds[i])
            if batches[-1] and longest * (len(batches[-1]) + 1) > self.batch_seconds:
                batches.append([])
                longest = self.seconds[i]
            batches[-1].append(i)
        rng.shuffle(batches)
        return batches


class EncoderTrainer(Trainer):
    """Trainer whose batches are length-bucketed."""

    sampler: LengthBatches
    optimiser: str = "adam"
    optimizer: torch.optim.Optimizer | None

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The optimiser that the settings name."""
        if self.optimizer is None:
            args = self.args
            self.optimizer = make_optimiser(self.optimiser, self.model, args.learning_rate, args.weight_decay)
        return self.optimizer

    def get_train_dataloader(self) -> DataLoader:
        """Batches of similar length; accelerate spreads them over the processes."""
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=self.sampler,
            collate_fn=collate,
            num_workers=self.args.dataloader_num_workers,
        )
        return self.accelerator.prepare(loader)


def train_encoder(folder: Path, settings: EncoderSettings, corpus: Path) -> Outcome:
    """Train the encoder on the corpus' train split; writes a transformers checkpoint with vocab.json to `folder`.

    Goes on from the last checkpoint in `folder` after an interruption. Measures WER and CER per
    language on the dev split.
    """
    quiet_transformers()
    train = recordings(read_manifest(corpus, "train"), settings.max_seconds)
    if not train:
        raise InputError(f"{corpus}: no recording with a transcript to train the encoder on")
    vocabulary = CharacterVocabulary.from_texts(item.text for item in train)
    too_short = [i for i in train if num_frames(int(i.seconds * 16_000)) < len(i.text)]
    train = [i for i in train if num_frames(int(i.seconds * 16_000)) >= len(i.text)]
    set_seed(settings.seed)
    model = _initial_model(settings, vocabulary)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    work = folder / "checkpoints"
    trainer = EncoderTrainer(
        model=model,
        args=_arguments(work, settings),
        train_dataset=SpeechDataset(train, vocabulary),
    )
    trainer.optimiser = settings.optimiser
    trainer.sampler = LengthBatches([i.seconds for i in train], settings.batch_seconds, settings.seed)
    with meter("encoder: training", settings.steps) as progress:
        trainer.remove_callback(_printer())
        trainer.add_callback(MeterCallback(progress))
        trainer.train(resume_from_checkpoint=last_checkpoint(work))
    with atomic_path(folder / "model") as temporary:
        temporary.mkdir()
        trainer.model.eval().save_pretrained(temporary)
        vocabulary.save(temporary)
        SeamlessM4TFeatureExtractor().save_pretrained(temporary)
    remove(work)
    dev = recordings(read_manifest(corpus, "dev"), settings.max_seconds)
    return Outcome(
        counts={"recordings": len(train), "characters": len(vocabulary.tokens), **error_rates(folder / "model", dev)},
        skipped=[{"id": i.id, "reason": "fewer frames than characters"} for i in too_short],
    )


def error_rates(model_folder: Path, items: Sequence[Recording], batch: int = 32) -> dict[str, float]:
    """WER and CER per language of the greedy CTC output, in percent."""
    model, vocabulary = load_encoder(model_folder)
    layer = model.config.num_hidden_layers
    pairs: dict[str, list[tuple[str, str]]] = {}
    ordered = sorted(items, key=lambda item: item.seconds)
    for first in range(0, len(ordered), batch):
        part = ordered[first : first + batch]
        features, mask = pad_features(extract_features([read_audio(i.audio) for i in part]))
        _, log_probs = encode(model, features, mask, layer)
        for item, best, length in zip(part, log_probs.argmax(-1).tolist(), mask.sum(1).tolist(), strict=True):
            pairs.setdefault(item.language, []).append((item.text, vocabulary.decode(best[:length])))
    rates = {}
    for language, texts in sorted(pairs.items()):
        references, hypotheses = (list(side) for side in zip(*texts, strict=True))
        rates[f"wer_{language}"] = round(100 * jiwer.wer(references, hypotheses), 2)
        rates[f"cer_{language}"] = round(100 * jiwer.cer(references, hypotheses), 2)
    return rates


def _initial_model(settings: EncoderSettings, vocabulary: CharacterVocabulary) -> Wav2Vec2BertForCTC:
    if settings.pretrained is None:
        return new_encoder(settings.shape, vocabulary)
    try:
        return Wav2Vec2BertForCTC.from_pretrained(
            settings.pretrained, ignore_mismatched_sizes=True, dtype=torch.float32, **ctc_config(vocabulary)
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"encoder.pretrained {settings.pretrained!r} cannot be loaded: {str(error).splitlines()[0]}"
        ) from None


def _arguments(work: Path, settings: EncoderSettings) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(work),
        max_steps=settings.steps,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=int(settings.warmup * settings.steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=1.0,
        bf16=use_bf16(settings.precision),
        use_cpu=not torch.cuda.is_available(),
        save_steps=settings.checkpoint_every,
        save_total_limit=1,
        logging_steps=10,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=settings.workers,
        seed=settings.seed,
    )


def _printer() -> type:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback
