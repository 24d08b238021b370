"""Where a result comes from: the commit of the code, the command and the machine."""

import os
import platform
import re
import subprocess
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch

import unitweave
from unitweave.core.errors import InputError
from unitweave.core.files import read_json, write_json
from unitweave.core.machine import usable_cores

FILE_NAME = "provenance.json"


@cache
def commit() -> str:
    """The commit of the running code, with "+" for uncommitted changes; the version where it is unknown."""
    source = Path(unitweave.__file__).parent
    git = ["git", "--no-optional-locks", "-C", str(source)]
    try:
        found = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", str(source)], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return f"version {unitweave.__version__}"
    return found.stdout.strip() + ("+" if changed.stdout.strip() else "")


@cache
def machine() -> str:
    """Processor (with the instructions that torch uses) or GPU, cores and memory, in a few words."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{usable_cores()} cores of {_processor()} ({capability}), {memory:.0f} GiB"


def kinds_of_machine(machines: Iterable[str]) -> list[str]:
    """The different kinds among machines as `machine` describes them: the processor, whatever its cores and memory.

    Earlier descriptions have no instruction set; they count as a kind only where no fuller one has the same beginning.
    """
    kinds = {re.sub(r"^\d+ (cores? of|x) |, \d+ GiB$", "", machine) for machine in machines}
    return sorted(kind for kind in kinds if not any(o != kind and o.startswith(kind) for o in kinds))


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return " ".join((names[0] if names else platform.processor() or platform.machine()).split())


def note(folder: Path, command: str) -> None:
    """Add this session to folder/provenance.json: a training that continues after an interruption has several."""
    sessions = read_sessions(folder)
    session = {"commit": commit(), "command": command, "machine": machine(), "threads": torch.get_num_threads()}
    if not sessions or {key: sessions[-1].get(key) for key in session} != session:
        began = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        write_json(folder / FILE_NAME, [*sessions, session | {"began": began}])


def read_sessions(folder: Path) -> list[dict[str, Any]]:
    """The sessions that wrote what is in `folder`, oldest first."""
    path = Path(folder) / FILE_NAME
    if not path.exists():
        return []
    sessions = read_json(path)
    if not isinstance(sessions, list):
        raise InputError(f"{path}: damaged (expected a list of sessions)")
    return sessions
