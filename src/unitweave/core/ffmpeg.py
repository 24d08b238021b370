"""ffmpeg as a child process, for the formats that soundfile does not know: bounded, without network or playlists."""

import contextlib
import os
import resource
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from unitweave.core.errors import AudioError

UNREADABLE = "not readable as audio"
# Containers and codecs only: no playlists, which could name other files or addresses.
_FORMATS = "aac,ac3,aiff,amr,asf,au,avi,caf,flac,flv,gsm,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpeg,ogg,w64,wav"
_GENERIC = ("Invalid argument", "Invalid data found when processing input")
_PATIENCE = 30.0  # seconds without a byte after which ffmpeg is stopped
_MEMORY = 2 << 30  # bytes of address space
_SECONDS = 600  # of processor time where the recording may be of any length
_READ_BYTES = 4_000_000
_LOUDEST = 128  # floats beyond it are at the scale of integers


def decode(content: BinaryIO, name: str, reason: str, rate: int, max_seconds: float | None) -> Iterator[np.ndarray]:
    """Mono blocks at `rate` Hz of what soundfile could not read for `reason`."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise AudioError(name, UNREADABLE, f"{reason}; with ffmpeg installed more formats can be read")
    command = [program, "-nostdin", "-v", "error", "-protocol_whitelist", "file", "-format_whitelist", _FORMATS]
    with tempfile.NamedTemporaryFile() as copy, tempfile.TemporaryFile() as complaints:
        path = getattr(content, "name", copy.name)
        if path == copy.name:  # bytes in memory: ffmpeg has to be able to seek
            content.seek(0)
            copy.write(content.read())
            copy.flush()
        command += ["-threads", "1", "-i", f"file:{os.fsdecode(Path(path).absolute())}", "-vn", "-map", "0:a:0"]
        command += ["-ac", "1", "-ar", str(rate), "-f", "f32le", "pipe:1"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints)
        assert process.stdout is not None
        try:
            _limit(process, _SECONDS if max_seconds is None else 30 + int(max_seconds))
            rest = b""
            while True:
                if not select.select([process.stdout], [], [], _PATIENCE)[0]:
                    problem = f"ffmpeg produced no output for {_PATIENCE:.0f} s; the file may be damaged"
                    raise AudioError(name, UNREADABLE, problem)
                data = process.stdout.read1(_READ_BYTES)  # type: ignore[attr-defined]
                if not data:
                    break
                data = rest + data
                whole = len(data) // 4 * 4
                rest = data[whole:]
                block = np.frombuffer(data[:whole], dtype="<f4")
                if np.abs(block).max(initial=0.0) > _LOUDEST:
                    raise AudioError(name, "impossible sample values", "full scale is 1; write it as 16-bit integers")
                yield block
            if process.wait() != 0:
                complaints.seek(0)
                raise AudioError(name, UNREADABLE, _complaint(process.returncode, complaints.read(4000), reason))
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def _limit(process: subprocess.Popen[bytes], seconds: int) -> None:
    """Bound the processor time and the memory of a child, where the system can."""
    # From outside and not by preexec_fn, which may hang where the parent has threads.
    if hasattr(resource, "prlimit"):
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            resource.prlimit(process.pid, resource.RLIMIT_CPU, (seconds, seconds))
            resource.prlimit(process.pid, resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def _complaint(returncode: int, errors: bytes, reason: str) -> str:
    """What ffmpeg said last, or why it was killed."""
    if returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return "ffmpeg took more processor time than it is allowed; the file may be damaged"
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    problem = lines[-1].rsplit(": ", 1)[-1] if lines else reason
    return reason if problem in _GENERIC else problem
