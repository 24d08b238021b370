"""Files that are written whole or not at all, and fingerprints of what they hold."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from unitweave.core.errors import InputError, in_one_line

TEMPORARY_PREFIX = ".tmp-"
_RANDOM = 8  # characters of a temporary name that tempfile chooses
_MAX_VALUES = 100_000  # of a YAML file, those that its aliases repeat included
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# torch's and safetensors' writers raise errors of their own, without an errno.
_DISK_FULL_WORDS = (
    "no space left",
    "file too large",
    "quota",
    "file write failed",
    "failed writing file",
    "iostream error",
    "unexpected pos",
)


@contextlib.contextmanager
def atomic_path(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary name next to `path`; rename it to `path` when the block ends without an error.

    Works for a file and for a directory (the block makes either). The old content of `path` stays
    until the new one is complete.

    Args:
        path: The file or directory to write.
        durable: Whether the content is on the disk before it gets its name, so that a power failure leaves the old or
            the new one. Off for thousands of small files that `flush` follows.

    Raises:
        InputError: The disk is full, whichever library (Python, pyarrow, torch, safetensors) noticed it.
    """
    path = Path(path).absolute()
    make_folder(path.parent)
    temporary = _temporary(path)
    try:
        yield temporary
        make_readable(temporary)
        if durable:
            flush(temporary)
        if temporary.is_dir() and path.exists():
            # Renamed and then removed: a kill in between leaves no folder with half of its files.
            before = _temporary(path)
            path.rename(before)
            temporary.replace(path)
            remove(before)
        else:
            temporary.replace(path)
        if durable:
            _sync(path.parent)
    except Exception as error:
        raise_if_disk_full(error, path)
        raise
    finally:
        remove(temporary)


def make_readable(path: Path) -> None:
    """Let others read a file, or the files in a directory, as far as the umask does.

    safetensors writes files that only their owner can read, and a run may be a group's.
    """
    for file in path.rglob("*") if path.is_dir() else (path,):
        if file.is_file() and not file.is_symlink() and file.stat().st_mode & 0o777 == 0o600:
            file.chmod(0o666 & ~_UMASK)


def _read_umask() -> int:
    mask = os.umask(0o077)  # the only way to read it is to set it
    os.umask(mask)
    return mask


_UMASK = _read_umask()  # once, at the import: it is the whole process's, and other threads write files


def make_folder(folder: Path) -> None:
    """Make a folder and those above it. Raises InputError where there can be none, as in /proc."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:
        raise InputError(f"{folder}: the folder could not be created") from None


def flush(path: Path) -> None:
    """Wait until a file, or a directory with all that is in it, is on the disk."""
    if not path.is_dir():
        _sync(path)
        return
    for folder, _, names in os.walk(path):
        for name in names:
            _sync(Path(folder, name))
        _sync(Path(folder))


def _sync(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:  # a link, or gone
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):  # file systems without it
            raise
    finally:
        os.close(descriptor)


def discard(path: Path) -> None:
    """Delete a folder such that a kill on the way leaves it whole, or not there (but a temporary one beside it)."""
    if path.exists():
        aside = _temporary(path)
        path.rename(aside)
        remove(aside)


def _temporary(path: Path) -> Path:
    return Path(tempfile.mktemp(prefix=TEMPORARY_PREFIX, suffix="-" + path.name, dir=path.parent))


def is_disk_full(error: Exception) -> bool:
    """Whether a writer failed for lack of space: by errno, or by its words where it has none."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _DISK_FULL
    if not isinstance(error, OSError | RuntimeError) and type(error).__name__ != "SafetensorError":
        return False
    chain = f"{error} {error.__cause__} {error.__context__}".lower()
    return any(words in chain for words in _DISK_FULL_WORDS)


def is_read_only(error: OSError) -> bool:
    """Whether a place cannot be written to: what is finished there may be passed."""
    return isinstance(error, PermissionError) or error.errno == errno.EROFS


def final_name(path: Path) -> Path:
    """What a temporary file, or one in a temporary folder, would have become."""
    prefix, random = TEMPORARY_PREFIX, len(TEMPORARY_PREFIX) + _RANDOM + 1
    return Path(*((part[random:] or part) if part.startswith(prefix) else part for part in path.parts))


def raise_if_disk_full(error: Exception, path: Path) -> None:
    """Turn 'no space left' into an InputError that names the place; leave other errors alone."""
    if is_disk_full(error):
        raise InputError(
            f"{final_name(path)}: no space left on the device; free some space and run the same command again"
        ) from error


def remove(path: Path) -> None:
    """Delete a file or a whole directory; a missing one is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Delete temporary files that a killed process left directly in `folder`; with a `name` only those for it."""
    # Exactly as long as tempfile's random part: those for "a-b" are not those for "b".
    pattern = f"{'?' * _RANDOM}-{glob.escape(name)}" if name else "*"
    for leftover in folder.glob(TEMPORARY_PREFIX + pattern):
        remove(leftover)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all; lone surrogates, which stand for bytes that were no UTF-8, as \\udXXX."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_lines(path: Path, parts: Iterable[str]) -> None:
    """Write UTF-8 text part by part, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(parts)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON, whole or not at all.

    Lone surrogates, which stand for bytes that were no UTF-8, become \\udXXX, and `read_json` gives them back.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: The file is missing or not valid JSON.
    """
    with _reading(path, "JSON"):
        return json.loads(Path(path).read_text(encoding="utf-8"), parse_int=json_integer)


def json_integer(digits: str) -> int:
    """An integer of JSON, for `json.loads`. Raises ValueError where it is too large for a float, as no real one is."""
    if len(digits) > sys.float_info.max_10_exp:  # tokenizers have 10**30
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        InputError: The file is missing, not valid JSON, or holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: damaged: expected a JSON object (got {type(content).__name__})")
    return content


def read_yaml(path: Path) -> Any:
    """Read a YAML file (its safe subset).

    Raises:
        InputError: The file is missing or not valid YAML, a mapping in it has a key twice, or its aliases make too much
            of it.
    """
    import yaml

    with _reading(path, "YAML"):
        try:
            content = yaml.load(Path(path).read_text(encoding="utf-8"), _unique_keys())  # a SafeLoader
        except yaml.YAMLError as error:
            raise ValueError(in_one_line(error)) from None
        waiting, count = [content], 0
        while waiting:
            value = waiting.pop()
            waiting += (
                [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
            )
            if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
                raise ValueError(f"{value!r} has half of a surrogate pair, which is no character")
            count += 1
            if count > _MAX_VALUES:  # an alias within what it stands for, or aliases of aliases
                raise ValueError(f"more than {_MAX_VALUES} values, or an alias that holds itself")
        return content


@cache
def _unique_keys() -> type:
    """PyYAML's safe loader, which silently takes the last of several equal keys, made to refuse them."""
    import yaml

    class UniqueKeys(yaml.SafeLoader):
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            seen = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if (key.tag, key.value) in seen:
                        raise yaml.composer.ComposerError(
                            None, None, f"the key {key.value!r} is given twice", key.start_mark
                        )
                    seen.add((key.tag, key.value))
            return node

    return UniqueKeys


@contextlib.contextmanager
def _reading(path: Path, format_name: str) -> Iterator[None]:
    """One line for every way in which a text file cannot be parsed.

    ValueError is also a date such as 2026-13-45 in YAML, a number of 5,000 digits, or bytes that are not UTF-8.
    """
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except RecursionError:
        raise InputError(f"{path}: not readable as {format_name} (nested too deeply)") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as {format_name} ({in_one_line(error)})") from None


def json_digest(value: Any) -> str:
    """16 hexadecimal digits that name a JSON-like value; equal values, equal digest."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()[:16]


def digest_of_items(items: Iterable[Any]) -> str:
    """What `json_digest` gives for the list of them, of which never more than one is in memory."""
    digest = hashlib.sha256(b"[")
    for number, item in enumerate(items):
        canonical = json.dumps(item, sort_keys=True, ensure_ascii=False, default=str)
        digest.update(((", " if number else "") + canonical).encode(errors="surrogatepass"))
    digest.update(b"]")
    return digest.hexdigest()[:16]


def file_digest(path: Path) -> str:
    """16 hexadecimal digits of a file's content."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def content_digests(*paths: str | None) -> dict[str, str] | None:
    """Digests of those of the paths that are here: settings name them, but what is in them counts."""
    digests = {}
    for path in paths:
        if path is not None and Path(path).is_file():
            digests[path] = file_digest(Path(path))
        elif path is not None and (digest := weights_digest(path)):
            digests[path] = digest
    return digests or None


def folder_digest(folder: Path) -> str:
    """16 hexadecimal digits of the names and contents of all files in a folder."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return digest_of_items([path.relative_to(folder).as_posix(), file_digest(path)] for path in files)


@cache
def weights_digest(pretrained: str) -> str:
    """Digest of the weights and the tokenizer in a model's folder; "" where it is none (but a name on the hub)."""
    folder = Path(pretrained)
    kinds = ("*.safetensors", "pytorch_model*.bin", "tokenizer.json", "tokenizer.model", "config.json")
    files = sorted(path for kind in kinds for path in folder.glob(kind))
    return json_digest([file_digest(path) for path in files]) if folder.is_dir() else ""
