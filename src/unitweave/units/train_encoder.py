"""CTC fine-tuning of the speech encoder on the source and target recordings of a corpus."""

import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from safetensors import safe_open
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import (
    AutoConfig,
    EarlyStoppingCallback,
    SeamlessM4TFeatureExtractor,
    TrainerControl,
    TrainingArguments,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback

from unitweave.config.units import EncoderSettings
from unitweave.core.audio import read_audio
from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path, read_json_object
from unitweave.core.manifest import read_manifest
from unitweave.core.progress import meter, say
from unitweave.core.signals import ignore_signals
from unitweave.core.stage import StageResult
from unitweave.training.checkpoints import CheckpointedTrainer, last_checkpoint
from unitweave.training.model_files import (
    SAFE_LOADING,
    check_model_config,
    check_model_folder,
    loading_errors,
    safetensors_errors,
)
from unitweave.training.optimizers import make_optimizer
from unitweave.training.trainer import MeterCallback, quiet_transformers, training_arguments
from unitweave.units.encoder import CharacterVocabulary, ctc_config, new_encoder
from unitweave.units.error_rates import (
    error_rates,
    error_rates_by_language,
    subsample,
    transcribe,
    transcribed_recordings,
)
from unitweave.units.features import extract_features, num_frames, pad_features
from unitweave.units.sampling import Recording


class SpeechDataset(Dataset):
    """Features and character ids of recordings."""

    def __init__(self, items: Sequence[Recording], vocabulary: CharacterVocabulary) -> None:
        self.items, self.vocabulary = items, vocabulary

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.items[index]
        waveform = read_audio(item.audio, expected_seconds=item.seconds)
        return {"waveform": waveform, "labels": self.vocabulary.encode(item.text or "")}


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pad a batch: features [batch, frames, 160], labels [batch, characters] with -100 where padded."""
    features, mask = pad_features(extract_features([s["waveform"] for s in samples]), multiple=16)
    max_labels = max(len(s["labels"]) for s in samples)
    labels = torch.full((len(samples), -(-max_labels // 8) * 8), -100)
    for i, sample in enumerate(samples):
        labels[i, : len(sample["labels"])] = torch.tensor(sample["labels"])
    return {"input_features": features, "attention_mask": mask, "labels": labels}


class LengthBatches(Sampler[list[int]]):
    """Batches of recordings of similar length, a bounded number of seconds each, in an order drawn from the seed.

    One process's share of an endless stream: epochs, which differ a little in their number of batches, follow
    each other in it, so that a batch's place says what it holds.

    total  batches of each process over the whole training
    first  how many of them are done already
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
    ) -> None:
        self.seconds, self.batch_seconds, self.seed = seconds, batch_seconds, seed
        self.total, self.first, self.rank, self.processes = total, first, rank, processes

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[list[int]]:
        stream = itertools.chain.from_iterable(map(self.epoch, itertools.count()))
        own = itertools.islice(stream, self.rank, None, self.processes)
        yield from itertools.islice(own, self.first, self.total)

    def epoch(self, number: int) -> list[list[int]]:
        """The batches of an epoch, each recording in one of them."""
        rng = random.Random(self.seed * 1_000_003 + number)
        # Lengths are sorted with a little noise, so that a recording meets other ones in each epoch.
        order = sorted(range(len(self.seconds)), key=lambda i: self.seconds[i] * rng.uniform(0.9, 1.1))
        batches: list[list[int]] = [[]]
        max_seconds = 0.0
        for i in order:
            max_seconds = max(max_seconds, self.seconds[i])
            if batches[-1] and max_seconds * (len(batches[-1]) + 1) > self.batch_seconds:
                batches.append([])
                max_seconds = self.seconds[i]
            batches[-1].append(i)
        rng.shuffle(batches)
        return batches


class EncoderTrainer(CheckpointedTrainer):
    """Trainer with length-bucketed batches, evaluated by the error rates of its greedy CTC transcripts."""

    sampler: LengthBatches
    vocabulary: CharacterVocabulary
    control: TrainerControl
    dev: Sequence[Recording] = ()
    optimizer_name: str = "adam"
    optimizer: torch.optim.Optimizer | None

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The optimizer that the settings name."""
        if self.optimizer is None:
            args = self.args
            self.optimizer = make_optimizer(self.optimizer_name, self.model, args.learning_rate, args.weight_decay)
        return self.optimizer

    def get_train_dataloader(self) -> DataLoader:
        """Batches of similar length: the sampler itself knows the process and where to go on."""
        return DataLoader(
            self.train_dataset,
            batch_sampler=self.sampler,
            collate_fn=collate,
            num_workers=self.args.dataloader_num_workers,
            worker_init_fn=ignore_signals,
            # Of its own: drawing from torch's after a resumption has put that back would change all that follows.
            generator=torch.Generator().manual_seed(self.args.seed),
        )

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Error rates on the dev recordings, shared out over the processes; eval_wer is the languages' mean."""
        own = self.dev[self.args.process_index :: self.args.world_size]
        transcripts = transcribe(self.model, self.vocabulary, own)
        if self.args.world_size > 1:
            transcripts = gather_object(transcripts)
        rates = error_rates_by_language(transcripts)
        words = [rate for name, rate in rates.items() if name.startswith("wer_")]
        metrics = {f"eval_{name}": rate for name, rate in rates.items()} | {"eval_wer": sum(words) / len(words)}
        self.log(dict(metrics))
        shown = ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())
        say(f"encoder: step {self.state.global_step}: {shown}")
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def train_encoder(folder: Path, settings: EncoderSettings, corpus: Path) -> StageResult:
    """Train the encoder on the corpus' train split; writes a transformers checkpoint with vocab.json to `folder`.

    Goes on from the last checkpoint in `folder` after an interruption. Measures WER and CER per
    language on the dev split, every `eval_steps` steps and at the end.
    """
    quiet_transformers()
    training = settings.training
    train = transcribed_recordings(read_manifest(corpus, "train"), settings.max_seconds)
    dev = transcribed_recordings(read_manifest(corpus, "dev"), settings.max_seconds)
    vocabulary = CharacterVocabulary.from_texts(item.text or "" for item in train)
    too_short = [i for i in train if num_frames(int(i.seconds * 16_000)) < len(i.text or "")]
    train = [i for i in train if num_frames(int(i.seconds * 16_000)) >= len(i.text or "")]
    _check(settings, corpus, train, dev, too_short)
    set_seed(training.seed)
    model = _initial_model(settings, vocabulary)
    if training.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    work = folder / "checkpoints"
    arguments = _arguments(work, settings)
    resume, done = last_checkpoint(work)
    trainer = EncoderTrainer(
        model=model,
        args=arguments,
        train_dataset=SpeechDataset(train, vocabulary),
        eval_dataset=SpeechDataset(dev, vocabulary),
        callbacks=[EarlyStoppingCallback(settings.early_stopping_patience)] if settings.early_stopping_patience else [],
    )
    trainer.optimizer_name = training.optimizer
    trainer.vocabulary, trainer.dev = vocabulary, subsample(dev, settings.eval_recordings)
    trainer.sampler = LengthBatches(
        [i.seconds for i in train],
        settings.batch_seconds,
        training.seed,
        training.steps * training.gradient_accumulation_steps,
        done * training.gradient_accumulation_steps,
        arguments.process_index,
        arguments.world_size,
    )
    with meter("encoder: training", training.steps, done) as progress:
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(MeterCallback(progress))
        trainer.train(resume_from_checkpoint=resume and str(resume))
    steps = {"steps": trainer.state.global_step} if settings.early_stopping_patience else {}
    if not trainer.is_world_process_zero():
        trainer.accelerator.wait_for_everyone()
        return StageResult()
    with atomic_path(folder / "model") as temporary:
        temporary.mkdir()
        trainer.model.eval().save_pretrained(temporary)
        vocabulary.save(temporary)
        SeamlessM4TFeatureExtractor().save_pretrained(temporary)
    trainer.accelerator.wait_for_everyone()
    return StageResult(
        counts={
            "recordings": len(train),
            "characters": len(vocabulary.tokens),
            **steps,
            **error_rates(folder / "model", dev),
        },
        skipped=[{"id": i.name, "reason": "fewer frames than characters"} for i in too_short],
        obsolete=(work,),
    )


def _check(
    settings: EncoderSettings,
    corpus: Path,
    train: Sequence[Recording],
    dev: Sequence[Recording],
    too_short: Sequence[Recording],
) -> None:
    if not train and too_short:
        raise InputError(
            f"{corpus}: every recording has fewer frames than characters, first {too_short[0].name} "
            f"({too_short[0].seconds:.2f} s); does the manifest give their seconds?"
        )
    if not train:
        raise InputError(f"{corpus}: no recording with a transcript to train the encoder on")
    if settings.eval_steps and not dev:
        raise InputError(f"{corpus}: encoder.eval_steps needs recordings in the dev split, and there are none")


def _initial_model(settings: EncoderSettings, vocabulary: CharacterVocabulary) -> Wav2Vec2BertForCTC:
    if settings.pretrained is None:
        return new_encoder(settings.shape, vocabulary, **_regularization(settings))
    name = settings.pretrained
    check_model_folder(name)
    with loading_errors(f"encoder.pretrained {name!r}", "speech encoder"):
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    check_model_config(config.to_dict(), f"encoder.pretrained {name!r}")
    if config.model_type != Wav2Vec2BertConfig.model_type:
        # transformers would load it, leaving all weights random, and say so where nobody looks.
        raise InputError(
            f"encoder.pretrained {name!r} must be a Wav2Vec2Bert model (got {config.model_type}); "
            "units of another encoder come in with 'unitweave units import'"
        )
    with loading_errors(f"encoder.pretrained {name!r}", "speech encoder"):
        model, loading = Wav2Vec2BertForCTC.from_pretrained(
            name,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            dtype=torch.float32,
            **SAFE_LOADING,
            **(ctc_config(vocabulary) | _regularization(settings)),
        )
    missing = {*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])}
    absent = sorted(key for key in missing if not key.startswith("lm_head.") and "masked_spec_embed" not in key)
    if absent:
        raise InputError(
            f"encoder.pretrained {name!r} lacks weights of a Wav2Vec2Bert model: {absent[0]} and {len(absent) - 1} more"
        )
    _keep_known_characters(model, vocabulary, Path(name))
    return model


@torch.no_grad()
def _keep_known_characters(model: Wav2Vec2BertForCTC, vocabulary: CharacterVocabulary, folder: Path) -> None:
    """Give characters that the encoder in `folder` could already write their rows of its output layer."""
    weights = folder / "model.safetensors"
    if not (weights.exists() and (folder / "vocab.json").exists()):
        return  # without CTC output, as facebook/w2v-bert-2.0, or from the hub: the output layer begins anew
    known = {token: row for token, row in read_json_object(folder / "vocab.json").items() if isinstance(row, int)}
    with safetensors_errors(weights), safe_open(weights, "pt") as tensors:
        if "lm_head.weight" not in tensors.keys():  # noqa: SIM118 - it is no dictionary
            return
        weight, bias = tensors.get_tensor("lm_head.weight"), tensors.get_tensor("lm_head.bias")
    model.lm_head.reset_parameters()  # of the same size but for another alphabet, it was loaded as it is
    for token, row in vocabulary.ids.items():
        if known.get(token, len(weight)) < len(weight):
            model.lm_head.weight[row] = weight[known[token]]
            model.lm_head.bias[row] = bias[known[token]]


def _regularization(settings: EncoderSettings) -> dict[str, object]:
    """Layerdrop and spec-augment, which are on by default in the class; here they are what the settings say."""
    return {
        "layerdrop": settings.layerdrop,
        "apply_spec_augment": settings.spec_augment,
        "mask_time_prob": settings.mask_time_prob,
        "mask_feature_prob": settings.mask_feature_prob,
    }


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
