"""The speech encoder: any of transformers' speech encoders with a CTC head over a character vocabulary.

One forward pass gives the hidden states that become units and the CTC output that aligns words.
"""

import json
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import (
    MODEL_FOR_CTC_MAPPING,
    AutoConfig,
    PretrainedConfig,
    PreTrainedModel,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2CTCTokenizer,
)

from unitweave.config.units import SmallEncoder
from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path, file_digest, read_json_object
from unitweave.core.sequences import collapse_ctc
from unitweave.training.building import quickly_built
from unitweave.training.model_files import (
    SAFE_LOADING,
    WEIGHTS_FILE,
    check_model_folder,
    check_parameters,
    loading_errors,
)
from unitweave.units.front_end import FrontEnd, check_model_type, load_feature_extractor
from unitweave.units.positions import without_cached_positions
from unitweave.units.whisper import WhisperForCTC

BLANK, UNKNOWN, DELIMITER = "<pad>", "<unk>", "|"


class CharacterVocabulary:
    """Characters of the CTC output: the blank is id 0, the word delimiter stands between words."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = list(tokens)
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        self.blank, self.unknown, self.delimiter = (self.ids[t] for t in (BLANK, UNKNOWN, DELIMITER))

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> "CharacterVocabulary":
        """All characters of the normalized `texts`, in code-point order."""
        characters = set().union(*map(set, texts)) - {" "}
        return cls([BLANK, UNKNOWN, DELIMITER, *sorted(characters)])

    def encode(self, text: str) -> list[int]:
        """Character ids of a normalized text, words separated by the delimiter."""
        return [self.ids.get(c, self.unknown) for c in self.spell(text).replace(" ", DELIMITER)]

    def spell(self, text: str) -> str:
        """The text as the CTC output can write it: an accented letter that it lacks is the letter without accent."""
        return "".join(c if c == " " or c in self.ids else self._base(c) for c in text)

    def _base(self, character: str) -> str:
        base = unicodedata.normalize("NFD", character)[0]
        return base if base in self.ids else character

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a greedy CTC path [frames] of character ids."""
        kept = [i for i in collapse_ctc(ids, self.blank) if i != self.unknown]
        return " ".join("".join(" " if i == self.delimiter else self.tokens[i] for i in kept).split())

    def save(self, folder: Path) -> None:
        """Write the files of a Wav2Vec2CTCTokenizer, so that transformers' processors load it."""
        with atomic_path(Path(folder) / "vocab.json") as temporary:
            temporary.write_text(json.dumps(self.ids, ensure_ascii=False, indent=0), encoding="utf-8")
        Wav2Vec2CTCTokenizer(
            str(Path(folder) / "vocab.json"), pad_token=BLANK, unk_token=UNKNOWN, word_delimiter_token=DELIMITER
        ).save_pretrained(folder)

    @classmethod
    def load(cls, folder: Path) -> "CharacterVocabulary":
        """Read vocab.json.

        Raises:
            InputError: It is missing, damaged, or has gaps.
        """
        path = Path(folder) / "vocab.json"
        if not path.exists():
            raise InputError(f"{path}: the encoder folder has no CTC vocabulary")
        ids = {token: i for token, i in read_json_object(path).items() if token not in ("<s>", "</s>")}
        gapless = sorted(map(str, ids.values())) == sorted(map(str, range(len(ids))))
        if not gapless or not {BLANK, UNKNOWN, DELIMITER} <= set(ids):
            raise InputError(f"{path}: not a CTC vocabulary that unitweave wrote")
        return cls(sorted(ids, key=lambda token: int(ids[token])))


def new_encoder(shape: SmallEncoder, vocabulary: CharacterVocabulary, **settings: object) -> Wav2Vec2BertForCTC:
    """A small Wav2Vec2BertForCTC with random weights; `settings` are further ones of its configuration."""
    config = Wav2Vec2BertConfig(
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_hidden_layers,
        num_attention_heads=shape.num_attention_heads,
        intermediate_size=shape.intermediate_size,
        conv_depthwise_kernel_size=shape.conv_depthwise_kernel_size,
        # Rotary positions cost next to nothing; the default bias builds [frames, frames, head] tensors.
        position_embeddings_type="rotary",
        # The default 0.02 suits a width of 1,024; a narrow network starts so small with it that CTC stalls.
        initializer_range=shape.hidden_size**-0.5,
        hidden_dropout=0.0,
        activation_dropout=0.0,
        attention_dropout=0.0,
        feat_proj_dropout=0.0,
        final_dropout=0.0,
        conformer_conv_dropout=0.0,
        **(ctc_config(vocabulary) | settings),
    )
    model = Wav2Vec2BertForCTC(config)
    without_cached_positions(model)
    return model


def ctc_config(vocabulary: CharacterVocabulary) -> dict[str, object]:
    """Settings that CTC training needs and that the class does not have by default."""
    return {
        "vocab_size": len(vocabulary.tokens),
        "pad_token_id": vocabulary.blank,
        "ctc_zero_infinity": True,  # an utterance too short for its text must not turn the loss infinite
        "ctc_loss_reduction": "mean",
        "layerdrop": 0.0,
        "apply_spec_augment": False,
        "add_adapter": False,  # it would come after the hidden states, at a lower frame rate
    }


class SpeechEncoder(NamedTuple):
    """A trained encoder with all that its use takes."""

    model: PreTrainedModel
    vocabulary: CharacterVocabulary
    front_end: FrontEnd


def ctc_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The class with a CTC head for an encoder's configuration."""
    return WhisperForCTC if config.model_type == "whisper" else MODEL_FOR_CTC_MAPPING[type(config)]


def check_encoder_folder(folder: Path) -> PretrainedConfig:
    """The configuration of a trained encoder, whose weights are not loaded.

    Raises:
        InputError: The folder holds no encoder, or its files do not fit together.
    """
    if not (folder / "config.json").exists():
        raise InputError(f"{folder}: no encoder here; train one with 'unitweave units train-encoder'")
    check_model_type(check_model_folder(folder), str(folder / "config.json"))
    with loading_errors(folder, "speech encoder"):
        config: PretrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    check_parameters(folder, lambda: ctc_class(config)(config))
    return config


def load_encoder(folder: Path | str, device: str | torch.device = "cpu") -> SpeechEncoder:
    """Load a trained encoder, in evaluation mode and float32.

    Raises:
        InputError: The folder holds no encoder, or one of its files is missing, damaged or not supported.
    """
    folder = Path(folder)
    config = check_encoder_folder(folder)
    vocabulary = CharacterVocabulary.load(folder)
    with loading_errors(folder, "speech encoder"):
        model, report = quickly_built(
            lambda: ctc_class(config).from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, **SAFE_LOADING
            )
        )
    # transformers fills weights that are not there with random ones. The mask's vector plays no part here.
    missing = sorted(key for key in report["missing_keys"] if "masked_spec_embed" not in key)
    if missing:
        raise InputError(f"{folder}: damaged: weights are missing, the first is {missing[0]}; train the encoder again")
    if model.config.vocab_size != len(vocabulary.tokens):
        raise InputError(
            f"{folder}: vocab.json has {len(vocabulary.tokens)} characters, the CTC output {model.config.vocab_size}; "
            "train the encoder again"
        )
    without_cached_positions(model)
    return SpeechEncoder(model.to(device).eval(), vocabulary, load_front_end(folder, model.config))


def load_front_end(name: Path | str, config: PretrainedConfig | None = None) -> FrontEnd:
    """The front end of a checkpoint, from its configuration (None: it is read) and its feature extractor."""
    if config is None:
        with loading_errors(name, "configuration of the speech encoder"):
            config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    extractor = load_feature_extractor(name, config)
    return FrontEnd.of(config, bool(getattr(extractor, "do_normalize", False)))


def encoder_fingerprint(folder: Path) -> str:
    """Digest of the encoder's weights.

    Raises:
        InputError: There are none.
    """
    path = Path(folder) / WEIGHTS_FILE
    if not path.is_file():
        raise InputError(f"{path}: no such file; the encoder folder is incomplete")
    return file_digest(path)


@torch.inference_mode()
def encode(
    model: PreTrainedModel, inputs: dict[str, torch.Tensor], layers: Sequence[int]
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """One pass over a batch as `FrontEnd.batch` makes it.

    Returns float32 hidden states after each of the `layers` (counted from 1) [batch, frames, hidden] and CTC
    log-probabilities [batch, CTC frames, characters].
    """
    output: Any = model(**inputs, output_hidden_states=bool(layers))
    return [output.hidden_states[layer].float() for layer in layers], output.logits.float().log_softmax(-1)
