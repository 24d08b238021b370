"""Recordings as people have them: noise, dialogues, other languages; subtitles of short and long ones; confidence."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from helpers.serving import SETTINGS, make_run, voice
from unitweave.cli import main
from unitweave.config.live import LiveSettings
from unitweave.core.audio import read_audio, write_audio
from unitweave.core.text import normalize
from unitweave.lm.model.vocabulary import Vocabulary
from unitweave.serve.api import make_app
from unitweave.translate.constraints import ForcedPrefix
from unitweave.translate.live.decoding import check_live
from unitweave.translate.translator import Translator
from unitweave.units.align import utterance_score

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, text_lm_folder: Path) -> Path:
    """A model of random weights whose record says that it was trained on utterances of two seconds."""
    folder = make_run(tmp_path_factory.mktemp("run"), text_lm_folder)
    record(folder, utterance_seconds=2.0, source_score=0.999)
    return folder


def record(run: Path, **changes: float) -> None:
    model = run / "lm/scheduled/model"
    replace(Vocabulary.load(model), **changes).save(model)  # type: ignore[arg-type]


def dialogue() -> np.ndarray:
    """Three turns of a second and a half, with pauses."""
    pause = np.zeros(16_000, np.float32)
    return np.concatenate([part for seed in range(3) for part in (pause, voice(1.5, seed))] + [pause])


def test_noise_is_not_translated_and_that_is_said(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    noise = (0.1 * np.random.default_rng(0).standard_normal(80_000)).astype(np.float32)
    for name, samples in (("short", noise[:24_000]), ("long", noise)):
        write_audio(tmp_path / f"{name}.wav", samples)
        assert main(["translate", str(run), str(tmp_path / f"{name}.wav"), "-o", str(tmp_path / "out")]) == 2
        assert f"{name}.wav: no speech found" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.wav"))
    with TestClient(make_app(Translator.from_pretrained(run))) as client:
        answer = client.post("/v1/translate", files={"audio": ("a.wav", (tmp_path / "short.wav").read_bytes())})
    assert answer.status_code == 400 and "no speech found" in answer.json()["error"]


def test_live_utterances_are_as_long_as_those_the_model_was_trained_on(run: Path) -> None:
    translator = Translator.from_pretrained(run)

    def longest(most: float = 20.0, **changes: float) -> float | None:
        settings = LiveSettings(**changes)  # type: ignore[arg-type]
        return check_live(translator, settings, ForcedPrefix(), most).max_utterance_seconds

    assert (longest(), longest(1.5), longest(max_utterance_seconds=7.0), longest(endpoint_seconds=3.0)) == (
        2.0,
        1.5,
        7.0,
        6.0,
    )


def test_a_dialogue_is_cut_into_utterances_as_the_model_was_trained_on(run: Path, tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", dialogue())
    assert main(["translate", str(run), str(tmp_path / "a.wav"), "-o", str(tmp_path / "out")]) == 0
    about = json.loads((tmp_path / "out/a.json").read_text())
    assert len(about["segments"]) >= 3 and all(s["end"] - s["start"] < 2.1 for s in about["segments"])
    assert 0 <= about["confidence"] <= 1 and about["in_domain"] is not None
    assert (tmp_path / "out/a.srt").exists()
    translator = Translator.from_pretrained(run)
    with TestClient(make_app(translator)) as client:
        answer = client.post("/v1/translate", files={"audio": ("a.wav", (tmp_path / "a.wav").read_bytes())}).json()
    parts = [s["transcript"] for s in about["segments"] if s["transcript"]]
    assert answer["transcript"] == " ".join(parts) and answer["source_seconds"] == pytest.approx(7.5 + 1)
    whole = translator.translate(dialogue(), SETTINGS)
    assert whole.source_seconds == pytest.approx(8.5), "Python translates what it is given as one utterance"


def test_short_recordings_get_subtitles_in_both_languages_in_step_with_the_speech(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    translate = Translator.translate_all

    def with_texts(self, *arguments, **more):
        found = translate(self, *arguments, **more)
        return [replace(one, transcript="hola", translation="hello there", language="es") for one in found]

    monkeypatch.setattr(Translator, "translate_all", with_texts)
    quiet = np.zeros(8_000, np.float32)
    write_audio(tmp_path / "a.wav", np.concatenate([quiet, voice(1.0), quiet[:4_000]]))
    command = ["translate", str(run), str(tmp_path / "a.wav"), "-o"]
    assert main([*command, str(tmp_path / "out")]) == 0
    spoken = len(read_audio(tmp_path / "out/a.wav")) / 16_000
    begin, end = times(tmp_path / "out/a.srt")
    assert begin == 0 and end == pytest.approx(max(spoken, 5 / 6), abs=2e-3)
    begin, end = times(tmp_path / "out/a.es.srt")
    assert begin == pytest.approx(0.5, abs=0.15) and end == pytest.approx(1.5, abs=0.2)
    assert "hola" in (tmp_path / "out/a.es.vtt").read_text() and "hello" in (tmp_path / "out/a.vtt").read_text()
    assert main([*command, str(tmp_path / "text"), "--text-only"]) == 0
    assert times(tmp_path / "text/a.srt")[0] == pytest.approx(0.5, abs=0.15), "without speech, in step with the source"


def times(path: Path) -> tuple[float, float]:
    """When the only cue of an .srt begins and ends."""
    start, end = path.read_text().split("\n")[1].split(" --> ")

    def seconds(clock: str) -> float:
        hours, minutes, rest = clock.replace(",", ".").split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(rest)

    return seconds(start), seconds(end)


def test_confidence_is_how_well_the_transcript_fits_the_sound(run: Path, tmp_path: Path) -> None:
    translator = Translator.from_pretrained(run)
    recordings = [voice(1.0), voice(1.5, 1)]
    for recording, result in zip(recordings, translator.translate_all(recordings, SETTINGS), strict=True):
        assert result.plain()["confidence"] == pytest.approx(result.confidence, abs=1e-4)
        if result.transcript:
            text = normalize(result.transcript, result.language)
            _, frames = translator.extractor.extract([recording], [text])[0]
            assert frames is not None
            assert result.confidence == pytest.approx(utterance_score(text.split(), frames.scores), abs=1e-5)
        assert result.in_domain == (result.confidence >= 0.05 * 0.999), "a twentieth of what the record says"


def test_the_score_of_a_text_is_the_geometric_mean_of_its_characters() -> None:
    assert utterance_score(["ab", "c"], np.array([0.25, 1.0])) == pytest.approx((0.25 * 0.25) ** (1 / 3))
    assert utterance_score([], np.zeros(0)) == 0.0
