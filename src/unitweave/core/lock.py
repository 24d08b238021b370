"""One owner for each stage folder: a lock file beside it, kept fresh while its holder lives.

On one machine the kernel releases the lock of a process that ended, however it ended. A holder on another machine,
whose kernel may share no locks with this one, is recognized by the file's age: it is touched every half minute.
"""

import contextlib
import fcntl
import json
import os
import platform
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from unitweave.core.errors import InputError
from unitweave.core.files import TEMPORARY_PREFIX, make_folder, raise_if_disk_full, remove, remove_leftovers

TOUCHED_EVERY = 30.0  # seconds
STALE_AFTER = 240.0  # seconds without a touch after which a holder on another machine counts as dead
_held: set[Path] = set()  # by this process: opening and closing such a file once more would release it


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, which need not exist, while the block runs. Child processes do not inherit it.

    Folders above it that it makes are removed in the end if nothing has been put there.

    Raises:
        InputError: Another process holds it; says which, where, and since when.
    """
    path = lock_path(folder)
    if path in _held:
        raise InputError(f"{folder}: in use by this process")
    made = [parent for parent in path.parents if not parent.exists()]  # the innermost first
    make_folder(path.parent)
    descriptor = _acquired(path, folder)
    _held.add(path)
    ended = threading.Event()
    thread = threading.Thread(target=_keep_fresh, args=(descriptor, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)
        _held.remove(path)
        with contextlib.suppress(OSError):
            for parent in made:
                parent.rmdir()


@contextlib.contextmanager
def work_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside `target`, to make it in while its lock is held; removed at the end.

    What a killed process left of such a folder is removed by the next one.

    Raises:
        InputError: Another process is making `target`, or the disk is full.
    """
    with locked(target):
        remove_leftovers(target.parent, target.name)
        folder = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, suffix=f"-{target.name}", dir=target.parent))
        try:
            yield folder
        except Exception as error:
            raise_if_disk_full(error, target)
            raise
        finally:
            remove(folder)


def lock_path(folder: Path) -> Path:
    """The lock file of a folder, beside it; by whatever name the folder is reached, it is the same."""
    folder = folder.resolve()
    return folder.with_name(f".{folder.name}.lock")


def lock_holder(folder: Path) -> str | None:
    """Which other process holds the lock of `folder`, in words; None where none does."""
    path = lock_path(folder)
    if path in _held:
        return None
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        return _holder(descriptor, path)
    finally:
        os.close(descriptor)


def in_use(run: Path) -> str | None:
    """A stage of a run that another process is doing, and who does it; None where there is none."""
    locks = sorted([*run.glob(".*.lock"), *run.glob("*/.*.lock")])
    linked = [folder for kind in ("*", "*/*") for folder in run.glob(kind) if folder.is_symlink()]
    for folder in [*(path.with_name(path.name[1:].removesuffix(".lock")) for path in locks), *linked]:
        if holder := lock_holder(folder):
            return f"{folder} is in use by {holder}"
    return None


def _acquired(path: Path, folder: Path) -> int:
    """An open descriptor of the lock file, which this process now owns."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # a link that leads nowhere
            raise InputError(f"{path}: the lock file could not be created; delete the link there") from None
        try:
            holder = _holder(descriptor, path)
            if holder is not None:
                raise InputError(f"{folder}: in use by {holder}; wait until it has finished, or stop it")
            # The file may have been removed by its last holder since it was opened.
            if os.fstat(descriptor).st_ino == _inode(path):
                since = datetime.now().astimezone().isoformat(" ", "seconds")
                record = {"host": platform.node(), "pid": os.getpid(), "since": since}
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(record).encode(), 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _holder(descriptor: int, path: Path) -> str | None:
    """Who holds an open lock file, after an attempt to lock it; None where this process has it now."""
    try:
        record = json.loads(os.pread(descriptor, 4096, 0))
        host, words = record["host"], f"process {record['pid']} on {record['host']} since {record['since']}"
    except (ValueError, TypeError, KeyError, RecursionError):
        host, words = "", "another process"
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return words
    except OSError:
        # The file system has no locks: what the file says has to do.
        return (
            words if host and (_alive(record["pid"]) if host == platform.node() else _fresh(descriptor, path)) else None
        )
    if host in ("", platform.node()) or not _fresh(descriptor, path):
        return None
    return f"{words} (if that process is gone, delete {path})"


def _fresh(descriptor: int, path: Path) -> bool:
    """Whether a lock file was touched lately by the clock of the disk that it is on, not by this machine's."""
    probe = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    try:
        probe.touch()
        now = probe.stat().st_mtime
    except OSError:
        now = time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return now - os.fstat(descriptor).st_mtime < STALE_AFTER


def _alive(pid: int) -> bool:
    return pid != os.getpid() and Path(f"/proc/{pid}").exists()


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _keep_fresh(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(TOUCHED_EVERY):
        with contextlib.suppress(OSError):
            os.utime(descriptor)
