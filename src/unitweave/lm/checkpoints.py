"""Checkpoints that are whole or not there: a kill or a full disk while one is written leaves the one before."""

import contextlib
import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError
from transformers import TrainingArguments

from unitweave.core.errors import InputError
from unitweave.core.files import remove

_PARTIAL = "partial"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# torch's and safetensors' writers raise their own errors, with no errno.
_FULL_WORDS = (
    "no space left",
    "file too large",
    "quota",
    "file write failed",
    "failed writing file",
    "iostream error",
    "unexpected pos",
)


@contextlib.contextmanager
def whole_checkpoint(arguments: TrainingArguments, step: int, barrier: Callable[[], None]) -> Iterator[Path]:
    """Yield the folder in which the Trainer writes checkpoint-STEP; when all is written, put it in its place.

    The checkpoint before it is then removed. barrier waits for the other processes. Raises InputError
    when the disk is full, and leaves the earlier checkpoint as it is.
    """
    work = Path(arguments.output_dir)
    partial, name = work / _PARTIAL, f"checkpoint-{step}"
    try:
        if arguments.should_save:
            remove(partial)
            partial.mkdir(parents=True)
        barrier()
        yield partial
    except (OSError, RuntimeError, SafetensorError) as error:
        if arguments.should_save:
            shutil.rmtree(partial, ignore_errors=True)
        if not _is_disk_full(error):
            raise
        earlier = max((p.name for p in work.glob("checkpoint-*")), default="no earlier one", key=_step_of)
        raise InputError(
            f"{work}: no space for the checkpoint of step {step} (there is {earlier}); "
            "free some and run the same command again"
        ) from error
    barrier()
    if arguments.should_save:
        earlier_ones = [path for path in work.glob("checkpoint-*") if path.name != name]
        remove(work / name)
        (partial / name).replace(work / name)
        for path in (*earlier_ones, partial):
            remove(path)
    barrier()


def _step_of(name: str) -> int:
    last = name.rsplit("-", 1)[-1]
    return int(last) if last.isdigit() else -1


def _is_disk_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    chain = f"{error} {error.__cause__} {error.__context__}".lower()
    return any(word in chain for word in _FULL_WORDS)
