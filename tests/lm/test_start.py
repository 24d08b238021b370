"""Model folders and checkpoints that are damaged, or ask for what is refused, end in one line that names them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.training import train
from unitweave.core.errors import InputError
from unitweave.lm.model.start import check_loadable, load_causal_lm
from unitweave.lm.model.vocabulary import Vocabulary, extend_tokenizer
from unitweave.lm.train.trainer import LmTrainer


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
        (lambda f: set_keys(f / "config.json", vocab_size=10**9), "vocab_size must be"),
        (lambda f: set_keys(f / "config.json", hidden_size=48), "could not load the language model"),
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


def test_a_damaged_checkpoint_is_named_with_what_to_do(tmp_path: Path) -> None:
    step = LmTrainer.training_step

    def interrupted(self: LmTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 4:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(LmTrainer, "training_step", interrupted)
        train(tmp_path)
    checkpoint = tmp_path / "checkpoints/checkpoint-3"
    for name in ("model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"):
        whole = (checkpoint / name).read_bytes()
        cut(checkpoint / name)
        with pytest.raises(InputError, match=f"checkpoint-3: damaged .*{name}.*; delete this folder to start"):
            train(tmp_path)
        (checkpoint / name).write_bytes(whole)
    train(tmp_path)
