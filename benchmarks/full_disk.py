"""A run on a disk that is always too small: every stage meets its end, and the result is that of a disk with room.

    python benchmarks/full_disk.py [--folder FOLDER]

As root on Linux. The run of soak.py is begun on a file system of 600 KiB in memory; whenever it ends for lack of space,
with one line and exit code 2, the file system grows by a sixth or so and the same command goes on. Then its files are
compared with those of a run that had room. The folder's name has a space, brackets and an accent.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import torch

from soak import content, kill_at, prepare, start
from unitweave.cli import main as unitweave


def attempt(run: Path, recipe: Path, log: Path) -> int:
    """Run all stages in a fork; returns the exit code."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 70
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        code = unitweave(["run", str(recipe), "--out", str(run)])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = (options.folder or Path(tempfile.mkdtemp())).absolute()
    recipe, whole, disk, log = prepare(folder), folder / "whole-1", folder / "disk", folder / "full_disk.log"
    if not (whole / "score/scores.json").exists():
        kill_at(start(whole, recipe, 1, folder / "log"), float("inf"))
    disk.mkdir(exist_ok=True)
    size, run = 600, disk / "a run [1] ü/run"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk], check=True)
    try:
        number = 0
        while True:
            before = log.stat().st_size if log.exists() else 0
            code = attempt(run, recipe, log)
            said = log.read_bytes()[before:].decode(errors="replace")
            if code == 0:
                break
            lines = [line for line in said.splitlines() if line.startswith("unitweave: ")]
            leftovers = list(run.rglob(".tmp-*"))
            print(f"{size} KiB: exit code {code}: {' / '.join(lines)}", flush=True)
            if code != 2 or len(lines) != 1 or "no space" not in lines[0] or "Traceback" in said or leftovers:
                sys.exit(f"not as it should be: see {log} ({len(leftovers)} temporary files left)")
            number, size = number + 1, int(1.15 * size) + 60
            subprocess.run(["mount", "-o", f"remount,size={size}k", disk], check=True)
        expected, found = content(whole), content(run)
        unlike = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        print(f"{number} times full; {'other files: ' + ', '.join(unlike) if unlike else 'ended in the same bytes'}")
        sys.exit(1 if unlike else 0)
    finally:
        subprocess.run(["umount", disk], check=True)


if __name__ == "__main__":
    main()
