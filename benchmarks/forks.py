"""A command in a fork of this process: torch and the rest are imported once, for hundreds of commands."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path


def forked(log: Path, run: Callable[[], int]) -> int:
    """Start `run` in a fork, with its output in `log` and nothing to read.

    Returns:
        The process. Its exit code is what `run` returns; 70 after an exception, whose traceback is in the log.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        for target, number in ((os.devnull, 0), (log, 1), (log, 2)):
            os.dup2(os.open(target, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
        code = run()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
