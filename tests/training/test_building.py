"""Models that are built without torch's compiler: the same weights and tables as transformers alone gives them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForCTC,
    Gemma3TextConfig,
    GPT2Config,
    HubertConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    Wav2Vec2BertConfig,
    Wav2Vec2ConformerConfig,
    WavLMConfig,
)

from unitweave.training.building import quickly_built

TINY = {"vocab_size": 32, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
WAVES = TINY | {
    **{"conv_dim": (16, 16), "conv_stride": (5, 4), "conv_kernel": (10, 4), "num_feat_extract_layers": 2},
    **{"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2},
}
CONFIGS = (
    LlamaConfig(**TINY, num_key_value_heads=1, rope_scaling={"rope_type": "linear", "factor": 2.0}),
    Qwen3Config(**TINY, num_key_value_heads=1, head_dim=16),
    Gemma3TextConfig(**TINY, num_key_value_heads=1, head_dim=16),
    GPT2Config(vocab_size=32, n_embd=32, n_layer=2, n_head=2),
    Wav2Vec2BertConfig(**TINY, position_embeddings_type="rotary"),
    Wav2Vec2BertConfig(**TINY, position_embeddings_type="relative"),
    HubertConfig(**WAVES),
    WavLMConfig(**WAVES),
    Wav2Vec2ConformerConfig(**WAVES, position_embeddings_type="rotary"),
)


def class_for(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The automatic class for a configuration."""
    is_speech = isinstance(config, Wav2Vec2BertConfig) or hasattr(config, "conv_dim")
    return AutoModelForCTC if is_speech else AutoModelForCausalLM


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_a_loaded_model_has_the_same_weights_and_tables(config: PretrainedConfig, tmp_path: Path) -> None:
    kind = class_for(config)
    kind.from_config(config).save_pretrained(tmp_path)
    expected, loaded = kind.from_pretrained(tmp_path), quickly_built(lambda: kind.from_pretrained(tmp_path))
    for kept in (torch.nn.Module.named_parameters, torch.nn.Module.named_buffers):
        one, other = dict(kept(expected)), dict(kept(loaded))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_model_whose_tables_meet_weights_without_storage_is_built_all_the_same() -> None:
    def build() -> torch.Tensor:
        with torch.device("meta"):
            return torch.cat([torch.arange(3), torch.zeros(2, dtype=torch.long)])

    assert quickly_built(build).shape == (5,)


def test_random_numbers_are_drawn_as_ever_where_there_is_storage() -> None:
    def build() -> torch.Tensor:
        torch.manual_seed(1)
        return torch.nn.Linear(3, 3).weight

    assert torch.equal(build(), quickly_built(build))


@pytest.mark.slow
def test_building_a_language_model_without_storage_imports_no_compiler() -> None:
    code = (
        "import sys, torch\n"
        "from unitweave.core.imports import end_with_this_command, quick_imports\n"
        "end_with_this_command()\n"
        "with quick_imports(only_decoding=True):\n"
        "    from transformers import LlamaConfig, LlamaForCausalLM\n"
        "from unitweave.training.building import quickly_built\n"
        "def build():\n"
        "    with torch.device('meta'):\n"
        "        return LlamaForCausalLM(LlamaConfig(num_hidden_layers=1))\n"
        "quickly_built(build)\n"
        "print(*{'torch._dynamo', 'sympy', 'torch.distributed.tensor'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
