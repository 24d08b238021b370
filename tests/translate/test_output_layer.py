"""Logits of the units alone: the same choices as with all logits, in any mix of phases."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.serving import write_random_lm
from unitweave.config.translate import DecodingSettings
from unitweave.lm.model.vocabulary import Vocabulary
from unitweave.translate.constraints import UNITS
from unitweave.translate.decode import PhaseDecoder
from unitweave.translate.engines import load_language_model, model_precision
from unitweave.translate.output_layer import PhaseOutputLayer

SHORT = DecodingSettings(max_text_tokens_per_second=2.0, max_units_per_frame=0.5)
ENGINES = [None] + (["int8"] if "fbgemm" in torch.backends.quantized.supported_engines else [])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, text_lm_folder: Path) -> Path:
    path = tmp_path_factory.mktemp("lm")
    write_random_lm(path, text_lm_folder, 24, "book")
    return path


@pytest.mark.parametrize("engine", ENGINES)
def test_narrow_rows_get_the_logits_of_the_units_and_the_others_all_of_them(folder: Path, engine: str | None) -> None:
    decoder = PhaseDecoder.load(folder, engine=engine)
    layer = decoder.model.get_output_embeddings()
    assert isinstance(layer, PhaseOutputLayer) and model_precision(decoder.model) == (engine or "torch.float32")
    hidden = torch.randn(3, 1, layer.full.in_features)
    units = torch.tensor(decoder.constraints.tokens()[UNITS])
    with torch.inference_mode():
        full = layer.full(hidden)
        for narrow in ([], [False] * 3, [True, False, True], [True] * 3):
            layer.narrow(narrow)
            logits = layer(hidden)
            for row in range(3):
                if narrow and narrow[row]:
                    torch.testing.assert_close(logits[row, 0, units], full[row, 0, units])
                    assert int(logits[row].isfinite().sum()) == len(units)
                else:
                    torch.testing.assert_close(logits[row], full[row])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("how", [{}, {"temperature": 1.0}, {"num_beams": 2}])
def test_translations_are_those_of_the_whole_layer(folder: Path, engine: str | None, how: dict) -> None:
    rng = np.random.default_rng(0)
    sources = [rng.integers(0, 24, size=n).astype(np.uint16) for n in (30, 7, 19)]
    whole = PhaseDecoder(*load_language_model(folder, engine=engine), Vocabulary.load(folder))
    settings = replace(SHORT, **how)
    narrow = PhaseDecoder.load(folder, engine=engine)
    for a, b in zip(whole.translate(sources, settings), narrow.translate(sources, settings), strict=True):
        assert (a.language, a.transcript, a.translation) == (b.language, b.transcript, b.translation)
        assert np.array_equal(a.units, b.units)
        assert a.score == pytest.approx(b.score, rel=1e-4)
