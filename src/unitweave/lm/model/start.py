"""What fine-tuning starts from: a text LLM whose vocabulary is extended by units, or a model trained here before."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from unitweave.core.errors import InputError
from unitweave.interleaving.sequence import Example, Speech
from unitweave.lm.model.trim import trim_model, trim_tokenizer
from unitweave.lm.model.vocabulary import FILE_NAME, ROW_MULTIPLE, Vocabulary, extend_model, extend_tokenizer
from unitweave.training.building import quickly_built
from unitweave.training.model_files import (
    SAFE_LOADING,
    check_model_config,
    check_model_folder,
    check_parameters,
    loading_errors,
)

_MAX_TOKENS_PER_UNIT = 20  # text tokens that a unit's row starts from
_MIN_COUNT = 3  # words that a unit and a token must share


def load_causal_lm(
    name: str | Path, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load any causal LM and its tokenizer.

    Weights come from safetensors only, and no code from elsewhere is run; the attention is transformers' default for
    the architecture, whatever the config asks for.

    Args:
        name: A model folder, or a name on the hub.
        dtype: Type of the weights.

    Raises:
        InputError: The model is missing, damaged or of a kind that is refused.
    """
    config = load_config(name)
    tokenizer = load_tokenizer(name)
    _check_size(name, config)
    with loading_errors(name, "language model"):
        model = quickly_built(
            lambda: AutoModelForCausalLM.from_pretrained(name, config=config, dtype=dtype, **SAFE_LOADING)
        )
    return model, tokenizer


def check_loadable(name: str) -> PretrainedConfig:
    """Check a causal LM and its tokenizer without loading its weights.

    Returns:
        Its configuration.

    Raises:
        InputError: There is no causal LM of this name, it is damaged or of a kind that is refused.
    """
    config = load_config(name)
    load_tokenizer(name)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise InputError(f"{name}: must be a causal language model (got {config.model_type})")
    _check_size(name, config)
    return config


def _check_size(name: str | Path, config: PretrainedConfig) -> None:
    check_parameters(name, lambda: AutoModelForCausalLM.from_config(config, trust_remote_code=False))


def load_config(name: str | Path, weights: bool = True) -> PretrainedConfig:
    """Read and check the configuration of a causal LM; `weights` says whether its folder has to hold them, too."""
    check_model_folder(name, weights)
    with loading_errors(name, "language model's config"):
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    check_model_config(config.to_dict(), name)
    # Before transformers 5.21 Gemma 2 would get torch's attention, which leaves out its soft cap.
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None)
    config._attn_implementation = "eager" if capped else None
    return config


def load_tokenizer(name: str | Path, local_files_only: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a causal LM. Raises InputError when it is missing or damaged."""
    with loading_errors(name, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, local_files_only=local_files_only)
        tokenizer("a")  # settings of a wrong type show only now
    return tokenizer


def earlier_vocabulary(name: str, num_units: int, codebook: str | None, deduplicate: bool) -> Vocabulary | None:
    """The vocabulary of a model that unitweave trained; None for a text LLM. A codebook of None is not known yet.

    Raises:
        InputError: The run's units are not the ones that the model was trained on.
    """
    if not (Path(name) / FILE_NAME).exists():
        return None
    vocabulary = Vocabulary.load(Path(name))
    if vocabulary.num_units != num_units:
        raise InputError(
            f"{name}: this model was trained on a codebook of {vocabulary.num_units} units, and the run's has "
            f"{num_units}; use units of the same codebook, or start from a text LLM"
        )
    if codebook is not None and vocabulary.codebook != codebook:
        raise InputError(
            f"{name}: this model was trained on units of the codebook {vocabulary.codebook}, these are of {codebook}; "
            "extract units with the model's codebook, or start from a text LLM"
        )
    if vocabulary.deduplicate != deduplicate:
        theirs = str(vocabulary.deduplicate).lower()
        raise InputError(f"{name}: this model was trained with deduplicate: {theirs}; set lm.deduplicate: {theirs}")
    return vocabulary


def start_vocabulary(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    num_units: int,
    languages: Sequence[str],
    codebook: str,
    deduplicate: bool,
    trim_to: Iterable[str] | None = None,
) -> tuple[PreTrainedTokenizerBase, Vocabulary]:
    """The extended tokenizer of a text LLM; its own vocabulary is cut down to `trim_to` first where given.

    The model's rows follow with `extend_model`.
    """
    if trim_to is not None:
        tokenizer, kept = trim_tokenizer(tokenizer, trim_to)
        trim_model(model, kept)
    return tokenizer, extend_tokenizer(tokenizer, num_units, languages, codebook, deduplicate)


@torch.no_grad()
def add_languages(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary, languages: Sequence[str]
) -> Vocabulary:
    """Add language tags to an earlier model, each starting as the mean of the others; returns the new vocabulary."""
    new = [language for language in languages if language not in vocabulary.languages]
    if not new:
        return vocabulary
    first = vocabulary.size
    tokenizer.add_tokens([AddedToken(f"<|{x}|>", special=True, normalized=False) for x in new], special_tokens=True)
    if tokenizer.convert_tokens_to_ids([f"<|{x}|>" for x in new]) != list(range(first, first + len(new))):
        raise InputError(
            "the model's tokenizer has other tokens after its language tags, so no language can be added to it"
        )
    rows = -(-(first + len(new)) // ROW_MULTIPLE) * ROW_MULTIPLE
    model.resize_token_embeddings(max(rows, model.get_input_embeddings().weight.shape[0]), mean_resizing=False)
    for table in {
        id(t): t for t in (e.weight for e in (model.get_input_embeddings(), model.get_output_embeddings()))
    }.values():
        table[first:] = table[list(vocabulary.languages.values())].mean(dim=0)
    return replace(vocabulary, languages=vocabulary.languages | {x: first + i for i, x in enumerate(new)})


def extend_for(
    model: PreTrainedModel, vocabulary: Vocabulary, init: str, seed: int, examples: Iterable[Example]
) -> None:
    """Extend the model for the new tokens.

    Args:
        model: A text LLM.
        vocabulary: Its extended vocabulary.
        init: "mean": units start as the mean of the text tokens; "aligned": of those of the words they occur in.
        seed: Of the noise around the mean.
        examples: What "aligned" takes units and words from.
    """
    unit_text = cooccurring_tokens(examples, vocabulary) if init == "aligned" else None
    extend_model(model, vocabulary, seed, unit_text)


def cooccurring_tokens(examples: Iterable[Example], vocabulary: Vocabulary) -> list[np.ndarray]:
    """Find for each unit the text tokens of the words in which it occurs beyond chance.

    A word's units and tokens come from the alignment. Tokens are ranked by how far their count with the unit lies
    above what independence would give, in standard deviations; rare ones are left out.

    Returns:
        Token ids for each unit, int64 [up to 20].
    """
    sides = [side for e in examples for side in (e.source, e.target) if side is not None]
    if not sides:
        return [np.empty(0, np.int64)] * vocabulary.num_units
    used = np.unique(np.concatenate([side.text for side in sides]))
    counts = np.zeros((vocabulary.num_units, len(used)))
    for side in sides:
        for units, tokens in _words(side):
            counts[np.ix_(np.unique(units) - vocabulary.unit_offset, np.searchsorted(used, np.unique(tokens)))] += 1
    # Counts are about Poisson distributed, so their deviation is the root of their expectation.
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / max(counts.sum(), 1)
    beyond = np.where(counts >= _MIN_COUNT, (counts - expected) / np.sqrt(np.maximum(expected, 1e-9)), 0)
    result = []
    for row in beyond:
        best = np.argsort(-row, kind="stable")[:_MAX_TOKENS_PER_UNIT]
        result.append(used[best[row[best] > 0]].astype(np.int64))
    return result


def _words(side: Speech) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Units and text tokens of each word that is surely aligned."""
    for word in side.eligible.tolist():
        units = side.units[side.cuts[word] : side.cuts[word + 1]]
        yield units, side.text[side.text_cuts[word] : side.text_cuts[word + 1]]
