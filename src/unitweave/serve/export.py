"""From a run to one folder that others load, and from there to the hub."""

import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path, read_json, write_json
from unitweave.core.stage import versions
from unitweave.serve.card import write_card
from unitweave.translate.package import FOLDERS, FORMAT, PACKAGE_FILE, PATTERNS, Parts, read_recipe
from unitweave.translate.vllm import ENGINE_FILE, engine_settings

ENGINES = ("vllm",)
_LEFT_OUT = ("stage.json", "log.jsonl", "trainer_state.json")


def export_run(
    run: Path, system: str | None, out: Path, license: str | None = None, engine: str | None = None
) -> dict[str, Any]:
    """Write one system of a run as a folder that `Translator.from_pretrained` and plain transformers load.

    license  of the exported model, as the hub names licenses ("apache-2.0"); the card says "other" without one
    engine   "vllm" also writes vllm.json: what an engine needs to keep to the stages

    Returns what package.json holds. Raises InputError when a part is missing or speaks other units, and
    when `out` is the working folder, or is there and holds something else than an export.
    """
    run, out = Path(run), Path(out).resolve()
    if engine is not None and engine not in ENGINES:
        raise InputError(f"--engine {engine}: none of {', '.join(ENGINES)}")
    if not run.is_dir():
        raise InputError(f"{run}: no such run folder")
    _check_target(out)
    parts = Parts.of_run(run, system)
    parts.check()
    recipe = read_recipe(run)
    name = parts.language_model.parent.name
    with atomic_path(out) as temporary:
        temporary.mkdir()
        _copy(parts.language_model, temporary)
        for part, folder in (("encoder", parts.encoder), ("codebook", parts.codebook), ("vocoder", parts.vocoder)):
            _copy(folder, temporary / part)
        written = Parts(temporary, temporary / "encoder", temporary / "codebook", temporary / "vocoder")
        about = {
            "format": FORMAT,
            "system": name,
            "fingerprints": written.fingerprints(),
            "decode": asdict(parts.settings),
            "versions": versions(),
        }
        write_json(temporary / PACKAGE_FILE, about)
        if (recipe.get("corpus") or {}).get("embedded"):  # other corpora may not be ours to pass on
            (temporary / "examples").mkdir()
            for path in parts.examples():
                shutil.copyfile(path, temporary / "examples" / path.name)
        if engine:
            write_json(temporary / ENGINE_FILE, engine_settings(temporary))
        write_card(temporary / "README.md", run, name, recipe, about, license, out.name)
    return about


def _check_target(out: Path) -> None:
    """Raise InputError unless `out` can be replaced: it is not there, empty, or an export with nothing added to it."""
    if out in (Path.cwd(), *Path.cwd().parents):
        raise InputError(f"{out}: you are in this folder; name a new one")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not _is_export(out):
        raise InputError(f"{out}: holds something else; name a new folder")
    for folder in (out, *(out / name for name in FOLDERS if (out / name).is_dir())):
        for path in sorted(folder.iterdir()):
            ours = path.is_file() and (path.name == "README.md" or _wanted(path, PATTERNS))
            if not ours and not (path.is_dir() and folder == out and path.name in FOLDERS):
                raise InputError(f"{path}: was not written by an export, which would delete it; name a new folder")


def _is_export(folder: Path) -> bool:
    """Whether there is a package.json that is ours; npm's has the same name."""
    try:
        about = read_json(folder / PACKAGE_FILE)
    except (InputError, OSError):
        return False
    return isinstance(about, dict) and {"format", "fingerprints"} <= about.keys()


def push(folder: Path, name: str, private: bool = False) -> str:
    """Upload an exported folder to the hub as `owner/name`; returns its address. Raises InputError when it fails."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalTokenNotFoundError

    folder = Path(folder)
    if not (folder / PACKAGE_FILE).exists():
        raise InputError(f"{folder}: not an exported model; make one with 'unitweave export RUN -o {folder}'")
    Parts.of_package(folder).check()
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise InputError(f"{name}: not a name on the hub; give owner/name")
    api = HfApi()
    try:
        address = api.create_repo(name, private=private, exist_ok=True, repo_type="model")
        api.upload_folder(
            repo_id=name, folder_path=folder, allow_patterns=PATTERNS, commit_message="Export from unitweave"
        )
    except LocalTokenNotFoundError:
        raise InputError("the hub does not know you on this machine: run 'hf auth login' first") from None
    except (HfHubHTTPError, HTTPError, HFValidationError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{name}: the hub did not take it ({reason})") from None
    return str(address)


def _copy(source: Path, target: Path) -> None:
    """Copy the files of a model folder that belong to the hub's kind of layout: weights without pickles, JSON, text."""
    target.mkdir(exist_ok=True)
    found = [p for p in sorted(source.iterdir()) if p.is_file() and _wanted(p, PATTERNS)]
    if not any(p.suffix == ".safetensors" for p in found):
        raise InputError(f"{source}: no safetensors weights here; is this stage finished?")
    for path in found:
        shutil.copyfile(path, target / path.name)


def _wanted(path: Path, patterns: Iterable[str]) -> bool:
    return path.name not in (*_LEFT_OUT, "README.md") and any(path.match(pattern) for pattern in patterns)
