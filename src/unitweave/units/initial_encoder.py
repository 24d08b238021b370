"""The encoder that a training begins with: a small one at random, or a pretrained one with a new output layer."""

import re
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import (
    AutoConfig,
    FeatureExtractionMixin,
    PretrainedConfig,
    PreTrainedModel,
    SeamlessM4TFeatureExtractor,
)

from unitweave.config.units import EncoderSettings, check_layer
from unitweave.core.errors import InputError
from unitweave.core.files import read_json_object
from unitweave.training.model_files import (
    SAFE_LOADING,
    check_model_config,
    check_model_folder,
    check_parameters,
    loading_errors,
    safetensors_errors,
    weight_files,
)
from unitweave.units.dataset import FRAME_RATE
from unitweave.units.encoder import (
    BLANK,
    DELIMITER,
    CharacterVocabulary,
    SpeechEncoder,
    ctc_class,
    ctc_config,
    new_encoder,
)
from unitweave.units.front_end import FrontEnd, check_model_type, load_feature_extractor
from unitweave.units.positions import without_cached_positions

# Where Whisper's encoder was saved without the model around it, its weights have no prefix.
_WHISPERS_ENCODER_ALONE = {"^(?=conv[12]|layers|layer_norm|embed_positions)": "encoder."}


def check_initial_encoder(settings: EncoderSettings, layer: int) -> float:
    """What can be known of an encoder and its layer for the units before it is trained.

    Returns:
        Its frames a second.

    Raises:
        InputError: The pretrained encoder is missing or not one that can be trained here, or has no such layer.
    """
    blocks, rate = settings.shape.num_hidden_layers, float(FRAME_RATE)
    if settings.pretrained is not None:
        config, _ = _pretrained_config(settings.pretrained)
        blocks, rate = config.num_hidden_layers, FrontEnd.of(config).frame_rate
        config.vocab_size = config.vocab_size or 1  # None where there is no output layer, as in w2v-BERT 2.0
        check_parameters(settings.pretrained, lambda: ctc_class(config)(config), new_head=True)
    check_layer(layer, blocks)
    return rate


def initial_frame_rate(settings: EncoderSettings) -> float:
    """Frames a second of the encoder to train. Raises InputError where `pretrained` is none that can be trained."""
    if settings.pretrained is None:
        return float(FRAME_RATE)
    return FrontEnd.of(_pretrained_config(settings.pretrained)[0]).frame_rate


def _pretrained_config(name: str) -> tuple[PretrainedConfig, FeatureExtractionMixin]:
    """The configuration and the feature extractor of a pretrained encoder. Raises InputError where it is none."""
    where = f"encoder.pretrained {name!r}"
    check_model_folder(name)
    with loading_errors(where, "speech encoder"):
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    check_model_config(config.to_dict(), where)
    check_model_type(config.to_dict(), where)
    return config, load_feature_extractor(name, config)


def initial_encoder(
    settings: EncoderSettings, vocabulary: CharacterVocabulary
) -> tuple[SpeechEncoder, FeatureExtractionMixin]:
    """The encoder to train, and the feature extractor that is saved with it.

    Raises:
        InputError: The pretrained encoder is not one that can be trained here; says why.
    """
    if settings.pretrained is None:
        model = new_encoder(settings.shape, vocabulary, **_regularization(settings))
        return SpeechEncoder(model, vocabulary, FrontEnd.of(model.config)), SeamlessM4TFeatureExtractor()
    name, where = settings.pretrained, f"encoder.pretrained {settings.pretrained!r}"
    config, extractor = _pretrained_config(name)
    front_end = FrontEnd.of(config, bool(getattr(extractor, "do_normalize", False)))
    blank = config.pad_token_id
    # Set one by one: Whisper's configuration has no CTC settings, and would pass them on to the class.
    for key, value in (ctc_config(vocabulary) | _regularization(settings)).items():
        setattr(config, "encoder_layerdrop" if (key, front_end.kind) == ("layerdrop", "mel") else key, value)
    if front_end.kind == "mel":
        # Of the decoder's vocabulary; at every loading transformers would warn that the characters are fewer.
        config.bos_token_id, config.eos_token_id, config.decoder_start_token_id = None, None, vocabulary.blank
    if config.model_type == "wav2vec2-bert":
        config.use_intermediate_ffn_before_adapter = False  # it goes with the adapter
    alone = config.architectures == ["WhisperEncoder"]
    with loading_errors(where, "speech encoder"):
        model, loading = ctc_class(config).from_pretrained(
            name,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            config=config,
            dtype=torch.float32,
            key_mapping=_WHISPERS_ENCODER_ALONE if alone else None,
            **SAFE_LOADING,
        )
    missing = {*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])}
    absent = sorted(key for key in missing if not key.startswith("lm_head.") and "masked_spec_embed" not in key)
    if absent:
        raise InputError(
            f"{where} lacks weights of a {config.model_type} model: {absent[0]} and {len(absent) - 1} more"
        )
    if alone:  # transformers would also save it under the names that it was loaded by
        renamed, model = model, ctc_class(config)(config)
        model.load_state_dict(renamed.state_dict())
    without_cached_positions(model)
    _keep_known_characters(model, vocabulary, Path(name), blank, "lm_head.weight" not in missing)
    if settings.freeze_convolutions and front_end.kind == "waveform":
        model.freeze_feature_encoder()
    _freeze_layers(model, settings.freeze_layers)
    return SpeechEncoder(model, vocabulary, front_end), extractor


def _freeze_layers(model: PreTrainedModel, count: int) -> None:
    """Freeze the first layers and what comes before them; a class registers its parts in the order of their use."""
    parameters = list(model.named_parameters())
    numbers = [re.search(r"\.layers?\.(\d+)\.", name) for name, _ in parameters]
    last = max((i for i, found in enumerate(numbers) if found and int(found[1]) < count), default=-1)
    for _, parameter in parameters[: last + 1]:
        parameter.requires_grad_(False)


@torch.no_grad()
def _keep_known_characters(
    model: PreTrainedModel, vocabulary: CharacterVocabulary, folder: Path, blank: int | None, loaded: bool
) -> None:
    """Give characters that the encoder in `folder` could already write their rows of its output layer.

    Args:
        model: The encoder with a new output layer.
        vocabulary: The characters of its rows.
        folder: The checkpoint; a name on the hub, or one without vocab.json, has no characters.
        blank: Row of the checkpoint's blank.
        loaded: Whether the layer was loaded as it is, since it has the size, but not the alphabet, of the new one.
    """
    layer = _output_layer(folder) if (folder / "vocab.json").exists() else None
    kept = layer is not None and layer[0].shape[1:] == model.lm_head.weight.shape[1:]  # else it has an adapter's width
    if loaded or kept:
        model.lm_head.reset_parameters()
    if layer is None or not kept:
        return
    rows = _known_rows(folder, blank)
    for token, row in vocabulary.ids.items():
        if rows.get(token, len(layer[0])) < len(layer[0]):
            model.lm_head.weight[row], model.lm_head.bias[row] = (part[rows[token]] for part in layer)


def _output_layer(folder: Path) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Weight [characters, width] and bias [characters] of a checkpoint's CTC output; None where it has none."""
    found: dict[str, torch.Tensor] = {}
    for file in weight_files(folder):
        with safetensors_errors(file), safe_open(file, "pt") as tensors:
            names = {"lm_head.weight", "lm_head.bias"} & set(tensors.keys())
            found |= {name: tensors.get_tensor(name) for name in names}
    if (weight := found.get("lm_head.weight")) is None:
        return None
    return weight, found.get("lm_head.bias", weight.new_zeros(len(weight)))


def _known_rows(folder: Path, blank: int | None) -> dict[str, int]:
    """The rows of a checkpoint's CTC output, by character, and by our names of the blank and of the delimiter."""
    names = read_json_object(folder / "vocab.json")
    path = folder / "tokenizer_config.json"
    about = read_json_object(path) if path.exists() else {}
    # MMS has an alphabet for each language. The weights are those of one, which the tokenizer names.
    if isinstance(alphabet := names.get(str(about.get("target_lang"))), dict):
        names = alphabet
    rows = {token: row for token, row in names.items() if type(row) is int and row >= 0}
    rows = {token.lower(): row for token, row in rows.items()} | rows  # some alphabets are in capitals
    # Many checkpoints call the blank [PAD]; whatever its name, CTC takes it from the configuration.
    named = {DELIMITER: rows.get(str(about.get("word_delimiter_token"))), BLANK: blank}
    return {token: row for token, row in named.items() if row is not None} | rows


def _regularization(settings: EncoderSettings) -> dict[str, object]:
    """Layerdrop and spec-augment, which are on by default in the class; here they are what the settings say."""
    return {
        "layerdrop": settings.layerdrop,
        "apply_spec_augment": settings.spec_augment,
        "mask_time_prob": settings.mask_time_prob,
        "mask_feature_prob": settings.mask_feature_prob,
    }
