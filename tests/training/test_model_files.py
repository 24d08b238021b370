"""Model folders from elsewhere: what is refused by name, and what is damaged."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from unitweave.core.errors import InputError
from unitweave.training.model_files import check_model_config, check_model_folder, loading_errors, safetensors_errors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 8}))
    save_file({"weight": torch.zeros(4, 4)}, tmp_path / "model.safetensors")
    return tmp_path


def test_a_whole_folder_passes_and_a_hub_name_is_left_alone(folder: Path) -> None:
    assert check_model_folder(folder)["vocab_size"] == 8
    assert check_model_folder("someone/some-model") == {}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"auto_map": {"AutoModel": "evil.py"}}, "auto_map is not supported"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config is not supported"),
        ({"text_config": {"quantization_config": {"bits": 4}}}, "quantization_config is not supported"),
        ({"attn_implementation": "someone/kernel"}, "names code on the hub"),
        ({"vocab_size": 1_000_000_000}, "vocab_size must be a number up to"),
        ({"vocab_size": "many"}, "vocab_size must be a number up to"),
    ],
)
def test_settings_that_would_run_code_or_fill_the_memory_are_refused(config: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_model_config(config, "config.json")


def test_adapters_and_tokenizers_with_code_are_refused(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.py", null]}}')
    with pytest.raises(InputError, match=r"tokenizer_config\.json: auto_map"):
        check_model_folder(folder)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="merge it into its base model"):
        check_model_folder(folder)


@pytest.mark.parametrize("content", ["[]", "", '{"a": ', "[" * 100_000, '{"a": ' + "9" * 5_000 + "}"])
def test_a_damaged_configuration_is_named(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json: (damaged|not readable as JSON)"):
        check_model_folder(folder)


def test_missing_pickled_and_cut_off_weights_are_named(folder: Path) -> None:
    weights = folder / "model.safetensors"
    for length in (0, 5, 60, weights.stat().st_size - 1):
        content = weights.read_bytes()
        weights.write_bytes(content[:length])
        with pytest.raises(InputError, match=r"model\.safetensors: damaged or cut off"):
            check_model_folder(folder)
        weights.write_bytes(content)
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="writes the model again as safetensors"):
        check_model_folder(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors: no such file"):
        check_model_folder(folder)
    assert check_model_folder(folder, weights=False)


def test_a_missing_shard_is_named(folder: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    with pytest.raises(InputError, match=r"model-00002-of-00002\.safetensors: no such file"):
        check_model_folder(folder)


def test_weights_that_may_not_be_read_are_not_called_missing(tmp_path: Path) -> None:
    for error in (FileNotFoundError("No such file"), PermissionError(13, "Permission denied")):
        (tmp_path / "x.safetensors").touch()
        with (
            pytest.raises(InputError, match=r"x\.safetensors: no permission to read it"),
            safetensors_errors(tmp_path / "x.safetensors"),
        ):
            raise error
        (tmp_path / "x.safetensors").unlink()
    with (
        pytest.raises(InputError, match=r"x\.safetensors: no such file"),
        safetensors_errors(tmp_path / "x.safetensors"),
    ):
        raise FileNotFoundError("No such file")


def test_what_loading_raises_becomes_one_line() -> None:
    with pytest.raises(InputError, match=r"^folder: could not load the model \(first\)$"), loading_errors("folder"):
        raise RuntimeError("first\nsecond")


def test_the_class_of_an_exception_is_no_part_of_the_reason() -> None:
    with pytest.raises(InputError) as refused, loading_errors("folder"):
        raise ValueError("Validation error for field 'bias': TypeError: Field 'bias' expected bool, got list")
    assert str(refused.value).endswith("(Validation error for field 'bias': Field 'bias' expected bool, got list)")
