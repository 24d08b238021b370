"""Corpora with recordings and translations but no target speech: what they can serve, and how the speech is made."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from helpers.cvss_miniature import encoded, tone
from unitweave.cli import main
from unitweave.config.recipe import parse_recipe
from unitweave.core.audio import read_audio
from unitweave.core.manifest import Pair, read_manifest, read_metadata
from unitweave.corpus.tasks import pairs_by_task
from unitweave.pipeline import Run
from unitweave.preflight import check_corpus

ENGINE = """
import sys, wave
words, out = sys.stdin.read().split(), sys.argv[1]
if "fail" in words:
    sys.exit("no voice for this")
with wave.open(out, "wb") as file:
    file.setparams((1, 2, 22050, 0, "NONE", ""))
    samples = [int(9000 * ((i // 40) % 2 * 2 - 1)) for i in range(22050 * len(words) // 2)]
    file.writeframes(b"".join(s.to_bytes(2, "little", signed=True) for s in samples))
"""


def speak(text: str, language: str) -> tuple[np.ndarray, int]:
    """A speech engine of the user's own: half a second of a tone for each word."""
    return tone(len(text.split()) / 2, 8_000, len(language)), 8_000


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Six pairs with Spanish recordings and English text, one of them with a recording of its own."""
    for i in range(7):
        soundfile.write(tmp_path / f"{i}.wav", tone(1.5, 16_000, i), 16_000)
    rows = ["id\tsrc_audio\tsrc_text\ttgt_text"]
    rows += [f"r{i}\t{i}.wav\tel perro\tThe dog, {i} times" for i in range(6)]
    (tmp_path / "t.tsv").write_text("\n".join(rows))
    arguments = ["--src-lang", "es", "--tgt-lang", "en", "--dev-ratio", "0", "--test-ratio", "0"]
    assert main(["corpus", "table", "--table", str(tmp_path / "t.tsv"), "--out", str(tmp_path / "c"), *arguments]) == 0
    return tmp_path / "c"


def test_the_table_says_what_its_pairs_can_serve_and_the_run_stops_before_the_encoder(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump({"corpus": {"manifest": str(corpus)}, "systems": {"scheduled": {}}}))
    for command in (["run", str(recipe), "--out", str(tmp_path / "run")], ["lm", "plan", str(recipe)]):
        capsys.readouterr()
        assert main(command) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("unitweave: systems.scheduled: no pair of the train split can serve the task s2st")
        assert "no target recording" in error and "corpus speak" in error and "s2tt" in error
    assert not (tmp_path / "run/encoder").exists()
    systems = {"read": {"tasks": {"s2st": 0.0, "s2tt": 1.0, "asr": 1.0}}}
    run = Run(tmp_path / "run", parse_recipe({"corpus": {"manifest": str(corpus)}, "systems": systems}))
    said: list[str] = []
    monkeypatch.setattr("unitweave.pipeline.echo", said.append)
    monkeypatch.setattr(Run, "has_imported_units", lambda self: True)  # what comes next is not made here
    run.corpus_and_units()
    assert "tasks that the train split can serve: s2tt (6 pairs), asr (6 pairs), mt (6 pairs); not" in said[0]


def test_tasks_follow_from_what_the_pairs_have() -> None:
    pairs = [
        Pair("a", "train", "es", "en", "a.wav", "a-en.wav", None, None),
        Pair("b", "train", "es", "en", None, "b-en.wav", "hola", "hello"),
        Pair("c", "test", "es", "en", "c.wav", "c-en.wav", "hola", "hello"),
    ]
    assert pairs_by_task(pairs) == {"s2st": 0, "s2tt": 0, "asr": 0, "mt": 1, "tts": 1, "direct": 1}


@pytest.mark.processes
def test_a_shell_command_makes_the_missing_speech_resumes_and_names_what_it_cannot_speak(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "engine.py").write_text(ENGINE)
    command = f"{sys.executable} {tmp_path / 'engine.py'} {{out}}"
    out = tmp_path / "spoken"
    arguments = ["corpus", "speak", str(corpus), "--out", str(out), "--engine", "command", "--command", command]
    assert main(arguments) == 0
    pairs = read_manifest(out)
    assert len(pairs) == 6 and all(pair.src_audio == str(corpus / f"audio/es/{pair.id}.flac") for pair in pairs)
    for pair in pairs:
        assert pair.tgt_seconds == pytest.approx(2.0, abs=0.01)
        assert len(read_audio(str(pair.tgt_audio), expected_seconds=pair.tgt_seconds)) == pytest.approx(32_000, abs=99)
    about = json.loads(read_metadata(out)["speech"])
    assert about["engine"] == "command" and about["command"] == command and about["side"] == "target"
    # What is there is not spoken again; with another command all is.
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.flac")}
    (out / "audio/es-en/r3.flac").unlink()
    assert main(arguments) == 0
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.flac")}
    assert [path.stem for path in after if after[path] != before[path]] == ["r3"]
    capsys.readouterr()
    assert main(["corpus", "speak", str(out), "--out", str(tmp_path / "again"), *arguments[5:]]) == 2
    assert "every pair has its target speech" in capsys.readouterr().err


def test_a_function_makes_it_within_a_run_and_the_engine_counts(corpus: Path, tmp_path: Path) -> None:
    def pairs_with(name: str) -> list[Pair]:
        speaking = {"engine": "function", "function": f"{__name__}:{name}"}
        recipe = parse_recipe({"corpus": {"manifest": str(corpus), "speak": speaking}, "systems": {"scheduled": {}}})
        run = Run(tmp_path / "run", recipe)
        run.corpus()
        check_corpus(recipe, read_manifest(tmp_path / "run/corpus"))
        return read_manifest(tmp_path / "run/corpus")

    pairs = pairs_with("speak")
    assert len(pairs) == 6 and all(pair.tgt_seconds == pytest.approx(2.0, abs=0.01) for pair in pairs)
    stage = json.loads((tmp_path / "run/corpus/stage.json").read_text())
    assert stage["status"] == "done" and stage["counts"]["spoken"] == 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--engine", "kokoro"], "name the folder of 'unitweave fetch kokoro' with --model"),
        (["--engine", "piper"], "name the voice's .onnx file"),
        (["--engine", "command"], "give the command with --command"),
        (["--engine", "command", "--command", "true"], "must name the file to write as {out}"),
        (["--engine", "command", "--command", "no-such-program {out}"], "'no-such-program' is not installed"),
        (["--engine", "command", "--command", "sh {what} {out}"], "may only have {out}, {text}"),
        (["--engine", "command", "--command", "sh {text.x} {out}"], "may only have {out}, {text}"),
        (["--engine", "function", "--function", "no_such_module:f"], "could not be imported"),
        (["--engine", "function"], "name it with --function"),
        (["--side", "source"], "every pair has its source speech"),
    ],
)
def test_an_engine_that_is_not_there_is_one_line_and_code_2(
    arguments: list[str], words: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    capsys.readouterr()
    assert main(["corpus", "speak", str(corpus), "--out", str(tmp_path / "o"), *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "o/manifest.parquet").exists()


SOUND = tone(1.0, 8_000, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ((SOUND, 8_000), ""),
        ([SOUND, 8_000], ""),
        ((np.stack([SOUND, SOUND]), 8_000), ""),
        ((np.stack([SOUND, SOUND], axis=1), 8_000), ""),
        (((SOUND * 32_000).astype(np.int16), 8_000), ""),
        (encoded(SOUND, 8_000, "FLAC"), ""),
        (None, "sound must be samples"),
        ("/tmp/a.wav", "sound must be samples"),
        ((8_000, SOUND), "sound must be samples"),
        ((SOUND, 0), "sound must be samples"),
        (b"RIFF", "not readable as audio"),
        (SOUND[:0], "empty"),
        (ValueError("no such phoneme"), "ValueError: no such phoneme"),
    ],
)
def test_whatever_a_function_returns_is_sound_or_a_reason(
    returned: object, told: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def engine(text: str, language: str) -> object:
        if isinstance(returned, Exception) and "3" in text:
            raise returned
        return (SOUND, 8_000) if (isinstance(returned, Exception) or (told and "3" not in text)) else returned

    monkeypatch.setattr(sys.modules[__name__], "speak", engine)
    arguments = ["--out", str(tmp_path / "s"), "--engine", "function", "--function", f"{__name__}:speak"]
    assert main(["corpus", "speak", str(corpus), *arguments]) == 0
    assert len(read_manifest(tmp_path / "s")) == 6 - bool(told)
    assert told in (tmp_path / "s/skipped.tsv").read_text()
    spoken = read_manifest(tmp_path / "s")[0]
    assert len(read_audio(str(spoken.tgt_audio))) == 16_000 and np.abs(read_audio(str(spoken.tgt_audio))).max() < 1


@pytest.mark.processes
@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("x=1 cat > {out}", "only 0 of 6"),
        ("cp 'a {out}", "cannot be read by a shell"),
        ("read x; cp $x {out}", "only 0 of 6"),
        ("nothere {out}", "'nothere' is not installed"),
    ],
)
def test_commands_of_the_shell_are_told_from_programs_that_are_missing(
    command: str, told: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["--out", str(tmp_path / "s"), "--engine", "command", "--command", command]
    assert main(["corpus", "speak", str(corpus), *arguments]) == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


def test_an_engine_that_speaks_nothing_is_stopped_early(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(sys.modules[__name__], "speak", lambda text, language: calls.append(text))
    monkeypatch.setattr("unitweave.corpus.speak._ALL_OF_THE_FIRST", 3)
    arguments = ["--out", str(tmp_path / "s"), "--engine", "function", "--function", f"{__name__}:speak"]
    assert main(["corpus", "speak", str(corpus), *arguments]) == 2
    assert "none of the first 3 texts was synthesized; sound must be samples" in capsys.readouterr().err
    assert len(calls) == 3


@pytest.mark.processes
def test_texts_that_an_engine_cannot_speak_are_skipped_with_its_reason(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "engine.py").write_text(ENGINE.replace('"fail"', '"4"'))
    command = f"{sys.executable} {tmp_path / 'engine.py'} {{out}}"
    arguments = ["--out", str(tmp_path / "o"), "--engine", "command", "--command", command]
    assert main(["corpus", "speak", str(corpus), *arguments]) == 0
    assert {pair.id for pair in read_manifest(tmp_path / "o")} == {f"r{i}" for i in (0, 1, 2, 3, 5)}
    assert "could not be synthesized: exit code 1: no voice for this" in (tmp_path / "o/skipped.tsv").read_text()


@pytest.mark.processes
@pytest.mark.parametrize(
    ("command", "told"),
    [
        (": > {out}", "none of the first 3 texts was synthesized; it wrote an empty file"),
        ("cp EMPTY {out}", "none of the first 3 texts was synthesized; the sound is empty"),
        ("true {out}", "none of the first 3 texts was synthesized; it wrote no file"),
        ("sleep 60; echo {out}", "none of the first 2 texts was synthesized; the command took longer than 1 s"),
        (
            "sleep 60 & echo $! > PID; echo {out}",
            "none of the first 2 texts was synthesized; the command took longer than 1 s",
        ),
    ],
)
def test_an_engine_that_hangs_or_writes_no_sound_is_stopped_early(
    command: str,
    told: str,
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("unitweave.corpus.speak._ALL_OF_THE_FIRST", 3)
    monkeypatch.setattr("unitweave.corpus.speech_engines._TIMEOUT", 1)
    (tmp_path / "empty.wav").write_bytes(encoded(SOUND[:0], 8_000, "WAV"))
    started = tmp_path / "pid"
    command = command.replace("EMPTY", str(tmp_path / "empty.wav")).replace("PID", str(started))
    arguments = ["--out", str(tmp_path / "s"), "--engine", "command", "--command", command, "--workers", "2"]
    assert main(["corpus", "speak", str(corpus), *arguments]) == 2
    assert told in capsys.readouterr().err.splitlines()[-1]
    if started.exists():
        about = Path(f"/proc/{started.read_text().strip()}/stat")
        assert not about.exists() or " Z " in about.read_text(), "what a command started does not outlive it"


def test_an_engine_that_fails_midway_stops_and_the_same_command_resumes(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken: list[str] = []

    def engine(text: str, language: str) -> object:
        if len(spoken) >= 2:
            raise ConnectionError("the server is gone")
        spoken.append(text)
        return SOUND, 8_000

    monkeypatch.setattr(sys.modules[__name__], "speak", engine)
    monkeypatch.setattr("unitweave.corpus.speak._IN_A_ROW", 3)
    arguments = ["--out", str(tmp_path / "s"), "--engine", "function", "--function", f"{__name__}:speak"]
    assert main(["corpus", "speak", str(corpus), *arguments]) == 2
    assert "3 texts in a row could not be synthesized; ConnectionError" in capsys.readouterr().err
    assert not (tmp_path / "s/manifest.parquet").exists()
    before = list(spoken)
    monkeypatch.setattr(sys.modules[__name__], "speak", lambda text, _: spoken.append(text) or (SOUND, 8_000))
    assert main(["corpus", "speak", str(corpus), *arguments]) == 0
    assert len(read_manifest(tmp_path / "s")) == 6 and len(spoken) == 6 == len({*spoken}) and spoken[:2] == before
