"""Programs in processes of their own that need not import torch first, which takes seconds each.

A server process has imported what nearly all of them need, and forks. Where an interpreter's start, its imports or a
launcher are what is tested, a test uses subprocess.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_IMPORTED = (
    "lm.train.finetune",
    "pipeline",
    "translate.stage",
    "units.extract",
    "units.train_encoder",
    "vocoder.train",
)
_context.set_forkserver_preload(["torch", *(f"unitweave.{name}" for name in _IMPORTED)])


class Program:
    """A program that runs; what it prints is in a file of `folder`."""

    def __init__(self, program: str, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._printed = folder / "printed.txt"
        hangup = signal.getsignal(signal.SIGHUP) == signal.SIG_DFL  # the fork server may ignore it: tests under nohup
        arguments = (program, str(self._printed), str(Path.cwd()), dict(environment or {}), hangup)
        self._process = _context.Process(target=_run, args=arguments)
        self._process.start()

    @property
    def code(self) -> int | None:
        """The exit code as subprocess has it; None while it runs."""
        return self._process.exitcode

    @property
    def printed(self) -> str:
        return self._printed.read_text() if self._printed.exists() else ""

    def send(self, number: int) -> None:
        """Send it a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)  # type: ignore[arg-type]

    def wait(self, seconds: float = 300.0) -> int:
        """Wait for its end; returns the exit code."""
        self._process.join(seconds)
        if self.code is None:
            self.send(signal.SIGKILL)
            raise AssertionError(f"still running after {seconds:g} s: {self.printed[-3000:]}")
        return self.code


def run(program: str, folder: Path) -> Program:
    """Run a program to its end."""
    started = Program(program, folder)
    started.wait()
    return started


def run_ranks(program: str, folder: Path, count: int = 2) -> list[Program]:
    """Run a program on several processes as torchrun does: when one of them fails, the others are ended.

    Returns:
        The processes by rank, all of which have ended.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launched = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = [
        Program(
            program,
            folder / f"rank-{rank}",
            {key: str(value) for key, value in (launched | {"RANK": rank, "LOCAL_RANK": rank}).items()},
        )
        for rank in range(count)
    ]
    while any(rank.code is None for rank in ranks):
        if any(rank.code for rank in ranks):
            for rank in ranks:
                rank.send(signal.SIGTERM)
            for rank in ranks:
                rank.wait(30)
        time.sleep(0.01)
    return ranks


def command(*arguments: object) -> str:
    """The program of a command line of unitweave."""
    return f"import sys; from unitweave.cli import main; sys.exit(main({[str(word) for word in arguments]!r}))"


def _run(program: str, printed: str, folder: str, environment: Mapping[str, str], hangup: bool) -> None:
    if hangup:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    target = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.environ.update(environment)
    os.chdir(folder)
    code: object = 0
    try:
        exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 1)  # unloading torch's interpreter rarely aborts though all is done
