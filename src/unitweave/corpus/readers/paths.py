"""Recordings by the names that spreadsheets have for them."""

import re
import unicodedata
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

from unitweave.core.audio import SUFFIXES
from unitweave.core.scripts import without_invisible


def find_recording(root: Path, cell: str) -> Path:
    """The recording that a cell of a table means.

    A name that is no file as it stands may begin with ~, have backslashes for slashes, be a file: address, have
    invisible characters (Windows copies paths with a mark of direction), differ in case or in how its accents are
    composed (as between macOS and elsewhere), or lack its suffix, where only one file can be meant. Of an absolute path
    that does not exist, as one of another machine, the longest end that does exist below `root` is taken.

    Args:
        root: The folder that relative names start from.
        cell: What the table has.

    Returns:
        The file; the name as it stands below `root` where there is none.
    """
    plain = root / cell.strip()
    try:
        if plain.is_file():
            return plain
    except (OSError, ValueError):
        return plain
    name = without_invisible(cell).strip().strip("\"'").strip()
    if address := re.match(r"file:(//(localhost)?(?=/))?", name):
        name = unquote(name[address.end() :])
    name = re.sub(r"^~(?=/)", str(Path.home()), name.replace("\\", "/"))
    if found := _alike(root / name):
        return found
    if not re.match(r"/|[A-Za-z]:/", name):
        return plain
    parts = [part for part in name.split("/") if part][1:]
    ends = ("/".join(parts[i:]) for i in range(len(parts)) if not {".", ".."} & {*parts[i:]})
    return next((found for end in ends if (found := _alike(root / end))), plain)


def _alike(path: Path) -> Path | None:
    """The only file that a name can mean; None where there is none, or several are."""
    if not path.name:
        return None
    path = _folder(path.parent) / path.name
    names, stems = _listing(path.parent)
    for known in (names, stems):
        if len(found := known.get(_key(path.name), [])) == 1:
            return path.parent / found[0]
    return None


@lru_cache(maxsize=64)
def _folder(path: Path) -> Path:
    """The folder itself where it exists, else the one whose name differs in case or accents."""
    if path.is_dir() or path == path.parent:
        return path
    parent = _folder(path.parent)
    found = _listing(parent)[0].get(_key(path.name), [])
    return parent / (found[0] if len(found) == 1 else path.name)


@lru_cache(maxsize=64)
def _listing(folder: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The files of a folder by name, and the recordings among them by name without suffix."""
    names: dict[str, list[str]] = {}
    stems: dict[str, list[str]] = {}
    try:
        for path in folder.iterdir():
            names.setdefault(_key(path.name), []).append(path.name)
            if path.suffix.lower() in SUFFIXES:
                stems.setdefault(_key(path.stem), []).append(path.name)
    except (OSError, ValueError):
        pass
    return names, stems


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
