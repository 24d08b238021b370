"""Kokoro's voices in the embedded corpus and in `corpus speak`: who speaks, resumable to the byte, and what is missing.

The model is a stub: packages of Kokoro's names that make a tone, with noise from a generator that goes on from call to
call, as the model's own does.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from unitweave.cli import main
from unitweave.config.corpus import EmbeddedCorpus, SynthesizedCorpus
from unitweave.config.recipe import parse_recipe
from unitweave.core.audio import read_audio
from unitweave.core.errors import InputError
from unitweave.core.manifest import Pair, read_manifest, write_manifest
from unitweave.corpus import kokoro
from unitweave.corpus.embedded import engines
from unitweave.corpus.embedded.corpus import build_embedded, plan_digest
from unitweave.corpus.embedded.voices import speakers, target_voice
from unitweave.pipeline import Run

RUNTIME = """
import numpy as np
SEED = [None]
def set_seed(seed): SEED[0] = seed
class SessionOptions: pass
class Input:
    def __init__(self, name): self.name = name
class InferenceSession:
    def __init__(self, path, options, providers):
        self.noise = np.random.default_rng(SEED[0])
    def get_inputs(self): return [Input("tokens"), Input("style"), Input("speed")]
    def run(self, _, inputs):
        number = int(1500 * inputs["tokens"].shape[1] / inputs["speed"][0])
        tone = np.sin(np.arange(number) * 0.02 * (1 + inputs["style"][0, 0]))
        return [(0.5 * tone + 0.05 * self.noise.standard_normal(number)).astype(np.float32)]
"""
PHONEMES = """
class EspeakG2P:
    def __init__(self, language): self.language = language
    def __call__(self, text): return ("" if "zzz" in text else text.lower()), None
"""
VOICES = ["af_heart", "af_sky", "am_adam", "am_puck", "bf_emma", "ef_dora", "em_alex", "em_santa", "ff_siwis"]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The stub's folder; its packages are found here and by the workers."""
    site, folder = tmp_path / "site", tmp_path / "kokoro"
    for name, content in (("onnxruntime", RUNTIME), ("misaki", ""), ("phonemizer", ""), ("espeakng_loader", "")):
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text(content)
    (site / "misaki/espeak.py").write_text(PHONEMES)
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"stub")
    vocabulary = {sign: number for number, sign in enumerate(" abcdeioust")}
    (folder / "config.json").write_text(json.dumps({"sample_rate": 24000, "vocab": vocabulary}))
    styles = {name: np.full((510, 256), 0.1 * i, np.float32) for i, name in enumerate(VOICES)}
    save_file(styles, folder / "voices.safetensors")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", f"{site}:{os.environ.get('PYTHONPATH', '')}")
    yield str(folder)
    kokoro.voices.cache_clear()
    kokoro.model_digest.cache_clear()


def _settings(model: str, **changes: object) -> EmbeddedCorpus:
    chosen = {"engines": ["kokoro"], "target_engine": "kokoro", "kokoro": model, "train": 6, "dev": 1, "test": 4}
    return EmbeddedCorpus(**(chosen | {"topics": ["daily"], "workers": 2} | changes))  # type: ignore[arg-type]


def _bytes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.wav")}


@pytest.mark.processes
def test_a_corpus_in_kokoros_voices_goes_on_with_the_same_bytes(model: str, tmp_path: Path) -> None:
    settings = _settings(model)
    outcome = build_embedded(tmp_path / "one", settings)
    pairs = read_manifest(tmp_path / "one")
    assert outcome.counts["pairs"] == len(pairs) == 11 and not outcome.skipped
    whole = _bytes(tmp_path / "one")
    trained = {pair.speaker for pair in pairs if pair.split == "train"}
    assert trained <= {f"es_kokoro_{name}{size}" for name in ("ef_dora", "em_alex") for size in ("", "_94", "_107")}
    held_out = [pair.speaker for pair in pairs if pair.split == "test" and pair.speaker not in trained]
    assert held_out.count("es_kokoro_em_santa") >= 2
    # Another number of workers, in another order, after an interruption: each recording begins with the same noise.
    for path in sorted((tmp_path / "one").rglob("*.wav"))[::3]:
        path.unlink()
    build_embedded(tmp_path / "one", _settings(model, workers=1))
    assert _bytes(tmp_path / "one") == whole
    assert 0.3 < read_audio(pairs[0].tgt_audio).shape[0] / 16000 == pytest.approx(pairs[0].tgt_seconds, abs=1e-3)


def test_who_speaks_and_who_is_kept_for_the_test(model: str) -> None:
    settings = _settings(model)
    for language, kept in (("es", {"em_santa"}), ("en", {"am_puck"}), ("fr", set())):
        seen, unseen = speakers(language, settings), speakers(language, settings, unseen=True)
        assert not {v.name for v in seen} & {v.name for v in unseen} and len({v.name for v in seen}) == len(seen)
        assert {v.voice.partition("+")[2] for v in unseen} == (kept or {"ff_siwis"})
        assert not kept & {v.voice.partition("+")[2] for v in seen}
    assert {v.voice for v in speakers("en", settings) if "bf" in v.name} == {"en-gb+bf_emma"}
    assert target_voice("en", settings).voice == "en-us+af_heart"
    assert target_voice("es", _settings(model, target_voice="em_alex")).voice == "es+em_alex"
    mixed = speakers("es", _settings(model, engines=["pico", "kokoro"], kokoro_voices=["ef_dora", "em_alex"]))
    assert {v.engine for v in mixed} == {"pico", "kokoro"}
    assert {v.voice for v in mixed if v.engine == "kokoro"} == {"es+ef_dora"}


def test_the_content_of_the_model_counts_and_not_its_place(model: str, tmp_path: Path) -> None:
    before = plan_digest(_settings(model))
    moved = tmp_path / "moved"
    Path(model).rename(moved)
    assert plan_digest(_settings(str(moved))) == before
    (moved / "model.onnx").write_bytes(b"another")
    kokoro.model_digest.cache_clear()
    assert plan_digest(_settings(str(moved))) != before


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"languages": ["de"]}, "kokoro: no speakers for the language 'de'; choose from: en, es, fr, it, pt"),
        ({"kokoro_voices": ["ef_dorra"]}, "embedded.kokoro_voices: .* has no voice 'ef_dorra'"),
        ({"target_voice": "nobody"}, "no voice 'nobody' in .*; its voices for en: af_heart, af_sky"),
        ({"kokoro": "nowhere"}, "nowhere"),
        ({"directions": ["es-pt"], "target_engine": "pico"}, "no voice for translations into 'pt'"),
    ],
)
def test_what_kokoro_does_not_have_is_one_line_before_anything_is_spoken(
    changes: dict[str, object], words: str, model: str
) -> None:
    with pytest.raises(InputError, match=words) as raised:
        plan_digest(_settings(model, **changes))
    assert "\n" not in str(raised.value)


def test_settings_without_a_folder_or_an_engine_are_refused(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    for changes, words in (
        ({"engines": ["kokoro"]}, "embedded.kokoro: name the folder that 'unitweave fetch kokoro' wrote"),
        ({"engines": []}, "embedded.engines: must be one or more different engines"),
    ):
        with pytest.raises(InputError, match=words):
            parse_recipe({"corpus": {"embedded": changes}})
    with pytest.raises(InputError, match=r"synthesized\.kokoro"):
        SynthesizedCorpus(text="x.tsv", target_engine="kokoro")
    monkeypatch.setitem(engines.ENGINES, "kokoro", ("no-such-package",))
    with pytest.raises(InputError, match=r"needs the package no-such-package: pip install 'unitweave\[kokoro\]'"):
        plan_digest(_settings(model))


@pytest.mark.processes
def test_corpus_speak_has_the_same_voices_and_names_what_cannot_be_spoken(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    texts = ["A cat is a cat.", "Do it as I do.", "It is so.", "zzz"]
    pairs = [
        Pair(f"r{i}", "train", "es", "en", None, None, src_text="hola", tgt_text="a", tgt_text_raw=text)
        for i, text in enumerate(texts)
    ]
    write_manifest(tmp_path / "corpus", pairs, {})
    arguments = ["corpus", "speak", str(tmp_path / "corpus"), "--engine", "kokoro", "--model", model]
    assert main([*arguments, "--out", str(tmp_path / "one")]) == 0
    assert main([*arguments, "--out", str(tmp_path / "two"), "--workers", "1"]) == 0
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / x).rglob("*.flac")} for x in ("one", "two"))
    assert one == two and len(one) == 3
    assert "the text has 0 phonemes" in (tmp_path / "one/skipped.tsv").read_text()
    capsys.readouterr()
    assert main([*arguments, "--out", str(tmp_path / "three"), "--voice", "nobody"]) == 2
    assert "kokoro has no voice 'nobody'" in capsys.readouterr().err


@pytest.mark.processes
def test_a_run_speaks_with_kokoro_and_is_done_when_the_folder_moves(model: str, tmp_path: Path) -> None:
    def run(folder: str) -> str:
        chosen = {"engines": ["kokoro"], "target_engine": "kokoro", "kokoro": folder, "train": 2, "dev": 1, "test": 1}
        recipe = parse_recipe({"corpus": {"embedded": chosen | {"topics": ["daily"]}}, "systems": {"scheduled": {}}})
        return Run(tmp_path / "run", recipe).corpus()

    first = run(model)
    made = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.wav")}
    Path(model).rename(tmp_path / "moved")
    assert run(str(tmp_path / "moved")) == first
    assert made == {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.wav")}
