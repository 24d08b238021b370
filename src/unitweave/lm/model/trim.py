"""A large multilingual vocabulary cut down to the tokens in use: for small machines.

Gemma 3's 262,144 rows are two thirds of its 270M model and a third of its 1B one; a corpus in two languages
uses a small part of them.
Every text in use keeps exactly the tokens that it had, under new ids; other texts can still be written,
in smaller pieces. The result is an ordinary tokenizer that plain transformers loads.
"""

import itertools
import json
from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from unitweave.core.errors import InputError

_NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")
_LAST_LATIN, _LAST_OF_ALL = "\u024f", "\U0010ffff"
_CONFIG_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def trim_tokenizer(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]
) -> tuple[PreTrainedTokenizerFast, list[int]]:
    """A tokenizer with the tokens that `texts` need, and the old id of each of its tokens.

    Kept are the tokens of the texts, the tokens on the way to them (byte-pair merges), all single
    characters and bytes, and the tokenizer's named special tokens. Where the tokenizer can spell any
    character in bytes, of the characters only Latin ones and those in use are kept.

    Raises:
        InputError: The tokenizer is not a byte-pair or unigram model of the tokenizers library.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(f"trim_vocabulary needs a tokenizer of the tokenizers library, not {type(tokenizer).__name__}")
    backend = tokenizer.backend_tokenizer
    state = json.loads(backend.to_str())
    kind = state["model"]["type"]
    if kind not in ("BPE", "Unigram"):
        raise InputError(f"trim_vocabulary: the tokenizer must be a BPE or Unigram model (got {kind})")
    vocabulary = tokenizer.get_vocab()
    last = _LAST_LATIN if _spells_in_bytes(state["model"], vocabulary) else _LAST_OF_ALL
    needed = {name for name in vocabulary if _is_byte(name) or (len(name) == 1 and name <= last)}
    needed |= {str(getattr(tokenizer, name)) for name in _NAMED if getattr(tokenizer, name) is not None}
    needed |= {str(state["model"]["unk_token"])} if state["model"].get("unk_token") else set()
    needed |= set(_template_tokens(state.get("post_processor")))
    if kind == "BPE":
        needed |= _on_the_way(backend, state["model"], _pieces(backend, texts))
    else:
        needed |= {token for text in texts for token in backend.encode(text, add_special_tokens=False).tokens}
        needed.add(state["model"]["vocab"][state["model"].get("unk_id") or 0][0])
    kept = sorted(vocabulary[name] for name in needed if name in vocabulary)
    new = {old: i for i, old in enumerate(kept)}
    trimmed = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(_renumbered(state, vocabulary, new))),
        **{name: getattr(tokenizer, name) for name in _NAMED if getattr(tokenizer, name) is not None},
    )
    return trimmed, kept


@torch.no_grad()
def trim_model(model: PreTrainedModel, kept: list[int]) -> None:
    """Keep the rows `kept` of the model's embeddings and output layer, in place; named ids in its configs follow."""
    index = torch.tensor(kept)
    tables = {id(t): t for t in (model.get_input_embeddings().weight, model.get_output_embeddings().weight)}
    for table in tables.values():
        table[: len(kept)] = table[index.to(table.device)]
    model.resize_token_embeddings(len(kept), mean_resizing=False)
    _renumber_configs(model, {old: i for i, old in enumerate(kept)})


def _renumber_configs(model: PreTrainedModel, new: dict[int, int]) -> None:
    done: set[int] = set()
    for config in (model.config, model.config.get_text_config(), model.generation_config):
        if config is None or id(config) in done:
            continue
        done.add(id(config))
        for name in _CONFIG_IDS:
            old = getattr(config, name, None)
            if isinstance(old, list):
                setattr(config, name, [new[i] for i in old if i in new])
            elif old is not None:
                setattr(config, name, new.get(old))


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _spells_in_bytes(model: dict[str, Any], vocabulary: dict[str, int]) -> bool:
    return bool(model.get("byte_fallback")) and all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))


def _template_tokens(processor: Any) -> list[str]:
    """Names of the special tokens that a post-processor adds to a text."""
    if not processor:
        return []
    inner = [name for part in processor.get("processors", []) for name in _template_tokens(part)]
    return inner + list(processor.get("special_tokens", {}))


def _pieces(backend: Tokenizer, texts: Iterable[str]) -> set[str]:
    """The pieces that byte-pair merging works on: normalized and split as the tokenizer does."""
    pieces: set[str] = set()
    for text in texts:
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        if backend.pre_tokenizer is None:
            pieces.add(text)
        else:
            pieces.update(piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text))
    return pieces


def _on_the_way(backend: Tokenizer, model: dict[str, Any], pieces: Iterable[str]) -> set[str]:
    """Every token that merging passes through for the pieces, the last ones included.

    A merge that is never chosen for a piece can be left out without changing that piece's tokens.
    """
    ranks = {_pair(merge): rank for rank, merge in enumerate(model["merges"])}
    found: set[str] = set()
    for piece in pieces:
        if model.get("ignore_merges") and piece in model["vocab"]:
            found.add(piece)
            continue
        symbols = list(piece)
        found.update(symbols)
        while True:
            options = [(ranks[pair], i) for i, pair in enumerate(itertools.pairwise(symbols)) if pair in ranks]
            if not options:
                break
            _, at = min(options)
            symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
            found.add(symbols[at])
    return found


def _pair(merge: Any) -> tuple[str, str]:
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second


def _renumbered(state: dict[str, Any], vocabulary: dict[str, int], new: dict[int, int]) -> dict[str, Any]:
    """The tokenizer's JSON with only the kept tokens, under their new ids."""
    model = state["model"]
    if model["type"] == "BPE":
        model["vocab"] = {name: new[old] for name, old in model["vocab"].items() if old in new}
        merges = [_pair(m) for m in model["merges"]]
        kept = model["vocab"]
        model["merges"] = [list(m) for m in merges if m[0] in kept and m[1] in kept and "".join(m) in kept]
    else:
        old_vocabulary = model["vocab"]
        model["vocab"] = [entry for old, entry in enumerate(old_vocabulary) if old in new]
        if model.get("unk_id") is not None:
            model["unk_id"] = new[model["unk_id"]]
    added = [token for token in state.get("added_tokens", []) if token["id"] in new]
    state["added_tokens"] = [token | {"id": new[token["id"]]} for token in added]
    _renumber_templates(state.get("post_processor"), vocabulary, new)
    state["truncation"] = state["padding"] = None
    return state


def _renumber_templates(processor: Any, vocabulary: dict[str, int], new: dict[int, int]) -> None:
    if not processor:
        return
    for part in processor.get("processors", []):
        _renumber_templates(part, vocabulary, new)
    for special in processor.get("special_tokens", {}).values():
        special["ids"] = [new[i] for i in special["ids"]]
