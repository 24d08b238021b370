"""What the page of results is written from, without models and recordings: small enough to keep and publish."""

import itertools
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import yaml

from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path, read_json_object, write_json, write_lines, write_text
from unitweave.core.layout import DEV_FILE, RunLayout
from unitweave.core.manifest import read_manifest, write_manifest
from unitweave.core.records import json_lines, to_json
from unitweave.core.stage import STAGE_FILE, versions
from unitweave.experiment.build import ARCHIVE_FILE, FORMAT, archive_record, build_digest, is_archive
from unitweave.experiment.counts import COUNTS_FILE, UtteranceCounts
from unitweave.experiment.plan import Trial
from unitweave.experiment.provenance import FILE_NAME as SESSIONS
from unitweave.experiment.results import Result, read_grid
from unitweave.experiment.state import EXPERIMENT_FILE, read_experiment_folder
from unitweave.score.scores import UTTERANCES_FILE

_RECORDINGS: dict[str, Any] = {"src_audio": None, "tgt_audio": None}
_TEXTS: dict[str, Any] = {"src_text": None, "tgt_text": None, "src_text_raw": None, "tgt_text_raw": None}
_SHARED = ("corpus", "encoder", "codebook", "units", "text_lm", "vocoder")
_CONTENTS = {EXPERIMENT_FILE, ARCHIVE_FILE, *_SHARED, "subsets", "lm", "translate", "scores"}
_OF_A_TRIAL = (
    f"lm/{{}}/{STAGE_FILE}",
    f"lm/{{}}/{DEV_FILE}",
    f"lm/{{}}/{SESSIONS}",
    f"translate/{{}}/{STAGE_FILE}",
    f"scores/{{}}/{STAGE_FILE}",
    "scores/{}/scores.json",
    f"scores/{{}}/{UTTERANCES_FILE}",
    f"scores/{{}}/{COUNTS_FILE}",
)


def write_archive(archive: Path, run: Path, texts: bool = True) -> list[Trial]:
    """Copy what the page needs of the finished trials of an experiment's folder; returns those trials.

    The archive has the layout of the folder, so that `read_grid` reads both; its manifest has the texts of the test
    split and no recordings. Written whole or not at all.

    Args:
        texts: With the texts of the test split and every translation. Without, for a corpus whose texts must not be
            passed on, there is of each only what corpus BLEU adds up, which gives the same page.

    Raises:
        InputError: `run` has no finished trial, or `archive` is something else or has what `run` lacks, and would lose
            it.
    """
    archive, run = Path(archive), Path(run)
    content = read_experiment_folder(run)
    grid = read_grid(run)  # everything is read as for a page: nothing damaged is archived
    done = {result.trial: result for result in (*grid.results, *grid.repeated)}
    trials = [trial for trial in grid.plan.trials if trial in done]
    if not trials:
        raise InputError(f"{run}: no trial is done yet, so there is nothing to archive")
    _check_target(archive, run, {trial.name for trial in trials}, texts)
    for model in content.get("models", {}).values():
        if model and model.get("pretrained"):  # the weights are identified by their digest; their folder stays private
            model["pretrained"] = PurePath(model["pretrained"]).name
    with atomic_path(archive) as folder:
        folder.mkdir(parents=True)
        write_text(folder / EXPERIMENT_FILE, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        pairs = read_manifest(RunLayout(run).corpus, "test")
        hidden = _RECORDINGS if texts else _RECORDINGS | _TEXTS
        RunLayout(folder).corpus.mkdir()
        write_manifest(RunLayout(folder).corpus, [replace(pair, **hidden) for pair in pairs])
        subsets = dict.fromkeys(f"subsets/{trial.data}" for trial in trials)
        kept = [f"{stage}/{STAGE_FILE}" for stage in (*_SHARED, *subsets)]
        kept += [file.format(trial.name) for trial in trials for file in _OF_A_TRIAL]
        for file in kept:
            if (run / file).exists():
                if not (run / file).resolve().is_relative_to(run.resolve()):
                    raise InputError(f"{run / file}: is a link to somewhere else, whose content is not archived")
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(run / file, folder / file)
                if file.endswith(STAGE_FILE):
                    _without_folders(folder / file)
        if not texts:
            for result in done.values():
                _leave_out_texts(folder, result)
        record = {"format": FORMAT, "build": build_digest(run), "trials": [trial.name for trial in trials]}
        write_json(folder / ARCHIVE_FILE, record | {"versions": versions()})
    return trials


def _leave_out_texts(folder: Path, result: Result) -> None:
    """Put a trial's counts in the place of its outputs, and of its dev split leave the scores alone."""
    trial, sides = result.trial.name, (result.counts["asr_bleu"].tolist(), result.counts["text_bleu"].tolist())
    counts = itertools.starmap(UtteranceCounts, zip(result.ids, result.languages, *sides, strict=True))
    place = RunLayout(folder).scores(trial)
    write_lines(place / COUNTS_FILE, (json.dumps(to_json(line)) + "\n" for line in counts))
    (place / UTTERANCES_FILE).unlink(missing_ok=True)
    dev = RunLayout(folder).lm(trial) / DEV_FILE
    if dev.exists():
        lines = [json.dumps(row | {"examples": []}) + "\n" for row in json_lines(dev)]
        write_lines(dev, lines)


def _without_folders(path: Path) -> None:
    """Leave the folders out of the command in a stage.json: they say something of one machine alone."""
    record = read_json_object(path)
    origin = record.get("provenance")
    if isinstance(origin, dict) and isinstance(command := origin.get("command"), str):
        try:
            origin["command"] = _command_without_folders(command)
        except ValueError as error:
            raise InputError(f"{path}: damaged (the command {command!r}: {error})") from None
        write_json(path, record)


def _command_without_folders(command: str) -> str:
    words = shlex.split(command)
    for place, word in enumerate(words):
        option, equals, value = word.rpartition("=")
        out = option if equals else words[place - 1] if place else ""
        if out in ("-o", "--out"):
            value = "FOLDER"
        elif value.startswith(("/", "~", "..")):
            value = PurePath(value).name
        words[place] = option + equals + value
    return shlex.join(words)


def _check_target(archive: Path, run: Path, trials: set[str], texts: bool) -> None:
    """Raise InputError where something would be lost: an archive may only be replaced by one that has all of it."""
    if not archive.exists():
        return
    if not is_archive(archive):
        raise InputError(f"{archive}: already exists and is not an archive of an experiment; choose another -o")
    others = [name for name in archive_record(archive)["trials"] if name not in trials]
    if others:
        raise InputError(
            f"{archive}: contains {others[0]!r}, which is not done in this folder; choose another -o "
            "('experiment results' takes several)"
        )
    foreign = [path for path in archive.iterdir() if path.name not in _CONTENTS]
    if foreign:
        raise InputError(f"{foreign[0]}: is no part of an archive and would be lost; move it away or choose another -o")
    if archive.resolve() == run.resolve():
        raise InputError(f"{archive}: is the archive that is read; choose another -o")
    for path in archive.glob(f"lm/*/{SESSIONS}"):
        other = run / path.relative_to(archive)
        if not other.exists() or path.read_bytes() != other.read_bytes():
            raise InputError(
                f"{path.parent}: is another training than {other.parent} and would be lost; choose another -o"
            )
    if not texts and any(archive.glob(f"scores/*/{UTTERANCES_FILE}")):
        raise InputError(f"{archive}: contains the sentences, which would be lost; choose another -o")
