"""The score stage and the report on a small run of real (synthesized) speech, and bad input to them."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from helpers.scoring import SIGNATURE, system_scores
from unitweave.cli import main
from unitweave.config.score import ScoreSettings
from unitweave.core.audio import read_audio
from unitweave.core.errors import InputError
from unitweave.core.files import read_json, write_json
from unitweave.core.manifest import Pair, read_manifest, write_manifest
from unitweave.core.stage import FORMAT, run_stage
from unitweave.metrics.intervals import Interval
from unitweave.score import score as stage
from unitweave.score.asr.recognizers import NoRecognizer
from unitweave.score.asr.transcripts import AsrTranscript
from unitweave.score.assemble import assemble
from unitweave.score.export import export_run
from unitweave.score.folder import score_folders
from unitweave.score.outputs import SystemOutput, SystemOutputs
from unitweave.score.report import RunData, _worst, write_report
from unitweave.score.rows import References
from unitweave.score.scores import ScoredOutput, ScoredUtterance, Scores, digest_of_references, read_scores
from unitweave.score.table import print_table
from unitweave.training.devices import check_device
from unitweave.units.dataset import UnitRow, write_shard

SENTENCES = ["the soup is too hot", "my sister lives in a small house", "where is the station", "thank you very much"]
SETTINGS = ScoreSettings(mos=(), examples=2, bootstrap_samples=100, randomization_trials=50)


@pytest.fixture(scope="module")
def spoken_run(tmp_path_factory):
    pytest.importorskip("ttspico")
    pytest.importorskip("moonshine_voice")
    run = tmp_path_factory.mktemp("run")
    pairs, rows = [], []
    for i, text in enumerate(SENTENCES):
        path = run / "corpus" / f"{i}.wav"
        speak(text, path)
        frames = int(soundfile.info(path).duration * 50)
        words = text.split()
        cuts = np.linspace(2, frames, len(words) + 1).astype(np.int32)
        for side in ("src", "tgt"):
            row = (np.arange(frames, dtype=np.uint16) % 9, words, cuts[:-1], cuts[1:], np.ones(len(words), np.float32))
            rows.append(UnitRow(f"u{i}", side, *row))
        pairs.append(
            Pair(f"u{i}", "test", ("es", "fr")[i % 2], "en", str(path), str(path), text, text, text, f"{text}.")
        )
    pairs.append(Pair("t0", "train", "es", "en", None, None, "a", "a", src_seconds=7200.0))
    write_manifest(run / "corpus", pairs)
    write_shard(run / "units", 0, rows, {})
    for system in ("baseline", "scheduled"):
        outputs = []
        for i, text in enumerate(SENTENCES):
            said = "the water is good" if system == "baseline" and i < 3 else text
            speak(said, run / "translate" / system / f"{i}.wav")
            outputs.append(
                {"id": f"u{i}", "audio": f"{i}.wav", "transcript": text, "translation": said, "units": [1, 2]}
            )
        if system == "baseline":
            outputs[2] |= {"audio": None, "units": []}
        write_lines(run / "translate" / system / "outputs.jsonl", outputs)
        log = [
            {"step": s, "ratio": 0.9 - s / 10, "loss": 5.0 - s, "loss_source": 1.0, "seconds": 1.0} for s in range(4)
        ]
        (run / "lm" / system).mkdir(parents=True)
        write_lines(run / "lm" / system / "log.jsonl", log)
        write_lines(run / "lm" / system / "dev.jsonl", [{"step": 3, "bleu": 50.0, "wer": 7.0}])
    run_stage(run, "score", SETTINGS, {}, lambda _: score_systems(run, "baseline", "scheduled"))
    return run


def score_systems(run, *systems):
    parts = (run / part for part in ("corpus", "units", "vocoder"))
    outputs = {system: run / "translate" / system for system in systems}
    return stage.score_run(run / "score", SETTINGS, *parts, outputs)


def speak(text, path):
    from ttspico import TtsEngine

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.frombuffer(bytes(TtsEngine("en-US").speak(text)), np.int16), 16_000)


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
def test_the_better_system_wins_and_the_ceiling_is_above_both(spoken_run, capsys):
    scores = read_scores(spoken_run / "score")
    baseline, scheduled = scores.systems["baseline"], scores.systems["scheduled"]
    assert baseline.asr_bleu.score < scheduled.asr_bleu.score
    assert scores.ceilings["reference speech"].asr_bleu == scheduled.asr_bleu
    assert scheduled.text_bleu.score == pytest.approx(100) and scheduled.transcript_wer.score == 0
    assert baseline.silent_utterances == 1
    assert set(baseline.languages) == {"es", "fr"} and scores.training_hours == {"es": 2.0}
    assert any("resynthesized" in note for note in scores.notes)
    print_table(scores)
    shown = capsys.readouterr().out
    assert "scheduled" in shown and "reference speech *" in shown and str(scores.signature)[:40] in shown


@pytest.mark.slow
def test_a_system_that_is_called_like_a_ceiling_does_not_become_it(spoken_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(spoken_run, run, ignore=shutil.ignore_patterns("score"))
    (run / "translate/baseline").rename(run / "translate/reference-speech")
    score_systems(run, "reference-speech")
    scores, expected = read_scores(run / "score"), read_scores(spoken_run / "score")
    assert scores.systems["reference-speech"].asr_bleu == expected.systems["baseline"].asr_bleu
    assert scores.ceilings["reference speech"].asr_bleu == expected.ceilings["reference speech"].asr_bleu


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "binary", "not merged"])
def test_a_killed_scoring_resumes_without_transcribing_again(spoken_run, tmp_path, monkeypatch, damage):
    run = tmp_path / "run"
    shutil.copytree(spoken_run, run)
    expected = read_json(run / "score" / "scores.json")
    (run / "score" / "scores.json").unlink()
    (log,) = (run / "score").glob("transcripts-scheduled-*.jsonl")
    whole = log.read_text()
    if damage == "cut":
        log.write_text(whole[:-20])  # killed while writing the last utterance
    else:
        log.write_bytes(whole.encode()[: whole.rstrip().rfind("\n") + 1] + b"\xff\x00\n")
    transcribed = []
    load = stage.load_recognizer

    def counting(*arguments):
        recognizer = load(*arguments)
        transcribe = recognizer.transcribe
        recognizer.transcribe = lambda waveforms, language="en": (
            transcribed.extend(waveforms) or transcribe(waveforms, language)
        )
        return recognizer

    if damage == "not merged":  # killed when all was transcribed
        log.unlink()
        lines = whole.splitlines(keepends=True)
        log.with_name(f"{log.stem}.0.jsonl").write_text("".join(lines[1:] + lines[:1]))
    monkeypatch.setattr(stage, "load_recognizer", counting)
    score_systems(run, "baseline", "scheduled")
    assert len(transcribed) == (damage != "not merged") and log.read_text() == whole
    assert not log.with_name(f"{log.stem}.0.jsonl").exists()
    assert read_json(run / "score" / "scores.json") == expected


@pytest.mark.slow
def test_the_ceiling_on_resynthesized_units_uses_the_vocoder(spoken_run, tmp_path, monkeypatch):
    base = pytest.importorskip("unitweave.vocoder.base")
    run = tmp_path / "run"
    shutil.copytree(spoken_run, run)
    shutil.rmtree(run / "score")
    (run / "vocoder").mkdir()
    by_length = {int(soundfile.info(p).duration * 50): read_audio(p) for p in (run / "corpus").glob("*.wav")}

    class Fake:
        sample_rate = 16_000

        def synthesize(self, units, speaker=None, deduplicated=False):
            return [by_length[len(row)] for row in units]

    monkeypatch.setattr(base.Vocoder, "from_pretrained", staticmethod(lambda *_, **__: Fake()))
    score_systems(run, "scheduled")
    scores = read_scores(run / "score")
    assert scores.ceilings["resynthesized units"].asr_bleu == scores.ceilings["reference speech"].asr_bleu
    assert len(list((run / "score" / "resynthesized").glob("*.wav"))) == 2


@pytest.mark.slow
def test_the_report_is_one_file_with_players_pictures_and_no_network(spoken_run, tmp_path):
    page = write_report(tmp_path / "report.html", [spoken_run]).read_text()
    assert page.count("<audio controls") == 2 * 4 - page.count("no speech</p>")
    assert page.count("data:image/png") == page.count("<audio controls"), "the systems' own speech has pictures, too"
    assert page.count('class="chart"') >= 4
    assert not re.search(r"(src|href)=\"(?!data:|#)", page) and "http" not in page.replace("http-equiv", "")
    assert "must not be compared" not in page
    worst = page[page.index("Worst utterances") :]
    first = worst[: worst.index("</tr>", worst.index("<tbody>"))]
    assert "<td>u2</td><td>0.0</td>" in first, "the utterance without speech is the worst of the baseline"
    for fact in ("Commit", "Machine", "Command", "Done"):
        assert f"<dt>{fact}</dt>" in page
    assert "duration ratio" not in page and "unit error rate %" in page and "-0.0" not in page
    assert "Text BLEU on the dev split" in page and "Transcript WER on the dev split" in page


@pytest.mark.slow
def test_the_report_shows_texts_of_scripts_without_spaces_as_they_are_written(spoken_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(spoken_run, run)
    path = run / "score" / "utterances.jsonl"
    rows = [
        json.loads(line) | {"source": "我 们 很 好", "reference": "ส วั ส ดี"} for line in path.read_text().splitlines()
    ]
    write_lines(path, rows)
    page = write_report(tmp_path / "report.html", [run]).read_text()
    assert "我 们" not in page and "ส วั" not in page
    assert page.count("我们很好") > len(rows) and page.count("สวัสดี") > len(rows), "examples and the worst"


def test_references_of_normalized_text_alone_are_read_as_they_are_written(tmp_path):
    pair = Pair("u", "test", "zh", "ja", None, None, "我 们 好", "猫 で す", src_seconds=1.0)
    write_manifest(tmp_path, [pair])
    references = stage._references(read_manifest(tmp_path, "test"), stage._target_units(tmp_path, ["u"]))
    assert (references.texts, references.source_texts) == (["猫です"], ["我们好"])
    assert (references.translation, references.transcript) == (["猫 で す"], ["我 们 好"])


@pytest.mark.slow
def test_runs_scored_in_different_ways_are_never_in_one_table_unsaid(spoken_run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(spoken_run, other)
    scores = read_json(other / "score" / "scores.json")
    write_json(
        other / "score" / "scores.json",
        scores | {"signature_fields": scores["signature_fields"] | {"recognizer": "another"}},
    )
    page = write_report(tmp_path / "report.html", [spoken_run, other]).read_text()
    assert "must not be compared" in page and "other: scheduled" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "translate/scheduled/1.wav").unlink(), "1.wav: no such audio file"),
        (lambda run: cut(run / "translate/scheduled/1.wav"), "1.wav: the recording is cut off"),
        (lambda run: (run / "translate/scheduled/1.wav").write_text("hello"), "1.wav: not readable as audio"),
        (lambda run: (run / "translate/scheduled/outputs.jsonl").write_text(""), "no utterances in it"),
        (lambda run: (run / "translate/scheduled/outputs.jsonl").write_text("{"), "line 1: not a JSON object"),
        (lambda run: (run / "translate/scheduled/outputs.jsonl").unlink(), "outputs.jsonl: no such file"),
        (lambda run: write_lines(run / "translate/scheduled/outputs.jsonl", [{"id": "x"}]), "'x' is not in the corpus"),
        (
            lambda run: write_lines(run / "translate/scheduled/outputs.jsonl", [{"id": "u0"}]),
            "'scheduled' lacks utterance",
        ),
    ],
)
def test_bad_outputs_end_in_one_clear_line(spoken_run, tmp_path, damage, message):
    run = tmp_path / "run"
    shutil.copytree(spoken_run, run, ignore=shutil.ignore_patterns("transcripts-*"))
    damage(run)
    with pytest.raises(InputError) as raised:
        score_systems(run, "baseline", "scheduled")
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.slow
def test_a_folder_of_wavs_scores_like_the_run(spoken_run, tmp_path):
    wavs = spoken_run / "translate" / "scheduled"
    references = tmp_path / "references.tsv"
    references.write_text("".join(f"{i}.wav\t{text}.\n" for i, text in enumerate(SENTENCES)))
    scores = score_folders([wavs], references, SETTINGS)
    assert scores.systems["scheduled"].asr_bleu == read_scores(spoken_run / "score").systems["scheduled"].asr_bleu
    plain = tmp_path / "references.txt"
    plain.write_text("\n".join(SENTENCES))
    assert score_folders([wavs], plain, SETTINGS).systems["scheduled"].asr_bleu.score > 50
    for text, message in (
        ("\n".join([*SENTENCES, "one more"]), "5 references for 4 audio files"),
        (references.read_text() + "9.wav\tone more\n", "line 5: no audio file for '9.wav'"),
        ("0.wav\tthe soup\n", "no reference for 1.wav"),
        (references.read_text() + "9.wav\ten\tone more\n", "line 5: 3 columns; it must be"),
    ):
        plain.write_text(text)
        with pytest.raises(InputError, match=re.escape(message)):
            score_folders([wavs], plain, SETTINGS)
    references.write_text("".join(f"{i}.wav\t{'es' if i < 2 else 'fr'}\t{text}\n" for i, text in enumerate(SENTENCES)))
    by_language = score_folders([wavs], references, SETTINGS).systems["scheduled"]
    assert by_language.asr_bleu == scores.systems["scheduled"].asr_bleu, "the language is no part of the text"
    assert {code: row.utterances for code, row in by_language.languages.items()} == {"es": 2, "fr": 2}
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no audio files in it"):
        score_folders([tmp_path / "empty"], references, SETTINGS)


@pytest.mark.slow
def test_folders_of_two_systems_are_compared_from_the_command_line(spoken_run, tmp_path, capsys):
    references = tmp_path / "references.txt"
    references.write_text("\n".join(SENTENCES))
    folders = [str(spoken_run / "translate" / name) for name in ("baseline", "scheduled")]
    settings = ["--score.mos", "[]", "--score.bootstrap_samples", "20", "--score.randomization_trials", "20"]
    out = tmp_path / "scores.json"
    assert main(["score", *folders, "--references", str(references), "-o", str(out), *settings]) == 0
    scores, of_run = json.loads(out.read_text()), read_scores(spoken_run / "score")
    assert scores["systems"]["scheduled"]["asr_bleu"]["score"] == of_run.systems["scheduled"].asr_bleu.score
    assert "scheduled against baseline" in capsys.readouterr().out
    assert {name: list(heard) for name, heard in scores["transcripts"].items()} == {
        name: ["0", "1", "2", "3"] for name in ("baseline", "scheduled")
    }
    assert all(scores["transcripts"]["scheduled"].values())

    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("0.wav", "1.wav", "2.wav", "3.wav"):
        (broken / name).write_text("this is no sound")
    assert main(["score", str(broken), "--references", str(references)]) == 2
    error = capsys.readouterr().err
    assert "0.wav" in error and error.count("\n") == 1
    assert main(["score", folders[0], folders[0], "--references", str(references)]) == 2
    assert "another folder is also named" in capsys.readouterr().err


@pytest.mark.slow
def test_silence_is_an_empty_transcript_and_not_what_a_recognizer_makes_of_it(spoken_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(spoken_run, run)
    soundfile.write(run / "translate" / "scheduled" / "0.wav", np.zeros(1600), 16_000)
    shutil.rmtree(run / "score")
    score_systems(run, "scheduled")
    row = read_scores(run / "score").systems["scheduled"]
    assert row.silent_utterances == 1
    first = json.loads((run / "score" / "utterances.jsonl").read_text().split("\n")[0])
    assert first["outputs"]["scheduled"]["asr_transcript"] == ""


@pytest.mark.slow
def test_units_without_repetitions_are_compared_without_them_and_so_is_the_ceiling(spoken_run, tmp_path, monkeypatch):
    base = pytest.importorskip("unitweave.vocoder.base")
    run = tmp_path / "run"
    shutil.copytree(spoken_run, run)
    shutil.rmtree(run / "score")
    (run / "vocoder").mkdir()
    path = run / "translate" / "scheduled" / "outputs.jsonl"
    write_lines(path, [row | {"deduplicated": True} for row in map(json.loads, path.read_text().splitlines())])
    asked = []

    class Fake:
        sample_rate = 16_000

        def synthesize(self, units, speaker=None, deduplicated=False):
            asked.append(deduplicated and all((row[1:] != row[:-1]).all() for row in units))
            return [np.random.default_rng(0).normal(size=16_000).astype(np.float32) for _ in units]

    monkeypatch.setattr(base.Vocoder, "from_pretrained", staticmethod(lambda *_, **__: Fake()))
    score_systems(run, "scheduled")
    scores = read_scores(run / "score")
    row = scores.systems["scheduled"]
    assert row.unit_error_rate is None and row.unit_error_rate_without_repeats > 0
    assert asked == [True] and any("durations predicted" in note for note in scores.notes)


@pytest.mark.slow
def test_the_wavs_of_any_system_have_an_error_rate_and_no_agreement_with_a_text_that_is_not_known(spoken_run, tmp_path):
    references = tmp_path / "references.txt"
    references.write_text("\n".join(SENTENCES))
    folder, corpus = spoken_run / "translate" / "scheduled", tmp_path / "reference"
    corpus.mkdir()
    for i in range(len(SENTENCES)):
        shutil.copy(spoken_run / "corpus" / f"{i}.wav", corpus / f"{i}.wav")
    scores = score_folders([folder], references, SETTINGS, reference_speech=corpus)
    row = scores.systems["scheduled"]
    assert row.agreement_wer is None and row.asr_wer.score < 30
    assert scores.ceilings["reference speech"].asr_bleu.score > 50
    references.write_text("\n".join([*SENTENCES[:1], "", *SENTENCES[1:]]))
    with pytest.raises(InputError, match="line 2: empty"):
        score_folders([folder], references, SETTINGS)
    with pytest.raises(InputError, match="cannot be written"):
        score_folders([folder], references, SETTINGS, out=tmp_path)


def test_a_device_that_is_not_there_is_said_in_one_line():
    with pytest.raises(InputError, match=r"score\.device 'nonsense'"):
        check_device("nonsense", "score.device")


def test_signatures_differ_with_the_reference_texts():
    one, two = (digest_of_references("file", texts) for texts in (SENTENCES, SENTENCES[::-1]))
    assert one != two
    assert one == digest_of_references("file", list(SENTENCES))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("scores.json", lambda content: content | {"systems": {"scheduled": {"asr_bleu": {"score": "high"}}}}),
        ("scores.json", lambda content: content | {"systems": ["scheduled"]}),
        ("scores.json", lambda content: content | {"signature_fields": None}),
        ("scores.json", lambda content: [content]),
        ("utterances.jsonl", lambda content: {"id": content["id"]}),
        ("utterances.jsonl", lambda content: content | {"outputs": {"scheduled": 3}}),
        ("outputs.jsonl", lambda content: content | {"units": "many"}),
        ("outputs.jsonl", lambda content: content | {"id": 7}),
        ("outputs.jsonl", lambda content: content | {"units": [-1]}),
        ("log.jsonl", lambda content: content | {"step": "x"}),
        ("log.jsonl", lambda content: {"loss": 1.0}),
        ("dev.jsonl", lambda content: content | {"bleu": [1]}),
    ],
)
def test_a_damaged_file_is_named_in_one_line(spoken_run, tmp_path, name, damage):
    run = tmp_path / "run"
    shutil.copytree(spoken_run, run)
    places = {"outputs.jsonl": "translate/scheduled", "log.jsonl": "lm/scheduled", "dev.jsonl": "lm/scheduled"}
    path = run / places.get(name, "score") / name
    if name == "scores.json":
        path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    else:
        first, *others = path.read_text().splitlines()
        path.write_text("\n".join([json.dumps(damage(json.loads(first))), *others]) + "\n")
    with pytest.raises(InputError, match="damaged") as raised:
        write_report(tmp_path / "report.html", [run])
    assert name in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": {"schedule": 1}}, "'schedule' must be an object"),
        ({"settings": {"schedule": {"shape": "zigzag"}, "training": {"steps": 3}}}, "schedule.shape"),
        ({"settings": {"schedule": {"shape": "none"}, "training": {}}}, "no number of steps"),
        ({"counts": []}, "'counts' is missing or invalid"),
    ],
)
def test_a_damaged_record_of_a_training_ends_the_report_in_one_line(spoken_run, tmp_path, change, message):
    run = tmp_path / "run"
    shutil.copytree(spoken_run, run)
    record = {"format": FORMAT, "status": "done", "fingerprint": "x", "settings": {}, "counts": {}}
    write_json(run / "lm/scheduled/stage.json", record | change)
    with pytest.raises(InputError, match=r"stage\.json: damaged") as raised:
        write_report(tmp_path / "report.html", [run])
    assert message in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["translate/scheduled/outputs.jsonl", "score/utterances.jsonl"])
def test_a_lost_line_is_noticed_by_the_count_of_the_stage(spoken_run, tmp_path, name):
    run = tmp_path / "run"
    shutil.copytree(spoken_run, run)
    path = run / name
    lines = path.read_text().splitlines(keepends=True)
    record = {"format": FORMAT, "status": "done", "fingerprint": "x", "counts": {"utterances": len(lines)}}
    write_json(path.parent / "stage.json", record)
    write_report(tmp_path / "report.html", [run])
    path.write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match=f"{len(lines) - 1} utterances found, but stage.json counts {len(lines)}"):
        write_report(tmp_path / "report.html", [run])


@pytest.mark.slow
def test_a_run_is_exported_as_evaluation_suites_read_it(spoken_run, tmp_path):
    out = export_run(spoken_run, tmp_path / "suite")
    references = (out / "references.txt").read_text().splitlines()
    for system in ("baseline", "scheduled"):
        heard = (out / system / "asr.txt").read_text().splitlines()
        # fairseq's compute_asr_bleu.py: N_pred.wav for line N, from 0
        assert sorted(p.name for p in (out / system).glob("*.wav")) == [f"{i}_pred.wav" for i in range(len(references))]
        # Kaldi, as VERSA and ESPnet read it: id, then the file
        rows = [line.split(None, 1) for line in (out / system / "wav.scp").read_text().splitlines()]
        assert len(rows) == len(heard) == len(references)
        assert all(soundfile.info(path).samplerate == 16_000 for _, path in rows)
        assert (out / system / "translation.txt").read_text().count("\n") == len(references)
    assert heard[0].lower().rstrip(".") == SENTENCES[0] and references == [f"{text}." for text in SENTENCES]
    assert len(read_audio(out / "baseline" / "2_pred.wav")) == 1600, "no speech: a file of silence"
    keyed = [line.split(None, 1) for line in (out / "text").read_text().splitlines()]
    assert [key for key, _ in keyed] == [key for key, _ in rows] and [text for _, text in keyed] == references
    assert (out / "sources.txt").exists() and (out / "reference.scp").read_text().count("\n") == len(references)
    with pytest.raises(InputError, match="already exists"):
        export_run(spoken_run, out)


@pytest.mark.slow
def test_an_interrupt_while_a_sound_is_encoded_ends_the_report(spoken_run, tmp_path, monkeypatch):
    write = soundfile.write

    def interrupted(file, *arguments, **options):
        # libsndfile swallows what is raised in a callback, so that only a file with a name is safe.
        if hasattr(file, "write"):
            file.write(b"half")
            return
        write(file, *arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(soundfile, "write", interrupted)
    page = tmp_path / "report.html"
    assert main(["report", str(spoken_run), "-o", str(page)]) == 130
    assert not page.exists()


def test_seen_and_unseen_speakers_and_lengths_stand_beside_the_whole():
    heard = [AsrTranscript(str(i), text, 2.0, 0.1) for i, text in enumerate(SENTENCES)]
    known = References(
        ["0", "1", "2", "3"], list(SENTENCES), source_seconds=[4.0] * 4, speaker_seen=[True, False, True, True]
    )
    scores = assemble({"ours": heard}, {}, known, NoRecognizer(), SETTINGS, "here").systems["ours"]
    assert scores.duration_ratio == 0.5
    assert {kind: part.utterances for kind, part in scores.speakers.items()} == {"seen": 3, "unseen": 1}
    assert known.select([0, 2]).speakers == {} and known.select([0, 1]).speaker_seen == [True, False]
    unknown = References(["0"], [SENTENCES[0]])
    scores = assemble({"ours": heard[:1]}, {}, unknown, NoRecognizer(), SETTINGS, "here").systems["ours"]
    assert scores.duration_ratio is None and scores.speakers == {}


@pytest.mark.parametrize("written", ["normalized", "natural"])
def test_the_worst_of_natural_texts_are_those_of_their_words(written: str) -> None:
    """Capitals and full stops are no errors: the references have none."""
    said = ["the soup is too hot", "a house"] if written == "normalized" else ["The soup is too hot.", "A house."]
    pairs = {f"u{i}": Pair(f"u{i}", "test", "es", "en", None, None, SENTENCES[i], SENTENCES[i]) for i in (0, 1)}
    row, name = replace(system_scores(Interval(1.0)), asr_bleu=None), "scheduled"
    run = RunData("", Path("run"), Scores(SIGNATURE, {name: row}, {}), {}, pairs, {}, {}, {}, {}, {})
    for key in ("translation", "transcript"):
        run.utterances.clear()
        for i, text in enumerate(said):
            output = ScoredOutput("", "", 0.0, **({"transcript": ""} | {key: text}))
            run.utterances[f"u{i}"] = ScoredUtterance(f"u{i}", "es", SENTENCES[i], SENTENCES[i], {name: output})
        run.outputs[name] = SystemOutputs(SystemOutput(f"u{i}", texts=written) for i in (0, 1))
        (worst, best) = _worst(run)[0]["rows"]
        assert (worst[1].id, best[1].id, best[0]) == ("u1", "u0", 100.0)
