"""Live translation of a test set: latencies of an utterance by hand, and the log that the field's evaluators read."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from helpers.serving import make_run, speech
from unitweave.config.live import LiveSettings
from unitweave.core.errors import InputError
from unitweave.core.manifest import Pair
from unitweave.metrics.latency import Chunk, average_token_delay
from unitweave.score.live import (
    LiveScore,
    Source,
    evaluate_live,
    evaluate_offline,
    join_sources,
    measure_latency,
    read_sources,
)
from unitweave.score.live_log import text_instance
from unitweave.score.live_report import draw, table
from unitweave.translate.live.events import CommittedText, LiveEvent
from unitweave.translate.translator import Translator
from unitweave.translate.vad import SpeechDetector


def test_latency_of_an_utterance_by_hand() -> None:
    # 4 s of source; a second of speech after 1 s, another one after 3 s; computing takes half a second each time.
    chunks = [Chunk(1.0, 1.0, 1.5), Chunk(3.0, 1.0, 3.5)]
    words = [("a", 0.2, 0.6), ("b", 0.6, 1.0), ("lost", 0.0, 0.0), ("c", 1.0, 1.6), ("d", 1.6, 2.0)]
    found = measure_latency(chunks, words, 4.0)
    assert (found.start_offset, found.end_offset) == (1.0, 0.0)
    # Words begin at 1.2, 1.6, 3.0 and 3.6; the ideal ones at 0, 1, 2 and 3.
    assert found.laal == pytest.approx((1.2 + 0.6 + 1.0 + 0.6) / 4)
    assert found.atd == average_token_delay(chunks)
    assert found.first_speech == 1.0 and measure_latency(chunks, words, 4.0, first_word=0.4).first_speech == 0.6
    aware = measure_latency(chunks, words, 4.0, computation_aware=True)
    assert (aware.start_offset, aware.end_offset) == (1.5, 0.5)
    assert aware.laal == pytest.approx((1.7 + 1.1 + 1.5 + 4.1 - 3) / 4)
    # The second chunk waits for the first one, which is longer than what was heard meanwhile.
    late = measure_latency([Chunk(1.0, 3.0, 1.0), Chunk(2.0, 1.0, 2.0)], [("a", 0.0, 3.0), ("b", 3.0, 4.0)], 4.0)
    assert late.end_offset == 1.0 and late.laal == pytest.approx((1.0 + 2.0) / 2)


class Spelled:
    """A recognizer that writes down how loud it is."""

    signature = "spelled"
    normalizer = "none"

    def transcribe(self, waveforms, language="en"):
        return [f"loud {int(1000 * np.abs(w).mean())}" for w in waveforms]

    def clean_hypothesis(self, text: str, language: str = "en") -> str:
        return text

    clean_reference = clean_hypothesis


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory, text_lm_folder: Path) -> Translator:
    return Translator.from_pretrained(make_run(tmp_path_factory.mktemp("run"), text_lm_folder))


@pytest.mark.slow
def test_the_log_has_what_evaluators_read(
    translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SpeechDetector, "probability", lambda self, window: float(np.abs(window).max() > 0.1))
    sources = [Source("a", 3 * speech(1.7), "one two"), Source("b", np.zeros(20_000, np.float32), "three four")]
    settings = LiveSettings(policy="agreement")
    score = evaluate_live(translator, settings, sources, Spelled(), tmp_path / "agreement")
    lines = [json.loads(line) for line in (tmp_path / "agreement/instances.log").read_text().splitlines()]
    assert [line["index"] for line in lines] == [0, 1] and score.utterances == 2 and score.silent == 1
    spoken, silent = lines
    assert silent["delays"] == [] and silent["prediction_offset"] == silent["source_length"] == 1250
    assert spoken["source_length"] == 1700 and max(spoken["delays"]) <= 1700
    assert len(spoken["delays"]) == len(spoken["durations"]) == len(spoken["elapsed"]) == len(spoken["intervals"])
    assert all(e >= d for d, e in zip(spoken["delays"], spoken["elapsed"], strict=True))
    starts, lengths = np.array(spoken["intervals"]).T
    assert (starts[1:] >= starts[:-1] + lengths[:-1] - 1e-6).all()
    samples, rate = soundfile.read(spoken["prediction"])
    assert rate == 16_000 and 1000 * len(samples) / rate == pytest.approx(spoken["prediction_length"])
    assert spoken["prediction_length"] == pytest.approx(starts[-1] + lengths[-1] - starts[0], abs=0.1)
    # Texts as SimulEval and OmniSTEval read them: a time for each word, of when it was committed.
    texts = [json.loads(line) for line in (tmp_path / "agreement/text/instances.log").read_text().splitlines()]
    assert [line["prediction"] for line in texts][1] == "" and texts[1]["delays"] == texts[1]["elapsed"] == []
    assert len(texts[0]["prediction"].split()) == len(texts[0]["delays"]) == texts[0]["prediction_length"] > 0
    assert texts[0]["delays"] == sorted(texts[0]["delays"]) and max(texts[0]["delays"]) <= 1700
    segments = yaml.safe_load((tmp_path / "agreement/text/segments.yaml").read_text())
    assert segments == [
        {"wav": "a", "offset": 0.0, "duration": 1.7},
        {"wav": "b", "offset": 0.0, "duration": 1.25},
    ]
    assert (tmp_path / "agreement/text/references.txt").read_text() == "one two\nthree four\n"
    # The score is the log's.
    chunks = [
        Chunk(d / 1000, s / 1000, e / 1000)
        for d, s, e in zip(spoken["delays"], spoken["durations"], spoken["elapsed"], strict=True)
    ]
    assert score.delays is not None and score.elapsed is not None
    assert score.delays.atd == pytest.approx(average_token_delay(chunks), abs=1e-3)
    assert score.elapsed.atd == pytest.approx(average_token_delay(chunks, True), abs=1e-3)
    assert score.delays.start_offset == pytest.approx(spoken["intervals"][0][0] / 1000, abs=1e-3)

    def fail(*_: object) -> None:
        raise AssertionError("it was evaluated again")

    monkeypatch.setattr("unitweave.score.live.replay", fail)
    assert evaluate_live(translator, settings, sources, Spelled(), tmp_path / "agreement") == score
    monkeypatch.undo()
    monkeypatch.setattr(SpeechDetector, "probability", lambda self, window: float(np.abs(window).max() > 0.1))
    # On a machine that takes seconds for each answer the same is said, after as much of the source; only later.
    monkeypatch.setattr("unitweave.score.live_replay.answer_timed", lambda one, asked: (one.answer_all(asked), 18.0))
    slow = evaluate_live(translator, settings, sources, Spelled(), tmp_path / "slow", batch_size=2)
    assert (slow.asr_bleu, slow.text_bleu, slow.delays) == (score.asr_bleu, score.text_bleu, score.delays)
    assert slow.elapsed is not None and slow.elapsed.start_offset >= 9 and slow.computing > 9
    monkeypatch.undo()
    offline = evaluate_offline(translator, sources[:1], Spelled(), tmp_path / "offline")
    assert offline.delays is None and offline.computing > 0
    monkeypatch.setattr(Translator, "translate_all", fail)
    assert evaluate_offline(translator, sources[:1], Spelled(), tmp_path / "offline") == offline
    monkeypatch.undo()
    rows = table([offline, score]).splitlines()
    assert len(rows) == 4 and rows[3].startswith("| agreement n=2, 0.5 s |")
    other = LiveScore(**(asdict(score) | {"name": "utterance", "delays": score.delays, "elapsed": score.elapsed}))
    draw([("one", [offline, score, other]), ("two", [offline, other])], tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 5000


def test_a_disk_that_is_full_when_the_picture_is_drawn_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")  # without a name, as Pillow raises it

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(InputError, match=r"p\.png: no space left"):
        draw([("one", [LiveScore("offline", 1, 1.0, 1.0, 0, None, None, 0.1)])], tmp_path / "p.png")


def committed(*texts: tuple[int, str, float]) -> list[tuple[LiveEvent, float]]:
    return [(CommittedText(number, heard, heard, text), heard + 0.2) for number, text, heard in texts]


def test_each_word_of_the_log_of_texts_has_the_time_at_which_its_last_part_was_committed() -> None:
    source = Source("x", np.zeros(16_000 * 9, np.float32), "a reference")
    line = text_instance(0, source, committed((0, "well", 1.0), (0, "-known facts", 2.0), (1, "are old", 9.5)))
    assert line["prediction"] == "well-known facts are old" and line["source"] == ["x"]
    assert line["delays"] == [2000.0, 2000.0, 9000.0, 9000.0]  # no more than there is can be heard
    assert line["elapsed"] == pytest.approx([2200, 2200, 9700, 9700])
    japanese = text_instance(
        0, source, committed((0, "\u732b\u304c", 1.0), (0, "\u3044\u308b", 2.0), (1, "\u72ac", 3.0))
    )
    assert japanese["prediction"] == "\u732b\u304c\u3044\u308b\u72ac" and japanese["prediction_length"] == 5
    assert japanese["delays"] == [1000, 1000, 2000, 2000, 3000]


def test_recordings_are_joined_with_pauses(tmp_path: Path) -> None:
    for name in "abcdefg":
        soundfile.write(tmp_path / f"{name}.wav", speech(0.5), 16_000)
    pairs = [Pair(n, "test", "es", "en", str(tmp_path / f"{n}.wav"), None, f"dice {n}", f"text {n}") for n in "abcdefg"]
    sources = read_sources(pairs, 40)
    assert len(sources) == 7 and len(read_sources(pairs, 2)) == 2
    joined = join_sources(sources, 10)
    assert " ".join(one.reference for one in joined).startswith("text a text b") and len(joined) < 4
    for one in joined:
        count = len(one.reference.split()) // 2
        assert one.transcript == one.reference.replace("text", "dice") and 2 <= count <= 4
        pauses = len(one.waveform) / 16_000 - 0.5 * count
        assert 0.2 * (count - 1) <= pauses <= 0.8 * (count - 1)
        assert " ".join(segment.reference for segment in one.segments) == one.reference
        for segment in one.segments:
            begin = round(segment.offset * 16_000)
            part = one.waveform[begin : begin + round(segment.duration * 16_000)]
            np.testing.assert_array_equal(part, sources[0].waveform)
    assert [len(one.waveform) for one in join_sources(sources, 10)] == [len(one.waveform) for one in joined]
    assert len(join_sources(sources, 1)) == 1 and join_sources(sources[:1], 5) == []
    with pytest.raises(InputError, match="no recordings"):
        read_sources([], 40)
