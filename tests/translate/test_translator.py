"""Translating files: Python use, whole folders, long recordings, interruption; on a tiny random model."""

import errno
import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from helpers.serving import SETTINGS, make_run, speech, voice
from unitweave.cli import main
from unitweave.config.translate import SegmentationSettings
from unitweave.core.audio import SAMPLE_RATE, read_audio
from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path, file_digest, write_json
from unitweave.core.lock import locked
from unitweave.translate import files as jobs
from unitweave.translate import long
from unitweave.translate.decode import ForcedPrefix
from unitweave.translate.files import translate_files
from unitweave.translate.subtitles import Cue, clock, srt, vtt
from unitweave.translate.tasks import find_tasks
from unitweave.translate.translator import Translator
from unitweave.translate.vad import WINDOW, SpeechDetector, cut_out, speech_spans
from unitweave.vocoder.model import UnitVocoder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, text_lm_folder: Path) -> Path:
    return make_run(tmp_path_factory.mktemp("run"), text_lm_folder)


@pytest.fixture(scope="module")
def translator(run: Path) -> Translator:
    return Translator.from_pretrained(run)


def test_python_use_from_array_and_from_file(translator: Translator, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", speech(1.0), 16_000, subtype="FLOAT")
    a = translator.translate(speech(1.0), SETTINGS)
    b = translator.translate(tmp_path / "a.wav", SETTINGS)
    assert a.transcript == b.transcript and np.array_equal(a.units, b.units)
    assert len(a.waveform) == 320 * len(a.units) and a.sampling_rate == 16_000
    assert {"source units", "transcript", "translation", "units", "vocoder"} == set(a.seconds)
    assert a.real_time_factor > 0 and a.source_seconds == 1.0
    a.save(tmp_path / "out.wav")
    assert len(read_audio(tmp_path / "out.wav")) == len(a.waveform)
    silent = translator.translate(speech(1.0), replace(SETTINGS, text_only=True))
    assert len(silent.waveform) == 0 and silent.translation == a.translation


def test_together_equals_alone(translator: Translator) -> None:
    recordings = [speech(s, i) for i, s in enumerate((0.6, 2.0, 1.1, 0.3))]
    for one, result in zip(recordings, translator.translate_all(recordings, SETTINGS), strict=True):
        alone = translator.translate(one, SETTINGS)
        assert alone.transcript == result.transcript and np.array_equal(alone.units, result.units)
        np.testing.assert_allclose(alone.waveform, result.waveform, atol=1e-4)


def test_streamed_speech_equals_the_whole(translator: Translator) -> None:
    whole = translator.translate(speech(2.0), SETTINGS)
    streamed = np.concatenate(list(translator.stream_speech(iter(whole.units.tolist()), chunk_seconds=0.14)))
    np.testing.assert_allclose(streamed, whole.waveform, atol=1e-4)


def test_words_are_aligned_inside_the_recording(translator: Translator) -> None:
    words = translator.align(speech(2.0), "El perro, duerme", "es")
    assert [word for word, _, _ in words] == ["El", "perro,", "duerme"]
    assert all(0 <= start < end <= 2.0 for _, start, end in words)
    assert translator.align(speech(0.1), "far too many words for a tenth of a second", "en")[0][1:] == (0.0, 0.0)
    assert translator.align(speech(1.0), "", "en") == []


def test_the_detector_finds_what_is_said_whatever_the_blocks_and_leaves_the_threads_alone() -> None:
    """On speech of a speech engine, against the package's own function on the whole recording."""
    from unitweave.corpus.embedded.engines import Voice, synthesize

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    detector = SpeechDetector()
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    import silero_vad

    pause = np.zeros(12_000, np.float32)
    texts = ("where is the station", "thank you very much")
    pieces = [synthesize(text, Voice("a", "pico", "en-GB"), noise_db=30.0) for text in texts]
    audio = np.concatenate([pause, pieces[0], pause, pieces[1], pause[:5_123]])
    settings = SegmentationSettings()
    expected = silero_vad.get_speech_timestamps(
        torch.from_numpy(audio),
        silero_vad.load_silero_vad(),
        min_speech_duration_ms=200,
        min_silence_duration_ms=400,
        speech_pad_ms=120,
        max_speech_duration_s=20.0,
    )
    for size in (len(audio), 700, 16_001):
        found = detector.probabilities(audio[i : i + size] for i in range(0, len(audio), size))
        assert len(found) == -(-len(audio) // WINDOW)
        spans = [(start, min(end, len(audio))) for start, end in speech_spans(found, settings)]  # whole windows
        assert spans == [(span["start"], span["end"]) for span in expected]
    assert len(expected) == 2 and detector.probabilities(iter([])) == []


def test_spans_follow_the_probabilities() -> None:
    p = np.zeros(420)
    p[50:100] = 0.9  # 1.6 s of speech, with the rest well below the maximum
    p[105:130] = 0.9  # after a gap of 0.16 s, which is bridged
    p[200:203] = 0.9  # too short to be speech
    p[250:390] = 0.9  # 4.5 s, which is cut in its longest pause
    p[333:338] = 0.1
    p[300:304] = 0.1
    settings = SegmentationSettings(max_speech_seconds=3.5)
    spans = speech_spans(p, settings)
    margin = round(settings.speech_pad_seconds * SAMPLE_RATE)
    assert spans[0] == (50 * WINDOW - margin, 130 * WINDOW + margin)
    middle = (333 + 338) * WINDOW // 2
    assert spans[1] == (250 * WINDOW - margin, middle) and spans[2] == (middle, 390 * WINDOW + margin)
    assert len(spans) == 3 and speech_spans(np.zeros(100), settings) == []
    edges = [edge for span in spans for edge in span]
    assert edges == sorted(edges) and edges[-1] <= len(p) * WINDOW


def test_cutting_out_needs_only_what_it_cuts() -> None:
    audio = np.arange(10_000, dtype=np.float32)
    spans = [(10, 500), (500, 900), (2_000, 5_500), (9_900, 12_000)]
    for size in (10_000, 333):
        pieces = list(cut_out((audio[i : i + size] for i in range(0, len(audio), size)), spans))
        assert [(p[0], len(p)) for p in pieces] == [(10, 490), (500, 400), (2_000, 3_500), (9_900, 100)]


def talk(path: Path, monkeypatch: pytest.MonkeyPatch, utterances: int = 3) -> list[tuple[float, float]]:
    """A recording of `utterances` buzzes with pauses; the detector is told that a buzz is speech."""
    pieces, times, at = [], [], 0.5
    for i in range(utterances):
        pieces += [np.zeros(8_000 if i == 0 else 16_000, np.float32), speech(1.0 + 0.2 * i, i)]
        times.append((at, at + 1.0 + 0.2 * i))
        at += 1.0 + 0.2 * i + 1.0
    soundfile.write(path, np.concatenate([*pieces, np.zeros(8_000, np.float32)]), 16_000)

    def probabilities(self: SpeechDetector, blocks: Iterator[np.ndarray]) -> np.ndarray:
        audio = np.concatenate(list(blocks))
        usable = audio[: len(audio) // WINDOW * WINDOW].reshape(-1, WINDOW)
        return (np.abs(usable).max(axis=1) > 0.05).astype(np.float32)

    monkeypatch.setattr(SpeechDetector, "probabilities", probabilities)
    return times


def test_a_long_recording_is_cut_translated_and_put_back_at_its_times(
    translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = talk(tmp_path / "talk.wav", monkeypatch)
    result = long.translate_long(translator, tmp_path / "talk.wav", tmp_path / "out" / "talk", SETTINGS)
    about = json.loads(result.about.read_text())
    assert result.segments == 3 == len(about["segments"])
    track, at = read_audio(result.audio), 0.0
    for segment, (start, end) in zip(about["segments"], times, strict=True):
        assert segment["start"] == pytest.approx(start, abs=0.2) and segment["end"] == pytest.approx(end, abs=0.2)
        assert segment["spoken_from"] == pytest.approx(max(at, segment["start"]), abs=1e-3)
        assert segment["spoken_to"] - segment["spoken_from"] == pytest.approx(len(segment["units"]) / 50, abs=1e-3)
        first, last = (round(segment[key] * 16_000) for key in ("spoken_from", "spoken_to"))
        own = translator.vocoder.synthesize([np.array(segment["units"])])[0]
        np.testing.assert_allclose(track[first:last], np.clip(own, -1, 1), atol=2e-3)
        at = segment["spoken_to"]
    assert (tmp_path / "out/talk.srt").exists() and (tmp_path / "out/talk.vtt").read_text().startswith("WEBVTT\n\n")
    assert not [p for p in (tmp_path / "out").iterdir() if p.name.startswith(".")], "nothing is left over"


def test_an_interrupted_long_job_goes_on_where_it_stopped(
    translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk(tmp_path / "talk.wav", monkeypatch, utterances=4)
    settings = replace(SETTINGS, batch_size=1)
    whole = long.translate_long(translator, tmp_path / "talk.wav", tmp_path / "whole" / "talk", settings, job="j")
    translate_all, calls = Translator.translate_all, []

    def interrupted(self: Translator, waveforms: list, *rest: object) -> list:
        calls.append(len(waveforms))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return translate_all(self, waveforms, *rest)

    monkeypatch.setattr(Translator, "translate_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        long.translate_long(translator, tmp_path / "talk.wav", tmp_path / "again" / "talk", settings, job="j")
    assert not (tmp_path / "again/talk.wav").exists()
    again = long.translate_long(translator, tmp_path / "talk.wav", tmp_path / "again" / "talk", settings, job="j")
    assert len(calls) == 5, "two were done before the interruption, two after it"
    assert again.audio.read_bytes() == whole.audio.read_bytes()
    for damage in ("000000.wav", "000000.json", "job.json"):
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            long.translate_long(translator, tmp_path / "talk.wav", tmp_path / damage / "talk", settings, job="j")
        work = tmp_path / damage / ".talk.partial"
        (work / "0 (copy).json").touch()
        (work / damage).unlink() if damage.endswith("wav") else (work / damage).write_text("{")
        again = long.translate_long(translator, tmp_path / "talk.wav", tmp_path / damage / "talk", settings, job="j")
        assert again.audio.read_bytes() == whole.audio.read_bytes(), damage
    with locked(work), pytest.raises(InputError, match="in use by this process"):
        long.translate_long(translator, tmp_path / "talk.wav", tmp_path / damage / "talk", settings, job="j")


def test_results_that_were_lost_or_damaged_are_made_again(translator: Translator, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", voice(0.5), 16_000)
    tasks = find_tasks([str(tmp_path / "a.wav")], tmp_path / "out")
    (first,) = translate_files(translator, tasks, SETTINGS)
    wav, about = tmp_path / "out/a.wav", tmp_path / "out/a.json"
    whole = wav.read_bytes()
    assert [one.reused for one in translate_files(translator, tasks, SETTINGS)] == [True]
    for damage in (wav.unlink, lambda: wav.write_bytes(b""), lambda: write_json(about, {"job": first.about["job"]})):
        damage()
        (again,) = translate_files(translator, tasks, SETTINGS)
        assert again.about == first.about | {"seconds": again.about["seconds"]} and not again.reused
        assert wav.read_bytes() == whole


def test_a_given_language_holds_for_a_long_recording_too(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    talk(tmp_path / "talk.wav", monkeypatch)
    command = ["translate", str(run), str(tmp_path / "talk.wav"), "--cut-above", "3"]
    for language in ("es",):
        out = tmp_path / language
        assert main([*command, "--language", language, "--text-only", "-o", str(out)]) == 0
        segments = json.loads((out / "talk.json").read_text())["segments"]
        assert [segment["language"] for segment in segments] == [language] * 3
    monkeypatch.setattr(SpeechDetector, "probabilities", None)  # would fail if anything were looked at
    capsys.readouterr()
    assert main([*command, "--language", "xx", "-o", str(tmp_path / "xx")]) == 2
    assert "'xx'" in capsys.readouterr().err


def test_text_only_leaves_the_spoken_track_of_an_earlier_call_alone(
    translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk(tmp_path / "talk.wav", monkeypatch)
    stem = tmp_path / "out" / "talk"
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "talk.wav").write_bytes(b"spoken")
    result = long.translate_long(
        translator, tmp_path / "talk.wav", stem, replace(SETTINGS, text_only=True), prefix=ForcedPrefix(language="es")
    )
    assert result.audio is None and (tmp_path / "out" / "talk.wav").read_bytes() == b"spoken"
    assert json.loads(result.about.read_text())["segments"][2]["translation"]
    assert (tmp_path / "out" / "talk.srt").exists()


def test_an_inaudible_utterance_is_empty_and_the_others_are_translated(
    translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = [np.zeros(32_000, np.float32), speech(1.0), np.zeros(32_000, np.float32)]
    soundfile.write(tmp_path / "talk.wav", np.concatenate(quiet), 16_000)
    windows = 5 * 16_000 // WINDOW
    found = np.zeros(windows)
    found[10:40] = found[70:85] = found[120:] = 1.0  # the first and the last are silence, whatever the detector thinks
    monkeypatch.setattr(SpeechDetector, "probabilities", lambda self, blocks: found)
    spanish = ForcedPrefix(language="es")
    result = long.translate_long(translator, tmp_path / "talk.wav", tmp_path / "out" / "talk", SETTINGS, prefix=spanish)
    about = json.loads(result.about.read_text())
    first, middle, last = about["segments"]
    assert first["units"] == last["units"] == [] and first["translation"] == last["translation"] == ""
    assert middle["units"] and about["translation"] == middle["translation"] and about["language"] == "es"


@pytest.mark.processes
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_a_short_recording_whose_header_says_no_length_is_a_short_one(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    soundfile.write(tmp_path / "voice.wav", voice(1.0), 16_000)
    source = tmp_path / "voice.m4a"
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "voice.wav", source], check=True)
    command = ["translate", str(run), str(source), "-o", str(tmp_path / "out"), "--transcript", "hola perro"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["transcript"] == "hola perro"
    assert main([*command, "--cut-above", "0.5"]) == 2
    assert "a recording of at most 0.5 s" in capsys.readouterr().err


def test_a_voice_is_chosen_by_flag(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    voices = tmp_path / "voices"
    shutil.copytree(run, voices)
    config = replace(UnitVocoder.from_pretrained(run / "vocoder").config, speakers=["ann", "bob"])
    torch.manual_seed(0)
    UnitVocoder(config).save_pretrained(voices / "vocoder")
    soundfile.write(tmp_path / "voice.wav", voice(0.5), 16_000)

    def spoken(*flags: str) -> bytes:
        command = ["translate", str(voices), str(tmp_path / "voice.wav"), "-o", str(tmp_path / "-".join(["o", *flags]))]
        assert main([*command, *flags]) == 0
        return Path(json.loads(capsys.readouterr().out)["audio"]).read_bytes()

    assert spoken() == spoken("--speaker", "ann") != spoken("--speaker", "bob")
    for model, message in ((voices, "must be one of ann, bob (got 'eve')"), (run, "has a single voice (got 'eve')")):
        for command in ("translate", "live", "serve"):
            recording = {"translate": [str(tmp_path / "voice.wav")]}.get(command, [])
            assert main([command, str(model), *recording, "--speaker", "eve"]) == 2
            assert f"--speaker: {'the vocoder ' * (model == run)}{message}" in capsys.readouterr().err
    shutil.copytree(run, tmp_path / "mute", ignore=shutil.ignore_patterns("vocoder"))
    assert main(["translate", str(tmp_path / "mute"), str(tmp_path / "voice.wav"), "--speaker", "ann"]) == 2
    assert "--speaker: this model has no vocoder" in capsys.readouterr().err
    (voices / "recipe.yaml").write_text("translate: {speaker: eve}\n")
    with pytest.raises(InputError, match="speaker must be one of ann, bob"):
        Translator.from_pretrained(voices)


@pytest.mark.parametrize("flag", ["--transcript", "--translation"])
@pytest.mark.parametrize("text", ["", " ", "..."])
def test_a_given_text_without_words_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, flag: str, text: str
) -> None:
    soundfile.write(tmp_path / "voice.wav", voice(0.5), 16_000)
    assert main(["translate", str(run), str(tmp_path / "voice.wav"), "-o", str(tmp_path / "out"), flag, text]) == 2
    assert f"{flag}: has no words" in capsys.readouterr().err


def test_silence_is_told_from_speech(translator: Translator, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(40 * 16_000), 16_000)
    with pytest.raises(InputError, match="no speech found"):
        long.translate_long(translator, tmp_path / "silence.wav", tmp_path / "x")


def test_subtitles_have_their_formats() -> None:
    cues = [Cue(0.0, 1.5, "hello"), Cue(1.5, 2.0, "  "), Cue(3661.25, 3662.0, "a <b> & c\nd")]
    assert srt(cues) == (
        "1\n00:00:00,000 --> 00:00:01,500\nhello\n\n2\n01:01:01,250 --> 01:01:02,000\na <b> & c\nd\n\n"
    )
    assert vtt(cues).endswith("01:01:01.250 --> 01:01:02.000\na &lt;b&gt; &amp; c\nd\n\n")
    assert clock(0.9996, ".") == "00:00:01.000"


def test_a_folder_is_translated_once_and_bad_files_do_not_stop_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "in" / "deep"
    inside.mkdir(parents=True)
    soundfile.write(tmp_path / "in" / "a.wav", voice(0.5), 16_000)
    soundfile.write(tmp_path / "in" / "a.flac", voice(0.7, 1), 44_100)
    soundfile.write(inside / "b.wav", np.stack([voice(0.6, 2)] * 2, axis=1), 16_000)
    (inside / "bad.mp3").write_bytes(b"no audio")
    (inside / "notes.txt").write_text("no recording")
    out = tmp_path / "out"
    assert main(["translate", str(run), str(tmp_path / "in"), "-o", str(out)]) == 2
    captured = capsys.readouterr()
    assert "1 of 4" in captured.err and "bad.mp3" in captured.err
    assert len(captured.out.splitlines()) == 3
    made = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.suffix in (".json", ".wav"))
    assert made == ["a.flac.json", "a.flac.wav", "a.wav.json", "a.wav.wav", "deep/b.json", "deep/b.wav"]
    (inside / "bad.mp3").unlink()
    monkeypatch.setattr(Translator, "translate_all", None)  # would fail if anything were done again
    assert main(["translate", str(run), str(tmp_path / "in"), "-o", str(out)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_one_recording_that_cannot_be_opened_does_not_end_the_batch(
    translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "good.wav", voice(0.5), 16_000)
    for name in ("locked.wav", "notes.txt"):
        (tmp_path / name).write_bytes(b"private")

    def digest(path: Path) -> str:  # the tests may run as root, who may read everything
        if path.name == "locked.wav":
            raise PermissionError(13, "Permission denied", str(path))
        return file_digest(path)

    monkeypatch.setattr(jobs, "file_digest", digest)
    names = [str(tmp_path / name) for name in ("locked.wav", "notes.txt/x.wav", "good.wav")]
    settings = replace(SETTINGS, text_only=True)
    done = list(translate_files(translator, find_tasks(names, tmp_path / "out"), settings))
    assert [one.error for one in done] == [
        f"{names[0]}: not readable (Permission denied)",
        f"{names[1]}: not readable (Not a directory)",
        "",
    ]


def test_a_full_disk_ends_the_batch(translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talk(tmp_path / "talk.wav", monkeypatch)

    def full(path: Path, value: object) -> None:
        with atomic_path(path):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(long, "write_json", full)
    tasks = find_tasks([str(tmp_path / "talk.wav")], tmp_path / "out")
    with pytest.raises(InputError, match="no space left"):
        list(translate_files(translator, tasks, SETTINGS, cut_above=3.0))


def test_names_that_are_no_utf_8_are_translated_and_printed(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / os.fsdecode(b"caf\xe9.wav")
    talk(tmp_path / "talk.wav", monkeypatch, utterances=1)
    (tmp_path / "talk.wav").rename(source)
    for limit in ("30", "1"):  # as a short recording and as a long one
        out = tmp_path / limit
        assert main(["translate", str(run), str(source), "-o", str(out), "--cut-above", limit]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert Path(printed["audio"]).exists() and json.loads((out / f"{source.stem}.json").read_text())["source"]


def test_patterns_collisions_and_overwriting(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.wav").touch()
    tasks = find_tasks([str(tmp_path / "x" / "*.wav")], tmp_path / "out")
    assert [task.stem for task in tasks] == [tmp_path / "out" / "a"]
    with pytest.raises(InputError, match="both"):
        find_tasks([str(tmp_path / "*" / "a.wav")], tmp_path / "out")
    with pytest.raises(InputError, match="overwrite"):
        find_tasks([str(tmp_path / "x" / "a.wav")], tmp_path / "x")
    with pytest.raises(InputError, match="pattern"):
        find_tasks([str(tmp_path / "*.ogg")], tmp_path / "out")
    with pytest.raises(InputError, match="no recordings"):
        find_tasks([str(tmp_path / "out2")] if (tmp_path / "out2").mkdir() is None else [], tmp_path / "out")


def test_names_come_from_standard_input_and_long_ones_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def given(content: bytes) -> list[Path]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        return [task.source for task in find_tasks(["-"], tmp_path / "out")]

    long = "ö" * 120 + ".wav"
    for name in ("a b.wav", "two\nlines.wav", long):
        (tmp_path / name).touch()
    assert given(f"{tmp_path}/a b.wav\r\n\n{tmp_path}/{long}\n".encode()) == [tmp_path / "a b.wav", tmp_path / long]
    assert given(f"{tmp_path}/two\nlines.wav\0".encode()) == [tmp_path / "two\nlines.wav"]
    for content, words in ((b"RIFF....WAVE", "got a recording"), (b"\n", "has no names")):
        with pytest.raises(InputError, match=words):
            given(content)
    (task,) = find_tasks([str(tmp_path / long)], tmp_path / "out")
    assert task.stem.name.startswith("öö") and len(os.fsencode(task.stem.name)) < 200
    other = find_tasks([str(tmp_path / f"{long[:-5]}x.wav")], tmp_path / "out")[0]
    assert other.stem != task.stem


def test_results_are_never_written_over_a_source_by_another_name(tmp_path: Path) -> None:
    for place in ("in/a.wav", "in/deep/b.mp3", "deep/b.wav"):
        (tmp_path / place).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / place).touch()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for source, out in (("in/a.wav", "link"), ("link/a.wav", "in"), ("in/a.wav", "deep/../in")):
        with pytest.raises(InputError, match="overwrite"):
            find_tasks([str(tmp_path / source)], tmp_path / out)
    with pytest.raises(InputError, match=r"deep/b.wav: the translation of .*in/deep/b.mp3 would overwrite it"):
        find_tasks([str(tmp_path / "in"), str(tmp_path / "deep/b.wav")], tmp_path)


def test_results_of_an_earlier_call_are_no_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path("translations")
    for place in ("a.wav", "deep/b.wav", "translations/a.wav", "translations/deep/b.wav"):
        Path(place).parent.mkdir(exist_ok=True, parents=True)
        Path(place).touch()
    for name in (".", str(tmp_path), "deep/.."):
        tasks = find_tasks([name], out)
        assert [task.stem for task in tasks] == [out / "a", out / "deep" / "b"]
    assert [task.stem for task in find_tasks(["deep"], Path())] == [Path("b")], "the folder may lie in the results"
    Path("more").mkdir()
    Path("more/c.mp3").touch()
    assert [task.stem for task in find_tasks(["more"], Path("more"))] == [Path("more/c")]


def test_text_only_known_text_and_beams_from_the_command_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = tmp_path / "a.wav"
    soundfile.write(source, voice(0.5), 16_000)
    command = ["translate", str(run), str(source), "-o", str(tmp_path / "out")]
    assert main([*command, "--text-only", "--num-beams", "2", "--transcript", "Hola, perro", "--language", "es"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["transcript"] == "hola perro" and "audio" not in printed
    assert not (tmp_path / "out/a.wav").exists() and (tmp_path / "out/a.json").exists()
    assert main([*command, "--language", "xx"]) == 2
    assert "'xx'" in capsys.readouterr().err
