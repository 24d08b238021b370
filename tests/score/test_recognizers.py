"""The recognizers: the embedded one on real speech, the hub ones on tiny checkpoints of their classes."""

import json
import sys

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from helpers.encoders import random_checkpoint
from unitweave.core.errors import InputError
from unitweave.core.progress import meter
from unitweave.metrics.bleu import bleu
from unitweave.metrics.error_rates import word_error_rate
from unitweave.score.asr.recognizers import choose_recognizer, load_recognizer
from unitweave.score.asr.recognizers.fairseq import collapse
from unitweave.score.asr.recognizers.moonshine import Moonshine
from unitweave.score.asr.transcripts import AudioSource, transcribe

pytestmark = pytest.mark.slow

SENTENCES = [
    "i would like a cup of coffee please",
    "it is very cold today",
    "he does not want to go to the doctor",
    "yes",
]


@pytest.fixture(scope="module")
def speech():
    engine = pytest.importorskip("ttspico").TtsEngine
    return [np.frombuffer(bytes(engine("en-US").speak(s)), np.int16).astype(np.float32) / 32768 for s in SENTENCES]


def test_moonshine_understands_pico_and_does_not_depend_on_order_or_company(speech):
    pytest.importorskip("moonshine_voice")
    recognizer = load_recognizer("moonshine")
    texts = recognizer.transcribe(speech)
    assert word_error_rate([recognizer.clean_hypothesis(text) for text in texts], SENTENCES).score < 10
    assert recognizer.transcribe(speech[::-1]) == texts[::-1]
    assert recognizer.transcribe(speech[3:]) == texts[3:]
    assert recognizer.transcribe([]) == []
    assert "vad-off" in recognizer.signature


def test_moonshine_survives_silence_and_a_single_sample():
    pytest.importorskip("moonshine_voice")
    texts = load_recognizer("moonshine").transcribe([np.zeros(8000, np.float32), np.zeros(1, np.float32)])
    assert all(isinstance(text, str) for text in texts)


def test_moonshine_compares_in_american_spelling():
    clean = Moonshine.clean_hypothesis
    assert clean(None, "The neighbours' favourite colour is grey.") == "the neighbors favorite color is gray"
    assert clean(None, "the theatre in the centre") == "the theater in the center"


def test_fairseq_protocol_by_hand():
    tokens = ["<pad>", "|", "A", "B", "'"]
    #       A  A  _  A  |  |  B  '  _  B  |
    path = [2, 2, 0, 2, 1, 1, 3, 4, 0, 3, 1]
    assert collapse(path, tokens, blank=0) == "AA B'B"
    # The hypothesis is lower-cased, the reference is not: with 13a, "Hello" is then a wrong word and
    # the full stop a missing one. Precisions 3/4, 2/3, 1/2, 1/2 (the last is 0 of 1, smoothed "exp"),
    # brevity penalty exp(1 - 5/4).
    score = bleu(["hello my dear friend"], ["Hello my dear friend."], samples=0)[0].score
    assert score == pytest.approx(100 * np.exp(1 - 5 / 4) * (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25)


@pytest.fixture(scope="module")
def tiny_ctc(tmp_path_factory):
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2ForCTC

    folder = tmp_path_factory.mktemp("ctc")
    vocabulary = {
        "<pad>": 0,
        "<s>": 1,
        "</s>": 2,
        "<unk>": 3,
        "|": 4,
        **{c: 5 + i for i, c in enumerate("ETAOINSHRDLU'")},
    }
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    convolutions = {
        "conv_dim": (8, 8),
        "conv_kernel": (10, 8),
        "conv_stride": (10, 8),
        "num_feat_extract_layers": 2,
    }
    config = Wav2Vec2Config(
        vocab_size=18, **sizes, **convolutions, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2
    )
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    return folder


def test_fairseq_recognizer_equals_transformers_own_greedy_decoding(tiny_ctc, speech):
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2ForCTC

    recognizer = load_recognizer("fairseq", str(tiny_ctc), "cpu")
    model, tokenizer = Wav2Vec2ForCTC.from_pretrained(tiny_ctc).eval(), Wav2Vec2CTCTokenizer.from_pretrained(tiny_ctc)
    for waveform, text in zip(speech, recognizer.transcribe(speech), strict=True):
        samples = torch.from_numpy((waveform - waveform.mean()) / np.sqrt(waveform.var() + 1e-5))[None]
        with torch.inference_mode():
            path = model(samples).logits.argmax(-1)[0]
        special = {"<s>", "</s>", "<unk>"}
        kept = [i for i in path.tolist() if tokenizer.convert_ids_to_tokens(i) not in special]
        if len(kept) == len(path):
            assert text == tokenizer.decode(path).strip()
        assert text == collapse(path.tolist(), recognizer._tokens, 0)
    assert recognizer.clean_hypothesis("HELLO THERE") == "hello there"
    assert recognizer.clean_reference("Hello, there. ") == "Hello, there."
    assert f"{tiny_ctc.name}@" in recognizer.signature


def test_whisper_recognizer_runs_a_tiny_checkpoint_and_normalises_both_sides(tmp_path, speech):
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    words = {"<|endoftext|>": 0, **{c: i + 1 for i, c in enumerate("abcdefghijklmnopqrstuvwxyzĠ")}}
    special = ["<|startoftranscript|>", *(f"<|{language}|>" for language in LANGUAGES), "<|translate|>"]
    special += ["<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    tokenizer = WhisperTokenizer(words, [], additional_special_tokens=special)
    tokenizer.english_spelling_normalizer = {"neighbour": "neighbor"}
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "normalizer.json").write_text(json.dumps({"neighbour": "neighbor"}))
    WhisperFeatureExtractor().save_pretrained(tmp_path)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_target_positions": 12}
    tokens = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "decoder_start_token_id": 28}
    torch.manual_seed(0)
    config = WhisperConfig(vocab_size=len(tokenizer), **sizes, **heads, **tokens)
    config.suppress_tokens = config.begin_suppress_tokens = None
    model = WhisperForConditionalGeneration(config)
    model.generation_config.update(max_length=10, is_multilingual=False, no_timestamps_token_id=len(tokenizer) - 1)
    model.save_pretrained(tmp_path)
    recognizer = load_recognizer("whisper", str(tmp_path), "cpu")
    texts = recognizer.transcribe(speech)
    assert len(texts) == len(speech) and recognizer.transcribe(speech) == texts
    assert recognizer.clean_reference("My neighbour's got 20 cats.") == "my neighbor has got 20 cats"
    assert recognizer.clean_hypothesis("Mr. Smith won't") == "mister smith will not"
    assert recognizer.clean_hypothesis("¡Cuesta 3 euros!", "es") == "cuesta tres euros"
    assert "es" in recognizer.normalization("es") and "english" in recognizer.normalization("en")


def test_a_recognizer_judges_only_languages_that_it_knows(tmp_path):
    assert choose_recognizer("auto", "", ["en", "en-US"]) == ("moonshine", "")
    for name, model in (("moonshine", ""), ("fairseq", ""), ("whisper", ""), ("whisper", "openai/whisper-tiny.en")):
        assert choose_recognizer(name, model, ["en"]) == (name, model)
        with pytest.raises(InputError, match=r"does not support es; it supports only en.*multilingual Whisper"):
            choose_recognizer(name, model, ["en", "es"])
    assert choose_recognizer("fairseq", "own/ctc", ["es"]) == ("fairseq", "own/ctc"), "its user knows"
    GenerationConfig(is_multilingual=True, lang_to_id={"<|en|>": 1, "<|es|>": 2}).save_pretrained(tmp_path)
    for name in ("whisper", "auto"):
        assert choose_recognizer(name, str(tmp_path), ["es", "en"]) == ("whisper", str(tmp_path))
        with pytest.raises(InputError, match="does not support sw; it supports only en, es"):
            choose_recognizer(name, str(tmp_path), ["sw"])


def test_each_utterance_is_transcribed_in_its_own_language(speech):
    class Polyglot:
        def transcribe(self, waveforms, language):
            return [f"{language} {len(waveform)}" for waveform in waveforms]

    waveforms = {str(i): speech[0][: 8000 + i] for i in range(5)}
    languages = {"0": "es", "1": "en", "3": "es"}
    source = AudioSource(list(waveforms), lambda ids: [waveforms[id] for id in ids], languages)
    with meter("", 5) as progress:
        found = transcribe(source, Polyglot(), None, progress)
    assert [one.text for one in found] == [f"{languages.get(id, 'en')} {len(w)}" for id, w in waveforms.items()]


def test_what_cannot_be_loaded_is_said_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"must be one of moonshine, .*whisper, or MODULE:CLASS \(got 'siri'\)"):
        load_recognizer("siri")
    with pytest.raises(InputError, match="could not load") as raised:
        load_recognizer("fairseq", str(tmp_path))
    assert "\n" not in str(raised.value)
    random_checkpoint(tmp_path / "whisper", "whisper")
    about = json.loads((tmp_path / "whisper/config.json").read_text())
    (tmp_path / "whisper/config.json").write_text(json.dumps(about | {"d_model": "abc"}))
    with pytest.raises(InputError, match=r"could not load the .*'d_model' expected int") as raised:
        load_recognizer("whisper", str(tmp_path / "whisper"))
    assert "\n" not in str(raised.value)


def test_a_recognizer_that_cannot_start_is_refused_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only the package itself: something that it imports may be missing, too."""
    monkeypatch.setitem(sys.modules, "moonshine_voice.transcriber", None)
    with pytest.raises(InputError, match="moonshine recognizer is not installed"):
        choose_recognizer("auto", "", ["en"])
