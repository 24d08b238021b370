"""Ctrl-C, SIGTERM (preemption), SIGHUP (a closed terminal), SIGUSR1 (Slurm's warning): what a command did is kept.

Outside of a training they end the command at once: what a stage finished is on the disk already. A training notes the
signal, finishes its step, writes a checkpoint and ends then. The exit code is 128 and the signal's number.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from unitweave.core.distributed import HANDLED, num_processes, process_index
from unitweave.core.progress import echo


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


@contextlib.contextmanager
def signals_handled() -> Iterator[None]:
    """Raise `Stopped` in the block, KeyboardInterrupt for Ctrl-C, or note the signal where a training defers it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _State.process = os.getpid()
    # A closed terminal ends a command like SIGTERM, but not under nohup.
    hangup = [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL else []
    before = {number: signal.signal(number, _arrived) for number in (*HANDLED, *hangup)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
        raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)
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
    elif not _State.deferring or num_processes() == 1:
        raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)


def _noted() -> int:
    if num_processes() == 1:
        return _State.noted
    import torch
    import torch.distributed
    from accelerate import PartialState

    noted = torch.tensor(_State.noted, device=PartialState().device)
    torch.distributed.all_reduce(noted, torch.distributed.ReduceOp.MAX)
    return int(noted)
