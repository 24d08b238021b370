"""CTC fine-tuning of the speech encoder on the source and target recordings of a corpus."""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
import soxr
import torch
from accelerate.utils import gather_object
from torch.utils.data import Dataset, Sampler
from transformers import (
    EarlyStoppingCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback

from unitweave.config.units import EncoderSettings
from unitweave.core.audio import SAMPLE_RATE, read_audio
from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path
from unitweave.core.manifest import read_manifest
from unitweave.core.progress import echo, meter
from unitweave.core.stage import StageResult
from unitweave.training.checkpoints import CheckpointedTrainer, last_checkpoint
from unitweave.training.trainer import MeterCallback, quiet_transformers, training_arguments
from unitweave.units.encoder import CharacterVocabulary, SpeechEncoder
from unitweave.units.error_rates import (
    error_rates,
    error_rates_by_language,
    folded,
    subsample,
    transcribe,
    transcribed_recordings,
)
from unitweave.units.front_end import FrontEnd
from unitweave.units.initial_encoder import initial_encoder
from unitweave.units.sampling import Recording, Recordings


class Reading(NamedTuple):
    """A recording's place in the dataset, and how many times as fast as it was spoken it is read."""

    place: int
    speed: float = 1.0


class SpeechDataset(Dataset):
    """Features and character ids of recordings."""

    def __init__(self, items: Sequence[Recording], encoder: SpeechEncoder) -> None:
        self.items, self.vocabulary, self.front_end = items, encoder.vocabulary, encoder.front_end

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, reading: Reading) -> dict[str, Any]:
        item = self.items[reading.place]
        waveform = read_audio(item.audio, expected_seconds=item.seconds)
        if reading.speed != 1:
            waveform = soxr.resample(waveform, SAMPLE_RATE * reading.speed, SAMPLE_RATE, quality="HQ")
        (features,) = self.front_end.extract([waveform])
        return {"features": features, "labels": self.vocabulary.encode(item.text or "")}

    def collate(self, samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Pad a batch: what `FrontEnd.batch` gives, and labels [batch, characters] with -100 where padded."""
        max_labels = max(len(s["labels"]) for s in samples)
        labels = torch.full((len(samples), -(-max_labels // 8) * 8), -100)
        for i, sample in enumerate(samples):
            labels[i, : len(sample["labels"])] = torch.tensor(sample["labels"])
        return {**self.front_end.batch([s["features"] for s in samples]), "labels": labels}


class LengthBatches(Sampler[list[Reading]]):
    """Batches of recordings of similar length, a bounded number of seconds each, in an order drawn from the seed.

    One process's share of an endless stream: epochs, which differ a little in their number of batches, follow
    each other in it, so that a batch's place says what it holds.

    Args:
        seconds: Length of each recording.
        batch_seconds: The most that a batch holds.
        seed: Of the order.
        total: Batches of each process over the whole training.
        first: How many of them are done already.
        rank: Of this process.
        processes: How many there are.
        speed_perturbation: How far speeds, drawn for each recording in each epoch, may be from 1.
    """

    def __init__(
        self,
        seconds: Sequence[float],
        batch_seconds: float,
        seed: int,
        total: int,
        first: int = 0,
        rank: int = 0,
        processes: int = 1,
        speed_perturbation: float = 0.0,
    ) -> None:
        self.seconds, self.batch_seconds, self.seed = seconds, batch_seconds, seed
        self.speed_perturbation = speed_perturbation
        self.total, self.first, self.rank, self.processes = total, first, rank, processes

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[list[Reading]]:
        stream = itertools.chain.from_iterable(map(self.epoch, itertools.count()))
        assigned = itertools.islice(stream, self.rank, None, self.processes)
        yield from itertools.islice(assigned, self.first, self.total)

    def epoch(self, number: int) -> list[list[Reading]]:
        """The batches of an epoch, each recording in one of them."""
        rng = random.Random(self.seed * 1_000_003 + number)
        speeds = self._speeds(number)
        lengths = [seconds / speed for seconds, speed in zip(self.seconds, speeds, strict=True)]
        # Lengths are sorted with a little noise, so that a recording meets other ones in each epoch.
        order = sorted(range(len(lengths)), key=lambda i: lengths[i] * rng.uniform(0.9, 1.1))
        batches: list[list[Reading]] = [[]]
        max_seconds = 0.0
        for i in order:
            max_seconds = max(max_seconds, lengths[i])
            if batches[-1] and max_seconds * (len(batches[-1]) + 1) > self.batch_seconds:
                batches.append([])
                max_seconds = lengths[i]
            batches[-1].append(Reading(i, speeds[i]))
        rng.shuffle(batches)
        return batches

    def _speeds(self, epoch: int) -> list[float]:
        width = self.speed_perturbation
        rng = random.Random(f"speeds {self.seed} {epoch}")
        return [1 + rng.uniform(-width, width) for _ in self.seconds]


class EncoderTrainer(CheckpointedTrainer):
    """Trainer that is evaluated by the error rates of its greedy CTC transcripts."""

    encoder: SpeechEncoder
    dev: Recordings
    plain: Callable[[str], str] = str

    def dev_scores(self, step: int) -> dict[str, float]:
        """Error rates on the dev recordings, shared out over the processes; eval_wer is the languages' mean."""
        assigned = self.dev[self.args.process_index :: self.args.world_size]
        transcripts = transcribe(self.encoder._replace(model=self.model), assigned)
        if self.args.world_size > 1:
            transcripts = gather_object(transcripts)
        rates = error_rates_by_language(transcripts, self.plain)
        echo(f"encoder: step {step}: {', '.join(f'{name} {rate:.1f}' for name, rate in rates.items())}")
        words = [rate for name, rate in rates.items() if name.startswith("wer_")]
        return {f"eval_{name}": rate for name, rate in rates.items()} | {"eval_wer": sum(words) / len(words)}


def train_encoder(folder: Path, settings: EncoderSettings, corpus: Path) -> StageResult:
    """Train the encoder on the corpus' train split; writes a transformers checkpoint with vocab.json to `folder`.

    Goes on from the last checkpoint in `folder` after an interruption. Measures WER and CER per
    language on the dev split, every `eval_steps` steps and at the end.
    """
    quiet_transformers()
    training = settings.training
    train = transcribed_recordings(read_manifest(corpus, "train"), settings.max_seconds)
    dev = transcribed_recordings(read_manifest(corpus, "dev"), settings.max_seconds)
    plain = folded if settings.fold_accents else str
    vocabulary = CharacterVocabulary.from_texts(plain(item.text or "") for item in train)
    set_seed(training.seed)
    encoder, extractor = initial_encoder(settings, vocabulary)
    model, front_end = encoder.model, encoder.front_end
    train, too_short = _long_enough(train, front_end, settings.speed_perturbation)
    _check(settings, corpus, train, dev, too_short)
    if training.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    work = folder / "checkpoints"
    arguments = _arguments(work, settings)
    resume, done = last_checkpoint(work)
    dataset = SpeechDataset(train, encoder)
    trainer = EncoderTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        eval_dataset=SpeechDataset(dev, encoder),
        callbacks=[EarlyStoppingCallback(settings.early_stopping_patience)] if settings.early_stopping_patience else [],
    )
    trainer.optimizer_name, trainer.outer_learning_rate = training.optimizer, settings.head_learning_rate
    trainer.encoder, trainer.dev, trainer.plain = encoder, subsample(dev, settings.eval_recordings), plain
    sampler = LengthBatches(
        train.seconds.tolist(),
        settings.batch_seconds,
        training.seed,
        training.steps * training.gradient_accumulation_steps,
        done * training.gradient_accumulation_steps,
        arguments.process_index,
        arguments.world_size,
        settings.speed_perturbation,
    )
    trainer.batching = {"batch_sampler": sampler, "collate_fn": dataset.collate}
    with meter("encoder: training", training.steps, done) as progress:
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(MeterCallback(progress, lambda logs: f"loss {logs['loss']:.3f}"))
        trainer.train(resume_from_checkpoint=resume and str(resume))
    steps = {"steps": trainer.state.global_step} if settings.early_stopping_patience else {}
    if not trainer.is_world_process_zero():
        trainer.accelerator.wait_for_everyone()
        return StageResult()
    with atomic_path(folder / "model") as temporary:
        temporary.mkdir()
        trainer.model.eval().save_pretrained(temporary)
        vocabulary.save(temporary)
        extractor.save_pretrained(temporary)
    trainer.accelerator.wait_for_everyone()
    return StageResult(
        counts={
            "recordings": len(train),
            "characters": len(vocabulary.tokens),
            **steps,
            **error_rates(folder / "model", dev, plain),
        },
        skipped=[{"id": i.name, "reason": "fewer frames than characters"} for i in too_short],
        obsolete=(work,),
    )


def _long_enough(
    items: Recordings, front_end: FrontEnd, speed_perturbation: float = 0.0
) -> tuple[Recordings, Recordings]:
    """The recordings that have a frame for each character at any speed, and those that have not; without those that the
    encoder cannot take at once, as if `max_seconds` left them out."""
    samples = items.seconds * SAMPLE_RATE
    shortest = (samples / (1 + speed_perturbation)).astype(np.int64)
    characters = pc.utf8_length(pc.fill_null(items.column("text"), "")).to_numpy(zero_copy_only=False)
    fits = (samples / (1 - speed_perturbation)).astype(np.int64) <= front_end.max_samples
    frames = np.fromiter(map(front_end.ctc_frames, shortest.tolist()), np.int64, len(items))
    return items.take(fits & (frames >= characters)), items.take(fits & (frames < characters))


def _check(
    settings: EncoderSettings,
    corpus: Path,
    train: Recordings,
    dev: Recordings,
    too_short: Recordings,
) -> None:
    if not len(train) and len(too_short):
        raise InputError(
            f"{corpus}: every recording has fewer frames than characters, first {too_short[0].name} "
            f"({too_short[0].seconds:.2f} s); are the durations in the manifest right?"
        )
    if not len(train):
        raise InputError(
            f"{corpus}: no recording with a transcript lasts at most encoder.max_seconds ({settings.max_seconds:g}), "
            "so there is nothing to train the encoder on"
        )
    if settings.eval_steps and not len(dev):
        raise InputError(f"{corpus}: encoder.eval_steps needs recordings in the dev split, and there are none")


def _arguments(work: Path, settings: EncoderSettings) -> TrainingArguments:
    stops_early = settings.early_stopping_patience > 0
    return training_arguments(
        work,
        settings.training,
        # The best checkpoint can only be kept where there is one: at each evaluation.
        save_steps=settings.eval_steps if stops_early else settings.training.save_steps,
        eval_strategy="steps" if settings.eval_steps else "no",
        eval_steps=settings.eval_steps or None,
        load_best_model_at_end=stops_early,
        metric_for_best_model="eval_wer" if stops_early else None,
        greater_is_better=False if stops_early else None,
        restore_callback_states_from_checkpoint=stops_early,  # how long the WER has not fallen
        ddp_find_unused_parameters=True,  # layerdrop, and the mask's vector where nothing is masked
    )
