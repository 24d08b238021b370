"""The command lines of README and docs exist, with all of their flags; those that can run here are run."""

import contextlib
import io
import re
import shlex
import tomllib
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import soundfile

from helpers.serving import make_run, voice
from unitweave.cli import COMMANDS, main
from unitweave.config.recipe import Recipe, builtin_recipes

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
PROGRAMS = ("unitweave", "torchrun", "python", "make", "pip", "pytest", ".venv/bin/python")
SHELL = ("", "bash", "sh", "console")
# What can be run in a folder with RUN (a run of random weights), recording.wav and pairs.csv, in this order.
RUNNABLE = (
    "units plan ",
    "corpus table --table pairs.csv --src-lang es --tgt-lang en --out data/mine",
    "translate RUN recording.wav",
    "live RUN --audio recording.wav -o out/talk --fast",
    "export RUN -o MODEL",
)


def fenced(page: Path, languages: tuple[str, ...]) -> list[str]:
    """The contents of a page's fenced blocks in these languages."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [content for language, content in blocks if language in languages]


def commands(page: Path) -> list[list[str]]:
    """All command lines of a page, in blocks and in running text, as words."""
    blocks = "\n".join(fenced(page, SHELL)).replace("\\\n", " ")
    lines = [line.removeprefix("$ ") for line in blocks.splitlines()]
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    lines += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]
    found = []
    for line in lines:
        if line.split(" ")[0] in PROGRAMS:
            found.append([word for word in shlex.split(re.sub(r"[\[\]…]|\.\.\.", " ", line), comments=True) if word])
    return found


@cache
def help_of(words: str) -> str:
    """What `unitweave WORDS --help` prints."""
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        main([*words.split(), "--help"])
    return shown.getvalue()


def check_unitweave(words: list[str]) -> None:
    """A command of ours: it is there, it knows the flags, and recipes that it names are built in."""
    if not words or words[0] in ("COMMAND", "--help", "--version"):
        return
    names = sorted({command.words for command in COMMANDS}, key=len, reverse=True)
    name = next((n for n in names if words[: len(n.split())] == n.split()), None)
    if name is None:
        assert any(n.startswith(f"{words[0]} ") for n in names) and len(words) <= 2, "no such command"
        return
    rest = words[len(name.split()) :]
    known = help_of(name) + help_of("run")  # the settings of all sections are listed there
    for flag in (word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)):
        assert flag == "--help" or re.search(rf"{re.escape(flag)}(?![\w.-])", known), f"{name} has no flag {flag}"
    if name in ("run", "units plan", "lm plan") and rest and re.fullmatch(r"[a-z][a-z0-9-]*", rest[0]):
        assert rest[0] in {path.stem for path in builtin_recipes()}, f"no recipe {rest[0]}"


def check(words: list[str]) -> None:
    """Whether the command line, whatever its program, could be run in a clone."""
    program, rest = words[0], words[1:]
    if program == "torchrun" and "-m" in rest:
        rest = rest[rest.index("-m") + 1 :]
        program, rest = rest[0], rest[1:]
    if program == "unitweave":
        check_unitweave(rest)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert not rest or rest[0] in targets, "no such target"
    elif program == "pip" and rest[:1] == ["install"]:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        # The brackets around the extras are gone by now.
        named = re.findall(r"(?:unitweave|-e \.) ([a-z,]+)", " ".join(rest))
        assert {extra for group in named for extra in group.split(",")} <= {*project["optional-dependencies"]}
    elif program.endswith("python") and rest[:1] == ["-m"]:
        module = rest[1].replace(".", "/")
        ours = [ROOT / "src" / f"{module}.py", ROOT / "src" / module / "__main__.py"]
        assert not module.startswith("unitweave") or any(path.exists() for path in ours), "no such module"
    elif program.endswith("python") and rest:
        source = (ROOT / rest[0]).read_text(encoding="utf-8")
        for flag in (word.split("=")[0] for word in rest[1:] if word.startswith("--")):
            assert flag in source, f"{rest[0]} has no flag {flag}"
    if "pytest" in words:
        paths = [word.split("::")[0] for word in rest if word.startswith("tests/")]
        assert all((ROOT / path).exists() for path in paths), "no such test"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_documented_command_line_could_be_run(page: Path) -> None:
    problems = []
    for words in commands(page):
        try:
            check(words)
        except (AssertionError, FileNotFoundError) as error:
            problems.append(f"{' '.join(words)}: {str(error).splitlines()[0] if str(error) else error!r}")
    assert not problems, "\n".join(problems)


def test_command_lines_are_found_where_they_stand() -> None:
    found = [" ".join(words) for words in commands(ROOT / "README.md")]
    assert "make demo" in found and "unitweave units plan paper" in found
    with pytest.raises(AssertionError, match="no flag --lm"):
        check(["unitweave", "run", "demo", "--out", "RUN", "--lm.no_such_key", "1"])


def settings_in(page: Path) -> set[str]:
    """The keys of recipes, such as lm.schedule.start, in a page's running text."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    sections = "|".join(Recipe.__dataclass_fields__)
    keys = rf"(?<![\w./])((?:{sections})\.[a-z_.]*[a-z_])(?![\w/(])"
    return {key for span in re.findall(r"`([^`]+)`", text) for key in re.findall(keys, span) if ".json" not in key}


def is_setting(kind: Any, path: list[str]) -> bool:
    """Whether a settings class, or one of a union, has a field of this path."""
    if not path:
        return True
    classes = [part for part in (kind, *get_args(kind)) if is_dataclass(part)]
    hints = {name: hint for part in classes for name, hint in get_type_hints(part).items()}
    return path[0] in hints and is_setting(hints[path[0]], path[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_documented_key_is_a_setting(page: Path) -> None:
    assert not [key for key in sorted(settings_in(page)) if not is_setting(Recipe, key.split("."))]


def test_keys_are_found_where_they_stand() -> None:
    assert len(settings_in(ROOT / "docs/paper.md")) > 12
    assert not is_setting(Recipe, ["lm", "training", "batch"])


@pytest.mark.slow
def test_documented_command_lines_run(
    tmp_path: Path, text_lm_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "RUN").mkdir()
    make_run(tmp_path / "RUN", text_lm_folder)
    soundfile.write("recording.wav", voice(1.0), 16_000)
    soundfile.write("english.wav", voice(1.0, 1), 16_000)
    rows = [f"u{i},{split},recording.wav,english.wav,hola,hello" for i, split in enumerate(("train", "dev", "test"))]
    header = "id,split,src_audio,tgt_audio,src_text,tgt_text"
    (tmp_path / "pairs.csv").write_text("\n".join([header, *rows]) + "\n")
    documented = {
        " ".join(words[1:]): words[1:] for page in PAGES for words in commands(page) if words[0] == "unitweave"
    }
    for start in RUNNABLE:
        chosen = [words for line, words in documented.items() if line.startswith(start) and line.upper() != line]
        assert chosen, f"no page has a command that begins with: unitweave {start}"
        for words in chosen:
            if "RECIPE" not in words:
                assert main(words) == 0, capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/live.md"])
def test_the_python_of_the_pages_runs(
    page: str, tmp_path: Path, text_lm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "RUN").mkdir()
    make_run(tmp_path / "RUN", text_lm_folder)
    soundfile.write("recording.wav", voice(1.0), 16_000)
    (code,) = fenced(ROOT / page, ("python",))
    exec(compile(code, page, "exec"), {})
