"""Fine-tuning a text language model on woven sequences: the method itself, and its baseline."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path, remove
from unitweave.core.stage import Outcome
from unitweave.core.training import quiet_transformers
from unitweave.lm.data import WordTokens, codebook_of, languages_of, load_pairs, make_example
from unitweave.lm.engine import OptimiserSettings, fit
from unitweave.lm.stream import Order, SpeechSource
from unitweave.lm.vocabulary import extend_model, extend_tokenizer
from unitweave.weave.schedule import ScheduleSettings, text_ratio
from unitweave.weave.sequence import WeaveSettings, check_weave


@dataclass
class LmSettings:
    """Settings of one system: how the language model is fine-tuned on speech."""

    pretrained: str | None = None  # folder or hub name of any causal LM; null takes the run's own small text LM
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    weave: WeaveSettings = field(default_factory=WeaveSettings)
    tasks: dict[str, float] = field(default_factory=lambda: {"s2st": 1.0})  # task -> weight in the mixture
    deduplicate: bool = False  # drop repeated units; the vocoder then needs a duration predictor
    temperature: float = 1.0  # above 1, language pairs with little data come up more often
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)


def load_causal_lm(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Any causal LM and its tokenizer, in float32. Raises InputError when it cannot be loaded."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32), tokenizer
    except (OSError, ValueError) as error:
        raise InputError(f"language model {name!r} cannot be loaded: {str(error).splitlines()[0]}") from None


def train_lm(folder: Path, settings: LmSettings, corpus: Path, units: Path, text_lm: Path | None = None) -> Outcome:
    """Fine-tune the language model on the train split; writes folder/model with tokenizer and unitweave.json.

    Goes on from the last checkpoint in `folder` after an interruption.
    """
    quiet_transformers()
    check_weave(settings.weave)
    optimiser = settings.optimiser
    ratio = text_ratio(settings.schedule, optimiser.steps)
    if settings.pretrained is None and text_lm is None:
        raise InputError("lm.pretrained is not given and the run has no text LM of its own; name a causal LM")
    model, tokenizer = load_causal_lm(settings.pretrained or str(text_lm))
    pairs, rows = load_pairs(corpus, units, "train")
    codebook, num_units = codebook_of(units)
    vocabulary = extend_tokenizer(tokenizer, num_units, languages_of(pairs), codebook)
    set_seed(optimiser.seed)
    extend_model(model, vocabulary, optimiser.seed)
    tokens = WordTokens(tokenizer)
    examples = [make_example(p, rows, vocabulary, tokens, settings.weave, settings.deduplicate) for p in pairs]
    groups: dict[tuple[str, str], list[int]] = {}
    for i, pair in enumerate(pairs):
        groups.setdefault((pair.src_lang, pair.tgt_lang), []).append(i)
    source = SpeechSource(
        examples=examples,
        order=Order([groups[key] for key in sorted(groups)], optimiser.seed, settings.temperature),
        batch=optimiser.batch,
        ratio=ratio,
        weave=settings.weave,
        markers=vocabulary.weave_markers,
        tasks=settings.tasks,
        seed=optimiser.seed,
    )
    fit(model, source, optimiser, folder, f"{folder.name}: training", ratio)
    with atomic_path(folder / "model") as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        vocabulary.save(temporary)
    remove(folder / "checkpoints")
    return Outcome(counts={"pairs": len(pairs), "parameters": sum(p.numel() for p in model.parameters())})
