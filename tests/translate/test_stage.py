"""The translate stage: whole shards, the same bytes after an interruption, on two processes, through an engine."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from helpers.serving import NUM_UNITS, make_run, make_test_split
from helpers.shared_stages import translate
from unitweave.config.recipe import parse_recipe
from unitweave.config.translate import DecodingSettings, TranslateSettings
from unitweave.core.errors import InputError
from unitweave.core.manifest import Pair
from unitweave.translate import stage
from unitweave.translate.decode import PhaseDecoder
from unitweave.translate.loops import LOOP_WINDOW
from unitweave.translate.translator import Translator
from unitweave.translate.vllm import EngineDecoder, Request, start_vllm

UTTERANCES = 10


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, text_lm_folder: Path) -> Path:
    made = make_run(tmp_path_factory.mktemp("run"), text_lm_folder)
    make_test_split(made, UTTERANCES)
    return made


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "shards"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole")
    assert translate(run, out)["utterances"] == UTTERANCES
    return contents(out)


@pytest.mark.slow
def test_a_translation_that_was_interrupted_ends_in_the_same_bytes(
    run: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []

    def counted(model: Path, settings: TranslateSettings, stop_after: int) -> Callable:
        decode = PhaseDecoder.load(model)

        def work(pairs: list[Pair], units: list[np.ndarray]) -> list:
            if len(decoded) == stop_after:
                raise KeyboardInterrupt
            decoded.append(len(units))
            return decode.translate(units, settings)

        return work

    monkeypatch.setattr(stage, "_decoder", lambda model, settings: counted(model, settings, stop_after=3))
    with pytest.raises(KeyboardInterrupt):
        translate(run, tmp_path)
    assert not (tmp_path / "outputs.jsonl").exists() and len(list((tmp_path / "shards").iterdir())) == 1
    (tmp_path / "audio/u0.wav").write_bytes(b"half")
    decoded.clear()
    monkeypatch.setattr(stage, "_decoder", lambda model, settings: counted(model, settings, stop_after=-1))
    translate(run, tmp_path)
    assert sum(decoded) == UTTERANCES - 4, "the finished shard is kept"
    lines = (tmp_path / "shards/00000.jsonl").read_text().splitlines()[1:]  # after the digest
    half = [line["id"] for line in map(json.loads, lines)]
    assert "u0" not in half, "or the test would ask for too much"
    assert contents(tmp_path) == whole


@pytest.mark.slow
def test_shards_of_another_size_give_the_same_translations_and_are_not_taken_for_finished(
    run: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    for size in (3, 100):
        translate(run, tmp_path, shard_size=size, batch_size=3)
        assert (tmp_path / "outputs.jsonl").read_bytes() == whole["outputs.jsonl"]
    shard = tmp_path / "shards/00000.jsonl"
    shard.write_bytes(shard.read_bytes()[:-20])
    translate(run, tmp_path, shard_size=100, batch_size=3)
    assert (tmp_path / "outputs.jsonl").read_bytes() == whole["outputs.jsonl"], "a damaged shard is translated again"


@pytest.mark.slow
def test_shards_of_another_stage_or_without_their_speech_are_translated_again(
    run: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    for fingerprint in ("theirs", "ours"):
        (tmp_path / "stage.json").write_text(json.dumps({"fingerprint": fingerprint}))
        if fingerprint == "ours":
            for wav in (tmp_path / "audio").iterdir():
                wav.write_bytes(b"theirs")
        translate(run, tmp_path)
    (tmp_path / "audio/u0.wav").unlink()
    translate(run, tmp_path)
    assert contents(tmp_path) == whole | {"stage.json": (tmp_path / "stage.json").read_bytes()}


def test_the_size_of_shards_does_not_count_and_the_engine_does() -> None:
    plain = TranslateSettings().in_fingerprint()
    assert plain == TranslateSettings(shard_size=7).in_fingerprint() == vars(DecodingSettings())
    settings = TranslateSettings()
    settings.engine = "vllm"  # as where it is installed
    assert settings.in_fingerprint() != plain


def test_an_engine_that_is_not_installed_is_refused_before_anything_is_done() -> None:
    for further, named in (({}, "needs the package vllm"), ({"num_beams": 4}, "no beam search")):
        with pytest.raises(InputError, match=named):
            parse_recipe({"translate": {"engine": "vllm"} | further})


def transformers_generate(model: PreTrainedModel, asked: list[Request]) -> Callable[[list[Request]], list[list[int]]]:
    """vLLM's part, played by transformers: greedy, with allowed tokens and stop tokens for each request."""

    def generate(requests: list[Request]) -> list[list[int]]:
        asked.extend(requests)
        answers = []
        for request in requests:
            tokens: list[int] = []
            while len(tokens) < request.max_tokens and not (tokens and tokens[-1] in request.stop):
                with torch.inference_mode():
                    logits = model(torch.tensor([request.prompt + tokens])).logits[0, -1]
                tokens.append(request.allowed[int(logits[request.allowed].argmax())])
            answers.append(tokens)
        return answers

    return generate


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "happens"),
    [
        ({"max_unit_repeats": 1000}, "texts"),
        ({"max_unit_repeats": 2}, "repeats"),
        ({"max_unit_repeats": 1000, "max_units_per_frame": 30.0}, "loops"),
        ({"text_only": True}, "text only"),
        ({"max_text_tokens_per_second": 900.0, "text_only": True}, "phrases"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_engine_gives_what_the_phase_decoder_gives(run: Path, changes: dict, happens: str) -> None:
    translator = Translator.from_pretrained(run)
    settings = DecodingSettings(**({"max_text_tokens_per_second": 1.0, "max_units_per_frame": 0.2} | changes))
    sources = [np.arange(n) % NUM_UNITS for n in (9, 20)]
    asked: list[Request] = []
    generate = transformers_generate(translator.decoder.model, asked)
    found = EngineDecoder(run / "lm/scheduled/model", generate, settings).translate(sources)
    local = translator.decoder.translate(sources, settings)
    for a, b in zip(found, local, strict=True):
        assert (a.language, a.transcript, a.translation) == (b.language, b.transcript, b.translation)
        assert a.complete == b.complete and np.array_equal(a.units, b.units)
    lengths = [len(one.units) for one in found]
    if happens == "repeats":
        assert len(asked) > 10, "or no repetition was cut"
    if happens == "loops":
        assert any(not one.complete and LOOP_WINDOW <= len(one.units) < 300 for one in found), lengths
    if happens in ("text only", "phrases"):
        assert lengths == [0, 0] and len(asked) == 8
    if happens == "phrases":
        assert any(not one.complete and len(one.tokens) < 150 for one in local), "or no phrase was cut"


def test_vllm_is_told_to_keep_the_checkpoints_precision(text_lm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself it would round float32 to 16 bits."""
    asked: dict[str, object] = {}
    fake = SimpleNamespace(LLM=lambda folder, **settings: asked.update(settings), SamplingParams=dict)
    monkeypatch.setitem(sys.modules, "vllm", fake)
    start_vllm(text_lm_folder)
    assert asked["dtype"] == "float32"
