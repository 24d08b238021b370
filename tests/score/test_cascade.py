"""A cascade of recognizer, translator and speech engine as a row beside the systems of a run."""

import json
import shlex
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

from helpers.cvss_miniature import tone
from unitweave.config.recipe import parse_recipe
from unitweave.config.score import CascadeSettings, ScoreSettings
from unitweave.config.translate import TranslateSettings
from unitweave.core.audio import read_audio
from unitweave.core.errors import InputError
from unitweave.core.manifest import Pair, write_manifest
from unitweave.score import score as stage
from unitweave.score.asr.recognizers import NoRecognizer
from unitweave.score.cascade import TranslationModel, check_cascade, translate_by_cascade
from unitweave.score.scores import read_scores, read_utterances

GERMAN, SPANISH = ["die Suppe ist heiß", "wo ist der Bahnhof"], ["la sopa está caliente", "dónde está la estación"]
ENGLISH = ["the soup is hot", "where is the station"]
PYTHON = shlex.quote(sys.executable)
PARTS = types.SimpleNamespace(
    recognize=lambda waveform, language: (GERMAN if language == "de" else SPANISH)[round(len(waveform) / 16_000) - 1],
    translate=lambda texts, source, target: [ENGLISH[(GERMAN + SPANISH).index(text) % 2] for text in texts],
    speak=lambda text, language: (tone(len(text.split()) / 4, 8_000, 1), 8_000),
)
FUNCTIONS = {
    "recognizer": {"engine": "function", "function": "parts:recognize"},
    "translator": {"engine": "function", "function": "parts:translate"},
    "speech": {"engine": "function", "function": "parts:speak"},
}


def cascade(**parts: dict) -> CascadeSettings:
    """A cascade as a recipe names it."""
    return parse_recipe({"score": {"cascades": {"x": FUNCTIONS | parts}}}).score.cascades["x"]


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Pair]:
    """Four utterances of two source languages, and a system that has translated them into noise."""
    monkeypatch.setitem(sys.modules, "parts", PARTS)
    found = []
    for i, text in enumerate([*GERMAN, *SPANISH]):
        path, seconds = tmp_path / f"{i}.wav", i % 2 + 1.0
        soundfile.write(path, tone(seconds, 16_000, i), 16_000)
        texts = {"src_text": text.lower(), "tgt_text": ENGLISH[i % 2], "src_seconds": seconds}
        found.append(Pair(f"u{i}", "test", ("de", "es")[i // 2], "en", str(path), None, **texts))
    return found


@pytest.mark.processes
def test_functions_and_commands_give_the_same_cascade_in_shards_that_resume(pairs: list[Pair], tmp_path: Path) -> None:
    sizes = TranslateSettings(batch_size=2, shard_size=2)
    translate_by_cascade(tmp_path / "functions", cascade(), sizes, pairs)
    lines = [json.loads(line) for line in (tmp_path / "functions" / "outputs.jsonl").read_text().splitlines()]
    assert [line["transcript"] for line in lines] == [*GERMAN, *SPANISH]
    assert [line["translation"] for line in lines] == ENGLISH * 2 and [line["id"] for line in lines] == [
        "u0",
        "u1",
        "u2",
        "u3",
    ]
    spoken = read_audio(tmp_path / "functions" / lines[0]["audio"])
    assert len(spoken) == pytest.approx(16_000, abs=20), "four words of a quarter of a second"

    program = tmp_path / "parts.py"
    program.write_text(
        "import sys, wave\n"
        f"german, spanish, english = {GERMAN!r}, {SPANISH!r}, {ENGLISH!r}\n"
        "if sys.argv[1] == 'recognize':\n"
        "    seconds = wave.open(sys.argv[2]).getnframes() / 16000\n"
        "    print({'de': german, 'es': spanish}[sys.argv[3]][round(seconds) - 1])\n"
        "elif sys.argv[2:] == ['fail']:\n"
        "    sys.exit('no such model')\n"
        "else:\n"
        "    for line in sys.stdin.read().splitlines():\n"
        "        print(english[(german + spanish).index(line) % 2])\n"
    )
    call = f"{PYTHON} {shlex.quote(str(program))}"
    commands = {
        "recognizer": {"engine": "command", "command": call + " recognize {audio} {language}"},
        "translator": {"engine": "command", "command": call + " translate {source} {target}"},
    }
    translate_by_cascade(tmp_path / "commands", cascade(**commands), sizes, pairs)
    assert (tmp_path / "commands" / "outputs.jsonl").read_bytes() == (
        tmp_path / "functions" / "outputs.jsonl"
    ).read_bytes()
    broken = commands | {"translator": {"engine": "command", "command": call + " translate fail"}}
    with pytest.raises(InputError, match="exit code 1: no such model"):
        translate_by_cascade(tmp_path / "broken", cascade(**broken), sizes, pairs)
    translate_by_cascade(tmp_path / "broken", cascade(**commands), sizes, pairs)
    assert (tmp_path / "broken" / "outputs.jsonl").read_bytes() == (
        tmp_path / "functions" / "outputs.jsonl"
    ).read_bytes()


def test_a_cascade_is_a_row_beside_the_systems(
    pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_manifest(tmp_path / "corpus", [*pairs, Pair("t", "train", "de", "en", None, None, "a", "a")])
    translate_by_cascade(tmp_path / "translate" / "cascade", cascade(), TranslateSettings(), pairs)
    (tmp_path / "translate" / "ours").mkdir(parents=True)
    with (tmp_path / "translate" / "ours" / "outputs.jsonl").open("w") as file:
        for pair in pairs:
            soundfile.write(tmp_path / "translate" / "ours" / f"{pair.id}.wav", tone(0.5, 16_000, 3), 16_000)
            line = {"id": pair.id, "audio": f"{pair.id}.wav", "transcript": "la", "translation": "the", "units": [1, 2]}
            file.write(json.dumps(line) + "\n")

    class Recites(NoRecognizer):
        def transcribe(self, waveforms, language="en"):
            return [ENGLISH[0] if len(waveform) > 15_000 else "" for waveform in waveforms]

    monkeypatch.setattr(stage, "choose_recognizer", lambda *_: ("recites", ""))
    monkeypatch.setattr(stage, "load_recognizer", lambda *_: Recites())
    outputs = {name: tmp_path / "translate" / name for name in ("ours", "cascade")}
    settings = ScoreSettings(mos=[], bootstrap_samples=0, randomization_trials=10, examples=1)
    places = (tmp_path / name for name in ("corpus", "units", "vocoder"))
    stage.score_run(tmp_path / "score", settings, *places, outputs)
    row = read_scores(tmp_path / "score").systems["cascade"]
    assert row.text_bleu.score == pytest.approx(100) and row.transcript_wer.score == 0
    assert row.unit_error_rate is None and row.agreement_wer.score == 50 and set(row.languages) == {"de", "es"}
    assert row.duration_ratio == pytest.approx(2 / 3, abs=0.01)
    assert read_utterances(tmp_path / "score")[0].outputs["cascade"].translation == ENGLISH[0]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"recognizer": {"engine": "command", "command": "asr"}}, "must name the recording to transcribe as {audio}"),
        ({"recognizer": {"engine": "function"}}, "function: must be given"),
        ({"translator": {"engine": "model"}}, "name a translation model"),
        ({"translator": {"engine": "elsewhere"}}, "must be one of"),
        ({"speech": {"engine": "command"}}, "--command"),
        ({"recognizer": {"engine": "moonshine"}}, "does not support de"),
        ({"translator": {"engine": "function", "function": "parts:nothing"}}, "could not be imported"),
    ],
)
def test_a_part_that_is_not_there_is_said_before_anything_is_trained(
    pairs: list[Pair], parts: dict, message: str
) -> None:
    with pytest.raises(InputError) as raised:
        check_cascade("x", cascade(**parts), {(pair.src_lang, pair.tgt_lang) for pair in pairs})
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_a_translator_that_loses_a_sentence_is_refused(pairs: list[Pair], tmp_path: Path) -> None:
    PARTS.lose = lambda texts, source, target: texts[1:]
    lossy = cascade(translator={"engine": "function", "function": "parts:lose"})
    with pytest.raises(InputError, match="gave 1 translations of 2 sentences"):
        translate_by_cascade(tmp_path / "x", lossy, TranslateSettings(), pairs)
    with pytest.raises(InputError, match="has letters, digits"):
        ScoreSettings(cascades={"../x": cascade()})


@pytest.mark.parametrize("part", ["recognizer", "translator"])
def test_functions_that_give_no_text_or_raise_are_named(pairs: list[Pair], tmp_path: Path, part: str) -> None:
    number = {"recognizer": lambda waveform, language: None, "translator": lambda texts, *_: [None] * len(texts)}
    PARTS.nothing, PARTS.broken = number[part], lambda *_: 1 / 0
    for name, message in (("nothing", r"must return text \(got None\)"), ("broken", "raised ZeroDivisionError")):
        settings = cascade(**{part: {"engine": "function", "function": f"parts:{name}"}})
        with pytest.raises(InputError, match=f"{part}.function parts:{name}.*{message}"):
            translate_by_cascade(tmp_path / name, settings, TranslateSettings(), pairs)


@pytest.mark.parametrize("codes", [("eng_Latn", "spa_Latn"), ("en_XX", "es_XX"), ("en", "es")])
def test_translation_models_of_many_languages_are_told_the_target(tmp_path: Path, codes: tuple[str, str]) -> None:
    words = ["<pad>", "<s>", "</s>", "<unk>", *codes, *"abcdefgh"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=len(words), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=64, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None,
    )  # fmt: skip
    BartForConditionalGeneration(config).save_pretrained(tmp_path)
    model = TranslationModel(str(tmp_path))
    model._tokenizer.src_lang = None
    first: list[int] = []
    generate = model._model.generate

    def spied(**inputs: object) -> torch.Tensor:
        first.append(inputs["forced_bos_token_id"])
        return generate(**inputs, max_new_tokens=4)

    model._model.generate = spied
    found = model.translate(["a b", "c d e f"], "en", "es")
    assert len(found) == 2 and first == [words.index(codes[1])] and model._tokenizer.src_lang == codes[0]
    assert not np.any([code in text for code in codes for text in found if code != codes[1]])
    with pytest.raises(InputError, match="does not know the language 'xx'"):
        model.translate(["a"], "en", "xx")
    with pytest.raises(InputError, match=r"translator\.model: .*no such model folder"):
        TranslationModel(str(tmp_path / "nothing"))
