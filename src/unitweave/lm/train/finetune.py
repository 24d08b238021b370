"""Fine-tuning a text language model on interleaved sequences: the method itself, and its baseline."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from accelerate import PartialState
from transformers import PretrainedConfig, set_seed

from unitweave.config.lm import LmSettings
from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path
from unitweave.core.manifest import Pair
from unitweave.core.stage import StageResult
from unitweave.interleaving.schedule import text_ratio
from unitweave.interleaving.sequence import Example, Markers, has_segments, max_length
from unitweave.lm.data.dataset import WordTokens, codebook_of, languages_of, load_pairs, make_example, read_extra_text
from unitweave.lm.data.stream import InterleavedDataset, UtteranceSampler
from unitweave.lm.model.lora import add_lora, merge_lora
from unitweave.lm.model.start import add_languages, earlier_vocabulary, extend_for, load_causal_lm, start_vocabulary
from unitweave.lm.model.vocabulary import Vocabulary
from unitweave.lm.train.trainer import EvaluatorFactory, fit
from unitweave.training.trainer import quiet_transformers, use_bf16
from unitweave.units.dataset import UnitRow


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
        evaluator: Makes what is called every `evaluation.every` steps; it decodes, which is a later stage's business.

    Returns:
        Counts, and the pairs that were left out with reasons.

    Raises:
        InputError: For settings, a model or data that cannot be used.
    """
    quiet_transformers()
    training = settings.training
    if settings.pretrained is None and text_lm is None:
        raise InputError("lm.pretrained is not given and the run has no text LM of its own; name a causal LM")
    name = settings.pretrained or str(text_lm)
    codebook, num_units = codebook_of(units)
    vocabulary = earlier_vocabulary(name, num_units, codebook, settings.deduplicate)
    processes = PartialState()
    with processes.main_process_first():  # one download where the processes share a disk
        model, tokenizer = load_causal_lm(name)
    pairs, rows = load_pairs(corpus, units, "train")
    extra = read_extra_text(Path(settings.extra_text)) if settings.extra_text else []
    languages = languages_of([*pairs, *extra])
    set_seed(training.seed)
    if vocabulary is None:
        texts = (f" {word}" for p in [*pairs, *extra] for t in (p.src_text, p.tgt_text) for word in (t or "").split())
        tokenizer, vocabulary = start_vocabulary(
            model,
            tokenizer,
            num_units,
            languages,
            codebook,
            settings.deduplicate,
            texts if settings.trim_vocabulary else None,
        )
        examples = _examples(settings, pairs, rows, vocabulary, WordTokens(tokenizer))
        extend_for(model, vocabulary, settings.embedding_init, training.seed, examples)
    else:
        vocabulary = add_languages(model, tokenizer, vocabulary, languages)
        examples = _examples(settings, pairs, rows, vocabulary, WordTokens(tokenizer))
    vocabulary = replace(vocabulary, tasks=[task for task, weight in settings.tasks.items() if weight > 0])
    tokens = WordTokens(tokenizer)
    limit = token_limit(settings, model.config)
    kept, skipped, cut = usable(examples, pairs, settings, vocabulary.sequence_markers, limit)
    if not kept:
        raise InputError(f"no training pair is left: {skipped[0]['reason']} (and {len(skipped) - 1} more)")
    source = InterleavedDataset(
        examples=[examples[i] for i in kept],
        order=_order([pairs[i] for i in kept], training.seed, settings.language_temperature),
        batch=training.batch_size,
        ratio=text_ratio(settings.schedule, training.steps),
        interleave=settings.interleave,
        markers=vocabulary.sequence_markers,
        tasks=settings.tasks,
        seed=training.seed,
        extra=_examples(settings, extra, {}, vocabulary, tokens),
        extra_sampler=_order(extra, training.seed + 1, settings.language_temperature) if extra else None,
        extra_ratio=settings.extra_text_ratio,
        max_tokens=limit,
    )
    wrapped = add_lora(model, vocabulary, settings.lora, use_bf16(training.precision)) if settings.lora else model
    state = fit(
        wrapped,
        source,
        training,
        folder,
        f"{folder.name}: training",
        source.ratio,
        evaluate=evaluator(folder, rows, tokenizer, vocabulary)
        if evaluator and settings.evaluation.eval_steps
        else None,
        evaluate_every=settings.evaluation.eval_steps,
        inner=model,
    )
    if settings.lora:
        model = merge_lora(wrapped)
    if processes.is_main_process:
        with atomic_path(folder / "model") as temporary:
            model.save_pretrained(temporary, state_dict=state)
            tokenizer.save_pretrained(temporary)
            vocabulary.save(temporary)
    processes.wait_for_everyone()
    counts = {"pairs": len(kept), "parameters": sum(p.numel() for p in model.parameters())}
    return StageResult(
        counts=counts | ({"extra text": len(extra)} if extra else {}) | ({"cut": cut} if cut else {}),
        skipped=skipped,
        obsolete=(folder / "checkpoints",),
    )


def usable(
    examples: Sequence[Example], pairs: Sequence[Pair], settings: LmSettings, markers: Markers, limit: int
) -> tuple[list[int], list[dict[str, str]], int]:
    """Which examples are trained on; those left out, with the reason; and how many are cut at the end.

    limit  most tokens of a sequence, counted with all speech as units, as it is when the ratio has reached 0
    """
    kept, skipped, cut = [], [], 0
    for i, (example, pair) in enumerate(zip(examples, pairs, strict=True)):
        tasks = [task for task, weight in settings.tasks.items() if weight > 0 and has_segments(example, task)]
        if not tasks:
            skipped.append(
                {"id": pair.id, "reason": f"lacks speech or text for every task of {sorted(settings.tasks)}"}
            )
            continue
        length = max(max_length(example, task, markers) for task in tasks)
        if length > limit and settings.overlong == "drop":
            skipped.append({"id": pair.id, "reason": f"{length} tokens are more than max_tokens {limit}"})
            continue
        cut += length > limit
        kept.append(i)
    return kept, skipped, cut


def token_limit(settings: LmSettings, config: PretrainedConfig) -> int:
    """Most tokens of a sequence: max_tokens, or what the model was made for.

    Raises InputError where neither says it.
    """
    limit = settings.max_tokens or getattr(config.get_text_config(), "max_position_embeddings", None)
    if limit is None:
        raise InputError(
            f"the configuration of this model ({config.model_type}) does not say how long a sequence may be; "
            "set max_tokens"
        )
    return int(limit)


def _examples(
    settings: LmSettings,
    pairs: Sequence[Pair],
    rows: dict[tuple[str, str], UnitRow],
    vocabulary: Vocabulary,
    tokens: WordTokens,
) -> list[Example]:
    return [make_example(p, rows, vocabulary, tokens, settings.interleave, settings.deduplicate) for p in pairs]


def _order(pairs: Sequence[Pair], seed: int, temperature: float) -> UtteranceSampler:
    """The pairs in an endless order, by language pair."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i, pair in enumerate(pairs):
        groups.setdefault((pair.src_lang, pair.tgt_lang), []).append(i)
    return UtteranceSampler([groups[key] for key in sorted(groups)], seed, temperature)
