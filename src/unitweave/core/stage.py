"""Stages of a run: done once, skipped when nothing changed, resumed when interrupted.

A stage owns the folder RUN/<name>/ and describes itself in RUN/<name>/stage.json. Its fingerprint
is that of its settings and of the fingerprints of the stages it reads from, so that a change
anywhere upstream makes everything downstream run again, and nothing else. An earlier
result is kept as a backup until the new one is there, and comes back when the new settings are refused. While a
stage is being done its folder is locked: another process that wants to do it is refused.
"""

import contextlib
import importlib.metadata
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from unitweave import __version__
from unitweave.core.distributed import on_main, process_index
from unitweave.core.errors import InputError
from unitweave.core.files import (
    TEMPORARY_PREFIX,
    discard,
    flush,
    json_digest,
    read_json,
    read_json_object,
    remove_leftovers,
    write_json,
)
from unitweave.core.lock import lock_holder, locked
from unitweave.core.machine import provenance
from unitweave.core.progress import echo
from unitweave.core.signals import stop_after_stage

FORMAT = 2
STAGE_FILE = "stage.json"
_REPORTED_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "accelerate")


@dataclass
class StageResult:
    """What a stage's work hands back for stage.json."""

    counts: dict[str, Any] = field(default_factory=dict)
    skipped: list[dict[str, str]] = field(default_factory=list)  # {"id": ..., "reason": ...}
    obsolete: tuple[Path, ...] = ()  # checkpoints and the like, removed when stage.json says that all is done


def run_stage(
    run: Path,
    name: str,
    settings: Any,
    inputs: Mapping[str, str],
    work: Callable[[Path], StageResult],
    extra: Any = None,
    every_process: bool = False,
) -> str:
    """Do the stage `name` of the run folder `run` unless it is already done.

    Started on several processes, all of them call this; the main one decides whether there is something to do, and
    writes stage.json.

    Args:
        run: The run folder.
        name: Path of the stage's folder within it.
        settings: The stage's dataclass.
        inputs: The name of each stage (or file) that this one reads, and its fingerprint.
        work: Gets the stage's folder, which holds what an interrupted earlier call with the same fingerprint left
            there, and must itself go on from that.
        extra: Anything else that the result depends on.
        every_process: Whether all processes take part in the work, as in a training; else the main one does it alone.

    Returns:
        The stage's fingerprint.

    Raises:
        InputError: When the folder is of another version of the format, is not a stage's, or another process is
            doing this stage.
    """
    folder = Path(run) / name
    plain = _recorded(settings)
    fingerprint = json_digest({"name": name, "settings": plain, "inputs": dict(inputs), "extra": extra})
    stage = {
        "format": FORMAT,
        "name": name,
        "status": "running",
        "fingerprint": fingerprint,
        "settings": plain,
        "inputs": dict(inputs),
    }
    if on_main(lambda: _up_to_date(folder, stage)):
        return fingerprint
    with contextlib.ExitStack() as lock:

        def begin() -> float | None:
            lock.enter_context(locked(folder))  # by the main process, for all of them
            return _begin(folder, stage)

        before = on_main(begin)
        if before is None:
            return fingerprint
        start = time.monotonic()
        try:
            outcome = work(folder) if every_process else on_main(lambda: work(folder))
        except BaseException as error:
            if process_index() == 0:
                _interrupted(folder, stage | {"seconds": round(before + time.monotonic() - start, 1)}, error)
            raise
        on_main(lambda: _finish(folder, stage, outcome, round(before + time.monotonic() - start, 1)))
    stop_after_stage()
    return fingerprint


def _recorded(settings: Any) -> Any:
    """Settings as they are recorded: without those that came later, while they have their default.

    So a stage that was finished before there was such a setting stays finished.
    """
    if not is_dataclass(settings) or isinstance(settings, type):
        return settings
    later = {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(settings)
        if field.metadata.get("later")
    }
    return {key: value for key, value in asdict(settings).items() if key not in later or value != later[key]}


def _up_to_date(folder: Path, stage: dict[str, Any]) -> bool:
    """Whether a stage is done; what a kill left there to be removed is removed, unless the place is read-only."""
    if not (folder / STAGE_FILE).exists() or not _is_finished_as(folder, stage["fingerprint"]):
        return False
    obsolete = [folder / Path(name).name for name in read_stage(folder.parent, folder.name)["obsolete"]]
    if lock_holder(folder) is None and (obsolete or _backup(folder).exists()):
        with contextlib.suppress(OSError):
            _clean(folder, obsolete)
    echo(f"{stage['name']}: up to date")
    return True


def _backup(folder: Path) -> Path:
    """Where the earlier result stands until the new one is there."""
    return folder.with_name(f".{folder.name}.before")


def _begin(folder: Path, stage: dict[str, Any]) -> float | None:
    """Make the folder ready for the work; returns the seconds already spent on it, None where the stage is done."""
    name, fingerprint, backup = stage["name"], stage["fingerprint"], _backup(folder)
    if (backup / STAGE_FILE).exists() and _is_finished_as(backup, fingerprint):
        discard(folder)  # begun with other settings, which were taken back before it was done
        backup.rename(folder)
    record = read_stage(folder.parent, folder.name) if (folder / STAGE_FILE).exists() else None
    if record is None and folder.exists() and any(not p.name.startswith(TEMPORARY_PREFIX) for p in folder.iterdir()):
        raise InputError(f"{folder}: has files but no {STAGE_FILE}, so it is not a stage folder; give another --out")
    remove_leftovers(folder)
    before = 0.0
    if record and record["fingerprint"] == fingerprint:
        if record["status"] == "done":
            echo(f"{name}: up to date")
            return None
        echo(f"{name}: resuming")
        before = float(record.get("seconds", 0.0))
    elif record:
        echo(f"{name}: running again, because {_difference(record, stage['settings'], stage['inputs'])}")
        if record["status"] == "done":
            discard(backup)
            folder.rename(backup)
        discard(folder)
    for place in (folder, backup):
        remove_leftovers(folder.parent, place.name)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / STAGE_FILE, stage | {"seconds": before})
    return before


def _interrupted(folder: Path, record: dict[str, Any], error: BaseException) -> None:
    """Put the earlier result back where the new settings were refused; else keep what there is to go on from."""
    refused = isinstance(error, InputError) and [path.name for path in folder.iterdir()] == [STAGE_FILE]
    if refused and _backup(folder).exists():  # not when there is progress to go on from, as after a full disk
        discard(folder)
        _backup(folder).rename(folder)
    else:
        write_json(folder / STAGE_FILE, record)


def _finish(folder: Path, stage: dict[str, Any], outcome: StageResult, seconds: float) -> None:
    """Write that the stage is done, and only then remove what it went on from and the earlier result."""
    done = {
        "status": "done",
        "counts": outcome.counts,
        "skipped": outcome.skipped,
        "seconds": seconds,
        "versions": versions(),
        "provenance": provenance(),
    }
    flush(folder)
    # Said before they are removed: a kill in between leaves them to the next call.
    obsolete = {"obsolete": [path.name for path in outcome.obsolete]} if outcome.obsolete else {}
    write_json(folder / STAGE_FILE, stage | done | obsolete)
    _clean(folder, outcome.obsolete)
    shown = ", ".join(f"{key} {value}" for key, value in outcome.counts.items() if not isinstance(value, dict | list))
    echo(f"{stage['name']}: done in {seconds:.0f} s" + (f" ({shown})" if shown else ""))
    if outcome.skipped:
        reasons = Counter(re.sub(r"\d+", "N", item["reason"]) for item in outcome.skipped)
        echo(f"{stage['name']}: {len(outcome.skipped)} skipped: {reasons_line(reasons)}")


def reasons_line(reasons: Mapping[str, int]) -> str:
    """Why items were skipped, each reason with its number of items, the most frequent first."""
    ordered = sorted(reasons.items(), key=lambda item: -item[1])
    return "; ".join(f"{reason} ({number})" for reason, number in ordered)


def _clean(folder: Path, obsolete: Sequence[Path]) -> None:
    """Remove what a finished stage went on from, and the earlier result."""
    for path in (*obsolete, _backup(folder)):
        discard(path)
    record = read_json(folder / STAGE_FILE)
    if record.pop("obsolete", None) is not None:
        write_json(folder / STAGE_FILE, record)


# Of the stages that have a command of their own.
_COMMANDS = {
    "corpus": "corpus", "encoder": "units train-encoder", "codebook": "units codebook", "units": "units extract",
    "text_lm": "lm text", "lm": "lm train", "vocoder": "vocoder train", "score": "score",
}  # fmt: skip


def read_stage(run: Path, name: str) -> dict[str, Any]:
    """The stage.json of a stage. Raises InputError when there is none or it is of another version."""
    path = Path(run) / name / STAGE_FILE
    if not path.exists():
        command = _COMMANDS.get(name.split("/")[0])
        first = f"'unitweave {command} {run}' or " if command else ""
        raise InputError(f"{path.parent}: stage not done yet; run {first}'unitweave run' first")
    record = read_json(path)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        found = record.get("format") if isinstance(record, dict) else "none"
        raise InputError(
            f"{path}: run folder of another version (format {found}, expected {FORMAT}); use a new --out folder"
        )
    record = {"fingerprint": "", "settings": {}, "inputs": {}, "seconds": 0.0, "obsolete": [], "counts": {}} | record
    kinds: dict[str, type | tuple[type, ...]] = {
        "status": str,
        "fingerprint": str,
        "settings": dict,
        "inputs": dict,
        "seconds": (int, float),
        "obsolete": list,
        "counts": dict,
    }
    for key, kind in kinds.items():
        if not isinstance(record.get(key), kind):
            raise InputError(
                f"{path}: damaged ({key!r} is missing or invalid); delete the folder to do the stage again"
            )
    return record


def is_done(run: Path, name: str) -> bool:
    """Whether a stage has been finished, with whatever settings."""
    return (Path(run) / name / STAGE_FILE).exists() and read_stage(run, name)["status"] == "done"


def is_done_with(run: Path, name: str, settings: Any) -> bool:
    """Whether a stage has been finished with these settings; what it read may have changed since."""
    return is_done(run, name) and json_digest(_recorded(settings)) == json_digest(read_stage(run, name)["settings"])


def stage_fingerprint(run: Path, name: str) -> str:
    """Fingerprint of a finished stage. Raises InputError when it has not been finished."""
    record = read_stage(run, name)
    if record["status"] != "done":
        raise InputError(f"{Path(run) / name}: this stage was interrupted; run its command again to finish it")
    return str(record["fingerprint"])


def fingerprint_in(folder: Path) -> str:
    """The fingerprint of the stage that is being done in a folder; "" outside of a run."""
    path = Path(folder) / STAGE_FILE
    return str(read_json_object(path).get("fingerprint", "")) if path.exists() else ""


def check_count(folder: Path, name: str, count: int, remedy: str, items: str | None = None) -> None:
    """Compare how many items a finished stage says that it wrote with how many are there.

    Args:
        folder: The stage's folder; without a stage.json, or one that does not count these items, anything goes.
        name: Their name among the counts.
        count: How many there are.
        remedy: What to do.
        items: What they are called; `name` where that says it.

    Raises:
        InputError: There are fewer or more.
    """
    if not (folder / STAGE_FILE).exists():
        return
    expected = read_stage(folder.parent, folder.name).get("counts", {}).get(name)
    if isinstance(expected, int) and expected != count:
        raise InputError(f"{folder}: {count} {items or name} found, but {STAGE_FILE} counts {expected}; {remedy}")


def _is_finished_as(folder: Path, fingerprint: str) -> bool:
    """Whether a folder holds the finished result of this fingerprint."""
    record = read_stage(folder.parent, folder.name)
    return bool(record["fingerprint"] == fingerprint and record["status"] == "done")


def versions() -> dict[str, str]:
    """Versions of unitweave and of the packages that results depend on."""
    found = {"unitweave": __version__}
    for package in _REPORTED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _difference(record: Mapping[str, Any], settings: Any, inputs: Mapping[str, str]) -> str:
    old = record.get("settings")
    if isinstance(old, dict) and isinstance(settings, dict):
        # Tuples became lists in the JSON file; compare what JSON would hold.
        changed = [key for key in settings if json_digest(settings[key]) != json_digest(old.get(key))]
        if changed:
            return f"the setting {changed[0]} changed from {old.get(changed[0])!r} to {settings[changed[0]]!r}"
    changed = [key for key, value in inputs.items() if record.get("inputs", {}).get(key) != value]
    return f"its input {changed[0]} changed" if changed else "its inputs changed"
