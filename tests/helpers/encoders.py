"""Tiny random checkpoints of transformers' speech encoders, saved as the hub has them: no CTC head, own extractor."""

from pathlib import Path

import torch
from transformers import (
    CONFIG_MAPPING,
    MODEL_MAPPING,
    PreTrainedModel,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

_CONVOLUTIONS = {"conv_dim": (16, 16, 16), "conv_stride": (5, 8, 8), "conv_kernel": (10, 8, 8)}
_POSITIONS = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
_WHISPER = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "vocab_size": 50, "pad_token_id": 1, "bos_token_id": 1,
    "eos_token_id": 2, "decoder_start_token_id": 3, "suppress_tokens": None, "begin_suppress_tokens": None,
}  # fmt: skip


def random_checkpoint(folder: Path, kind: str, layers: int = 2) -> PreTrainedModel:
    """Write a checkpoint of `kind`: a model_type, or "wav2vec2-layer" and the like, which normalize over channels."""
    model_type, _, norm = kind.partition("+")
    settings: dict = {
        "hidden_size": 32,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 48,
    }
    if model_type == "whisper":
        settings = _WHISPER | {"encoder_layers": layers}
    elif model_type == "data2vec-audio":
        settings |= _CONVOLUTIONS | {"num_conv_pos_embeddings": 2, "num_conv_pos_embedding_groups": 2}
    elif model_type != "wav2vec2-bert":
        settings |= _CONVOLUTIONS | _POSITIONS
    if norm:
        settings |= {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
    torch.manual_seed(0)
    config = CONFIG_MAPPING[model_type](**settings)
    model = MODEL_MAPPING[type(config)](config).eval()
    with torch.no_grad():  # outputs that are spread, so that units differ
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "conv" not in name and "embed" not in name:
                weight.mul_(6.0)
    model.save_pretrained(folder)
    extractors = {"whisper": WhisperFeatureExtractor, "wav2vec2-bert": SeamlessM4TFeatureExtractor}
    extractor = extractors[model_type]() if model_type in extractors else Wav2Vec2FeatureExtractor(do_normalize=True)
    extractor.save_pretrained(folder)
    return model
