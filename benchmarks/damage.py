"""Every file of a run is damaged in every way, and the command that reads it is run: one clear line, no traceback.

    python benchmarks/damage.py [--folder FOLDER] [--processes 2] [--only TEXT] [--seed 0] [--ways WAY ...]
        [--sample] [--seconds 250]

A run of tiny settings is made first (that of soak.py), a model exported from it, and copies that were killed amid a
training, with their checkpoints. Each case is a copy with one damaged file. A command may end with exit code 2 and
one line, or with 0 where the damage cannot be seen or a checkpoint is set aside; anything else is listed, and the
exit code is 1. A training that takes a step has read its files, and counts as done. `--seconds` ends the session;
with `--folder` the next one goes on with the cases that are left, and with those that were not as they should be.
All cases take some 40 minutes of processor time; `--sample` draws one command for each kind of file and way.
"""

import argparse
import importlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from forks import forked
from soak import kill_at, prepare, start
from unitweave.cli import main as unitweave
from unitweave.core.files import write_json
from unitweave.serve.export import export_run
from unitweave.training import checkpoints
from unitweave.vocoder import train

# What reads a stage's files: the folders that are removed first, and the command.
READERS = {
    "recipe.yaml": [((), "run {run}/recipe.yaml --out {run}"), ((), "report {run}")],
    "corpus": [
        (("encoder",), "units train-encoder {run}"),
        (("units",), "units extract {run}"),
        (("lm/scheduled",), "lm train {run} --system scheduled"),
        (("vocoder",), "vocoder train {run}"),
        (("score",), "score {run}"),
        ((), "corpus stats {run}/corpus"),
    ],
    "encoder": [
        (("codebook",), "units codebook {run}"),
        (("units",), "units extract {run}"),
        ((), "export {run} --system scheduled --out {run}/exported"),
    ],
    "codebook": [(("units",), "units extract {run}"), ((), "export {run} --system scheduled --out {run}/exported")],
    "units": [
        (("lm/scheduled",), "lm train {run} --system scheduled"),
        (("vocoder",), "vocoder train {run}"),
        (("translate",), "run {recipe} --out {run}"),
        ((), "units alignment {run}"),
        ((), "units export {run} --format fairseq --out {run}/exported"),
        ((), "lm plan {run}"),
    ],
    "text_lm": [(("lm/scheduled",), "lm train {run} --system scheduled")],
    "lm": [
        (("translate",), "run {recipe} --out {run}"),
        ((), "export {run} --system scheduled --out {run}/exported"),
        ((), "report {run}"),
    ],
    "vocoder": [
        (("translate",), "run {recipe} --out {run}"),
        ((), "export {run} --system scheduled --out {run}/exported"),
    ],
    "translate": [(("score",), "score {run}"), ((), "report {run}")],
    "score": [((), "report {run}"), ((), "export {run} --system scheduled --out {run}/exported")],
    "exported": [((), "translate {run} {recording} --out {run}/translated")],
    "paused/encoder": [((), "units train-encoder {run}")],
    "paused/text_lm": [((), "lm text {run}")],
    "paused/lm": [((), "lm train {run} --system scheduled")],
    "paused/vocoder": [((), "vocoder train {run}")],
}
# What commands import on use: once here, not in the fork of each case.
IMPORTED = (
    *("attr", "docstring_parser", "matplotlib.pyplot", "rich._emoji_codes", "torch.profiler"),
    *("unitweave.commands.parser", "unitweave.corpus.stats", "unitweave.lm.plan", "unitweave.score.report"),
    "unitweave.translate.files",
)
WAYS = ("missing", "empty", "half", "most", "garbled", "nothing", "list", "kinds", "without")


class Began(BaseException):
    """A training has taken its first step."""


class Case(NamedTuple):
    """A damaged file of a run, and what is done then."""

    base: Path
    file: str
    way: str
    removed: tuple[str, ...]
    command: str

    @property
    def name(self) -> str:
        """What is damaged, how, and what is done then."""
        return f"{self.base.name}/{self.file}, {self.way}: {self.command}"


def damaged(content: bytes, way: str, rng: random.Random) -> bytes | None:
    """The content, damaged; None where that way does not apply."""
    if way in ("empty", "half", "most"):
        return content[: {"empty": 0, "half": len(content) // 2, "most": len(content) - 1}[way]]
    if way == "garbled":
        first = len(content) // 3
        return content[:first] + rng.randbytes(max(1, len(content) // 4)) + content[first + len(content) // 4 :]
    try:
        value = json.loads(content.split(b"\n")[0] if content.count(b"}\n{") else content)
    except ValueError:
        return None
    if way in ("nothing", "list"):
        return b"{}\n" if way == "nothing" else b"[]\n"
    if not isinstance(value, dict) or not value:
        return None
    if way == "kinds":
        return json.dumps({k: 1 if isinstance(v, str | dict | list) else "x" for k, v in value.items()}).encode()
    value.pop(rng.choice(sorted(value)))
    return json.dumps(value).encode()


def cases(bases: dict[str, Path], ways: list[str]) -> Iterator[Case]:
    """All cases; of recordings one in each folder."""
    for name, base in bases.items():
        seen = set()
        for path in sorted(path for path in base.rglob("*") if path.is_file()):
            file = path.relative_to(base).as_posix()
            stage = name if name == "exported" else file.split("/")[0]
            if name not in ("whole", "exported"):
                if f"paused/{stage}" != f"paused/{name}" or "checkpoints" not in file:
                    continue
                stage = f"paused/{stage}"
            if path.suffix == ".wav" and (path.parent, ".wav") in seen:
                continue
            seen.add((path.parent, path.suffix))
            for way in ways:
                for removed, command in READERS.get(stage, []):
                    yield Case(base, file, way, removed, command)


def sampled(chosen: list[Case], seed: int) -> list[Case]:
    """One case of each kind: a file damaged in a way, with a command drawn from those that read it.

    Files whose names differ in a number alone (recordings, shards, checkpoints) are of one kind, and so are those of
    two systems.
    """
    kinds: dict[tuple[str, str, str], list[Case]] = {}
    for one in chosen:
        file = re.sub(r"[0-9a-f]{6,}|\d+", "N", one.file.replace("baseline", "scheduled").replace("partial/", ""))
        kinds.setdefault((one.base.name, file, one.way), []).append(one)
    return [random.Random(f"{seed} {kind}").choice(found) for kind, found in kinds.items()]


def run_case(case: Case, place: Path, recipe: Path, seed: int) -> int | None:
    """Start a case in a fork; returns its process, None where it does not apply."""
    rng = random.Random(f"{seed} {case.file} {case.way}")
    content = None if case.way == "missing" else damaged((case.base / case.file).read_bytes(), case.way, rng)
    if content is None and case.way != "missing":
        return None
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(case.base, place / "run")
    (place / "run" / case.file).unlink()
    if content is not None:
        (place / "run" / case.file).write_bytes(content)
    for name in case.removed:
        shutil.rmtree(place / "run" / name)

    def run() -> int:
        signal.alarm(120)
        recording = next((recipe.parent / "whole-1/corpus/audio").rglob("*.wav"))
        try:
            return unitweave(case.command.format(run=place / "run", recipe=recipe, recording=recording).split())
        except Began:
            return 0

    return forked(place / "log", run)


def stop_trainings_at_their_first_step() -> None:
    """From then on, in this process and its forks."""

    def began(*_: object, **__: object) -> None:
        raise Began

    checkpoints._StopCallback.on_step_end = began  # type: ignore[method-assign]
    train._Trainer._train_step = began  # type: ignore[method-assign]


def verdict(status: int, log: str) -> str:
    """What is wrong with how a command ended; "" where nothing is."""
    code = os.waitstatus_to_exitcode(status)
    if "Traceback" in log:
        return "traceback: " + log.strip().splitlines()[-1][:200]
    if code not in (0, 2):
        return f"exit code {code}: {(log.strip().splitlines() or [''])[-1][:200]}"
    said = [line for line in log.splitlines() if line.startswith("unitweave: ")]
    if code == 2 and (len(said) != 1 or log.strip().splitlines()[-1] != said[0]):
        return f"{len(said)} lines: " + " / ".join(log.strip().splitlines()[-3:])[:200]
    return ""


def paused(whole: Path, recipe: Path, folder: Path, stage: str, log: Path) -> Path:
    """A copy of the run that was killed amid a training, when it had two checkpoints."""
    run = folder / stage.split("/")[0]
    if not (run / ".paused").exists():
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(whole, run)
        shutil.rmtree(run / stage)
        (child,) = start(run, recipe, 1, log)
        while len(list((run / stage).rglob("checkpoint.json"))) < 2:
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        (run / ".paused").touch()
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", default="", help="files and commands that contain this")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--sample", action="store_true", help="one case of each kind of file and way")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    begin = time.monotonic()
    folder = (options.folder or Path(tempfile.mkdtemp())).absolute()
    recipe = prepare(folder)
    whole = folder / "whole-1"
    if not (whole / "score/scores.json").exists():
        shutil.rmtree(whole, ignore_errors=True)
        kill_at(start(whole, recipe, 1, folder / "log"), float("inf"))
    if not (folder / "exported").exists():
        export_run(whole, "scheduled", folder / "exported")
    bases = {"whole": whole, "exported": folder / "exported"}
    for stage in ("encoder", "text_lm", "lm/scheduled", "vocoder"):
        bases[stage.split("/")[0]] = paused(whole, recipe, folder / "paused", stage, folder / "log")
    record = folder / f"done-{options.seed}.json"
    ended: dict[str, tuple[int, str]] = json.loads(record.read_text()) if record.exists() else {}
    chosen = [one for one in cases(bases, options.ways) if options.only in f"{one.file} {one.command}"]
    if options.sample:
        chosen = sampled(chosen, options.seed)
    todo = [one for one in chosen if ended.get(one.name, (0, "not tried"))[1]]
    random.Random(options.seed).shuffle(todo)
    for name in IMPORTED:
        importlib.import_module(name)
    stop_trainings_at_their_first_step()
    running: dict[int, tuple[Case, Path]] = {}
    free = [folder / f"case-{number}" for number in range(options.processes)]
    while todo or running:
        if todo and free and time.monotonic() - begin < options.seconds:
            case, place = todo.pop(), free.pop()
            pid = run_case(case, place, recipe, options.seed)
            if pid is None:
                free.append(place)
            else:
                running[pid] = case, place
            continue
        if not running:
            break
        pid, status = os.wait()
        case, place = running.pop(pid)
        free.append(place)
        problem = verdict(status, (place / "log").read_text(errors="replace"))
        ended[case.name] = os.waitstatus_to_exitcode(status), problem
        write_json(record, ended)
        if problem:
            print(f"{case.name}: {problem}", flush=True)
    found = [ended[one.name] for one in chosen if one.name in ended]
    codes = Counter(f"exit code {code}" for code, _ in found)
    bad = sum(bool(problem) for _, problem in found)
    ends = ", ".join(f"{name} {number}" for name, number in sorted(codes.items()))
    print(f"{len(found)} cases, {bad} of them not as they should be ({ends}); {len(todo)} not tried")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
