"""Recordings to choose from on the page."""

from pathlib import Path

from unitweave.core.audio import SUFFIXES
from unitweave.core.errors import InputError

_MAX_EXAMPLES = 6


def find_examples(folder: Path) -> list[Path]:
    """The first recordings of a folder. Raises InputError if there are none."""
    recordings = sorted(p for p in folder.glob("*") if p.suffix.lower() in SUFFIXES)
    if not recordings:
        raise InputError(f"{folder}: no recordings in this folder")
    return recordings[:_MAX_EXAMPLES]
