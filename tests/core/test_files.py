"""Files that are written whole or not at all, and readers that say in one line what is wrong."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path, read_json_object, read_yaml
from unitweave.core.records import read_json_lines


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
    ],
)
def test_a_full_disk_is_named_whichever_library_notices_it(tmp_path: Path, error: Exception) -> None:
    (tmp_path / "x").write_text("before")
    with pytest.raises(InputError, match="x: no space left on the device"), atomic_path(tmp_path / "x") as temporary:
        temporary.write_text("half")
        raise error
    assert (tmp_path / "x").read_text() == "before" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.processes
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660), (0o077, 0o600)])
def test_weights_can_be_read_by_those_whom_the_umask_lets(tmp_path: Path, umask: int, mode: int) -> None:
    code = (
        "import os, sys; from pathlib import Path; from unitweave.core.files import atomic_path\n"
        "for name in ('weights', 'folder/weights'):\n"
        "    with atomic_path(Path(name.split('/')[0])) as temporary:\n"
        "        file = temporary / 'weights' if '/' in name else temporary\n"
        "        file.parent.mkdir(exist_ok=True)\n"
        "        file.touch(0o600)\n"  # as safetensors does: only the owner can read it
        f"assert os.umask(0) == {umask}\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, umask=umask, check=True)
    for name in ("weights", "folder/weights"):
        assert (tmp_path / name).stat().st_mode & 0o777 == mode


def test_other_errors_of_a_writer_are_left_alone(tmp_path: Path) -> None:
    for error in (ValueError("no space left between words"), OSError(errno.EACCES, "no space left"), KeyError("x")):
        with pytest.raises(type(error)), atomic_path(tmp_path / "x"):
            raise error
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"lm: " + b"[" * 3_000, "nested too deeply"),
        (b"lm: 2026-13-45", "month must be in"),
        (b"corpus: [", "while parsing"),
        (b"\xff\xfe\xff", "not readable as YAML"),
        (b"lm: &x {training: *x}", "an alias that holds itself"),
        (
            b"lm:\n  training: {steps: 1, seed: 1}\n  training: {steps: 2}\n",
            "the key 'training' is given twice .*line 3",
        ),
        (b"lm: {training: {steps: 1, 'steps': 2}}", "the key 'steps' is given twice"),
        (rb'title: "a \ud800"', "half of a surrogate pair"),
        (
            b"a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
            + b"".join(b"%c: &%c [" % (c, c) + b",".join([b"*%c" % (c - 1)] * 10) + b"]\n" for c in b"bcdefgh"),
            "more than 100000 values",
        ),
    ],
)
def test_yaml_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "recipe.yaml").write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_yaml(tmp_path / "recipe.yaml")
    assert "\n" not in str(caught.value)


def test_yaml_may_override_what_it_merges(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: {<<: [*b, *a], x: 4}\n")
    assert read_yaml(tmp_path / "recipe.yaml")["c"] == {"x": 4, "y": 3}


def test_a_number_that_no_computer_counts_to_is_damaged(tmp_path: Path) -> None:
    for number in (10**400, -(10**308)):
        (tmp_path / "config.json").write_text(json.dumps({"a": [number]}))
        with pytest.raises(InputError, match=r"not readable as JSON \(a number of"):
            read_json_object(tmp_path / "config.json")
        (tmp_path / "log.jsonl").write_text(json.dumps({"a": number}) + "\n")
        with pytest.raises(InputError, match="line 1: not a JSON object"):
            read_json_lines(tmp_path / "log.jsonl")
    (tmp_path / "config.json").write_text(json.dumps({"model_max_length": 10**30}))  # as a tokenizer has it
    assert read_json_object(tmp_path / "config.json") == {"model_max_length": 10**30}


def test_a_json_file_that_holds_no_object_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match=r"expected a JSON object \(got list\)"):
        read_json_object(tmp_path / "config.json")
    with pytest.raises(InputError, match="no such file"):
        read_json_object(tmp_path / "missing.json")
    with pytest.raises(InputError, match="not readable as JSON"):
        read_json_object(tmp_path)


def test_a_manifest_whose_data_are_damaged_is_one_line(tmp_path: Path) -> None:
    from unitweave.core.manifest import FILE_NAME, Pair, read_manifest, write_manifest

    pairs = [
        Pair(id=f"a{i}", split="train", src_lang="es", tgt_lang="en", src_audio=None, tgt_audio=None,
             src_text="hola " * i, tgt_text="hello " * i)
        for i in range(1, 50)
    ]  # fmt: skip
    write_manifest(tmp_path, pairs)
    content = bytearray((tmp_path / FILE_NAME).read_bytes())
    for place in range(20, 400):
        content[place] ^= 0xFF
    (tmp_path / FILE_NAME).write_bytes(bytes(content))
    with pytest.raises(InputError, match="not a readable manifest"):
        read_manifest(tmp_path)
