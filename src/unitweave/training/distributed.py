"""Training started on several processes (torchrun, accelerate launch): the first one leads, the others follow.

Only the first process keeps the run folder: it decides what is to be done, writes stage.json and the
models. The others wait to be told which training to take part in.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

import torch.distributed as dist
from accelerate import PartialState

from unitweave.core.progress import console

_leading = False


def together(work: Callable[[], object], tasks: dict[str, Callable[..., Any]]) -> None:
    """Do `work` in the first process; the others do the `tasks` that it announces by name until it is done, and end.

    Where the first one fails, it says why and ends; what started the processes then ends the others.
    """
    global _leading
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        work()
        return
    state = PartialState(cpu=not _cuda())
    if state.is_main_process:
        _leading = True
        try:
            work()
            # Not after a failure: the others may be in the middle of a task and wait for something else.
            announce(None)
            state.destroy_process_group()
        finally:
            _leading = False
        return
    console.quiet = True
    while (message := _awaited()) is not None:
        name, arguments = message
        tasks[name](*arguments)
    state.destroy_process_group()
    # A thread of torch's may still run while the interpreter unloads, which then aborts, though all is done
    # ("terminate called without an active exception", once in some dozens of runs). Nothing is left to write here.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def announce(name: str | None, *arguments: Any) -> None:
    """Tell the following processes to do a task with these arguments; nothing happens where nobody follows."""
    if _leading:
        _exchange(None if name is None else (name, arguments))


def is_main() -> bool:
    """Whether this process writes the results."""
    return int(os.environ.get("RANK", "0")) == 0


def wait() -> None:
    """Wait for the other processes."""
    if dist.is_initialized():
        dist.barrier()


def _awaited() -> Any:
    """What the first process says next; without it there is nothing left to do here."""
    try:
        return _exchange(None)
    except RuntimeError:  # of torch.distributed, since the other side is gone
        os._exit(1)


def _exchange(message: Any) -> Any:
    box = [message]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()
