"""Files that are written whole or not at all, and fingerprints of what they hold."""

import contextlib
import errno
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unitweave.core.errors import InputError

TEMPORARY_PREFIX = ".tmp-"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` when the block ends without an error.

    Works for a file and for a directory (the block makes either). The old content of `path` stays
    until the new one is complete. Raises InputError when the disk is full.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        if temporary.is_dir() and path.exists():
            # Renamed and then removed: a kill in between leaves no folder with half of its files.
            before = _temporary(path)
            path.rename(before)
            temporary.replace(path)
            remove(before)
        else:
            temporary.replace(path)
    except OSError as error:
        raise_if_disk_full(error, path)
        raise
    finally:
        remove(temporary)


def discard(path: Path) -> None:
    """Delete a folder such that a kill on the way leaves it whole, or not there (but a temporary one beside it)."""
    if path.exists():
        aside = _temporary(path)
        path.rename(aside)
        remove(aside)


def _temporary(path: Path) -> Path:
    return Path(tempfile.mktemp(prefix=TEMPORARY_PREFIX, suffix="-" + path.name, dir=path.parent))


def raise_if_disk_full(error: OSError, path: Path) -> None:
    """Turn 'no space left' into an InputError that names the place; leave other errors alone."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise InputError(f"{path}: no space left on the device; free some and run the same command again") from error


def remove(path: Path) -> None:
    """Delete a file or a whole directory; a missing one is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Delete temporary files that a killed process left directly in `folder`; with a `name` only those for it."""
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*{name and '-' + name}"):
        remove(leftover)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON, whole or not at all.

    Lone surrogates, which stand for bytes that were no UTF-8, become \\udXXX, and `read_json` gives them back.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_text(path, text.encode(errors="backslashreplace").decode())


def read_json(path: Path) -> Any:
    """Read a JSON file; raises InputError when it is missing or no JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from None


def digest_of(value: Any) -> str:
    """16 hexadecimal digits that name a JSON-like value; equal values, equal digest."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()[:16]


def digest_of_file(path: Path) -> str:
    """16 hexadecimal digits of a file's content."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
