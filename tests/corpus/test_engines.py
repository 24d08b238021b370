"""Speech synthesis: the same text and voice give the same samples in any company, and failures have names."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("ttspico")
pytest.importorskip("espeakng_loader")

from unitweave.config.corpus import SynthesisSettings
from unitweave.core.audio import SAMPLE_RATE, read_audio
from unitweave.core.errors import InputError
from unitweave.corpus.embedded import engines as speech
from unitweave.corpus.embedded import voices
from unitweave.corpus.embedded.engines import EDGE_SECONDS, PEAK, Utterance, Voice, synthesize, synthesize_all

pytestmark = [pytest.mark.slow, pytest.mark.processes]

PICO = Voice("a", "pico", "es-ES", pitch=110, rate=125, tract=94)
ESPEAK = Voice("b", "espeak", "es-419+f3", rate=110)  # its variant adds noise that eSpeak seeds from the clock
TEXTS = ["Buenos días.", "Mi hermana compró tres manzanas.", "¿Dónde está la estación?"]


def _plan(folder, noise_db=40.0):
    return [
        Utterance(folder / f"{voice.engine}{index}.wav", text, voice, noise_db)
        for voice in (PICO, ESPEAK)
        for index, text in enumerate(TEXTS)
    ]


def _bytes_by_name(utterances, workers):
    assert [problem for _, problem in synthesize_all(utterances, workers) if problem] == []
    return {utterance.path.name: utterance.path.read_bytes() for utterance in utterances}


def test_samples_depend_on_neither_order_nor_company_nor_number_of_workers(tmp_path):
    together = _bytes_by_name(_plan(tmp_path / "together"), workers=2)
    reversed_order = _bytes_by_name(_plan(tmp_path / "reversed")[::-1], workers=1)
    time.sleep(1.1)  # eSpeak's clock has whole seconds
    alone = {}
    for utterance in _plan(tmp_path / "alone")[1::2]:
        alone |= _bytes_by_name([utterance], workers=1)
    assert together == reversed_order
    assert alone == {name: together[name] for name in alone} and len(alone) == 3


def test_speech_is_trimmed_to_the_same_edges_and_scaled_to_the_same_peak():
    for voice in (PICO, ESPEAK):
        waveform = synthesize(TEXTS[1], voice)
        edge = int(EDGE_SECONDS * SAMPLE_RATE)
        assert np.abs(waveform).max() == pytest.approx(PEAK, abs=1e-3)
        for end in (waveform[:edge], waveform[::-1][:edge]):
            assert np.abs(end).max() <= 0.006 * PEAK
        assert np.abs(waveform[edge : edge + 400]).max() > 0.004 * PEAK
        assert 1.0 < len(waveform) / SAMPLE_RATE < 4.0


def test_noise_stands_at_the_ratio_asked_for():
    clean, noisy = synthesize(TEXTS[1], PICO), synthesize(TEXTS[1], PICO, noise_db=30.0)
    ratio = 10 * np.log10(np.mean(clean**2) / np.mean((noisy - clean) ** 2))
    assert ratio == pytest.approx(30.0, abs=0.3)


def test_pitch_speed_and_vocal_tract_change_what_their_names_say():
    normal, fast = (synthesize(TEXTS[1], Voice("v", "espeak", "es-419", rate=rate)) for rate in (100, 130))
    assert len(fast) < 0.85 * len(normal)
    for engine, name in (("pico", "es-ES"), ("espeak", "es-419")):
        normal, high, small = (
            synthesize(TEXTS[1], Voice("v", engine, name, *settings)) for settings in ((), (140,), (100, 100, 85))
        )
        assert _fundamental(high) > 1.2 * _fundamental(normal)
        assert _fundamental(small) == pytest.approx(_fundamental(normal), rel=0.1)
        assert _centroid(small) > 1.05 * _centroid(normal)  # a shorter tract has higher formants
        assert len(small) == pytest.approx(len(normal), rel=0.08)


def test_every_voice_of_the_table_speaks_and_no_two_sound_the_same(tmp_path):
    plan = []
    for language in voices.languages():
        seen, unseen = (voices.speakers(language, SynthesisSettings(), unseen) for unseen in (False, True))
        assert len(seen) >= 12 and len(unseen) >= 3
        plan += [Utterance(tmp_path / f"{voice.name}.wav", "ma na", voice) for voice in (*seen, *unseen)]
    assert len({utterance.path for utterance in plan}) == len(plan)
    sounds = _bytes_by_name(plan, workers=2)
    assert len(set(sounds.values())) == len(plan)


def test_one_bad_utterance_is_named_and_the_rest_are_spoken(tmp_path):
    plan = _plan(tmp_path)[:2]
    plan.insert(1, Utterance(tmp_path / "mute.wav", "...", PICO))
    plan.insert(0, Utterance(tmp_path / "nobody.wav", "hola", Voice("c", "espeak", "es+nobody")))
    problems = {utterance.path.name: problem for utterance, problem in synthesize_all(plan, workers=2)}
    assert problems.pop("mute.wav") == "the text has no words"
    assert "there is no voice 'es+nobody'" in problems.pop("nobody.wav")
    assert problems == {"pico0.wav": "", "pico1.wav": ""}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pico0.wav", "pico1.wav"]


def test_markup_is_read_as_text():
    # Pico would obey the tag; so little is left of it that the speech stays the same but for the word.
    assert len(synthesize('hola <pitch level="50"> amigo', PICO)) > len(synthesize("hola amigo", PICO))


@pytest.mark.parametrize(
    ("voice", "message"),
    [
        (Voice("x", "festival", "es"), "engine must be one of pico, espeak, kokoro"),
        (Voice("x", "pico", "es-ES", pitch=20), "pitch must be 50 to 190"),
    ],
)
def test_impossible_voices_are_bad_input(voice, message):
    with pytest.raises(InputError, match=message):
        synthesize("hola", voice)


def test_an_unknown_pico_language_is_bad_input():
    with pytest.raises(InputError, match="xx-XX"):
        synthesize("hola", Voice("x", "pico", "xx-XX"))


def test_a_missing_engine_says_what_to_install(monkeypatch):
    monkeypatch.setitem(speech.ENGINES, "pico", ("no-such-engine",))
    with pytest.raises(InputError, match=r"pip install 'unitweave\[demo\]'"):
        synthesize("hola", PICO)


def test_no_worker_outlives_an_abandoned_iteration(tmp_path):
    before = _children(os.getpid())  # such as the server that forks other tests' processes
    spoken = synthesize_all(_plan(tmp_path) * 3, workers=2)
    next(spoken)
    children = set(_children(os.getpid())) - set(before)
    assert len(children) >= 2
    spoken.close()
    assert not any(_alive(child) for child in children)


def test_workers_import_neither_torch_nor_transformers():
    heavy = "{'torch', 'transformers', 'pyarrow', 'rich'}"
    code = f"import sys, unitweave.corpus.embedded.engines; print({heavy} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "set()"


def _children(process):
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True).stdout
    return [int(child) for child in listed.split()]


def _alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _fundamental(waveform):
    """Median pitch in Hz by autocorrelation of the loud frames."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform, 800)[::400]
    found = []
    for frame in frames[np.abs(frames).max(axis=1) > 0.2]:
        correlation = np.correlate(frame, frame, "full")[799:]
        found.append(SAMPLE_RATE / (40 + np.argmax(correlation[40:267])))  # 60 to 400 Hz
    return np.median(found)


def _centroid(waveform):
    power = np.abs(np.fft.rfft(waveform)) ** 2
    hertz = np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE)
    band = (hertz > 700) & (hertz < 5000)
    return (power * hertz)[band].sum() / power[band].sum()


def test_say_gives_what_the_file_holds(tmp_path):
    utterance = Utterance(tmp_path / "a.wav", TEXTS[0], PICO)
    assert list(synthesize_all([utterance])) == [(utterance, "")]
    assert np.array_equal(read_audio(utterance.path), synthesize(TEXTS[0], PICO))


def test_a_file_that_cannot_be_written_ends_it_all_and_is_no_fault_of_the_text(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        list(synthesize_all([Utterance(tmp_path / "file" / "a.wav", TEXTS[0], PICO)]))
