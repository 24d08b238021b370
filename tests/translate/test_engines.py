"""Engines below the decoder: integer weights agree with float32, and decoding stays what it is."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from helpers.serving import make_run, speech, write_random_lm
from unitweave.cli import main
from unitweave.config.translate import DecodingSettings
from unitweave.core.errors import InputError
from unitweave.lm.model.start import load_causal_lm
from unitweave.translate.decode import ForcedPrefix, PhaseDecoder
from unitweave.translate.engines import load_language_model
from unitweave.translate.int8 import Int8Embedding, Int8Linear, quantize, save_int8
from unitweave.translate.translator import Translator
from unitweave.translate.weights import StoredWeight, load_converted, stored_weights

UNITS_IN_BOOK = 24
SHORT = DecodingSettings(max_text_tokens_per_second=2.0, max_units_per_frame=0.5)

pytestmark = pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines, reason="torch without fbgemm"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, text_lm_folder: Path) -> Path:
    path = tmp_path_factory.mktemp("lm")
    write_random_lm(path, text_lm_folder, UNITS_IN_BOOK, "book")
    return path


@pytest.fixture(scope="module")
def decoder(folder: Path) -> PhaseDecoder:
    return PhaseDecoder.load(folder, engine="int8")


@pytest.fixture(scope="module")
def sources() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, UNITS_IN_BOOK, size=n).astype(np.uint16) for n in (30, 7, 19, 1, 44)]


def test_an_integer_layer_is_close_to_the_layer_that_it_replaces() -> None:
    torch.manual_seed(0)
    plain = torch.nn.Linear(512, 96)
    layer = Int8Linear(*quantize(plain.weight.data), plain.bias.data)
    x = torch.randn(2, 7, 512)
    x[..., 3] *= 20  # one large activation takes most of the range, as in language models
    error = (layer(x) - plain(x)).norm() / plain(x).norm()
    assert error < 0.05


def test_an_integer_layer_gives_a_token_the_same_result_in_any_batch() -> None:
    torch.manual_seed(0)
    layer = Int8Linear(*quantize(torch.randn(64, 128)))
    x = torch.randn(33, 128) * torch.logspace(-3, 3, 33)[:, None]
    together = layer(x)
    for row in range(len(x)):
        assert torch.equal(layer(x[row : row + 1])[0], together[row])


def test_the_largest_weights_and_activations_do_not_saturate() -> None:
    layer = Int8Linear(*quantize(torch.ones(8, 256)))
    assert layer(torch.ones(1, 256))[0] == pytest.approx([256.0] * 8, rel=1e-5)
    assert layer(-torch.ones(1, 256))[0] == pytest.approx([-256.0] * 8, rel=1e-5)


def test_all_linear_layers_and_the_embedding_become_integers(decoder: PhaseDecoder) -> None:
    modules = list(decoder.model.modules())
    assert not any(type(m) in (torch.nn.Linear, torch.nn.Embedding) for m in modules)
    assert sum(isinstance(m, Int8Linear) for m in modules) > 7 and any(isinstance(m, Int8Embedding) for m in modules)


def test_the_logits_are_those_of_float32_but_for_the_rounding(folder: Path, decoder: PhaseDecoder) -> None:
    plain, _ = load_language_model(folder)
    ids = torch.arange(40)[None]
    with torch.inference_mode():
        a, b = (model(input_ids=ids).logits[0].log_softmax(-1) for model in (plain, decoder.model))
    assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] > 0.98


@pytest.mark.slow
def test_saved_integers_are_the_ones_that_are_made_while_loading(
    folder: Path, decoder: PhaseDecoder, sources: list, tmp_path: Path
) -> None:
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    save_int8(folder, tmp_path)
    a, b = decoder.translate(sources, SHORT), PhaseDecoder.load(tmp_path).translate(sources, SHORT)
    assert all(x.score == y.score and np.array_equal(x.units, y.units) for x, y in zip(a, b, strict=True))
    tensors = load_file(tmp_path / "model-int8.safetensors")
    assert {t.dtype for n, t in tensors.items() if n.endswith("proj.weight")} == {torch.int8}


@pytest.mark.slow
@pytest.mark.parametrize("how", [{}, {"temperature": 1.0}, {"num_beams": 3}])
def test_a_batch_gives_what_each_utterance_gets_alone(decoder: PhaseDecoder, sources: list, how: dict) -> None:
    settings = replace(SHORT, **how)
    for source, together in zip(sources, decoder.translate(sources, settings), strict=True):
        alone = decoder.translate([source], settings)[0]
        assert (alone.transcript, alone.translation) == (together.transcript, together.translation)
        assert np.array_equal(alone.units, together.units)


@pytest.mark.slow
def test_stages_limits_and_given_texts_hold(decoder: PhaseDecoder, sources: list) -> None:
    words = "a cat"
    given = [ForcedPrefix(translation=words, language="es")] * len(sources)
    for source, said in zip(sources, decoder.translate(sources, SHORT, given), strict=True):
        assert said.language == "es" and said.translation == words
        assert len(said.units) <= len(source) * 0.5 + 50
        assert all(0 <= unit < UNITS_IN_BOOK for unit in said.units)


@pytest.mark.slow
def test_an_export_with_integer_weights_translates_without_naming_the_engine(
    tmp_path: Path, text_lm_folder: Path
) -> None:
    run = make_run(tmp_path / "run", text_lm_folder)
    out = tmp_path / "model"
    assert main(["export", str(run), "-o", str(out), "--engine", "int8"]) == 0
    assert not (out / "model.safetensors").exists() and (out / "model-int8.safetensors").exists()
    quantized, plain = Translator.from_pretrained(run, engine="int8"), Translator.from_pretrained(run)
    a, b = (t.translate(speech(1.0)) for t in (Translator.from_pretrained(out), quantized))
    assert a.transcript == b.transcript and np.array_equal(a.waveform, b.waveform)
    assert quantized.fingerprint() != plain.fingerprint()


def test_a_wrong_engine_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="engine must be one of int8"):
        load_language_model(folder, engine="int3")
    with pytest.raises(InputError, match="runs on the CPU"):
        load_language_model(folder, device="cuda", engine="int8")
    with pytest.raises(InputError, match="sets the precision itself"):
        load_language_model(folder, dtype=torch.bfloat16, engine="int8")


def test_weights_of_another_shape_or_missing_ones_are_refused(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="no such file"):
        PhaseDecoder.load(tmp_path, engine="int8")
    save_int8(folder, tmp_path)
    damaged = (tmp_path / "model-int8.safetensors").read_bytes()
    (tmp_path / "model-int8.safetensors").write_bytes(damaged[: len(damaged) // 2])
    with pytest.raises(InputError, match="damaged"):
        PhaseDecoder.load(tmp_path)


def test_bfloat16_is_read_without_a_second_copy_and_is_what_transformers_makes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unitweave.translate.weights._VALUES", 64)
    parts, sizes = StoredWeight.parts, []

    def watched(weight: StoredWeight) -> Iterator[torch.Tensor]:
        for part in parts(weight):
            sizes.append((part.numel(), weight.shape.numel()))
            yield part

    monkeypatch.setattr(StoredWeight, "parts", watched)
    ours, theirs = load_converted(folder, torch.bfloat16), load_causal_lm(folder, torch.bfloat16)[0]
    assert ours is not None and {name: str(w) for name, w in ours.state_dict().items()} == {
        name: str(w) for name, w in theirs.state_dict().items()
    }
    ids = torch.arange(20)[None]
    assert torch.equal(ours(input_ids=ids).logits, theirs.eval()(input_ids=ids).logits)
    assert all(part <= max(64, whole if whole < 100 else 64) for part, whole in sizes) and len(sizes) > 100
    assert sum(part for part, _ in sizes) == sum(weight.shape.numel() for weight in stored_weights(folder))


def test_the_narrow_output_layer_has_the_rows_of_the_whole_one() -> None:
    weight, scale = quantize(torch.randn(50, 32))
    index, x = torch.tensor([3, 4, 49]), torch.randn(2, 32)
    for shared in (False, True):
        layer = Int8Linear(weight, scale, shared=shared)
        assert torch.equal(layer.rows(index)(x), layer(x)[:, index])
