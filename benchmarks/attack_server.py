"""A server under attack, as `unitweave serve` ships it, and requests to it."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from bad_uploads import encode, multipart

SECRET = "a private line that no client may read"
STORAGE_MB = 120
LIMITS = ["--max-upload-mb", "8", "--max-storage-mb", str(STORAGE_MB), "--request-timeout-seconds", "20",
          "--live-idle-seconds", "10"]  # fmt: skip
Result = tuple[int, str, list[str]]  # tries, what came back, what got through


class Target:
    """A running server, and requests to it."""

    def __init__(self, model: str, speech: np.ndarray, folder: Path, *options: str, token: str = "") -> None:
        self.model, self.speech = model, speech
        self.folder, self.temporary = folder, folder / "tmp"
        self.temporary.mkdir()
        (folder / "private.txt").write_text(SECRET)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        serve = [sys.executable, "-m", "unitweave.cli", "serve", model, "--port", str(self.port)]
        self._functions = 0
        self.command, self.token = [*serve, *LIMITS, *options], token
        self.log = (folder / "server.log").open("w+")
        environment = {**os.environ, "TMPDIR": str(self.temporary), **({"UNITWEAVE_TOKEN": token} if token else {})}
        self.process = subprocess.Popen(self.command, stderr=self.log, env=environment)

    def wait(self) -> None:
        """Wait until the server answers."""
        while self.process.poll() is None:
            try:
                if self.ask("GET", "/v1/health", timeout=120)[0] in (200, 401):
                    return
            except OSError:
                time.sleep(0.2)
        self.log.seek(0)
        sys.exit(f"the server did not start: {self.log.read()[-500:]}")

    def ask(
        self, method: str, path: str, body: bytes = b"", timeout: float = 60, **headers: str
    ) -> tuple[int, bytes, bytes]:
        """Status (0 for none), head and body. Header names have underscores for hyphens."""
        fields = {"host": f"127.0.0.1:{self.port}", "connection": "close", "content_length": str(len(body)), **headers}
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
        answer = self.raw(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body, timeout)
        head, _, content = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]) if head.startswith(b"HTTP/1.1 ") else 0, head, content

    def raw(self, content: bytes, timeout: float = 60) -> bytes:
        """What the server answers to these bytes until it closes the connection or falls silent."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as connection:
            answer = b""
            try:
                connection.sendall(content)
                while block := connection.recv(1 << 16):
                    answer += block
            except OSError:
                pass
            return answer

    def post(self, path: str, content: bytes, field: str = "audio", **fields: str) -> tuple[int, bytes, bytes]:
        """A multipart upload."""
        return self.ask(
            "POST", path, multipart(content, field, **fields), content_type="multipart/form-data; boundary=b"
        )

    def functions(self) -> int:
        """How many functions the page has."""
        if not self._functions:
            self._functions = len(json.loads(self.ask("GET", "/config")[2])["dependencies"])
        return self._functions

    def join(self, path: object, **change: object) -> tuple[int, bytes, bytes]:
        """A click on the page's button with a recording of this path."""
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        index = next(i for i in (1, 0) if i < self.functions())
        body = {"data": [file, None, None], "fn_index": index, "session_hash": "s", **change}
        return self.ask("POST", "/gradio_api/queue/join", json.dumps(body).encode(), content_type="application/json")

    def uploaded(self) -> str:
        """The name of a recording that was uploaded to the page, after a minute where its folder is full."""
        for _ in range(90):
            status, _head, body = self.post("/gradio_api/upload", self.good(), "files")
            if status == 200:
                break
            time.sleep(1)
        return str(json.loads(body)[0])

    def peak(self) -> float:
        """The most memory that the server took since the last call, in MiB."""
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return int(found[1]) / 1024 if found else 0.0

    def good(self, number: int = 0) -> bytes:
        """A recording of at least a second, one of a few."""
        return encode(self.speech[800 * (number % 5) :])

    def stored(self) -> int:
        """Bytes of temporary files."""
        return sum(path.lstat().st_size for path in self.temporary.rglob("*") if not path.is_dir())

    def copies(self) -> int:
        """Temporary files with the secret in them."""
        files = [path for path in self.temporary.rglob("*") if path.is_file()]
        return sum(SECRET.encode() in path.read_bytes() for path in files)

    def health(self) -> dict[str, Any]:
        """What the server says of itself."""
        found: dict[str, Any] = json.loads(self.ask("GET", "/v1/health", timeout=60)[2])
        return found

    def is_well(self) -> bool:
        """Whether it says that it is well, if need be after a moment, and still translates."""
        for _ in range(30):
            status, _head, body = self.ask("GET", "/v1/health", timeout=20)
            if status == 200:
                break
            time.sleep(1)
        return status == 200 and json.loads(body)["status"] == "ok" and self.patient_upload(self.good()) == 200

    def patient_upload(self, content: bytes) -> int:
        """Status of an upload that is repeated while the server is busy."""
        for _ in range(60):
            status = self.post("/v1/translate", content, text_only="true")[0]
            if status != 503:
                break
            time.sleep(1)
        return status


def statuses(answers: list[int]) -> str:
    """How often each status came."""
    return ", ".join(f"{status or 'none'}: {count}" for status, count in sorted(Counter(answers).items()))
