"""Debian packages as a source of data: fetched with apt-get and unpacked, nothing is installed."""

import subprocess
from collections.abc import Sequence
from pathlib import Path


def fetch(folder: Path, packages: Sequence[str]) -> Path:
    """Download packages into `folder`, unless they lie there already; returns the folder of their contents."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [name for name in packages if not list(folder.glob(f"{name}_*.deb"))]
    if missing:
        subprocess.run(["apt-get", "download", *missing], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    for name in packages:
        package = sorted(folder.glob(f"{name}_*.deb"))[-1]
        subprocess.run(["dpkg-deb", "-x", package.name, "unpacked"], cwd=folder, check=True)
    return folder / "unpacked"
