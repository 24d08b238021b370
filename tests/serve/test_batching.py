"""Requests in batches, without HTTP: order, bounds, failures and streams."""

import asyncio
import contextlib
import gc
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.serving import make_run, speech, until
from unitweave.config.serve import ServerLimits
from unitweave.core.errors import InputError
from unitweave.serve import batching
from unitweave.serve.batching import Batcher, Busy, Job, LiveJob, ShuttingDown, Stream
from unitweave.serve.clients import HungUp, wait_for
from unitweave.serve.timeline import CSS, timeline
from unitweave.translate.decode import ForcedPrefix, Streamer, Translation
from unitweave.translate.translator import SpeechTranslation, Translator


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory, text_lm_folder: Path) -> Translator:
    return Translator.from_pretrained(make_run(tmp_path_factory.mktemp("run"), text_lm_folder))


@pytest.fixture
def batcher(translator: Translator) -> Iterator[Batcher]:
    batcher = Batcher(translator, ServerLimits(batch_size=4, max_queue=6, batch_wait_seconds=0.2))
    yield batcher
    batcher.close()


@pytest.mark.slow
def test_requests_that_come_together_are_translated_together(batcher: Batcher, translator: Translator) -> None:
    recordings = [speech(0.4 + 0.1 * i, i) for i in range(4)]
    futures = [batcher.submit(Job(r)) for r in recordings]
    for recording, future in zip(recordings, futures, strict=True):
        alone = translator.translate(recording)
        assert future.result(60).transcript == alone.transcript
        assert np.array_equal(future.result().units, alone.units)
    assert batcher.batches == 1 and batcher.done == 4


@pytest.mark.slow
def test_a_bad_request_fails_alone_and_the_thread_lives(batcher: Batcher) -> None:
    good = [batcher.submit(Job(speech(0.4, i))) for i in range(2)]
    bad = batcher.submit(Job(speech(0.001)))
    with pytest.raises(InputError, match="too short"):
        bad.result(60)
    assert all(future.result(60).language for future in good)
    assert batcher.submit(Job(speech(0.4))).result(60).language


def test_an_unknown_language_is_refused_before_anything_is_computed(
    batcher: Batcher, translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="'xx'"):
        batcher.submit(Job(speech(0.4), ForcedPrefix(language="xx")))
    assert batcher.waiting == 0
    monkeypatch.setattr(translator, "encode", None)  # would fail if the encoder ran
    with pytest.raises(InputError, match="'xx'"):
        translator.translate(speech(0.4), prefix=ForcedPrefix(language="xx"))


def blocked(batcher: Batcher, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Make the batcher's translations wait for an event."""
    free, translate_all = threading.Event(), batcher.translator.translate_all

    def wait(*arguments: object) -> object:
        free.wait(60)
        return translate_all(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(batcher.translator, "translate_all", wait)
    return free


@pytest.mark.slow
def test_a_full_queue_says_busy_and_when_to_come_again(batcher: Batcher, monkeypatch: pytest.MonkeyPatch) -> None:
    free = blocked(batcher, monkeypatch)
    accepted = [batcher.submit(Job(speech(0.3)))]
    while batcher.waiting:
        time.sleep(0.01)
    accepted += [batcher.submit(Job(speech(0.3))) for _ in range(6)]
    with pytest.raises(Busy) as refused:
        batcher.submit(Job(speech(0.3)))
    assert refused.value.retry_after >= 1
    free.set()
    assert all(future.result(60) for future in accepted), "everything that was accepted is answered"


@pytest.mark.slow
def test_a_job_given_up_while_waiting_is_not_translated(batcher: Batcher, monkeypatch: pytest.MonkeyPatch) -> None:
    free = blocked(batcher, monkeypatch)
    first = batcher.submit(Job(speech(0.3)))
    while batcher.waiting:
        time.sleep(0.01)
    second = Job(speech(0.3))
    batcher.submit(second)
    batcher.give_up(second)
    assert batcher.waiting == 0, "its place is free for others"
    free.set()
    assert first.result(60).language
    assert batcher.submit(Job(speech(0.3))).result(60).language and batcher.done == 2


@pytest.mark.slow
def test_what_nobody_waits_for_any_more_ends_at_its_next_unit(
    batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    units: list[int] = []

    def endless(waveforms: list, settings: object, given: object, streamer: Streamer, wanted: Callable) -> None:
        while wanted(0):
            units.append(1)
            streamer.unit(0, 1)
            time.sleep(0.001)

    monkeypatch.setattr(batcher.translator, "translate_all", endless)
    job = Job(speech(0.3))
    batcher.submit(job)
    until(lambda: len(units) > 3)
    batcher.give_up(job)
    until(lambda: batcher.done == 1)
    assert isinstance(job.result.exception(1), ShuttingDown)
    monkeypatch.undo()
    assert batcher.submit(Job(speech(0.3))).result(60).language


def test_a_given_text_that_is_too_long_for_its_recording_is_refused(batcher: Batcher) -> None:
    for known in (ForcedPrefix(transcript="a " * 999, language="es"), ForcedPrefix(translation="1" * 1900)):
        with pytest.raises(InputError, match=r"too long for a recording of 0\.3 s"):
            batcher.submit(Job(speech(0.3), known))
    assert batcher.waiting == 0


@pytest.mark.parametrize("marker", ["<|end|>", "yes <|unit_3|>", "<|target|> no"])
def test_a_given_text_holds_no_markers(batcher: Batcher, monkeypatch: pytest.MonkeyPatch, marker: str) -> None:
    constraints = batcher.translator.decoder.constraints
    monkeypatch.setattr(constraints, "vocabulary", replace(constraints.vocabulary, texts="natural"))
    with pytest.raises(InputError, match="translation: must be text, without"):
        batcher.submit(Job(speech(0.3), ForcedPrefix(translation=marker)))
    assert batcher.waiting == 0


def test_closing_answers_everybody(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    batcher = Batcher(translator, ServerLimits(batch_size=1))
    free = blocked(batcher, monkeypatch)
    first = batcher.submit(Job(speech(0.3)))
    while batcher.waiting:
        time.sleep(0.01)
    second = batcher.submit(Job(speech(0.3)))
    free.set()
    batcher.close()
    assert isinstance(first.exception(1), ShuttingDown | None), "done, or abandoned at its next step"
    with pytest.raises(CancelledError):
        second.result(1)
    with pytest.raises(ShuttingDown):
        batcher.submit(Job(speech(0.3)))


@pytest.mark.slow
def test_a_stream_hears_texts_first_and_then_the_units(batcher: Batcher) -> None:
    stream = Stream(60)
    future = batcher.submit(Job(speech(0.5), stream=stream))
    said = stream.text()
    units = list(stream.units())
    result = future.result(60)
    assert said.translation == result.translation and units == result.units.tolist()
    failing = Stream(60)
    batcher.submit(Job(speech(0.001), stream=failing))
    with pytest.raises(InputError):
        failing.text()
    with pytest.raises(TimeoutError):
        Stream(0.01).text()


@pytest.mark.slow
def test_a_stream_that_was_heard_ends_with_the_error_and_is_not_told_again(
    batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    translate_all, sizes = batcher.translator.translate_all, []

    def out_of_memory(waveforms: list, settings: object, given: object, streamer: Streamer, wanted: Callable) -> object:
        sizes.append(len(waveforms))
        if len(waveforms) == 1:
            return translate_all(waveforms, settings, given, streamer, wanted)  # type: ignore[arg-type]
        streamer.texts(0, Translation(translation="hello"))
        streamer.unit(0, 3)
        raise MemoryError("out of memory")

    monkeypatch.setattr(batcher.translator, "translate_all", out_of_memory)
    streams = [Stream(60), Stream(60)]
    heard, unheard = (batcher.submit(Job(speech(0.4, i), stream=stream)) for i, stream in enumerate(streams))
    assert streams[0].text().translation == "hello"
    units = streams[0].units()
    assert next(units) == 3
    with pytest.raises(MemoryError):
        next(units)
    with pytest.raises(MemoryError):
        heard.result(60)
    assert streams[1].text().translation == unheard.result(60).translation, "nothing was heard of it: tried alone"
    assert list(streams[1].units()) == unheard.result().units.tolist() and sizes == [2, 1]


@pytest.mark.slow
def test_words_of_both_recordings_come_with_the_result(batcher: Batcher, translator: Translator) -> None:
    job, plain = Job(speech(1.0), ForcedPrefix("la casa", "the house", "es"), align=True), Job(speech(1.0))
    for one in (job, plain):
        batcher.submit(one).result(60)
    english = translator.translate(job.waveform, prefix=job.given).waveform
    assert job.words == (translator.align(job.waveform, "la casa", "es"), translator.align(english, "the house", "en"))
    assert [word for word, _, _ in job.words[0]] == ["la", "casa"] and plain.words == ([], [])


def test_the_timeline_escapes_what_the_model_wrote() -> None:
    drawn = timeline(speech(1.0), [("<b>&", 0.1, 0.5), ("late", 0.0, 0.0)], "Heard <es>")
    assert "<b>" not in drawn and "&lt;b&gt;&amp;" in drawn and "without a time: late" in drawn
    assert "left:10.00%;width:40.00%" in drawn
    assert "<rect" not in timeline(np.zeros(0, np.float32), [], "nothing")


def test_no_word_of_the_timeline_is_cut_or_lies_on_another() -> None:
    words = [("understandable", 0.0, 0.05), ("a", 0.05, 0.08), ("b", 0.08, 0.1), ("extraordinary", 0.9, 1.0)]
    drawn = timeline(speech(1.0), words, "English")
    tops = [float(top) for top in re.findall(r"top:([\d.]+)em", drawn)]
    assert tops[:3] == [0.0, 1.7, 3.4], "words that are said quickly stand below one another"
    assert "right:0.00%;min-width:10.00%" in drawn, "the last one ends with the waveform"
    assert "scroll sideways" in drawn and "ellipsis" not in CSS


@pytest.mark.slow
def test_jobs_given_up_while_a_batch_gathers_leave_the_thread_alive(
    batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher, "_translate", lambda jobs: [job.result.set_result(None) for job in jobs])
    for delay in (0, 0.05, 0.1):  # the batch waits 0.2 s for company
        job = Job(speech(0.3))
        batcher.submit(job)
        time.sleep(delay)
        batcher.give_up(job)
        time.sleep(0.25)
        assert batcher.alive and batcher.waiting == 0
    batcher.submit(Job(speech(0.3))).result(30)
    assert batcher.done == 1


@pytest.mark.parametrize("place", ["gathering", "taking", "counting", "translating"])
def test_an_error_anywhere_in_the_loop_fails_the_jobs_at_hand_and_no_more(
    place: str, batcher: Batcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = Job(speech(0.3))
    with monkeypatch.context() as broken:
        if place == "taking":  # a future in a state in which it should never be
            job.result.set_result(None)  # type: ignore[arg-type]
        elif place == "gathering":
            broken.setattr(batching, "_kind", lambda job: 1 / 0)
        elif place == "counting":
            broken.setattr(batcher, "_company", lambda: 1 / 0 if batcher.waiting else 0)
        else:
            broken.setattr(batcher, "_translate", lambda jobs: 1 / 0)
        batcher.submit(job)
        until(lambda: "a batch failed" in caplog.text)
        if place != "taking":
            with pytest.raises(ZeroDivisionError):
                job.result.result(30)
    assert batcher.alive and batcher.waiting == 0
    assert batcher.submit(Job(speech(0.3))).result(30).language


def test_a_thread_that_has_ended_takes_no_more_jobs(batcher: Batcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Batcher, "alive", property(lambda self: False))
    with pytest.raises(ShuttingDown):
        batcher.submit(Job(speech(0.3)))
    assert batcher.waiting == 0


@pytest.mark.parametrize("ends", ["answered", "failed", "given up", "live"])
def test_nothing_of_a_job_outlives_its_answer(ends: str, batcher: Batcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a collection of garbage: the waveforms of many requests would wait for it."""

    def fail(jobs: list[Job]) -> None:
        batch = jobs  # noqa: F841  # as a frame of the decoding holds what it computes
        raise InputError("no")

    alive: list[weakref.ref] = []
    submit = batcher.submit

    def watched(job: Job) -> Future[SpeechTranslation]:
        alive.extend([weakref.ref(job), weakref.ref(job.result)])
        return submit(job)

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        left = loop.create_future()
        if ends == "given up":
            loop.call_later(0.05, left.set_result, None)
        await wait_for(batcher, LiveJob(np.zeros(3)) if ends == "live" else Job(speech(0.3)), left)  # type: ignore

    monkeypatch.setattr(batcher, "submit", watched)
    if ends == "failed":
        monkeypatch.setattr(batcher.translator, "translate_all", lambda *_: fail([*batcher._running]))
    if ends == "live":
        monkeypatch.setattr(batcher.live, "answer_all", lambda requests, _: requests)
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(InputError, HungUp):
            asyncio.run(ask())
        until(lambda: not any(one() for one in alive))
        assert len(alive) == 2
    finally:
        gc.enable()


def test_closing_while_a_batch_gathers_ends_the_thread(batcher: Batcher) -> None:
    job = Job(speech(0.3))
    batcher.submit(job)
    time.sleep(0.05)  # the batch waits 0.2 s for company
    batcher.give_up(job)
    batcher.close(10.0)
    assert not batcher.alive
