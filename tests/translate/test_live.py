"""Live translation: the state machine replayed in chunks of any size, policies, endpoints, files."""

import errno
import itertools
import struct
import wave
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.live import RATE, loud, signal
from helpers.serving import make_run, speech
from unitweave.config.live import LiveSettings
from unitweave.core.errors import InputError
from unitweave.core.signals import Stopped
from unitweave.translate.constraints import Translation
from unitweave.translate.decode import PhaseDecoder
from unitweave.translate.live.decoding import LiveDecoder, _supported
from unitweave.translate.live.endpoints import Endpointer, windows
from unitweave.translate.live.events import CommittedText, LiveEvent, PartialTranscript, SpeechChunk, UtteranceEnd
from unitweave.translate.live.hypotheses import Answer, Hypothesis, Request, SpeechRequest, Spoken, TextRequest, Word
from unitweave.translate.live.policies.agreement import Agreement
from unitweave.translate.live.policies.utterance import Utterance
from unitweave.translate.live.policies.wait_k import WaitK
from unitweave.translate.live.run import run_live
from unitweave.translate.live.session import LiveSession
from unitweave.translate.live.translator import LiveTranslator
from unitweave.translate.translator import Translator
from unitweave.vocoder.model import UnitVocoder
from unitweave.vocoder.synthesis import TrainedVocoder

WORDS = [f"w{i}" for i in range(40)]
POLICIES = ["utterance", "agreement", "wait-k"]


class Script:
    """A model that hears three words a second, the last of which it gets wrong until it has heard more."""

    def __init__(self, seconds: float = 0.1, unit_seconds: float = 0.02, early_speech: bool = True) -> None:
        self.seconds, self.unit_seconds, self.early_speech = seconds, unit_seconds, early_speech
        self.requests: list[Request] = []

    def answer(self, request: Request) -> tuple[Answer, float]:
        self.requests.append(request)
        if isinstance(request, TextRequest):
            count = int(3 * request.heard)
            said = WORDS[:count] + ([] if request.final else [f"wrong{count}"])
            committed = [word.text for word in request.committed]
            said = committed + said[len(committed) :]  # the forced prefix
            words = tuple(Word(text, (i,)) for i, text in enumerate(said))
            transcript = " ".join(WORDS[:count])
            return Hypothesis(request.heard, request.final, transcript, words, language="es"), self.seconds
        assert isinstance(request, SpeechRequest)
        wanted = 5 * len(request.committed)  # five units a word, ten at a time
        units = tuple(range(min(wanted, len(request.spoken) + 10)))
        samples = np.repeat(np.array(units[len(request.spoken) :], np.float32), round(640 / request.speed))
        return Spoken(units, (samples,), None, len(units) == wanted), self.unit_seconds


def replay(samples: np.ndarray, sizes: Iterator[int], model: Script, **changes: object) -> list[LiveEvent]:
    session = LiveSession(LiveSettings(**changes), loud, early_speech=model.early_speech)  # type: ignore[arg-type]
    events, at = [], 0

    def answered(found: list[LiveEvent]) -> None:
        events.extend(found)
        while session.request is not None:
            events.extend(session.answer(*model.answer(session.request)))

    while at < len(samples):
        size = next(sizes)
        answered(session.feed(samples[at : at + size]))
        at += size
    answered(session.finish())
    return events


def plain(events: list[LiveEvent]) -> list[dict]:
    sums = ({"sum": float(e.waveform.sum())} if isinstance(e, SpeechChunk) else {} for e in events)
    return [event.plain() | more for event, more in zip(events, sums, strict=True)]


TALK = signal(0.4, 2.3, 1.0, 0.1, 0.8, 4.1, 0.2, 1.5, 0.9)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=8, deadline=None)
@given(sizes=st.lists(st.integers(16, 16_000), min_size=1, max_size=7))
def test_commits_do_not_depend_on_the_sizes_of_chunks(policy: str, sizes: list[int]) -> None:
    whole = replay(TALK, itertools.repeat(len(TALK)), Script(), policy=policy)
    assert plain(replay(TALK, itertools.cycle(sizes), Script(), policy=policy)) == plain(whole)


@pytest.mark.parametrize("size", [16, 16_000])
def test_a_millisecond_and_a_second_at_a_time_give_the_same_commits(size: int) -> None:
    whole = replay(TALK, itertools.repeat(len(TALK)), Script(), policy="agreement")
    assert plain(replay(TALK, itertools.repeat(size), Script(), policy="agreement")) == plain(whole)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seconds", [0.0, 0.3, 2.0])
def test_committed_words_are_never_taken_back_and_all_are_spoken(policy: str, seconds: float) -> None:
    model = Script(seconds)
    events = replay(TALK, itertools.repeat(777), model, policy=policy)
    ends = [event for event in events if isinstance(event, UtteranceEnd)]
    assert [round(end.start, 1) for end in ends] == [0.3, 4.5]  # the click of 0.1 s is no utterance
    for end in ends:
        mine = [event.text for event in events if isinstance(event, CommittedText) and event.utterance == end.utterance]
        assert "".join(mine) == end.translation == " ".join(WORDS[: len(end.translation.split())])
        spoken = [e for e in events if isinstance(e, SpeechChunk) and e.utterance == end.utterance]
        units = np.unique(np.concatenate([chunk.waveform for chunk in spoken]))
        assert len(units) == 5 * len(end.translation.split())
    for one, other in itertools.pairwise(r for r in model.requests if isinstance(r, SpeechRequest)):
        if other.spoken:
            assert other.committed[: len(one.committed)] == one.committed
            assert other.spoken[: len(one.spoken)] == one.spoken
    times = [event.time for event in events]
    assert times == sorted(times) and all(event.time >= event.heard for event in events)


def test_agreement_speaks_before_the_utterance_is_over_and_utterance_does_not() -> None:
    samples = signal(0.3, 5.0, 1.0)

    def first(policy: str) -> float:
        events = replay(samples, itertools.repeat(1000), Script(), policy=policy)
        return next(event.start for event in events if isinstance(event, SpeechChunk))

    assert first("agreement") < 3 and first("wait-k") < 3 and first("utterance") > 5.3


def test_a_model_that_has_seen_no_prefixes_writes_early_and_speaks_all_at_the_end() -> None:
    samples = signal(0.3, 5.0, 1.0)
    early = replay(samples, itertools.repeat(1000), Script(), policy="agreement")
    late = replay(samples, itertools.repeat(1000), Script(early_speech=False), policy="agreement")
    end = next(event for event in late if isinstance(event, UtteranceEnd))
    texts = [event for event in late if isinstance(event, CommittedText)]
    speech = [event for event in late if isinstance(event, SpeechChunk)]
    assert len(texts) > 3 and texts[0].time < 3 and speech[0].start > end.end - 0.2
    early_speech = [event for event in early if isinstance(event, SpeechChunk)]
    assert early_speech[0].start < 3
    whole = [np.unique(np.concatenate([chunk.waveform for chunk in chunks])) for chunks in (early_speech, speech)]
    np.testing.assert_array_equal(*whole)


def test_a_slow_model_decodes_less_often() -> None:
    samples = signal(0.3, 8.0, 1.0)

    def decodings(seconds: float) -> int:
        model = Script(seconds)
        replay(samples, itertools.repeat(1000), model, policy="agreement", text_only=True)
        return len(model.requests)

    assert decodings(0.1) > 1.8 * decodings(1.0) > 3 * decodings(4.0)


def test_speech_that_falls_behind_is_spoken_faster_up_to_the_factor_and_not_before() -> None:
    samples = np.concatenate([signal(0.3, 4.0, 0.6)] * 6)
    model = Script()
    replay(samples, itertools.repeat(1000), model, max_speed=1.5, max_lag_seconds=1.0)
    speeds = [request.speed for request in model.requests if isinstance(request, SpeechRequest)]
    assert speeds[0] == 1.0 and max(speeds) == 1.0  # 1.2 s of speech for four seconds: it keeps up
    slow = Script()
    slow.answer = lambda request, one=slow: _five_times_as_long(one, request)  # type: ignore[method-assign]
    events = replay(samples, itertools.repeat(1000), slow, max_speed=1.5, max_lag_seconds=1.0)
    speeds = [request.speed for request in slow.requests if isinstance(request, SpeechRequest)]
    assert speeds[0] == 1.0 and max(speeds) == 1.5
    assert all(chunk.start >= chunk.time for chunk in events if isinstance(chunk, SpeechChunk))


def _five_times_as_long(model: Script, request: Request) -> tuple[Answer, float]:
    answer, seconds = Script.answer(model, request)
    if isinstance(answer, Spoken):
        answer = Spoken(answer.units, tuple(np.repeat(w, 5) for w in answer.waveforms), None, answer.ended)
    return answer, seconds


def test_memory_stays_flat_over_hours() -> None:
    session = LiveSession(LiveSettings(policy="agreement", text_only=True), loud)
    model = Script()
    kept = []
    talk = signal(0.5, 3.0, 0.7, 0.05, 1.0)
    for _ in range(60):
        session.feed(talk)
        while session.request is not None:
            session.answer(*model.answer(session.request))
        kept.append(sum(map(len, session._kept)) + sum(map(len, session._inbox)))
    assert max(kept) < 2 * RATE


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        (np.zeros((10, 1), np.float32), "one-dimensional array of floating-point"),
        (np.zeros(10, np.int16), "one-dimensional array of floating-point"),
        (np.array([0, np.nan, 0], np.float32), "finite numbers"),
        (np.array([0, 1e300]), "finite numbers"),  # which float32 does not hold
        (np.array([0.1, -12_345.0]), r"between -1 and 1 \(got 12345\); 16-bit samples are divided"),
    ],
)
def test_samples_of_another_kind_are_refused_and_the_session_goes_on(samples: np.ndarray, problem: str) -> None:
    def events(bad: bool) -> list[dict]:
        session, model, found = LiveSession(LiveSettings(), loud), Script(), []
        for at in range(0, len(TALK), 16_000):
            if bad:
                with pytest.raises(InputError, match=problem):
                    session.feed(samples)
            found += session.feed(TALK[at : at + 16_000])
            while session.request is not None:
                found += session.answer(*model.answer(session.request))
        return plain(found)

    assert events(True) == events(False) != []


def test_a_session_that_is_over_takes_no_more() -> None:
    session = LiveSession(LiveSettings(), loud)
    session.finish()
    with pytest.raises(InputError, match="over; begin another"):
        session.feed(np.zeros(10, np.float32))


@pytest.mark.slow
def test_the_shortest_utterance_is_long_enough_for_the_encoder(translator: Translator) -> None:
    settings = {"min_speech_seconds": 0.0, "speech_pad_seconds": 0.0, "endpoint_seconds": 1e-9}
    samples = np.zeros(4096, np.float32)
    samples[1024] = 0.5
    events = list(live(translator, **settings).translate([samples]))
    assert [round(event.end - event.start, 3) for event in events if isinstance(event, UtteranceEnd)] == [0.032]


def words(*texts: str) -> tuple[Word, ...]:
    return tuple(Word(text, ()) for text in texts)


def test_policies_by_hand() -> None:
    def agreed_words(found: list[Hypothesis], agreement: int) -> int:
        return Agreement(LiveSettings(agreement=agreement)).committed_words(found)

    def words_behind(found: list[Hypothesis], wait_words: int) -> int:
        return WaitK(LiveSettings(wait_words=wait_words)).committed_words(found)

    a = Hypothesis(1.0, False, "yo quiero", words("i", "want", "to"))
    b = Hypothesis(1.5, False, "yo quiero un", words("i", "want", "a", "dog"))
    c = Hypothesis(2.0, False, "yo quiero un perro", words("i", "want", "a", "dog", "now"))
    final = Hypothesis(2.5, True, "yo quiero un perro", words("i", "want", "a", "dog"))
    assert [agreed_words(found, 2) for found in ([a], [a, b], [a, b, c], [a, b, c, final])] == [0, 2, 4, 4]
    assert [agreed_words(found, 3) for found in ([a, b], [a, b, c])] == [0, 2]
    assert [words_behind([one], 3) for one in (a, b, c, final)] == [0, 1, 2, 4]
    assert words_behind([c], 1) == 4
    # Of what the encoder has not found in the recording yet, nothing is committed.
    guessed = replace(c, supported=0.5)
    assert [agreed_words([b, replace(c, supported=part)], 2) for part in (1.0, 0.5, 0.19)] == [4, 2, 0]
    assert (words_behind([guessed], 1), guessed.supported_words, replace(guessed, final=True).supported_words) == (
        2,
        2,
        5,
    )
    assert [Utterance(LiveSettings()).committed_words([one]) for one in (a, final)] == [0, 4]


def spans(probabilities: list[float], **changes: float) -> list[tuple[int, int]]:
    endpointer = Endpointer(LiveSettings(**changes))  # type: ignore[arg-type]
    found = [span for p in probabilities if (span := endpointer.advance(p))]
    last = endpointer.finish()
    return [*found, last] if last else found


def test_endpoints_come_after_the_pause_and_short_sounds_are_dropped() -> None:
    pause = windows(0.5)
    assert spans([0.0] * 5 + [0.9] * 20 + [0.1] * pause + [0.9] * 3 + [0.1] * 50) == [(5, 25)]
    assert spans([0.9] * 20 + [0.1] * (pause - 1) + [0.9] * 10) == [(0, 29 + pause)]
    # Between the two thresholds it goes on, and silence does not begin anew.
    assert spans([0.9] * 20 + [0.4] * 60 + [0.1] * pause) == [(0, 80)]
    assert spans([0.9] * 20 + [0.1] + [0.4] * 60) == [(0, 20)]
    # A low threshold is still one under which speech can end.
    assert spans([0.0] * 5 + [0.9] * 20 + [0.005] * pause, vad_threshold=0.1) == [(5, 25)]


def test_the_longer_an_utterance_is_the_shorter_is_the_pause_that_ends_it() -> None:
    def needed(spoken: int) -> int:
        """Windows of silence after so many of speech, in utterances of at most 4 s."""
        speech = [0.9] * spoken
        return next(n for n in range(1, 99) if spans(speech + [0.1] * n + [0.9] * 8, max_utterance_seconds=4.0)[1:])

    longest, full = windows(4.0), windows(0.5)
    pauses = [needed(spoken) for spoken in range(8, longest - full - 8, 6)]
    assert pauses == sorted(pauses, reverse=True)
    assert full - 1 <= pauses[0] <= full and windows(0.1) <= pauses[-1] <= windows(0.2)


def test_an_utterance_that_is_too_long_is_cut_in_its_longest_pause() -> None:
    speech = [0.9] * 15 + [0.1] * 4 + [0.9] * 10 + [0.1] * 6 + [0.9] * windows(2.0)
    assert spans(speech, max_utterance_seconds=2.0)[0] == (0, 29)


def test_an_endless_utterance_is_cut_at_its_least_probable_speech() -> None:
    most = windows(2.0)
    probabilities = [0.9] * (2 * most)
    probabilities[most - 7] = 0.4
    found = spans(probabilities, max_utterance_seconds=2.0)
    assert found[0] == (0, most - 7)
    assert [a[1] for a in found[:-1]] == [b[0] for b in found[1:]] and found[-1][1] == 2 * most
    assert all(last - first <= most for first, last in found)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"policy": "agreement", "agreement": 1}, "agreement: must be a whole number, 2 or above"),
        ({"max_speed": 0.5}, "max_speed: must be a finite number, 1 or above"),
        ({"speech_pad_seconds": 1e9}, "speech_pad_seconds: must be at most 5"),
        ({"max_utterance_seconds": 90}, "max_utterance_seconds: must be from 1 to 60"),
        ({"max_utterance_seconds": 1, "endpoint_seconds": 3}, "endpoint_seconds: must be below"),
        ({"policy": "clairvoyance"}, "policy: must be one of"),
    ],
)
def test_settings_that_no_policy_can_work_with_are_refused(changes: dict, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        LiveSettings(**changes)


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory, text_lm_folder: Path) -> Translator:
    return Translator.from_pretrained(make_run(tmp_path_factory.mktemp("run"), text_lm_folder))


class TimedDecoder(LiveDecoder):
    """Always as fast, whatever the machine."""

    def answer(self, request: Request) -> tuple[Answer, float]:
        return super().answer(request)[0], 0.15


def live(translator: Translator, **changes: object) -> LiveTranslator:
    session = LiveTranslator(translator, LiveSettings(**changes))  # type: ignore[arg-type]
    session.decoder = TimedDecoder(translator)
    session.session._probability = loud
    return session


def heard(seconds: float = 2.6) -> np.ndarray:
    return np.concatenate([np.zeros(4000, np.float32), 3 * speech(seconds), np.zeros(12_000, np.float32)])


def without_repetitions(translator: Translator) -> Translator:
    """The same model, as if its units were without repetitions: their durations are predicted."""
    old = translator.decoder
    decoder = PhaseDecoder(old.model, old.tokenizer, replace(old.vocabulary, deduplicate=True))
    decoder._output_layer = old._output_layer  # which the model has already
    config = replace(translator.speech_vocoder.model.config, durations=True)  # type: ignore[attr-defined]
    made = Translator(translator.tokenizer, decoder, TrainedVocoder(UnitVocoder(config)))
    made.settings = translator.settings
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "deduplicated"), [("utterance", False), ("agreement", False), ("agreement", True), ("wait-k", True)]
)
def test_a_model_gives_the_same_live_translation_in_any_chunks(
    translator: Translator, policy: str, deduplicated: bool
) -> None:
    model = without_repetitions(translator) if deduplicated else translator

    def events(size: int) -> list[dict]:
        samples = heard(1.4)
        chunks = (samples[at : at + size] for at in range(0, len(samples), size))
        return plain(list(live(model, policy=policy).translate(chunks)))

    whole = events(16_000)
    assert events(16) == whole  # a millisecond at a time, as a second
    assert [one["event"] for one in whole].count("end") == 1 and "speech" in [one["event"] for one in whole]


@pytest.mark.slow
def test_the_utterance_policy_translates_as_offline(translator: Translator) -> None:
    events = list(live(translator).translate([heard()]))
    end = next(event for event in events if isinstance(event, UtteranceEnd))
    cut = heard()[round(end.start * RATE) : round(end.end * RATE)]
    offline = translator.translate(cut)
    assert (end.transcript, end.translation, end.language) == (
        offline.transcript,
        offline.translation,
        offline.language,
    )
    online = np.concatenate([event.waveform for event in events if isinstance(event, SpeechChunk)])
    assert len(online) == len(offline.waveform)
    np.testing.assert_allclose(online[80:-80], offline.waveform[80:-80], atol=1e-5)


@pytest.mark.slow
def test_an_open_prefix_is_repeated_and_a_new_word_follows(translator: Translator) -> None:
    decoder = LiveDecoder(translator)
    waveform = heard()[4000:40_000]
    tokenize = translator.decoder.tokenizer
    kept = tuple(Word(text, tuple(tokenize(" " + text)["input_ids"])) for text in ("the", "small"))
    for length in range(8000, 32_000, 6000):
        (found,) = decoder.answer_all([TextRequest(waveform[:length], kept, 1.0, False)])
        assert isinstance(found, Hypothesis) and found.translation[:2] == kept
        assert found.head[0] in translator.decoder.vocabulary.languages.values()


@pytest.mark.slow
def test_words_that_the_encoder_does_not_find_in_what_was_heard_are_not_supported(translator: Translator) -> None:
    scores = [np.array(one, np.float32) for one in ([1, 1, 1, 1], [1, 0.9, 0.1, 1], [0, 1])]
    assert [_supported(one) for one in scores] == [1.0, 0.5, 0.0]
    (found,) = LiveDecoder(translator).answer_all([TextRequest(heard()[4000:20_000], (), 1.0, False)])
    assert isinstance(found, Hypothesis) and found.supported < 1  # random weights say nothing that was said


@pytest.mark.slow
def test_sessions_are_answered_together_as_each_alone(translator: Translator) -> None:
    decoder = LiveDecoder(translator)
    requests: list[Request] = [TextRequest(heard(s)[4000:], (), s, True) for s in (1.0, 2.0)]
    together = decoder.answer_all(requests)
    for request, answer in zip(requests, together, strict=True):
        (alone,) = decoder.answer_all([request])
        assert isinstance(alone, Hypothesis) and isinstance(answer, Hypothesis)
        assert (alone.translation, alone.head) == (answer.translation, answer.head)
    speak: list[Request] = [SpeechRequest(h, h.translation, (), None, 1.0) for h in together]  # type: ignore[union-attr]
    (one, text) = decoder.answer_all([speak[0], requests[1]])
    assert isinstance(one, Spoken) and isinstance(text, Hypothesis)


def spoken_whole(decoder: LiveDecoder, request: SpeechRequest) -> Spoken:
    """The answers to a request until its words are spoken."""
    while True:
        (answer,) = decoder.answer_all([request])
        assert isinstance(answer, Spoken)
        if answer.ended:
            return answer
        assert answer.units == request.spoken or request.hypothesis.final
        request = replace(request, spoken=answer.units, draft=answer.draft, stream=answer.stream, cache=answer.cache)


@pytest.mark.slow
def test_words_that_are_spoken_early_have_the_units_of_the_whole_text(
    translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = LiveDecoder(translator)
    (text,) = decoder.answer_all([TextRequest(heard()[4000:], (), 2.6, True)])
    assert isinstance(text, Hypothesis) and len(text.translation) > 2
    whole = spoken_whole(decoder, SpeechRequest(text, text.translation, (), None, 1.0)).units
    count = len(text.translation)
    deduplicated = translator.decoder.vocabulary.deduplicate
    frames = np.cumsum(translator.speech_vocoder.frame_counts(np.array(whole), deduplicated))

    def align(waveform: np.ndarray, *_: str) -> list[tuple[str, float, float]]:
        """Words of equal length with pauses, the last of which is not found."""
        each = len(waveform) / RATE / count
        found = [(word.text, i * each, (i + 0.5) * each) for i, word in enumerate(text.translation)]
        return [*found[:-1], (found[-1][0], 0.0, 0.0)]

    def continue_units(*arguments: Any) -> list[Translation]:
        """As if the end of the speech, which random weights do not find, were no limit's."""
        return [replace(one, complete=True) for one in decode(*arguments)]

    decode = translator.decoder.continue_units
    monkeypatch.setattr(translator.decoder, "continue_units", continue_units)
    monkeypatch.setattr(translator, "align", align)
    spoken: tuple[int, ...] = ()
    stream = None
    for known in range(1, count + 1):
        request = SpeechRequest(replace(text, final=False), text.translation[:known], spoken, stream, 1.0)
        answer = spoken_whole(decoder, request)
        assert (*answer.units, *answer.draft) == whole
        if known < count - 1:  # in the middle of the pause
            assert frames[len(answer.units) - 1] == pytest.approx((known - 0.25) * frames[-1] / count, abs=2)
        assert (answer.units == spoken) == (known >= count - 1)  # without a next word it waits for the end
        spoken, stream = answer.units, answer.stream
    last = spoken_whole(decoder, SpeechRequest(text, text.translation, spoken, stream, 1.0))
    assert last.units == whole


@pytest.mark.slow
def test_a_model_without_texts_is_spoken_at_the_end_and_refuses_other_policies(translator: Translator) -> None:
    old = translator.decoder
    direct = Translator(
        translator.tokenizer,
        PhaseDecoder(old.model, old.tokenizer, replace(old.vocabulary, tasks=["direct"])),
        translator.vocoder,
    )
    direct.settings = translator.settings
    events = list(live(direct).translate([heard()]))
    kinds = [event.kind for event in events]
    assert kinds[-1] == "end" and set(kinds[:-1]) == {"speech"}
    with pytest.raises(InputError, match="needs a model with texts"):
        LiveTranslator(direct, LiveSettings(policy="agreement"))


@pytest.mark.slow
def test_a_model_without_speech_translates_to_text_and_one_that_transcribes_is_refused(translator: Translator) -> None:
    old = translator.decoder

    def trained_on(task: str) -> Translator:
        vocabulary = replace(old.vocabulary, tasks=[task])
        decoder = PhaseDecoder(old.model, old.tokenizer, vocabulary)
        decoder._output_layer = old._output_layer  # which the model has already
        made = Translator(translator.tokenizer, decoder, None)
        made.settings = translator.settings
        return made

    for policy in ("utterance", "agreement"):
        events = list(live(trained_on("s2tt"), policy=policy).translate([heard()]))
        assert events[-1].kind == "end" and "speech" not in {event.kind for event in events}
    with pytest.raises(InputError, match="not to translate"):
        LiveTranslator(trained_on("asr"))


@pytest.mark.slow
@pytest.mark.parametrize("end", [KeyboardInterrupt(), Stopped(15)])
def test_an_interrupted_session_leaves_a_valid_wav_and_subtitles(
    translator: Translator, tmp_path: Path, end: BaseException
) -> None:
    def source() -> Iterator[np.ndarray]:
        yield heard()
        yield heard(3.0)[:30_000]
        raise end

    shown: list[LiveEvent] = []
    stem = tmp_path / "out" / "talk"
    written, ended = run_live(live(translator, policy="agreement"), source(), stem, None, shown.append)
    assert written is not None and "talk.wav" in written and ended == (15 if isinstance(end, Stopped) else 0)
    with wave.open(str(tmp_path / "out/talk.wav")) as track:
        seconds = track.getnframes() / track.getframerate()
    last = [event for event in shown if isinstance(event, SpeechChunk)][-1]
    assert seconds == pytest.approx(last.start + len(last.waveform) / RATE, abs=1e-3)
    lines = (tmp_path / "out/talk.srt").read_text().splitlines()
    texts = "".join(line for line in lines if not line.isdecimal() and "-->" not in line)
    committed: dict[int, str] = {}
    for event in shown:
        if isinstance(event, CommittedText):
            committed[event.utterance] = committed.get(event.utterance, "") + event.text
    # Without spaces: random words may be longer than a line.
    assert texts.replace(" ", "") == "".join(committed.values()).replace(" ", "") != ""
    assert max(map(len, lines)) <= 42  # the usual rules of subtitles
    assert (tmp_path / "out/talk.vtt").read_text().startswith("WEBVTT")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError(errno.ENOSPC, "No space left on device"), "No space left on device"), (struct.error(), "at most 4 GiB")],
)
def test_a_full_disk_or_file_leaves_what_was_written_before_it(
    translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    written: list[int] = []
    write = wave.Wave_write.writeframes

    def full(self: wave.Wave_write, data: bytes) -> None:
        if any(data) and any(written):  # the second piece of speech
            raise error
        written.append(len(data) if any(data) else 0)
        write(self, data)

    monkeypatch.setattr(wave.Wave_write, "writeframes", full)
    with pytest.raises(InputError, match=rf"talk: cannot be written \(.*{reason}.*\); what was"):
        run_live(live(translator), [heard()], tmp_path / "talk", None, lambda _: None)
    with wave.open(str(tmp_path / "talk.wav")) as track:
        assert 2 * track.getnframes() > sum(written) > 0
    assert "-->" in (tmp_path / "talk.srt").read_text()


def test_texts_alone_make_no_wav(translator: Translator, tmp_path: Path) -> None:
    shown: list[LiveEvent] = []
    run_live(live(translator, text_only=True), [heard()], tmp_path / "talk", None, shown.append, text_only=True)
    assert {path.suffix for path in tmp_path.iterdir()} == {".srt", ".vtt"}
    assert not [event for event in shown if isinstance(event, SpeechChunk)]
    assert [event for event in shown if isinstance(event, PartialTranscript)]
