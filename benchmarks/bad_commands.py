"""Wrong command lines, made from a seed: each has to end with exit code 2 and one line, and to leave nothing behind.

    python benchmarks/bad_commands.py [--count 300] [--seed 0] [--all]

Every command with what is no model, run, recipe or table in place of one; every flag, and every key of a recipe, with
a value that its type does not have; and slips. Each runs in a fork of a process that has imported the command line.
Prints those that ended in another way; the exit code is 1 if there are any.
"""

import argparse
import inspect
import os
import random
import re
import resource
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from forks import forked
from unitweave.cli import COMMANDS, Command, main
from unitweave.config.recipe import section_types
from unitweave.config.types import Settings

CPU_SECONDS = 40
NUMBERS = ("x", "nan", "inf", "-1e999", "", "1;2", "[1]", "0x", "1e400", "--", "null0", "[" * 3000)
OTHERS = ("", "[", "{", "{a: [b}", "\x1b[31mred", "line\nbreak", "\udc80", "x" * 5000)
SLIPS = (
    "", "nonsense", "corpus", "units", "corpus nonsense", "lm", "lm train", "experiment", "translate",
    "run demo", "run", "run demo --out", "run demo --out a --out", "run --out a", "run demo extra --out a",
    "run demo --out a --lm.training.steps", "run demo --out a --lm.training.stepz 3", "run demo --out a --lm",
    "run demo --out a --lm.training 3", "run demo --out a --nosuch.key 3", "run demo --out=", "run '' --out a",
    "run demo --out a --lm.schedule.shape nosuch", "run demo --out /proc/a", "run demo --out /dev/null",
    "translate . a.wav -o", "translate '' a.wav -o b", "translate . '' -o b", "translate . a.wav -o ''",
    "serve --port 7860", "serve . --host 0.0.0.0 --port 0", "serve . --max-upload-mb inf", "serve . --max-queue 0",
    "serve . --token short", "serve . --threads 0", "score", "report", "push . name", "push . a/b/c", "fetch nosuch",
    "units export . --format nosuch --out a", "export . --engine nosuch --out a", "lm plan nosuch.yaml",
    "corpus table --out a", "corpus table --table nosuch.csv --out a", "corpus cvss --out a --cvss nosuch",
    "corpus hub --dataset nosuch/nosuch --out a", "experiment nosuch --out a", "live nosuch --audio nosuch.wav -o b",
)  # fmt: skip


def made(folder: Path) -> list[str]:
    """Paths that are no run, model, recipe, table or recording."""
    folder.mkdir()
    contents: dict[str, bytes] = {
        "empty.yaml": b"", "deep.yaml": b"[" * 100_000, "dates.yaml": b"seed: 2026-13-45\n", "list.yaml": b"- a\n",
        "binary.csv": bytes(range(256)) * 9, "quote.csv": b'src_audio,tgt_text\n"a,b\n', "rows.jsonl": b"[" * 99_999,
        "number.json": b'{"format": ' + b"1" * 5000 + b"}", "text.wav": b"no sound", "keys.yaml": b"nosuch: 1\n",
        "tags.yaml": b"!!python/object/apply:os.system ['touch ran']\n", "utf16.yaml": "seed: 1\n".encode("utf-16"),
        "run/recipe.yaml": b"lm: {training: {steps: -1}}\n", "export/package.json": b"[]", "list/recipe.yaml": b"[]",
        "corpus/manifest.parquet": b"PAR1" + bytes(50) + b"PAR1", "half/lm/scheduled/model/config.json": b"{",
    }  # fmt: skip
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "fifo.wav")
    (folder / "nothing").mkdir()
    places = [str(folder / name) for name in {name.split("/")[0] for name in contents} | {"loop", "nothing"}]
    return [*sorted(places), "nowhere", "/proc", "/dev/null", "/dev/null/x", "n" * 300, "a\nb", "\udc80", "-", ""]


def flags_of(command: Command) -> tuple[list[str], list[tuple[str, Any, bool]]]:
    """The positional parameters of a command, and its flags: name, type and whether it is required."""
    module, name = command.function.split(":")
    function = getattr(import_module(f"unitweave.commands.{module}"), name)
    hints, positional, flags = get_type_hints(function), [], []
    for one in inspect.signature(function).parameters.values():
        kind = hints[one.name]
        if isinstance(kind, type) and issubclass(kind, Settings):
            flags += [(f"--{field.replace('_', '-')}", hint, False) for field, hint in get_type_hints(kind).items()]
        elif one.name != "overrides":
            required = one.default is one.empty
            if required and one.kind is not one.KEYWORD_ONLY:
                positional.append(one.name)
            else:
                flags.append((f"--{one.name.rstrip('_').replace('_', '-')}", kind, required))
    for section in command.sections:
        flags += [(f"--{name}", hint, False) for name, hint in _keys(section_types()[section], section)]
    return positional, flags


def _keys(kind: type, prefix: str) -> Iterator[tuple[str, Any]]:
    hints = get_type_hints(kind)
    for field in fields(kind):
        inner = next((p for p in (hints[field.name], *get_args(hints[field.name])) if is_dataclass(p)), None)
        if inner is None:
            yield f"{prefix}.{field.name}", hints[field.name]
        else:
            yield from _keys(inner, f"{prefix}.{field.name}")  # type: ignore[arg-type]


def wrong_values(kind: Any) -> tuple[str, ...]:
    """Values that are not of a type; none for a type that takes any text."""
    kinds = {getattr(part, "__supertype__", part) for part in _leaves(kind)}
    if kinds & {str, Path, dict, Any} or not kinds:
        return ()
    return NUMBERS if kinds & {int, float} else OTHERS


def _leaves(kind: Any) -> Iterator[Any]:
    if get_origin(kind) is Literal:
        yield Literal
    elif get_args(kind) and kind is not type(None):
        for part in get_args(kind):
            yield from _leaves(part)
    elif isinstance(kind, type) and kind is not type(None):
        base = next((b for b in kind.__mro__ if b in (bool, int, float, str, list, dict)), kind)
        yield base if not issubclass(kind, Path) else Path


def wrong_lines(seed: int, folder: Path) -> list[list[str]]:
    """All of them, in a random order, the slips first."""
    places, lines = made(folder), []
    for command in COMMANDS:
        positional, flags = flags_of(command)
        needed = [part for name, _, required in flags if required for part in (name, "made")]
        for place in places if positional else ():
            lines.append([*command.words.split(), *[place] * len(positional), *needed])
        for name, kind, _ in flags:
            for value in wrong_values(kind):
                lines.append([*command.words.split(), *["nowhere"] * len(positional), *needed, f"{name}={value}"])
    random.Random(seed).shuffle(lines)
    return [*map(shlex.split, SLIPS), *lines]


def outcome(line: list[str], place: Path) -> str:
    """What is wrong with how a command line ended; "" where nothing is."""
    place.mkdir()
    log = place.with_suffix(".log")

    def run() -> int:
        os.chdir(place)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        return main(line)

    pid = forked(log, run)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    said = log.read_text(errors="replace") if log.exists() else ""
    left = [path.relative_to(place).as_posix() for path in place.rglob("*")]
    usage = said.startswith("usage: ") or "\n  unitweave COMMAND --help" in said
    lines = [one for one in said.splitlines() if one.startswith("unitweave: ")]
    if code != 2:
        return f"exit code {code}: {said.strip()[-200:]!r}"
    if left:
        return f"left {left[:3]}"
    if not usage and (len(lines) != 1 or lines[0] != said.rstrip("\n").splitlines()[-1] or len(lines[0]) > 1000):
        return f"no single line: {said[-300:]!r}"
    return f"names an exception: {said[:200]!r}" if re.search(r"Traceback|\b[A-Z]\w+Error\b", said) else ""


def run() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true", help="all that can be made, which takes long")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    import_module("unitweave.commands.parser")
    import_module("docstring_parser")
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="commands-") as name:
        lines = wrong_lines(options.seed, Path(name) / "made")
        chosen = lines if options.all else lines[: options.count]
        for number, line in enumerate(chosen):
            problem = outcome(line, Path(name) / str(number))
            if problem:
                wrong += 1
                shown = " ".join(shlex.quote(part[:80]) for part in line).replace(name, "")
                print(f"{shown.encode('ascii', 'backslashreplace').decode()}: {problem}", flush=True)
    print(f"{len(chosen)} command lines of {len(lines)}, {wrong} of them ended in another way")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    run()
