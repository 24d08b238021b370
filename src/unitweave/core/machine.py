"""What the machine has to offer, and where a result comes from: the commit of the code, the command, the machine."""

import os
import platform
import shlex
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import unitweave


def usable_cores() -> int:
    """Cores that this process may run on, which in a container or under a batch system are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def commit() -> str:
    """The commit of the running code, with "+" for uncommitted changes; the version where it is unknown."""
    source = Path(unitweave.__file__).parent
    git = ["git", "--no-optional-locks", "-C", str(source)]
    try:
        revision = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", str(source)], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return f"version {unitweave.__version__}"
    return revision.stdout.strip() + ("+" if changed.stdout.strip() else "")


@cache
def machine() -> str:
    """Processor (with the instructions that torch uses) or GPU, cores and memory, in a few words."""
    import torch  # not needed for the commands that compute nothing

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{usable_cores()} cores of {_processor()} ({capability}), {memory:.0f} GiB"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return " ".join((names[0] if names else platform.processor() or platform.machine()).split())


def provenance() -> dict[str, str]:
    """Commit, command, machine and the time, as a stage notes them when it is done."""
    words = [Path(sys.argv[0]).name if sys.argv[0] != "-c" else "unitweave", *sys.argv[1:]]
    finished = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return {"commit": commit(), "command": shlex.join(words), "machine": machine(), "finished": finished}
