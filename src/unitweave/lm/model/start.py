"""What a fine-tuning starts from: a text LLM made ready to speak units, or a model that unitweave trained before."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from unitweave.core.errors import InputError
from unitweave.interleaving.sequence import Example, Speech
from unitweave.lm.model.trim import trim_model, trim_tokenizer
from unitweave.lm.model.vocabulary import FILE_NAME, ROW_MULTIPLE, Vocabulary, extend_model, extend_tokenizer

EMBEDDING_INITS = ("mean", "aligned")
_CLOSEST_TOKENS = 20  # text tokens that a unit's row starts from
_FEWEST_TIMES = 3  # a unit and a token count as companions from this many shared words on


def load_causal_lm(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Any causal LM and its tokenizer, in float32. Raises InputError when it cannot be loaded."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32), tokenizer
    except (OSError, ValueError) as error:
        raise InputError(f"language model {name!r} cannot be loaded: {str(error).splitlines()[0]}") from None


def check_loadable(name: str) -> None:
    """Raise InputError when there is no causal LM of this name, from its configuration alone."""
    try:
        AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InputError(f"language model {name!r} cannot be loaded: {str(error).splitlines()[0]}") from None


def load_tokenizer(name: str) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a causal LM, None where it is not on this machine."""
    try:
        return AutoTokenizer.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError):
        return None


def earlier_vocabulary(name: str, num_units: int, codebook: str, deduplicate: bool) -> Vocabulary | None:
    """The vocabulary of a model that unitweave trained; None for a text LLM.

    Raises InputError when these units are not the ones that the model speaks.
    """
    if not (Path(name) / FILE_NAME).exists():
        return None
    vocabulary = Vocabulary.load(Path(name))
    if vocabulary.num_units != num_units:
        raise InputError(
            f"{name}: this model speaks a codebook of {vocabulary.num_units} units, the run's has {num_units}; "
            "use units of the same codebook, or start from a text LLM"
        )
    if vocabulary.codebook != codebook:
        raise InputError(
            f"{name}: this model was trained on units of the codebook {vocabulary.codebook}, these are of {codebook}; "
            "extract units with the model's codebook, or start from a text LLM"
        )
    if vocabulary.deduplicate != deduplicate:
        raise InputError(f"{name}: this model was trained with deduplicate: {str(vocabulary.deduplicate).lower()}")
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
    """The vocabulary of an earlier model with tags for further languages, each starting as the mean of the others."""
    new = [language for language in languages if language not in vocabulary.languages]
    if not new:
        return vocabulary
    first = vocabulary.size
    tokenizer.add_tokens([AddedToken(f"<|{x}|>", special=True, normalized=False) for x in new], special_tokens=True)
    if tokenizer.convert_tokens_to_ids([f"<|{x}|>" for x in new]) != list(range(first, first + len(new))):
        raise InputError(
            "the model's tokenizer has other tokens behind its language tags; it cannot take new languages"
        )
    rows = -(-(first + len(new)) // ROW_MULTIPLE) * ROW_MULTIPLE
    model.resize_token_embeddings(max(rows, model.get_input_embeddings().weight.shape[0]), mean_resizing=False)
    for table in {
        id(t): t for t in (e.weight for e in (model.get_input_embeddings(), model.get_output_embeddings()))
    }.values():
        table[first:] = table[list(vocabulary.languages.values())].mean(dim=0)
    return replace(vocabulary, languages=vocabulary.languages | {x: first + i for i, x in enumerate(new)})


def extend_for(
    model: PreTrainedModel, vocabulary: Vocabulary, init: str, seed: int, examples: Callable[[], Iterable[Example]]
) -> None:
    """Grow the model for the new tokens; units start as the mean of the text, or of the text they go with."""
    companions = cooccurring_tokens(examples(), vocabulary) if init == "aligned" else None
    extend_model(model, vocabulary, seed, companions)


def cooccurring_tokens(examples: Iterable[Example], vocabulary: Vocabulary) -> list[np.ndarray]:
    """For each unit the text tokens of the words in which it occurs beyond chance, int64 [up to 20].

    A word's units and tokens come from the alignment. The tokens are ordered by how far their count
    with the unit lies above what independence would give, in standard deviations; rare ones are left out.
    """
    sides = [side for e in examples for side in (e.source, e.target) if side is not None]
    if not sides:
        return [np.empty(0, np.int64)] * vocabulary.num_units
    used = np.unique(np.concatenate([side.text for side in sides]))
    counts = np.zeros((vocabulary.num_units, len(used)))
    for side in sides:
        for units, tokens in _words(side):
            counts[np.ix_(np.unique(units) - vocabulary.unit_offset, np.searchsorted(used, np.unique(tokens)))] += 1
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / max(counts.sum(), 1)
    beyond = np.where(counts >= _FEWEST_TIMES, (counts - expected) / np.sqrt(np.maximum(expected, 1e-9)), 0)
    result = []
    for row in beyond:
        best = np.argsort(-row, kind="stable")[:_CLOSEST_TOKENS]
        result.append(used[best[row[best] > 0]].astype(np.int64))
    return result


def _words(side: Speech) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Units and text tokens of each word that is surely aligned."""
    for word in side.eligible.tolist():
        units = side.units[side.cuts[word] : side.cuts[word + 1]]
        yield units, side.text[side.text_cuts[word] : side.text_cuts[word + 1]]
