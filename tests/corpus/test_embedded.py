"""The embedded corpus: a phrasebook spoken into a manifest, resumable to the byte."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import pytest
import soundfile

pytest.importorskip("ttspico")
pytest.importorskip("espeakng_loader")

from unitweave.config.corpus import EmbeddedCorpus
from unitweave.core.errors import InputError
from unitweave.core.manifest import read_manifest, read_metadata
from unitweave.core.stage import run_stage
from unitweave.core.text import NORMALIZER, normalize
from unitweave.corpus.embedded import corpus as embedded
from unitweave.corpus.embedded import phrasebook, voices
from unitweave.corpus.embedded.corpus import build_embedded, embedded_text, plan_digest

pytestmark = [pytest.mark.slow, pytest.mark.processes]

LANGUAGES = [code for code in phrasebook.languages() if code in voices.languages()][:2]
SMALL = EmbeddedCorpus(
    languages=LANGUAGES, train={code: 14 - 6 * i for i, code in enumerate(LANGUAGES)}, dev=4, test=6, seed=3
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return folder, build_embedded(folder, SMALL)


def _hashes(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "stage.json"
    }


def test_the_manifest_describes_the_recordings(corpus):
    folder, outcome = corpus
    pairs = read_manifest(folder)
    assert Counter((p.src_lang, p.split) for p in pairs) == {
        (code, split): {"train": SMALL.train_size(code), "dev": SMALL.dev, "test": SMALL.test}[split]
        for code in LANGUAGES
        for split in ("train", "dev", "test")
    }
    assert outcome.skipped == [] and outcome.counts["pairs"] == len(pairs)
    assert read_metadata(folder) == {"normalizer": NORMALIZER, "corpus": "embedded"}
    for pair in pairs:
        assert re.fullmatch(rf"{pair.src_lang}_{pair.split}_\d{{6}}", pair.id)
        assert pair.src_text == normalize(pair.src_text_raw, pair.src_lang) and pair.tgt_lang == "en"
        assert pair.tgt_text == normalize(pair.tgt_text_raw, "en")
        for path, seconds in ((pair.src_audio, pair.src_seconds), (pair.tgt_audio, pair.tgt_seconds)):
            info = soundfile.info(path)
            assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
            assert info.frames / 16000 == pytest.approx(seconds, abs=1e-4) and 0.5 < seconds < 8


def test_no_sentence_is_in_two_splits_of_any_language(corpus):
    pairs = read_manifest(corpus[0])
    for texts in ((lambda p: p.tgt_text), (lambda p: (p.src_lang, p.src_text))):
        splits = {}
        for pair in pairs:
            splits.setdefault(texts(pair), set()).add(pair.split)
        assert all(len(found) == 1 for found in splits.values())


def test_an_english_sentence_that_languages_share_is_spoken_once(corpus):
    pairs = read_manifest(corpus[0])
    assert len({p.tgt_audio for p in pairs}) == len({p.tgt_text_raw for p in pairs})
    assert len(list((corpus[0] / "audio" / "en").iterdir())) == len({p.tgt_text_raw for p in pairs})


def test_half_of_the_test_speakers_are_unseen_and_none_of_them_trains(corpus):
    pairs = read_manifest(corpus[0])
    training = {p.speaker for p in pairs if p.split == "train"}
    for code in LANGUAGES:
        unseen = {voice.name for voice in voices.speakers(code, SMALL, unseen=True)}
        assert not training & unseen
        test = [p.speaker in unseen for p in pairs if p.split == "test" and p.src_lang == code]
        assert sum(test) == len(test) // 2


def test_a_killed_build_goes_on_and_ends_with_the_same_bytes(corpus, tmp_path):
    code = (
        "import sys; from pathlib import Path; "
        "from unitweave.corpus.embedded.corpus import EmbeddedCorpus, build_embedded;"
        f"from dataclasses import replace; build_embedded(Path(sys.argv[1]), {SMALL!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stderr=subprocess.DEVNULL)
    _wait_for(lambda: len(list(tmp_path.rglob("*.wav"))) >= 8)
    process.kill()
    process.wait()
    time.sleep(0.5)  # the workers end by themselves when nobody asks any more
    done = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.wav") if not path.name.startswith(".tmp-")}
    total = len(list((corpus[0] / "audio").rglob("*.wav")))
    assert 8 <= len(done) < total
    cut, *kept = done
    cut.write_bytes(cut.read_bytes()[:20])  # what a crash of the machine may leave
    (cut.parent / ".tmp-abc-x.wav").write_bytes(b"half")
    build_embedded(tmp_path, replace(SMALL, workers=1))
    assert all(path.stat().st_mtime_ns == done[path] for path in kept)
    assert _hashes(tmp_path) == _hashes(corpus[0])


def test_ctrl_c_ends_the_build_and_its_workers(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from unitweave.corpus.embedded.corpus import EmbeddedCorpus, build_embedded\n"
        "try: build_embedded(Path(sys.argv[1]), EmbeddedCorpus(train=300, dev=5, test=5, workers=2))\n"
        "except KeyboardInterrupt: sys.exit(130)"
    )
    # A shell that starts the tests in the background has them ignore SIGINT; the build must not inherit that.
    command = [sys.executable, "-c", "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + code]
    process = subprocess.Popen([*command, tmp_path], stderr=subprocess.PIPE)
    _wait_for(lambda: len(list(tmp_path.rglob("*.wav"))) >= 3)
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True).stdout
    workers = [int(pid) for pid in listed.split()]
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=10)[1].decode()
    assert process.returncode == 130 and "Traceback" not in errors
    assert len(workers) == 2
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


def test_what_cannot_be_spoken_is_left_out_and_named(tmp_path, monkeypatch):
    settings = EmbeddedCorpus(train=4, dev=0, test=2)
    real = embedded.plan_pair

    def mute(folder, given, language, split, index, sentence):
        if (split, index) == ("train", 2):
            sentence = replace(sentence, text=sentence.text | {"es": "…"})
        return real(folder, given, language, split, index, sentence)

    monkeypatch.setattr(embedded, "plan_pair", mute)
    outcome = build_embedded(tmp_path, settings)
    assert outcome.skipped == [{"id": "es_train_000002", "reason": "es_train_000002.wav: the text has no words"}]
    assert [p.id for p in read_manifest(tmp_path, "train")] == [f"es_train_{i:06d}" for i in (0, 1, 3)]


def test_it_works_as_a_stage(tmp_path):
    settings = EmbeddedCorpus(train=2, dev=0, test=2)
    first = run_stage(tmp_path, "corpus", settings, {}, lambda folder: build_embedded(folder, settings))
    assert len(read_manifest(tmp_path / "corpus")) == 4
    assert run_stage(tmp_path, "corpus", settings, {}, lambda folder: pytest.fail("done before")) == first


def test_a_folder_with_another_corpus_is_refused(corpus):
    with pytest.raises(InputError, match="another"):
        build_embedded(corpus[0], replace(SMALL, seed=4))


def test_the_digest_names_what_will_be_spoken():
    assert plan_digest(SMALL) == plan_digest(replace(SMALL, workers=5))
    assert plan_digest(SMALL) != plan_digest(replace(SMALL, noise_db=None))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"languages": ["xx"], "train": 5}, "'xx'"),
        ({"languages": []}, "one or more"),
        ({"languages": ["es", "es"]}, "different"),
        ({"languages": ["es", "fr"], "train": {"es": 4}}, "no number for 'fr'"),
        ({"languages": ["es"], "train": {"es": 4, "de": 4}}, "'de'"),
        ({"train": 0}, "above 0"),
        ({"test": -1}, "0 or above"),
        ({"unseen_speaker_ratio": 1.5}, "unseen_speaker_ratio"),
        ({"noise_db": -3.0}, "at least 5 dB"),
    ],
)
def test_settings_that_cannot_be_met_are_bad_input(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        build_embedded(tmp_path, replace(EmbeddedCorpus(), **change))
    assert not list(tmp_path.iterdir())


def test_asking_for_more_than_the_topics_hold_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="the phrasebook has"):
        build_embedded(tmp_path, EmbeddedCorpus(topics=["time"], train=850, dev=5, test=10))
    with pytest.raises(InputError, match="the phrasebook has"):
        embedded_text(EmbeddedCorpus(topics=["time"], train=100, dev=5, test=10), 5000)
    with pytest.raises(InputError, match="no topic 'tiem'"):
        build_embedded(tmp_path, EmbeddedCorpus(topics=["tiem"]))


def test_further_text_is_deterministic_and_holds_nothing_that_is_tested():
    settings = EmbeddedCorpus(languages=LANGUAGES, train=300, dev=20, test=40)
    lines = embedded_text(settings, 1500)
    assert lines == embedded_text(settings, 1500) and len(lines) == 1500
    assert all(set(line) == {*LANGUAGES, "en"} and line["en"] == normalize(line["en"], "en") for line in lines)
    parts = embedded._split(settings)
    taken = {normalize(s.text["en"], "en") for part in parts.values() for s in part}
    assert not taken & {line["en"] for line in lines}
    pairs = {split: {p for s in parts[split] for p in phrasebook.content_pairs(s)} for split in parts}
    held_out = pairs["test"] - pairs["train"]
    keys = {normalize(s.text["en"], "en"): s for s in phrasebook.draw(4000, [], settings.seed + 1)}
    found = [keys[line["en"]] for line in lines if line["en"] in keys]
    assert found and not any(held_out & phrasebook.content_pairs(s) for s in found)


def test_directions_may_be_named_as_people_name_languages() -> None:
    settings = replace(SMALL, directions=["Spanish-English", "EN-deu"], train=5)
    settings.check()
    assert settings.pairs == [("es", "en"), ("en", "de")]
    for wrong in (["es-en", "Spanish-eng"], ["es-en-fr"], ["es-12"]):
        with pytest.raises(InputError, match="must be different pairs of languages such as en-es"):
            replace(SMALL, directions=wrong, train=5).check()
    with pytest.raises(InputError, match="must be different languages such as es"):
        replace(SMALL, languages=["es", "Spanish"], train=5).check()


def test_directions_from_english_and_between_other_languages(tmp_path):
    one, two = LANGUAGES
    settings = replace(SMALL, directions=[f"en-{one}", f"{one}-{two}", "en-en", f"{one}-en"], train=5)
    plan = embedded._plan(tmp_path, settings)
    pairs = [recording.pair for recording in plan]
    assert len({p.id for p in pairs}) == len(pairs) == 4 * (5 + SMALL.dev + SMALL.test)
    assert {(p.src_lang, p.tgt_lang) for p in pairs} == {("en", one), (one, two), ("en", "en"), (one, "en")}
    paths = {}
    for recording in plan:
        assert recording.pair.speaker.startswith(recording.pair.src_lang)
        assert recording.target.voice == voices.target_voice(recording.pair.tgt_lang, settings)
        for utterance in (recording.source, recording.target):
            assert paths.setdefault(utterance.path, utterance) == utterance, "one file, one recording"
    into = [r for r in plan if r.pair.src_lang == one and r.pair.tgt_lang == "en"]
    assert into == embedded._plan(tmp_path, replace(settings, directions=[], languages=[one]))


def _wait_for(ready, seconds=30):
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
