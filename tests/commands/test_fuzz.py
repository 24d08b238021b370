"""Damaged artifacts and impossible settings: each ends in one clear line and exit code 2, and nothing is half-written.

Seeded: one mutation of one file, or of one setting, at a time. FUZZ_CASES says how many there are of each (all of
them: FUZZ_CASES=99, which takes hours on two cores).
"""

import hashlib
import json
import os
import random
import re
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import psutil
import pytest
import yaml

from unitweave.cli import main
from unitweave.config.recipe import Recipe

pytestmark = pytest.mark.slow
SEED = 2026
CASES = int(os.environ.get("FUZZ_CASES", "2"))

# Artifact -> the stage folders to take away, so that it is read again, and the command that reads it.
READERS = {
    "recipe.yaml": ([], ["run", "{recipe}", "--out", "{run}"]),
    "corpus/manifest.parquet": (["codebook"], ["units", "codebook", "{run}"]),
    "corpus/stage.json": (["codebook"], ["units", "codebook", "{run}"]),
    "encoder/model/config.json": (["codebook"], ["units", "codebook", "{run}"]),
    "encoder/model/model.safetensors": (["codebook"], ["units", "codebook", "{run}"]),
    "encoder/model/vocab.json": (["units"], ["units", "extract", "{run}"]),
    "encoder/stage.json": (["codebook"], ["units", "codebook", "{run}"]),
    "codebook/codebook.json": (["units"], ["units", "extract", "{run}"]),
    "codebook/codebook.safetensors": (["units"], ["units", "extract", "{run}"]),
    "codebook/stage.json": (["units"], ["units", "extract", "{run}"]),
    "units/units-00000.parquet": (["lm/baseline"], ["lm", "train", "{run}", "--system", "baseline"]),
    "units/units-00001.parquet": (["vocoder"], ["vocoder", "train", "{run}"]),
    "units/stage.json": (["lm/baseline"], ["lm", "train", "{run}", "--system", "baseline"]),
    "lm/scheduled/model/config.json": ([], ["translate", "{run}", "{wav}", "-o", "{out}"]),
    "lm/scheduled/model/model.safetensors": ([], ["translate", "{run}", "{wav}", "-o", "{out}"]),
    "lm/scheduled/model/tokenizer.json": ([], ["translate", "{run}", "{wav}", "-o", "{out}"]),
    "lm/scheduled/model/tokenizer_config.json": ([], ["translate", "{run}", "{wav}", "-o", "{out}"]),
    "lm/scheduled/model/unitweave.json": ([], ["translate", "{run}", "{wav}", "-o", "{out}"]),
    "lm/scheduled/stage.json": (["score"], ["run", "{recipe}", "--out", "{run}"]),
    "vocoder/config.json": ([], ["translate", "{run}", "{wav}", "-o", "{out}"]),
    "vocoder/model.safetensors": ([], ["translate", "{run}", "{wav}", "-o", "{out}"]),
    "vocoder/stage.json": ([], ["run", "{recipe}", "--out", "{run}"]),
    "translate/scheduled/outputs.jsonl": (["score"], ["score", "{run}"]),
    "score/scores.json": ([], ["report", "{run}"]),
    "score/utterances.jsonl": ([], ["report", "{run}"]),
}
TEXTS = (
    '{"broken',
    "[]",
    "{}",
    "null",
    "[" * 3000,
    "2026-13-45",
    '{"format": 1}',
    "\udc80",
    "a: [b",
    "{" * 9 + "}" * 9,
)


def mutations(name: str, content: bytes, rng: random.Random) -> Iterator[tuple[str, bytes | None]]:
    """What may befall a file: (what, the new content; None where it is gone)."""
    yield "missing", None
    yield "empty", b""
    yield "cut in half", content[: len(content) // 2]
    yield "a few bytes", content[: rng.randint(1, 12)]
    yield "noise", rng.randbytes(200)
    place = rng.randrange(max(1, min(len(content), 400)))
    yield f"byte {place} flipped", content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]
    if name.endswith((".json", ".yaml", ".jsonl")):
        for text in TEXTS:
            yield text[:20], text.encode("utf-8", "surrogateescape")
    if name.endswith(".json"):
        value = json.loads(content)
        for key in list(value)[:8] if isinstance(value, dict) else []:
            yield f"without {key}", json.dumps({k: v for k, v in value.items() if k != key}).encode()
            yield f"{key} is a list", json.dumps(value | {key: [[1]]}).encode()
        numbers = [key for key, held in value.items() if type(held) is int] if isinstance(value, dict) else []
        for key in numbers:
            for number in (10**9, -1, 0):
                yield f"{key} is {number}", json.dumps(value | {key: number}).encode()


def foreign_keys(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Keys of a model's configuration that would load code or weights from elsewhere, or fill the memory."""
    value = json.loads(content)
    for key, foreign in (
        ("auto_map", {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}),
        ("quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
        ("attn_implementation", "kernels-community/flash-attn"),
        ("_attn_implementation", "kernels-community/flash-attn"),
        ("vocab_size", 1_000_000_000),
        ("model_type", "nothing"),
        ("hidden_size", -1),
        ("num_hidden_layers", 10**7),
    ):
        yield f"{key}: {foreign}", json.dumps(value | {key: foreign}).encode()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, finished_run: tuple[Path, Path]) -> tuple[Path, Path]:
    """A tiny run of every stage, and its recipe."""
    return shutil.copytree(finished_run[0], tmp_path_factory.mktemp("fuzz") / "run"), finished_run[1]


def outcome(arguments: list[str], capsys: pytest.CaptureFixture) -> tuple[int, str]:
    capsys.readouterr()
    code = main(arguments)
    return code, capsys.readouterr().err


@contextmanager
def little_memory(gib: int = 8) -> Iterator[None]:
    """So much more memory than now and no more: what a damaged size asks for must not take down the machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + (gib << 30), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def said_in_one_line(error: str) -> bool:
    """Whether the last line is ours, names no exception, and no line before it is part of a traceback."""
    lines = [line for line in error.strip().splitlines() if line]
    named = re.search(r"Traceback|\w+Error\b|\w+Exception\b", error)
    return bool(lines) and lines[-1].startswith("unitweave: ") and not named and len(lines[-1]) < 1000


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_artifact_is_one_line_and_nothing_else_changes(
    name: str, finished: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run, recipe = finished
    taken, command = READERS[name]
    if not (run / name).exists():
        pytest.skip(f"this run has no {name}")
    rng = random.Random(f"{SEED} {name}")
    content = (run / name).read_bytes()
    cases = list(mutations(name, content, rng))
    if name.endswith("model/config.json"):
        cases += foreign_keys(content)
    cases = rng.sample(cases, min(CASES, len(cases)))
    wav = next((run / "corpus").rglob("*test*.wav"))
    faults = []
    for number, (what, changed) in enumerate(cases):
        copy = tmp_path / str(number) / "run"
        shutil.copytree(run, copy)
        for stage in taken:
            shutil.rmtree(copy / stage)
        (copy / name).unlink()
        if changed is not None:
            (copy / name).write_bytes(changed)
        before = digests(copy)
        places = {"run": copy, "recipe": recipe, "wav": wav, "out": tmp_path / str(number) / "out"}
        try:
            with little_memory():
                code, error = outcome([word.format(**places) for word in command], capsys)
        except BaseException as problem:
            faults.append(f"{what}: {type(problem).__name__}: {str(problem)[:200]}")
            continue
        if code not in (0, 2) or (code == 2 and not said_in_one_line(error)):
            faults.append(f"{what}: exit code {code}: {error[-300:]}")
        after = digests(copy)
        left = [path for path in after if ".tmp-" in path]
        lost = [path for path in before if path != name and path not in after] if code == 2 else []
        if left or lost:
            faults.append(f"{what}: left over {left[:3]}, lost {lost[:3]}")
        shutil.rmtree(tmp_path / str(number))
    assert not faults, "\n".join(faults)


def settings_of(kind: type, prefix: str = "") -> Iterator[str]:
    """The dotted name of every setting of a dataclass, those inside others too."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        hint, name = hints[field.name], f"{prefix}{field.name}"
        inner = next((part for part in (hint, *get_args(hint)) if isinstance(part, type) and is_dataclass(part)), None)
        if name == "systems":
            yield from settings_of(get_args(hint)[1], "systems.scheduled.")
        elif inner is not None:
            yield from settings_of(inner, f"{name}.")
        else:
            yield name


IMPOSSIBLE: tuple[Any, ...] = ({"x": [1, {"y": 2}]}, float("nan"), -(10**9), float("inf"), [[[]]], "\x00no", 1e309)


@pytest.mark.parametrize("name", list(settings_of(Recipe)))
def test_an_impossible_setting_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    faults = []
    values = [
        IMPOSSIBLE[0],
        *random.Random(f"{SEED} {name}").sample(IMPOSSIBLE[1:], min(CASES - 1, len(IMPOSSIBLE) - 1)),
    ]
    for number, value in enumerate(values):
        content: dict[str, Any] = {}
        place = content
        *outer, last = name.split(".")
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = value
        # No source of a corpus, or two: what the settings let pass ends there.
        if not name.startswith("corpus.manifest"):
            content.setdefault("corpus", {})
        if name.startswith(("corpus.embedded.", "corpus.spoken.")):
            content["corpus"]["manifest"] = "/nowhere"
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump(content, allow_unicode=True))
        try:
            code, error = outcome(["run", str(path), "--out", str(tmp_path / "run")], capsys)
        except BaseException as problem:
            faults.append(f"{value!r}: {type(problem).__name__}: {str(problem)[:200]}")
            continue
        if code != 2 or not said_in_one_line(error):
            faults.append(f"{value!r}: exit code {code}: {error[-300:]}")
        elif number == 0 and last not in error and not last.endswith("options"):  # these take any mapping
            faults.append(f"{value!r}: the line does not name {last}: {error[-300:]}")
    assert not faults, "\n".join(faults)
    assert not list(tmp_path.glob("run/**/*.parquet"))
