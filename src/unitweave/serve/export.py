"""From a run to one folder that others load, and from there to the hub."""

import glob
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unitweave.core.errors import InputError, first_line
from unitweave.core.files import flush, make_readable, read_json, read_json_object, write_json
from unitweave.core.lock import work_folder
from unitweave.core.stage import versions
from unitweave.serve.card import write_card
from unitweave.training.model_files import INDEX_FILE, weight_files
from unitweave.translate.package import FOLDERS, FORMAT, PACKAGE_FILE, PATTERNS, VLLM_FILE, Parts, read_recipe

ENGINES = ("int8", "vllm")
_LEFT_OUT = ("stage.json", "log.jsonl", "trainer_state.json")


def export_run(
    run: Path, system: str | None, out: Path, license: str | None = None, engine: str | None = None
) -> dict[str, Any]:
    """Write one system of a run as a folder that `Translator.from_pretrained` and plain transformers load.

    Of an earlier export in `out`, the files that its package.json lists are replaced; others stay.

    Args:
        run: The run folder. Links inside of it are refused: what they lead to may not be meant for others.
        system: Which system (default: "scheduled", or the only one).
        out: The folder to write.
        license: License of the exported model, as the hub names licenses ("apache-2.0"); without one the card
            says "other".
        engine: "int8" writes integer weights in place of float32; "vllm" also writes vllm.json: what that engine
            needs to keep to the phases.

    Returns:
        The contents of package.json.

    Raises:
        InputError: A part is missing, is a link or does not fit the others; `out` is the working folder, holds
            files that an export would overwrite, or another process exports into it.
    """
    run, out = Path(run), Path(os.path.realpath(out))
    if engine is not None and engine not in ENGINES:
        raise InputError(f"--engine {engine}: must be one of {', '.join(ENGINES)}")
    if not run.is_dir():
        raise InputError(f"{run}: no such run folder")
    if out in (Path.cwd(), *Path.cwd().parents):
        raise InputError(f"{out}: is the current folder; choose another one")
    earlier = _files_of_earlier_export(out)
    parts = Parts.of_run(run, system)
    parts.check()
    recipe = read_recipe(run)
    name = parts.language_model.parent.name
    with work_folder(out) as folder:
        _copy_parts(parts, run, folder)
        if engine == "int8":
            _replace_weights(folder)
        if (recipe.get("corpus") or {}).get("embedded"):  # other corpora may not be ours to pass on
            _copy_examples(parts.examples(), folder / "examples")
        about = {
            "format": FORMAT,
            "system": name,
            "fingerprints": _parts_in(folder).fingerprints(),
            "decode": asdict(parts.settings),
            "versions": versions(),
        }
        write_json(folder / PACKAGE_FILE, about)  # the engine's settings and the card are made from it
        if engine == "vllm":
            from unitweave.translate.vllm import engine_settings

            write_json(folder / VLLM_FILE, engine_settings(folder, parts.settings))
        write_card(folder / "README.md", run, name, recipe, about, license, out.name)
        (folder / PACKAGE_FILE).unlink()
        about["files"] = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        make_readable(folder)
        flush(folder)
        _install(folder, out, about, earlier)
    return about


def _copy_parts(parts: Parts, run: Path, folder: Path) -> None:
    voice = parts.vocoder / "config.json"
    function = read_json_object(voice).get("function") if voice.exists() else None
    for named, what in ((parts.units.tokenizer, "units.tokenizer"), (function, "vocoder.function")):
        if named is not None:
            raise InputError(f"{run}: {what} {named} is Python code, which an exported model cannot carry")
    target = _parts_in(folder)
    copies = [(parts.language_model, folder), (parts.encoder, target.encoder), (parts.codebook, target.codebook)]
    from unitweave.lm.model.vocabulary import Vocabulary  # torch: not for an export that is refused

    if Vocabulary.load(parts.language_model).has_speech:
        copies.append((parts.vocoder, target.vocoder))
    for source, copy in copies:
        for place in (source, *source.parents):
            if place == run:
                break
            _refuse_link(place)
        copy.mkdir(exist_ok=True)
        files = [p for p in sorted(source.iterdir()) if _is_wanted(p)]
        if not any(p.suffix == ".safetensors" for p in files):
            raise InputError(f"{source}: no safetensors weights here; is this stage finished?")
        for path in files:
            _refuse_link(path)
            shutil.copyfile(path, copy / path.name)


def _replace_weights(folder: Path) -> None:
    """Turn the language model's weights into integers."""
    before = weight_files(folder)
    from unitweave.translate.int8 import save_int8  # torch: not for an export that is refused

    save_int8(folder, folder)
    for path in (*before, folder / INDEX_FILE):
        path.unlink(missing_ok=True)


def _copy_examples(examples: Sequence[Path], folder: Path) -> None:
    folder.mkdir()
    for path in examples:
        _refuse_link(path)
        shutil.copyfile(path, folder / path.name)


def _parts_in(folder: Path) -> Parts:
    return Parts(folder, folder / "encoder", folder / "codebook", folder / "vocoder")


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise InputError(f"{path}: is a link, which an export does not follow; put the file itself here")


def _is_wanted(path: Path) -> bool:
    """Whether a file of a model folder belongs to the hub's kind of layout: weights without pickles, JSON, text."""
    named = any(path.match(pattern) for pattern in PATTERNS)
    return path.is_file() and named and path.name not in (*_LEFT_OUT, "README.md")


def _files_of_earlier_export(out: Path) -> list[str]:
    """What an export may replace in `out`: nothing where there is nothing, or what package.json lists.

    Raises:
        InputError: `out` holds something else than an export.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return []
    try:
        about = read_json(out / PACKAGE_FILE)
    except (InputError, OSError):
        about = None
    if not isinstance(about, dict) or not {"format", "fingerprints"} <= about.keys():  # npm's has the same name
        raise InputError(f"{out}: contains other files; choose another folder")
    return listed_files(out, about)


def listed_files(folder: Path, about: Mapping[str, Any]) -> list[str]:
    """The files of an exported folder by its package.json, as paths relative to it.

    Raises:
        InputError: There is no list (exports before 0.2), or it names what no export writes: package.json may have
            come from anybody.
    """
    files = about.get("files")
    if not isinstance(files, list) or not files:
        raise InputError(f"{folder / PACKAGE_FILE}: does not list its files; export into a new folder")
    for name in files:
        parts = Path(name).parts if isinstance(name, str) else ()
        places = len(parts) == 1 or (len(parts) == 2 and parts[0] in FOLDERS)
        if not places or Path(*parts).as_posix() != name or parts[-1] in ("..", PACKAGE_FILE):
            raise InputError(f"{folder / PACKAGE_FILE}: lists {str(name)[:80]!r}, which no export writes")
        if len(parts) == 2:
            _refuse_link(folder / parts[0])
        _refuse_link(folder / name)
    return files


def _install(source: Path, out: Path, about: dict[str, Any], earlier: Sequence[str]) -> None:
    """Move the files of a new export to `out` and delete what only the earlier one had.

    package.json names old and new files until all are in place: the same command repairs what was interrupted.
    """
    files: list[str] = about["files"]
    for name in files:
        _refuse_link((out / name).parent)
        if name not in earlier and os.path.lexists(out / name):
            raise InputError(f"{out / name}: was not written by an export, but this one would overwrite it")
    out.mkdir(exist_ok=True)
    write_json(out / PACKAGE_FILE, {**about, "files": sorted({*files, *earlier})})
    for name in files:
        (out / name).parent.mkdir(exist_ok=True)
        (source / name).replace(out / name)
    for name in set(earlier) - set(files):
        (out / name).unlink(missing_ok=True)
        if (out / name).parent != out:
            with suppress(OSError):  # other files are in it
                (out / name).parent.rmdir()
    write_json(out / PACKAGE_FILE, about)


def push(folder: Path, name: str, private: bool = False) -> str:
    """Upload the files of an exported folder that its package.json lists to the hub.

    Args:
        folder: The exported folder.
        name: `owner/name` on the hub.
        private: Make a new repository private.

    Returns:
        Its address.

    Raises:
        InputError: The folder is not an export or its parts do not fit, or the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalTokenNotFoundError

    folder = Path(folder)
    if not (folder / PACKAGE_FILE).exists():
        raise InputError(f"{folder}: not an exported model; make one with 'unitweave export RUN -o {folder}'")
    Parts.of_package(folder).check()
    files = [PACKAGE_FILE, *listed_files(folder, read_json(folder / PACKAGE_FILE))]
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise InputError(f"{name}: not a name on the hub; give OWNER/NAME")
    api = HfApi()
    try:
        address = api.create_repo(name, private=private, exist_ok=True, repo_type="model")
        api.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=[glob.escape(file) for file in files],
            commit_message="Export from unitweave",
        )
    except LocalTokenNotFoundError:
        raise InputError("not logged in to the hub; run 'hf auth login' first") from None
    except (HfHubHTTPError, HTTPError, HFValidationError, OSError) as error:
        raise InputError(f"{name}: the hub refused the upload ({first_line(error)})") from None
    return str(address)
