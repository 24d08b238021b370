"""Several references, languages, speakers and COMET: what stands beside ASR-BLEU."""

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
import soundfile
import torch
from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC, WavLMConfig, WavLMForXVector

from helpers.cvss_miniature import tone
from helpers.encoders import random_checkpoint
from unitweave.cli import main
from unitweave.config.score import ScoreSettings
from unitweave.core.errors import InputError
from unitweave.score import folder as folders
from unitweave.score.asr import checkpoints
from unitweave.score.asr.recognizers import NoRecognizer
from unitweave.score.cascade import TranslationModel
from unitweave.score.references import read_references
from unitweave.score.scores import Scores
from unitweave.score.speakers import SpeakerComparison, load_speaker_model

TEXTS = ["the soup is too hot today", "my sister lives in a small house", "where is the station please"]
FILES = {name: Path(f"{name}.wav") for name in ("a", "b", "c")}


def brightness(waveform: np.ndarray) -> np.ndarray:
    """A voice, as far as this test is concerned: its spectrum in eight bands."""
    power = np.abs(np.fft.rfft(waveform, 16_000)) ** 2
    return np.array([part.sum() for part in np.array_split(power, 8)])


class Recites(NoRecognizer):
    """Transcribes a recording by its length: one second for the first text, two for the second, ..."""

    signature = "recites"

    def transcribe(self, waveforms, language="en"):
        return [f"{TEXTS[round(len(w) / 16_000) - 1]}{'' if language == 'en' else ' ' + language}" for w in waveforms]


@pytest.fixture
def wavs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(folders, "choose_recognizer", lambda *_: ("recites", ""))
    monkeypatch.setattr(folders, "load_recognizer", lambda *_: Recites())
    for kind, pitch in (("ours", 300), ("source", 320)):
        (tmp_path / kind).mkdir()
        for i, name in enumerate(FILES):
            soundfile.write(tmp_path / kind / f"{name}.wav", tone(i + 1.0, 16_000, pitch), 16_000)
    return tmp_path


def score(wavs: Path, lines: str, **settings: object) -> Scores:
    (wavs / "references.tsv").write_text(lines)
    wanted = {"mos": [], "bootstrap_samples": 0, "randomization_trials": 0} | settings
    return folders.score_folders(
        [wavs / "ours"], wavs / "references.tsv", ScoreSettings(**wanted), None, None, "en", wavs / "source"
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.csv", 'file;reference;reference_2\na.wav;"hello\nthere";hi\nb;bye;\n'.encode("utf-16")),
        ("r.jsonl", b'{"id": "b", "text": "bye"}\n{"id": "a", "text": "hello there", "reference": "hi"}\n'),
        ("r.tsv", "a\thello there\thi\r\nb\tbye\r\n".encode("utf-16")),
    ],
)
def test_references_may_be_any_table(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    table = read_references(tmp_path / name, {"a": Path("a.wav"), "b": Path("b.wav")})
    assert table.texts == ["hello there", "bye"] and table.further == [["hi"], []]


def test_a_line_separator_within_a_text_is_no_end_of_a_line(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("one\u2028and more\ntwo\x0c\n")
    assert read_references(tmp_path / "r.txt", {"a": Path("a"), "b": Path("b")}).texts == ["one\u2028and more", "two"]


def test_several_references_on_a_line_count_as_sacrebleu_counts_them(wavs: Path) -> None:
    others = ["the soup is hot", "my sister has a little house", "where can i find the station please"]
    lines = f"a\t{others[0]}\t{TEXTS[0]}\nb\t{others[1]}\nc\t{others[2]}\twhere is the station\twhere is it please\n"
    scores = score(wavs, lines)
    streams = [others, [TEXTS[0], None, "where is the station"], [None, None, "where is it please"]]
    row = scores.systems["ours"]
    assert row.asr_bleu.score == pytest.approx(sacrebleu.corpus_bleu(TEXTS, streams).score, abs=1e-3)
    assert row.asr_chrf.score == pytest.approx(sacrebleu.corpus_chrf(TEXTS, streams).score, abs=1e-3)
    assert "nrefs:var" in str(scores.signature)
    closest = score(wavs, f"a\t{TEXTS[0]}\nb\t{others[1]}\nc\twhere is the station\n").systems["ours"]
    assert row.asr_wer == closest.asr_wer, "the nearest reference of each"
    single = score(wavs, f"a\t{others[0]}\nb\t{others[1]}\nc\t{others[2]}\n")
    assert (
        single.signature.references != scores.signature.references
        and single.systems["ours"].asr_bleu.score < row.asr_bleu.score
    )


def test_a_heading_says_which_language_is_spoken_and_which_was_translated(wavs: Path) -> None:
    rows = [("a", "es", "en", TEXTS[0]), ("b", "de", "en", TEXTS[1]), ("c", "es", "fr", f"{TEXTS[2]} fr")]
    lines = "name\tlanguage\ttarget_language\treference\n" + "".join("\t".join(row) + "\n" for row in rows)
    scores = score(wavs, lines)
    assert scores.systems["ours"].asr_bleu.score == pytest.approx(100), "each transcribed in its own language"
    assert {name: row.utterances for name, row in scores.systems["ours"].languages.items()} == {
        "de-en": 1, "es-en": 1, "es-fr": 1
    }  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a\tes\tone\nb\ttwo\nc\tes\tthree\n", "line 2: 2 columns; it must be"),
        ("a\tone\nb\tes\ttwo\nc\tthree\n", "line 2: 3 columns; it must be"),
        ("a\tes\tone\nb\t\ttwo\nc\tes\tthree\n", "line 2: 3 columns; it must be"),
        ("a\tone\nb\t\ttwo\nc\tthree\n", "line 2: no reference"),
        ("name\tspeaker\treference\na\tx\tone\n", "line 1: column 'speaker': must be one of"),
        ("name\tlanguage\na\tes\n", "line 1: no column 'reference'"),
        ("name\tlanguage\treference\na\t\tone\nb\tes\ttwo\nc\tes\tthree\n", "line 2: an empty language"),
        ("name\treference\treference_2\na\t\tone\nb\ttwo\t\nc\tthree\t\n", "line 2: no reference"),
    ],
)
def test_columns_that_nobody_can_know_are_named_by_their_line(tmp_path: Path, lines: str, message: str) -> None:
    path = tmp_path / "r.tsv"
    path.write_text(lines)
    with pytest.raises(InputError) as raised:
        read_references(path, FILES)
    assert message in str(raised.value)


def test_a_file_that_is_called_like_a_heading_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "r.tsv").write_text("\ufeffname\tes\tone\na\tes\ttwo\tzwei\n", encoding="utf-8")
    table = read_references(tmp_path / "r.tsv", {"name": Path("name.wav"), "a": Path("a.wav")})
    assert table.texts == ["one", "two"] and table.languages == ["es", "es"] and table.further == [[], ["zwei"]]


def test_lengths_and_voices_are_compared_with_the_source_recordings(
    wavs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "".join(f"{name}\t{text}\n" for name, text in zip(FILES, TEXTS, strict=True))
    monkeypatch.setitem(sys.modules, "voices", types.SimpleNamespace(brightness=brightness))
    scores = score(wavs, lines, speaker_function="voices:brightness")
    row = scores.systems["ours"]
    assert row.duration_ratio == 1.0 and row.speaker_similarity == pytest.approx(1.0, abs=0.01)
    assert "function" in scores.speaker_model
    noise = np.random.default_rng(0).normal(0, 0.1, 32_000)
    for name in FILES:
        soundfile.write(wavs / "source" / f"{name}.wav", noise, 16_000)
    other = score(wavs, lines, speaker_function="voices:brightness").systems["ours"]
    assert other.speaker_similarity < 0.5 and other.duration_ratio == 1.0
    buffer = np.zeros(8, np.uint8)

    def in_place(waveform: np.ndarray) -> np.ndarray:
        bands = brightness(waveform)
        buffer[:] = 255 * bands / bands.max()
        waveform[:] = 0
        return buffer

    monkeypatch.setitem(sys.modules, "voices", types.SimpleNamespace(in_place=in_place))
    heard = score(wavs, lines, speaker_function="voices:in_place").systems["ours"]
    assert heard.speaker_similarity == pytest.approx(other.speaker_similarity, abs=0.02), "one buffer, and few bits"
    speech = np.ones(400, np.float32)
    load_speaker_model(ScoreSettings(speaker_function="voices:in_place")).embed(speech)
    assert speech.all()
    for returned, message in ((None, "got NoneType"), ([[1.0]], "one vector"), ([np.nan, 1.0], "finite numbers")):
        monkeypatch.setitem(sys.modules, "voices", types.SimpleNamespace(odd=lambda _, it=returned: it))
        with pytest.raises(InputError, match=message):
            score(wavs, lines, speaker_function="voices:odd")
    with pytest.raises(InputError, match="--source-speech"):
        folders.score_folders([wavs / "ours"], wavs / "references.tsv", ScoreSettings(speaker_model="x"))
    (wavs / "source" / "b.wav").unlink()
    with pytest.raises(InputError, match="no source recording named b"):
        score(wavs, lines)


def test_a_speaker_model_of_transformers_embeds_voices_and_any_other_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = WavLMConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, conv_dim=(16, 16),
        conv_stride=(5, 64), conv_kernel=(10, 64), num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
        tdnn_dim=(16, 16), tdnn_kernel=(3, 3), tdnn_dilation=(1, 1), xvector_output_dim=8,
    )  # fmt: skip
    network = WavLMForXVector(config).eval()
    network.save_pretrained(tmp_path / "voices")
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path / "voices")
    model = load_speaker_model(ScoreSettings(speaker_model=str(tmp_path / "voices"), device="cpu"))
    sound = tone(1.5, 16_000, 200)
    expected = network(torch.from_numpy((sound - sound.mean()) / np.sqrt(sound.var() + 1e-7))[None].float()).embeddings[
        0
    ]
    np.testing.assert_allclose(model.embed(sound), expected.detach(), atol=1e-4)
    assert model.signature.startswith("WavLMForXVector,voices@")
    assert len(model.embed(tone(0.05, 16_000, 200))) == 8, "half a word is enough"
    silent = SpeakerComparison(model, lambda ids: [None for _ in ids])
    assert silent.similarity("x", sound) is None
    same = SpeakerComparison(model, lambda ids: [sound for _ in ids])
    assert same.similarity("x", sound) == pytest.approx(1.0, abs=1e-5)
    random_checkpoint(tmp_path / "encoder", "wavlm")
    with pytest.raises(InputError, match="not a speaker-verification model"):
        load_speaker_model(ScoreSettings(speaker_model=str(tmp_path / "encoder")))
    with pytest.raises(InputError, match="no such model folder"):
        load_speaker_model(ScoreSettings(speaker_model=str(tmp_path / "nothing")))
    about = json.loads((tmp_path / "voices/config.json").read_text())
    for change in ({"hidden_size": "abc"}, {"hidden_size": 0}, {"conv_dim": [16]}):
        (tmp_path / "voices/config.json").write_text(json.dumps(about | change))
        with pytest.raises(InputError, match="voices: could not load the model") as raised:
            load_speaker_model(ScoreSettings(speaker_model=str(tmp_path / "voices")))
        assert "\n" not in str(raised.value)
    (tmp_path / "voices/config.json").write_text(json.dumps(about))
    Wav2Vec2FeatureExtractor(sampling_rate=8_000).save_pretrained(tmp_path / "voices")
    with pytest.raises(InputError, match=r"must take speech at 16000 Hz \(got 8000\)"):
        load_speaker_model(ScoreSettings(speaker_model=str(tmp_path / "voices")))
    (tmp_path / "encoder/config.json").write_text(
        json.dumps({"model_type": "marian", "architectures": ["MarianMTModel"], "d_model": "abc"})
    )
    with pytest.raises(InputError, match=r"translator.model .*could not load the model"):
        TranslationModel(str(tmp_path / "encoder"))


COMET = """
import json, sys
values = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if "broken" in values["--model"]:
    sys.stderr.buffer.write(b"no \\xff checkpoint\\n")
    sys.exit(1)
if "here" not in values["--model"]:
    sys.exit("cannot download " + values["--model"])
arguments = sys.argv[1:]
files = arguments[arguments.index("-t") + 1 : arguments.index("--model")]
read = lambda path: open(path).read().splitlines()
rows = {
    f: [{"src": s, "mt": h, "ref": r, "COMET": float("nan" if "nan" in values["--model"] else h == r)} for s, h, r in
        zip(read(values["-s"]), read(f), read(values["-r"]), strict=True)]
    for f in files
}
json.dump(rows, open(arguments[arguments.index("--to_json") + 1], "w"))
"""


@pytest.mark.processes
def test_comet_scores_the_transcripts_by_its_own_program(wavs: Path, capsys: pytest.CaptureFixture) -> None:
    program = wavs / "comet.py"
    program.write_text(COMET)
    command = f"{sys.executable} {program}"
    lines = "name\tsource\treference\n" + "".join(
        f"{name}\tfuente {name}\t{text}\n" for name, text in zip(FILES, [*TEXTS[:2], "something else"], strict=True)
    )
    scores = score(wavs, lines, comet="here", comet_command=command)
    assert scores.systems["ours"].comet == pytest.approx(2 / 3, abs=1e-4) and scores.comet_model == "here"
    for settings, message in (
        ({"comet_command": command, "comet": "far"}, "cannot download far"),
        ({"comet_command": command, "comet": "broken"}, "no \ufffd checkpoint"),
        ({"comet_command": command, "comet": "here nan"}, "a score is not a finite number"),
        ({"comet_command": "no-such-comet", "comet": "here"}, "'no-such-comet' is not installed"),
    ):
        with pytest.raises(InputError) as raised:
            score(wavs, lines, **settings)
        assert message in str(raised.value) and "\n" not in str(raised.value)
    with pytest.raises(InputError, match="needs the source text of every utterance"):
        score(wavs, "\n".join(TEXTS), comet="here", comet_command=command)
    arguments = [
        str(wavs / "ours"),
        "--references",
        str(wavs / "references.tsv"),
        "--score.comet",
        "Unbabel/wmt22-comet-da",
    ]
    assert main(["score", *arguments, "--score.comet_command", "no-such-comet"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_settings_that_came_later_leave_earlier_scores_as_they_are() -> None:
    plain = ScoreSettings().in_fingerprint()
    assert list(plain) == [
        "recognizer", "recognizer_model", "device", "bootstrap_samples", "randomization_trials", "mos",
        "mos_utterances", "ceilings", "examples",
    ]  # fmt: skip
    assert json.dumps(ScoreSettings(comet="x").in_fingerprint()) != json.dumps(plain)


@pytest.mark.parametrize("use", ["a recognizer", "a speaker model", "a translation model"])
def test_models_that_score_are_not_read_from_pickles(tmp_path: Path, use: str) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "wav2vec2"}')
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model.bin but no model.safetensors; .* 'unitweave fetch"):
        if use == "a recognizer":
            checkpoints.load(Wav2Vec2ForCTC, str(tmp_path))
        elif use == "a speaker model":
            load_speaker_model(ScoreSettings(speaker_model=str(tmp_path)))
        else:
            TranslationModel(str(tmp_path))
