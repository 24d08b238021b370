"""The command line: `unitweave run` does everything; each stage is a command of its own with the same settings."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from unitweave import __version__
from unitweave.core.errors import InputError

USAGE = """usage: unitweave COMMAND ...

  run RECIPE --out RUN          every stage of a recipe that is not yet done (built in: {recipes})
  corpus RUN                    the utterance pairs
  units train-encoder RUN       the speech encoder (CTC)
  units codebook RUN            the k-means codebook
  units extract RUN             units and word frames of every recording
  lm text RUN                   the small text language model
  lm train RUN --system NAME    one system: the language model fine-tuned on woven speech and text
  vocoder train RUN             the voice
  translate RUN WAV...          recordings in, English speech out
  score RUN                     ASR-BLEU and the other scores of all systems
  report RUN...                 one HTML page about one or several runs
  env                           versions, threads and devices, for bug reports

  unitweave COMMAND --help      the command's settings
  unitweave --version
"""


@dataclass(frozen=True)
class Command:
    """One command: its function takes the arguments that follow the command's words."""

    words: tuple[str, ...]
    function: Callable[[list[str]], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 2 bad input, 130 interrupted."""
    # Waiting OpenMP threads should sleep: beside a busy process, spinning ones slow everything down tenfold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except InputError as error:
        print(f"unitweave: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("unitweave: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output went away (for instance `| head`); that is no error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE.format(recipes=", ".join(sorted(p.stem for p in _recipes_folder().glob("*.yaml")))), end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"unitweave {__version__}")
        return 0
    for command in COMMANDS:
        if tuple(arguments[: len(command.words)]) == command.words:
            command.function(arguments[len(command.words) :])
            return 0
    raise InputError(f"no command '{' '.join(arguments[:2])}'; 'unitweave --help' lists them")


def _recipes_folder() -> Path:
    return Path(__file__).parent / "recipes"


class _Parser(argparse.ArgumentParser):
    """argparse, whose errors are InputErrors."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message}")


def _settings(sections: Sequence[str], arguments: list[str], prog: str) -> dict[str, Any]:
    """What the flags --SECTION.KEY VALUE say, as nested plain values; nothing for what is not given."""
    from dataclasses import fields

    from jsonargparse import ArgumentError, ArgumentParser

    from unitweave.recipe import Recipe, one_line

    parser = ArgumentParser(exit_on_error=False, prog=prog)
    kinds = {field.name: field.type for field in fields(Recipe)}
    for section in sections:
        parser.add_class_arguments(kinds[section], section)
    try:
        given = parser.parse_args(arguments, defaults=False)
    except ArgumentError as error:
        raise InputError(f"{prog}: {one_line(error)}") from None
    return given.as_dict()


def _open_run(folder: Path, recipe: Path | None, overrides: dict[str, Any]) -> Any:
    """A Run for `folder`: its own recipe (or the one named), with the overrides, which are kept."""
    import yaml

    from unitweave.core.files import write_text
    from unitweave.recipe import load_recipe, merged, parse_recipe
    from unitweave.run import Run, check_run_folder

    check_run_folder(folder)
    kept = folder / "recipe.yaml"
    source = recipe or kept
    if not source.exists() and recipe is None:
        raise InputError(
            f"{folder}: not a run folder (no recipe.yaml); begin one with 'unitweave run RECIPE --out {folder}'"
        )
    load_recipe(source)  # checks it on its own, so that an error names the file
    content = merged(yaml.safe_load(source.read_text(encoding="utf-8")), overrides)
    checked = parse_recipe(content)
    try:
        write_text(kept, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    except PermissionError:
        raise InputError(f"{folder}: may not be written to") from None
    return Run(folder, checked)


def run_command(arguments: list[str]) -> None:
    """unitweave run RECIPE --out RUN [--SECTION.KEY VALUE ...]"""
    parser = _Parser(
        prog="unitweave run", description="Do every stage of a recipe that is not yet done.", add_help=False
    )
    parser.add_argument("recipe", help="a YAML file, or the name of a built-in recipe")
    parser.add_argument("--out", type=Path, required=True, help="the run folder")
    if {"-h", "--help"} & set(arguments):
        parser.print_help()
        _settings(_SECTIONS, ["--help"], "unitweave run RECIPE --out RUN")
        return
    known, rest = parser.parse_known_args(arguments)
    overrides = _settings(_SECTIONS, rest, "unitweave run") if rest else {}
    builtin = _recipes_folder() / f"{known.recipe}.yaml"
    path = builtin if builtin.exists() and not Path(known.recipe).exists() else Path(known.recipe)
    if not path.exists():
        names = ", ".join(sorted(p.stem for p in _recipes_folder().glob("*.yaml")))
        raise InputError(f"{known.recipe}: no such recipe; give a YAML file or one of: {names}")
    run = _open_run(known.out, path, overrides)
    run.all()
    _show(run.folder)


def _show(run: Path) -> None:
    """The end of a run: the table, and where to look and listen."""
    from unitweave.score.report import write_report
    from unitweave.score.score import read_scores
    from unitweave.score.table import print_table

    report = write_report(run / "report.html", [run])
    print_table(read_scores(run / "score"))
    print(f"\nreport: {report}")
    for system in sorted((run / "speech").iterdir()):
        for wav in sorted((system / "audio").glob("*.wav"))[:3]:
            print(f"listen: {wav}")


def _stage_command(words: str, section: str, method: str) -> Command:
    """A command that does one stage of a run folder."""

    def function(arguments: list[str]) -> None:
        parser = _Parser(prog=f"unitweave {words}", add_help=False)
        parser.add_argument("run", type=Path, help="the run folder")
        parser.add_argument("--recipe", type=Path, help="begin the folder with this recipe")
        if {"-h", "--help"} & set(arguments):
            parser.print_help()
            _settings([section], ["--help"], f"unitweave {words} RUN")
            return
        known, rest = parser.parse_known_args(arguments)
        overrides = _settings([section], rest, parser.prog) if rest else {}
        run = _open_run(known.run, known.recipe, overrides)
        getattr(run, method)()

    return Command(tuple(words.split()), function)


def lm_train_command(arguments: list[str]) -> None:
    """unitweave lm train RUN --system NAME [--lm.KEY VALUE ...]"""
    parser = _Parser(prog="unitweave lm train", add_help=False)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--system", help="name of the system (default: all of the recipe)")
    if {"-h", "--help"} & set(arguments):
        parser.print_help()
        _settings(["lm"], ["--help"], "unitweave lm train RUN")
        return
    known, rest = parser.parse_known_args(arguments)
    run = _open_run(known.run, None, _settings(["lm"], rest, parser.prog) if rest else {})
    systems = [known.system] if known.system else list(run.recipe.systems)
    if known.system and known.system not in run.recipe.systems:
        raise InputError(
            f"{known.run}: the recipe has no system {known.system!r}; it has: {', '.join(run.recipe.systems)}"
        )
    for system in systems:
        run.lm(system)


def translate_command(arguments: list[str]) -> None:
    """unitweave translate RUN WAV... [-o DIR] [--system NAME]"""
    import json

    from unitweave.core.audio import write_audio
    from unitweave.core.files import write_json
    from unitweave.serve.translate import Translator

    parser = _Parser(prog="unitweave translate", description="Translate recordings into spoken English.")
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("audio", type=Path, nargs="+", help="recordings")
    parser.add_argument("-o", "--out", type=Path, default=Path("translations"), help="where the results go")
    parser.add_argument("--system", default="scheduled", help="which system of the run (default: scheduled)")
    known = parser.parse_args(arguments)
    translator = Translator.from_run(known.run, known.system)
    for path in known.audio:
        result = translator.translate(path)
        wav = known.out / f"{path.stem}.wav"
        write_audio(wav, result.waveform)
        about = {
            "source": str(path),
            "language": result.language,
            "transcript": result.transcript,
            "translation": result.translation,
            "units": result.units.tolist(),
            "complete": result.complete,
            "seconds": result.seconds,
        }
        write_json(wav.with_suffix(".json"), about)
        print(
            json.dumps({"audio": str(wav)} | {k: about[k] for k in ("transcript", "translation")}, ensure_ascii=False)
        )


def report_command(arguments: list[str]) -> None:
    """unitweave report RUN... [-o FILE]"""
    from unitweave.score.report import write_report

    parser = _Parser(prog="unitweave report", description="Write one HTML page about one or several runs.")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("-o", "--out", type=Path, help="the page (default: report.html in the first run)")
    known = parser.parse_args(arguments)
    print(write_report(known.out or known.runs[0] / "report.html", known.runs))


def score_command(arguments: list[str]) -> None:
    """unitweave score RUN [--score.KEY VALUE ...]"""
    from unitweave.score.score import read_scores
    from unitweave.score.table import print_table

    _stage_command("score", "score", "score").function(arguments)
    if not {"-h", "--help"} & set(arguments):
        print_table(read_scores(Path(arguments[0]) / "score"))


def env_command(arguments: list[str]) -> None:
    """unitweave env: versions, threads and devices."""
    import platform

    import torch

    from unitweave.core.stage import versions
    from unitweave.core.training import use_bf16

    _Parser(prog="unitweave env").parse_args(arguments)
    rows = {
        "platform": platform.platform(),
        "python": platform.python_version(),
        **versions(),
        "cores": str(os.cpu_count()),
        "torch threads": str(torch.get_num_threads()),
        "devices": ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())) or "cpu",
        "bf16": "yes" if use_bf16("bf16") else "no (float32 is used)",
    }
    for key, value in rows.items():
        print(f"{key:<14} {value}")


_SECTIONS = ("corpus", "encoder", "codebook", "units", "text_lm", "lm", "vocoder", "translate", "score")

COMMANDS = (
    Command(("run",), run_command),
    _stage_command("corpus", "corpus", "corpus"),
    _stage_command("units train-encoder", "encoder", "encoder"),
    _stage_command("units codebook", "codebook", "codebook"),
    _stage_command("units extract", "units", "units"),
    _stage_command("lm text", "text_lm", "text_lm"),
    Command(("lm", "train"), lm_train_command),
    _stage_command("vocoder train", "vocoder", "vocoder"),
    Command(("translate",), translate_command),
    Command(("score",), score_command),
    Command(("report",), report_command),
    Command(("env",), env_command),
)


if __name__ == "__main__":
    sys.exit(main())
