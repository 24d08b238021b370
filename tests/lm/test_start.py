"""Model folders and checkpoints that are damaged, or ask for what is refused, end in one line that names them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import Gemma2Config, Gemma2ForCausalLM

from helpers.training import train
from unitweave.core.errors import InputError
from unitweave.core.files import write_json
from unitweave.lm.model.start import check_loadable, load_causal_lm, load_config
from unitweave.lm.model.vocabulary import Vocabulary, extend_tokenizer
from unitweave.lm.train.trainer import LmTrainer
from unitweave.training import checkpoints as checkpoints_module
from unitweave.training.checkpoints import last_checkpoint, whole_checkpoint


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def set_keys(path: Path, **keys: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: cut(f / "model.safetensors"), "model.safetensors: damaged or cut off"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pickles can run code"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json: damaged"),
        (lambda f: (f / "tokenizer.json").write_text('{"broken'), "could not load the tokenizer"),
        (lambda f: set_keys(f / "tokenizer_config.json", model_max_length=[[1]]), "could not load the tokenizer"),
        (lambda f: set_keys(f / "config.json", vocab_size=10**9), "vocab_size must be"),
        (lambda f: set_keys(f / "config.json", hidden_size=48), r"as \[300, 48\], but the weights have \[300, 32\]"),
        (
            lambda f: set_keys(f / "config.json", quantization_config={"quant_method": "x"}),
            "quantization_config",
        ),
        (lambda f: set_keys(f / "config.json", auto_map={"AutoModel": "x--y.Z"}), "auto_map is not supported"),
        (lambda f: set_keys(f / "config.json", attn_implementation="some/kernel"), "names code on the hub"),
        (lambda f: (f / "adapter_config.json").write_text("{}"), "holds an adapter"),
    ],
)
def test_a_damaged_or_refused_model_is_named_in_one_line(
    tmp_path: Path, text_lm_folder: Path, damage: Callable[[Path], object], words: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(text_lm_folder, folder)
    damage(folder)
    with pytest.raises(InputError, match=words) as caught:
        load_causal_lm(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_the_attention_is_ours_and_not_the_configs(tmp_path: Path, text_lm_folder: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(text_lm_folder, folder)
    set_keys(folder / "config.json", attn_implementation="eager", _attn_implementation="eager")
    assert load_causal_lm(folder)[0].config._attn_implementation == "sdpa"
    check_loadable(str(folder))


@pytest.mark.parametrize("content", ["[]", "{}", '{"format": 1}', '{"format": 1, "text_size": "many"}', "{"])
def test_a_damaged_vocabulary_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "unitweave.json").write_text(content)
    with pytest.raises(InputError, match=r"unitweave\.json"):
        Vocabulary.load(tmp_path)


def test_a_vocabulary_with_wrong_values_is_damaged(tmp_path: Path, text_lm_folder: Path) -> None:
    vocabulary = extend_tokenizer(load_causal_lm(text_lm_folder)[1], 10, ["en", "es"], "cb")
    vocabulary.save(tmp_path)
    assert Vocabulary.load(tmp_path) == vocabulary
    for key, value in (("markers", {}), ("num_units", "10"), ("languages", []), ("tasks", "s2st")):
        vocabulary.save(tmp_path)
        set_keys(tmp_path / "unitweave.json", **{key: value})
        with pytest.raises(InputError, match="damaged"):
            Vocabulary.load(tmp_path)


@pytest.mark.slow
def test_any_damaged_file_of_a_checkpoint_sets_it_aside_for_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(checkpoints_module, "echo", said.append)
    step = LmTrainer.training_step

    def interrupted(self: LmTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 7:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    train(tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LmTrainer, "training_step", interrupted)
        train(tmp_path / "killed")
    checkpoints = tmp_path / "killed/checkpoints"
    names = sorted(path.name for path in (checkpoints / "checkpoint-6").iterdir())
    assert {"model.safetensors", "optimizer.pt", "rng_state.pth", "scheduler.pt", "trainer_state.json"} < set(names)
    for name in names:
        copy = Path(shutil.copytree(checkpoints, tmp_path / name / "checkpoints"))
        content = bytearray((copy / "checkpoint-6" / name).read_bytes())
        content[len(content) // 2] ^= 0xFF  # as long as before
        (copy / "checkpoint-6" / name).write_bytes(bytes(content))
        found, at = last_checkpoint(copy)
        assert found == copy / "checkpoint-3" and at == 3 and (copy / "damaged-checkpoint-6").exists()
        assert f"checkpoint-6: damaged ({name}); set aside as damaged-checkpoint-6, going on from step 3" in said.pop()
    (checkpoints / "checkpoint-6/optimizer.pt").unlink()
    train(tmp_path / "killed")
    one, two = (tmp_path / name / "model/model.safetensors" for name in ("whole", "killed"))
    assert one.read_bytes() == two.read_bytes()


def test_a_checkpoint_of_other_settings_is_not_gone_on_from(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    for number, fingerprint in ((3, "ours"), (6, "theirs")):
        write_json(tmp_path / "stage.json", {"fingerprint": fingerprint})
        with whole_checkpoint(checkpoints, number, True, lambda: None) as folder:
            write_json(folder / "trainer_state.json", {"global_step": number})
    write_json(tmp_path / "stage.json", {"fingerprint": "ours"})
    assert last_checkpoint(checkpoints) == (checkpoints / "checkpoint-3", 3)
    assert sorted(path.name for path in checkpoints.iterdir()) == ["checkpoint-3", "damaged-checkpoint-6"]


def test_a_copy_of_a_checkpoint_under_the_name_of_a_later_one_is_not_gone_on_from(tmp_path: Path) -> None:
    with whole_checkpoint(tmp_path, 3, True, lambda: None) as folder:
        write_json(folder / "trainer_state.json", {"global_step": 3})
    shutil.copytree(tmp_path / "checkpoint-3", tmp_path / "checkpoint-5")
    assert last_checkpoint(tmp_path) == (tmp_path / "checkpoint-3", 3), "or steps 4 and 5 would never be taken"


def test_an_attention_with_a_soft_cap_is_computed_with_it_by_every_transformers(tmp_path: Path) -> None:
    """Before 5.21 torch's attention, which has none, was chosen for Gemma 2."""
    Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, attn_logit_softcapping=1.0,
        )
    ).save_pretrained(tmp_path)  # fmt: skip
    assert load_config(tmp_path)._attn_implementation == "eager"
