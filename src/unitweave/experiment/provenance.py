"""Where a result comes from: the commit of the code, the command and the machine."""

import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from unitweave.core.errors import InputError
from unitweave.core.files import read_json, write_json
from unitweave.core.machine import commit, machine

FILE_NAME = "provenance.json"


def kinds_of_machine(machines: Iterable[str]) -> list[str]:
    """The different kinds among machines as `machine` describes them: the processor, whatever its cores and memory.

    Earlier descriptions have no instruction set; they count as a kind only where no fuller one has the same beginning.
    """
    kinds = {re.sub(r"^\d+ (cores? of|x) |, \d+ GiB$", "", machine) for machine in machines}
    return sorted(kind for kind in kinds if not any(o != kind and o.startswith(kind) for o in kinds))


def note(folder: Path, command: str) -> None:
    """Add this session to folder/provenance.json: a training that continues after an interruption has several."""
    sessions = read_sessions(folder)
    session = {"commit": commit(), "command": command, "machine": machine(), "threads": torch.get_num_threads()}
    if not sessions or {key: sessions[-1].get(key) for key in session} != session:
        began = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        write_json(folder / FILE_NAME, [*sessions, session | {"began": began}])


def _is_session(session: Any) -> bool:
    return (
        isinstance(session, dict)
        and isinstance(session.get("threads", 0), int)
        and all(isinstance(value, str) for key, value in session.items() if key in ("commit", "command", "machine"))
    )


def read_sessions(folder: Path) -> list[dict[str, Any]]:
    """The sessions that wrote what is in `folder`, oldest first."""
    path = Path(folder) / FILE_NAME
    if not path.exists():
        return []
    sessions = read_json(path)
    if not isinstance(sessions, list) or not all(map(_is_session, sessions)):
        raise InputError(f"{path}: damaged (expected a list of sessions); copy it again from where it was written")
    return sessions
