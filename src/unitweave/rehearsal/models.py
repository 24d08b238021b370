"""Checkpoints of random weights with the shapes and vocabularies of the models that a recipe starts from."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Wav2Vec2FeatureExtractor,
)

from unitweave.config.corpus import EmbeddedCorpus
from unitweave.config.lm import SmallLm
from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path
from unitweave.corpus.embedded.corpus import embedded_text
from unitweave.lm.estimate import model_config
from unitweave.lm.model.small import train_tokenizer
from unitweave.lm.model.start import load_tokenizer
from unitweave.units.encoder import CharacterVocabulary, ctc_class, ctc_config
from unitweave.units.estimate import encoder_config

_SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
_SMALL_LM = _SMALL | {"num_key_value_heads": 1, "head_dim": 32}
_SMALL_ENCODER = _SMALL | {"conv_depthwise_kernel_size": 5}


def write_encoder(folder: Path, pretrained: str, small: bool) -> None:
    """Write a speech encoder of random weights in the shape of `pretrained`; with `small` two narrow layers."""
    config = encoder_config(pretrained)
    vocabulary = CharacterVocabulary.from_texts(["abcdefghijklmnopqrstuvwxyz"])
    changes = ctc_config(vocabulary) | (_SMALL_ENCODER if small else {})
    for key, value in changes.items():
        setattr(config, key, value)
    torch.manual_seed(0)
    model = ctc_class(config)(config)
    with atomic_path(folder) as temporary:
        model.save_pretrained(temporary)
        vocabulary.save(temporary)
        Wav2Vec2FeatureExtractor().save_pretrained(temporary)  # read for encoders of waveforms alone


def write_language_model(folder: Path, pretrained: str, small: bool) -> None:
    """Write a causal LM of random weights in bfloat16, and its tokenizer, in the shape of `pretrained`.

    With `small` it has two narrow layers and still the whole vocabulary.
    """
    config = model_config(pretrained, SmallLm())
    text = config.get_text_config()
    if small:
        text = type(text)(**(text.to_dict() | {k: v for k, v in _SMALL_LM.items() if hasattr(text, k)}))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(text, dtype=torch.bfloat16)
    with atomic_path(folder) as temporary:
        model.save_pretrained(temporary)
        _tokenizer(pretrained, text).save_pretrained(temporary)


def _tokenizer(pretrained: str, config: PretrainedConfig) -> PreTrainedTokenizerBase:
    """The model's own tokenizer where it can be loaded, else a small one padded with unused tokens to the same size."""
    try:
        return load_tokenizer(pretrained)
    except InputError:
        pass
    trained = train_tokenizer([text for both in embedded_text(EmbeddedCorpus(), 2000) for text in both.values()], 2000)
    content: dict[str, Any] = json.loads(trained.backend_tokenizer.to_str())
    entries = content["model"]["vocab"]
    for number in range(len(entries), config.vocab_size):
        entries[f"unused{number}"] = number
    special = {name: trained.special_tokens_map[name] for name in ("bos_token", "eos_token", "pad_token")}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)), **special)
