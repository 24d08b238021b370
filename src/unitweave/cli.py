"""The command line: `unitweave run` does everything; each stage is a command of its own with the same settings."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from unitweave import __version__
from unitweave.commands.base import recipes_folder
from unitweave.core.errors import InputError


@dataclass(frozen=True)
class Command:
    """One command: the words that name it, what follows them, what it does, and module:function, imported on use."""

    words: str
    takes: str
    does: str
    function: str


COMMANDS = (
    Command("run", "RECIPE --out RUN", "every stage of a recipe that is not yet done", "run:run"),
    Command("corpus", "RUN", "the utterance pairs", "corpus:corpus"),
    Command("units train-encoder", "RUN", "the speech encoder (CTC)", "units:train_encoder"),
    Command("units codebook", "RUN", "the k-means codebook", "units:codebook"),
    Command("units extract", "RUN", "units and word frames of every recording", "units:extract"),
    Command("lm text", "RUN", "the small text language model", "lm:text"),
    Command("lm train", "RUN --system NAME", "one system: the LM fine-tuned on woven speech and text", "lm:train"),
    Command("vocoder train", "RUN", "the voice", "vocoder:train"),
    Command("translate", "RUN WAV...", "recordings in, English speech out", "translate:translate"),
    Command("score", "RUN", "ASR-BLEU and the other scores of all systems", "score:score"),
    Command("report", "RUN...", "one HTML page about one or several runs", "score:report"),
    Command("env", "", "versions, threads and devices, for bug reports", "env:env"),
)


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
        print(_usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"unitweave {__version__}")
        return 0
    # Longest first, so that "corpus cvss" is not taken for "corpus" of the run folder "cvss".
    for command in sorted(COMMANDS, key=lambda c: -len(c.words.split())):
        words = command.words.split()
        if arguments[: len(words)] == words:
            module, function = command.function.split(":")
            getattr(import_module(f"unitweave.commands.{module}"), function)(arguments[len(words) :])
            return 0
    raise InputError(f"no command '{' '.join(arguments[:2])}'; 'unitweave --help' lists them")


def _usage() -> str:
    """The list of commands."""
    known = ", ".join(sorted(path.stem for path in recipes_folder().glob("*.yaml")))
    rows = [f"  {f'{c.words} {c.takes}':<38}{c.does}" for c in COMMANDS]
    return "\n".join(
        [
            "usage: unitweave COMMAND ...",
            "",
            *rows,
            "",
            f"  recipes built in: {known}",
            "  unitweave COMMAND --help gives the command's settings; unitweave --version",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
