"""Files that hold several recordings, sound at the scale of integers, and recordings that changed after all."""

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.serving import speech
from unitweave.core.audio import header_seconds, read_audio, stream_audio
from unitweave.core.errors import AudioError
from unitweave.core.joined import locate_recordings


def encoded(path: Path, seconds: float, rate: int = 16_000, **options: str) -> bytes:
    soundfile.write(path, speech(seconds * rate / 16_000), rate, **options)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", ["mp3", "ogg", "opus", "flac", "wav", "au"])
def test_files_put_one_after_the_other_give_all_their_sound(suffix: str, tmp_path: Path) -> None:
    options = {"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}
    first = encoded(tmp_path / f"a.{suffix}", 1.5, **options)
    second = encoded(tmp_path / f"b.{suffix}", 1.0, 8_000 if suffix != "opus" else 16_000, **options)
    alone = [read_audio(content) for content in (first, second)]
    for content, expected in ((first + second, alone), (first + second + first, [*alone, alone[0]])):
        path = tmp_path / f"joined.{suffix}"
        path.write_bytes(content)
        found = read_audio(path)
        assert len(found) == sum(map(len, expected))
        np.testing.assert_allclose(found, np.concatenate(expected), atol=2e-4)
        assert len(np.concatenate(list(stream_audio(path)))) == len(read_audio(content)) == len(found)
        assert header_seconds(path) is None, "no header knows it"
        with pytest.raises(AudioError, match="too long"):
            read_audio(path, max_seconds=2)
    assert len(locate_recordings(memoryview(first))) == 1


@pytest.mark.parametrize("claimed", [0, 2, 8_000])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW"])
def test_a_wav_whose_recorder_never_wrote_its_length_is_read_to_its_end(
    subtype: str, claimed: int, tmp_path: Path
) -> None:
    whole = encoded(tmp_path / "a.wav", 2.0, subtype=subtype)
    at = whole.index(b"data")
    cut = whole[:4] + (at + claimed).to_bytes(4, "little") + whole[8 : at + 4] + claimed.to_bytes(4, "little")
    unfinished = cut + whole[at + 8 :]
    (tmp_path / "b.wav").write_bytes(unfinished)
    for source in (unfinished, tmp_path / "b.wav"):
        found, expected = read_audio(source), read_audio(whole)
        np.testing.assert_array_equal(found[: len(expected)], expected)  # chunks behind the sound may follow
        assert len(found) < len(expected) + 100


def test_chunks_tags_and_stray_bytes_behind_a_wav_are_no_sound(tmp_path: Path) -> None:
    whole = encoded(tmp_path / "a.wav", 1.0)
    chunk = b"LIST" + (3000).to_bytes(4, "little") + b"INFO" + bytes(2996)
    for rest in (chunk, b"ID3\x03" + bytes(5000), b"TAG" + bytes(125), bytes(700)):
        np.testing.assert_array_equal(read_audio(whole + rest), read_audio(whole))
    assert len(locate_recordings(memoryview(whole[: whole.index(b"data")] + b"LIST"))) == 1


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_an_mp3_without_a_number_of_frames_or_with_a_wrong_one_is_read_to_its_end(mode: str, tmp_path: Path) -> None:
    whole = encoded(tmp_path / "a.mp3", 3.0, bitrate_mode=mode)
    at = whole.index(b"Xing" if b"Xing" in whole[:100] else b"Info")
    wrong = whole[: at + 8] + (5).to_bytes(4) + whole[at + 12 :]
    unmarked = whole[locate_recordings(memoryview(wrong))[0].start :]
    for content in (wrong, unmarked, unmarked + unmarked, whole + unmarked):
        times = 2 if len(content) > 1.5 * len(whole) else 1
        assert len(read_audio(content)) / 16_000 == pytest.approx(3.0 * times, abs=0.25)


def test_what_stands_before_and_behind_an_mp3_is_no_recording(tmp_path: Path) -> None:
    whole = encoded(tmp_path / "a.mp3", 1.0)
    for content in (whole + b"TAG" + bytes(125), b"ID3\x03\0\0\0\0\x08\x00" + bytes(1024) + whole):
        np.testing.assert_array_equal(read_audio(content), read_audio(whole))


def test_a_joined_file_whose_second_half_is_damaged_is_refused_or_read(tmp_path: Path) -> None:
    whole = encoded(tmp_path / "a.flac", 1.0)
    with pytest.raises(AudioError, match=f"not readable as audio .byte {len(whole)}"):
        read_audio(whole + whole[:30])


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("scale", [2**15 - 1, 2**23 - 1, 2**31 - 1])
def test_floats_at_the_scale_of_integers_are_scaled_down(subtype: str, scale: int, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    samples = speech(1.0).astype(np.float64)
    soundfile.write(path, samples * scale, 16_000, subtype=subtype)
    np.testing.assert_allclose(read_audio(path), samples, atol=1e-4)
    np.testing.assert_allclose(np.concatenate(list(stream_audio(path))), samples, atol=1e-4)


def test_floats_beyond_full_scale_keep_their_shape(tmp_path: Path) -> None:
    samples = speech(1.0).astype(np.float64)
    samples /= np.abs(samples).max()
    for loud, peak in ((1.3, 1.3), (5.0, 1.0)):
        soundfile.write(tmp_path / "a.wav", samples * loud, 16_000, subtype="FLOAT")
        np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), samples * peak, atol=1e-5)
    soundfile.write(tmp_path / "a.wav", samples * 1e12, 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match="impossible sample values"):
        read_audio(tmp_path / "a.wav")


def test_frames_of_gsm_without_a_header_are_read(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.gsm", speech(1.0), 8_000, format="RAW", subtype="GSM610")
    assert len(read_audio(tmp_path / "a.gsm")) == pytest.approx(32_000, abs=700)


def test_a_recording_that_lasts_otherwise_than_its_manifest_says_is_refused(tmp_path: Path) -> None:
    encoded(tmp_path / "a.wav", 4.0)
    for known in (4.0, 4.05, 0.0, None):
        read_audio(tmp_path / "a.wav", expected_seconds=known)
    for wrong in (2.0, 8.0):
        with pytest.raises(AudioError, match=f"changed after the corpus was built .4.00 s, {wrong:.2f} s in the man"):
            read_audio(tmp_path / "a.wav", expected_seconds=wrong)


_BEGINNINGS = st.sampled_from(
    [b"ID3\x04", b"OggS", b"fLaC\x00\x00\x00\x22", b"RIFF", b"\xff\xfb\x90\x64", b"\xff\xf3\x40\xc4"]
)
_PIECES = st.lists(
    st.one_of(_BEGINNINGS, st.sampled_from([b"Xing", b"Info", b"\0" * 30]), st.binary(max_size=40)), max_size=12
)


@example(b"ID3\x04", [b"\0\0\x7f\x7f\x7f\x7f", bytes(100)])
@example(b"\xff\xfb\x90\x64", [bytes(32), b"Xing"])
@given(_BEGINNINGS, _PIECES)
def test_damaged_beginnings_are_cut_into_parts_of_themselves(head: bytes, rest: list[bytes]) -> None:
    data = memoryview(head + b"".join(rest))
    parts = locate_recordings(data)
    assert all(0 <= part.start <= part.end <= len(data) for part in parts)
    assert all(a.end == b.start or b.head for a, b in pairwise(parts))


def test_a_file_of_tags_alone_is_refused_in_one_line() -> None:
    with pytest.raises(AudioError, match="not readable"):
        read_audio(b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(100))


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    content = b"".join(name + len(data).to_bytes(4, "little") + data + bytes(len(data) % 2) for name, data in chunks)
    return b"RIFF" + (len(content) + 4).to_bytes(4, "little") + b"WAVE" + content


def in_memory(seconds: float, suffix: str, **options: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, speech(seconds), 16_000, format=suffix, **options)
    return file.getvalue()


def wav_chunks() -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    """Format and sound of a second of noise."""
    content = in_memory(1.0, "wav", subtype="PCM_16")
    return (b"fmt ", content[20:36]), (b"data", content[44:])


@pytest.mark.parametrize("name", [b"id3 ", b"cue ", b"PAD ", b"_PMX", b"LIST", b"iXML"])
def test_chunks_of_any_name_behind_a_wav_are_no_sound(name: bytes) -> None:
    content = riff(*wav_chunks(), (name, bytes(range(1, 251)) * 20))
    assert len(read_audio(content)) == 16_000
    # Also where the header does not know how long the sound is, and there is none.
    empty = riff(wav_chunks()[0], (b"data", b""), (name, bytes(range(1, 251)) * 20))
    with pytest.raises(AudioError, match="the audio is empty"):
        read_audio(empty)


def test_zeros_that_fill_up_a_block_are_no_sound() -> None:
    assert len(read_audio(riff(*wav_chunks()) + bytes(5000))) == 16_000
    assert len(read_audio(in_memory(1.0, "ogg", subtype="OPUS") + bytes(5000))) == pytest.approx(16_000, abs=1)


def test_mp3_within_a_wav_is_read() -> None:
    mp3 = in_memory(1.0, "mp3")
    header = b"\x55\0" + wav_chunks()[0][1][2:]
    assert np.array_equal(read_audio(riff((b"fmt ", header), (b"data", mp3))), read_audio(mp3))


@pytest.mark.parametrize("suffix", ["wav", "mp3"])
def test_a_recording_that_was_cut_off_is_refused_where_all_of_it_is_needed(suffix: str) -> None:
    content = in_memory(2.0, suffix)
    read_audio(content, complete=True)
    cut = content[: len(content) // 2]
    assert 0 < len(read_audio(cut)) < 17_000, "what is there can still be translated"
    with pytest.raises(
        AudioError, match=r"the recording is cut off \(its header announces more; only [345]\d% is there"
    ):
        read_audio(cut, complete=True)
    streamed = content[:4] + b"\xff" * 4 + content[8:40] + b"\xff" * 4 + content[44:]
    if suffix == "wav":  # a stream whose length nobody knew
        assert len(read_audio(streamed, complete=True)) == 32_000


def test_many_channels_that_cancel_each_other_leave_the_loudest() -> None:
    sound = speech(1.0)
    file = io.BytesIO()
    soundfile.write(file, np.stack([0.5 * sound, sound, -sound, -0.5 * sound], axis=1), 16_000, format="WAV")
    assert np.abs(read_audio(file.getvalue()) - sound).max() < 1e-3
