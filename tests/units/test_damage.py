"""Damaged artifacts of the units stages: each reader names the file and says what to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.units_corpus import write_corpus, write_encoder
from unitweave.config.units import ExtractionSettings
from unitweave.core.errors import InputError
from unitweave.core.files import file_digest
from unitweave.units.codebook import Codebook
from unitweave.units.dataset import read_units, read_units_metadata
from unitweave.units.encoder import encoder_fingerprint, load_encoder
from unitweave.units.extract import extract_units


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    encoder, codebook = write_encoder(folder)
    corpus = write_corpus(folder / "corpus", 3)
    extract_units(folder / "units", ExtractionSettings(workers=1), corpus, encoder, codebook)
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def cut(path: Path, fraction: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.5, 0.99])
def test_a_cut_off_units_file_is_named(copy: Path, fraction: float) -> None:
    cut(copy / "units/units-00000.parquet", fraction)
    for read in (read_units, read_units_metadata):
        with pytest.raises(InputError, match=r"units-00000\.parquet: damaged or cut off .*; delete the folder"):
            read(copy / "units")


@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_an_extraction_that_goes_on_extracts_a_damaged_shard_again(whole: Path, copy: Path, fraction: float) -> None:
    cut(copy / "units/units-00000.parquet", fraction)
    extract_units(copy / "units", ExtractionSettings(), copy / "corpus", copy / "encoder", copy / "codebook")
    assert file_digest(copy / "units/units-00000.parquet") == file_digest(whole / "units/units-00000.parquet")


@pytest.mark.parametrize("content", ["{}", "[]", "", '{"layer": "two", "encoder": "", "num_units": 1}', "[" * 99_999])
def test_a_damaged_description_of_a_codebook_is_named(copy: Path, content: str) -> None:
    (copy / "codebook/codebook.json").write_text(content)
    with pytest.raises(InputError, match=r"codebook\.json: (damaged|not readable as JSON)"):
        Codebook.load(copy / "codebook")


def test_damaged_centroids_are_named_whether_or_not_their_digest_agrees(copy: Path) -> None:
    path, about = copy / "codebook/codebook.safetensors", copy / "codebook/codebook.json"
    cut(path, 0.5)
    with pytest.raises(InputError, match=r"codebook\.safetensors: damaged"):
        Codebook.load(copy / "codebook")
    about.write_text(json.dumps(json.loads(about.read_text()) | {"fingerprint": file_digest(path)}))
    with pytest.raises(InputError, match=r"codebook\.safetensors: damaged or cut off"):
        Codebook.load(copy / "codebook")


def replace_weights(encoder: Path) -> None:
    (encoder / "model.safetensors").rename(encoder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: cut(folder / "model.safetensors", 0.7), r"model\.safetensors: damaged or cut off"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"model\.safetensors: no such file"),
        (replace_weights, r"pytorch_model\.bin but no model\.safetensors"),
        (lambda folder: (folder / "config.json").write_text("[]"), r"config\.json: damaged"),
        (lambda folder: cut(folder / "config.json", 0.5), r"config\.json: not readable as JSON"),
        (
            lambda folder: (folder / "config.json").write_text("{}"),
            "must be a speech encoder that can carry a CTC head",
        ),
        (lambda folder: cut(folder / "vocab.json", 0.5), r"vocab\.json: not readable as JSON"),
        (lambda folder: (folder / "vocab.json").write_text('{"<pad>": "0"}'), r"vocab\.json: not a CTC vocabulary"),
        (lambda folder: (folder / "vocab.json").unlink(), r"vocab\.json: the encoder folder has no CTC vocabulary"),
    ],
)
def test_a_damaged_encoder_is_named(copy: Path, damage: Callable[[Path], object], words: str) -> None:
    damage(copy / "encoder")
    with pytest.raises(InputError, match=words) as caught:
        load_encoder(copy / "encoder")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": "wide"},
        {"num_hidden_layers": 3},
        {"hidden_size": 64},
        {"auto_map": {"AutoModel": "evil.py"}},
        {"quantization_config": {"load_in_4bit": True}},
        {"vocab_size": 1_000_000_000},
        {"attn_implementation": "someone/kernel"},
    ],
)
def test_a_configuration_that_does_not_fit_or_is_not_supported_is_refused(copy: Path, changes: dict) -> None:
    path = copy / "encoder/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError):
        load_encoder(copy / "encoder")


def test_an_encoder_without_weights_has_no_fingerprint(copy: Path) -> None:
    (copy / "encoder/model.safetensors").unlink()
    with pytest.raises(InputError, match="the encoder folder is incomplete"):
        encoder_fingerprint(copy / "encoder")
