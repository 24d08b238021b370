"""Work on several processes, as torchrun or accelerate launch start them: all run the same program.

Every process goes through the same stages; what is decided or written once is done by the main process, whose result
the others wait for. Without a launcher there is one process, and nothing here imports torch.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from unitweave.core.errors import InputError
from unitweave.core.progress import console

T = TypeVar("T")

# How long a process may wait for the main one, which does whole stages alone: a corpus, a codebook. The launcher
# ends the others when one process fails, so that nobody waits for a dead one.
_TIMEOUT = timedelta(days=7)
_HEAD_START = 10.0  # seconds in which the main process says what all of them would
_SAY_WHY_SECONDS = 1.0  # for the main process to print its error, before the launcher ends it
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # what ends a command, see signals.py


def num_processes() -> int:
    """How many processes the launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_index() -> int:
    """The rank of this process; 0 is the main one, which writes the results."""
    return int(os.environ.get("RANK", "0"))


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """Join the other processes while the block runs; only the main one prints progress.

    After an error a process ends without waiting for the others, which the launcher then ends too.

    Raises:
        InputError: More processes than the machine has GPUs.
    """
    if num_processes() == 1:
        yield
        return
    import torch
    from accelerate import PartialState

    processes, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if 0 < gpus < processes:
        raise InputError(
            f"{processes} processes were started on a machine with {gpus} GPU{'s' * (gpus > 1)}: start one for each "
            f"(--nproc-per-node {gpus}), or hide the GPUs with CUDA_VISIBLE_DEVICES= to compute on the CPU"
        )
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=_TIMEOUT)
    console.quiet = not state.is_main_process
    yield
    state.wait_for_everyone()
    state.destroy_process_group()


def barrier() -> None:
    """Wait until every process has come here."""
    if num_processes() > 1:
        from accelerate import PartialState

        with _ended_by_signals():
            PartialState().wait_for_everyone()


def process_share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of what all of them do together: every item is in one of the parts."""
    return items[process_index() :: num_processes()]


def on_main(function: Callable[[], T]) -> T:
    """Call a function on the main process alone.

    Returns:
        Its result, on every process.

    Raises:
        Exception: The function's own, on the main process; the others end with exit code 2 and without a message.
    """
    if num_processes() == 1:
        return function()
    from accelerate.utils import broadcast_object_list

    shared: list[Any] = [False, None]
    if process_index() == 0:
        try:
            shared = [True, function()]
        except Exception:
            broadcast_object_list(shared)
            raise
    with _ended_by_signals():
        broadcast_object_list(shared)
    succeeded, result = shared
    if not succeeded:
        time.sleep(_SAY_WHY_SECONDS)
        raise SystemExit(2)
    return result


def wait_for_the_main_message() -> None:
    """Before an error is printed by another process: the main one has met it too, and the launcher then ends all."""
    if process_index() > 0:
        with _ended_by_signals():
            time.sleep(_HEAD_START)


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """While a process waits for another one inside a library, where no handler would run, a signal ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_DFL) for number in HANDLED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
