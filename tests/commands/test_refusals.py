"""A command that refuses its input does so before it loads torch, which takes seconds."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unitweave import cli

CASES = [
    ("translate", "nowhere", "a.wav"),
    ("translate", "nowhere", "a.wav", "--engine", "int8"),
    ("translate", "nowhere", "a.wav", "--num-beams", "0"),
    ("serve", "nowhere"),
    ("serve", "nowhere", "--max-queue", "0"),
    ("serve", "nowhere", "--port", "70000"),
    ("serve", "nowhere", "--host", "0.0.0.0"),
    ("units", "alignment", "nowhere"),
    ("live", "evaluate", "nowhere", "--out", "live", "--policies", "clairvoyance"),
    ("export", "nowhere", "--out", "exported"),
    ("run", "nowhere", "--out", "run"),
    ("run", "demo", "--out", "run", "--lm.training.steps", "-3"),
    ("lm", "plan", "nowhere"),
    ("lm", "train", "nowhere"),
    ("units", "extract", "nowhere"),
    ("score", "nowhere"),
    ("corpus", "table", "--table", "nowhere.csv", "--src-lang", "es", "--tgt-lang", "en", "--out", "corpus"),
]
SCRIPT = """
import sys
from pathlib import Path
from unitweave.cli import main
assert main(["--help"]) == 0 and not {{"torch", "transformers"}} & set(sys.modules)
for arguments in {cases!r}:
    status = main(list(arguments))
    assert status == 2, (arguments, status)
    assert not {{"torch", "transformers"}} & set(sys.modules), arguments
"""


@pytest.mark.processes
def test_no_torch_before_a_refusal(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(cases=CASES)], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == len(CASES) and all(line.startswith("unitweave: ") for line in lines)


def test_a_full_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def full(arguments: object) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 128.00 MiB")

    monkeypatch.setattr(cli, "_dispatch", full)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 10 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert cli.main(["lm", "train", "run"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "this command holds 10.0 of 80.0 GiB, other programs 69.0" in said


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("corpus tabel --table a.csv", "corpus table"),
        ("corpus stat data", "corpus stats"),
        ("units codbook RUN", "units codebook"),
        ("translat a.wav", "translate"),
        ("rum demo", "run"),
        ("foo bar", ""),
        ("corpus data", ""),
        ("corpus there", ""),
        ("corpus stat --recipe nowhere.yaml", ""),
    ],
)
def test_a_slip_of_a_command_is_told_what_was_meant(
    typed: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    assert cli.main(typed.split()) == 2
    assert (f"did you mean '{meant}'?" in capsys.readouterr().err) == bool(meant)


def test_what_is_refused_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("corpus: {manifest: nowhere}\n")
    table = ["corpus", "table", "--table", "nowhere.csv", "--src-lang", "es", "--tgt-lang", "en"]
    for arguments in (
        ["run", str(recipe), "--out", "run"],
        ["run", str(recipe), "--out", "a/b/run"],
        ["corpus", "run", "--recipe", str(recipe)],
        ["lm", "train", "run", "--recipe", str(recipe), "--system", "none"],
        [*table, "--out", "corpus"],
        [*table, "--out", "a/b/corpus"],
        ["corpus", "speak", "nowhere", "--out", "a/corpus"],
    ):
        assert cli.main(arguments) == 2
        assert list(tmp_path.iterdir()) == [recipe], arguments
    (tmp_path / "run").mkdir()
    assert cli.main(["run", str(recipe), "--out", "run"]) == 2
    assert (tmp_path / "run").is_dir(), "the user's own folder stays"
    capsys.readouterr()


def test_a_name_with_control_characters_makes_no_second_line(capsys: pytest.CaptureFixture) -> None:
    for arguments in (["run", "a\nb", "--out", "run"], ["translate", "\x1b[31mred", "a.wav"], ["no\x1b[2J\r\n"]):
        assert cli.main(arguments) == 2
        assert capsys.readouterr().err.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    "arguments",
    [
        ["translate", "nowhere", ""],
        ["translate", "", "a.wav"],
        ["serve", "nowhere", "--threads", "0"],
        ["serve", "nowhere", "--allowed-host", ""],
        ["corpus", "hub", "--dataset", "", "--out", "corpus"],
        ["run", "demo", "--out", "/proc/x"],
        ["export", "nowhere", "--out", "loop"],
    ],
)
def test_odd_arguments_are_refused_in_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "loop").symlink_to("loop")
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]


def test_an_item_of_a_list_is_named_by_its_flag(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["live", "evaluate", "nowhere", "--out", "live", "--policies", "utterance", "x"]) == 2
    assert "live evaluate: --policies: must be one of utterance, agreement, wait-k (got x)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "problem"),
    [
        (".", "must be a name"),
        ("/", "must be a name"),
        ("..", "must be a name"),
        ("talk", "would overwrite"),  # the recording by another spelling of its name
        ("link", "would overwrite"),
    ],
)
def test_live_writes_to_a_name_and_not_over_its_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, out: str, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    audio = tmp_path / "talk.wav"
    audio.write_bytes(b"RIFF")
    (tmp_path / "link.wav").symlink_to("talk.wav")
    assert cli.main(["live", "nowhere", "--audio", str(audio), "-o", out]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"-o {out}: {problem}" in said and audio.read_bytes() == b"RIFF"


def test_live_looks_at_the_model_before_the_microphone(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["live", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_an_error_that_repeats_a_long_value_is_short(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["translate", "nowhere", "a.wav", "--num-beams", "[" * 5000]) == 2
    said = capsys.readouterr().err
    assert said.startswith("unitweave: translate: --num-beams: must be ") and len(said) < 1000
    assert cli.main(["translate", "n" * 5000, "a.wav"]) == 2
    assert "File name too long" in (said := capsys.readouterr().err) and len(said) < 1000, "what to do is not cut"


@pytest.mark.parametrize(
    ("out", "line"),
    [
        ("dangling", "{folder}/dangling: a link to nowhere, which does not exist; create that, or remove the link"),
        ("dangling/run", "{folder}/dangling: a link to nowhere, which does not exist; create that, or remove the link"),
        ("file/run", "{folder}/file: there is a file where a folder is needed; move it away or choose another place"),
    ],
)
def test_what_is_in_the_way_of_a_folder_is_said(
    out: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("dangling").symlink_to("nowhere")
    assert cli.main(["run", "demo", "--out", out]) == 2
    assert capsys.readouterr().err == f"unitweave: {line.format(folder=tmp_path.resolve())}\n"


def test_live_evaluate_refuses_an_unknown_recognizer_before_it_reads_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert cli.main(["live", "evaluate", str(tmp_path), "--out", str(tmp_path / "x"), "--recognizer", "wisper"]) == 2
    assert "recognizer: must be one of auto, moonshine, fairseq, whisper, MODULE:CLASS (got 'wisper')" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", b"\\xe9 \\u2192 \\udcff"), ("utf-8", "é → \\udcff".encode())]
)
def test_what_a_terminal_cannot_show_is_escaped_and_no_error(
    encoding: str, shown: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(terminal, encoding, write_through=True))
    monkeypatch.setattr(cli, "_dispatch", lambda arguments: print("é → \udcff") or 0)
    assert cli.main(["units", "alignment"]) == 0
    assert terminal.getvalue().rstrip() == shown
