"""Models that were trained to text only (s2tt, asr): decoded, used, exported, served, translated and scored as such."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from helpers.serving import SETTINGS, make_run, make_test_split, voice, wav
from unitweave.cli import main
from unitweave.config.score import ScoreSettings
from unitweave.config.translate import TranslateSettings
from unitweave.core.audio import write_audio
from unitweave.core.errors import InputError
from unitweave.lm.model.vocabulary import Vocabulary
from unitweave.score.score import score_run
from unitweave.score.scores import read_scores, read_utterances
from unitweave.score.table import print_table
from unitweave.serve.api import make_app
from unitweave.serve.export import export_run
from unitweave.translate.decode import PhaseDecoder
from unitweave.translate.stage import translate_split
from unitweave.translate.translator import Translator

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["s2tt", "asr"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, text_lm_folder: Path) -> Path:
    """A run folder of random weights whose model has one task, and no vocoder."""
    folder = make_run(tmp_path_factory.mktemp("run"), text_lm_folder)
    model = folder / "lm/scheduled/model"
    replace(Vocabulary.load(model), tasks=[request.param]).save(model)
    shutil.rmtree(folder / "vocoder")
    return folder


def task_of(run: Path) -> str:
    return Vocabulary.load(run / "lm/scheduled/model").tasks[0]


@pytest.mark.parametrize("beams", [1, 2])
def test_decoding_ends_with_the_last_text_that_the_model_was_trained_on(run: Path, beams: int) -> None:
    decoder = PhaseDecoder.load(run / "lm/scheduled/model")
    sources = [list(range(16)) * 2, [3, 4, 5] * 4]
    units = [np.array(source, np.uint16) for source in sources]
    for one in decoder.translate(units, replace(SETTINGS, num_beams=beams)):
        assert one.tokens[-1] == decoder.vocabulary.markers["end"] and not len(one.units)
        assert set(one.scores) == ({"transcript", "translation"} if task_of(run) == "s2tt" else {"transcript"})
        assert (decoder.vocabulary.markers["translation"] in one.tokens) == (task_of(run) == "s2tt")


def test_recordings_are_translated_exported_and_served_as_text(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_audio(tmp_path / "a.wav", voice(1.0))
    assert main(["translate", str(run), str(tmp_path / "a.wav"), "-o", str(tmp_path / "out")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown) >= {"transcript", "translation"} and "audio" not in shown
    assert not (tmp_path / "out/a.wav").exists()
    about = export_run(run, None, tmp_path / "model")
    assert "vocoder" not in about["fingerprints"] and not (tmp_path / "model/vocoder").exists()
    translator = Translator.from_pretrained(tmp_path / "model")
    assert translator.translate(voice(1.0), SETTINGS).transcript == shown["transcript"]
    with TestClient(make_app(translator)) as client:
        answer = client.post("/v1/translate", files={"audio": ("a.wav", wav(1.0))})
        assert answer.status_code == 200 and answer.json()["audio"] is None
        answer = client.post("/v1/stream", files={"audio": ("a.wav", wav(1.0))})
        assert answer.status_code == 400 and "returns no speech" in answer.json()["error"]


def test_the_test_split_is_translated_and_scored_on_texts(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    make_test_split(run, 4)
    out, score = tmp_path / "translate/only", tmp_path / "score"
    parts = (run / "corpus", run / "units", run / "lm/scheduled/model", run / "vocoder")
    translate_split(out, TranslateSettings(**vars(SETTINGS)), *parts)
    outputs = [json.loads(line) for line in (out / "outputs.jsonl").read_text().splitlines()]
    assert all(line["audio"] is None for line in outputs) and not (out / "audio").exists()
    settings = ScoreSettings(mos=[], bootstrap_samples=10, randomization_trials=10)
    score_run(score, settings, run / "corpus", run / "units", run / "vocoder", {"only": out})
    row = read_scores(score).systems["only"]
    assert row.asr_bleu is None and row.transcript_wer is not None and row.main_score is not None
    assert (row.text_bleu is not None) == (task_of(run) == "s2tt")
    assert len(read_utterances(score)) == 4
    print_table(read_scores(score))
    assert "only" in capsys.readouterr().out


def test_a_model_that_takes_no_speech_is_refused_in_one_line(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    model = tmp_path / "run/lm/scheduled/model"
    replace(Vocabulary.load(model), tasks=["mt"]).save(model)
    with pytest.raises(InputError, match="trained only on mt, this model takes no speech"):
        Translator.from_pretrained(tmp_path / "run")
