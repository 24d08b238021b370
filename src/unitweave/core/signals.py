"""Ctrl-C, SIGTERM (preemption), SIGHUP (a closed terminal), SIGUSR1 (Slurm's warning): what a command did is kept.

Outside of a training they end the command at once: what a stage finished is on the disk already. A training notes the
signal, finishes its step, writes a checkpoint and ends then. The exit code is 128 and the signal's number.

While a module is being imported they wait until it is: numpy, torch and transformers swallow what is raised there, or
are left half imported, and the command would go on, or end in an error of theirs. Where a library makes an error of
what is raised, as torch does below a conversion, the command still ends as for the signal.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from unitweave.core.distributed import HANDLED, num_processes, process_index
from unitweave.core.errors import InputError
from unitweave.core.progress import echo

_IMPORT_WAIT = 20.0  # seconds that a signal waits for an import at most: a module of the user may do anything
_RETRY = 0.02  # seconds


class Stopped(BaseException):
    """A signal asked the command to end. Like an interrupt from the keyboard, nothing below may catch it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _State:
    deferring = False
    noted = 0  # the signal that arrived while signals are deferred
    later = 0  # one that arrived when a training was done: it ends the command after the stage
    process = 0
    imports = 0  # frames of imports that the command itself runs in
    waiting = 0  # the signal that waits for the end of an import
    since = 0.0  # when it began to wait
    raised = 0  # the last signal for which something was raised


@contextlib.contextmanager
def signals_handled() -> Iterator[None]:
    """Raise `Stopped` in the block, KeyboardInterrupt for Ctrl-C, or note the signal where a training defers it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _State.process, _State.imports = os.getpid(), _import_frames(sys._getframe())
    _State.waiting = _State.raised = 0
    # A closed terminal ends a command like SIGTERM, but not under nohup.
    hangup = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL else []
    before = {number: signal.signal(number, _arrived) for number in (*HANDLED, *hangup)}
    before[signal.SIGALRM] = signal.getsignal(signal.SIGALRM)
    try:
        yield
    except Exception as error:
        if _State.raised and not isinstance(error, InputError | OSError):
            raise _ending(_State.raised) from error
        raise
    finally:
        if _State.waiting:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        if _State.waiting:  # the command was over before it could come again
            raise _ending(_State.waiting)


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], int]]:
    """Only note signals while the block runs.

    Yields:
        A function that says which signal has arrived at any of the processes, 0 for none. All processes have to call
        it at the same step, after which all of them get the same answer.
    """
    _State.deferring, _State.noted = True, 0
    try:
        yield _noted
    finally:
        _State.deferring = False


def stop_after_training(number: int, complete: bool) -> None:
    """End the command for a signal that a training has noted; after the stage where the training is complete."""
    if number and not complete:
        raise _ending(number)
    _State.later = number


def stop_after_stage() -> None:
    """End the command for a signal that arrived when the stage's training was done."""
    number, _State.later = _State.later, 0
    stop_after_training(number, complete=False)


def ignore_signals(_: int = 0) -> None:
    """For processes that read ahead for a training: they go on until it ends them."""
    for number in (*HANDLED, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _arrived(number: int, frame: FrameType | None) -> None:
    if os.getpid() != _State.process:  # a copy of this process, such as one that reads ahead
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    elif _State.deferring and not _State.noted:
        _State.noted = number
        if process_index() == 0:
            echo(f"{signal.Signals(number).name}: finishing the step and writing a checkpoint")
    # A launcher passes on what its processes got from the terminal already: a second one says nothing there.
    elif (not _State.deferring or num_processes() == 1) and not _waits_for_import(number, frame):
        _State.raised = number
        raise _ending(number)


def _ending(number: int) -> BaseException:
    """What ends the command for a signal."""
    return KeyboardInterrupt() if number == signal.SIGINT else Stopped(number)


def _waits_for_import(number: int, frame: FrameType | None) -> bool:
    """Whether a module is being imported; the signal then comes again in a moment."""
    now = time.monotonic()
    if not _State.waiting:
        _State.since = now
    if _import_frames(frame) <= _State.imports or now - _State.since > _IMPORT_WAIT:
        _State.waiting = 0
        return False
    _State.waiting = number
    signal.signal(signal.SIGALRM, lambda _, frame: _arrived(_State.waiting, frame))
    signal.setitimer(signal.ITIMER_REAL, _RETRY)
    return True


def _import_frames(frame: FrameType | None) -> int:
    """How many frames of Python's import system there are on the stack."""
    number = 0
    while frame is not None:
        number += frame.f_code.co_filename == "<frozen importlib._bootstrap>"
        frame = frame.f_back
    return number


def _noted() -> int:
    if num_processes() == 1:
        return _State.noted
    import torch
    import torch.distributed
    from accelerate import PartialState

    noted = torch.tensor(_State.noted, device=PartialState().device)
    torch.distributed.all_reduce(noted, torch.distributed.ReduceOp.MAX)
    return int(noted)
