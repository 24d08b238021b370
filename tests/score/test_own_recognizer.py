"""A recognizer of the user's own: a Python class that the recipe names."""

import numpy as np
import pytest
import soundfile

from unitweave.config.score import ScoreSettings
from unitweave.core.errors import InputError
from unitweave.score.asr.recognizers import choose_recognizer, identity, load_recognizer
from unitweave.score.folder import audio_files, score_folders

SOURCE = """
from unitweave.score.asr.recognizers import Recognizer

class Counter(Recognizer):
    signature = "counter-1"

    def transcribe(self, waveforms, language="en"):
        return [f"{len(w)} {language}" for w in waveforms]
"""


def test_a_class_with_a_signature_and_transcribe_is_a_recognizer(tmp_path, monkeypatch) -> None:
    (tmp_path / "my_asr.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    name = ScoreSettings(recognizer="my_asr:Counter").recognizer
    chosen = choose_recognizer(name, "", ["sw", "en"])
    recognizer = load_recognizer(*chosen)
    assert recognizer.transcribe([np.zeros(3, np.float32)], "sw") == ["3 sw"]
    assert recognizer.signature == "counter-1" and identity(*chosen) == "my_asr:Counter"
    assert recognizer.clean_hypothesis("As it is") == recognizer.clean_reference("As it is") == "As it is"


def test_an_unknown_recognizer_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="recognizer: must be one of auto, moonshine, fairseq, whisper, MODULE:CLASS"):
        ScoreSettings(recognizer="wisper")
    with pytest.raises(InputError, match=r"score\.recognizer no_such_module:Asr: could not be imported"):
        choose_recognizer("no_such_module:Asr", "", ["en"])


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("def transcribe(self, waveforms, language='en'): return 1 / 0", "transcribe: raised ZeroDivisionError:.*line"),
        ("def transcribe(self, waveforms, language='en'): return None", "transcribe: .*'NoneType' .*is not iterable"),
        ("def transcribe(self, waveforms, language='en'): return ['a']", "must give a text for each of the 2 .*gave 1"),
        ("def transcribe(self, waveforms, language='en'): return [b'a', 'b']", "must give text .*gave bytes b'a'"),
        ("def clean_hypothesis(self, text, language='en'): return None", "clean_hypothesis must give text .*NoneType"),
        ("def clean_reference(self, text, language='en'): return text.no", "clean_reference: raised AttributeError"),
        ("def normalization(self, language): raise KeyError('sw')", "normalization: raised KeyError"),
        ("def load(model, device): raise RuntimeError('no licence')", "load: raised RuntimeError: no licence"),
        ("def identity(model): return 1 / 0", "identity: raised ZeroDivisionError"),
        ("def supported_languages(model): return 1 / 0", "supported_languages: raised ZeroDivisionError"),
    ],
)
def test_what_a_class_of_the_user_does_wrong_is_one_line_with_its_place(
    method: str, message: str, tmp_path, monkeypatch
) -> None:
    module = f"wrong_asr_{sum(map(ord, method))}"
    static = "@staticmethod\n    " if "model" in method else ""
    (tmp_path / f"{module}.py").write_text(f"{SOURCE}\n    {static}{method}\n")
    monkeypatch.chdir(tmp_path)
    name = f"{module}:Counter"

    def use() -> None:
        identity(*choose_recognizer(name, "", ["en"]))
        recognizer = load_recognizer(name)
        recognizer.transcribe([np.zeros(3, np.float32)] * 2, "en")
        recognizer.normalization("en")
        recognizer.clean_hypothesis("a")
        recognizer.clean_reference("a")

    with pytest.raises(InputError, match=rf"score\.recognizer {module}:Counter.*{message}"):
        use()


@pytest.mark.parametrize("languages", ["None", '("es", "sw")', '["sw"]'])
def test_a_class_may_list_its_languages(languages: str, tmp_path, monkeypatch) -> None:
    name = f"asr_of_{sum(map(ord, languages))}"
    (tmp_path / f"{name}.py").write_text(f"{SOURCE}\n    supported_languages = {languages}\n")
    monkeypatch.chdir(tmp_path)
    assert choose_recognizer(f"{name}:Counter", "", ["sw"]) == (f"{name}:Counter", "")
    if languages != "None":
        with pytest.raises(InputError, match="does not support fr"):
            choose_recognizer(f"{name}:Counter", "", ["fr"])


def test_hidden_files_are_none_of_a_systems(tmp_path) -> None:
    for name in ("a.wav", "._a.wav", ".b.wav"):  # macOS writes the second beside the first on other disks
        (tmp_path / name).write_bytes(b"")
    assert list(audio_files(tmp_path)) == ["a"]


@pytest.mark.parametrize(("name", "line"), [("Spanish", "2 es"), ("es-MX", "2 es"), ("Klingon", None)])
def test_the_recognizer_is_told_the_code_of_a_language_whatever_it_is_called(
    name: str, line: str | None, tmp_path, monkeypatch
) -> None:
    (tmp_path / "my_asr.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wavs").mkdir()
    soundfile.write(tmp_path / "wavs/a.wav", [0.5, -0.5], 16_000)
    (tmp_path / "refs.txt").write_text("hola\n")
    settings = ScoreSettings(recognizer="my_asr:Counter", mos=[], bootstrap_samples=10)
    if line is None:
        with pytest.raises(InputError, match="'klingon' is not a language; give an ISO 639 code"):
            score_folders([tmp_path / "wavs"], tmp_path / "refs.txt", settings, language=name)
    else:
        scores = score_folders([tmp_path / "wavs"], tmp_path / "refs.txt", settings, language=name)
        assert scores.transcripts == {"wavs": {"a": line}}


def test_a_recognizer_that_works_in_place_leaves_the_speech_to_those_after_it(tmp_path, monkeypatch) -> None:
    (tmp_path / "silencing_asr.py").write_text(
        SOURCE.replace("Counter", "Silencing").replace("        return", "        waveforms[0][:] = 0\n        return")
    )
    monkeypatch.chdir(tmp_path)
    speech = np.ones(3, np.float32)
    assert load_recognizer("silencing_asr:Silencing").transcribe([speech]) == ["3 en"]
    assert (speech == 1).all()
