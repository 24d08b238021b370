"""Which build of the shared stages a folder's results are of; an archive has it recorded, since it has no units."""

from pathlib import Path
from typing import Any

from unitweave.core.errors import InputError
from unitweave.core.files import file_digest, json_digest, read_json

ARCHIVE_FILE = "archive.json"
FORMAT = 2


def is_archive(folder: Path) -> bool:
    """Whether a folder was written by `write_archive`."""
    return (Path(folder) / ARCHIVE_FILE).is_file()


def archive_record(archive: Path) -> dict[str, Any]:
    """What archive.json says. Raises InputError when it is of another version or damaged."""
    path = Path(archive) / ARCHIVE_FILE
    record = read_json(path)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InputError(f"{path}: damaged or of another version (this is format {FORMAT})")
    trials = record.get("trials")
    if not isinstance(record.get("build"), str) or not isinstance(trials, list) or not all(map(_is_text, trials)):
        raise InputError(f"{path}: damaged (expected a build and the names of trials); write the archive again")
    return record


def build_digest(folder: Path) -> str:
    """What distinguishes one build of the shared stages from another: a digest of the units and of the vocoder.

    The same settings give other numbers on other machines, and trainings of different builds have no units in common.
    For an archive it is the recorded one.
    """
    folder = Path(folder)
    if is_archive(folder):
        return str(archive_record(folder)["build"])
    files = sorted(path for kind in ("units/*.parquet", "vocoder/*.safetensors") for path in folder.glob(kind))
    return json_digest([[path.relative_to(folder).as_posix(), file_digest(path)] for path in files])


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
