"""One stage of a rehearsal in a process of its own, which writes down what it took.

python -m unitweave.rehearsal.child RUN RECORD.json full|kill STAGE [SYSTEM]
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unitweave.core.errors import InputError
from unitweave.core.files import write_json

GIB = 2**30
_EVERY = 0.02  # seconds between two looks at the memory


class PeakMemory(threading.Thread):
    """The most memory that this process took since the start; of the GPU where there is one.

    Counted is what no file backs, and weights that are used from their file to the end. Other mapped files, among them
    weights that are read to be converted, do not count: the system can drop them.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.first = self.peak = anonymous_memory()

    def run(self) -> None:
        """Look again and again, until the process ends."""
        while True:
            self.peak = max(self.peak, anonymous_memory())
            time.sleep(_EVERY)

    def gib(self) -> float:
        """The peak so far in GiB."""
        import torch

        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / GIB
        return (max(self.peak, anonymous_memory()) - self.first + mapped_weights()) / GIB


def mapped_weights() -> int:
    """Bytes in memory of the safetensors that are mapped now: frozen weights stay where they are."""
    found, of_weights = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        if "-" in line.partition(" ")[0]:  # addresses, permissions, offset, device, inode and path
            of_weights = line.endswith(".safetensors")
        elif of_weights and line.startswith(("Shared_Clean:", "Private_Clean:")):  # what was changed is anonymous
            found += 1024 * int(line.split()[1])
    return found


def anonymous_memory() -> int:
    """Bytes of this process that no file backs."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:"))


def kill_after_checkpoint(write_record: Callable[[], None]) -> None:
    """End this process by SIGKILL when its first checkpoint is written, as a preempted machine would."""
    from unitweave.training.checkpoints import CheckpointedTrainer
    from unitweave.vocoder import train

    def killed(save: Any) -> Any:
        def saved(*arguments: Any) -> None:
            save(*arguments)
            write_record()
            os.kill(os.getpid(), signal.SIGKILL)

        return saved

    CheckpointedTrainer._save_checkpoint = killed(CheckpointedTrainer._save_checkpoint)  # type: ignore[method-assign]
    train._Trainer._save_checkpoint = killed(train._Trainer._save_checkpoint)  # type: ignore[method-assign]


def do(run: Path, record: Path, kill: bool, stage: str, system: Sequence[str]) -> int:
    """Do a stage, and write `record`; returns the exit code."""
    from unitweave.pipeline import open_run
    from unitweave.serve.export import export_run

    peak, start = PeakMemory(), time.monotonic()
    peak.start()

    def write_record() -> None:
        write_json(record, {"seconds": round(time.monotonic() - start, 1), "gib": round(peak.gib(), 3)})

    if kill:
        kill_after_checkpoint(write_record)
    try:
        if stage == "export":
            export_run(run, system[0], run.parent / "export")
        else:
            getattr(open_run(run), stage)(*system)
    except InputError as error:
        print(f"unitweave: {error}", file=sys.stderr)
        return 2
    write_record()
    return 0


if __name__ == "__main__":
    sys.exit(do(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "kill", sys.argv[4], sys.argv[5:]))
