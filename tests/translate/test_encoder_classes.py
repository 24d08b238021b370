"""A run with another class of encoders translates recordings, also as an exported model."""

from pathlib import Path

import numpy as np
import pytest

from helpers.serving import SETTINGS, make_run, speech
from unitweave.serve.export import export_run
from unitweave.translate.checks import MIN_SAMPLES
from unitweave.translate.translator import Translator


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hubert", "sew", "whisper"])
def test_recordings_are_translated_alone_together_and_by_the_exported_model(
    tmp_path: Path, text_lm_folder: Path, kind: str
) -> None:
    (tmp_path / "run").mkdir()
    run = make_run(tmp_path / "run", text_lm_folder, encoder_kind=kind)
    translator = Translator.from_pretrained(run)
    waves = [speech(0.6, 1), speech(1.1, 2)]
    together = translator.translate_all(waves, SETTINGS)
    export_run(run, "scheduled", tmp_path / "model")
    exported = Translator.from_pretrained(tmp_path / "model")
    for wave, both in zip(waves, together, strict=True):
        alone = exported.translate(wave, SETTINGS)
        assert alone.transcript == both.transcript and np.array_equal(alone.units, both.units)
    words = translator.align(waves[1], "dos perros", "es")
    assert [word for word, _, _ in words] == ["dos", "perros"]
    assert all(0 <= start <= end <= 1.1 for _, start, end in words)
    assert len(translator.encode([speech(MIN_SAMPLES / 16_000)])[0][0]) > 0
