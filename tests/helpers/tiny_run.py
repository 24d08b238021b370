"""A recipe whose stages take seconds each, all of them together."""

from pathlib import Path

import torch
import yaml
from transformers import Wav2Vec2BertConfig, Wav2Vec2BertForCTC

TINY_VOCODER = {
    "dim": 16,
    "intermediate_dim": 16,
    "layers": 1,
    "fine_layers": 1,
    "training": {"steps": 1, "batch_size": 2},
}
SHORT_DECODING = {"max_units_per_frame": 0.1, "max_text_tokens_per_second": 1.0}


def tiny_recipe(folder: Path, text_lm: Path) -> Path:
    """Write a recipe that starts from saved checkpoints, as from facebook/w2v-bert-2.0 and Llama-3.2-1B."""
    torch.manual_seed(0)
    config = Wav2Vec2BertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        vocab_size=7,  # another vocabulary than the corpus': the output layer is made anew
        conv_depthwise_kernel_size=5,
    )
    Wav2Vec2BertForCTC(config).save_pretrained(folder / "w2v-bert")
    training = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3, "logging_steps": 1}
    content = {
        "corpus": {"embedded": {"languages": ["es"], "train": 24, "dev": 2, "test": 4}},
        "encoder": {"pretrained": str(folder / "w2v-bert"), "batch_seconds": 10, "training": {"steps": 2}},
        "codebook": {"num_units": 16, "layer": 2, "max_frames": 2000, "max_iterations": 2},
        "lm": {"pretrained": str(text_lm), "training": training, "interleave": {"min_alignment_score": 0.0}},
        "systems": {"baseline": {"schedule": {"shape": "none"}}, "scheduled": {}},
        "vocoder": TINY_VOCODER,
        "translate": SHORT_DECODING,
        "score": {"mos": [], "bootstrap_samples": 10, "randomization_trials": 10, "examples": 2},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
