"""Writes requirements-lock.txt: constraints.txt with the hashes of what pip installs from it on this platform.

    python .ci/lock.py

torch is left out: its builds differ by platform. Install it first, then `pip install --require-hashes --no-deps -r
requirements-lock.txt` and `pip install --no-deps .`.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAD = f"""\
# Written by `python .ci/lock.py` on {sys.platform}, Python {sys.version_info.major}.{sys.version_info.minor}; no torch.
# pip install --require-hashes --no-deps -r requirements-lock.txt
"""


def main() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("torch==")]
    with tempfile.TemporaryDirectory() as folder:
        wanted, report = Path(folder) / "pins.txt", Path(folder) / "report.json"
        wanted.write_text("\n".join(pins))
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
        subprocess.run([*command, "--report", str(report), "-r", str(wanted)], check=True)
        installed = json.loads(report.read_text())["install"]
    lines = []
    for package in sorted(installed, key=lambda package: package["metadata"]["name"].lower()):
        digest = package["download_info"]["archive_info"]["hashes"]["sha256"]
        about = package["metadata"]
        lines.append(f"{about['name']}=={about['version']} --hash=sha256:{digest}\n")
    (ROOT / "requirements-lock.txt").write_text(HEAD + "".join(lines))


if __name__ == "__main__":
    main()
