"""Shell commands of the user, which end in time with everything that they started."""

import contextlib
import os
import signal
import subprocess
import threading
import time

_LOOK_SECONDS = 0.5  # how often it is seen whether a command is to stop


def run_shell(
    command: str, text: str, seconds: float, stop: threading.Event | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a command by the shell, in a process group of its own that does not outlive this call.

    A program that the shell started may hold the pipes open long after the shell was killed, so all of them are ended.

    Args:
        command: For `sh -c`.
        text: Its standard input.
        seconds: How long it may take.
        stop: Ends it early when set, as where the user interrupts.

    Returns:
        Exit code and what it wrote.

    Raises:
        subprocess.TimeoutExpired: It took longer, or was stopped.
    """
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, shell=True, start_new_session=True, stdin=pipe, stdout=pipe, stderr=pipe)
    until = time.monotonic() + seconds
    data: bytes | None = text.encode()
    try:
        while True:
            try:
                out, err = process.communicate(data, timeout=min(_LOOK_SECONDS, max(0.0, until - time.monotonic())))
                return subprocess.CompletedProcess(command, process.returncode, out, err)
            except subprocess.TimeoutExpired:
                data = None  # it is kept from the first call
                if time.monotonic() >= until or (stop is not None and stop.is_set()):
                    raise subprocess.TimeoutExpired(command, seconds) from None
    finally:
        _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing is left of it
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            pipe.close()
