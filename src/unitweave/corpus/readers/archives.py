"""The files in an archive or a folder, one after the other, without unpacking: nothing is written under their names.

An archive is read once, front to back, so a 40 GB one needs neither the disk nor the memory for its
content. Archives come from the net, so one that holds links, devices, paths that lead outside, or
sizes that no corpus has is refused as a whole.
"""

import bz2
import contextlib
import gzip
import hashlib
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self

from unitweave.core.errors import InputError, in_one_line
from unitweave.core.progress import meter

MAX_MEMBER_BYTES = 1 << 30  # the largest table of Common Voice has some 100 MB
MAX_CLIP_BYTES = 1 << 26  # a clip has kilobytes, and some of them are in memory at a time
_CLIP = (".mp3", ".wav", ".flac", ".ogg", ".opus")
_MAX_HEADER_BYTES = 1 << 20
_OPENERS: dict[str, Callable[..., Any]] = {
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tar.xz": lzma.open,
    ".tar": open,
}
_HEADER_TYPES = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
# tarfile raises ValueError for a field that is not a number, RecursionError for thousands of chained headers.
_BAD_HEADER = (ValueError, RecursionError)


@dataclass(frozen=True)
class Member:
    """One file: its name inside, with "/"; `source` changes when the file does; `read` works until the next one."""

    name: str
    source: str
    read: Callable[[], bytes]


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive this module reads."""
    return _ending(path) is not None


def members(path: Path) -> Iterator[Member]:
    """Every file in an archive, in its order, or below a folder, in the order of names; or a file by itself.

    Archives that lie in a folder are not looked into. Raises InputError for what is no readable
    archive, ends too early, or is not safe.
    """
    if is_archive(path):
        yield from _in_archive(path)
    elif path.is_dir():
        yield from _in_folder(path)
    elif path.is_file():
        yield _file(path, path.name)
    else:
        raise InputError(f"{path}: no such file or folder")


def containers(path: Path, takes: Callable[[str], bool]) -> list[Path]:
    """`path` itself, and if it is a folder the archives directly in it whose names `takes` accepts."""
    if not path.is_dir():
        if not path.is_file():
            raise InputError(f"{path}: no such file or folder")
        return [path]
    return [path, *sorted(c for c in path.iterdir() if c.is_file() and is_archive(c) and takes(c.name))]


def signature(*parts: object) -> str:
    """16 hexadecimal digits that name what a recording was made from."""
    return hashlib.blake2b("\0".join(map(str, parts)).encode(errors="surrogatepass"), digest_size=8).hexdigest()


def stamp(path: Path) -> str:
    """Signature of a file by name, size and time of change; where it lies does not count."""
    status = path.stat()
    return signature(path.name, status.st_size, status.st_mtime_ns)


def _in_folder(folder: Path) -> Iterator[Member]:
    seen: set[str] = set()
    for directory, children, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(directory)
        if real in seen:
            children.clear()
            continue
        seen.add(real)
        children.sort()
        for name in sorted(files):
            path = Path(directory, name)
            if not is_archive(path) and path.is_file():
                yield _file(path, path.relative_to(folder).as_posix())


def _file(path: Path, name: str) -> Member:
    return Member(name, stamp(path), path.read_bytes)


def _in_archive(path: Path) -> Iterator[Member]:
    if not path.is_file():
        raise InputError(f"{path}: no such archive")
    archive = stamp(path)
    with contextlib.ExitStack() as stack:
        with _damage_named(path, _BAD_HEADER):
            raw = stack.enter_context(path.open("rb"))
            plain: IO[bytes] = raw if _ending(path) == ".tar" else _OPENERS[str(_ending(path))](raw)
            tar = stack.enter_context(tarfile.open(fileobj=plain, mode="r|", bufsize=1 << 20, tarinfo=_CheckedHeader))
        progress = stack.enter_context(meter(f"corpus: {path.name} (MB)", (path.stat().st_size >> 20) + 1))
        while True:
            with _damage_named(path, _BAD_HEADER):
                info = tar.next()
            if info is None:
                return
            tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every header
            _refuse_unsafe(info, path)
            if raw.tell() >> 20 > progress.done:
                progress.advance((raw.tell() >> 20) - progress.done)
            if info.isreg():
                name = str(PurePosixPath(info.name))
                yield Member(name, signature(archive, name), lambda info=info: _read(tar, info, path))  # type: ignore[misc]


@contextlib.contextmanager
def _damage_named(path: Path, further: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn what a damaged archive raises, and `further` errors, into InputErrors that name it."""
    damage: tuple[type[Exception], ...] = (EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, gzip.BadGzipFile)
    damage += further
    try:
        yield
    except _UnsafeHeader as error:
        raise InputError(f"{path}: {error}, which no corpus needs; the archive is refused") from None
    except damage as error:
        raise InputError(f"{path}: damaged or cut off ({in_one_line(error)}); download it again") from None
    except OSError as error:
        if error.errno is None:  # bz2 reports damage so
            raise InputError(f"{path}: damaged or cut off ({in_one_line(error)}); download it again") from None
        raise InputError(f"{path}: could not be read ({error.strerror})") from None


class _UnsafeHeader(Exception):
    """A header that no honest archive has."""


class _CheckedHeader(tarfile.TarInfo):
    """A header whose size is checked before tarfile reads that much into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        limit = _MAX_HEADER_BYTES if info.type in _HEADER_TYPES else MAX_MEMBER_BYTES
        if not 0 <= info.size <= limit:
            raise _UnsafeHeader(f"its member {info.name!r} claims {info.size} bytes")
        return info


def _refuse_unsafe(info: tarfile.TarInfo, path: Path) -> None:
    name = PurePosixPath(info.name.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts:
        problem = "leads outside"
    elif not (info.isreg() or info.isdir()) or info.issparse():
        problem = "is a link, a device or a sparse file"
    elif not 0 <= info.size <= (MAX_CLIP_BYTES if name.suffix.lower() in _CLIP else MAX_MEMBER_BYTES):
        problem = f"claims {info.size} bytes"
    else:
        return
    raise InputError(f"{path}: its member {info.name!r} {problem}, which no corpus needs; the archive is refused")


def _read(tar: tarfile.TarFile, info: tarfile.TarInfo, path: Path) -> bytes:
    with _damage_named(path):
        file = tar.extractfile(info)
        content = file.read() if file else b""
    if len(content) < info.size:
        raise InputError(f"{path}: damaged or cut off in {info.name}; download it again")
    return content


def _ending(path: Path) -> str | None:
    return next((ending for ending in _OPENERS if path.name.lower().endswith(ending)), None)
