"""Model folders with pickled weights, written again as safetensors."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, HubertModel

from helpers.encoders import random_checkpoint
from unitweave.cli import main
from unitweave.core.errors import InputError
from unitweave.pretrained.pickled import convert_pickled
from unitweave.training.model_files import check_model_folder


@pytest.fixture
def pickled(tmp_path: Path) -> tuple[Path, HubertModel]:
    """HuBERT as the hub has it: pickled, and with the names that torch gave to normalized weights before 2.0."""
    model = random_checkpoint(tmp_path / "hubert", "hubert")
    (tmp_path / "hubert/model.safetensors").unlink()
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = {}
    for name, tensor in model.state_dict().items():
        old = next((name.replace(new, old) for new, old in names.items() if new in name), name)
        state[old] = tensor
    torch.save(state, tmp_path / "hubert/pytorch_model.bin")
    return tmp_path / "hubert", model


def test_a_pickled_encoder_becomes_one_that_can_be_loaded(
    pickled: tuple[Path, HubertModel], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder, model = pickled
    with pytest.raises(
        InputError, match=r"pytorch_model.bin but no model.safetensors; .* 'unitweave fetch .*hubert --out"
    ):
        check_model_folder(folder)
    for _ in range(2):  # the second call writes it anew
        assert main(["fetch", str(folder), "--out", str(tmp_path / "safe")]) == 0
    assert "M parameters as safetensors" in capsys.readouterr().out
    check_model_folder(tmp_path / "safe")
    assert not list((tmp_path / "safe").glob("*.bin")) and (tmp_path / "safe/preprocessor_config.json").exists()
    loaded = AutoModel.from_pretrained(tmp_path / "safe", use_safetensors=True).eval()
    with torch.inference_mode():
        sound = torch.randn(1, 8000)
        assert torch.equal(loaded(sound).last_hidden_state, model(sound).last_hidden_state)


def test_shards_and_tied_weights(pickled: tuple[Path, HubertModel], tmp_path: Path) -> None:
    folder, _ = pickled
    (folder / "pytorch_model.bin").unlink()
    table = torch.arange(6.0).reshape(2, 3)
    torch.save({"a": table, "tied": table, "view": table.T}, folder / "pytorch_model-00001-of-00002.bin")
    torch.save({"b": torch.zeros(2)}, folder / "pytorch_model-00002-of-00002.bin")
    shards = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": shards}))
    assert convert_pickled(folder, tmp_path / "safe", "about.json")["parameters"] == 14
    check_model_folder(tmp_path / "safe")
    index = json.loads((tmp_path / "safe/model.safetensors.index.json").read_text())
    assert index["weight_map"] == dict.fromkeys(("a", "view"), "model-00001-of-00002.safetensors") | {
        "b": "model-00002-of-00002.safetensors"
    }
    (folder / shards["b"]).unlink()
    with pytest.raises(InputError, match="no such file; the model folder is incomplete"):
        convert_pickled(folder, tmp_path / "again", "about.json")
    assert not (tmp_path / "again").exists()


class _Attack:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("ran"),))


def test_code_in_a_pickle_does_not_run_and_other_content_is_refused(
    pickled: tuple[Path, HubertModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = pickled
    monkeypatch.chdir(tmp_path)
    for content, message in (
        (pickle.dumps(_Attack()), "not readable as weights alone: it is damaged, or holds more than tensors"),
        (b"", "not readable as weights alone"),
        (b"PK\x03\x04 cut off", "not readable as weights alone"),
    ):
        (folder / "pytorch_model.bin").write_bytes(content)
        with pytest.raises(InputError, match=message) as refused:
            convert_pickled(folder, tmp_path / "safe", "about.json")
        assert "\n" not in str(refused.value)
    torch.save({"step": 3, "model": {}}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="holds more than tensors"):
        convert_pickled(folder, tmp_path / "safe", "about.json")
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(InputError, match=r"has no pytorch_model\.bin"):
        convert_pickled(folder, tmp_path / "safe", "about.json")
    (tmp_path / "mine").mkdir()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="already exists and is not a fetched model"):
        convert_pickled(folder, tmp_path / "mine", "about.json")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "safe").exists()
