"""Fine-tuning a text language model on interleaved sequences: the method itself, and its baseline."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import torch
from accelerate import PartialState
from transformers import PretrainedConfig, PreTrainedTokenizerBase, set_seed

from unitweave.config.interleave import Texts
from unitweave.config.lm import LmSettings
from unitweave.core.errors import InputError
from unitweave.core.manifest import Manifest, Pair
from unitweave.core.progress import echo
from unitweave.core.sequences import evenly_spaced
from unitweave.core.stage import StageResult
from unitweave.corpus.tasks import check_directions
from unitweave.interleaving.schedule import text_ratio
from unitweave.interleaving.sequence import Example, Markers, TrainingSequence, has_segments, interleave
from unitweave.lm.checks import check_repetitions
from unitweave.lm.data.coverage import Coverage, check_coverage, coverage_line, interleaved_coverage
from unitweave.lm.data.dataset import (
    all_languages,
    codebook_identity,
    language_groups,
    load_pairs,
    make_examples,
    read_extra_text,
    running_text,
)
from unitweave.lm.data.examples import FOLDER, load_examples
from unitweave.lm.data.sampler import UtteranceSampler
from unitweave.lm.data.sizes import Sizes
from unitweave.lm.data.stream import InterleavedDataset
from unitweave.lm.data.subset import train_subset
from unitweave.lm.data.tokens import WordTokens, space_before
from unitweave.lm.model.lora import add_lora, merge_lora
from unitweave.lm.model.start import add_languages, earlier_vocabulary, extend_for, load_causal_lm, start_vocabulary
from unitweave.lm.train.fit import DevEvaluation, EvaluatorFactory, fit, save_model
from unitweave.training.devices import use_bf16
from unitweave.training.trainer import quiet_transformers
from unitweave.units.align import utterance_score
from unitweave.units.dataset import read_units, read_units_metadata, units_per_second

_SCORED = 10_000  # recordings that the fit of the transcripts is measured on, at most


def train_lm(
    folder: Path,
    settings: LmSettings,
    corpus: Path,
    units: Path,
    text_lm: Path | None = None,
    evaluator: EvaluatorFactory | None = None,
) -> StageResult:
    """Fine-tune the language model on the train split, going on from the last checkpoint after an interruption.

    Args:
        folder: Where to write: model/ (with tokenizer and unitweave.json), log.jsonl and, while it runs, checkpoints/.
        settings: The system's settings.
        corpus: Folder of the manifest.
        units: Folder of the units and alignments.
        text_lm: The run's own text LM, where the settings name no pretrained one.
        evaluator: Makes what is called every `evaluation.eval_steps` steps; it decodes, and so belongs to a later step
            of the pipeline.

    Returns:
        Counts, and the pairs that were left out with reasons.

    Raises:
        InputError: For a model or data that cannot be used.
    """
    quiet_transformers()
    training, eval_steps = settings.training, settings.evaluation.eval_steps
    if settings.pretrained is None and text_lm is None:
        raise InputError("lm.pretrained: name a causal LM; this run has no text LM of its own")
    name = settings.pretrained or str(text_lm)
    codebook, num_units = codebook_identity(units)
    metadata = read_units_metadata(units)
    check_repetitions(settings, metadata)
    earlier = earlier_vocabulary(name, num_units, codebook, settings.deduplicate)
    lora, bf16 = settings.lora, use_bf16(training.precision)
    with PartialState().main_process_first():  # one download where the processes share a disk
        # Frozen weights stay in bfloat16 from the beginning: an 8B model in float32 would take 32 GB of memory.
        model, tokenizer = load_causal_lm(name, torch.bfloat16 if lora and bf16 else torch.float32)
    pairs = train_subset(load_pairs(corpus, units, "train"), settings.train_pairs)
    extra = read_extra_text(Path(settings.extra_text)) if settings.extra_text else []
    languages = sorted({*all_languages(pairs), *all_languages(extra)})
    set_seed(training.seed)
    if earlier is None:
        words = _words([pairs, extra], settings.texts, tokenizer) if settings.trim_vocabulary else None
        tokenizer, vocabulary = start_vocabulary(
            model, tokenizer, num_units, languages, codebook, settings.deduplicate, words
        )
    else:
        vocabulary = add_languages(model, tokenizer, earlier, languages)
    directions = sorted({*language_groups(pairs)} | set(earlier.directions if earlier else ()))
    check_directions(directions, settings.tasks)
    tasks: list[str] = [task for task, weight in settings.tasks.items() if weight > 0]
    vocabulary = replace(
        vocabulary,
        directions=directions,
        tasks=tasks,
        texts=settings.texts,
        frame_rate=units_per_second(metadata),
        target_prefixes=settings.interleave.target_prefix_ratio > 0,
    )
    tokens = WordTokens(tokenizer)
    examples, sizes = load_examples(
        folder / FOLDER, pairs, units, vocabulary, tokens, settings.interleave, settings.deduplicate
    )
    if earlier is None:
        extend_for(model, vocabulary, settings.embedding_init, training.seed, examples)
    limit, markers = token_limit(settings.max_tokens, model.config), vocabulary.sequence_markers
    kept, skipped, truncated = select_examples(
        sizes, pairs, vocabulary.tasks, markers, limit, settings.overlong == "truncate"
    )
    if not len(kept):
        raise InputError(f"no training pair is left: {skipped[0]['reason']} (and {len(skipped) - 1} more)")
    pairs = pairs.take(kept)
    seconds, fit_score = _trained_on(pairs, units)
    vocabulary = replace(vocabulary, utterance_seconds=seconds, source_score=fit_score)
    coverage = interleaved_coverage(pairs, sizes.take(kept), settings)
    _echo_coverage(folder.name, coverage, settings)
    ratio = text_ratio(settings.schedule, training.steps)
    dataset = InterleavedDataset(
        examples=examples.take(kept),
        sampler=_sampler(pairs, training.seed, settings.language_temperature),
        batch_size=training.batch_size,
        ratio=ratio,
        interleave=settings.interleave,
        markers=markers,
        tasks=settings.tasks,
        seed=training.seed,
        extra=make_examples(extra, {}, vocabulary, tokens, settings.interleave, settings.deduplicate),
        extra_sampler=_sampler(extra, training.seed + 1, settings.language_temperature) if extra else None,
        extra_ratio=settings.extra_text_ratio,
        max_tokens=limit,
        spread=settings.schedule.spread,
        unit_noise=settings.unit_noise,
        units=range(vocabulary.unit_offset, vocabulary.unit_offset + vocabulary.num_units),
    )
    unit_dev: list[TrainingSequence] = []
    if settings.schedule.shape == "adaptive":
        dev = evenly_spaced(load_pairs(corpus, units, "dev"), settings.evaluation.utterances)
        rows = read_units(units, [pair.id for pair in dev])
        dev_examples = make_examples(dev, rows, vocabulary, tokens, settings.interleave, settings.deduplicate)
        unit_dev = _units_only(dev_examples, dataset, limit)
    trained = add_lora(model, vocabulary, lora, bf16) if lora else model
    evaluate = evaluator(folder, units, tokenizer, vocabulary) if evaluator and eval_steps else None
    patience = settings.evaluation.early_stopping_patience
    if patience and evaluate is None:
        raise InputError("evaluation.early_stopping_patience: needs a dev split that the model's tasks can decode")
    state, done = fit(
        trained,
        dataset,
        training,
        folder,
        f"{folder.name}: training",
        ratio,
        DevEvaluation(evaluate, eval_steps, patience, ratio.last_change) if evaluate is not None else None,
        model,
        unit_dev,
    )
    model = merge_lora(trained) if lora else model
    save_model(folder / "model", model, tokenizer, state, vocabulary)
    counts = {"pairs": len(kept), "parameters": sum(p.numel() for p in model.parameters())}
    counts |= (
        {"replaceable words": {name: round(part.fraction, 4) for name, part in coverage.items()}} if coverage else {}
    )
    counts |= {"extra text": len(extra)} if extra else {}
    counts |= {"truncated": truncated} if truncated else {}
    counts |= {"steps": done.global_step, "best step": done.best_global_step} if patience else {}
    return StageResult(counts=counts, skipped=skipped, obsolete=(folder / "checkpoints", folder / FOLDER))


def _echo_coverage(system: str, coverage: dict[str, Coverage], settings: LmSettings) -> None:
    """Print how many words can be replaced, and warn where that is too few; raises InputError where it is none."""
    warnings = check_coverage(coverage, settings)
    if coverage and settings.schedule.shape != "none" and PartialState().is_main_process:
        echo(f"{system}: words that can be replaced by text: {coverage_line(coverage)}")
        for warning in warnings:
            echo(f"{system}: warning: {warning}")


def _units_only(examples: Sequence[Example], dataset: InterleavedDataset, limit: int) -> list[TrainingSequence]:
    """Sequences without any text in the speech, one for each task that an example can serve.

    Raises:
        InputError: No sequence is at most `limit` tokens long.
    """
    sequences = [
        interleave(example, task, 0.0, dataset.interleave, dataset.markers, Random(0))
        for example in examples
        for task, weight in dataset.tasks.items()
        if weight > 0 and has_segments(example, task)
    ]
    if not (sequences := [example for example in sequences if len(example.ids) <= limit]):
        raise InputError("schedule.shape: 'adaptive' needs a dev split with what the tasks need, and there is none")
    return sequences


def _trained_on(pairs: Manifest, units: Path) -> tuple[float | None, float | None]:
    """What the model's record says of the source recordings: how long they are, and how well transcripts fit."""
    lasting = pairs.column("src_seconds").drop_null().to_numpy().astype(float)
    seconds = lasting[lasting > 0]
    ids = evenly_spaced(pairs.column("id"), _SCORED)
    sample = read_units(units, [id.as_py() for id in ids], ("src",)).values()
    scores = [utterance_score(row.words, row.scores) for row in sample if len(row.words)]
    # The longest, but for single ones far from the rest.
    longest = round(min(seconds.max(), 1.5 * float(np.percentile(seconds, 99))), 2) if len(seconds) else None
    return longest, round(float(np.percentile(scores, 5)), 4) if scores else None


def select_examples(
    sizes: Sizes, pairs: Manifest, tasks: Sequence[str], markers: Markers, limit: int, truncate: bool
) -> tuple[np.ndarray, list[dict[str, str]], int]:
    """Choose what is trained on.

    Args:
        sizes: Of the examples of `pairs`.
        pairs: The pairs.
        tasks: The tasks that are trained.
        markers: The stage markers, which count as tokens too.
        limit: Maximum tokens of a sequence, counted with all speech as units, as it is when the ratio has reached 0.
        truncate: Whether longer sequences are cut at the end; else they are left out.

    Returns:
        Indices int64 of what is trained on; id and reason of each pair that is left out; how many will be truncated.
    """
    lengths = sizes.max_lengths(tasks, markers)
    ids = pairs.column("id")
    fits = (lengths >= 0) & ((lengths <= limit) | truncate)
    lacks = f"lacks speech or text for the tasks {', '.join(sorted(tasks))}"
    skipped = [
        {
            "id": ids[i].as_py(),
            "reason": lacks if lengths[i] < 0 else f"{lengths[i]} tokens are more than max_tokens {limit}",
        }
        for i in np.flatnonzero(~fits).tolist()
    ]
    return np.flatnonzero(fits), skipped, int((lengths > limit).sum()) if truncate else 0


def token_limit(max_tokens: int | None, config: PretrainedConfig) -> int:
    """Maximum tokens of a sequence: `max_tokens`, or what the model was made for.

    Raises:
        InputError: Neither says it.
    """
    limit = max_tokens or getattr(config.get_text_config(), "max_position_embeddings", None)
    if limit is None:
        raise InputError(f"max_tokens: set it, since this {config.model_type} model's config has no maximum length")
    return int(limit)


def _words(parts: Iterable[Iterable[Pair]], texts: Texts, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What stands between the spaces of all texts, as the tokenizer gets it, each once."""
    prefix = space_before(tokenizer)
    distinct: dict[str, None] = {}
    for pair in itertools.chain.from_iterable(parts):
        for normalized, raw in ((pair.src_text, pair.src_text_raw), (pair.tgt_text, pair.tgt_text_raw)):
            distinct |= dict.fromkeys(running_text(normalized or "", raw, texts).split())
    return [prefix + word for word in distinct]


def _sampler(pairs: Sequence[Pair], seed: int, temperature: float) -> UtteranceSampler:
    """An endless order of the pairs, with a group for each language pair."""
    return UtteranceSampler(list(language_groups(pairs).values()), seed, temperature)
