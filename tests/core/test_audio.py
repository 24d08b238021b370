"""Recordings as users have them: formats, rates, channels, damage; none of it a traceback, all within memory."""

import os
import shutil
import signal
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.serving import speech
from unitweave.core import ffmpeg
from unitweave.core.audio import SAMPLE_RATE, header_seconds, read_audio, stream_audio, write_audio
from unitweave.core.errors import AudioError, InputError

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2), (8_000, 1)])
def test_a_stream_gives_what_reading_at_once_gives(suffix: str, rate: int, channels: int, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    samples = np.stack([speech(2.0, seed) for seed in range(channels)], axis=1)
    soundfile.write(path, samples, rate, format=suffix.upper() if suffix != "ogg" else "OGG")
    whole = read_audio(path)
    streamed = np.concatenate(list(stream_audio(path)))
    assert len(whole) == len(streamed)
    np.testing.assert_allclose(streamed, whole, atol=2e-4)


def test_blocks_are_small_and_make_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unitweave.core.audio._BLOCK_VALUES", 40_000)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([speech(5.0)] * 2, axis=1), 44_100)
    blocks = list(stream_audio(path))
    assert len(blocks) >= 5 and max(map(len, blocks)) < 40_000
    np.testing.assert_allclose(np.concatenate(blocks), read_audio(path), atol=2e-4)
    assert header_seconds(path) == pytest.approx(80_000 / 44_100)


@pytest.mark.processes
@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["m4a", "webm", "mka"])
def test_what_soundfile_does_not_know_goes_through_ffmpeg(suffix: str, tmp_path: Path) -> None:
    source, path = tmp_path / "a.wav", tmp_path / f"-name with $(x) and spaces.{suffix}"
    soundfile.write(source, speech(2.0), 16_000)
    subprocess.run(["ffmpeg", "-v", "error", "-i", source, f"file:{path}"], check=True, stdin=subprocess.DEVNULL)
    waveform = read_audio(path)
    assert abs(len(waveform) - 32_000) < 2_000 and np.abs(waveform).max() > 0.05


@needs_ffmpeg
def test_a_playlist_cannot_make_ffmpeg_open_other_files(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "secret.wav", speech(1.0), 16_000)
    for name, text in {
        "a.m3u8": f"#EXTM3U\n#EXTINF:1,\nfile:{tmp_path}/secret.wav\n#EXT-X-ENDLIST\n",
        "b.wav": f"ffconcat version 1.0\nfile {tmp_path}/secret.wav\n",
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match="not readable"):
            read_audio(tmp_path / name)


def wav(rate: int, channels: int, body: bytes, bits: int = 16, kind: int = 1, claimed: int | None = None) -> bytes:
    """A wav file with whatever header one likes."""
    size = len(body) if claimed is None else claimed
    head = struct.pack(
        "<HHIIHH", kind, channels, rate, rate * channels * bits // 8 & 0xFFFFFFFF, channels * bits // 8 & 0xFFFF, bits
    )
    return b"RIFF" + struct.pack("<I", (36 + size) & 0xFFFFFFFF) + b"WAVEfmt " + struct.pack("<I", 16) + head + (
        b"data" + struct.pack("<I", size & 0xFFFFFFFF) + body
    )  # fmt: skip


def mp3(tmp_path: Path) -> bytes:
    soundfile.write(tmp_path / "whole.mp3", speech(2.0), 16_000, format="MP3")
    return (tmp_path / "whole.mp3").read_bytes()


def damaged(tmp_path: Path) -> dict[str, tuple[bytes, bool]]:
    """Name -> content, and whether it has to be refused (otherwise a clean result is as good)."""
    pcm = (speech(1.0) * 32_000).astype("<i2").tobytes()
    whole = mp3(tmp_path)
    nan = np.full(16_000, np.nan, "<f4").tobytes()
    return {
        "zero length": (b"", True),
        "random bytes": (np.random.default_rng(0).bytes(20_000), True),
        "text": (b"this is no audio\n" * 100, True),
        "only a header": (wav(16_000, 1, b""), True),
        "half a header": (wav(16_000, 1, pcm)[:30], True),
        "truncated wav": (wav(16_000, 1, pcm)[:10_001], False),
        "a header that claims four gigabytes": (wav(16_000, 1, pcm, claimed=0xFFFFFFF0), False),
        "truncated mp3": (whole[: len(whole) // 3], False),
        "mp3 with a hole": (whole[:500] + bytes(300) + whole[1500:], False),
        "NaN": (wav(16_000, 1, nan, 32, 3), True),
        "0 Hz": (wav(0, 1, pcm), True),
        "1 Hz": (wav(1, 1, pcm), True),
        "4 GHz": (wav(0xFFFFFFFF, 1, pcm), True),
        "0 channels": (wav(16_000, 0, pcm), True),
        "64 channels": (wav(16_000, 64, pcm * 64), False),
        "65535 channels": (wav(16_000, 65_535, pcm), True),
        "wrong header": (b"OggS" + wav(16_000, 1, pcm)[4:], True),
        "flac header on noise": (b"fLaC" + np.random.default_rng(1).bytes(5_000), True),
    }


def test_damaged_recordings_give_one_clear_line_or_a_clean_result(tmp_path: Path) -> None:
    for name, (content, refused) in damaged(tmp_path).items():
        path = tmp_path / "upload.bin"
        path.write_bytes(content)
        try:
            waveform = read_audio(path, "the recording", max_seconds=60)
        except InputError as error:
            assert str(error).startswith("the recording: ") and "\n" not in str(error), name
            assert str(tmp_path) not in str(error), "a client learns nothing of our folders"
        else:
            assert not refused, name
            assert np.isfinite(waveform).all() and 0 < len(waveform) <= 60 * 16_000


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, 60), junk=st.binary(max_size=60), kind=st.sampled_from(["wav", "mp3", "flac"]))
def test_fuzzed_headers_never_end_in_a_traceback(start: int, junk: bytes, kind: str, tmp_path: Path) -> None:
    whole = tmp_path / f"base.{kind}"
    if not whole.exists():
        soundfile.write(whole, speech(0.5), 16_000, format=kind.upper())
    data = whole.read_bytes()
    path = tmp_path / "fuzzed.bin"
    path.write_bytes(data[:start] + junk + data[start + len(junk) :])
    monkey = pytest.MonkeyPatch()
    monkey.setattr("shutil.which", lambda name: None)  # ffmpeg is for other formats and takes its time
    try:
        waveform = read_audio(path, max_seconds=60)
        assert np.isfinite(waveform).all()
    except InputError as error:
        assert "\n" not in str(error)
    finally:
        monkey.undo()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it is empty"),
        (b"hello, no sound\n" * 50, "it is text"),
        ("señal, ningún sonido".encode(), "it is text"),
        (b"<!DOCTYPE html>\n<HTML><body>404</body></HTML>", "it is a web page"),
        (b"\x89PNG\r\n\x1a\n" + bytes(300), "it is a picture"),
        (b"\x93NUMPY\x01\0" + bytes(300), "it is a NumPy array"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "it is a pointer of Git LFS"),
    ],
)
def test_a_file_that_is_no_recording_is_called_what_it_is(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(AudioError, match=rf"not readable as audio \({told}"):
        read_audio(tmp_path / "a.wav")


def test_a_pipe_in_place_of_a_file_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    assert header_seconds(tmp_path / "a.wav") is None
    with pytest.raises(AudioError, match="not a file"):
        read_audio(tmp_path / "a.wav")


def test_an_hour_of_silence_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "hour.flac"
    with soundfile.SoundFile(path, "w", 8_000, 1, format="FLAC") as file:
        for _ in range(60):
            file.write(np.zeros(8_000 * 60, np.float32))
    assert path.stat().st_size < 200_000, "a small file that becomes large"
    with pytest.raises(InputError, match=r"too long \(3600 s; at most 60 s"):
        read_audio(path, max_seconds=60)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2), (48_000, 1)])
def test_a_whole_recording_has_the_digits_of_one_read_and_one_resampling(
    suffix: str, rate: int, channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recordings of corpora that exist stay what they are, bit by bit, whatever the size of the blocks."""
    monkeypatch.setattr("unitweave.core.audio._BLOCK_VALUES", 20_000)
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.stack([speech(3.0, seed) for seed in range(channels)], axis=1), rate)
    with soundfile.SoundFile(path) as file:  # soundfile.read would seek first, which changes the digits of an MP3
        expected = file.read(dtype="float32", always_2d=True).mean(axis=1)
    if rate != 16_000:
        expected = soxr.resample(expected, rate, 16_000, quality="HQ")
    np.testing.assert_array_equal(read_audio(path), expected)
    np.testing.assert_array_equal(read_audio(path.read_bytes()), expected)


@pytest.mark.parametrize("subtype", ["GSM610", "G721_32"])
def test_encodings_that_cannot_be_rewound_are_read(subtype: str, tmp_path: Path) -> None:
    path = tmp_path / "phone.wav"
    soundfile.write(path, speech(1.0), 8_000, subtype=subtype)
    assert len(read_audio(path)) == len(read_audio(path.read_bytes())) == pytest.approx(32_000, abs=700)


@needs_ffmpeg
def test_a_stream_without_a_length_is_bounded_as_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stream.flac"
    soundfile.write(path, speech(3.0), 16_000)
    content = bytearray(path.read_bytes())
    content[21:26] = bytes([content[21] & 0xF0, 0, 0, 0, 0])  # the number of samples, as where FLAC comes from a pipe
    path.write_bytes(content)
    assert header_seconds(path) is None
    for source in (path, path.read_bytes()):
        assert len(read_audio(source)) == 48_000
        with pytest.raises(AudioError, match="too long"):
            read_audio(source, max_seconds=2)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(AudioError, match="does not say how long it is; with ffmpeg installed more"):
        read_audio(path)


@pytest.mark.slow
def test_an_ffmpeg_that_hangs_or_never_ends_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.m4a").write_bytes(b"\0not for soundfile")
    program = tmp_path / "ffmpeg"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(ffmpeg, "_PATIENCE", 0.2)
    for script, problem in (("sleep 60", "no output for 0 s"), ("while :; do :; done", "no output")):
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        with pytest.raises(AudioError, match=problem):
            read_audio(tmp_path / "a.m4a")
    monkeypatch.setattr(ffmpeg, "_PATIENCE", 20.0)
    monkeypatch.setattr(ffmpeg, "_SECONDS", 1)
    with pytest.raises(AudioError, match="more processor time than it is allowed"):
        read_audio(tmp_path / "a.m4a")


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_an_interrupted_sound_is_written_whole_or_not_at_all(suffix: str, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, 20 * SAMPLE_RATE)
    write_audio(whole := tmp_path / f"whole.{suffix}", waveform)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in range(30):
            path = tmp_path / f"{number}.{suffix}"
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.0002 * (number + 1), 1)
                write_audio(path, waveform)
                signal.pause()  # it was written first
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert not path.exists() or path.read_bytes() == whole.read_bytes()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
